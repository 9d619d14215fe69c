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
//! [`ProcessLender`] lends files by our own target, in a process of its own, `elasticstack-target`, which
//! is [`Service`]; the two talk as [`control`] says. [`InProcessLender`] lends any volume, as long as
//! this process lives.
//!
//! [`Borrow`] is the other end, for jobs: guests log in by themselves.

mod borrow;
mod configfs;
pub mod control;
mod file;
mod in_process;
mod lio;
mod plan;
mod process;
mod service;
mod writer;

pub use borrow::{Borrow, IscsiBorrower};
pub(crate) use file::FileVolume;
pub use in_process::InProcessLender;
pub use lio::LioLender;
pub use process::{ProcessConfig, ProcessLender};
pub use service::Service;
