//! A Linux kernel in a guest's memory, ready to be jumped into: the image, its initial RAM disk, its
//! command line and the parameters that tell it of them (Documentation/arch/x86/boot.rst, the 32-bit boot
//! protocol).

use std::fs::File;
use std::io;
use std::ops::Range;
use std::path::Path;

use elasticstack_core::error::{Error, Result};
use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::{BzImage, KernelLoader as _};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use super::layout::{
    COMMAND_LINE, COMMAND_LINE_MAX, DESCRIPTORS, HIGH, HOLE, LEGACY, PARAMETERS, TABLES, memory,
};

/// What a guest boots: its provider's kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel<'a> {
    /// A bzImage, as distributions ship it.
    pub image: &'a Path,
    pub initial_disk: Option<&'a Path>,
    pub command_line: &'a str,
}

/// What every kernel is told: that there is no PCI, which it would ask many thousand times for, and that it
/// starts anew by ACPI, where it would look for EFI first.
const ALWAYS: &str = "pci=off reboot=acpi";

/// Kinds of memory, as the kernel calls them (E820).
const RAM: u32 = 1;
const RESERVED: u32 = 2;

/// A boot loader without a number.
const LOADER: u8 = 0xff;

/// Flat segments of 4 GiB, of code (0x10) and of data (0x18).
const SEGMENTS: [u64; 4] = [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

impl Kernel<'_> {
    /// Puts all of it into the memory of a guest with so many bytes, with these ACPI tables; answers with
    /// where it begins.
    ///
    /// # Errors
    /// `Internal` if a file can't be read, is no kernel, or does not fit.
    pub(super) fn load(self, guest: &GuestMemoryMmap, bytes: u64, tables: &[u8]) -> Result<Entry> {
        let mut image = open(self.image)?;
        let no_kernel = |what: &str| {
            Error::internal(format!("loading the kernel {}: {what}", self.image.display()))
        };
        let loaded = BzImage::load(guest, None, &mut image, Some(GuestAddress(HIGH)));
        let loaded = loaded.map_err(|error| no_kernel(&error.to_string()))?;
        let header = loaded.setup_header.ok_or_else(|| no_kernel("it has no setup header"))?;
        let mut parameters = boot_params { hdr: header, ..Default::default() };
        parameters.hdr.type_of_loader = LOADER;
        parameters.hdr.cmd_line_ptr = address(COMMAND_LINE);
        parameters.acpi_rsdp_addr = TABLES.start;
        let line = format!("{ALWAYS} {}", self.command_line).into_bytes();
        if line.len() >= COMMAND_LINE_MAX || line.contains(&0) {
            return Err(no_kernel("its command line is too long, or holds a zero"));
        }
        write(guest, COMMAND_LINE, &[&line[..], &[0]].concat())?;
        if let Some(path) = self.initial_disk {
            let most = u64::from(parameters.hdr.initrd_addr_max).saturating_add(1).min(HOLE.start);
            let after = loaded.kernel_end.max(HIGH).saturating_add(init_size(&parameters));
            let range = put_at_end(guest, path, after..bytes.min(most))?;
            parameters.hdr.ramdisk_image = address(range.start);
            parameters.hdr.ramdisk_size = address(range.end - range.start);
        }
        for (number, entry) in map(bytes).into_iter().enumerate() {
            parameters.e820_table[number] = entry;
            parameters.e820_entries = parameters.e820_entries.saturating_add(1);
        }
        let put = guest.write_obj(parameters, GuestAddress(PARAMETERS));
        put.map_err(|error| Error::internal("writing a guest's parameters").source(error))?;
        write(guest, DESCRIPTORS, &SEGMENTS.map(u64::to_le_bytes).concat())?;
        write(guest, TABLES.start, tables)?;
        Ok(Entry(loaded.kernel_load.0))
    }
}

/// Where a kernel begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry(u64);

impl Entry {
    /// Protected mode with flat segments and without paging or interrupts, the parameters in `esi`.
    pub(super) fn begin(self, processor: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
        let flat = |selector, type_| kvm_segment {
            limit: u32::MAX,
            selector,
            type_,
            present: 1,
            db: 1,
            s: 1,
            g: 1,
            ..Default::default()
        };
        let (code, data) = (flat(0x10, 0xb), flat(0x18, 0x3));
        let mut system = processor.get_sregs()?;
        (system.cs, system.ds, system.es, system.ss) = (code, data, data, data);
        (system.fs, system.gs) = (data, data);
        (system.gdt.base, system.gdt.limit) = (DESCRIPTORS, 31);
        system.cr0 |= 1;
        processor.set_sregs(&system)?;
        let registers = kvm_regs { rip: self.0, rsi: PARAMETERS, rflags: 2, ..Default::default() };
        processor.set_regs(&registers)
    }
}

/// How much the kernel needs at its place while it unpacks itself.
fn init_size(parameters: &boot_params) -> u64 {
    let preferred = parameters.hdr.pref_address.saturating_sub(HIGH);
    u64::from(parameters.hdr.init_size).saturating_add(preferred)
}

/// What of memory's address space is memory.
fn map(bytes: u64) -> Vec<boot_e820_entry> {
    let entry = |range: Range<u64>, kind| boot_e820_entry {
        addr: range.start,
        size: range.end.saturating_sub(range.start),
        r#type: kind,
    };
    let mut map = vec![entry(0..LEGACY.start, RAM), entry(LEGACY, RESERVED)];
    for (start, length) in memory(bytes) {
        map.push(entry(start.max(HIGH)..start.saturating_add(length), RAM));
    }
    map
}

/// Puts a file at the end of a range, at a whole page.
fn put_at_end(guest: &GuestMemoryMmap, path: &Path, room: Range<u64>) -> Result<Range<u64>> {
    let mut file = open(path)?;
    let length = file.metadata().map_err(failed("reading", path))?.len();
    let start = room.end.saturating_sub(length) & !0xfff;
    let whole = usize::try_from(length).ok().filter(|_| start >= room.start);
    let Some(whole) = whole else {
        let (path, room) = (path.display(), room.end.saturating_sub(room.start));
        return Err(Error::internal(format!(
            "{path} has {length} bytes, and the guest has room for {room}: give it more memory"
        )));
    };
    let read = guest.read_exact_volatile_from(GuestAddress(start), &mut file, whole);
    read.map_err(|error| Error::internal(format!("loading {}", path.display())).source(error))?;
    Ok(start..start + length)
}

fn open(path: &Path) -> Result<File> {
    File::open(path).map_err(failed("opening", path))
}

fn failed(action: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let sentence = format!("{action} {}", path.display());
    move |error| Error::internal(sentence).source(error)
}

fn write(guest: &GuestMemoryMmap, at: u64, bytes: &[u8]) -> Result<()> {
    let written = guest.write_slice(bytes, GuestAddress(at));
    written.map_err(|error| Error::internal("writing to a guest's memory").source(error))
}

/// An address or a length below 4 GiB.
fn address(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
