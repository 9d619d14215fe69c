//! Tests of the program `elasticstack-allinone` from outside: linked once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adoption;
mod apart;
mod bad_input;
mod console;
mod customer;
mod demo;
mod foreign;
#[expect(dead_code, reason = "tests of the hypervisor ask more of this guest")]
#[path = "../../../../elasticstack-host/tests/it/guest_code.rs"]
mod guest_code;
mod images;
mod plugs;
mod rfb;
mod rig;
mod smoke;
