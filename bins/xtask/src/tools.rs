//! What the checks need besides Rust: Debian packages, and cargo tools at pinned versions. Owns the
//! lists and how a missing one is installed; on a machine that has all of them it costs one
//! `dpkg-query` a list.
//!
//! Packages are the only thing installed as root (through sudo if we are not); cargo tools go to
//! `~/.cache/elasticstack/tools`, and one that is on `PATH` already is used as it is.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::image::Image;
use crate::process;

/// Debian's names, each with what it is for.
type Packages = &'static [(&'static str, &'static str)];

const PACKAGES: Packages = &[
    ("kmod", "module dependencies of `tiny`"),
    ("lz4", "the kernel of containers, which a software CPU unpacks slowly"),
    ("mtools", "the FAT disk of `tiny`, written without root"),
    ("qemu-system-x86", "virtual machines"),
    ("syslinux", "boot sector of `tiny`"),
    ("syslinux-common", "boot loader modules of `tiny`"),
];

const DEBIAN_12: Packages = &[
    ("e2fsprogs", "the file system of `debian-12`"),
    ("mmdebstrap", "the packages of `debian-12`"),
    ("uidmap", "many owners in it, without root"),
];

const LAB: Packages = &[
    ("cpio", "the first programs of small guests, and of one with fio"),
    ("cryptsetup-bin", "checksums below RAID"),
    ("dmsetup", "disks that hang"),
    ("e2fsprogs", "the file system of that guest"),
    ("fio", "measures disks, and reads back what it wrote"),
    ("iputils-ping", "whether machines reach each other"),
    ("mdadm", "RAID"),
    ("open-iscsi", "Linux's own initiator of iSCSI"),
    ("qemu-block-extra", "QEMU's"),
    ("qemu-utils", "what reads and writes by it without a guest"),
    ("xfsprogs", "a machine's data directory"),
];

const TESTS: Packages = &[
    ("qemu-block-extra", "QEMU's own initiator of iSCSI"),
    ("qemu-utils", "what reads and writes by it without a guest"),
    ("xfsprogs", "a file system with reflinks, to clone drives on"),
];

const DATABASES: Packages = &[
    ("postgresql-15", "the second database of the control plane"),
    ("sqlite3", "looks into the first one from outside"),
];

const ISCSI: Packages = &[
    ("libiscsi-bin", "judges a target of iSCSI"),
    ("tgt", "another such target, judged beside ours"),
];

const BROWSER: Packages = &[("chromium", "the browser that tries the panel")];
const NPM: Packages = &[("npm", "brings what drives the browser")];

const QEMU: &str = "qemu-system-x86";
const NEXTEST: &str = "0.9.143";
const DENY: &str = "0.20.2";

/// Installs every package and tool that the daily stages need and this machine lacks.
pub(crate) fn ensure() -> Result<()> {
    ensure_databases()?;
    ensure_debian(TESTS)?;
    ensure_for_lab()?;
    ensure_nextest()
}

/// Installs both databases, unless they are there.
pub(crate) fn ensure_databases() -> Result<()> {
    ensure_debian(DATABASES)
}

/// The Debian packages that `up` needs and this machine lacks.
pub(crate) fn missing_packages() -> Result<Vec<&'static str>> {
    missing(PACKAGES)
}

/// Installs the Debian packages that are missing.
pub(crate) fn ensure_packages() -> Result<()> {
    ensure_debian(PACKAGES)
}

/// Installs the Debian packages that building an image takes beside those of [`ensure_packages`].
pub(crate) fn ensure_for_image(image: Image) -> Result<()> {
    match image {
        Image::Tiny | Image::TinyRoot | Image::Ipxe | Image::IpxeDisk => Ok(()),
        Image::Debian12 => ensure_debian(DEBIAN_12),
    }
}

/// Installs what the lab's machines are made of, and what is run on them.
pub(crate) fn ensure_for_lab() -> Result<()> {
    ensure_packages()?;
    ensure_debian(LAB)
}

