//! Strays: drives and servers that a host has and no intent knows, as after a restore from a backup
//! that is older than they are, or of disks that come back.
//!
//! Invariants: absence of intent destroys nothing: a stray is kept as it is, and told, until an
//! operator gives it to an account or has it destroyed by a tombstone; both begin above every
//! generation and epoch that its host has seen.

use std::time::Duration;

use elasticstack_core::prelude::*;
use elasticstack_core::state::{DriveState, ServerState};
use elasticstack_core::wire::internal::{Access, DriveStatus, ServerStatus};
use elasticstack_core::wire::record::Record;

use super::accounts::{OPERATOR, ensure_operator};
use super::drive_record::{self, InUse};
use super::power::queue;
use super::{App, Caller, Page, changed_meanwhile, drives, new_id};
use crate::db::{DriveRow, OutboxRow, ServerRow, Stray, StrayRow, Subject, Why, Writer};
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

    /// Gives a stray drive to an account. Its quotas are not asked: the drive is there.
    ///
    /// # Errors
    /// `NotFound` for either; `InvalidValue` for a server; `Unavailable` while its host can't say
    /// where it lies; `Stale` if it is of a later era than this database.
    pub async fn stray_adopt(
        &self,
        caller: &Caller,
        stray: StrayId,
        account: AccountId,
    ) -> Result<Record> {
        let seen = self.db.glance().await?.stray(stray).await?.ok_or_else(missing)?;
        let Stray::Drive(status) = &seen.seen else {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                "a stray server is not adopted, as what it should be is not known: adopt its \
                 drives and make it anew, or destroy it",
            )
            .field("stray"));
        };
        self.intend(caller, Subject::Drive(status.drive), |tx| {
            Box::pin(async move {
                let stray = tx.stray(stray).await?.ok_or_else(missing)?;
                if tx.account(account).await?.is_none() {
                    let sentence = "the account could not be found: see the list of accounts";
                    return Err(Error::new(ErrorKind::NotFound, sentence).field("account"));
                }
                let row = self.adopt(tx, &stray, account).await?;
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

    /// Has a stray's host destroy a drive, or end a server and forget it, by a tombstone.
    ///
    /// # Errors
    /// `NotFound`; for a drive those of [`App::stray_adopt`].
    pub async fn stray_destroy(&self, caller: &Caller, stray: StrayId) -> Result<()> {
        let seen = self.db.glance().await?.stray(stray).await?.ok_or_else(missing)?;
        let subject = match &seen.seen {
            Stray::Drive(status) => Subject::Drive(status.drive),
            Stray::Server(status) => Subject::Server(status.server),
        };
        self.intend(caller, subject, |tx| {
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
        let arrays = tx.arrays_of(host).await?;
        let home = status.home.filter(|home| arrays.contains_key(&home.array));
        let home = home.filter(|_| status.fault.is_none()).ok_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                "the drive's host does not have its bytes now: attach its array, and repeat the call",
            )
        })?;
        let size = Bytes::try_from(status.size)
            .map_err(|error| Error::internal("reading a stray's size").source(error))?;
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
    let gone = match &seen {
        Stray::Drive(status) => status.gone,
        Stray::Server(status) => status.gone,
    };
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

/// Whether what is gone since then, and told of as there, is there again.
pub(super) fn is_back(since: Timestamp, now: Timestamp) -> bool {
    now.since(since) > LATE
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
    if let Stray::Drive(status) = seen {
        record.set("size", status.size);
        if let Some(home) = status.home {
            record.set("array", home.array);
            record.set("account", home.account);
        }
    }
    record
}
