//! Headers of PDUs from a target: whatever 48 bytes say, the lengths in them are bounded, and what is
//! read is what a target would write.
#![no_main]

use elasticstack_host::iscsi::pdu::{BHS_LENGTH, Response};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: [u8; BHS_LENGTH]| {
    if let Ok(received) = Response::parse(&header) {
        assert!(received.data_length < 1 << 24);
        let length = u32::try_from(received.data_length).unwrap_or(u32::MAX);
        let again = Response::parse(&received.response.header(received.numbers, length));
        assert_eq!(again.map(|again| again.response), Ok(received.response));
    }
});
