//! Measures the product, or a part of it, and judges it by its goals. Started by
//! `cargo xtask bench NAME`, which brings up what is to be up; this file owns the command line alone.

mod by_hand;
mod customer;
mod footprint;
mod place;
mod qmp;
mod start;
mod table;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "What ElasticStack costs, judged by its goals")]
struct Cli {
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Subcommand)]
enum Bench {
    /// Starting a server, creating a drive, doing nothing
    Start(start::Args),
    /// Deciding where drives and servers go
    Place,
}

/// On worker threads, so that what blocks here does not hold up the client's connection.
#[tokio::main]
async fn main() -> anyhow::Result<()> {
    match Cli::parse().bench {
        Bench::Start(args) => start::run(&args).await,
        Bench::Place => place::run(),
    }
}
