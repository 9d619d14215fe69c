//! The project's own commands. Each is a module with one entry point, `run`.

mod image;

use clap::Parser;

#[derive(Parser)]
#[command(name = "cargo xtask", about)]
enum Command {
    /// Builds the standard drive `tiny` in the cache, unless it is there and its inputs are the same
    Image(image::Args),
}

fn main() -> anyhow::Result<()> {
    match Command::parse() {
        Command::Image(args) => println!("{}", image::run(args)?.display()),
    }
    Ok(())
}
