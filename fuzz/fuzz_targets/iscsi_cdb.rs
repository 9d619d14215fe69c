//! Command Descriptor Blocks, and the parameters of UNMAP: what is taken is bounded by its fields.
#![no_main]

use elasticstack_host::iscsi::cdb::{CDB_LENGTH, Command, unmap_descriptors};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: ([u8; CDB_LENGTH], &[u8])| {
    let (cdb, parameters) = input;
    if let Ok(Command::CompareAndWrite { extent }) = Command::parse(&cdb) {
        assert!(extent.blocks <= 255);
    }
    if let Ok(extents) = unmap_descriptors(parameters) {
        assert!(extents.len() <= parameters.len() / 16);
        assert!(extents.iter().all(|extent| extent.blocks > 0));
    }
});