/// Installs what judges targets of iSCSI and another such target, unless they are there.
pub(crate) fn ensure_iscsi() -> Result<()> {
    ensure_debian(ISCSI)
}

/// Installs a browser and npm, unless they are there.
pub(crate) fn ensure_browser() -> Result<()> {
    ensure_debian(BROWSER)?;
    // Some installations of node bring an npm of their own, in no Debian package.
    if process::is_installed("npm")? { Ok(()) } else { ensure_debian(NPM) }
}

fn ensure_debian(packages: Packages) -> Result<()> {
    let missing = missing(packages)?;
    if missing.is_empty() {
        return Ok(());
    }
    println!("installing {}", missing.join(", "));
    if !all_have_candidates(&missing)? {
        apt(["update", "--quiet"], &[])?;
    }
    let wanted: Vec<String> = missing.iter().map(ToString::to_string).collect();
    if apt(INSTALL, &wanted).is_ok() {
        return Ok(());
    }
    // Either the lists are stale, or QEMU packages already here come from another release than the
    // one apt would take: then they must all go to one version together.
    println!("apt-get refused: trying again with fresh lists and QEMU's packages at one version");
    apt(["update", "--quiet"], &[])?;
    let mut pinned = wanted;
    pinned.extend(qemu_at_one_version()?);
    apt(INSTALL_DOWNGRADING, &pinned)
        .with_context(|| format!("install these packages by hand: {}", missing.join(" ")))
}

/// Installs cargo-nextest unless some version of it is there.
pub(crate) fn ensure_nextest() -> Result<()> {
    ensure_cargo_tool("cargo-nextest", NEXTEST)
}

/// Installs cargo-deny unless some version of it is there.
pub(crate) fn ensure_deny() -> Result<()> {
    ensure_cargo_tool("cargo-deny", DENY)
}

fn ensure_cargo_tool(name: &str, version: &str) -> Result<()> {
    if process::is_installed(name)? {
        return Ok(());
    }
    println!("installing {name} {version} from source, once; this takes some minutes");
    let mut install = process::cargo(["install", "--locked", "--quiet", "--root"])?;
    // Its objects are of no use to the workspace's target directory.
    install.env_remove("CARGO_TARGET_DIR");
    // A third less to wait for: the tools' own release profiles buy speed that is not felt here.
    install.envs([
        ("CARGO_PROFILE_RELEASE_LTO", "off"),
        ("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16"),
        ("CARGO_PROFILE_RELEASE_OPT_LEVEL", "1"),
    ]);
    process::run(install.arg(process::tools_dir()?).arg(format!("{name}@{version}")))
}

const INSTALL: [&str; 3] = ["install", "--yes", "--no-install-recommends"];
const INSTALL_DOWNGRADING: [&str; 4] =
    ["install", "--yes", "--no-install-recommends", "--allow-downgrades"];

/// The Debian packages of `packages` that this machine lacks.
fn missing(packages: Packages) -> Result<Vec<&'static str>> {
    if !process::is_installed("dpkg-query")? {
        bail!("dpkg-query not found: xtask installs packages on Debian 12 only");
    }
    let names = packages.iter().map(|(name, _)| *name);
    // Unknown names make dpkg-query exit with 1, so its status says nothing.
    let output = process::command("dpkg-query")?
        .args(["--show", "--showformat", "${Package} ${db:Status-Status}\n"])
        .args(names)
        .stderr(Stdio::null())
        .output()
        .context("dpkg-query cannot be started")?;
    Ok(lacking(packages, &String::from_utf8_lossy(&output.stdout)))
}

/// Those of `packages` that `listing` (lines of "name status") does not call installed.
fn lacking(packages: Packages, listing: &str) -> Vec<&'static str> {
    let installed: Vec<&str> =
        listing.lines().filter_map(|line| line.strip_suffix(" installed")).collect();
    packages.iter().map(|(name, _)| *name).filter(|name| !installed.contains(name)).collect()
}

