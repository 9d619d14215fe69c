//! What a lab machine boots: Debian's own kernel with all its modules, and an initramfs that makes
//! the root of this machine its root.
//!
//! Owns the directory `lab` of the cache. It is replaced whole, so that one which is there is whole.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::debian::{self, Candidates};
use super::workshop::{Tools, Workshop, discard, output};
use super::{Inputs, builder, gzip, initramfs, workshop};
use crate::process;

const INIT: &str = include_str!("lab-init");
const BUILDER: [&str; 3] = [include_str!("lab.rs"), include_str!("initramfs.rs"), INIT];

/// What the virtual hardware and the shared directories need. All others are there to be loaded.
const MODULES: [&str; 9] = [
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "virtio_net",
    "virtio_console",
    "sd_mod",
    "9pnet_virtio",
    "9p",
    "overlay",
];

const TOOLS: Tools = &[
    ("apt-cache", "apt"),
    ("apt-get", "apt"),
    ("depmod", "kmod"),
    ("dpkg", "dpkg"),
    ("gzip", "gzip"),
    ("xz", "xz-utils"),
];

/// All that a machine boots.
pub(crate) struct LabKit;

impl LabKit {
    /// Makes sure that the cache holds a current one.
    ///
    /// # Errors
    /// A tool is not installed, apt does not know or cannot fetch a package, or the cache is not
    /// writable.
    pub(crate) fn ensure() -> Result<()> {
        workshop::check("the lab's machines", TOOLS)?;
        let cache = process::cache_dir()?;
        let workshop = Workshop::open(&cache)?;
        let directory = cache.join("lab");
        let candidates = debian::candidates(&workshop)?;
        let Candidates { kernel, busybox } = &candidates;
        let packages = [
            ("kernel".to_owned(), kernel.to_string()),
            ("busybox".to_owned(), busybox.to_string()),
        ];
        let inputs: Inputs = packages.into_iter().chain([builder(&BUILDER)]).collect();
        let manifest = serde_json::to_string_pretty(&inputs)?;
        if fs::read_to_string(directory.join("inputs.json")).ok().as_ref() != Some(&manifest) {
            eprintln!("making lab machines of {kernel}");
            let draft = build(&workshop, &cache.join("debs"), &candidates)?;
            fs::write(draft.join("inputs.json"), manifest).context("write the lab's manifest")?;
            discard(&directory)?;
            fs::rename(&draft, &directory).context("put the lab's kernel in its place")?;
        }
        workshop.close()
    }
}

/// Makes all of it in a directory of the workshop, and returns that.
fn build(workshop: &Workshop, debs: &Path, candidates: &Candidates) -> Result<PathBuf> {
    let Candidates { kernel, busybox } = candidates;
    let release = kernel.kernel_release()?;
    let root = kernel.unpack(workshop, debs)?;
    let busybox = busybox.unpack(workshop, debs)?.join("bin/busybox");
    let archive = initramfs::make(workshop, &root, release, &MODULES, &busybox, INIT)?;
    let initrd = gzip(workshop, &workshop.write("initrd", &archive)?)?;
    let draft = workshop.path("lab");
    let unpacked = unpacked(workshop, &root.join(format!("boot/vmlinuz-{release}")))?;
    let placed = fs::create_dir(&draft)
        .and_then(|()| fs::rename(unpacked, draft.join("kernel")))
        .and_then(|()| fs::rename(root.join("lib/modules"), draft.join("modules")))
        .and_then(|()| fs::rename(initrd, draft.join("initrd.gz")));
    placed.context("put the lab's kernel together")?;
    Ok(draft)
}

/// The kernel that a bzImage unpacks itself to, which a software CPU takes seconds for
/// (Documentation/arch/x86/boot.rst: `setup_sects`, `payload_offset`, `payload_length`).
fn unpacked(workshop: &Workshop, image: &Path) -> Result<PathBuf> {
    let bytes = fs::read(image).with_context(|| format!("read {}", image.display()))?;
    let number = |at: usize| {
        let field = bytes.get(at..at + 4)?.try_into().ok()?;
        usize::try_from(u32::from_le_bytes(field)).ok()
    };
    let payload = || {
        let start = (usize::from(*bytes.get(0x1f1)?) + 1) * 512 + number(0x248)?;
        // Behind it is its size when it is unpacked.
        bytes.get(start..start + number(0x24c)?.checked_sub(4)?)
    };
    let payload = payload().with_context(|| format!("{} is no bzImage", image.display()))?;
    let packed = workshop.write("kernel.xz", payload)?;
    output(workshop.command("xz")?.arg("--decompress").arg(&packed))?;
    Ok(packed.with_extension(""))
}
