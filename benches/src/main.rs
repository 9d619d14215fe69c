//! Measures the product, or a part of it, and judges it by its goals. Started by
//! `cargo xtask bench NAME`, which brings up what is to be up; this file owns the command line alone.

mod boot;
mod by_hand;
mod clone;
mod customer;
mod footprint;
mod iscsi;
mod lent;
mod place;
mod qmp;
mod scale;
mod start;
mod table;

use clap::{Parser, Subcommand};

/// As in the API server's program.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    Place(place::Args),
    /// The control plane with a large fleet
    Scale(scale::Args),
    /// Cloning drives on XFS
    Clone(clone::Args),
    /// A container's way to its init, beside QEMU's
    Boot(boot::Args),
    /// Our target of iSCSI beside tgt
    Iscsi(iscsi::Args),
    /// A part of a rig: the fleet
    #[command(hide = true)]
    Fleet(scale::fleet::Args),
    /// A part of a rig: the API server
    #[command(hide = true)]
    Control(scale::control::Args),
    /// A part of a rig: what makes load
    #[command(hide = true)]
    Load(scale::load::Args),
}

fn main() -> anyhow::Result<()> {
    let bench = Cli::parse().bench;
    let runtime = match &bench {
        Bench::Control(args) => elasticstack_api::runtime(args.database())?,
        _ => tokio::runtime::Runtime::new()?,
    };
    runtime.block_on(run(bench))
}

/// On worker threads, so that what blocks here does not hold up the client's connection.
async fn run(bench: Bench) -> anyhow::Result<()> {
    match bench {
        Bench::Start(args) => start::run(&args).await,
        Bench::Place(args) => place::run(&args).await,
        Bench::Scale(args) => scale::run(&args).await,
        Bench::Clone(args) => clone::run(&args).await,
        Bench::Boot(args) => boot::run(&args).await,
        Bench::Iscsi(args) => iscsi::run(&args).await,
        Bench::Fleet(args) => scale::fleet::run(&args).await,
        Bench::Control(args) => scale::control::run(&args).await,
        Bench::Load(args) => scale::load::run(&args).await,
    }
}
