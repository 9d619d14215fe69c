//! Records in text form: what is read and written again is the same.
#![no_main]

use elasticstack_core::wire::record::{Record, list_to_text};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let _ = Record::from_text(body);
    if let Ok(records) = Record::list_from_text(body)
        // A line may end in CR LF, so a CR at its end is not kept.
        && !body.contains(&b'\r')
    {
        let written = list_to_text(&records);
        assert_eq!(Record::list_from_text(written.as_bytes()).unwrap(), records, "{written}");
    }
});
