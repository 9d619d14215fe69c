//! The control plane as its clients see it, over a host that exists in memory only.
#![expect(clippy::unwrap_used, reason = "this crate is nothing but tests")]

mod cloud;
mod compatibility;
mod errors;
mod fake_agent;
mod hosts;
