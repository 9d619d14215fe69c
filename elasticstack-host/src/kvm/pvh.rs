//! A kernel that is unpacked already: an ELF file with an entry of its own for that, by Xen's protocol of direct
//! boot (PVH: xen/include/public/arch-x86/hvm/start_info.h).

use std::fs::File;

use elasticstack_core::error::Result;
use linux_loader::loader::KernelLoader as _;
use linux_loader::loader::elf::{Elf, PvhBootCapability};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::kernel::{Entry, Kernel, map, put_at_end, write};
use super::layout::{COMMAND_LINE, HIGH, HOLE, PARAMETERS, TABLES};

/// As what the kernel is told begins.
const MAGIC: u32 = 0x336e_c578;
/// The first version that has a map of memory.
const VERSION: u32 = 1;

/// Behind what the kernel is told: its initial RAM disk, and the map of memory.
const MODULES: u64 = PARAMETERS + 0x40;
const MAP: u64 = PARAMETERS + 0x80;

/// Puts the kernel, its initial RAM disk and what it is told into the memory of a guest with so many bytes.
pub(super) fn load(
    kernel: Kernel<'_>,
    image: &mut File,
    guest: &GuestMemoryMmap,
    bytes: u64,
) -> Result<Entry> {
    let loaded = Elf::load(guest, None, image, Some(GuestAddress(HIGH)));
    let loaded = loaded.map_err(|error| kernel.failed(&error.to_string()))?;
    let PvhBootCapability::PvhEntryPresent(entry) = loaded.pvh_boot_cap else {
        return Err(
            kernel.failed("it has no entry for PVH: give one with CONFIG_PVH, or a bzImage")
        );
    };
    let mut modules = 0_u32;
    if let Some(opened) = &kernel.base.initial_disk {
        let range = put_at_end(guest, opened, loaded.kernel_end..bytes.min(HOLE.start))?;
        let length = range.end - range.start;
        write(guest, MODULES, &[range.start, length, 0, 0].map(u64::to_le_bytes).concat())?;
        modules = 1;
    }
    let parts = map(bytes);
    let count = u32::try_from(parts.len()).unwrap_or(0);
    let entries = parts.into_iter().map(|(start, length, kind)| {
        [start, length, u64::from(kind)].map(u64::to_le_bytes).concat()
    });
    write(guest, MAP, &entries.collect::<Vec<_>>().concat())?;
    let told = [
        [MAGIC, VERSION, 0, modules].map(u32::to_le_bytes).concat(),
        [MODULES, COMMAND_LINE, TABLES.start, MAP].map(u64::to_le_bytes).concat(),
        [count, 0].map(u32::to_le_bytes).concat(),
    ];
    write(guest, PARAMETERS, &told.concat())?;
    Ok(Entry { at: entry.0, esi: 0, ebx: PARAMETERS })
}
