//! Deadlines: the way out of every state that something else has to end, by the core's table.

use std::sync::PoisonError;

use elasticstack_core::prelude::*;
use elasticstack_core::state::{
    DEADLINES, Deadline, DriveState, HostEvent, HostState, JobState, ServerState, WayOut,
};

use super::App;
use super::power::{power_off, queue};
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
                "job" => self.job_deadline(deadline).await?,
                "host" => self.host_deadline(deadline).await?,
                object => {
                    return Err(Error::internal(format!("a deadline for a {object} has no code")));
                }
            }
        }
        self.forget_keys().await
    }

    /// The instant since when an object must have been in its state to be overdue now.
    fn before(&self, deadline: &Deadline) -> Timestamp {
        let after = i64::try_from(deadline.after.as_micros()).unwrap_or(i64::MAX);
        Timestamp::from_micros(self.now().as_micros().saturating_sub(after))
    }

    async fn server_deadline(&self, deadline: &Deadline) -> Result<()> {
        let state = state_of(deadline, ServerState::from_word)?;
        let (before, now) = (self.before(deadline), self.now());
        if self.db.read().await?.servers_overdue(state, before).await?.is_empty() {
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
        if self.db.read().await?.drives_overdue(state, before).await?.is_empty() {
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

    async fn job_deadline(&self, deadline: &Deadline) -> Result<()> {
        let state = state_of(deadline, JobState::from_word)?;
        let (before, now) = (self.before(deadline), self.now());
        if self.db.read().await?.jobs_overdue(state, before).await?.is_empty() {
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
        let before = self.before(deadline);
        let heard = self.heard.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let is_overdue = |host: HostId| *heard.get(&host).unwrap_or(&self.opened) <= before;
        let hosts = self.db.read().await?.hosts().await?;
        if !hosts.iter().any(|row| row.state == state && is_overdue(row.host)) {
            return Ok(());
        }
        let (owner, now) = (self.db.owner(), self.now());
        self.db
            .write(|tx| {
                Box::pin(async move {
                    // Who follows a host is who hears of it.
                    let of_others = tx.hosts_of_others(owner, now).await?;
                    for mut row in tx.hosts().await? {
                        let ours = !of_others.contains(&row.host);
                        if ours && row.state == state && is_overdue(row.host) {
                            tracing::warn!(host = %row.host, "a host has fallen silent");
                            row.state = row.state.step(HostEvent::FellSilent).after(row.state);
                            tx.save_host(&row).await?;
                        }
                    }
                    Ok(())
                })
            })
            .await
    }
}

fn state_of<S>(deadline: &Deadline, from_word: impl FnOnce(&str) -> Option<S>) -> Result<S> {
    from_word(deadline.state).ok_or_else(|| {
        let Deadline { object, state, .. } = deadline;
        Error::internal(format!("a deadline names {state}, which no {object} is ever in"))
    })
}
