//! What a hostile guest does to its devices: any access to registers and ports, any bytes in its memory where
//! queues and requests lie. Nothing panics, and a driver that sets a device up soundly is still served.
#![no_main]

use elasticstack_fuzz::{Device, Guest};
use elasticstack_host::kvm::Space;
use libfuzzer_sys::fuzz_target;

const DEVICES: u64 = 0xd000_0000;
/// More than any input needs.
const STEPS: usize = 512;

fuzz_target!(|input: &[u8]| {
    let mut guest = Guest::new();
    for step in input.chunks(12).take(STEPS) {
        let &[what, number, low, high, ref data @ ..] = step else { break };
        let number = number % 3;
        let (device, at) = (Device::ALL[usize::from(number)], u16::from_le_bytes([low, high]));
        let at = u64::from(at);
        let register = DEVICES + u64::from(number) * 0x1000 + at % 0x1000;
        match what % 8 {
            0 => guest.set_up(device, u32::from(low) << 9 | u32::from(high) << 24),
            1 => guest.register(device, 0x50, 0),
            2 => guest.board().write(Space::Memory, register, data),
            3 => guest.board().read(Space::Memory, register, &mut data.to_vec()),
            4 => guest.board().write(Space::Ports, 0x3f8 + at % 8, data),
            5 => guest.board().write(Space::Ports, at, data),
            6 => guest.board().read(Space::Ports, at, &mut data.to_vec()),
            _ => guest.board().fill(0x1000 + at, data),
        }
    }
    guest.is_served();
});
