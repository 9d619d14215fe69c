//! Disks' serial number pages: what is read of one is text, and no longer than the page.
#![no_main]

use elasticstack_host::array::serial_of_vpd;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|page: &[u8]| {
    if let Some(serial) = serial_of_vpd(page) {
        assert!(!serial.is_empty() && serial.len() <= page.len());
    }
});
