//! Eras: a database that was brought back from a backup begins a new one, and what of it is to be
//! compared with the hosts before they are told anything.

use elasticstack_core::prelude::*;
use elasticstack_core::state::{DriveState, HostState, ServerState, SnapshotState};

use super::row::{column, failed};
use super::{
    DriveRow, JobRow, Reader, ServerRow, SnapshotRow, Writer, drives, jobs, servers, snapshots,
};

impl Reader {
    /// Whether a host has yet to tell what it has, since this era began.
    pub(crate) async fn is_unheard(&mut self, host: HostId) -> Result<bool> {
        let row = self
            .statement("SELECT unheard FROM hosts WHERE host = $1")
            .bind(host.to_string())
            .fetch_optional()
            .await
            .map_err(failed("reading whether a host was heard of"))?;
        let unheard: Option<i64> = row.as_ref().map(|row| column(row, "unheard")).transpose()?;
        Ok(unheard.is_some_and(|unheard| unheard != 0))
    }

    /// The last instant that was known of before the era began.
    pub(crate) async fn known_until(&mut self) -> Result<Option<Timestamp>> {
        let row = self
            .statement("SELECT known_until_us FROM control WHERE one = 1")
            .fetch_one()
            .await
            .map_err(failed("reading what was known last"))?;
        let until: Option<i64> = column(&row, "known_until_us")?;
        Ok(until.map(Timestamp::from_micros))
    }

    /// Whose leases are good at `now`: the name of a process, if one works here.
    pub(crate) async fn owner_of_any_host(&mut self, now: Timestamp) -> Result<Option<String>> {
        let row = self
            .statement("SELECT owner FROM lease_owners WHERE until_us > $1 LIMIT 1")
            .bind(now.as_micros())
            .fetch_optional()
            .await
            .map_err(failed("looking for a process that works here"))?;
        row.as_ref().map(|row| column(row, "owner")).transpose()
    }

    /// Every drive that is thought to lie on a host.
    pub(crate) async fn drives_on(&mut self, host: HostId) -> Result<Vec<DriveRow>> {
        let rows = self
            .statement("SELECT * FROM drives WHERE host = $1 AND state <> $2 ORDER BY drive")
            .bind(host.to_string())
            .bind(DriveState::Gone.as_str())
            .fetch_all()
            .await
            .map_err(failed("reading the drives of a host"))?;
        rows.iter().map(drives::drive).collect()
    }

    /// Every job that is thought to be a host's.
    pub(crate) async fn jobs_on(&mut self, host: HostId) -> Result<Vec<JobRow>> {
        let rows = self
            .statement("SELECT * FROM jobs WHERE host = $1 ORDER BY job")
            .bind(host.to_string())
            .fetch_all()
            .await
            .map_err(failed("reading the jobs of a host"))?;
        rows.iter().map(jobs::job).collect()
    }

    /// Every snapshot that is thought to be or to be made on a host.
    pub(crate) async fn snapshots_from(&mut self, host: HostId) -> Result<Vec<SnapshotRow>> {
        let rows = self
            .statement("SELECT * FROM snapshots WHERE host = $1 AND state <> $2 ORDER BY snapshot")
            .bind(host.to_string())
            .bind(SnapshotState::Gone.as_str())
            .fetch_all()
            .await
            .map_err(failed("reading the snapshots of a host"))?;
        rows.iter().map(snapshots::snapshot).collect()
    }

    /// Every server whose newest run is thought to be or have been on a host.
    pub(crate) async fn servers_on(&mut self, host: HostId) -> Result<Vec<ServerRow>> {
        let rows = self
            .statement("SELECT * FROM servers WHERE host = $1 AND state <> $2 ORDER BY server")
            .bind(host.to_string())
            .bind(ServerState::Gone.as_str())
            .fetch_all()
            .await
            .map_err(failed("reading the servers of a host"))?;
        rows.iter().map(servers::server).collect()
    }
}

impl Writer<'_> {
    /// Makes this a new life of the database: nothing it says is older than what a host may have,
    /// nothing is sent before its host was heard, and no number that was given out comes again.
    pub(crate) async fn begin_era(&mut self, era: Era, now: Timestamp) -> Result<()> {
        // A lease is renewed all the while that anything is written, and what is metered is known
        // to the end of what was.
        let known_until = "UPDATE control SET known_until_us = (SELECT MAX(at) FROM \
             (SELECT MAX(until_us) - $1 AS at FROM lease_owners \
             UNION ALL SELECT MAX(from_us) FROM usage_intervals \
             UNION ALL SELECT MAX(to_us) FROM usage_intervals) AS instants)";
        let lease = i64::try_from(crate::app::LEASE.as_micros()).unwrap_or(i64::MAX);
        let done = self.change(known_until).bind(lease).execute().await;
        done.map_err(failed("noting what is known last"))?;
        // A mark grows by one a transaction, or with the transactions of the whole database.
        let done = self
            .change("UPDATE control SET era = $1, mark = $2")
            .bind(i64::from(era.0))
            .bind(now.as_micros())
            .execute()
            .await;
        done.map_err(failed("beginning an era"))?;
        let done = self
            .change(
                "UPDATE hosts SET unheard = 1, state = $1, cursor_life = NULL, \
                 cursor_sequence = NULL",
            )
            .bind(HostState::Joining.as_str())
            .execute()
            .await;
        done.map_err(failed("forgetting what hosts said"))?;
        for nothing_was_made_true in [
            "DELETE FROM host_leases",
            "DELETE FROM lease_owners",
            "DELETE FROM outbox",
            "UPDATE drives SET seen_generation = 0, fault_generation = 0",
            "UPDATE servers SET seen_generation = 0",
        ] {
            let done = self.change(nothing_was_made_true).execute().await;
            done.map_err(failed("forgetting what hosts confirmed"))?;
        }
        Ok(())
    }

    /// Notes that a host has told what it has.
    pub(crate) async fn heard(&mut self, host: HostId) -> Result<()> {
        self.change("UPDATE hosts SET unheard = 0 WHERE host = $1")
            .bind(host.to_string())
            .execute()
            .await
            .map_err(failed("noting that a host was heard of"))?;
        Ok(())
    }
}
