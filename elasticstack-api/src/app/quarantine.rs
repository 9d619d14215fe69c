//! Strays: drives, servers and snapshots that a host has and no intent knows, as after a restore
//! from a backup that is older than they are, or of disks that come back.
//!
//! Invariants: absence of intent destroys nothing: a stray is kept as it is, and told, until an
//! operator gives it to an account or has it destroyed by a tombstone; both begin above every
//! generation and epoch that its host has seen.

use std::time::Duration;

use elasticstack_core::prelude::*;
use elasticstack_core::state::{DriveState, ServerState, SnapshotState};
use elasticstack_core::wire::internal::{Access, DriveStatus, ServerStatus, SnapshotStatus};
use elasticstack_core::wire::record::Record;

use super::accounts::{OPERATOR, ensure_operator};
use super::drive_record::{self, InUse};
use super::power::queue;
use super::{App, Caller, Page, changed_meanwhile, drives, new_id, snapshots};
use crate::db::{
    DriveRow, OutboxRow, ServerRow, SnapshotRow, Stray, StrayRow, Subject, Why, Writer,
};
use crate::usage::{self, Edge};

/// For how long word of what is gone may still be under way from another server that follows the
/// same host.
const LATE: Duration = Duration::from_secs(60);

impl App {
    /// The ids of all strays.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn stray_ids(&self, page: &Page) -> Result<Vec<StrayId>> {
        Ok(self.strays(page).await?.into_iter().map(|row| row.stray).collect())
    }

    /// All strays.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn strays_info(&self, page: &Page) -> Result<Vec<Record>> {
        Ok(self.strays(page).await?.iter().map(record).collect())
    }

    async fn strays(&self, page: &Page) -> Result<Vec<StrayRow>> {
        let after = page.after.as_deref().unwrap_or_default();
        let limit = page.limit.map_or(i64::MAX, i64::from);
        self.db.glance().await?.strays(after, limit).await
    }

    /// One stray.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn stray_info(&self, stray: StrayId) -> Result<Record> {
        self.db.glance().await?.stray(stray).await?.map(|row| record(&row)).ok_or_else(missing)
    }

    /// Gives a stray drive to an account, or a stray snapshot back to its drive's owner, and tells
    /// of the drive. The account's quotas are not asked: the bytes are there.
    ///
    /// # Errors
    /// `NotFound` for either; `InvalidValue` for a server, and for a snapshot whose drive is not
    /// that account's; `Unavailable` while its host can't say where it lies; `Stale` if it is of a
    /// later era than this database.
    pub async fn stray_adopt(
        &self,
        caller: &Caller,
        stray: StrayId,
        account: AccountId,
    ) -> Result<Record> {
        let seen = self.db.glance().await?.stray(stray).await?.ok_or_else(missing)?;
        if matches!(seen.seen, Stray::Server(_)) {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                "a stray server is not adopted, as what it should be is not known: adopt its \
                 drives and make it anew, or destroy it",
            )
            .field("stray"));
        }
        self.intend(caller, subject(&seen.seen), |tx| {
            Box::pin(async move {
                let stray = tx.stray(stray).await?.ok_or_else(missing)?;
                if tx.account(account).await?.is_none() {
                    let sentence = "the account could not be found: see the list of accounts";
                    return Err(Error::new(ErrorKind::NotFound, sentence).field("account"));
                }
                let row = match &stray.seen {
                    Stray::Snapshot(status) => {
                        self.adopt_snapshot(tx, &stray, status, account).await?
                    }
                    Stray::Drive(_) | Stray::Server(_) => self.adopt(tx, &stray, account).await?,
                };
                let answer = drive_record::info(&row, &InUse::default());
                self.answer_at_once(tx, caller, &answer).await?;
                Ok(answer)
            })
        })
        .await
    }

    /// Makes a stray drive a drive of `account`, an account that is there, as it is.
    ///
    /// # Errors
    /// As [`App::stray_adopt`].
    pub(super) async fn adopt(
        &self,
        tx: &mut Writer<'_>,
        stray: &StrayRow,
        account: AccountId,
    ) -> Result<DriveRow> {
        let Stray::Drive(status) = &stray.seen else { return Err(missing()) };
        let mut row = self.drive_of(tx, stray.host, status).await?;
        row.account = account;
        row.state = DriveState::Ready;
        tx.save_drive(&row).await?;
        tx.queue(row.host, OutboxRow::Drive(row.drive), row.generation).await?;
        let edge = Edge::Ours(self.now());
        usage::begin(tx, &drives::metered(&row), row.size.get(), edge, None).await?;
        tx.delete_stray(stray.stray).await?;
        Ok(row)
    }

    /// Makes a stray snapshot one of its drive, which is the account's.
    async fn adopt_snapshot(
        &self,
        tx: &mut Writer<'_>,
        stray: &StrayRow,
        status: &SnapshotStatus,
        account: AccountId,
    ) -> Result<DriveRow> {
        let mut row = self.snapshot_of(tx, stray.host, status).await?;
        let drive = tx.drive(row.drive).await?.filter(|drive| {
            let is_there = drive.state == DriveState::Ready && drive.array == row.array;
            is_there && drive.account == account
        });
        let drive = drive.ok_or_else(|| {
            let sentence = format!(
                "a snapshot goes to its drive's owner, and that account has no drive {}: adopt \
                 the drive first",
                row.drive
            );
            Error::new(ErrorKind::InvalidValue, sentence).field("account")
        })?;
        row.account = account;
        row.state = SnapshotState::Ready;
        tx.save_snapshot(&row).await?;
        snapshots::queue(tx, &row).await?;
        let edge = Edge::Ours(self.now());
        usage::begin(tx, &snapshots::metered(&row), row.size.get(), edge, None).await?;
        tx.delete_stray(stray.stray).await?;
        Ok(drive)
    }

    /// Has a stray's host destroy a drive or a snapshot, or end a server and forget it, by a
    /// tombstone.
    ///
    /// # Errors
    /// `NotFound`; but for a server those of [`App::stray_adopt`].
    pub async fn stray_destroy(&self, caller: &Caller, stray: StrayId) -> Result<()> {
        let seen = self.db.glance().await?.stray(stray).await?.ok_or_else(missing)?;
        self.intend(caller, subject(&seen.seen), |tx| {
            Box::pin(async move {
                // What is nobody's is the operator's until it is gone.
                ensure_operator(tx).await?;
                let stray = tx.stray(stray).await?.ok_or_else(missing)?;
                match &stray.seen {
                    Stray::Drive(status) => {
                        let row = self.drive_of(tx, stray.host, status).await?;
                        tx.save_drive(&row).await?;
                        let object = OutboxRow::Drive(row.drive);
                        tx.queue(row.host, object, row.generation).await?;
                    }
                    Stray::Server(status) => {
                        let row = self.server_of(tx, stray.host, status).await?;
                        tx.save_server(&row).await?;
                        queue(tx, &row).await?;
                    }
                    Stray::Snapshot(status) => {
                        let row = self.snapshot_of(tx, stray.host, status).await?;
                        tx.save_snapshot(&row).await?;
                        snapshots::queue(tx, &row).await?;
                    }
                }
                tx.delete_stray(stray.stray).await
            })
        })
        .await
    }

    /// A row for the drive, on its way out, at the generation after the newest that anybody knows.
    async fn drive_of(
        &self,
        tx: &mut Writer<'_>,
        host: HostId,
        status: &DriveStatus,
    ) -> Result<DriveRow> {
        let known = tx.drive(status.drive).await?;
        if known.as_ref().is_some_and(|row| row.state != DriveState::Gone) {
            return Err(changed_meanwhile("drive"));
        }
        let home = status.home.filter(|_| status.fault.is_none()).ok_or_else(not_there)?;
        told_of(tx, host, home.array).await?;
        let size = size_of(status.size)?;
        let newest = known.as_ref().map_or(0, |row| row.generation);
        Ok(DriveRow {
            drive: status.drive,
            account: OPERATOR,
            host,
            array: home.array,
            size,
            state: DriveState::Destroying,
            since: self.now(),
            generation: newest.max(self.of_this_era(status.generation)?) + 1,
            epoch: status.epoch.max(known.map(|row| row.epoch).unwrap_or_default()),
            access: Access::Exclusive,
            config: Record::new(),
            seen_generation: 0,
            seen_size: size,
            fault_generation: 0,
            fault_code: String::new(),
            failed: None,
            standard: None,
            summed: None,
        })
    }

    /// A row for the server, on its way out. Its run was never metered here, and is not.
    async fn server_of(
        &self,
        tx: &mut Writer<'_>,
        host: HostId,
        status: &ServerStatus,
    ) -> Result<ServerRow> {
        let known = tx.server(status.server).await?;
        if known.as_ref().is_some_and(|row| row.state != ServerState::Gone) {
            return Err(changed_meanwhile("server"));
        }
        let newest = known.as_ref().map_or(0, |row| row.generation);
        Ok(ServerRow {
            server: status.server,
            account: OPERATOR,
            host: Some(host),
            state: ServerState::Destroying,
            since: self.now(),
            generation: newest.max(self.of_this_era(status.generation)?) + 1,
            run: status.run,
            powered: false,
            reset: status.reset,
            shutdown: status.shutdown,
            config: Record::new(),
            hardware: None,
            cpu: MegaHertz(0),
            memory: MebiBytes(0),
            change: None,
            seen_generation: 0,
            seen_reset: status.reset,
            ended_run: status.run,
            started: None,
            screen: None,
            failed_run: Run(0),
            failed: None,
        })
    }

    /// A row for the snapshot, on its way out, at the generation after the newest that anybody
    /// knows.
    async fn snapshot_of(
        &self,
        tx: &mut Writer<'_>,
        host: HostId,
        status: &SnapshotStatus,
    ) -> Result<SnapshotRow> {
        let known = tx.snapshot(status.snapshot).await?;
        if known.as_ref().is_some_and(|row| row.state != SnapshotState::Gone) {
            return Err(changed_meanwhile("snapshot"));
        }
        let home = status.home.filter(|_| status.fault.is_none()).ok_or_else(not_there)?;
        told_of(tx, host, home.array).await?;
        let newest = known.as_ref().map_or(0, |row| row.generation);
        Ok(SnapshotRow {
            snapshot: status.snapshot,
            account: OPERATOR,
            drive: home.drive,
            host,
            array: home.array,
            size: size_of(status.size)?,
            state: SnapshotState::Destroying,
            since: self.now(),
            created: self.now(),
            generation: newest.max(self.of_this_era(status.generation)?) + 1,
            restore: status.restored,
            epoch: Epoch::default(),
            config: Record::new(),
            seen_restore: status.restored,
            failed_restore: 0,
            fault_generation: 0,
            fault_code: String::new(),
            failed: None,
        })
    }

    /// The number of a generation as far as it orders among ours.
    fn of_this_era(&self, generation: Generation) -> Result<u64> {
        if generation.era > self.db.era() {
            return Err(Error::new(
                ErrorKind::Stale,
                "its host has it from a later era than this database is of, and would not heed it: \
                 begin a new era first",
            ));
        }
        Ok(self.number(generation))
    }
}

