//! Drives: listing, making, changing, destroying, reading and writing them.
//!
//! Invariants: a drive's usage opens, changes and ends in the transaction of the intent; a claimed
//! drive is neither resized nor destroyed; what its host can't make is tombstoned by the report
//! that says so (see `ingest`), so that nothing is left half made.

use std::collections::BTreeSet;

use elasticstack_core::biller::{ChangeKind, Meter};
use elasticstack_core::prelude::*;
use elasticstack_core::scheduler::{Constraint, DriveDemand, Placement, Refusal, Request, Tier};
use elasticstack_core::state::{DriveEvent, DriveState, SnapshotState};
use elasticstack_core::wire::internal::{Access, Fault};
use elasticstack_core::wire::keys::{self, Moment, Object};
use elasticstack_core::wire::record::Record;
use uuid::Uuid;

use super::access::{Wish, permitted};
use super::drive_record::{self, InUse, apply, wanted_access, wanted_size};
use super::plugs::limit;
use super::rooms::{Look, Placing, Within};
use super::snapshots::has_snapshots;
use super::stock::heard;
use super::view::{Kind, Listed};
use super::{App, Caller, Export, Page, Quota, changed_meanwhile, new_id, no_room};
use crate::db::{ClaimRow, DriveRow, OutboxRow, Reader, Subject, Writer};
use crate::usage::{self, Edge, Metered};

/// The most that one read returns.
const MAX_READ: Bytes = Bytes::from_mib(4);

/// A drive to be made.
pub(super) struct NewDrive {
    pub(super) drive: DriveId,
    pub(super) account: AccountId,
    pub(super) size: Bytes,
    pub(super) access: Access,
    pub(super) config: Record,
    /// Drives of the same account to share no array with.
    pub(super) avoid: Vec<DriveId>,
}

impl NewDrive {
    /// The drive that a record asks for, whose values have passed the table of keys.
    ///
    /// # Errors
    /// `MissingKey` without a size; `InvalidValue`.
    pub(super) fn asked_for(account: AccountId, record: &Record) -> Result<Self> {
        let size = wanted_size(record)?.ok_or_else(|| keys::missing(Object::Drive, "size"))?;
        let mut config = Record::new();
        apply(&mut config, record)?;
        let avoid = record.value("avoid").unwrap_or_default().split_whitespace();
        let avoid = avoid.map(|word| {
            word.parse().map_err(|error| {
                Error::new(ErrorKind::InvalidValue, format!("avoid was given {word:?}: {error}"))
                    .field("avoid")
            })
        });
        let avoid = avoid.collect::<Result<_>>()?;
        let access = wanted_access(record).unwrap_or(Access::Exclusive);
        Ok(Self { drive: new_id(), account, size, access, config, avoid })
    }

    /// Asks the biller whether it may be made.
    pub(super) async fn authorize(&self, app: &App) -> Result<ChangeId> {
        app.authorize(self.account, ChangeKind::GrowDrive { bytes: self.size.get() }).await
    }
}

impl App {
    /// The ids of the caller's drives.
    ///
    /// # Errors
    /// `InvalidValue` for a page that can't be; `Internal`.
    pub async fn drive_ids(&self, caller: &Caller, page: &Page) -> Result<Vec<DriveId>> {
        let ids = self.drives_info(caller, page).await?;
        Ok(ids.ids().map(DriveId::from_uuid).collect())
    }

    /// The caller's drives.
    ///
    /// # Errors
    /// As [`App::drive_ids`].
    pub async fn drives_info(&self, caller: &Caller, page: &Page) -> Result<Listed> {
        let list = (caller.account, Kind::Drives);
        self.view.page(&self.db, list, &page.of_drives()?, self.now()).await
    }

    /// The ids of the standard drives.
    ///
    /// # Errors
    /// As [`App::drive_ids`].
    pub async fn standard_ids(&self, page: &Page) -> Result<Vec<DriveId>> {
        let drives = self.standard_page(page).await?;
        Ok(drives.into_iter().map(|(id, _)| DriveId::from_uuid(id)).collect())
    }

