//! `debian-12`: a full Debian with cloud-init and sshd, made by mmdebstrap.
//!
//! Owns what is installed and as whom. It needs no root where this user may have a user namespace with
//! ids of its own; else sudo. The disk itself is made by `debian-12.sh`, in there.
//!
//! It is built again for each point release of Debian and when its builder changes, not for each
//! update of a package: a guest brings itself up to date. Two builds differ in what the packages
//! were at their time.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::workshop::{Tools, Workshop, locate, output};
use super::{Draft, Inputs, builder, debian};
use crate::process;

const SUITE: &str = "bookworm";
/// Its version names the point release.
const RELEASE: &str = "base-files";
const SCRIPT: &str = include_str!("debian-12.sh");

/// Beside what every Debian has. Without D-Bus nobody hears the power button; the kernel for clouds has no driver for
/// half of our disks.
const PACKAGES: [&str; 8] = [
    "ca-certificates",
    "cloud-guest-utils",
    "cloud-init",
    "dbus",
    "grub-pc",
    "linux-image-amd64",
    "openssh-server",
    "sudo",
];

/// What the script says too.
const RAW_SIZE: u64 = 2_048 << 20;
const ROOT: &str = "3f8a6c1e-5b0d-4e7a-9c42-646562313202";

pub(super) const TOOLS: Tools =
    &[("apt-cache", "apt"), ("mke2fs", "e2fsprogs"), ("mmdebstrap", "mmdebstrap")];

pub(super) fn inputs(workshop: &Workshop) -> Result<Inputs> {
    let release = debian::candidate(workshop, RELEASE)?;
    let own = ("release".to_owned(), release.to_string());
    Ok([own, builder(&[include_str!("debian_12.rs"), SCRIPT])].into_iter().collect())
}

pub(super) fn build(workshop: &Workshop) -> Result<Draft> {
    let file = workshop.path("debian-12.gz");
    let mut bootstrap = bootstrap(workshop)?;
    bootstrap
        .args(["--variant=important", "--format=null"])
        .arg(format!("--include={}", PACKAGES.join(",")))
        // Half of the time; what a crash would leave is no image anyway.
        .arg("--dpkgopt=force-unsafe-io")
        // Before the kernel, so that its initramfs can check the root file system.
        .arg(format!("--essential-hook=echo 'UUID={ROOT} / ext4 errors=remount-ro,discard 0 1' >\"$1/etc/fstab\""))
        .arg(format!("--customize-hook={SCRIPT}"))
        .arg(format!("--customize-hook=download /disk.gz '{}'", file.display()))
        .args([SUITE, "/dev/null"]);
    output(&mut bootstrap)?;
    Ok(Draft { file, rawsize: Some(RAW_SIZE) })
}

/// mmdebstrap as whoever may do it.
fn bootstrap(workshop: &Workshop) -> Result<Command> {
    let mode = Mode::of_this_machine()?;
    let mut command = match mode {
        Mode::Root | Mode::Unshare => workshop.command("mmdebstrap")?,
        Mode::Sudo => {
            // sudo keeps no variables.
            let mut sudo = workshop.command("sudo")?;
            sudo.arg("env");
            sudo.args(Workshop::ENVIRONMENT.map(|(name, value)| format!("{name}={value}")));
            sudo.arg("mmdebstrap");
            sudo
        }
    };
    command.arg(match mode {
        Mode::Root | Mode::Sudo => "--mode=root",
        Mode::Unshare => "--mode=unshare",
    });
    Ok(command)
}

/// As whom a file system with many owners is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Root,
    Unshare,
    Sudo,
}

impl Mode {
    fn of_this_machine() -> Result<Self> {
        // The owner of our own entry in /proc is our effective user.
        let user = fs::metadata("/proc/self").context("/proc cannot be read")?.uid();
        if user == 0 {
            return Ok(Self::Root);
        }
        let name = process::capture(process::command("id")?.arg("--user").arg("--name"))?;
        let ranges = fs::read_to_string("/etc/subuid").unwrap_or_default();
        let unshare = Command::new("unshare").args(["--user", "true"]).output();
        let may = has_range(&ranges, name.trim(), user)
            && locate("newuidmap").is_some()
            && unshare.is_ok_and(|unshare| unshare.status.success());
        Ok(if may { Self::Unshare } else { Self::Sudo })
    }
}

/// Whether `ranges`, an `/etc/subuid`, gives this user the ids that a Debian needs.
fn has_range(ranges: &str, name: &str, user: u32) -> bool {
    const ENOUGH: u32 = 65_536;
    let number = user.to_string();
    ranges.lines().any(|line| {
        let mut fields = line.split(':');
        let (owner, count) = (fields.next(), fields.nth(1));
        owner.is_some_and(|owner| owner == name || owner == number)
            && count.is_some_and(|count| count.parse().is_ok_and(|count: u32| count >= ENOUGH))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_needs_a_whole_range_of_ids_by_name_or_number() {
        for (ranges, has) in [
            ("", false),
            ("me:100000:65536\n", true),
            ("other:1:65536\n1000:100000:65536\n", true),
            ("other:100000:65536\n", false),
            ("me:100000:65535\n", false),
            ("me:100000\n", false),
            ("me:x:y\n", false),
        ] {
            assert_eq!(has_range(ranges, "me", 1000), has, "{ranges:?}");
        }
    }

    #[test]
    fn the_script_and_the_builder_say_the_same_of_the_disk() {
        for line in [format!("megabytes={}", RAW_SIZE >> 20), format!("uuid={ROOT}")] {
            assert!(SCRIPT.lines().any(|said| said == line), "{line}");
        }
    }
}
