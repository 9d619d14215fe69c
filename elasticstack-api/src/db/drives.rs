//! Rows of drives.

use elasticstack_core::prelude::*;
use elasticstack_core::state::DriveState;
use elasticstack_core::wire::internal::Access;
use elasticstack_core::wire::record::Record;

use super::claims::{access_from_word, access_word};
use super::dialect::Row;
use super::row::{
    bytes, column, failed, from_record, instant, number, parsed, record, stored, word,
};
use super::{Reader, Writer, one};

/// A drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DriveRow {
    pub(crate) drive: DriveId,
    pub(crate) account: AccountId,
    pub(crate) host: HostId,
    pub(crate) array: ArrayId,
    pub(crate) size: Bytes,
    pub(crate) state: DriveState,
    /// When it entered its state, or its host was last reminded of it.
    pub(crate) since: Timestamp,
    pub(crate) generation: u64,
    pub(crate) epoch: Epoch,
    /// Whom its claims tolerate beside them.
    pub(crate) access: Access,
    /// The keys that its owner set and that mean nothing to us.
    pub(crate) config: Record,
    /// The newest generation that its host has made true; 0 for none.
    pub(crate) seen_generation: u64,
    pub(crate) seen_size: Bytes,
    /// The generation that its host could not make true; 0 for none.
    pub(crate) fault_generation: u64,
    pub(crate) fault_code: String,
    pub(crate) failed: Option<String>,
    /// What makes it a standard drive, once it is whole.
    pub(crate) standard: Option<Standard>,
    /// What was summed up, if the drive surely holds that still.
    pub(crate) summed: Option<Summed>,
}

/// The SHA-256 of a drive's first bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Summed {
    /// In lower-case hex.
    pub(crate) sha256: String,
    /// Of how many.
    pub(crate) length: Bytes,
}

/// What is published on a standard drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Standard {
    /// `disk` or `cdrom`.
    pub(crate) media: String,
    pub(crate) format: Option<String>,
    pub(crate) rawsize: Option<Bytes>,
    /// Of the published file, in lower-case hex.
    pub(crate) sha256: String,
}

pub(super) fn drive(row: &Row) -> Result<DriveRow> {
    let media: Option<String> = column(row, "media")?;
    let rawsize: Option<i64> = column(row, "rawsize")?;
    let standard = match media {
        None => None,
        Some(media) => Some(Standard {
            media,
            format: column(row, "format")?,
            rawsize: rawsize.map(|_| bytes(row, "rawsize")).transpose()?,
            sha256: column(row, "sha256")?,
        }),
    };
    let sum: Option<String> = column(row, "sum")?;
    let summed = match sum {
        None => None,
        Some(sha256) => Some(Summed { sha256, length: bytes(row, "sum_length")? }),
    };
    Ok(DriveRow {
        drive: parsed(row, "drive")?,
        account: parsed(row, "account")?,
        host: parsed(row, "host")?,
        array: parsed(row, "array_id")?,
        size: bytes(row, "size")?,
        state: word(row, "state", DriveState::from_word)?,
        since: instant(row, "since_us")?,
        generation: number(row, "generation")?,
        epoch: Epoch(number(row, "epoch")?),
        access: word(row, "access", access_from_word)?,
        config: record(row, "config")?,
        seen_generation: number(row, "seen_generation")?,
        seen_size: bytes(row, "seen_size")?,
        fault_generation: number(row, "fault_generation")?,
        fault_code: column(row, "fault_code")?,
        failed: column(row, "failed")?,
        standard,
        summed,
    })
}

impl Reader {
    /// The drive of this id, in whatever state.
    pub(crate) async fn drive(&mut self, id: DriveId) -> Result<Option<DriveRow>> {
        let row = self
            .one(one!("SELECT * FROM drives WHERE drive = $1"))
            .bind(id.to_string())
            .fetch_optional()
            .await
            .map_err(failed("reading a drive"))?;
        row.as_ref().map(drive).transpose()
    }

    /// Hands over the drives of an account that were changed, or used in another way, at the mark
    /// `since` or after it. From the first mark on, what is gone is left out.
    pub(crate) async fn drives_since(
        &mut self,
        account: AccountId,
        since: i64,
        mut take: impl FnMut(DriveRow),
    ) -> Result<()> {
        self.statement(
            "SELECT * FROM drives WHERE account = $1 AND changed >= $2 \
             AND ($2 > 0 OR state <> $3)",
        )
        .bind(account.to_string())
        .bind(since)
        .bind(DriveState::Gone.as_str())
        .each("reading the drives of an account", |row| {
            take(drive(row)?);
            Ok(())
        })
        .await
    }