/// Takes in what a host says of something that is not known here as a thing of that host's.
pub(super) async fn seen(
    tx: &mut Writer<'_>,
    host: HostId,
    seen: Stray,
    why: Why,
    now: Timestamp,
) -> Result<()> {
    let gone = seen.is_gone();
    match tx.stray_of(host, &seen).await? {
        Some(known) if gone => tx.delete_stray(known.stray).await,
        Some(known) if known.seen == seen => Ok(()),
        Some(known) => tx.save_stray(&StrayRow { seen, ..known }).await,
        None if gone => Ok(()),
        None => {
            tracing::warn!(%host, kind = seen.kind(), object = seen.object(), why = why.as_str(),
                "a host has what no intent knows: it is kept in quarantine");
            tx.save_stray(&StrayRow { stray: new_id(), host, since: now, why, seen }).await
        }
    }
}

/// The row of what a host tells of, if the host is to be heeded about it: it is the host's, and not
/// gone. What no row is about, and what is there although it should be gone, is taken in as a stray.
pub(super) async fn heeded<R: Row>(
    tx: &mut Writer<'_>,
    host: HostId,
    known: Option<R>,
    stray: impl FnOnce() -> Stray,
    now: Timestamp,
) -> Result<Option<R>> {
    let Some(row) = known else {
        seen(tx, host, stray(), Why::Unknown, now).await?;
        return Ok(None);
    };
    if row.host() != Some(host) {
        return Ok(None);
    }
    let Some(since) = row.gone_since() else { return Ok(Some(row)) };
    let stray = stray();
    let gone = stray.is_gone();
    let is_back = !gone && now.since(since) > LATE;
    if gone || is_back {
        seen(tx, host, stray, Why::Destroyed, now).await?;
    }
    Ok((!is_back).then_some(row))
}

