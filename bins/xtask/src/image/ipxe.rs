//! `ipxe` and `ipxe-disk`: a system that is no Linux, with drivers of its own for network cards, on a CD
//! and on a disk. The program and the CD are those of Debian's package, as they are.
//!
//! Owns where the package has them, and the disk's script: one file on one place of the disk, so that
//! the owner of a copy can write another one over it (`docs/images.md`).

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use super::disk::{self, Content};
use super::workshop::{MBR, Tools, Workshop};
use super::{Draft, Inputs, builder, debian, packed};

const PACKAGE: &str = "ipxe";
const ISO: &str = "usr/lib/ipxe/ipxe.iso";
const PROGRAM: &str = "boot/ipxe.lkrn";

/// Boots from whatever the network offers, and else asks. Behind it are line ends.
const SCRIPT: &str = "#!ipxe\nautoboot || shell\n";
const SCRIPT_SIZE: usize = 2_048;

const CONFIG: &str = "DEFAULT ipxe\nPROMPT 0\nLABEL ipxe\nKERNEL ipxe.krn\nINITRD script\n";

const BUILDER: [&str; 2] = [include_str!("ipxe.rs"), include_str!("disk.rs")];

pub(super) const TOOLS: Tools = &[
    ("apt-cache", "apt"),
    ("apt-get", "apt"),
    ("dpkg", "dpkg"),
    ("gzip", "gzip"),
    ("mcopy", "mtools"),
    ("mformat", "mtools"),
    ("syslinux", "syslinux"),
    (MBR, "syslinux-common"),
];

pub(super) fn inputs(workshop: &Workshop) -> Result<Inputs> {
    let own = [
        ("package".to_owned(), debian::candidate(workshop, PACKAGE)?.to_string()),
        ("syslinux".to_owned(), debian::installed_version(workshop, "syslinux")?),
    ];
    Ok(own.into_iter().chain([builder(&BUILDER)]).collect())
}

/// The CD.
pub(super) fn build(workshop: &Workshop, debs: &Path) -> Result<Draft> {
    let file = workshop.path("ipxe.iso");
    let iso = package(workshop, debs)?.join(ISO);
    fs::copy(iso, &file).with_context(|| format!("take {ISO} out of {PACKAGE}"))?;
    Ok(Draft { file, rawsize: None })
}

/// The disk.
pub(super) fn build_disk(workshop: &Workshop, debs: &Path) -> Result<Draft> {
    let mut script = SCRIPT.as_bytes().to_vec();
    script.resize(SCRIPT_SIZE, b'\n');
    let script = workshop.write("script", &script)?;
    let program = package(workshop, debs)?.join(PROGRAM);
    let content = Content {
        signature: *b"ipxe",
        mark: b"",
        files: &[(&program, "ipxe.krn"), (&script, "script")],
        config: CONFIG,
    };
    packed(workshop, &disk::make(workshop, "ipxe-disk.raw", &content)?)
}

/// The package's files.
fn package(workshop: &Workshop, debs: &Path) -> Result<PathBuf> {
    debian::candidate(workshop, PACKAGE)?.unpack(workshop, debs)
}
