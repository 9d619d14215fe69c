//! What a hostile guest does to its serial port: any access of any width. Nothing panics, no byte is written
//! that the guest did not write, and the port still writes when it is set up soundly.
#![no_main]

use elasticstack_fuzz::Guest;
use elasticstack_host::kvm::Space;
use libfuzzer_sys::fuzz_target;

const SERIAL: u64 = 0x3f8;

fuzz_target!(|input: &[u8]| {
    let guest = Guest::new();
    let mut written = Vec::new();
    for step in input.chunks_exact(2) {
        let &[what, value] = step else { break };
        let (register, width) = (u64::from(what & 7), usize::from(what >> 3 & 7));
        if what & 0x80 == 0 {
            guest.board().write(Space::Ports, SERIAL + register, &vec![value; width]);
            written.push(value);
        } else {
            guest.board().read(Space::Ports, SERIAL + register, &mut vec![value; width]);
        }
    }
    let mut rest = written.iter();
    assert!(guest.console().iter().all(|byte| rest.any(|other| other == byte)), "it made it up");
    guest.is_heard();
});