    /// The published standard drives, in the order of their ids.
    pub(crate) async fn standard_drives(&mut self) -> Result<Vec<DriveRow>> {
        // The state is left to us, so that no plan begins with all drives that are ready.
        let rows = self
            .statement("SELECT * FROM drives WHERE media IS NOT NULL ORDER BY drive")
            .fetch_all()
            .await
            .map_err(failed("reading the standard drives"))?;
        let rows: Result<Vec<DriveRow>> = rows.iter().map(drive).collect();
        Ok(rows?.into_iter().filter(|row| row.state == DriveState::Ready).collect())
    }

    /// The drives that have been in `state` since before `before`.
    pub(crate) async fn drives_overdue(
        &mut self,
        state: DriveState,
        before: Timestamp,
    ) -> Result<Vec<DriveRow>> {
        let rows = self
            .statement("SELECT * FROM drives WHERE state = $1 AND since_us <= $2")
            .bind(state.as_str())
            .bind(before.as_micros())
            .fetch_all()
            .await
            .map_err(failed("reading overdue drives"))?;
        rows.iter().map(drive).collect()
    }
}

impl Writer<'_> {
    /// As [`Reader::drive`].
    pub(crate) async fn drive(&mut self, id: DriveId) -> Result<Option<DriveRow>> {
        let row = self.reader.drive(id).await?;
        self.read.drive.clone_from(&row);
        Ok(row)
    }

    /// Adds the drive or replaces its row.
    pub(crate) async fn save_drive(&mut self, row: &DriveRow) -> Result<()> {
        self.tidings.saved(row.drive.as_uuid());
        let DriveRow {
            drive,
            account,
            host,
            array,
            size,
            state,
            since,
            generation,
            epoch,
            access,
            config,
            seen_generation,
            seen_size,
            fault_generation,
            fault_code,
            failed: failure,
            standard,
            summed,
        } = row;
        let before = match self.read.drive.take_if(|row| row.drive == *drive) {
            Some(before) => Some(before),
            None => self.reader.drive(*drive).await?,
        };
        self.note(before.as_ref(), row);
        let standard = standard.as_ref();
        let mark = self.mark().await?;
        self.change(
            "INSERT INTO drives (drive, account, host, array_id, size, state, since_us, \
             generation, epoch, access, config, seen_generation, seen_size, fault_generation, \
             fault_code, failed, media, format, rawsize, sha256, changed, sum, sum_length) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
             $18, $19, $20, $21, $22, $23) \
             ON CONFLICT (drive) DO UPDATE SET account = excluded.account, host = excluded.host, \
             array_id = excluded.array_id, size = excluded.size, state = excluded.state, \
             since_us = excluded.since_us, generation = excluded.generation, \
             epoch = excluded.epoch, access = excluded.access, config = excluded.config, \
             seen_generation = excluded.seen_generation, seen_size = excluded.seen_size, \
             fault_generation = excluded.fault_generation, fault_code = excluded.fault_code, \
             failed = excluded.failed, media = excluded.media, format = excluded.format, \
             rawsize = excluded.rawsize, sha256 = excluded.sha256, \
             changed = excluded.changed, sum = excluded.sum, sum_length = excluded.sum_length",
        )
        .bind(drive.to_string())
        .bind(account.to_string())
        .bind(host.to_string())
        .bind(array.to_string())
        .bind(size.to_i64())
        .bind(state.as_str())
        .bind(since.as_micros())
        .bind(stored(*generation))
        .bind(stored(epoch.0))
        .bind(access_word(*access))
        .bind(from_record(config)?)
        .bind(stored(*seen_generation))
        .bind(seen_size.to_i64())
        .bind(stored(*fault_generation))
        .bind(fault_code)
        .bind(failure)
        .bind(standard.map(|standard| standard.media.as_str()))
        .bind(standard.and_then(|standard| standard.format.as_deref()))
        .bind(standard.and_then(|standard| standard.rawsize).map(Bytes::to_i64))
        .bind(standard.map(|standard| standard.sha256.as_str()))
        .bind(mark)
        .bind(summed.as_ref().map(|summed| summed.sha256.as_str()))
        .bind(summed.as_ref().map(|summed| summed.length.to_i64()))
        .execute()
        .await
        .map_err(failed("saving a drive"))?;
        self.read.marked.insert(*drive);
        Ok(())
    }

    /// Marks a drive as changed because what is told with it has: who claims it, what images it.
    pub(super) async fn touch_drive(&mut self, id: DriveId) -> Result<()> {
        if !self.read.marked.insert(id) {
            return Ok(());
        }
        let mark = self.mark().await?;
        let row = self
            .change("UPDATE drives SET changed = $2 WHERE drive = $1 RETURNING *")
            .bind(id.to_string())
            .bind(mark)
            .fetch_optional()
            .await
            .map_err(failed("marking a drive"))?;
        if let Some(row) = row.as_ref().map(drive).transpose()? {
            self.note(Some(&row), &row);
        }
        Ok(())
    }
}
