//! Tests of the program `elasticstack-allinone` from outside: linked once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adoption;
mod bad_input;
mod console;
mod demo;
mod foreign;
mod plugs;
mod rfb;
mod rig;
mod smoke;
