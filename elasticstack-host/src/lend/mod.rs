//! Lending this host's drives to others over iSCSI, see [`Lend`](elasticstack_core::block::Lend).
//!
//! [`LioLender`] lends by the kernel's target, LIO:
//!
//! ```text
//!  LendSpec ─▶ `plan`, pure: what is to be so in configfs ─▶ `configfs` makes it so, step by step
//!                                                      `lio`: one at a time on each lend, bounded
//! ```
//! Nothing is kept but in the kernel: a step that is done already is passed over, so whatever a kill
//! leaves is mended by asking again. After a reboot nothing is lent.
//!
//! [`InProcessLender`] lends any volume by our own target, as long as this process lives.

mod configfs;
mod in_process;
mod lio;
mod plan;

pub use in_process::InProcessLender;
pub use lio::LioLender;
