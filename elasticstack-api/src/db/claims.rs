//! Rows of claims: who uses which drive, and under which epoch.
//!
//! Invariant: whatever begins or ends the lending of a drive raises the drive's generation and has its
//! host told, in the same transaction.

use std::collections::BTreeMap;
use std::fmt;

use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::{Access, LentDrive};

use super::dialect::Row;
use super::row::{column, failed, from_json_if_any, number, parsed, stored, to_json_if_any, word};
use super::{OutboxRow, Reader, Subject, Writer};

/// Who holds a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    Job(JobId),
    Server(ServerId),
    Snapshot(SnapshotId),
}

impl Holder {
    const fn kind(self) -> &'static str {
        match self {
            Self::Job(_) => "job",
            Self::Server(_) => "server",
            Self::Snapshot(_) => "snapshot",
        }
    }

    /// The holder with its kind, for messages.
    pub(crate) fn describe(self) -> String {
        format!("{} {self}", self.kind())
    }
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Job(job) => job.fmt(f),
            Self::Server(server) => server.fmt(f),
            Self::Snapshot(snapshot) => snapshot.fmt(f),
        }
    }
}

/// One claim on one drive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaimRow {
    pub(crate) drive: DriveId,
    pub(crate) holder: Holder,
    pub(crate) epoch: Epoch,
    pub(crate) access: Access,
    /// How the drive is lent, if the holder is on another host.
    pub(crate) lent: Option<LentDrive>,
}

pub(super) const fn access_word(access: Access) -> &'static str {
    match access {
        Access::Exclusive => "exclusive",
        Access::Shared => "shared",
    }
}

pub(super) fn access_from_word(word: &str) -> Option<Access> {
    [Access::Exclusive, Access::Shared].into_iter().find(|access| access_word(*access) == word)
}

fn claim(row: &Row) -> Result<ClaimRow> {
    let kind: &str = column(row, "holder_kind")?;
    Ok(ClaimRow {
        drive: parsed(row, "drive")?,
        holder: match kind {
            "job" => Holder::Job(parsed(row, "holder")?),
            "snapshot" => Holder::Snapshot(parsed(row, "holder")?),
            _ => Holder::Server(parsed(row, "holder")?),
        },
        epoch: Epoch(number(row, "epoch")?),
        access: word(row, "access", access_from_word)?,
        lent: from_json_if_any(row, "lent")?,
    })
}

impl Reader {
    /// The claims on a drive, ordered by holder.
    pub(crate) async fn claims_on(&mut self, drive: DriveId) -> Result<Vec<ClaimRow>> {
        let rows = self
            .statement("SELECT * FROM claims WHERE drive = $1 ORDER BY holder")
            .bind(drive.to_string())
            .fetch_all()
            .await
            .map_err(failed("reading the claims on a drive"))?;
        rows.iter().map(claim).collect()
    }
}

impl Reader {
    /// The claims of a server, job or snapshot on drives.
    pub(crate) async fn claims_of(&mut self, holder: Holder) -> Result<Vec<ClaimRow>> {
        let rows = self
            .statement("SELECT * FROM claims WHERE holder = $1 ORDER BY drive")
            .bind(holder.to_string())
            .fetch_all()
            .await
            .map_err(failed("reading the claims of a holder"))?;
        rows.iter().map(claim).collect()
    }

    /// The claims on those drives of an account that were changed at the mark `since` or after it,
    /// each drive's ordered by holder.
    pub(crate) async fn claims_since(
        &mut self,
        account: AccountId,
        since: i64,
    ) -> Result<BTreeMap<DriveId, Vec<ClaimRow>>> {
        let mut claims = BTreeMap::<DriveId, Vec<ClaimRow>>::new();
        self.statement(
            "SELECT claims.* FROM drives JOIN claims ON claims.drive = drives.drive \
             WHERE drives.account = $1 AND drives.changed >= $2 ORDER BY claims.holder",
        )
        .bind(account.to_string())
        .bind(since)
        .each("reading the claims on an account's drives", |row| {
            let claim = claim(row)?;
            claims.entry(claim.drive).or_default().push(claim);
            Ok(())
        })
        .await?;
        Ok(claims)
    }
}

