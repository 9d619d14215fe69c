//! `tiny-root`, what `tiny` is for a container: busybox and the same first program, as a file system.
//!
//! Owns what it is made from. The kernel is the container's host's.

use std::fs;
use std::os::unix::fs::{FileExt as _, PermissionsExt as _, symlink};
use std::path::Path;

use anyhow::{Context as _, Result};

use super::debian::{self, BUSYBOX};
use super::tiny::{INIT, MARK};
use super::workshop::{Tools, Workshop, output};
use super::{Draft, Inputs, builder, packed};

/// Bytes of the disk.
const SIZE: u64 = 16 << 20;
/// Of the file system and of the hashes in it, so that they are the same each time.
const UUID: &str = "3f8a6c1e-5b0d-4e7a-9c42-74696e790003";

pub(super) const TOOLS: Tools = &[
    ("apt-cache", "apt"),
    ("apt-get", "apt"),
    ("dpkg", "dpkg"),
    ("gzip", "gzip"),
    ("mke2fs", "e2fsprogs"),
];

pub(super) fn inputs(workshop: &Workshop) -> Result<Inputs> {
    let busybox = debian::candidate(workshop, BUSYBOX)?;
    let package = ("busybox".to_owned(), busybox.to_string());
    let text = [include_str!("tiny_root.rs"), include_str!("tiny.rs"), INIT];
    Ok([package, builder(&text)].into_iter().collect())
}

pub(super) fn build(workshop: &Workshop, debs: &Path) -> Result<Draft> {
    let busybox = debian::candidate(workshop, BUSYBOX)?;
    let busybox = busybox.unpack(workshop, debs)?.join("bin/busybox");
    let root = workshop.path("root");
    fill(&root, &busybox).context("fill the root of tiny-root")?;
    let raw = workshop.path("tiny-root.raw");
    let mut make = workshop.command("mke2fs")?;
    make.args(["-q", "-t", "ext4", "-b", "4096", "-m", "0", "-U", UUID]);
    make.args(["-E", &format!("root_owner=0:0,hash_seed={UUID}")]);
    make.arg("-d").arg(&root).arg(&raw).arg(format!("{}k", SIZE >> 10));
    output(&mut make)?;
    // An ext4 file system leaves its first 1024 bytes alone.
    let file = fs::File::options().write(true).open(&raw);
    file.and_then(|file| file.write_all_at(MARK, 512)).context("mark tiny-root")?;
    packed(workshop, &raw)
}

fn fill(root: &Path, busybox: &Path) -> std::io::Result<()> {
    for directory in ["bin", "dev", "lib/modules", "proc", "sbin", "sys", "tmp"] {
        fs::create_dir_all(root.join(directory))?;
    }
    fs::copy(busybox, root.join("bin/busybox"))?;
    symlink("busybox", root.join("bin/sh"))?;
    // All drivers are there when this is begun.
    fs::write(root.join("lib/modules/order"), "")?;
    let init = root.join("sbin/init");
    fs::write(&init, INIT)?;
    fs::set_permissions(init, fs::Permissions::from_mode(0o755))
}
