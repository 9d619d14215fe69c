//! The text of iSCSI's negotiations: what is read is written back as the same pairs.
#![no_main]

use elasticstack_host::iscsi::text::{parse, push};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &[u8]| {
    let Ok(pairs) = parse(text) else { return };
    let mut written = Vec::new();
    for (key, value) in &pairs {
        assert!(!key.is_empty() && !key.contains('='));
        push(&mut written, key, value);
    }
    assert_eq!(parse(&written).as_ref(), Ok(&pairs));
});
