//! The project's own commands. This file owns the command line and nothing else: each command is a
//! module with one `run`.

mod bench;
mod browser;
mod fuzz;
mod goldens;
mod image;
mod judge;
mod kit_report;
mod lab;
mod layers;
mod process;
mod product;
mod stages;
mod storm;
mod tools;
mod up;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "The project's own commands")]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the whole platform on this machine
    Up(up::Args),
    /// Run every check and test, as CI does
    Test(stages::Args),
    /// Check the crates' edges and the house rules of the tree
    Layers(layers::Args),
    /// Build a standard drive in the cache, if it is not there
    Image(image::Args),
    /// Make the kernel that containers boot, and its RAM disk, in the cache
    Kernel,
    /// Boot machines with Debian's full kernel, and run something on them
    Lab(lab::Args),
    /// Let an outside program judge the running product
    Judge(judge::Args),
    /// Kill the product at any instant and judge what comes of it
    Storm(storm::Args),
    /// Run the conformance kits on every backend and print backend × clause
    KitReport,
    /// Measure the running product beside a peer
    Bench(bench::Args),
    /// Rewrite the golden files from what the code says now
    Goldens,
}

fn main() -> ExitCode {
    let outcome = match Cli::parse().command {
        Command::Up(args) => up::run(&args),
        Command::Test(args) => stages::run(&args),
        Command::Layers(args) => layers::run(&args),
        Command::Image(args) => tools::ensure_for_image(args.image)
            .and_then(|()| image::run(args))
            .map(|path| println!("{}", path.display())),
        Command::Kernel => image::kernel(),
        Command::Lab(args) => lab::run(&args),
        Command::Judge(args) => judge::run(&args),
        Command::Storm(args) => storm::run(&args),
        Command::KitReport => kit_report::run(),
        Command::Bench(args) => bench::run(&args),
        Command::Goldens => goldens::run(),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
