//! `cargo xtask up`: the platform on this machine. Owns what must stand before the all-in-one
//! program starts, and the passing on of its flags; what the flags do is the program's own affair.

use std::env;
use std::fs::{self, File};
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::image::{self, Image};
use crate::{process, tools};

/// How long the smoke of a full Debian may take, in seconds, unless told.
const PATIENCE: Option<NonZeroU32> = NonZeroU32::new(1_800);

#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Create a server as a customer would, let its guest prove itself, clean up and exit
    #[arg(long)]
    pub(crate) smoke: bool,
    /// Offer this image too, built if need be; with --smoke it is the one that proves itself
    #[arg(long, value_enum, value_name = "IMAGE")]
    pub(crate) image: Option<Image>,
    /// Where all state is kept
    #[arg(long, value_name = "DIR")]
    pub(crate) data_dir: Option<PathBuf>,
    /// The address the public API listens on
    #[arg(long, value_name = "ADDR")]
    pub(crate) api: Option<SocketAddr>,
    /// The address the panel listens on
    #[arg(long, value_name = "ADDR")]
    pub(crate) panel: Option<SocketAddr>,
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
    print!("{}", outlook(&tools::missing_packages()?, is_built()?, kvm()));
    tools::ensure_packages()?;
    let images = images(args)?;
    process::become_command(&mut allinone(args, Profile::Release, &images)?)
}

/// The images to offer. A smoke needs the one that it proves; else `tiny` is there, the one asked
/// for, and what was built before.
fn images(args: &Args) -> Result<Vec<PathBuf>> {
    let asked = args.image.unwrap_or_default();
    tools::ensure_for_image(asked)?;
    let asked = image::run(image::Args { image: asked, cache: None })?;
    if args.smoke {
        return Ok(vec![asked]);
    }
    let mut images = vec![image::run(image::Args::default())?];
    for other in std::iter::once(asked).chain(image::present()?) {
        if !images.contains(&other) {
            images.push(other);
        }
    }
    Ok(images)
}

/// What is going to happen, before it does: installed, built, on which CPU, at which cost.
fn outlook(missing: &[&str], is_built: bool, kvm: Result<(), String>) -> String {
    let install = match missing {
        [] => "nothing, all packages are there".to_owned(),
        missing => format!(
            "{} with apt-get, by sudo if you are not root: about 500 MB, 2 minutes",
            missing.join(", ")
        ),
    };
    let build = match is_built {
        true => "what changed since the last time",
        false => {
            "the programs and the guest image, without root: about 1.5 GB, 10 minutes on 2 cores"
        }
    };
    let guests = match kvm {
        Ok(()) => "KVM".to_owned(),
        Err(why) => format!("software CPU, some twenty times slower: {why}"),
    };
    format!("to install  {install}\nto build    {build}\nguests on   {guests}\n")
}

/// Whether the program was built for use before: then little is left to do.
fn is_built() -> Result<bool> {
    let ours = env::current_exe().context("find the directory of built programs")?;
    let target = ours.ancestors().nth(2).context("xtask is run by cargo")?;
    Ok(target.join("release/elasticstack-allinone").exists())
}

/// Whether guests will run on KVM. The program looks more closely, by an ioctl that xtask cannot
/// make, and says on its `READY` lines what it found.
fn kvm() -> Result<(), String> {
    let device = File::options().read(true).write(true).open("/dev/kvm");
    device.map_err(|error| format!("/dev/kvm does not open ({error})"))?;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let mut flags = cpuinfo.lines().filter(|line| line.starts_with("flags"));
    let virtualises = |line: &str| line.split(' ').any(|flag| flag == "vmx" || flag == "svm");
    match flags.any(virtualises) {
        true => Ok(()),
        false => Err("the processor shows neither vmx nor svm".to_owned()),
    }
}

/// The proof alone, in the profile that the tests build anyway.
pub(crate) fn smoke() -> Result<()> {
    let args = Args { smoke: true, ..Args::default() };
    process::run(&mut allinone(&args, Profile::Dev, &images(&args)?)?)
}

/// The same of a full Debian.
pub(crate) fn smoke_debian() -> Result<()> {
    let args = Args { smoke: true, image: Some(Image::Debian12), ..Args::default() };
    process::run(&mut allinone(&args, Profile::Dev, &images(&args)?)?)
}

/// Which of cargo's profiles a program is built in.
#[derive(Clone, Copy)]
pub(crate) enum Profile {
    /// What the tests are built in.
    Dev,
    /// What is measured and used.
    Release,
}

/// The all-in-one program with the flags given and images as [`image::run`] answers them.
pub(crate) fn allinone(
    args: &Args,
    profile: Profile,
    images: &[impl AsRef<Path>],
) -> Result<Command> {
    let mut command = process::cargo(["run", "--quiet", "-p", "elasticstack-bin-allinone"])?;
    if let Profile::Release = profile {
        command.arg("--release");
    }
    command.arg("--");
    for image in images {
        command.arg("--image").arg(image.as_ref().with_extension("json"));
    }
    if args.smoke {
        command.arg("--smoke");
    }
    if let Some(dir) = &args.data_dir {
        command.arg("--data-dir").arg(std::path::absolute(dir)?);
    }
    for (flag, address) in [("--api", args.api), ("--panel", args.panel)] {
        if let Some(address) = address {
            command.arg(flag).arg(address.to_string());
        }
    }
    // A software CPU takes minutes to boot a whole Debian.
    let patience = args.image.filter(|image| *image == Image::Debian12).and(PATIENCE);
    if let Some(seconds) = args.seconds.or(patience) {
        command.arg("--seconds").arg(seconds.to_string());
    }
    if args.keep {
        command.arg("--keep");
    }
    Ok(command)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_user_is_told_first_what_is_installed_and_built_and_what_guests_run_on() {
        let cold = outlook(&["qemu-system-x86", "kmod"], false, Err("no /dev/kvm".to_owned()));
        for told in ["qemu-system-x86, kmod", "sudo", "500 MB", "1.5 GB", "minutes", "no /dev/kvm"]
        {
            assert!(cold.contains(told), "{told}: {cold}");
        }
        let warm = outlook(&[], true, Ok(()));
        for told in ["nothing", "what changed", "KVM"] {
            assert!(warm.contains(told), "{told}: {warm}");
        }
    }
}
