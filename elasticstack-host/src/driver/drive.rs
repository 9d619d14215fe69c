//! Drives: creates, resizes and destroys them on the store. What is lent of them is in [`lends`].
//!
//! Invariants: only a tombstone destroys, and only what nobody holds; a drive that existed and is
//! missing is said to be missing, and no empty one takes its place.

use std::sync::Arc;

use async_trait::async_trait;
use elasticstack_core::block::{ArrayState, DriveReport, DriveSpec};
use elasticstack_core::error::{Chain, Error, ErrorKind, Result};
use elasticstack_core::generation::Epoch;
use elasticstack_core::id::{ArrayId, DriveId};
use elasticstack_core::units::Bytes;
use elasticstack_core::wire::internal::{
    Access, DriveDocument, DriveHome, DriveStatus, Fault, ObjectStatus,
};

use super::lends::{self, Lent};
use super::{Rest, Work};
use crate::agent::{Holder, Host, Record};

/// The work on one drive.
pub(super) struct DriveWork {
    host: Arc<Host>,
    drive: DriveId,
    lent: Lent,
}

/// What a drive needs.
#[derive(Debug, PartialEq, Eq)]
enum Need {
    /// Nothing more.
    Nothing,
    /// To be made.
    Create,
    /// To be recorded as made, so that its absence means a loss.
    Record,
    /// To be made this long, or to have its generation recorded.
    Resize,
    /// To be destroyed.
    Destroy,
    /// Its bytes: it existed and is not there.
    Recovery,
}

/// Shows every drive that is as it should be already, so that it needs no task.
pub(super) async fn publish_settled(host: &Host) {
    let Ok(reports) = host.store.list().await else {
        return; // each drive's own pass meets the same failure, and logs it
    };
    for record in host.drives.all() {
        let drive = record.document.drive;
        let report = reports.iter().find(|report| report.spec.drive == drive);
        if need(&record, report) == Need::Nothing && lends::is_untouched(&record) {
            publish(host, &record.document, report, None);
        }
    }
    publish_strays(host, &reports);
}

/// Shows the drives that no document knows. They stay as they are, and somebody has to hear of them.
fn publish_strays(host: &Host, reports: &[DriveReport]) {
    for report in reports.iter().filter(|report| host.drives.get(report.spec.drive).is_none()) {
        tracing::warn!(drive = %report.spec.drive, "a drive that no document knows");
        host.board.publish(ObjectStatus::Drive(found(report)));
    }
}

/// What the store says of a drive, whatever a document wants of it.
pub(crate) fn found(report: &DriveReport) -> DriveStatus {
    DriveStatus {
        drive: report.spec.drive,
        generation: report.spec.generation,
        gone: false,
        size: report.spec.size.get(),
        epoch: report.epoch,
        fault: None,
        home: Some(home(report)),
    }
}

fn home(report: &DriveReport) -> DriveHome {
    DriveHome { array: report.spec.array, account: report.spec.account }
}

fn need(record: &Record<DriveDocument>, report: Option<&DriveReport>) -> Need {
    let Record { document, facts } = record;
    match report {
        _ if document.gone => Need::Destroy,
        None if facts.created => Need::Recovery,
        None => Need::Create,
        Some(_) if !facts.created => Need::Record,
        Some(DriveReport { spec, .. })
            if spec.size.get() == document.size && spec.generation == document.generation =>
        {
            Need::Nothing
        }
        Some(_) => Need::Resize,
    }
}

impl DriveWork {
    pub(super) fn new(host: Arc<Host>, drive: DriveId) -> Self {
        Self { host, drive, lent: Lent::default() }
    }

    /// Ends what is lent and not to be, makes the drive what it should be, then lends it.
    async fn go_on(
        &mut self,
        record: &Record<DriveDocument>,
        report: Option<&DriveReport>,
    ) -> Result<Step> {
        self.lent.end_unwanted(&self.host, record).await?;
        let need = need(record, report);
        match self.fulfil(&record.document, need, report).await? {
            Step::Settled => match self.lent.make_wanted(&self.host, record).await? {
                lends::Step::Settled => Ok(Step::Settled),
                lends::Step::Held => Ok(Step::Held),
            },
            unsettled => Ok(unsettled),
        }
    }

