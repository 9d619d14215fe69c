//! Names of devices: one that is read is written as it was.
#![no_main]

use elasticstack_core::hypervisor::Device;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(device) = text.parse::<Device>() {
        assert_eq!(device.to_string(), text);
    }
});
