//! What smartctl prints: whatever it is, a disk's warnings name the disk.
#![no_main]

use elasticstack_host::array::Smart;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|json: &[u8]| {
    if let Ok(smart) = Smart::parse(json) {
        let warnings = smart.warnings("WD-1");
        assert!(warnings.iter().all(|warning| warning.disk.as_deref() == Some("WD-1")));
    }
});
