//! The contracts of ElasticStack: its four traits, the types they speak in, the states of its
//! objects and both wire formats.
//!
//! Depend on this crate to implement a trait for your own hardware, billing or placement, or to
//! speak the public API; `elasticstack-host` and `elasticstack-api` are one implementation each.
//!
//! | you want to | start at |
//! |---|---|
//! | run servers on another hypervisor | [`hypervisor::Hypervisor`] |
//! | keep drives on other hardware | [`block::BlockStore`] |
//! | decide where new drives and servers go | [`scheduler::Scheduler`] |
//! | bill | [`biller::Biller`] |
//! | call the public API | [`client::Client`] |
//! | try any of this with no machine | `sim` (feature `sim`) |
//! | prove that your implementation keeps a contract | `conformance` (feature `conformance`) |
//!
//! # What this crate is not
//!
//! It does no I/O, reads no clock, starts no task and needs no async runtime: whoever embeds it
//! brings those. (The one exception is behind the feature `client-hyper`, the client's socket.)
#![forbid(unsafe_code)]

pub mod amount;
pub mod biller;
pub mod block;
pub mod client;
pub mod clock;
#[cfg(feature = "conformance")]
pub mod conformance;
pub mod error;
pub mod generation;
pub mod hypervisor;
pub mod id;
pub mod name;
pub mod prelude;
pub mod resource;
pub mod scheduler;
pub mod secret;
#[cfg(feature = "sim")]
pub mod sim;
pub mod state;
pub mod units;
pub mod wire;