    /// Standard drives, without who uses them.
    ///
    /// # Errors
    /// As [`App::drive_ids`].
    pub async fn standard_info(&self, page: &Page) -> Result<Vec<Record>> {
        Ok(self.standard_page(page).await?.into_iter().map(|(_, record)| record).collect())
    }

    async fn standard_page(&self, page: &Page) -> Result<Vec<(Uuid, Record)>> {
        let wanted = page.of_drives()?;
        let rows = self.db.glance().await?.standard_drives().await?;
        let record = |row: &DriveRow| drive_record::info(row, &InUse::default());
        let records = rows.iter().map(|row| (*row.drive.as_uuid(), record(row)));
        Ok(wanted.of(records, |record| {
            ["status", "name", "tags"].map(|key| record.value(key).unwrap_or_default())
        }))
    }

    /// Makes a drive of zeros and waits until its host has it.
    ///
    /// # Errors
    /// `MissingKey` without a size; those of a record's check; `NoCapacity`; `PaymentRequired`;
    /// what its host says if it can't make it, and then nothing is left of it.
    pub async fn drive_create(&self, caller: &Caller, record: &Record) -> Result<Record> {
        keys::check(Object::Drive, Moment::Create, record)?;
        let new = NewDrive::asked_for(caller.account, record)?;
        let row = self.make_drive(caller, &new).await?;
        Ok(drive_record::info(&row, &InUse::default()))
    }

    /// Makes a drive and waits until its host has it, or the time to answer is up.
    pub(super) async fn make_drive(&self, caller: &Caller, new: &NewDrive) -> Result<DriveRow> {
        let change = new.authorize(self).await?;
        let now = self.now();
        let made = self
            .intend_placing(caller, Subject::Drive(new.drive), Look::Now, |tx, mut placing| {
                Box::pin(async move {
                    let anywhere = (&mut placing, &[Within::Fleet][..]);
                    let row = self.begin_drive(tx, new, anywhere, now, change).await?;
                    tx.save_drive(&row).await?;
                    Ok(row)
                })
            })
            .await?;
        self.await_drive(made).await
    }

    /// Places a new drive within the first of `places` that has room, and begins all that goes
    /// with it. The caller saves the row.
    pub(super) async fn begin_drive(
        &self,
        tx: &mut Writer<'_>,
        new: &NewDrive,
        (placing, places): (&mut Placing<'_>, &[Within]),
        now: Timestamp,
        change: ChangeId,
    ) -> Result<DriveRow> {
        let known = tx.drive(new.drive).await?;
        if known.as_ref().is_some_and(|row| row.state != DriveState::Gone) {
            return Err(changed_meanwhile("drive"));
        }
        let wanted = [(Quota::Drives, 1), (Quota::Disk, new.size.get())];
        self.take(tx, new.account, &wanted).await?;
        let mut avoid = BTreeSet::new();
        for id in &new.avoid {
            let avoided = permitted(new.account, tx.drive(*id).await?, Wish::Own);
            avoid.insert(avoided.map_err(|error| error.field("avoid"))?.array);
        }
        let avoid = avoid.into_iter().collect();
        // No array tells its tier, so that none can be asked for.
        let demand = Request::Drive(DriveDemand { size: new.size, tier: Tier::Disk, avoid });
        let mut placed: Result<Placement> =
            Err(Error::internal("a drive was to be placed nowhere"));
        for within in places {
            placed = placing.place(tx, &demand, *within).await;
            if placed.as_ref().err().is_none_or(|error| error.kind() != ErrorKind::NoCapacity) {
                break;
            }
        }
        let Placement { host, array } = placed?;
        let array =
            array.ok_or_else(|| Error::internal("the scheduler placed a drive on no array"))?;
        let row = DriveRow {
            drive: new.drive,
            account: new.account,
            host,
            array,
            size: new.size,
            state: DriveState::Creating,
            since: now,
            generation: known.as_ref().map_or(0, |row| row.generation) + 1,
            epoch: known.map(|row| row.epoch).unwrap_or_default(),
            access: new.access,
            config: new.config.clone(),
            seen_generation: 0,
            seen_size: Bytes::ZERO,
            fault_generation: 0,
            fault_code: String::new(),
            failed: None,
            standard: None,
            summed: None,
        };
        tx.queue(row.host, OutboxRow::Drive(row.drive), row.generation).await?;
        let quantity = row.size.get();
        usage::begin(tx, &metered(&row), quantity, Edge::Ours(now), Some(change)).await?;
        Ok(row)
    }

    /// Waits until the host has made `asked` true, or the time to answer is up.
    pub(super) async fn await_drive(&self, asked: DriveRow) -> Result<DriveRow> {
        let mut patience = self.patience_for(asked.drive);
        while let Some(mut reader) = patience.look().await? {
            let Some(row) = reader.drive(asked.drive).await? else { continue };
            if row.fault_generation == asked.generation {
                let message = row.failed.unwrap_or_default();
                return Err(Fault { code: row.fault_code, message, field: None }.into());
            }
            if row.seen_generation >= asked.generation || row.generation > asked.generation {
                return Ok(row);
            }
        }
        Ok(asked)
    }

    /// One drive of the caller's, or a standard one.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn drive_info(&self, caller: &Caller, drive: DriveId) -> Result<Record> {
        self.drive_seen(caller, drive).await.map(|(record, _)| record)
    }

