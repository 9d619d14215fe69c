//! Rows of the outbox: which objects' current documents a host has not confirmed.

use elasticstack_core::prelude::*;

use super::dialect::Row;
use super::row::{failed, parsed, stored, word};
use super::{Reader, Writer, numbers};

/// An object that a host is to be told of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutboxRow {
    Drive(DriveId),
    Job(JobId),
    Server(ServerId),
    Snapshot(SnapshotId),
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Drive,
    Job,
    Server,
    Snapshot,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Drive => "drive",
            Self::Job => "job",
            Self::Server => "server",
            Self::Snapshot => "snapshot",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Drive, Self::Job, Self::Server, Self::Snapshot]
            .into_iter()
            .find(|kind| kind.as_str() == word)
    }
}

impl OutboxRow {
    fn key(self) -> (&'static str, String) {
        match self {
            Self::Drive(drive) => (Kind::Drive.as_str(), drive.to_string()),
            Self::Job(job) => (Kind::Job.as_str(), job.to_string()),
            Self::Server(server) => (Kind::Server.as_str(), server.to_string()),
            Self::Snapshot(snapshot) => (Kind::Snapshot.as_str(), snapshot.to_string()),
        }
    }
}

fn outbox_row(row: &Row) -> Result<OutboxRow> {
    Ok(match word(row, "kind", Kind::from_word)? {
        Kind::Drive => OutboxRow::Drive(parsed(row, "object")?),
        Kind::Job => OutboxRow::Job(parsed(row, "object")?),
        Kind::Server => OutboxRow::Server(parsed(row, "object")?),
        Kind::Snapshot => OutboxRow::Snapshot(parsed(row, "object")?),
    })
}

impl Reader {
    /// The hosts for which anything waits. One that has yet to tell what it has is told nothing.
    pub(crate) async fn hosts_to_tell(&mut self) -> Result<Vec<HostId>> {
        let rows = self
            .statement(
                "SELECT DISTINCT outbox.host FROM outbox \
                 JOIN hosts ON hosts.host = outbox.host WHERE hosts.unheard = 0",
            )
            .fetch_all()
            .await
            .map_err(failed("reading for whom something waits"))?;
        rows.iter().map(|row| parsed(row, "host")).collect()
    }

    /// What waits for `host`, oldest first, at most `limit`.
    pub(crate) async fn outbox_of(&mut self, host: HostId, limit: u32) -> Result<Vec<OutboxRow>> {
        let rows = self
            .statement(
                "SELECT kind, object FROM outbox JOIN hosts ON hosts.host = outbox.host \
                 WHERE outbox.host = $1 AND hosts.unheard = 0 ORDER BY position LIMIT $2",
            )
            .bind(host.to_string())
            .bind(i64::from(limit))
            .fetch_all()
            .await
            .map_err(failed("reading the outbox"))?;
        rows.iter().map(outbox_row).collect()
    }
}

impl Writer<'_> {
    /// Has `host` told of `object`, which now is of `generation`.
    pub(crate) async fn queue(
        &mut self,
        host: HostId,
        object: OutboxRow,
        generation: u64,
    ) -> Result<()> {
        self.tidings.queued(host);
        let position = numbers::draw()?;
        let (kind, id) = object.key();
        self.change(
            "INSERT INTO outbox (host, kind, object, generation, position) \
             VALUES ($1, $2, $3, $4, $5) \
             ON CONFLICT (host, kind, object) DO UPDATE SET generation = excluded.generation",
        )
        .bind(host.to_string())
        .bind(kind)
        .bind(id)
        .bind(stored(generation))
        .bind(position)
        .execute()
        .await
        .map_err(failed("filling the outbox"))?;
        Ok(())
    }

    /// `host` has `object` in `generation`: it waits no longer, unless something newer does.
    pub(crate) async fn unqueue(
        &mut self,
        host: HostId,
        object: OutboxRow,
        generation: u64,
    ) -> Result<()> {
        let (kind, id) = object.key();
        self.change(
            "DELETE FROM outbox \
             WHERE host = $1 AND kind = $2 AND object = $3 AND generation <= $4",
        )
        .bind(host.to_string())
        .bind(kind)
        .bind(id)
        .bind(stored(generation))
        .execute()
        .await
        .map_err(failed("emptying the outbox"))?;
        Ok(())
    }
}
