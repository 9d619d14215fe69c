//! The QMP decoder: it takes the same messages however the bytes are cut.
#![no_main]

use elasticstack_host::guests::qmp_codec::{Decoder, Message};
use libfuzzer_sys::fuzz_target;

/// All messages of the bytes in pieces of this length, and whether they ended in an error.
fn decode(bytes: &[u8], piece: usize) -> (Vec<Message>, bool) {
    let mut decoder = Decoder::default();
    let mut messages = Vec::new();
    for bytes in bytes.chunks(piece) {
        decoder.push(bytes);
        loop {
            match decoder.message() {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break,
                Err(_) => return (messages, true),
            }
        }
    }
    (messages, false)
}

fuzz_target!(|input: (u8, &[u8])| {
    let (piece, bytes) = input;
    assert_eq!(decode(bytes, usize::from(piece) + 1), decode(bytes, usize::MAX));
});
