//! Records in JSON form: what is read and written again is the same, for any object.
#![no_main]

use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::record::Record;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|body: &[u8]| {
    let _ = Record::list_from_json(body);
    if let Ok(record) = Record::from_json(body) {
        for object in [Object::Drive, Object::Profile, Object::Server] {
            let written = record.to_json(object).to_string();
            let again = Record::from_json(written.as_bytes()).unwrap();
            // A number may have been written in another way, such as with leading zeros.
            assert!(record.iter().map(|(key, _)| key).eq(again.iter().map(|(key, _)| key)));
            assert_eq!(again.to_json(object).to_string(), written);
        }
    }
});
