//! Snapshots: listing, taking, changing, restoring and destroying them.
//!
//! ```text
//!  drive_snapshot   ──▶ row + room + usage ──▶ host takes it, reports it there
//!  snapshot_restore ──▶ number + a claim on the drive ──▶ host: over ──▶ claim released
//! ```
//! Invariants: a snapshot takes room as large as its drive was, from intent to the report that it
//! is gone; its usage opens and ends in the transaction of the intent; while a drive is restored it
//! is claimed; a drive that has snapshots is not destroyed.

use elasticstack_core::biller::{ChangeKind, Meter};
use elasticstack_core::prelude::*;
use elasticstack_core::state::{DriveEvent, SnapshotEvent, SnapshotState, Step};
use elasticstack_core::wire::internal::{Access, Fault, SnapshotStatus};
use elasticstack_core::wire::keys::{self, Moment, Object};
use elasticstack_core::wire::record::Record;

use super::access::{Wish, permitted};
use super::drive_record::apply;
use super::drives::{check_free, in_use};
use super::page::snapshot_status;
use super::stock::heard;
use super::{App, Caller, Page, Quota, changed_meanwhile, new_id, quarantine, version};
use crate::db::{ClaimRow, DriveRow, Holder, OutboxRow, SnapshotRow, Stray, Subject, Writer};
use crate::usage::{self, Edge, Metered};

impl App {
    /// The ids of the caller's snapshots.
    ///
    /// # Errors
    /// `InvalidValue` for a page that can't be; `Internal`.
    pub async fn snapshot_ids(&self, caller: &Caller, page: &Page) -> Result<Vec<SnapshotId>> {
        let rows = self.snapshots_page(caller, page).await?;
        Ok(rows.into_iter().map(|row| row.snapshot).collect())
    }

    /// The caller's snapshots.
    ///
    /// # Errors
    /// As [`App::snapshot_ids`].
    pub async fn snapshots_info(&self, caller: &Caller, page: &Page) -> Result<Vec<Record>> {
        Ok(self.snapshots_page(caller, page).await?.iter().map(info).collect())
    }

    async fn snapshots_page(&self, caller: &Caller, page: &Page) -> Result<Vec<SnapshotRow>> {
        let wanted = page.of_snapshots()?;
        let rows = self.db.glance().await?.snapshots_of(caller.account).await?;
        let shown = rows.into_iter().map(|row| {
            let id = row.snapshot.to_string();
            (*row.snapshot.as_uuid(), (row, id))
        });
        let page = wanted.of(shown, |(row, id)| {
            let name = row.config.value("name").unwrap_or(id);
            [snapshot_status(row.state), name, row.config.value("tags").unwrap_or_default()]
        });
        Ok(page.into_iter().map(|(_, (row, _))| row).collect())
    }