/// A row of what a host can have.
pub(super) trait Row {
    fn host(&self) -> Option<HostId>;
    /// Since when it is gone, if it is.
    fn gone_since(&self) -> Option<Timestamp>;
}

impl Row for DriveRow {
    fn host(&self) -> Option<HostId> {
        Some(self.host)
    }

    fn gone_since(&self) -> Option<Timestamp> {
        (self.state == DriveState::Gone).then_some(self.since)
    }
}

impl Row for ServerRow {
    fn host(&self) -> Option<HostId> {
        self.host
    }

    fn gone_since(&self) -> Option<Timestamp> {
        (self.state == ServerState::Gone).then_some(self.since)
    }
}

impl Row for SnapshotRow {
    fn host(&self) -> Option<HostId> {
        Some(self.host)
    }

    fn gone_since(&self) -> Option<Timestamp> {
        (self.state == SnapshotState::Gone).then_some(self.since)
    }
}

fn subject(seen: &Stray) -> Subject {
    match seen {
        Stray::Drive(status) => Subject::Drive(status.drive),
        Stray::Server(status) => Subject::Server(status.server),
        Stray::Snapshot(status) => Subject::Snapshot(status.snapshot),
    }
}

/// Refuses an array that its host does not tell of.
async fn told_of(tx: &mut Writer<'_>, host: HostId, array: ArrayId) -> Result<()> {
    let arrays = tx.arrays_of(host).await?;
    arrays.contains_key(&array).then_some(()).ok_or_else(not_there)
}

