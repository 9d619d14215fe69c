//! Builds the standard drives that a cloud on this machine offers, without root, and keeps them in a
//! cache.
//!
//! Owns the cache: which images there are, when a build is due, and how one is published. What a
//! guest of `tiny` does is a public contract, `docs/tiny.md`; the others are in `docs/images.md`.
//!
//! Invariants:
//! - `NAME.json` is written last and removed first, so an image whose manifest exists is whole,
//!   whenever a build was killed.
//! - A build is due only when an input changed.
//! - One build at a time in a cache: the others wait for its lock and then find its work done.

mod debian;
mod debian_12;
mod disk;
mod initramfs;
mod ipxe;
mod kit;
mod tiny;
mod tiny_root;
mod workshop;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{process, tools};

pub(crate) use kit::Kit;
use workshop::{Workshop, discard, output};

/// What every image's builder has in common. The builder itself is an input: a change to it makes a
/// new image.
const BUILDER: [&str; 3] =
    [include_str!("image.rs"), include_str!("image/debian.rs"), include_str!("image/workshop.rs")];

/// The images, by the names of their files.
#[derive(clap::ValueEnum, Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Image {
    /// A kernel and a task, in a few MiB
    #[default]
    Tiny,
    /// Debian 12 with cloud-init and sshd
    #[value(name = "debian-12")]
    Debian12,
    /// What `tiny` is, for a container
    #[value(name = "tiny-root")]
    TinyRoot,
    /// A CD that boots from the network
    Ipxe,
    /// The same on a disk, with a script
    IpxeDisk,
}

/// The command line of `cargo xtask image`.
#[derive(clap::Args, Debug, Default)]
pub(crate) struct Args {
    /// Which image
    #[arg(value_enum, default_value_t)]
    pub(crate) image: Image,
    /// Where packages and images are kept [default: ~/.cache/elasticstack]
    #[arg(long, value_name = "DIR")]
    pub(crate) cache: Option<PathBuf>,
}

/// What a manifest says of the image beside it, in the API's own words for a standard drive.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Manifest {
    name: String,
    drive: String,
    media: String,
    /// `gzip` for a disk; a CD is as it is.
    format: Option<String>,
    /// Bytes of the disk once unpacked, a multiple of 4 MiB.
    rawsize: Option<u64>,
    /// Whether a guest that boots it listens to cloud-init's keys.
    cloud_init: bool,
    /// Bytes of the image's file.
    size: u64,
    /// Of the image's file, in hex.
    sha256: String,
    inputs: Inputs,
}

/// All that decides an image's bytes, or stands for it.
type Inputs = BTreeMap<String, String>;

/// A finished image that is not in its place yet.
struct Draft {
    file: PathBuf,
    /// Bytes once unpacked, if it is packed.
    rawsize: Option<u64>,
}

impl Image {
    /// Those that virtual machines boot.
    const BOOTABLE: [Self; 4] = [Self::Tiny, Self::Debian12, Self::Ipxe, Self::IpxeDisk];

    const fn word(self) -> &'static str {
        match self {
            Self::Tiny => "tiny",
            Self::TinyRoot => "tiny-root",
            Self::Debian12 => "debian-12",
            Self::Ipxe => "ipxe",
            Self::IpxeDisk => "ipxe-disk",
        }
    }

    /// The name customers see. It starts with the family of the operating system because clients
    /// take the family from there.
    const fn name(self) -> &'static str {
        match self {
            Self::Tiny => "Debian Linux 12 tiny",
            Self::TinyRoot => "Debian Linux 12 tiny container",
            Self::Debian12 => "Debian Linux 12",
            Self::Ipxe => "iPXE CD",
            Self::IpxeDisk => "iPXE disk",
        }
    }

    /// The drive's id, the same on every cloud that offers the image.
    const fn drive(self) -> &'static str {
        match self {
            Self::Tiny => "3f8a6c1e-5b0d-4e7a-9c42-74696e790001",
            Self::TinyRoot => "3f8a6c1e-5b0d-4e7a-9c42-74696e790002",
            Self::Debian12 => "3f8a6c1e-5b0d-4e7a-9c42-646562313201",
            Self::Ipxe => "3f8a6c1e-5b0d-4e7a-9c42-697078650001",
            Self::IpxeDisk => "3f8a6c1e-5b0d-4e7a-9c42-697078650002",
        }
    }

    const fn extension(self) -> &'static str {
        match self {
            Self::Tiny | Self::TinyRoot | Self::Debian12 | Self::IpxeDisk => "gz",
            Self::Ipxe => "iso",
        }
    }

    const fn media(self) -> &'static str {
        match self {
            Self::Tiny | Self::TinyRoot | Self::Debian12 | Self::IpxeDisk => "disk",
            Self::Ipxe => "cdrom",
        }
    }

    const fn tools(self) -> workshop::Tools {
        match self {
            Self::Tiny => tiny::TOOLS,
            Self::TinyRoot => tiny_root::TOOLS,
            Self::Debian12 => debian_12::TOOLS,
            Self::Ipxe | Self::IpxeDisk => ipxe::TOOLS,
        }
    }

    fn inputs(self, workshop: &Workshop) -> Result<Inputs> {
        match self {
            Self::Tiny => tiny::inputs(workshop),
            Self::TinyRoot => tiny_root::inputs(workshop),
            Self::Debian12 => debian_12::inputs(workshop),
            Self::Ipxe | Self::IpxeDisk => ipxe::inputs(workshop),
        }
    }

    fn build(self, workshop: &Workshop, debs: &Path) -> Result<Draft> {
        match self {
            Self::Tiny => tiny::build(workshop, debs),
            Self::TinyRoot => tiny_root::build(workshop, debs),
            Self::Debian12 => debian_12::build(workshop),
            Self::Ipxe => ipxe::build(workshop, debs),
            Self::IpxeDisk => ipxe::build_disk(workshop, debs),
        }
    }
}