    /// One snapshot of the caller's.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn snapshot_info(&self, caller: &Caller, snapshot: SnapshotId) -> Result<Record> {
        self.snapshot_seen(caller, snapshot).await.map(|(record, _)| record)
    }

    /// One snapshot of the caller's, and the version that it is at.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) async fn snapshot_seen(
        &self,
        caller: &Caller,
        snapshot: SnapshotId,
    ) -> Result<(Record, String)> {
        let row = self.db.glance().await?.snapshot(snapshot).await?;
        let row = permitted(caller.account, row, Wish::See)?;
        Ok((info(&row), row.version()))
    }

    /// Takes a snapshot of a drive and waits until its host has it.
    ///
    /// # Errors
    /// `NotFound` for the drive; those of a record's check; `DriveInUse` while it is made, resized,
    /// imaged or restored; `NoCapacity`; `QuotaExceeded`; `PaymentRequired`; what its host says if it can't take it,
    /// and then nothing is left of it.
    pub async fn drive_snapshot(
        &self,
        caller: &Caller,
        drive: DriveId,
        wish: &Record,
    ) -> Result<Record> {
        let account = caller.account;
        let seen = permitted(account, self.db.glance().await?.drive(drive).await?, Wish::Own)?;
        keys::check(Object::Snapshot, Moment::Create, wish)?;
        let mut config = Record::new();
        apply(&mut config, wish)?;
        let take = ChangeKind::TakeSnapshot { bytes: seen.size.get() };
        let change = self.authorize(account, take).await?;
        let (now, config, snapshot) = (self.now(), &config, new_id());
        let made = self
            .intend(caller, Subject::Snapshot(snapshot), |tx| {
                Box::pin(async move {
                    version::expect(tx, caller, Subject::Drive(drive)).await?;
                    let of = permitted(account, tx.drive(drive).await?, Wish::Own)?;
                    if of.size != seen.size {
                        return Err(changed_meanwhile("drive"));
                    }
                    takable(tx, &of).await?;
                    self.take(tx, account, &[(Quota::Disk, of.size.get())]).await?;
                    let row = SnapshotRow {
                        snapshot,
                        account,
                        drive,
                        host: of.host,
                        array: of.array,
                        size: of.size,
                        state: SnapshotState::Creating,
                        since: now,
                        created: now,
                        generation: 1,
                        restore: 0,
                        epoch: Epoch::default(),
                        config: config.clone(),
                        seen_restore: 0,
                        failed_restore: 0,
                        fault_generation: 0,
                        fault_code: String::new(),
                        failed: None,
                    };
                    queue(tx, &row).await?;
                    let (metered, size) = (metered(&row), row.size.get());
                    usage::begin(tx, &metered, size, Edge::Ours(now), Some(change)).await?;
                    tx.save_snapshot(&row).await?;
                    Ok(row)
                })
            })
            .await?;
        Ok(info(&self.await_snapshot(made).await?))
    }

    /// Waits until a snapshot that is taken or restored is no longer, or the time to answer is up.
    ///
    /// # Errors
    /// What its host says if that failed.
    pub(super) async fn await_snapshot(&self, asked: SnapshotRow) -> Result<SnapshotRow> {
        let mut patience = self.patience();
        while let Some(mut reader) = patience.look().await? {
            let Some(row) = reader.snapshot(asked.snapshot).await? else { continue };
            let restored = asked.restore > 0 && row.failed_restore == asked.restore;
            if row.fault_generation == asked.generation || restored {
                let message = row.failed.unwrap_or_default();
                return Err(Fault { code: row.fault_code, message, field: None }.into());
            }
            if !matches!(row.state, SnapshotState::Creating | SnapshotState::Restoring) {
                return Ok(row);
            }
        }
        Ok(asked)
    }

    /// Changes what its owner notes on a snapshot.
    ///
    /// # Errors
    /// `NotFound`; those of a record's check.
    pub async fn snapshot_set(
        &self,
        caller: &Caller,
        snapshot: SnapshotId,
        record: &Record,
    ) -> Result<Record> {
        keys::check(Object::Snapshot, Moment::SetStopped, record)?;
        let row = self
            .intend(caller, Subject::Snapshot(snapshot), |tx| {
                Box::pin(async move {
                    let row = tx.snapshot(snapshot).await?;
                    let mut row = permitted(caller.account, row, Wish::Own)?;
                    apply(&mut row.config, record)?;
                    tx.save_snapshot(&row).await?;
                    Ok(row)
                })
            })
            .await?;
        Ok(info(&row))
    }

    /// Makes its drive hold what a snapshot does and waits until that is done. A call while another
    /// waits joins it.
    ///
    /// # Errors
    /// `NotFound`; `DriveInUse` while anything uses the drive; `InvalidValue` if the drive is
    /// smaller by now; what its host says if it can't be done, and then the drive is as it was.
    pub async fn snapshot_restore(&self, caller: &Caller, snapshot: SnapshotId) -> Result<Record> {
        let now = self.now();
        let asked = self
            .intend(caller, Subject::Snapshot(snapshot), |tx| {
                Box::pin(async move {
                    let row = tx.snapshot(snapshot).await?;
                    let mut row = permitted(caller.account, row, Wish::Own)?;
                    let Step::To(state) = row.state.step(SnapshotEvent::Restore)? else {
                        return Ok(row);
                    };
                    row.epoch = claim(tx, &row).await?;
                    row.restore += 1;
                    row.failed = None;
                    row.state = state;
                    row.since = now;
                    row.generation += 1;
                    queue(tx, &row).await?;
                    tx.save_snapshot(&row).await?;
                    Ok(row)
                })
            })
            .await?;
        Ok(info(&self.await_snapshot(asked).await?))
    }

    /// Destroys a snapshot. It is gone for its owner at once; its room is free when its host says
    /// so.
    ///
    /// # Errors
    /// `NotFound`; `DriveInUse` while its drive is restored from it.
    pub async fn snapshot_destroy(&self, caller: &Caller, snapshot: SnapshotId) -> Result<()> {
        let now = self.now();
        self.intend(caller, Subject::Snapshot(snapshot), |tx| {
            Box::pin(async move {
                let row = tx.snapshot(snapshot).await?;
                let mut row = permitted(caller.account, row, Wish::Own)?;
                tombstone(tx, &mut row, now).await?;
                tx.save_snapshot(&row).await
            })
        })
        .await
    }

    /// Takes in what a host says of a snapshot. `false` if it was old or not about anything known.
    pub(super) async fn snapshot_reported(
        &self,
        tx: &mut Writer<'_>,
        host: HostId,
        status: &SnapshotStatus,
        now: Timestamp,
    ) -> Result<bool> {
        let known = tx.snapshot(status.snapshot).await?;
        let stray = || Stray::Snapshot(status.clone());
        let Some(before) = quarantine::heeded(tx, host, known, stray, now).await? else {
            return Ok(false);
        };
        let mut row = before.clone();
        let current = self.number(status.generation) >= row.generation;
        if row.state == SnapshotState::Restoring && status.restored >= row.restore {
            row.seen_restore = row.restore;
            enter(&mut row, SnapshotEvent::ReportedRestored, now)?;
            tx.delete_claims_of(Holder::Snapshot(row.snapshot)).await?;
            if let Some(refused) = &status.refused {
                row.failed_restore = row.restore;
                row.fault_code.clone_from(&refused.code);
                row.failed = Some(refused.message.clone());
            }
        }
        if current {
            match &status.fault {
                Some(fault) => faulted(tx, &mut row, fault, now).await?,
                None if status.gone => enter(&mut row, SnapshotEvent::ReportedGone, now)?,
                None if status.size > 0 => enter(&mut row, SnapshotEvent::Reported, now)?,
                None => {}
            }
        }
        if row != before {
            tx.save_snapshot(&row).await?;
        }
        Ok(current)
    }
}

