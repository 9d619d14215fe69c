//! Tests of the program `elasticstack-allinone` from outside: linked once.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod adoption;
mod demo;
mod rig;
mod smoke;
