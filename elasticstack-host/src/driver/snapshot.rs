//! Snapshots: has them taken and destroyed by the store, and drives made what they hold.
//!
//! Invariants: a snapshot is taken once, and one that is missing is said to be missing; a drive is
//! restored only while nobody else holds it, under the epoch of the restore's own claim; a restore
//! ends once, and is recorded before its drive is let go.

use std::sync::Arc;

use async_trait::async_trait;
use elasticstack_core::block::{SnapshotReport, Snapshots, Writers};
use elasticstack_core::error::{Chain, Error, ErrorKind, Result};
use elasticstack_core::generation::{Era, Generation};
use elasticstack_core::id::SnapshotId;
use elasticstack_core::wire::internal::{
    Access, Fault, ObjectStatus, SnapshotDocument, SnapshotHome, SnapshotStatus,
};

use super::drive::is_online;
use super::{Rest, Work};
use crate::agent::{Holder, Host, Key, Record, is_to_restore};

/// The work on one snapshot.
pub(super) struct SnapshotWork {
    host: Arc<Host>,
    snapshot: SnapshotId,
}

/// What a snapshot needs.
#[derive(Debug, PartialEq, Eq)]
enum Need {
    /// Nothing more.
    Nothing,
    /// To be taken.
    Take,
    /// To be recorded as taken, so that its absence means a loss.
    Record,
    /// Its drive is to be made what it holds.
    Restore,
    /// To be destroyed.
    Destroy,
    /// Its bytes: it was taken and is not there.
    Recovery,
}

/// Shows every snapshot that is as it should be already, so that it needs no task, and every one
/// that no document knows.
pub(super) async fn publish_settled(host: &Host) {
    let Some(snapshots) = host.store.snapshots() else { return };
    let Ok(reports) = snapshots.list_snapshots().await else {
        return; // each snapshot's own pass meets the same failure, and logs it
    };
    for record in host.snapshots.all() {
        let snapshot = record.document.snapshot;
        let report = reports.iter().find(|report| report.snapshot == snapshot);
        if need(&record, report) == Need::Nothing {
            publish(host, &record, report, None);
        }
    }
    // They stay as they are, and somebody has to hear of them.
    for report in reports.iter().filter(|report| host.snapshots.get(report.snapshot).is_none()) {
        tracing::warn!(snapshot = %report.snapshot, "a snapshot that no document knows");
        host.board.publish(ObjectStatus::Snapshot(found(report)));
    }
}

/// What the store says of a snapshot that no document knows.
pub(crate) fn found(report: &SnapshotReport) -> SnapshotStatus {
    SnapshotStatus {
        snapshot: report.snapshot,
        generation: Generation::new(Era(0), 0),
        gone: false,
        size: report.size.get(),
        restored: 0,
        refused: None,
        fault: None,
        home: Some(home(report)),
    }
}

fn home(report: &SnapshotReport) -> SnapshotHome {
    let &SnapshotReport { drive, array, account, .. } = report;
    SnapshotHome { drive, array, account }
}

fn need(record: &Record<SnapshotDocument>, report: Option<&SnapshotReport>) -> Need {
    let Record { document, facts } = record;
    match report {
        _ if document.gone => Need::Destroy,
        None if facts.taken => Need::Recovery,
        None => Need::Take,
        Some(_) if !facts.taken => Need::Record,
        Some(_) if is_to_restore(record) => Need::Restore,
        Some(_) => Need::Nothing,
    }
}

/// Where fulfilling a need led.
enum Step {
    /// All is done.
    Settled,
    /// There may be more.
    Again,
    /// Somebody holds the drive.
    Held,
}

impl SnapshotWork {
    pub(super) fn new(host: Arc<Host>, snapshot: SnapshotId) -> Self {
        Self { host, snapshot }
    }

    fn store(&self) -> Result<&dyn Snapshots> {
        self.host.store.snapshots().ok_or_else(|| {
            Error::new(ErrorKind::NotOffered, "this host cannot take snapshots: clone the drive")
        })
    }

    async fn find(&self) -> Result<Option<SnapshotReport>> {
        let Some(snapshots) = self.host.store.snapshots() else { return Ok(None) };
        let list = snapshots.list_snapshots().await?;
        Ok(list.into_iter().find(|report| report.snapshot == self.snapshot))
    }