/// Makes sure the cache holds a current image, and returns its path, such as `images/tiny.gz`; its
/// manifest, `tiny.json`, is beside it.
///
/// # Errors
/// A tool is not installed, apt does not know or cannot fetch a package, or the cache is not writable.
pub(crate) fn run(args: Args) -> Result<PathBuf> {
    let Args { image, cache } = args;
    workshop::check(image.word(), image.tools())?;
    let cache = match cache {
        Some(cache) => cache,
        None => process::cache_dir()?,
    };
    let workshop = Workshop::open(&cache)?;
    let images = cache.join("images");
    fs::create_dir_all(&images).with_context(|| format!("create {}", images.display()))?;
    let inputs = image.inputs(&workshop)?;
    if !is_current(&images, image, &inputs) {
        let from: Vec<_> = inputs.iter().filter(|(what, _)| *what != "builder").collect();
        eprintln!("building {} from {from:?}", image.word());
        let draft = image.build(&workshop, &cache.join("debs"))?;
        publish(&workshop, &images, image, &draft, inputs)?;
    }
    workshop.close()?;
    Ok(images.join(image.word()).with_added_extension(image.extension()))
}

/// Makes sure that the cache holds what containers boot, and prints where.
///
/// # Errors
/// As [`run`].
pub(crate) fn kernel() -> Result<()> {
    tools::ensure_packages()?;
    println!("{}", Kit::CONTAINER.ensure()?.display());
    Ok(())
}

/// The images in the cache that virtual machines boot, current or not.
///
/// # Errors
/// There is no home for a cache.
pub(crate) fn present() -> Result<Vec<PathBuf>> {
    let images = process::cache_dir()?.join("images");
    let path = |image: Image| images.join(image.word()).with_added_extension(image.extension());
    let is_whole = |path: &PathBuf| path.with_extension("json").exists();
    Ok(Image::BOOTABLE.into_iter().map(path).filter(is_whole).collect())
}

fn is_current(images: &Path, image: Image, inputs: &Inputs) -> bool {
    let path = images.join(image.word());
    let Ok(text) = fs::read(path.with_added_extension("json")) else { return false };
    let Ok(manifest) = serde_json::from_slice::<Manifest>(&text) else { return false };
    let size = fs::metadata(path.with_added_extension(image.extension())).map(|meta| meta.len());
    manifest.inputs == *inputs && size.is_ok_and(|size| size == manifest.size)
}

/// Puts the image in its place: out with the old manifest, in with the image, then its manifest.
fn publish(
    workshop: &Workshop,
    images: &Path,
    image: Image,
    draft: &Draft,
    inputs: Inputs,
) -> Result<()> {
    let Draft { file, rawsize } = draft;
    let size = size_of(file)?;
    let sum = output(workshop.command("sha256sum")?.arg(file))?;
    let manifest = Manifest {
        name: image.name().to_owned(),
        drive: image.drive().to_owned(),
        media: image.media().to_owned(),
        format: rawsize.map(|_| "gzip".to_owned()),
        rawsize: *rawsize,
        cloud_init: image == Image::Debian12,
        size,
        sha256: sum.split_whitespace().next().unwrap_or_default().to_owned(),
        inputs,
    };
    let word = image.word();
    let text = serde_json::to_string_pretty(&manifest)? + "\n";
    let draft = workshop.write(&format!("{word}.json"), text.as_bytes())?;
    discard(&images.join(format!("{word}.json")))?;
    place(file, images, &format!("{word}.{}", image.extension()))?;
    place(&draft, images, &format!("{word}.json"))
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

/// Packs a raw disk.
fn packed(workshop: &Workshop, raw: &Path) -> Result<Draft> {
    let rawsize = Some(size_of(raw)?);
    Ok(Draft { file: gzip(workshop, raw)?, rawsize })
}

/// Packs a file, without its name or time so that equal input gives equal output, and returns the
/// packed file's path. A program, because a library would be slow in xtask, which is never optimized.
fn gzip(workshop: &Workshop, file: &Path) -> Result<PathBuf> {
    output(workshop.command("gzip")?.args(["-9", "--no-name"]).arg(file))?;
    Ok(file.with_added_extension("gz"))
}

fn size_of(file: &Path) -> Result<u64> {
    Ok(fs::metadata(file).with_context(|| format!("look at {}", file.display()))?.len())
}

/// A digest of what all builders share and of what one has of its own.
fn builder(own: &[&str]) -> (String, String) {
    let text = BUILDER.concat() + &own.concat();
    ("builder".to_owned(), hex(&Sha256::digest(text)))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests;
