//! What a hostile guest does with its card: frames and buffers of any shape, while the host sends frames of
//! any length. Nothing panics, and a sound frame is still sent.
#![no_main]

use elasticstack_fuzz::{Device, Guest, Piece};
use libfuzzer_sys::fuzz_target;

/// More than any input needs.
const STEPS: usize = 64;

fuzz_target!(|input: &[u8]| {
    let Some((&features, steps)) = input.split_first() else { return };
    let mut guest = Guest::new();
    guest.set_up(Device::Card, u32::from(features & 1) << 5);
    for step in steps.chunks_exact(16).take(STEPS) {
        let &[queue, frame, head, requests, ref pieces @ ..] = step else { break };
        if queue & 2 != 0 {
            guest.send(&vec![queue; usize::from(frame) << (queue >> 5)]);
        }
        let pieces: Vec<_> = pieces
            .chunks_exact(6)
            .map(|piece| Piece {
                at: u64::from(piece[0]) << 12 | u64::from(piece[1]),
                length: u32::from(u16::from_le_bytes([piece[2], piece[3]])),
                flags: u16::from(piece[4]),
                next: u16::from(piece[5] % 20),
            })
            .collect();
        let (head, requests) = (u16::from(head % 20), u16::from(requests % 24));
        guest.give(Device::Card, queue & 1, &pieces, head, requests);
    }
    guest.is_served();
});