/// Its host can't make the snapshot what it should be. One that can't be taken is given up; for
/// anything else the host goes on trying.
async fn faulted(
    tx: &mut Writer<'_>,
    row: &mut SnapshotRow,
    fault: &Fault,
    now: Timestamp,
) -> Result<()> {
    if row.state != SnapshotState::Creating || row.fault_generation == row.generation {
        return Ok(());
    }
    tracing::warn!(snapshot = %row.snapshot, code = fault.code, message = fault.message,
        "a host cannot take a snapshot");
    row.fault_generation = row.generation;
    row.fault_code.clone_from(&fault.code);
    row.failed = Some(fault.message.clone());
    tombstone(tx, row, now).await
}

fn enter(row: &mut SnapshotRow, event: SnapshotEvent, now: Timestamp) -> Result<()> {
    if let Step::To(state) = row.state.step(event)? {
        row.state = state;
        row.since = now;
    }
    Ok(())
}

/// Refuses a drive of which no snapshot can be taken now.
async fn takable(tx: &mut Writer<'_>, of: &DriveRow) -> Result<()> {
    heard(tx, of.host).await?;
    of.state.step(DriveEvent::Use)?;
    let mut claims = tx.claims_on(of.drive).await?;
    // What a server writes can be taken; what a job or a restore has half done is of no use.
    claims.retain(|claim| {
        claim.access == Access::Exclusive && !matches!(claim.holder, Holder::Server(_))
    });
    if !claims.is_empty() {
        return Err(in_use(&claims, "kept in a snapshot"));
    }
    if of.seen_generation < of.generation {
        return Err(Error::new(
            ErrorKind::DriveInUse,
            "the drive is just being resized: take the snapshot when that has ended",
        ));
    }
    check_free(tx, of, of.size).await
}