fn size_of(bytes: u64) -> Result<Bytes> {
    Bytes::try_from(bytes).map_err(|error| Error::internal("reading a stray's size").source(error))
}

fn not_there() -> Error {
    Error::new(
        ErrorKind::Unavailable,
        "its host does not have its bytes now: attach its array, and repeat the call",
    )
}

fn missing() -> Error {
    Error::new(ErrorKind::NotFound, "the stray could not be found: see the list of the quarantine")
}

fn record(row: &StrayRow) -> Record {
    let StrayRow { stray, host, since, why, seen } = row;
    let mut record = Record::new()
        .with("stray", stray)
        .with("host", host)
        .with("type", seen.kind())
        .with("object", seen.object())
        .with("since", since.as_seconds())
        .with("why", why.as_str());
    let (size, home) = match seen {
        Stray::Drive(DriveStatus { size, home, .. }) => {
            (*size, home.map(|home| (home.array, home.account)))
        }
        Stray::Snapshot(SnapshotStatus { size, home, .. }) => {
            if let Some(home) = home {
                record.set("drive", home.drive);
            }
            (*size, home.map(|home| (home.array, home.account)))
        }
        Stray::Server(_) => return record,
    };
    record.set("size", size);
    if let Some((array, account)) = home {
        record.set("array", array);
        record.set("account", account);
    }
    record
}
