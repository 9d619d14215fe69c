//! What an agent asks the process that lends: what is read is written back as the same ask.
#![no_main]

use elasticstack_host::lend::control::parse;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|line: &[u8]| {
    let Ok(ask) = parse(line) else { return };
    let written = serde_json::to_vec(&ask).expect("an ask is JSON");
    assert_eq!(parse(&written).expect("an ask is read back"), ask);
});
