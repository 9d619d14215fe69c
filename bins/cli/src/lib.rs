//! `elasticstack`: the public API on a command line. The library owns everything but the process:
//! [`command`] the grammar, one module an object what is done, [`failure`] the exit status.
//!
//! The account comes from the environment only ([`account`]), so that no key is ever in an
//! argument, where every user of the machine could read it. Results go to standard output,
//! progress and errors to standard error.
#![forbid(unsafe_code)]

pub mod account;
mod ask;
pub mod command;
pub mod drive;
pub mod events;
pub mod failure;
pub mod host;
pub mod imaging;
pub mod keys;
pub mod profile;
pub mod screen;
pub mod server;
pub mod settings;
pub mod snapshot;
pub mod table;
pub mod transfer;