    /// One drive of the caller's, or one that it may read, and the version that it is at.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) async fn drive_seen(
        &self,
        caller: &Caller,
        drive: DriveId,
    ) -> Result<(Record, String)> {
        let mut reader = self.db.read().await?;
        let row = permitted(caller.account, reader.drive(drive).await?, Wish::See)?;
        let record = record(&mut reader, caller.account, &row).await?;
        Ok((record, row.version()))
    }

    /// Changes a drive. A new size is waited for; size 0 leaves it.
    ///
    /// # Errors
    /// `NotFound`; those of a record's check; for a new size or claim type `DriveInUse` while it
    /// is claimed; for a new size `NoCapacity`, `PaymentRequired`, or what its host says, and then the old size stands.
    pub async fn drive_set(
        &self,
        caller: &Caller,
        drive: DriveId,
        record: &Record,
    ) -> Result<Record> {
        let seen = self.db.glance().await?.drive(drive).await?;
        let seen = permitted(caller.account, seen, Wish::Own)?;
        keys::check(Object::Drive, Moment::SetStopped, record)?;
        let size = wanted_size(record)?;
        let growth = size.unwrap_or_default().saturating_sub(seen.size);
        let change = if growth > Bytes::ZERO {
            let grow = ChangeKind::GrowDrive { bytes: growth.get() };
            Some(self.authorize(caller.account, grow).await?)
        } else {
            None
        };
        let row = self
            .intend(caller, Subject::Drive(drive), |tx| {
                Box::pin(async move {
                    let before = permitted(caller.account, tx.drive(drive).await?, Wish::Own)?;
                    let mut row = before.clone();
                    apply(&mut row.config, record)?;
                    let limits = drive_record::limits(&row.config);
                    if limits != drive_record::limits(&before.config) {
                        limit(tx, drive, limits).await?;
                    }
                    if let Some(access) = wanted_access(record).filter(|it| *it != row.access) {
                        let claims = tx.claims_on(drive).await?;
                        if !claims.is_empty() {
                            let wish = "given another claim:type";
                            return Err(in_use(&claims, wish).field("claim:type"));
                        }
                        row.access = access;
                    }
                    if let Some(size) = size.filter(|size| *size != before.size) {
                        if before.size != seen.size {
                            return Err(changed_meanwhile("drive"));
                        }
                        self.resize(tx, &mut row, size, change).await?;
                    }
                    if row != before {
                        tx.save_drive(&row).await?;
                    }
                    Ok(row)
                })
            })
            .await?;
        let row = if row.generation > seen.generation { self.await_drive(row).await? } else { row };
        self::record(&mut self.db.read().await?, caller.account, &row).await
    }

    /// Gives a drive that nobody uses another size. The caller saves the row.
    pub(super) async fn resize(
        &self,
        tx: &mut Writer<'_>,
        row: &mut DriveRow,
        size: Bytes,
        change: Option<ChangeId>,
    ) -> Result<()> {
        row.state.step(DriveEvent::Use)?;
        heard(tx, row.host).await?;
        let claims = tx.claims_on(row.drive).await?;
        if !claims.is_empty() {
            return Err(in_use(&claims, "resized").field("size"));
        }
        let snapshots = tx.snapshots_on(row.drive).await?;
        if snapshots.iter().any(|snapshot| snapshot.state == SnapshotState::Creating) {
            let why = "a snapshot of the drive is just being taken: resize it after that";
            return Err(Error::new(ErrorKind::DriveInUse, why).field("size"));
        }
        let wanted = [(Quota::Disk, size.saturating_sub(row.size).get())];
        self.take(tx, row.account, &wanted).await?;
        let growth = size.saturating_sub(row.size.max(row.seen_size));
        check_free(tx, row, growth).await?;
        row.size = size;
        row.summed = None;
        row.generation += 1;
        tx.queue(row.host, OutboxRow::Drive(row.drive), row.generation).await?;
        let edge = Edge::Ours(self.now());
        usage::change_quantity(tx, &metered(row), size.get(), edge, change).await
    }

    /// Destroys a drive that nothing uses and that has no snapshots. It is gone for its owner at once; its room is free when
    /// its host says so.
    ///
    /// # Errors
    /// `NotFound`; `DriveInUse`.
    pub async fn drive_destroy(&self, caller: &Caller, drive: DriveId) -> Result<()> {
        let now = self.now();
        self.intend(caller, Subject::Drive(drive), |tx| {
            Box::pin(async move {
                let mut row = permitted(caller.account, tx.drive(drive).await?, Wish::Own)?;
                let claims = tx.claims_on(drive).await?;
                if !claims.is_empty() {
                    return Err(in_use(&claims, "destroyed"));
                }
                let snapshots = tx.snapshots_on(drive).await?;
                if !snapshots.is_empty() {
                    return Err(has_snapshots(&snapshots));
                }
                tombstone(tx, &mut row, now).await?;
                tx.save_drive(&row).await
            })
        })
        .await
    }

    /// `length` bytes of a drive from `offset` on, at most 4 MiB.
    ///
    /// # Errors
    /// `NotFound`; `DriveInUse` under an exclusive claim; `InvalidValue` past its end;
    /// `Unavailable` if its host does not answer.
    pub async fn drive_read(
        &self,
        caller: &Caller,
        drive: DriveId,
        offset: Bytes,
        length: Bytes,
    ) -> Result<bytes::Bytes> {
        if length > MAX_READ {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                format!("a read of {length} was asked for, one returns at most {MAX_READ}"),
            )
            .field("size"));
        }
        let mut reader = self.db.read().await?;
        let row = permitted(caller.account, reader.drive(drive).await?, Wish::Own)?;
        let mut claims = reader.claims_on(drive).await?;
        drop(reader);
        claims.retain(|claim| claim.access == Access::Exclusive);
        usable_bytes(&row, &claims, "read", offset, length)?;
        self.data.read(row.host, drive, offset, length).await
    }

    /// All of a drive as a qcow2 image.
    ///
    /// # Errors
    /// `NotFound`; `DriveInUse` under an exclusive claim; `Unavailable` if its host does not answer.
    pub async fn drive_export(&self, caller: &Caller, drive: DriveId) -> Result<Export> {
        let mut reader = self.db.read().await?;
        let row = permitted(caller.account, reader.drive(drive).await?, Wish::Own)?;
        let mut claims = reader.claims_on(drive).await?;
        drop(reader);
        claims.retain(|claim| claim.access == Access::Exclusive);
        usable_bytes(&row, &claims, "exported", Bytes::ZERO, row.size)?;
        self.data.export(row.host, drive).await
    }

    /// Writes bytes to a drive that nothing uses; they are durable when it answers.
    ///
    /// # Errors
    /// `NotFound`; `DriveInUse`; `InvalidValue` past its end; `Unavailable` if its host does not
    /// answer.
    pub async fn drive_write(
        &self,
        caller: &Caller,
        drive: DriveId,
        offset: Bytes,
        data: bytes::Bytes,
    ) -> Result<()> {
        let mut reader = self.db.read().await?;
        let row = permitted(caller.account, reader.drive(drive).await?, Wish::Own)?;
        let claims = reader.claims_on(drive).await?;
        drop(reader);
        let length = u64::try_from(data.len()).ok().and_then(|length| length.try_into().ok());
        let length = length.ok_or_else(|| Error::internal("a body longer than any size"))?;
        usable_bytes(&row, &claims, "written", offset, length)?;
        if row.summed.is_some() {
            self.forget_sum(drive).await?;
        }
        self.data.write(row.host, drive, offset, data).await
    }
}

