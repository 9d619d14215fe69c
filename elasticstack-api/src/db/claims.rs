//! Rows of claims: who uses which drive, and under which epoch.

use std::fmt;

use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::Access;

use super::dialect::Row;
use super::row::{column, failed, number, parsed, stored, word};
use super::{Reader, Writer};

/// Who holds a claim.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Holder {
    Job(JobId),
    Server(ServerId),
}

impl Holder {
    const fn kind(self) -> &'static str {
        match self {
            Self::Job(_) => "job",
            Self::Server(_) => "server",
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
            _ => Holder::Server(parsed(row, "holder")?),
        },
        epoch: Epoch(number(row, "epoch")?),
        access: word(row, "access", access_from_word)?,
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

impl Writer<'_> {
    /// Adds a claim. A second exclusive one on a drive fails.
    pub(crate) async fn insert_claim(&mut self, row: &ClaimRow) -> Result<()> {
        let ClaimRow { drive, holder, epoch, access } = row;
        self.change(
            "INSERT INTO claims (drive, holder, holder_kind, epoch, access) \
             VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(drive.to_string())
        .bind(holder.to_string())
        .bind(holder.kind())
        .bind(stored(epoch.0))
        .bind(access_word(*access))
        .execute()
        .await
        .map_err(failed("adding a claim"))?;
        Ok(())
    }

    /// Takes all claims of a server or job away, on drives and on resources.
    pub(crate) async fn delete_claims_of(&mut self, holder: Holder) -> Result<()> {
        self.change("DELETE FROM claims WHERE holder = $1")
            .bind(holder.to_string())
            .execute()
            .await
            .map_err(failed("releasing claims"))?;
        match holder {
            Holder::Job(_) => Ok(()),
            Holder::Server(server) => self.delete_resource_claims_of(server).await,
        }
    }
}
