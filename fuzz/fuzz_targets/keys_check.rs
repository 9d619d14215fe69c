//! The check of a record against the table of keys: what it lets through has no key or value that
//! would forge a line where records are written as text.
#![no_main]

use elasticstack_core::wire::keys::{self, Moment, Object};
use elasticstack_core::wire::record::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let Ok(record) = Record::from_json(body) else { return };
    for object in [Object::Drive, Object::Server] {
        for moment in [Moment::Create, Moment::SetStopped, Moment::SetRunning] {
            let text = record.to_text();
            // A line may end in CR LF, so a CR at its end is not kept.
            if keys::check(object, moment, &record).is_ok() && !text.contains('\r') {
                assert_eq!(Record::from_text(text.as_bytes()).unwrap(), record, "{text}");
            }
        }
    }
});