/// Marks a drive for destruction and ends its usage. The caller saves the row.
pub(super) async fn tombstone(
    tx: &mut Writer<'_>,
    row: &mut DriveRow,
    now: Timestamp,
) -> Result<()> {
    row.state = row.state.step(DriveEvent::Destroy)?.after(row.state);
    row.since = now;
    row.generation += 1;
    tx.queue(row.host, OutboxRow::Drive(row.drive), row.generation).await?;
    usage::end(tx, &metered(row), Edge::Ours(now)).await
}

/// What is metered of a drive.
pub(super) fn metered(row: &DriveRow) -> Metered {
    Metered { account: row.account, resource: row.drive.to_string(), meter: Meter::Drive }
}

/// The refusal of a wish because of these claims.
pub(super) fn in_use(claims: &[ClaimRow], wish: &str) -> Error {
    let holders: Vec<String> = claims.iter().map(|claim| claim.holder.describe()).collect();
    Error::new(
        ErrorKind::DriveInUse,
        format!(
            "the drive is in use by {} and cannot be {wish} now: stop that first, or wait for it",
            holders.join(", ")
        ),
    )
}

/// The public record of a drive as `account` may see it: who else may read the drive sees what it
/// is, not what its owner has noted of it and does with it.
pub(super) async fn record(
    reader: &mut Reader,
    account: AccountId,
    row: &DriveRow,
) -> Result<Record> {
    if row.account != account {
        return Ok(drive_record::info_for_readers(row));
    }
    let in_use = use_of(reader, row.drive).await?;
    Ok(drive_record::info(row, &in_use))
}

