//! Rows of jobs.

use std::collections::BTreeMap;

use elasticstack_core::prelude::*;
use elasticstack_core::state::JobState;
use elasticstack_core::wire::internal::{Conversion, Download, Sum};

use super::dialect::Row;
use super::row::{column, failed, instant, number, parsed, stored, word};
use super::{Reader, Writer, one};

/// One imaging.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobRow {
    pub(crate) job: JobId,
    pub(crate) host: HostId,
    pub(crate) source: DriveId,
    pub(crate) source_epoch: Epoch,
    pub(crate) target: DriveId,
    pub(crate) target_epoch: Epoch,
    pub(crate) conversion: Conversion,
    /// What it reads instead of a drive; the source is the target then.
    pub(crate) download: Option<Download>,
    /// What it sums up instead of imaging; the source is the target then.
    pub(crate) sum: Option<Sum>,
    pub(crate) state: JobState,
    /// When it last made progress, or its host was last reminded of it.
    pub(crate) since: Timestamp,
    pub(crate) generation: u64,
    /// Hundredths of the source that are read; `None` while it waits its turn.
    pub(crate) percent: Option<u8>,
}

impl JobRow {
    /// What is told of it on the drive that it writes, while it is at work.
    pub(crate) fn told(&self) -> Option<String> {
        (self.state == JobState::Running).then(|| match self.percent {
            None => "queued".to_owned(),
            Some(percent) => format!("{percent}%"),
        })
    }
}

const fn conversion_word(conversion: Conversion) -> &'static str {
    match conversion {
        Conversion::None => "none",
        Conversion::Gzip => "gzip",
        Conversion::Gunzip => "gunzip",
        Conversion::Qcow2 => "qcow2",
        Conversion::Vmdk => "vmdk",
    }
}

fn conversion_from_word(word: &str) -> Option<Conversion> {
    [Conversion::None, Conversion::Gzip, Conversion::Gunzip, Conversion::Qcow2, Conversion::Vmdk]
        .into_iter()
        .find(|conversion| conversion_word(*conversion) == word)
}

pub(super) fn job(row: &Row) -> Result<JobRow> {
    let percent: Option<i64> = column(row, "percent")?;
    let url: Option<String> = column(row, "url")?;
    let sha256: Option<String> = column(row, "sha256")?;
    let sum_length: Option<i64> = column(row, "sum_length")?;
    let sum = match sum_length {
        None => None,
        Some(_) => Some(Sum { length: number(row, "sum_length")?, expected: sha256.clone() }),
    };
    Ok(JobRow {
        job: parsed(row, "job")?,
        host: parsed(row, "host")?,
        source: parsed(row, "source")?,
        source_epoch: Epoch(number(row, "source_epoch")?),
        target: parsed(row, "target")?,
        target_epoch: Epoch(number(row, "target_epoch")?),
        conversion: word(row, "conversion", conversion_from_word)?,
        download: url.map(|url| Download { url: Secret::new(url), sha256 }),
        sum,
        state: word(row, "state", JobState::from_word)?,
        since: instant(row, "since_us")?,
        generation: number(row, "generation")?,
        percent: percent.map(|percent| u8::try_from(percent).unwrap_or(100)),
    })
}

impl Reader {
    /// The job of this id.
    pub(crate) async fn job(&mut self, id: JobId) -> Result<Option<JobRow>> {
        let row = self
            .one(one!("SELECT * FROM jobs WHERE job = $1"))
            .bind(id.to_string())
            .fetch_optional()
            .await
            .map_err(failed("reading a job"))?;
        row.as_ref().map(job).transpose()
    }

    /// The jobs at work on a host that read or write `drive`.
    pub(crate) async fn running_job_on(&mut self, drive: DriveId) -> Result<Option<JobRow>> {
        let row = self
            .statement("SELECT * FROM jobs WHERE target = $1 AND state = $2")
            .bind(drive.to_string())
            .bind(JobState::Running.as_str())
            .fetch_optional()
            .await
            .map_err(failed("reading the job of a drive"))?;
        row.as_ref().map(job).transpose()
    }

    /// The running jobs that write those drives of an account that were changed at the mark `since`
    /// or after it.
    pub(crate) async fn running_jobs_since(
        &mut self,
        account: AccountId,
        since: i64,
    ) -> Result<BTreeMap<DriveId, JobRow>> {
        let rows = self
            .statement(
                "SELECT jobs.* FROM jobs JOIN drives ON drives.drive = jobs.target \
                 WHERE jobs.state = $3 AND drives.account = $1 AND drives.changed >= $2",
            )
            .bind(account.to_string())
            .bind(since)
            .bind(JobState::Running.as_str())
            .fetch_all()
            .await
            .map_err(failed("reading the jobs of an account's drives"))?;
        rows.iter().map(job).map(|row| row.map(|row| (row.target, row))).collect()
    }

    /// The running jobs without progress since before `before`.
    pub(crate) async fn jobs_overdue(
        &mut self,
        state: JobState,
        before: Timestamp,
    ) -> Result<Vec<JobRow>> {
        let rows = self
            .statement("SELECT * FROM jobs WHERE state = $1 AND since_us <= $2")
            .bind(state.as_str())
            .bind(before.as_micros())
            .fetch_all()
            .await
            .map_err(failed("reading overdue jobs"))?;
        rows.iter().map(job).collect()
    }
}

impl Writer<'_> {
    /// Adds the job or replaces its row.
    pub(crate) async fn save_job(&mut self, row: &JobRow) -> Result<()> {
        self.tidings.saved(row.job.as_uuid());
        let JobRow {
            job,
            host,
            source,
            source_epoch,
            target,
            target_epoch,
            conversion,
            download,
            sum,
            state,
            since,
            generation,
            percent,
        } = row;
        let before = self.job(*job).await?;
        self.note_job(before.as_ref(), Some(row));
        let expected = match (download, sum) {
            (Some(download), _) => download.sha256.clone(),
            (None, Some(sum)) => sum.expected.clone(),
            (None, None) => None,
        };
        self.change(
            "INSERT INTO jobs (job, host, source, source_epoch, target, target_epoch, conversion, \
             state, since_us, generation, percent, url, sha256, sum_length) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14) \
             ON CONFLICT (job) DO UPDATE SET state = excluded.state, \
             since_us = excluded.since_us, generation = excluded.generation, \
             percent = excluded.percent",
        )
        .bind(job.to_string())
        .bind(host.to_string())
        .bind(source.to_string())
        .bind(stored(source_epoch.0))
        .bind(target.to_string())
        .bind(stored(target_epoch.0))
        .bind(conversion_word(*conversion))
        .bind(state.as_str())
        .bind(since.as_micros())
        .bind(stored(*generation))
        .bind(percent.map(i64::from))
        .bind(download.as_ref().map(|download| download.url.expose().to_owned()))
        .bind(expected)
        .bind(sum.as_ref().map(|sum| stored(sum.length)))
        .execute()
        .await
        .map_err(failed("saving a job"))?;
        self.touch_drive(*target).await
    }

    /// Forgets a job.
    pub(crate) async fn delete_job(&mut self, job: JobId) -> Result<()> {
        let before = self.job(job).await?;
        self.note_job(before.as_ref(), None);
        self.change("DELETE FROM jobs WHERE job = $1")
            .bind(job.to_string())
            .execute()
            .await
            .map_err(failed("forgetting a job"))?;
        Ok(())
    }
}
