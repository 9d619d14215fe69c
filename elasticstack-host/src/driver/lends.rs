//! The lends of one drive: makes those that its document names, and ends all others.
//!
//! ```text
//!  wanted ──▶ grant ──▶ recorded ──▶ fenced, opened ──▶ lent
//!  not wanted: withdrawn ──▶ record ends ──▶ grant released
//! ```
//! Invariant: what may be lent is recorded, and its grant held, from before it is until it is
//! withdrawn; so whoever wants the drive next waits until nothing of the borrower's is in flight.

use std::collections::HashMap;
use std::sync::Arc;

use elasticstack_core::block::{Lend, LendId, LendSpec, Volume, Writing};
use elasticstack_core::error::{Error, ErrorKind, Result};
use elasticstack_core::generation::Epoch;
use elasticstack_core::hypervisor::Media;
use elasticstack_core::id::DriveId;
use elasticstack_core::wire::internal::{DriveDocument, LentDrive};

use super::open::open;
use crate::agent::{Holder, Host, Key, Record};

/// What is lent of one drive, kept open for as long as it is.
#[derive(Default)]
pub(super) struct Lent {
    volumes: HashMap<LendId, Arc<dyn Volume>>,
}

/// Where lending led.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Step {
    /// All is lent that is to be.
    Settled,
    /// Somebody holds the drive.
    Held,
}

/// Whether nothing is lent, nor to be.
pub(super) fn is_untouched(record: &Record<DriveDocument>) -> bool {
    wanted(record).is_empty() && record.facts.lent.is_empty()
}

fn wanted(record: &Record<DriveDocument>) -> &[LentDrive] {
    if record.document.gone { &[] } else { &record.document.lends }
}

impl Lent {
    /// Ends what may be lent and is not to be. It comes first: what else is to be done to the
    /// drive waits for the grant.
    pub(super) async fn end_unwanted(
        &mut self,
        host: &Arc<Host>,
        record: &Record<DriveDocument>,
    ) -> Result<()> {
        let drive = record.document.drive;
        for lent in record.facts.lent.iter().filter(|lent| !wanted(record).contains(lent)) {
            let lend = LendId { drive, epoch: lent.epoch };
            lender(host)?.withdraw(lend).await?;
            self.volumes.remove(&lend);
            let ended = lent.clone();
            host.on_disk(move |host| {
                host.drives.amend(drive, |facts| facts.lent.retain(|lent| *lent != ended))
            })
            .await?;
            host.release(Holder::Lend(lend));
        }
        Ok(())
    }

    /// Lends the drive, which is there, to whom it is to be lent. What is lent already is told of
    /// the drive's size.
    pub(super) async fn make_wanted(
        &mut self,
        host: &Arc<Host>,
        record: &Record<DriveDocument>,
    ) -> Result<Step> {
        let drive = record.document.drive;
        for lent in wanted(record) {
            let lender = lender(host)?;
            let lend = LendId { drive, epoch: lent.epoch };
            if host.take(Holder::Lend(lend), &[(drive, lent.access)]).is_err() {
                return Ok(Step::Held);
            }
            if !record.facts.lent.contains(lent) {
                let begun = lent.clone();
                host.on_disk(move |host| host.drives.amend(drive, |facts| facts.lent.push(begun)))
                    .await?;
            }
            let volume = match self.volumes.get(&lend) {
                Some(volume) => Arc::clone(volume),
                None => open(host, drive, lent.epoch, lent.access).await?,
            };
            lender.lend(&spec_of(lend, lent), Arc::clone(&volume)).await?;
            self.volumes.insert(lend, volume);
        }
        Ok(Step::Settled)
    }
}

/// Ends every lend of a drive below `epoch`, also one that no record knows, such as of an agent
/// whose records were lost.
pub(super) async fn end_below(host: &Host, drive: DriveId, epoch: Epoch) -> Result<()> {
    let Some(lender) = &host.lender else { return Ok(()) };
    let lent = lender.lent().await?;
    for lend in lent.into_iter().filter(|lend| lend.drive == drive && lend.epoch < epoch) {
        tracing::warn!(%lend, "a lend is ended for a newer epoch");
        lender.withdraw(lend).await?;
    }
    Ok(())
}

/// Has those drives looked at that were lent and are no more, as when the target has crashed.
pub(super) async fn wake_lost(host: &Host) {
    let Some(lender) = &host.lender else { return };
    let held = host.lends();
    if held.is_empty() {
        return;
    }
    let Ok(lent) = lender.lent().await else {
        return; // the passes that need it meet the same failure, and log it
    };
    for lend in held.into_iter().filter(|lend| !lent.contains(lend)) {
        host.wake(Key::Drive(lend.drive));
    }
}

fn lender(host: &Host) -> Result<&dyn Lend> {
    host.lender.as_deref().ok_or_else(|| {
        Error::new(ErrorKind::NotOffered, "this host lends no drives to others")
            .context("nothing lends drives here: give [lend] in the agent's configuration")
    })
}

fn spec_of(lend: LendId, lent: &LentDrive) -> LendSpec {
    let writing = match lent.media {
        Media::Disk => Writing::Allowed,
        Media::Cdrom => Writing::Refused,
    };
    LendSpec { lend, borrower: lent.server, writing, secret: lent.secret.clone() }
}
