//! A target of iSCSI (RFC 7143) in user space, for any
//! [`Volume`](elasticstack_core::block::Volume).
//!
//! ```text
//!   server ──▶ login ──▶ session ──▶ exchange ───▶ unit ──▶ medium ──▶ Volume
//!   accepts    who?      PDUs        a command's   SCSI     blocks
//!                                    data
//! ```
//! [`IscsiServer::add`] gives out a volume, [`IscsiServer::revoke`] takes it back: when that
//! returns, nobody can log in to the target and nothing that its initiators asked for is in flight.
//!
//! It speaks error recovery level 0 with one connection a session, CHAP either way, digests, and
//! what SBC-3 initiators ask of a disk. Every write is durable before its status (WCE is 0). A
//! connection takes at most 1 MiB beside its buffers in the kernel, however it behaves. The
//! reservations of initiators last as long as the server does.
//!
//! [`initiator`] is the other side of it.
//!
//! The parsers of what comes from outside are public, so that they can be fuzzed: [`pdu`],
//! [`text`], [`cdb`].

pub mod cdb;
mod chap;
mod exchange;
mod field;
pub mod initiator;
mod initiator_login;
mod initiator_pdu;
mod initiator_session;
mod inquiry;
mod link;
mod login;
mod medium;
mod mode;
mod negotiate;
mod opcodes;
pub mod pdu;
mod reservation;
mod sense;
mod server;
mod session;
mod target;
mod tasks;
#[cfg(test)]
mod tests;
pub mod text;
mod unit;
mod wire;

pub(crate) use link::ALIGNMENT;
#[cfg(test)]
pub(crate) use link::aligned;

pub use chap::{Chap, Credentials};
pub use inquiry::Identity;
pub use server::{IscsiServer, Limits};
pub use target::TargetConfig;
