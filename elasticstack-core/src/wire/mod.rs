//! The wires: the public API's tables and formats, and the documents between control plane and
//! agent.
//!
//! [`keys`] and [`calls`] are the only places that name a key or a path of the public API: its
//! parsers, its server, its client and its documentation all read them.

#[cfg(feature = "internal")]
pub mod arrays;
pub mod calls;
mod calls_of_accounts;
mod calls_of_drives;
mod calls_of_events;
mod calls_of_operators;
mod calls_of_servers;
mod calls_of_snapshots;
pub mod form;
pub mod headers;
#[cfg(feature = "internal")]
pub mod internal;
mod key;
pub mod keys;
mod keys_of_accounts;
mod keys_of_drives;
mod keys_of_events;
mod keys_of_operators;
mod keys_of_servers;
mod keys_of_shared;
mod keys_of_snapshots;
pub mod page;
pub mod parameters;
pub mod queries;
pub mod record;
mod route;
mod shown;
