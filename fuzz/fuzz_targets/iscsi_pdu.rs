//! Headers of iSCSI PDUs: whatever 48 bytes say, the lengths in them are bounded.
#![no_main]

use elasticstack_host::iscsi::pdu::{BHS_LENGTH, Request};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|header: [u8; BHS_LENGTH]| {
    if let Ok(request) = Request::parse(&header) {
        assert!(request.data_length < 1 << 24);
        assert!(request.ahs_length <= 255 * 4);
    }
});
