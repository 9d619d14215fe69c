//! A guest's memory: zeros at first, which the host has when they are touched. It gets the host's huge pages, where
//! it has them, at addresses where the guest's huge pages are theirs: few faults fill it, and one translation
//! reaches far (Documentation/admin-guide/mm/transhuge.rst).
#![expect(unsafe_code, reason = "a mapping begins at an address of its own")]

use std::ops::Deref;

use elasticstack_core::error::{Error, Result};
use rustix::mm::{Advice, madvise};
use vm_memory::{GuestAddress, GuestMemoryMmap, GuestRegionMmap, MmapRegion};

use super::layout::memory;

/// A huge page of x86-64.
const HUGE: usize = 2 << 20;

/// The memory.
#[derive(Debug)]
pub(super) struct Memory {
    map: GuestMemoryMmap,
    /// What its parts lie in, each with room to begin where a huge page does.
    _rooms: Vec<MmapRegion>,
}

impl Memory {
    /// So many bytes of it.
    ///
    /// # Errors
    /// `Internal` if there is not that much.
    pub(super) fn zeros(bytes: u64) -> Result<Self> {
        let no_memory = || Error::internal(format!("giving a guest {bytes} bytes of memory"));
        let (mut regions, mut rooms) = (Vec::new(), Vec::new());
        for (start, length) in memory(bytes) {
            let length = usize::try_from(length).map_err(|error| no_memory().source(error))?;
            let room = length.checked_add(HUGE).ok_or_else(no_memory)?;
            let room = MmapRegion::new(room).map_err(|error| no_memory().source(error))?;
            let part = part(&room, length).map_err(|error| no_memory().source(error))?;
            regions.push(GuestRegionMmap::new(part, GuestAddress(start)).ok_or_else(no_memory)?);
            rooms.push(room);
        }
        let map = GuestMemoryMmap::from_regions(regions);
        Ok(Self { map: map.map_err(|error| no_memory().source(error))?, _rooms: rooms })
    }
}

impl Deref for Memory {
    type Target = GuestMemoryMmap;

    fn deref(&self) -> &GuestMemoryMmap {
        &self.map
    }
}

/// The first `length` bytes of a room from the first huge page in it on.
fn part(room: &MmapRegion, length: usize) -> Result<MmapRegion, vm_memory::mmap::MmapRegionError> {
    let start = room.as_ptr();
    let start = start.wrapping_add(start.align_offset(HUGE));
    // JUSTIFICATION: there is no safe call for it.
    // SAFETY: how the room is backed changes nothing of what is in it. A kernel without huge pages refuses.
    let _ = unsafe { madvise(start.cast(), length, Advice::LinuxHugepage) };
    // JUSTIFICATION: vm-memory lets the kernel choose where it maps, which is at any page.
    // SAFETY: the room is `length` and a huge page long, and is mapped for as long as its owner, who has the
    // answer too.
    unsafe { MmapRegion::build_raw(start, length, room.prot(), room.flags()) }
}

#[cfg(test)]
mod tests {
    use vm_memory::{Bytes as _, GuestMemoryBackend as _, GuestMemoryRegion as _};

    use super::*;

    #[test]
    fn each_part_begins_where_a_huge_page_does_and_is_zeros_to_its_last_byte() {
        let memory = Memory::zeros((3 << 20) + 4096).unwrap();
        let (start, last) = (GuestAddress(0), GuestAddress((3 << 20) + 4095));
        assert_eq!(memory.last_addr(), last);
        assert_eq!(memory.get_host_address(start).unwrap().align_offset(HUGE), 0);
        memory.write_obj(7_u8, last).unwrap();
        assert_eq!(memory.read_obj::<u8>(last).unwrap(), 7);
        assert_eq!(memory.read_obj::<u64>(start).unwrap(), 0);
        assert!(memory.iter().all(|part| part.len() == (3 << 20) + 4096));
    }

    #[test]
    fn more_than_there_is_is_refused() {
        assert!(Memory::zeros(u64::MAX).is_err());
        assert!(Memory::zeros(1 << 60).is_err());
    }
}
