//! A kernel as distributions ship it, which unpacks itself (Documentation/arch/x86/boot.rst, the 32-bit boot
//! protocol).

use std::fs::File;
use std::io::Seek as _;

use elasticstack_core::error::{Error, Result};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use linux_loader::loader::{BzImage, KernelLoader as _};
use vm_memory::{Bytes as _, GuestAddress, GuestMemoryMmap};

use super::kernel::{Entry, Kernel, address, map, put_at_end};
use super::layout::{COMMAND_LINE, HIGH, HOLE, PARAMETERS, TABLES};

/// A boot loader without a number.
const LOADER: u8 = 0xff;

/// Puts the kernel, its initial RAM disk and its parameters into the memory of a guest with so many bytes.
pub(super) fn load(
    kernel: Kernel<'_>,
    image: &mut File,
    guest: &GuestMemoryMmap,
    bytes: u64,
) -> Result<Entry> {
    image.rewind().map_err(kernel.base.kernel.failed("reading"))?;
    let loaded = BzImage::load(guest, None, image, Some(GuestAddress(HIGH)));
    let loaded = loaded.map_err(|error| kernel.failed(&error.to_string()))?;
    let header = loaded.setup_header.ok_or_else(|| kernel.failed("it has no setup header"))?;
    let mut parameters = boot_params { hdr: header, ..Default::default() };
    parameters.hdr.type_of_loader = LOADER;
    parameters.hdr.cmd_line_ptr = address(COMMAND_LINE);
    parameters.acpi_rsdp_addr = TABLES.start;
    if let Some(opened) = &kernel.base.initial_disk {
        let most = u64::from(parameters.hdr.initrd_addr_max).saturating_add(1).min(HOLE.start);
        let after = loaded.kernel_end.max(HIGH).saturating_add(init_size(&parameters));
        let range = put_at_end(guest, opened, after..bytes.min(most))?;
        parameters.hdr.ramdisk_image = address(range.start);
        parameters.hdr.ramdisk_size = address(range.end - range.start);
    }
    for (number, (addr, size, r#type)) in map(bytes).into_iter().enumerate() {
        parameters.e820_table[number] = boot_e820_entry { addr, size, r#type };
        parameters.e820_entries = parameters.e820_entries.saturating_add(1);
    }
    let put = guest.write_obj(parameters, GuestAddress(PARAMETERS));
    put.map_err(|error| Error::internal("writing a guest's parameters").source(error))?;
    Ok(Entry { at: loaded.kernel_load.0, esi: PARAMETERS, ebx: 0 })
}

/// How much the kernel needs at its place while it unpacks itself.
fn init_size(parameters: &boot_params) -> u64 {
    let preferred = parameters.hdr.pref_address.saturating_sub(HIGH);
    u64::from(parameters.hdr.init_size).saturating_add(preferred)
}
