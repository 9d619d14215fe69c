//! A Linux kernel in a guest's memory, ready to be jumped into, with its initial RAM disk, its command line and
//! the tables that it finds the machine by. It begins by one of two protocols, as its file says.

use std::io::Seek as _;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use elasticstack_core::error::{Error, Result};
use kvm_bindings::{kvm_regs, kvm_segment};
use kvm_ioctls::VcpuFd;
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use super::base::{Base, Opened};
use super::layout::{COMMAND_LINE, COMMAND_LINE_MAX, DESCRIPTORS, HIGH, LEGACY, TABLES, memory};
use super::{bzimage, pvh};

/// What a guest boots: its provider's kernel.
#[derive(Debug, Clone, Copy)]
pub(super) struct Kernel<'a> {
    pub base: &'a Base,
    pub command_line: &'a str,
}

/// What every kernel is told: that there is no PCI, which it would ask many thousand times for, and that it
/// starts anew by ACPI, where it would look for EFI first.
const ALWAYS: &str = "pci=off reboot=acpi";

/// Kinds of memory, as the kernel calls them (E820).
const RAM: u32 = 1;
const RESERVED: u32 = 2;

/// Flat segments of 4 GiB, of code (0x10) and of data (0x18).
const SEGMENTS: [u64; 4] = [0, 0, 0x00cf_9b00_0000_ffff, 0x00cf_9300_0000_ffff];

impl Kernel<'_> {
    /// Puts all of it into the memory of a guest with so many bytes, with these ACPI tables; answers with
    /// how it begins.
    ///
    /// # Errors
    /// `Internal` if a file can't be read, is no kernel, or does not fit.
    pub(super) fn load(self, guest: &GuestMemoryMmap, bytes: u64, tables: &[u8]) -> Result<Entry> {
        let line = format!("{ALWAYS} {}", self.command_line).into_bytes();
        if line.len() >= COMMAND_LINE_MAX || line.contains(&0) {
            return Err(self.failed("its command line is too long, or holds a zero"));
        }
        write(guest, COMMAND_LINE, &[&line[..], &[0]].concat())?;
        write(guest, TABLES.start, tables)?;
        write(guest, DESCRIPTORS, &SEGMENTS.map(u64::to_le_bytes).concat())?;
        let (file, mut magic) = (&self.base.kernel, [0; 4]);
        file.file.read_exact_at(&mut magic, 0).map_err(file.failed("reading"))?;
        let mut image = file.again()?;
        match &magic {
            b"\x7fELF" => pvh::load(self, &mut image, guest, bytes),
            _ => bzimage::load(self, &mut image, guest, bytes),
        }
    }

    pub(super) fn failed(&self, what: &str) -> Error {
        let path = self.base.kernel.path.display();
        Error::internal(format!("loading the kernel {path}: {what}"))
    }
}

/// How a kernel begins.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry {
    /// Its first instruction.
    pub at: u64,
    /// What is to be in `esi` and `ebx`.
    pub esi: u64,
    pub ebx: u64,
}

impl Entry {
    /// Protected mode with flat segments and without paging or interrupts.
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
        let Self { at: rip, esi: rsi, ebx: rbx } = self;
        processor.set_regs(&kvm_regs { rip, rsi, rbx, rflags: 2, ..Default::default() })
    }
}

/// A part of memory's address space: its start, its length, its kind.
pub(super) type Part = (u64, u64, u32);

/// What of memory's address space is memory.
pub(super) fn map(bytes: u64) -> Vec<Part> {
    let part = |range: Range<u64>, kind| (range.start, range.end.saturating_sub(range.start), kind);
    let mut map = vec![part(0..LEGACY.start, RAM), part(LEGACY, RESERVED)];
    for (start, length) in memory(bytes) {
        map.push(part(start.max(HIGH)..start.saturating_add(length), RAM));
    }
    map
}

/// Puts a file at the end of a range, at a whole page.
pub(super) fn put_at_end(
    guest: &GuestMemoryMmap,
    opened: &Opened,
    room: Range<u64>,
) -> Result<Range<u64>> {
    let path = opened.path.display();
    let mut file = opened.again()?;
    file.rewind().map_err(opened.failed("reading"))?;
    let length = file.metadata().map_err(opened.failed("reading"))?.len();
    let start = room.end.saturating_sub(length) & !0xfff;
    let whole = usize::try_from(length).ok().filter(|_| start >= room.start);
    let Some(whole) = whole else {
        let room = room.end.saturating_sub(room.start);
        return Err(Error::internal(format!(
            "{path} has {length} bytes, and the guest has room for {room}: give it more memory"
        )));
    };
    let read = guest.read_exact_volatile_from(GuestAddress(start), &mut file, whole);
    read.map_err(|error| Error::internal(format!("loading {path}")).source(error))?;
    Ok(start..start + length)
}

pub(super) fn write(guest: &GuestMemoryMmap, at: u64, bytes: &[u8]) -> Result<()> {
    let written = guest.write_slice(bytes, GuestAddress(at));
    written.map_err(|error| Error::internal("writing to a guest's memory").source(error))
}

/// An address or a length below 4 GiB.
pub(super) fn address(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}