    async fn fulfil(
        &self,
        document: &SnapshotDocument,
        need: Need,
        report: Option<&SnapshotReport>,
    ) -> Result<Step> {
        match need {
            Need::Nothing => return Ok(Step::Settled),
            Need::Take => {
                let holder = Holder::Snapshot(self.snapshot);
                // A drive that somebody uses is taken as it is used; one that nobody does is kept so.
                let held = self.host.borrow(holder, document.drive, Access::Exclusive);
                let writers = if held.is_ok() { Writers::Volumes } else { Writers::Attached };
                self.store()?.take_snapshot(self.snapshot, document.drive, writers).await?;
            }
            Need::Record => {
                let snapshot = self.snapshot;
                self.host
                    .on_disk(move |host| host.snapshots.amend(snapshot, |facts| facts.taken = true))
                    .await?;
            }
            Need::Restore => return self.restore(document).await,
            Need::Destroy => {
                self.host.release(Holder::Snapshot(self.snapshot));
                let Some(snapshots) = self.host.store.snapshots() else {
                    return Ok(Step::Settled);
                };
                return match snapshots.destroy_snapshot(self.snapshot).await {
                    // Some array has failed, and the store can't tell whether it lay there. It did
                    // not: its own array works, and there it is no more.
                    Err(error)
                        if error.kind() == ErrorKind::Unavailable
                            && report.is_none()
                            && is_online(&self.host, document.array).await? =>
                    {
                        Ok(Step::Settled)
                    }
                    destroyed => destroyed.map(|()| Step::Settled),
                };
            }
            Need::Recovery => {
                let message = format!(
                    "snapshot {} is missing on its array: the array may be damaged or not attached",
                    self.snapshot
                );
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        }
        Ok(Step::Again)
    }

    async fn restore(&self, document: &SnapshotDocument) -> Result<Step> {
        let &SnapshotDocument { snapshot, drive, restore, epoch, .. } = document;
        let holder = Holder::Snapshot(snapshot);
        if self.host.take(holder, &[(drive, Access::Exclusive)]).is_err() {
            return Ok(Step::Held);
        }
        let refused = match self.store()?.restore_snapshot(snapshot, epoch).await {
            Ok(()) => None,
            Err(error) if error.kind() == ErrorKind::Unavailable => return Err(error),
            Err(error) => {
                tracing::error!(%snapshot, %drive, error = %Chain(&error), "a restore failed");
                Some(Fault::from(&error))
            }
        };
        let end = move |host: &Host| {
            host.snapshots.amend(snapshot, |facts| {
                facts.restored = restore;
                facts.refused = refused;
            })
        };
        self.host.on_disk(end).await?;
        self.host.release(holder);
        // Its status tells the epoch.
        self.host.wake(Key::Drive(drive));
        Ok(Step::Again)
    }
}

#[async_trait]
impl Work for SnapshotWork {
    async fn pass(&mut self) -> Result<Rest> {
        loop {
            let Some(record) = self.host.snapshots.get(self.snapshot) else {
                return Ok(Rest::Finished);
            };
            let report = self.find().await?;
            let need = need(&record, report.as_ref());
            match self.fulfil(&record.document, need, report.as_ref()).await {
                Ok(Step::Again) => {}
                Ok(Step::Held) => {
                    publish(&self.host, &record, report.as_ref(), None);
                    return Ok(Rest::Stirred);
                }
                Ok(Step::Settled) => {
                    publish(&self.host, &record, self.find().await?.as_ref(), None);
                    return Ok(Rest::Idle);
                }
                Err(error) => {
                    let fault = Fault::from(&error);
                    let known = self.host.board.snapshot(self.snapshot);
                    if known.and_then(|status| status.fault).as_ref() != Some(&fault) {
                        let (snapshot, error) = (self.snapshot, Chain(&error));
                        tracing::error!(%snapshot, %error, "a snapshot is not as asked");
                    }
                    publish(&self.host, &record, report.as_ref(), Some(fault));
                    return Ok(Rest::Retry);
                }
            }
        }
    }
}

fn publish(
    host: &Host,
    record: &Record<SnapshotDocument>,
    report: Option<&SnapshotReport>,
    fault: Option<Fault>,
) {
    host.board.publish(ObjectStatus::Snapshot(status(record, report, fault)));
}

/// What a snapshot that a document knows is.
pub(crate) fn status(
    record: &Record<SnapshotDocument>,
    report: Option<&SnapshotReport>,
    fault: Option<Fault>,
) -> SnapshotStatus {
    let Record { document, facts } = record;
    SnapshotStatus {
        snapshot: document.snapshot,
        generation: document.generation,
        gone: document.gone && report.is_none() && fault.is_none(),
        size: report.map_or(0, |report| report.size.get()),
        restored: facts.restored,
        refused: facts.refused.clone(),
        fault,
        home: report.map(home),
    }
}
