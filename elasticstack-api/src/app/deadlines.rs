//! Deadlines: the way out of every state that something else has to end, by the core's table.

use std::collections::BTreeSet;

use elasticstack_core::prelude::*;
use elasticstack_core::state::{
    DEADLINES, Deadline, DriveState, HostEvent, HostState, JobState, ServerState, SnapshotState,
    WayOut,
};

use super::fleet::Heard;
use super::power::{power_off, queue};
use super::{App, snapshots};
use crate::db::OutboxRow;

impl App {
    /// Applies every deadline that has passed, and forgets what is remembered long enough. Called about once a second.
    ///
    /// # Errors
    /// `Internal`; what was applied before it stands.
    pub async fn deadlines(&self) -> Result<()> {
        for deadline in DEADLINES {
            match deadline.object {
                "server" => self.server_deadline(deadline).await?,
                "drive" => self.drive_deadline(deadline).await?,
                "snapshot" => self.snapshot_deadline(deadline).await?,
                "job" => self.job_deadline(deadline).await?,
                "host" => self.host_deadline(deadline).await?,
                object => {
                    return Err(Error::internal(format!("a deadline for a {object} has no code")));
                }
            }
        }
        self.view.forget_unused(self.now());
        self.forget_keys().await?;
        self.forget_tickets().await?;
        self.forget_events().await
    }

    /// The instant since when an object must have been in its state to be overdue now.
    fn before(&self, deadline: &Deadline) -> Timestamp {
        let after = i64::try_from(deadline.after.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(self.now().as_micros().saturating_sub(after))
    }

    async fn server_deadline(&self, deadline: &Deadline) -> Result<()> {
        let state = state_of(deadline, ServerState::from_word)?;
        let (before, now) = (self.before(deadline), self.now());
        if self.db.glance().await?.servers_overdue(state, before).await?.is_empty() {
            return Ok(());
        }
        self.db
            .write(|tx| Box::pin(async move {
                for mut row in tx.servers_overdue(state, before).await? {
                    tracing::warn!(server = %row.server, %state, way_out = ?deadline.way_out,
                        "a server is past its deadline");
                    row.since = now;
                    match deadline.way_out {
                        WayOut::Stop => {
                            row.failed_run = row.run;
                            row.failed = Some(format!(
                                "the server did not run within {} s of its start and is stopped: \
                                 start it again",
                                deadline.after.as_secs()
                            ));
                            power_off(tx, &mut row, now).await?;
                        }
                        WayOut::PushAgain | WayOut::FallSilent => queue(tx, &row).await?,
                    }
                    tx.save_server(&row).await?;
                }
                Ok(())
            }))
            .await
    }

    async fn drive_deadline(&self, deadline: &Deadline) -> Result<()> {
        let state = state_of(deadline, DriveState::from_word)?;
        let (before, now) = (self.before(deadline), self.now());
        if self.db.glance().await?.drives_overdue(state, before).await?.is_empty() {
            return Ok(());
        }
        self.db
            .write(|tx| {
                Box::pin(async move {
                    for mut row in tx.drives_overdue(state, before).await? {
                        tracing::warn!(drive = %row.drive, %state, "a drive is past its deadline");
                        row.since = now;
                        tx.queue(row.host, OutboxRow::Drive(row.drive), row.generation).await?;
                        tx.save_drive(&row).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    async fn snapshot_deadline(&self, deadline: &Deadline) -> Result<()> {
        let state = state_of(deadline, SnapshotState::from_word)?;
        let (before, now) = (self.before(deadline), self.now());
        if self.db.glance().await?.snapshots_overdue(state, before).await?.is_empty() {
            return Ok(());
        }
        self.db
            .write(|tx| {
                Box::pin(async move {
                    for mut row in tx.snapshots_overdue(state, before).await? {
                        let snapshot = row.snapshot;
                        tracing::warn!(%snapshot, %state, "a snapshot is past its deadline");
                        row.since = now;
                        snapshots::queue(tx, &row).await?;
                        tx.save_snapshot(&row).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    async fn job_deadline(&self, deadline: &Deadline) -> Result<()> {
        let state = state_of(deadline, JobState::from_word)?;
        let (before, now) = (self.before(deadline), self.now());
        if self.db.glance().await?.jobs_overdue(state, before).await?.is_empty() {
            return Ok(());
        }
        self.db
            .write(|tx| {
                Box::pin(async move {
                    for mut row in tx.jobs_overdue(state, before).await? {
                        tracing::warn!(job = %row.job, %state, "a job is past its deadline");
                        row.since = now;
                        tx.queue(row.host, OutboxRow::Job(row.job), row.generation).await?;
                        tx.save_job(&row).await?;
                    }
                    Ok(())
                })
            })
            .await
    }

    async fn host_deadline(&self, deadline: &Deadline) -> Result<()> {
        let state = state_of(deadline, HostState::from_word)?;
        let overdue = &self.hosts_unheard_since(self.before(deadline)).await?;
        if overdue.is_empty() {
            return Ok(());
        }
        let (owner, now) = (self.db.owner(), self.now());
        self.db
            .write(|tx| {
                Box::pin(async move {
                    // Who follows a host is who hears of it, and who takes it over begins to.
                    let of_others = tx.hosts_of_others(owner).await?;
                    for host in overdue.difference(&of_others) {
                        let Some(mut row) = tx.host(*host).await? else { continue };
                        if row.state == state {
                            tracing::warn!(%host, "a host has fallen silent");
                            row.enter(HostEvent::FellSilent, now);
                            tx.save_host(&row).await?;
                        }
                    }
                    Ok(())
                })
            })
            .await?;
        // Until they are heard of again, or their leases come to us.
        let mut heard = self.heard();
        for host in overdue {
            if let Some(heard) = heard.get_mut(host).filter(|heard| heard.at <= now) {
                heard.is_given_up = true;
            }
        }
        Ok(())
    }

    /// The hosts that we have not heard of since `before` and not given up.
    async fn hosts_unheard_since(&self, before: Timestamp) -> Result<BTreeSet<HostId>> {
        let known = u64::try_from(self.heard().len()).unwrap_or(u64::MAX);
        let mut reader = self.db.read().await?;
        if reader.host_count().await? > known {
            let hosts = reader.hosts().await?;
            let mut heard = self.heard();
            for row in hosts {
                heard.entry(row.host).or_insert(Heard::at(self.opened));
            }
        }
        let unheard = |(host, heard): (&HostId, &Heard)| {
            (heard.at <= before && !heard.is_given_up).then_some(*host)
        };
        Ok(self.heard().iter().filter_map(unheard).collect())
    }
}

fn state_of<S>(deadline: &Deadline, from_word: impl FnOnce(&str) -> Option<S>) -> Result<S> {
    from_word(deadline.state).ok_or_else(|| {
        let Deadline { object, state, .. } = deadline;
        Error::internal(format!("a deadline names {state}, which no {object} is ever in"))
    })
}