    async fn fulfil(
        &self,
        document: &DriveDocument,
        need: Need,
        report: Option<&DriveReport>,
    ) -> Result<Step> {
        let host = &self.host;
        match need {
            Need::Nothing => return Ok(Step::Settled),
            Need::Create => host.store.create(&spec_of(document)?).await?,
            Need::Record => {
                let drive = self.drive;
                host.on_disk(move |host| host.drives.amend(drive, |facts| facts.created = true))
                    .await?;
            }
            Need::Resize => {
                let spec = spec_of(document)?;
                let unchanged = report.is_some_and(|report| report.spec.size == spec.size);
                let Some(resizer) = host.store.resizer() else {
                    let message = "this host cannot change the size of a drive: make a new one";
                    let refusal = Error::new(ErrorKind::NotOffered, message).field("size");
                    return if unchanged { Ok(Step::Settled) } else { Err(refusal) };
                };
                if unchanged {
                    resizer.resize(&spec).await?;
                } else {
                    let upkeep = Holder::Upkeep(self.drive);
                    let Ok(_held) = host.borrow(upkeep, self.drive, Access::Exclusive) else {
                        return Ok(Step::Held);
                    };
                    resizer.resize(&spec).await?;
                }
                // A store may round what it records; what it has now is what there is.
                return Ok(Step::Settled);
            }
            Need::Destroy => {
                let upkeep = Holder::Upkeep(self.drive);
                let Ok(_held) = host.borrow(upkeep, self.drive, Access::Exclusive) else {
                    return Ok(Step::Held);
                };
                return match host.store.destroy(self.drive, document.generation).await {
                    // Some array has failed, and the store can't tell whether the drive lay there.
                    // It did not: its own array works, and there it is no more.
                    Err(error)
                        if error.kind() == ErrorKind::Unavailable
                            && report.is_none()
                            && is_online(host, document.array).await? =>
                    {
                        Ok(Step::Settled)
                    }
                    destroyed => destroyed.map(|()| Step::Settled),
                };
            }
            Need::Recovery => {
                let message = format!(
                    "drive {} is missing on its array: the array may be damaged or not attached",
                    self.drive
                );
                return Err(Error::new(ErrorKind::Unavailable, message));
            }
        }
        Ok(Step::Again)
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

#[async_trait]
impl Work for DriveWork {
    async fn pass(&mut self) -> Result<Rest> {
        loop {
            let Some(record) = self.host.drives.get(self.drive) else {
                return Ok(Rest::Finished);
            };
            let document = &record.document;
            let report = find(&self.host, self.drive).await?;
            match self.go_on(&record, report.as_ref()).await {
                Ok(Step::Again) => {}
                Ok(Step::Held) => return Ok(Rest::Stirred),
                Ok(Step::Settled) => {
                    let report = find(&self.host, self.drive).await?;
                    publish(&self.host, document, report.as_ref(), None);
                    return Ok(Rest::Idle);
                }
                Err(error) => {
                    let fault = Fault::from(&error);
                    let known = self.host.board.drive(self.drive).and_then(|status| status.fault);
                    if known.as_ref() != Some(&fault) {
                        let drive = self.drive;
                        tracing::error!(%drive, error = %Chain(&error), "a drive is not as asked");
                    }
                    publish(&self.host, document, report.as_ref(), Some(fault));
                    return Ok(Rest::Retry);
                }
            }
        }
    }
}

async fn find(host: &Host, drive: DriveId) -> Result<Option<DriveReport>> {
    Ok(host.store.list().await?.into_iter().find(|report| report.spec.drive == drive))
}

/// Whether an array works.
pub(super) async fn is_online(host: &Host, array: ArrayId) -> Result<bool> {
    let arrays = host.store.capacity().await?;
    Ok(arrays.iter().any(|report| report.array == array && report.state == ArrayState::Online))
}

fn publish(
    host: &Host,
    document: &DriveDocument,
    report: Option<&DriveReport>,
    fault: Option<Fault>,
) {
    let status = DriveStatus {
        drive: document.drive,
        generation: document.generation,
        gone: document.gone && report.is_none() && fault.is_none(),
        size: report.map_or(0, |report| report.spec.size.get()),
        epoch: report.map_or(Epoch::default(), |report| report.epoch),
        fault,
        home: report.map(home),
    };
    // A new epoch is opened for a run or a job, of which more is told in a moment.
    let is_opened = host
        .board
        .drive(document.drive)
        .is_some_and(|before| status == DriveStatus { epoch: status.epoch, ..before });
    if is_opened {
        host.board.publish_passing(ObjectStatus::Drive(status));
    } else {
        host.board.publish(ObjectStatus::Drive(status));
    }
}

fn spec_of(document: &DriveDocument) -> Result<DriveSpec> {
    let &DriveDocument { drive, generation, gone: _, account, array, size, lends: _ } = document;
    let size = Bytes::try_from(size)
        .map_err(|error| Error::new(ErrorKind::InvalidValue, error.to_string()).field("size"))?;
    Ok(DriveSpec { drive, array, account, size, generation })
}
