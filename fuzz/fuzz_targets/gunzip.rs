//! Our gunzip: however its input and output are cut it comes to the same, and what it takes for
//! whole is what another implementation unpacks.
#![no_main]

use std::io::Read as _;

use elasticstack_host::image::gunzip::{Gunzip, GunzipError};
use flate2::read::MultiGzDecoder;
use libfuzzer_sys::fuzz_target;

/// The most that is unpacked of one input.
const LIMIT: usize = 1 << 20;

/// Unpacks in pieces of these lengths; `None` past the limit.
fn unpack(packed: &[u8], piece: usize, room: usize) -> Option<Result<Vec<u8>, GunzipError>> {
    let mut gunzip = Gunzip::new();
    let (mut plain, mut buffer) = (Vec::new(), vec![0; room]);
    for mut input in packed.chunks(piece) {
        while !input.is_empty() {
            let step = match gunzip.unpack(input, &mut buffer) {
                Ok(step) => step,
                Err(error) => return Some(Err(error)),
            };
            assert!(step.consumed > 0 || step.produced > 0, "it makes no progress");
            plain.extend_from_slice(&buffer[..step.produced]);
            input = &input[step.consumed..];
            if plain.len() > LIMIT {
                return None;
            }
        }
    }
    Some(gunzip.finish().map(|()| plain))
}

fuzz_target!(|input: (u8, u16, &[u8])| {
    let (piece, room, packed) = input;
    let Some(plain) = unpack(packed, usize::MAX, 1 << 16) else { return };
    let cut = unpack(packed, usize::from(piece) + 1, usize::from(room) + 1);
    let Some(cut) = cut else { panic!("cut otherwise, it unpacks to more") };
    assert_eq!(cut.is_ok(), plain.is_ok());
    if let Ok(plain) = plain {
        assert_eq!(cut.unwrap(), plain);
        let mut other = vec![0; plain.len()];
        MultiGzDecoder::new(packed).read_exact(&mut other).unwrap();
        assert_eq!(other, plain);
    }
});