/// A drive's use, which is its owner's business.
pub(super) async fn use_of(reader: &mut Reader, drive: DriveId) -> Result<InUse> {
    let claims = reader.claims_on(drive).await?;
    Ok(InUse { claims, job: reader.running_job_on(drive).await? })
}

/// Whether the drive's array has so many bytes that are promised to nobody.
///
/// # Errors
/// `NoCapacity` if it has not.
pub(super) async fn check_free(tx: &mut Writer<'_>, row: &DriveRow, wanted: Bytes) -> Result<()> {
    let arrays = tx.array_rooms_of(row.host).await?;
    let free = arrays.iter().find(|room| room.array == row.array).map(|room| room.free);
    let free = free.unwrap_or_default();
    if wanted > free {
        let (wanted, available) = (wanted.get(), free.get());
        return Err(no_room(Refusal { constraint: Constraint::ArrayBytes, wanted, available }));
    }
    Ok(())
}

fn usable_bytes(
    row: &DriveRow,
    claims: &[ClaimRow],
    wish: &str,
    offset: Bytes,
    length: Bytes,
) -> Result<()> {
    row.state.step(DriveEvent::Use)?;
    if !claims.is_empty() {
        return Err(in_use(claims, wish));
    }
    match offset.checked_add(length) {
        Some(end) if end <= row.size => Ok(()),
        _ => Err(Error::new(
            ErrorKind::InvalidValue,
            format!(
                "{} bytes from byte {} on lie past the drive's end at byte {}",
                length.get(),
                offset.get(),
                row.size.get()
            ),
        )
        .field("offset")),
    }
}
