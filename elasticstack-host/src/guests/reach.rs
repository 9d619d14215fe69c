//! What a guest borrows, tried before QEMU is told of it: QEMU would end at its start, or hold its
//! guest up, for a portal that does not answer.

use elasticstack_core::block::Borrowing;
use elasticstack_core::error::{Error, ErrorKind, Result};
use elasticstack_core::hypervisor::DriveSlot;
use futures_util::future::try_join_all;

use super::guest::Guest;
use super::nodes::borrowing;
use crate::iscsi::initiator;

/// Checks that all that is borrowed among these drives is lent to the guest by now.
///
/// # Errors
/// `Unavailable` for what is not.
pub(super) async fn reach(drives: &[DriveSlot]) -> Result<()> {
    try_join_all(drives.iter().filter_map(borrowing).map(try_out)).await.map(drop)
}

/// The same of those that the guest, which runs, does not have yet. What it has is QEMU's to keep.
///
/// # Errors
/// `Unavailable` for what is not; as [`Guest::request`].
pub(super) async fn reach_more(guest: &Guest, drives: &[DriveSlot]) -> Result<()> {
    let is_to_try = |slot: &&DriveSlot| slot.device.bus().is_hot() && borrowing(slot).is_some();
    let borrowed: Vec<DriveSlot> = drives.iter().filter(is_to_try).cloned().collect();
    if borrowed.is_empty() {
        return Ok(());
    }
    reach(&guest.unopened(borrowed).await?).await
}

async fn try_out(borrowing: &Borrowing) -> Result<()> {
    initiator::probe(borrowing).await.map(drop).map_err(|error| {
        let message = "a drive of the server lies on another host, which does not lend it yet or \
                       does not answer: try again later";
        Error::new(ErrorKind::Unavailable, message)
            .context(format!("{} at {}", borrowing.lend, borrowing.portal))
            .source(error)
    })
}
