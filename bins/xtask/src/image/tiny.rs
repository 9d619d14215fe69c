//! `tiny`, the standard drive that the smoke run and the tests boot: Debian's own kernel, a busybox
//! userland and a BIOS boot loader on a small disk.
//!
//! Owns what it is made from. The same inputs give the same bytes.

use std::path::Path;

use anyhow::Result;

use super::debian::{self, Candidates, Kernel};
use super::disk::Content;
use super::workshop::{MBR, Tools, Workshop};
use super::{Draft, Inputs, builder, disk, gzip, initramfs, packed};

/// The first program in the guest, and nearly the only one.
pub(super) const INIT: &str = include_str!("tiny-init");

/// How the guest knows its own disk. The init script and `docs/tiny.md` name it too.
pub(super) const MARK: &[u8; 16] = b"ES-TINY-BOOTDISK";

/// The serial port is the last console, so that it is where the kernel's last words go. The timer is
/// taken as it is: a software CPU whose machine is busy may be late with its first ticks, and Linux
/// would panic over it.
const CONFIG: &str = "DEFAULT tiny\nPROMPT 0\nLABEL tiny\nKERNEL vmlinuz\nINITRD initrd.gz\n\
    APPEND console=tty0 console=ttyS0,115200 quiet no_timer_check\n";

/// What the virtual hardware needs, in loading order: the power button first, so that it is never
/// missed, and the kinds of disk before the controllers that find them.
const MODULES: [&str; 14] = [
    "button",
    "evdev",
    "sd_mod",
    "sr_mod",
    "virtio_pci",
    "virtio_blk",
    "virtio_scsi",
    "ata_piix",
    "ahci",
    "virtio_net",
    "e1000",
    "mii",
    "8139cp",
    "8139too",
];

const BUILDER: [&str; 4] =
    [include_str!("tiny.rs"), include_str!("disk.rs"), include_str!("initramfs.rs"), INIT];

pub(super) const TOOLS: Tools = &[
    ("apt-cache", "apt"),
    ("apt-get", "apt"),
    ("depmod", "kmod"),
    ("dpkg", "dpkg"),
    ("dpkg-query", "dpkg"),
    ("gzip", "gzip"),
    ("mcopy", "mtools"),
    ("mformat", "mtools"),
    ("syslinux", "syslinux"),
    (MBR, "syslinux-common"),
];

pub(super) fn inputs(workshop: &Workshop) -> Result<Inputs> {
    let Candidates { kernel, busybox } = debian::candidates(workshop, Kernel::Generic)?;
    let packages = [
        ("kernel".to_owned(), kernel.to_string()),
        ("busybox".to_owned(), busybox.to_string()),
        ("syslinux".to_owned(), debian::installed_version(workshop, "syslinux")?),
    ];
    Ok(packages.into_iter().chain([builder(&BUILDER)]).collect())
}

pub(super) fn build(workshop: &Workshop, debs: &Path) -> Result<Draft> {
    let Candidates { kernel, busybox } = debian::candidates(workshop, Kernel::Generic)?;
    let release = kernel.kernel_release()?;
    let kernel_root = kernel.unpack(workshop, debs)?;
    let busybox = busybox.unpack(workshop, debs)?.join("bin/busybox");
    let archive = initramfs::make(workshop, &kernel_root, release, &MODULES, &busybox, INIT)?;
    let initramfs = gzip(workshop, &workshop.write("initrd", &archive)?)?;
    let kernel = kernel_root.join(format!("boot/vmlinuz-{release}"));
    let content = Content {
        signature: *b"tiny",
        mark: MARK,
        files: &[(&kernel, "vmlinuz"), (&initramfs, "initrd.gz")],
        config: CONFIG,
    };
    packed(workshop, &disk::make(workshop, "tiny.raw", &content)?)
}
