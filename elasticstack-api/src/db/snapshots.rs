//! Rows of snapshots.

use elasticstack_core::prelude::*;
use elasticstack_core::state::SnapshotState;
use elasticstack_core::wire::record::Record;

use super::dialect::{Row, Statement};
use super::row::{
    bytes, column, failed, from_record, instant, number, parsed, record, stored, word,
};
use super::{Reader, Writer, one};

/// What a drive held at one instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SnapshotRow {
    pub(crate) snapshot: SnapshotId,
    pub(crate) account: AccountId,
    pub(crate) drive: DriveId,
    pub(crate) host: HostId,
    pub(crate) array: ArrayId,
    pub(crate) size: Bytes,
    pub(crate) state: SnapshotState,
    /// When it entered its state, or its host was last reminded of it.
    pub(crate) since: Timestamp,
    pub(crate) created: Timestamp,
    pub(crate) generation: u64,
    /// The newest restore asked for; 0 if none was.
    pub(crate) restore: u64,
    /// The epoch of that restore's claim on the drive.
    pub(crate) epoch: Epoch,
    /// The keys that its owner set and that mean nothing to us.
    pub(crate) config: Record,
    /// The newest restore that is over.
    pub(crate) seen_restore: u64,
    /// The newest restore that left the drive as it was; 0 for none.
    pub(crate) failed_restore: u64,
    /// The generation that its host could not make true; 0 for none.
    pub(crate) fault_generation: u64,
    /// The code of the last failure.
    pub(crate) fault_code: String,
    pub(crate) failed: Option<String>,
}

pub(super) fn snapshot(row: &Row) -> Result<SnapshotRow> {
    Ok(SnapshotRow {
        snapshot: parsed(row, "snapshot")?,
        account: parsed(row, "account")?,
        drive: parsed(row, "drive")?,
        host: parsed(row, "host")?,
        array: parsed(row, "array_id")?,
        size: bytes(row, "size")?,
        state: word(row, "state", SnapshotState::from_word)?,
        since: instant(row, "since_us")?,
        created: instant(row, "created_us")?,
        generation: number(row, "generation")?,
        restore: number(row, "restore_number")?,
        epoch: Epoch(number(row, "restore_epoch")?),
        config: record(row, "config")?,
        seen_restore: number(row, "seen_restore")?,
        failed_restore: number(row, "failed_restore")?,
        fault_generation: number(row, "fault_generation")?,
        fault_code: column(row, "fault_code")?,
        failed: column(row, "failed")?,
    })
}

/// Binds the states in which a snapshot is there.
fn being_there(statement: Statement<'_>) -> Statement<'_> {
    SnapshotState::IS_THERE.iter().map(|state| state.as_str()).fold(statement, Statement::bind)
}

impl Reader {
    /// The snapshot of this id, in whatever state.
    pub(crate) async fn snapshot(&mut self, id: SnapshotId) -> Result<Option<SnapshotRow>> {
        let row = self
            .one(one!("SELECT * FROM snapshots WHERE snapshot = $1"))
            .bind(id.to_string())
            .fetch_optional()
            .await
            .map_err(failed("reading a snapshot"))?;
        row.as_ref().map(snapshot).transpose()
    }

    /// The snapshots of a drive that are there, in the order of their ids.
    pub(crate) async fn snapshots_on(&mut self, drive: DriveId) -> Result<Vec<SnapshotRow>> {
        let statement = self.statement(
            "SELECT * FROM snapshots WHERE drive = $1 AND state IN ($2, $3, $4) ORDER BY snapshot",
        );
        let rows = being_there(statement.bind(drive.to_string())).fetch_all().await;
        rows.map_err(failed("reading the snapshots of a drive"))?.iter().map(snapshot).collect()
    }

    /// The snapshots of an account that are there, in the order of their ids.
    pub(crate) async fn snapshots_of(&mut self, account: AccountId) -> Result<Vec<SnapshotRow>> {
        let statement = self.statement(
            "SELECT * FROM snapshots WHERE account = $1 AND state IN ($2, $3, $4) \
             ORDER BY snapshot",
        );
        let rows = being_there(statement.bind(account.to_string())).fetch_all().await;
        rows.map_err(failed("reading the snapshots of an account"))?.iter().map(snapshot).collect()
    }

    /// The snapshots that have been in `state` since before `before`.
    pub(crate) async fn snapshots_overdue(
        &mut self,
        state: SnapshotState,
        before: Timestamp,
    ) -> Result<Vec<SnapshotRow>> {
        let rows = self
            .statement("SELECT * FROM snapshots WHERE state = $1 AND since_us <= $2")
            .bind(state.as_str())
            .bind(before.as_micros())
            .fetch_all()
            .await
            .map_err(failed("reading overdue snapshots"))?;
        rows.iter().map(snapshot).collect()
    }
}

impl Writer<'_> {
    /// Adds the snapshot or replaces its row.
    pub(crate) async fn save_snapshot(&mut self, row: &SnapshotRow) -> Result<()> {
        let SnapshotRow {
            snapshot,
            account,
            drive,
            host,
            array,
            size,
            state,
            since,
            created,
            generation,
            restore,
            epoch,
            config,
            seen_restore,
            failed_restore,
            fault_generation,
            fault_code,
            failed: failure,
        } = row;
        let before = self.snapshot(*snapshot).await?;
        self.note(before.as_ref(), row);
        let mark = self.mark().await?;
        self.change(
            "INSERT INTO snapshots (snapshot, account, drive, host, array_id, size, state, \
             since_us, created_us, generation, restore_number, restore_epoch, config, \
             seen_restore, failed_restore, fault_generation, fault_code, failed, changed) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
             $18, $19) \
             ON CONFLICT (snapshot) DO UPDATE SET size = excluded.size, state = excluded.state, \
             since_us = excluded.since_us, generation = excluded.generation, \
             restore_number = excluded.restore_number, restore_epoch = excluded.restore_epoch, \
             config = excluded.config, \
             seen_restore = excluded.seen_restore, failed_restore = excluded.failed_restore, \
             fault_generation = excluded.fault_generation, fault_code = excluded.fault_code, \
             failed = excluded.failed, changed = excluded.changed",
        )
        .bind(snapshot.to_string())
        .bind(account.to_string())
        .bind(drive.to_string())
        .bind(host.to_string())
        .bind(array.to_string())
        .bind(size.to_i64())
        .bind(state.as_str())
        .bind(since.as_micros())
        .bind(created.as_micros())
        .bind(stored(*generation))
        .bind(stored(*restore))
        .bind(stored(epoch.0))
        .bind(from_record(config)?)
        .bind(stored(*seen_restore))
        .bind(stored(*failed_restore))
        .bind(stored(*fault_generation))
        .bind(fault_code)
        .bind(failure)
        .bind(mark)
        .execute()
        .await
        .map_err(failed("saving a snapshot"))?;
        Ok(())
    }
}
