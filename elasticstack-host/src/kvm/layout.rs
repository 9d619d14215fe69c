//! Where everything is in a guest's two address spaces. Memory begins at 0, has a hole below 4 GiB for
//! devices and interrupt controllers, and goes on above it.

use std::ops::Range;

/// The devices' part of the first 4 GiB; the interrupt controllers are at its end, where every PC has
/// them.
pub(super) const HOLE: Range<u64> = 0xd000_0000..0x1_0000_0000;

/// The registers of the first virtio device; each has a page.
const VIRTIO: u64 = HOLE.start;

/// What one virtio device takes of memory's address space.
pub(super) const VIRTIO_SIZE: u64 = 0x1000;

/// How many virtio devices a machine has at most: as many as the I/O APIC has lines that are free.
pub(super) const VIRTIO_MAX: u32 = 16;

/// The registers of virtio device `number`.
pub(super) const fn virtio(number: u32) -> u64 {
    VIRTIO + (number as u64) * VIRTIO_SIZE
}

/// The interrupt line of virtio device `number`: one of the I/O APIC's 24.
pub(super) const fn virtio_line(number: u32) -> u32 {
    8 + number
}

/// The first serial port, as every PC has it.
pub(super) const SERIAL: Range<u64> = 0x3f8..0x400;
pub(super) const SERIAL_LINE: u32 = 4;

/// ACPI's sleep control and sleep status, and the reset register.
pub(super) const POWER: Range<u64> = 0x600..0x603;

/// The panic device, where QEMU has it.
pub(super) const PANIC: Range<u64> = 0x505..0x506;

/// On which the power button is heard.
pub(super) const BUTTON_LINE: u32 = 5;

/// Linux's boot parameters ("zero page"), its command line, and the descriptors it starts with.
pub(super) const DESCRIPTORS: u64 = 0x500;
pub(super) const PARAMETERS: u64 = 0x7000;
pub(super) const COMMAND_LINE: u64 = 0x2_0000;
pub(super) const COMMAND_LINE_MAX: usize = 2048;

/// What a PC keeps to itself below 1 MiB; ACPI's root pointer is looked for from 0xe0000 on.
pub(super) const LEGACY: Range<u64> = 0x9_fc00..0x10_0000;
pub(super) const TABLES: Range<u64> = 0xe_0000..0x10_0000;

/// Where Linux's own memory begins.
pub(super) const HIGH: u64 = 0x10_0000;

/// Interrupt controllers, at their usual places.
pub(super) const IO_APIC: u32 = 0xfec0_0000;
pub(super) const LOCAL_APIC: u32 = 0xfee0_0000;

/// Three pages for KVM on Intel's processors, in the hole.
pub(super) const TASK_STATE: usize = 0xfffb_d000;

/// The parts of memory of a guest with so many bytes of it, each with its length.
pub(super) fn memory(bytes: u64) -> Vec<(u64, u64)> {
    let low = bytes.min(HOLE.start);
    let mut parts = vec![(0, low)];
    if bytes > low {
        parts.push((HOLE.end, bytes - low));
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_goes_around_the_hole_and_is_as_much_as_was_asked_for() {
        assert_eq!(memory(64 << 20), [(0, 64 << 20)]);
        assert_eq!(memory(HOLE.start), [(0, HOLE.start)]);
        assert_eq!(memory(8 << 30), [(0, HOLE.start), (1 << 32, (8 << 30) - HOLE.start)]);
    }

    #[test]
    fn devices_are_in_the_hole_and_below_the_interrupt_controllers() {
        assert!(virtio(VIRTIO_MAX) <= u64::from(IO_APIC));
        assert!(virtio_line(VIRTIO_MAX - 1) < 24);
    }
}
