//! What a driver has of a device: memory, and its side of a queue. For tests of devices.

use std::sync::Arc;

use virtio_queue::{Queue, QueueT as _};
use vm_memory::{Bytes as _, GuestAddress};

use super::memory::Memory;

/// Where the parts of a queue lie, from its descriptors on.
pub(super) const AVAILABLE: u64 = 0x1000;
const USED: u64 = 0x2000;

/// How many descriptors it has.
pub(super) const SIZE: u16 = 16;

/// Bytes of a guest's memory.
pub(super) const MEMORY: u64 = 1 << 20;

/// A piece of a request: where, how long, and whether the device writes it.
pub(super) type Piece = (u64, u32, bool);

/// A guest's memory.
pub(super) struct DriverMemory(Arc<Memory>);

impl DriverMemory {
    pub(super) fn new() -> Self {
        Self(Arc::new(Memory::zeros(MEMORY).unwrap()))
    }

    /// The same, for a device.
    pub(super) fn of_device(&self) -> Arc<Memory> {
        Arc::clone(&self.0)
    }

    pub(super) fn put(&self, at: u64, bytes: &[u8]) {
        self.0.write_slice(bytes, GuestAddress(at)).unwrap();
    }

    pub(super) fn get(&self, at: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_slice(&mut bytes, GuestAddress(at)).unwrap();
        bytes
    }
}

/// A queue, of which one request at a time is made.
pub(super) struct DriverQueue {
    at: u64,
    /// How many requests were given to the device.
    pub(super) given: u16,
}

impl DriverQueue {
    /// One that lies there.
    pub(super) const fn new(at: u64) -> Self {
        Self { at, given: 0 }
    }

    /// The device's side of it, which may be so deep.
    pub(super) fn of_device(&self, depth: u16) -> Queue {
        let mut queue = Queue::new(depth).unwrap();
        queue.try_set_size(SIZE).unwrap();
        queue.try_set_desc_table_address(GuestAddress(self.at)).unwrap();
        queue.try_set_avail_ring_address(GuestAddress(self.at + AVAILABLE)).unwrap();
        queue.try_set_used_ring_address(GuestAddress(self.at + USED)).unwrap();
        queue.set_ready(true);
        queue
    }

    /// Gives the device a chain of pieces; its bell is not rung.
    pub(super) fn give(&mut self, memory: &DriverMemory, pieces: &[Piece]) {
        for (number, (place, length, is_written)) in pieces.iter().enumerate() {
            let next = u16::try_from(number + 1).unwrap();
            let has_next = usize::from(next) < pieces.len();
            let flags = u16::from(has_next) | u16::from(*is_written) << 1;
            let mut descriptor = place.to_le_bytes().to_vec();
            descriptor.extend(length.to_le_bytes());
            descriptor.extend(flags.to_le_bytes());
            descriptor.extend(next.to_le_bytes());
            memory.put(self.at + 16 * number as u64, &descriptor);
        }
        memory.put(self.at + AVAILABLE + 4 + u64::from(self.given % SIZE) * 2, &[0, 0]);
        self.given = self.given.wrapping_add(1);
        memory.put(self.at + AVAILABLE + 2, &self.given.to_le_bytes());
    }

    /// How many requests the device has given back.
    pub(super) fn given_back(&self, memory: &DriverMemory) -> u16 {
        u16::from_le_bytes(memory.get(self.at + USED + 2, 2).try_into().unwrap())
    }

    /// How much the device wrote to the request that it gave back last.
    pub(super) fn written(&self, memory: &DriverMemory) -> u32 {
        let last = u64::from(self.given_back(memory).wrapping_sub(1) % SIZE);
        let at = self.at + USED + 4 + last * 8;
        u32::from_le_bytes(memory.get(at + 4, 4).try_into().unwrap())
    }
}