/// Claims a snapshot's drive for a restore.
async fn claim(tx: &mut Writer<'_>, row: &SnapshotRow) -> Result<Epoch> {
    let mut drive = permitted(row.account, tx.drive(row.drive).await?, Wish::Own)?;
    heard(tx, drive.host).await?;
    drive.state.step(DriveEvent::Use)?;
    let claims = tx.claims_on(drive.drive).await?;
    if !claims.is_empty() {
        return Err(in_use(&claims, "restored"));
    }
    if drive.size < row.size {
        return Err(Error::new(
            ErrorKind::InvalidValue,
            format!(
                "the drive is too small: the snapshot has {} bytes, the drive {}: set its size",
                row.size.get(),
                drive.size.get()
            ),
        )
        .field("size"));
    }
    drive.epoch = drive.epoch.next();
    drive.summed = None;
    tx.save_drive(&drive).await?;
    let (holder, access) = (Holder::Snapshot(row.snapshot), Access::Exclusive);
    tx.insert_claim(&ClaimRow {
        drive: drive.drive,
        holder,
        epoch: drive.epoch,
        access,
        lent: None,
    })
    .await?;
    Ok(drive.epoch)
}

/// Marks a snapshot for destruction and ends its usage. The caller saves the row.
async fn tombstone(tx: &mut Writer<'_>, row: &mut SnapshotRow, now: Timestamp) -> Result<()> {
    let Step::To(state) = row.state.step(SnapshotEvent::Destroy)? else { return Ok(()) };
    row.state = state;
    row.since = now;
    row.generation += 1;
    queue(tx, row).await?;
    usage::end(tx, &metered(row), Edge::Ours(now)).await
}

/// Has the snapshot's host told of it.
pub(super) async fn queue(tx: &mut Writer<'_>, row: &SnapshotRow) -> Result<()> {
    tx.queue(row.host, OutboxRow::Snapshot(row.snapshot), row.generation).await
}

/// The refusal to destroy a drive because of its snapshots.
pub(super) fn has_snapshots(snapshots: &[SnapshotRow]) -> Error {
    let ids: Vec<String> = snapshots.iter().map(|row| row.snapshot.to_string()).collect();
    Error::new(
        ErrorKind::DriveInUse,
        format!(
            "the drive has snapshots, which would be of no use without it: destroy {} first",
            ids.join(", ")
        ),
    )
}

/// What is metered of a snapshot.
pub(super) fn metered(row: &SnapshotRow) -> Metered {
    Metered { account: row.account, resource: row.snapshot.to_string(), meter: Meter::Snapshot }
}

/// The public record of a snapshot.
pub(super) fn info(row: &SnapshotRow) -> Record {
    let mut record = row.config.clone();
    if record.value("name").is_none() {
        record.set("name", row.snapshot);
    }
    record.set("snapshot", row.snapshot);
    record.set("drive", row.drive);
    record.set("user", row.account);
    record.set("size", row.size.get());
    record.set("status", snapshot_status(row.state));
    record.set("created", row.created.as_seconds());
    if let Some(failed) = &row.failed {
        record.set("failed", failed);
    }
    record
}
