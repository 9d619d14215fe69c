//! The control plane, as a library: accounts, what runs where, placement, usage, and the public
//! API.
#![forbid(unsafe_code)]

pub mod app;
mod db;
pub mod hosts;
pub mod http;
mod usage;
