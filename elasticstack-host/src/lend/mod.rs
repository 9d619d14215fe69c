//! Lending drives to servers on other hosts over iSCSI, by the kernel's target, LIO.
//!
//! ```text
//!  LendSpec ─▶ `plan`, pure: what is to be so in configfs ─▶ `configfs` makes it so, step by step
//!                                                      `lio`: one at a time on each lend, bounded
//! ```
//! Nothing is kept but in the kernel: a step that is done already is passed over, so whatever a kill
//! leaves is mended by asking again. After a reboot nothing is lent.

mod configfs;
mod lio;
mod plan;

pub use lio::LioLender;
