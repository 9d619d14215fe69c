//! The wires: the public API's tables and formats, and the documents between control plane and
//! agent.
//!
//! [`keys`] and [`calls`] are the only places that name a key or a path of the public API: its
//! parsers, its server, its client and its documentation all read them.

pub mod calls;
#[cfg(feature = "internal")]
pub mod internal;
mod key;
pub mod keys;
pub mod page;
pub mod parameters;
pub mod record;
