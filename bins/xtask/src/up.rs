//! `cargo xtask up`: the platform on this machine. Owns what must stand before the all-in-one
//! program starts, and the passing on of its flags; what the flags do is the program's own affair.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::{image, process, tools};

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Create a server as a customer would, let its guest prove itself, clean up and exit
    #[arg(long)]
    pub(crate) smoke: bool,
    /// Where all state is kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The address the public API listens on
    #[arg(long, value_name = "ADDR")]
    pub(crate) api: Option<SocketAddr>,
    /// How long the smoke may take in all
    #[arg(long, value_name = "N")]
    pub(crate) seconds: Option<NonZeroU32>,
    /// Leave the guests running at the end; the next `up` on the data directory adopts them
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Prepares the machine and becomes the all-in-one program, so that its signals and its exit status
/// are this command's.
pub(crate) fn run(args: &Args) -> Result<()> {
    tools::ensure_packages()?;
    let image = image::run(image::Args::default())?;
    process::become_command(&mut allinone(args, Profile::Release, &image)?)
}

/// The proof alone, in the profile that the tests build anyway.
pub(crate) fn smoke() -> Result<()> {
    let image = image::run(image::Args::default())?;
    let args = Args { smoke: true, ..Args::default() };
    process::run(&mut allinone(&args, Profile::Dev, &image)?)
}

/// Which of cargo's profiles a program is built in.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// What the tests are built in.
    Dev,
    /// What is measured and used.
    Release,
}

/// The all-in-one program with the flags given and the image as [`image::run`] answers it.
pub(crate) fn allinone(args: &Args, profile: Profile, image: &Path) -> Result<Command> {
    let mut command = process::cargo(["run", "--quiet", "-p", "elasticstack-bin-allinone"])?;
    if let Profile::Release = profile {
        command.arg("--release");
    }
    command.args(["--", "--image"]).arg(image.with_extension("json"));
    if args.smoke {
        command.arg("--smoke");
    }
    if let Some(dir) = &args.data_dir {
        command.arg("--data-dir").arg(std::path::absolute(dir)?);
    }
    if let Some(api) = args.api {
        command.arg("--api").arg(api.to_string());
    }
    if let Some(seconds) = args.seconds {
        command.arg("--seconds").arg(seconds.to_string());
    }
    if args.keep {
        command.arg("--keep");
    }
    Ok(command)
}
