//! What a machine boots that has no disk to boot from: Debian's own kernel, unpacked, and an initramfs.
//!
//! Owns a directory of the cache for each. It is replaced whole, so that one which is there is whole.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::debian::{self, Candidates, Kernel};
use super::workshop::{Tools, Workshop, discard, output};
use super::{Inputs, builder, gzip, initramfs, workshop};
use crate::process;

/// A kernel and its initramfs.
pub(crate) struct Kit {
    /// What it is called in the cache and in errors.
    name: &'static str,
    kernel: Kernel,
    /// What the initramfs loads.
    modules: &'static [&'static str],
    /// What it loads after those.
    more: &'static [&'static str],
    /// Its first program.
    init: &'static str,
    /// Whether all other modules are beside it.
    has_all_modules: bool,
}

impl Kit {
    /// What a lab machine boots: all modules, and an initramfs that makes the root of this machine its root.
    /// Those that it loads are what the virtual hardware and the shared directories need.
    pub(crate) const LAB: Self = Self {
        name: "lab",
        kernel: Kernel::Generic,
        modules: &[
            "virtio_pci",
            "virtio_blk",
            "virtio_scsi",
            "virtio_net",
            "virtio_console",
            "sd_mod",
            "9pnet_virtio",
            "9p",
            "overlay",
        ],
        more: &[],
        init: include_str!("lab-init"),
        has_all_modules: true,
    };

    /// What a container boots: drivers for all that it finds, with the file system of its seed; and the root is its
    /// own drive's.
    pub(crate) const CONTAINER: Self = Self {
        name: "container",
        kernel: Kernel::Cloud,
        modules: &[
            "button",
            "evdev",
            "isofs",
            "virtio_mmio",
            "virtio_blk",
            "virtio_net",
            "virtio-rng",
        ],
        more: &[],
        init: include_str!("container-init"),
        has_all_modules: false,
    };

    /// What a bench boots on any machine: as a container's, with a driver for PCI.
    pub(crate) const ANY: Self =
        Self { name: "any-machine", more: &["virtio_pci"], ..Self::CONTAINER };
}

const TOOLS: Tools = &[
    ("apt-cache", "apt"),
    ("apt-get", "apt"),
    ("depmod", "kmod"),
    ("dpkg", "dpkg"),
    ("gzip", "gzip"),
    ("lz4", "lz4"),
    ("xz", "xz-utils"),
];

impl Kit {
    /// Makes sure that the cache holds a current one.
    ///
    /// # Errors
    /// A tool is not installed, apt does not know or cannot fetch a package, or the cache is not
    /// writable.
    pub(crate) fn ensure(&self) -> Result<PathBuf> {
        workshop::check(self.name, TOOLS)?;
        let cache = process::cache_dir()?;
        let workshop = Workshop::open(&cache)?;
        let directory = cache.join(self.name);
        let candidates = debian::candidates(&workshop, self.kernel)?;
        let Candidates { kernel, busybox } = &candidates;
        let packages = [
            ("kernel".to_owned(), kernel.to_string()),
            ("busybox".to_owned(), busybox.to_string()),
        ];
        let inputs: Inputs = packages.into_iter().chain([self.builder()]).collect();
        let manifest = serde_json::to_string_pretty(&inputs)?;
        if fs::read_to_string(directory.join("inputs.json")).ok().as_ref() != Some(&manifest) {
            eprintln!("making what {} boots of {kernel}", self.name);
            let draft = self.build(&workshop, &cache.join("debs"), &candidates)?;
            fs::write(draft.join("inputs.json"), manifest).context("write a kernel's manifest")?;
            discard(&directory)?;
            fs::rename(&draft, &directory).context("put a kernel in its place")?;
        }
        workshop.close()?;
        Ok(directory)
    }

    fn builder(&self) -> (String, String) {
        builder(&[include_str!("kit.rs"), include_str!("initramfs.rs"), self.init])
    }

    /// Makes all of it in a directory of the workshop, and returns that.
    fn build(&self, workshop: &Workshop, debs: &Path, candidates: &Candidates) -> Result<PathBuf> {
        let Candidates { kernel, busybox } = candidates;
        let modules = [self.modules, self.more].concat();
        let release = kernel.kernel_release()?;
        let root = kernel.unpack(workshop, debs)?;
        let busybox = busybox.unpack(workshop, debs)?.join("bin/busybox");
        let archive = initramfs::make(workshop, &root, release, &modules, &busybox, self.init)?;
        let initrd = gzip(workshop, &workshop.write("initrd", &archive)?)?;
        let draft = workshop.path(self.name);
        let unpacked = unpacked(workshop, &root.join(format!("boot/vmlinuz-{release}")))?;
        let placed = fs::create_dir(&draft)
            .and_then(|()| fs::rename(unpacked, draft.join("kernel")))
            .and_then(|()| fs::rename(initrd, draft.join("initrd.gz")));
        placed.context("put a kernel together")?;
        if self.has_all_modules {
            fs::rename(root.join("lib/modules"), draft.join("modules"))
                .context("put modules beside a kernel")?;
        }
        Ok(draft)
    }
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
    // As their formats begin: Debian packs its kernels in one of two.
    let (tool, options): (_, &[&str]) = match payload {
        [0xfd, b'7', b'z', b'X', b'Z', 0, ..] => ("xz", &["--decompress"]),
        [0x02, 0x21, 0x4c, 0x18, ..] => ("lz4", &["--decompress", "--multiple", "--quiet"]),
        _ => bail!("{} is packed neither by xz nor by lz4", image.display()),
    };
    let packed = workshop.write(&format!("kernel.{tool}"), payload)?;
    output(workshop.command(tool)?.args(options).arg(&packed))?;
    Ok(packed.with_extension(""))
}