impl Writer<'_> {
    /// Takes one claim away.
    pub(crate) async fn delete_claim(&mut self, drive: DriveId, holder: Holder) -> Result<()> {
        let rows = self
            .change("DELETE FROM claims WHERE drive = $1 AND holder = $2 RETURNING drive, lent")
            .bind(drive.to_string())
            .bind(holder.to_string())
            .fetch_all()
            .await
            .map_err(failed("releasing a claim"))?;
        self.note_release(Subject::Drive(drive), holder);
        self.touch_drive(drive).await?;
        self.lent_no_more(&rows).await
    }

    /// Takes every claim on a drive away.
    pub(crate) async fn delete_claims_on(&mut self, drive: DriveId) -> Result<()> {
        self.touch_drive(drive).await?;
        let rows = self
            .change("DELETE FROM claims WHERE drive = $1 RETURNING drive, lent")
            .bind(drive.to_string())
            .fetch_all()
            .await
            .map_err(failed("releasing a drive"))?;
        self.lent_no_more(&rows).await
    }

    /// Notes how a drive is lent for a claim that is there.
    pub(crate) async fn lend_for_claim(
        &mut self,
        drive: DriveId,
        holder: Holder,
        lent: &LentDrive,
    ) -> Result<()> {
        self.change("UPDATE claims SET lent = $3 WHERE drive = $1 AND holder = $2")
            .bind(drive.to_string())
            .bind(holder.to_string())
            .bind(to_json_if_any(Some(lent), "lent")?)
            .execute()
            .await
            .map_err(failed("lending a drive"))?;
        self.lends_change(drive).await
    }

    /// Has the hosts of those drives told whose claims were deleted while they were lent for them.
    async fn lent_no_more(&mut self, deleted: &[Row]) -> Result<()> {
        for row in deleted {
            if column::<Option<&str>>(row, "lent")?.is_some() {
                self.lends_change(parsed(row, "drive")?).await?;
            }
        }
        Ok(())
    }

    async fn lends_change(&mut self, drive: DriveId) -> Result<()> {
        let Some(mut row) = self.drive(drive).await? else { return Ok(()) };
        row.generation += 1;
        self.queue(row.host, OutboxRow::Drive(drive), row.generation).await?;
        self.save_drive(&row).await
    }

    /// Adds a claim. A second exclusive one on a drive fails.
    pub(crate) async fn insert_claim(&mut self, row: &ClaimRow) -> Result<()> {
        let ClaimRow { drive, holder, epoch, access, lent } = row;
        self.change(
            "INSERT INTO claims (drive, holder, holder_kind, epoch, access, lent) \
             VALUES ($1, $2, $3, $4, $5, $6)",
        )
        .bind(drive.to_string())
        .bind(holder.to_string())
        .bind(holder.kind())
        .bind(stored(epoch.0))
        .bind(access_word(*access))
        .bind(to_json_if_any(lent.as_ref(), "lent")?)
        .execute()
        .await
        .map_err(failed("adding a claim"))?;
        self.note_claim(Subject::Drive(*drive), *holder);
        self.touch_drive(*drive).await?;
        if lent.is_some() { self.lends_change(*drive).await } else { Ok(()) }
    }

    /// Takes all claims of a server, job or snapshot away, on drives and on resources.
    pub(crate) async fn delete_claims_of(&mut self, holder: Holder) -> Result<()> {
        let rows = self
            .change("DELETE FROM claims WHERE holder = $1 RETURNING drive, lent")
            .bind(holder.to_string())
            .fetch_all()
            .await
            .map_err(failed("releasing claims"))?;
        for row in &rows {
            let drive = parsed(row, "drive")?;
            self.note_release(Subject::Drive(drive), holder);
            self.touch_drive(drive).await?;
        }
        self.lent_no_more(&rows).await?;
        match holder {
            Holder::Job(_) | Holder::Snapshot(_) => Ok(()),
            Holder::Server(server) => self.delete_resource_claims_of(server).await,
        }
    }
}