fn all_have_candidates(packages: &[&str]) -> Result<bool> {
    for package in packages {
        if candidate(package)?.is_none() {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The version that apt would install, if its lists know one.
fn candidate(package: &str) -> Result<Option<String>> {
    let policy = process::capture(process::command("apt-cache")?.args(["policy", package]))?;
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "));
    Ok(version.filter(|version| *version != "(none)").map(str::to_owned))
}

/// `package=version` for [`QEMU`] and every installed package built from QEMU's source, all at the
/// version that apt would take for [`QEMU`].
fn qemu_at_one_version() -> Result<Vec<String>> {
    let wanted = candidate(QEMU)?.with_context(|| format!("apt knows no version of {QEMU}"))?;
    let mut pinned = vec![format!("{QEMU}={wanted}")];
    let listing = process::capture(process::command("dpkg-query")?.args([
        "--show",
        "--showformat",
        "${Package} ${source:Package} ${db:Status-Status}\n",
    ]))?;
    for package in built_from_qemu(&listing).filter(|package| *package != QEMU) {
        let offered = process::capture(process::command("apt-cache")?.args(["madison", package]))?;
        if let Some(version) = same_release(&offered, &wanted) {
            pinned.push(format!("{package}={version}"));
        }
    }
    Ok(pinned)
}

/// The installed packages of QEMU's source in `listing` (lines of "package source status").
fn built_from_qemu(listing: &str) -> impl Iterator<Item = &str> {
    listing.lines().filter_map(|line| line.strip_suffix(" qemu installed"))
}

/// The version in `madison` (lines of "package | version | origin") that is `wanted` but for the
/// `+bN` of a rebuild: packages for all architectures are not rebuilt with the others.
fn same_release<'a>(madison: &'a str, wanted: &str) -> Option<&'a str> {
    let versions = madison.lines().filter_map(|line| line.split('|').nth(1)).map(str::trim);
    let mut same = versions.filter(|version| source_version(version) == source_version(wanted));
    same.next()
}

fn source_version(version: &str) -> &str {
    match version.rsplit_once("+b") {
        Some((source, rebuild)) if rebuild.chars().all(|c| c.is_ascii_digit()) => source,
        _ => version,
    }
}

fn apt<const N: usize>(verb: [&str; N], packages: &[String]) -> Result<()> {
    let mut command = as_root("env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get"]).args(verb).args(packages);
    process::run(&mut command)
}

fn as_root(program: &str) -> Result<Command> {
    // The owner of our own entry in /proc is our effective user.
    if fs::metadata("/proc/self").context("/proc cannot be read")?.uid() == 0 {
        return process::command(program);
    }
    let mut sudo = process::command("sudo")?;
    sudo.arg(program);
    Ok(sudo)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_that_is_removed_or_unknown_is_lacking() {
        let wanted = &[("kmod", ""), ("mtools", ""), ("qemu-system-x86", "")];
        let listing = "kmod installed\nmtools config-files\nsyslinux installed\n";
        assert_eq!(lacking(wanted, listing), ["mtools", "qemu-system-x86"]);
    }

    #[test]
    fn only_installed_packages_of_qemus_source_are_moved() {
        let listing = "qemu-utils qemu installed\nipxe-qemu ipxe installed\n\
                       qemu-system-common qemu config-files\nqemu-system-data qemu installed\n";
        let found: Vec<_> = built_from_qemu(listing).collect();
        assert_eq!(found, ["qemu-utils", "qemu-system-data"]);
    }

    #[test]
    fn a_rebuild_counts_as_the_same_release() {
        let madison = " qemu-system-data | 1:10.0.2+ds-2~bpo12+1 | backports\n \
                       qemu-system-data | 1:7.2+dfsg-7+deb12u18 | bookworm\n";
        let found = same_release(madison, "1:7.2+dfsg-7+deb12u18+b3");
        assert_eq!(found, Some("1:7.2+dfsg-7+deb12u18"));
        assert_eq!(same_release(madison, "1:8.0-1"), None);
    }
}
