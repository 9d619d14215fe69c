//! Rows of strays: drives, servers and snapshots that a host has and no intent knows.

use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::{DriveStatus, ObjectStatus, ServerStatus, SnapshotStatus};

use super::dialect::Row;
use super::row::{column, failed, instant, parsed, word};
use super::{Reader, Writer};

/// What became of the intent for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Why {
    /// It was carried out: the object was gone, and its host has it again.
    Destroyed,
    /// There never was any.
    Unknown,
}

impl Why {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Destroyed => "destroyed",
            Self::Unknown => "unknown",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Destroyed, Self::Unknown].into_iter().find(|why| why.as_str() == word)
    }
}

/// A stray, by its host's newest word on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stray {
    Drive(DriveStatus),
    Server(ServerStatus),
    Snapshot(SnapshotStatus),
}

impl Stray {
    pub(crate) const fn kind(&self) -> &'static str {
        match self {
            Self::Drive(_) => "drive",
            Self::Server(_) => "server",
            Self::Snapshot(_) => "snapshot",
        }
    }

    /// Its own id.
    pub(crate) fn object(&self) -> String {
        match self {
            Self::Drive(status) => status.drive.to_string(),
            Self::Server(status) => status.server.to_string(),
            Self::Snapshot(status) => status.snapshot.to_string(),
        }
    }

    /// Whether its host no longer has it.
    pub(crate) const fn is_gone(&self) -> bool {
        match self {
            Self::Drive(status) => status.gone,
            Self::Server(status) => status.gone,
            Self::Snapshot(status) => status.gone,
        }
    }
}

/// A stray in quarantine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct StrayRow {
    pub(crate) stray: StrayId,
    pub(crate) host: HostId,
    /// When its host first told of it.
    pub(crate) since: Timestamp,
    pub(crate) why: Why,
    pub(crate) seen: Stray,
}

fn stray(row: &Row) -> Result<StrayRow> {
    let status: &str = column(row, "status")?;
    let status = serde_json::from_str(status)
        .map_err(|error| Error::internal("reading column status").source(error))?;
    let seen = match status {
        ObjectStatus::Drive(status) => Stray::Drive(status),
        ObjectStatus::Server(status) => Stray::Server(status),
        ObjectStatus::Snapshot(status) => Stray::Snapshot(status),
        ObjectStatus::Job(_) => return Err(Error::internal("a job in quarantine")),
    };
    Ok(StrayRow {
        stray: parsed(row, "quarantined")?,
        host: parsed(row, "host")?,
        since: instant(row, "since_us")?,
        why: word(row, "why", Why::from_word)?,
        seen,
    })
}

impl Reader {
    /// At most `limit` strays whose ids come after `after`, in the order of their ids.
    pub(crate) async fn strays(&mut self, after: &str, limit: i64) -> Result<Vec<StrayRow>> {
        let rows = self
            .statement(
                "SELECT * FROM quarantine WHERE quarantined > $1 ORDER BY quarantined LIMIT $2",
            )
            .bind(after)
            .bind(limit)
            .fetch_all()
            .await
            .map_err(failed("reading the quarantine"))?;
        rows.iter().map(stray).collect()
    }

    /// The stray of this id.
    pub(crate) async fn stray(&mut self, id: StrayId) -> Result<Option<StrayRow>> {
        let row = self
            .statement("SELECT * FROM quarantine WHERE quarantined = $1")
            .bind(id.to_string())
            .fetch_optional()
            .await
            .map_err(failed("reading a stray"))?;
        row.as_ref().map(stray).transpose()
    }

    /// What is kept of the object that `host` tells of.
    pub(crate) async fn stray_of(
        &mut self,
        host: HostId,
        seen: &Stray,
    ) -> Result<Option<StrayRow>> {
        let row = self
            .statement("SELECT * FROM quarantine WHERE host = $1 AND kind = $2 AND object = $3")
            .bind(host.to_string())
            .bind(seen.kind())
            .bind(seen.object())
            .fetch_optional()
            .await
            .map_err(failed("looking for a stray"))?;
        row.as_ref().map(stray).transpose()
    }
}

impl Writer<'_> {
    /// Puts a stray into quarantine, or notes its host's newest word on it.
    pub(crate) async fn save_stray(&mut self, row: &StrayRow) -> Result<()> {
        let StrayRow { stray, host, since, why, seen } = row;
        let status = match seen.clone() {
            Stray::Drive(status) => ObjectStatus::Drive(status),
            Stray::Server(status) => ObjectStatus::Server(status),
            Stray::Snapshot(status) => ObjectStatus::Snapshot(status),
        };
        let status = serde_json::to_string(&status)
            .map_err(|error| Error::internal("writing a stray's status").source(error))?;
        self.change(
            "INSERT INTO quarantine (quarantined, host, kind, object, since_us, why, status) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (quarantined) DO UPDATE SET status = excluded.status",
        )
        .bind(stray.to_string())
        .bind(host.to_string())
        .bind(seen.kind())
        .bind(seen.object())
        .bind(since.as_micros())
        .bind(why.as_str())
        .bind(status)
        .execute()
        .await
        .map_err(failed("putting a stray into quarantine"))?;
        Ok(())
    }

    /// Takes a stray out of quarantine.
    pub(crate) async fn delete_stray(&mut self, id: StrayId) -> Result<()> {
        self.change("DELETE FROM quarantine WHERE quarantined = $1")
            .bind(id.to_string())
            .execute()
            .await
            .map_err(failed("taking a stray out of quarantine"))?;
        Ok(())
    }
}
