//! Records in form encoding.
#![no_main]

use elasticstack_core::wire::record::{MAX_KEYS, Record};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    if let Ok(record) = Record::from_form(body) {
        assert!(record.iter().count() <= MAX_KEYS);
    }
});
