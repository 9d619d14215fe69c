//! What a hostile guest asks of its drive: requests of any kind, anywhere, in chains of any shape. Nothing
//! panics, and a sound request is still served.
#![no_main]

use elasticstack_fuzz::{Device, Guest, NEXT, Piece, WRITE};
use libfuzzer_sys::fuzz_target;

/// Where requests' headers and their status are.
const HEADER: u64 = 0x1_0000;
const STATUS: u64 = 0x1_1000;
/// More than any input needs.
const STEPS: usize = 64;

fuzz_target!(|input: &[u8]| {
    let Some((&features, steps)) = input.split_first() else { return };
    let mut guest = Guest::new();
    guest.set_up(Device::Drive, u32::from(features) << 5 | u32::from(features) << 24);
    for step in steps.chunks_exact(16).take(STEPS) {
        let &[what, shape, ref sector @ .., at, pages, low, high, flags, next, head, requests] =
            step
        else {
            break;
        };
        // Far beyond the drive's end too, up to where its bytes are no number any more.
        let sector = sector.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte));
        let sector = sector << if shape & 1 == 0 { 0 } else { 20 };
        let mut header = [0; 16];
        header[0] = what;
        header[8..].copy_from_slice(&sector.to_le_bytes());
        guest.board().fill(HEADER, &header);
        let has_status = shape & 2 == 0;
        let long = u32::from(u16::from_le_bytes([low, high])) << (shape >> 5);
        let pieces = [
            Piece { at: HEADER, length: 16 - u32::from(shape >> 2 & 1), flags: NEXT, next: 1 },
            Piece {
                at: u64::from(at) << 12 | u64::from(pages) << 4,
                length: long,
                flags: u16::from(flags),
                next: u16::from(next % 20),
            },
            Piece { at: STATUS, length: u32::from(has_status), flags: WRITE, next: 0 },
        ];
        guest.give(Device::Drive, 0, &pieces, u16::from(head % 20), u16::from(requests % 24));
    }
    guest.is_served();
});
