//! Builds `tiny`, the standard drive that the smoke run and the tests boot: Debian's own kernel, a
//! busybox userland and a BIOS boot loader on a small disk, made without root.
//!
//! Owns the cache: when a build is due, and how it is published. What the guest does, and the blocks
//! it reads and writes, is a public contract: `docs/tiny.md`.
//!
//! Invariants:
//! - `tiny.json` is written last and removed first, so an image whose manifest exists is whole,
//!   whenever a build was killed.
//! - The same inputs give the same bytes; a build is due only when an input changed.
//! - One build at a time in a cache: the others wait for its lock and then find its work done.

mod debian;
mod disk;
mod initramfs;
mod workshop;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::process;

use debian::{Candidates, Package};
use workshop::{Workshop, discard, output};

/// The name customers see. It starts with the family of the operating system because clients take
/// the family from there.
const NAME: &str = "Debian Linux 12 tiny";

/// The drive's id, the same on every cloud that offers `tiny`.
const DRIVE: &str = "3f8a6c1e-5b0d-4e7a-9c42-74696e790001";

/// The first program in the guest, and nearly the only one.
const INIT: &str = include_str!("image/init");

/// The builder itself is an input: a change to any of these makes a new image.
const BUILDER: [&str; 6] = [
    include_str!("image.rs"),
    include_str!("image/debian.rs"),
    include_str!("image/disk.rs"),
    include_str!("image/initramfs.rs"),
    include_str!("image/workshop.rs"),
    INIT,
];

/// The command line of `cargo xtask image`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Args {
    /// Where packages and images are kept [default: ~/.cache/elasticstack]
    #[arg(long, value_name = "DIR")]
    cache: Option<PathBuf>,
}

/// What `tiny.json` says of the image beside it, in the API's own words for a standard drive.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    name: String,
    drive: String,
    media: String,
    format: String,
    /// Bytes of the disk once unpacked, a multiple of 4 MiB.
    rawsize: u64,
    /// Bytes of `tiny.gz`.
    size: u64,
    /// Of `tiny.gz`, in hex.
    sha256: String,
    inputs: Inputs,
}

/// All that decides the image's bytes.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Inputs {
    kernel: String,
    busybox: String,
    syslinux: String,
    builder: String,
}

/// Makes sure the cache holds a current `tiny`, and returns the path of `images/tiny.gz`, which has
/// its manifest, `tiny.json`, beside it.
///
/// # Errors
/// A tool is not installed, apt does not know or cannot fetch a package, or the cache is not writable.
pub(crate) fn run(args: Args) -> Result<PathBuf> {
    workshop::check()?;
    let cache = match args.cache {
        Some(cache) => cache,
        None => process::cache_dir()?,
    };
    let workshop = Workshop::open(&cache)?;
    let images = cache.join("images");
    fs::create_dir_all(&images).with_context(|| format!("create {}", images.display()))?;
    let Candidates { kernel, busybox } = debian::candidates(&workshop)?;
    let inputs = Inputs {
        kernel: kernel.to_string(),
        busybox: busybox.to_string(),
        syslinux: debian::installed_version(&workshop, "syslinux")?,
        builder: hex(&Sha256::digest(BUILDER.concat())),
    };
    if !is_current(&images, &inputs) {
        eprintln!("building tiny from {kernel} and {busybox}");
        let raw = build(&workshop, &cache.join("debs"), &kernel, &busybox)?;
        publish(&workshop, &images, &raw, inputs)?;
    }
    workshop.close()?;
    Ok(images.join("tiny.gz"))
}

fn is_current(images: &Path, inputs: &Inputs) -> bool {
    let Ok(text) = fs::read(images.join("tiny.json")) else { return false };
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&text) else { return false };
    let size = fs::metadata(images.join("tiny.gz")).map(|meta| meta.len());
    manifest.inputs == *inputs && size.is_ok_and(|size| size == manifest.size)
}

/// Makes the raw disk, and returns its path.
fn build(workshop: &Workshop, debs: &Path, kernel: &Package, busybox: &Package) -> Result<PathBuf> {
    let release = kernel.kernel_release()?;
    let kernel_root = kernel.unpack(workshop, debs)?;
    let busybox = busybox.unpack(workshop, debs)?.join("bin/busybox");
    let archive = initramfs::make(workshop, &kernel_root, release, &busybox, INIT)?;
    let initramfs = gzip(workshop, &workshop.write("initrd", &archive)?)?;
    disk::make(workshop, &kernel_root.join(format!("boot/vmlinuz-{release}")), &initramfs)
}

/// Puts the image in its place: out with the old manifest, in with the image, then its manifest.
fn publish(workshop: &Workshop, images: &Path, raw: &Path, inputs: Inputs) -> Result<()> {
    let rawsize = fs::metadata(raw).with_context(|| format!("look at {}", raw.display()))?.len();
    let packed = gzip(workshop, raw)?;
    let size = fs::metadata(&packed)?.len();
    let sum = output(workshop.command("sha256sum")?.arg(&packed))?;
    let manifest = Manifest {
        name: NAME.to_owned(),
        drive: DRIVE.to_owned(),
        media: "disk".to_owned(),
        format: "gzip".to_owned(),
        rawsize,
        size,
        sha256: sum.split_whitespace().next().unwrap_or_default().to_owned(),
        inputs,
    };
    let text = serde_json::to_string_pretty(&manifest)? + "\n";
    let draft = workshop.write("tiny.json", text.as_bytes())?;
    discard(&images.join("tiny.json"))?;
    place(&packed, images, "tiny.gz")?;
    place(&draft, images, "tiny.json")
}

/// Renames a finished draft into `images` once it is durable there.
fn place(draft: &Path, images: &Path, name: &str) -> Result<()> {
    let target = images.join(name);
    let placed = File::open(draft)
        .and_then(|file| file.sync_all())
        .and_then(|()| fs::rename(draft, &target))
        .and_then(|()| File::open(images)?.sync_all());
    placed.with_context(|| format!("put {} in its place", target.display()))
}

/// Packs a file, without its name or time so that equal input gives equal output, and returns the
/// packed file's path. A program, because a library would be slow in xtask, which is never optimized.
fn gzip(workshop: &Workshop, file: &Path) -> Result<PathBuf> {
    output(workshop.command("gzip")?.args(["-9", "--no-name"]).arg(file))?;
    Ok(file.with_added_extension("gz"))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
