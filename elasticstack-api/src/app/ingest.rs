//! Reports in: what hosts say of drives and servers, taken into the rows (jobs are in `imaging`,
//! snapshots in `snapshots`).
//!
//! Invariants: a report changes what was observed and, by the state machines, the state; it never
//! grants a wish. A report about an older generation or run is ignored and counted; one about what
//! no intent knows puts it into quarantine. A run's end is
//! taken in once: its claims, its room and its usage end in that transaction. A report that says
//! nothing new writes nothing.

use elasticstack_core::biller::Meter;
use elasticstack_core::prelude::*;
use elasticstack_core::state::{
    DriveEvent, DriveState, HostEvent, RunPhase, ServerEvent, ServerState, Step,
};
use elasticstack_core::wire::internal::{
    DriveStatus, Fault, ObjectStatus, Plugged, Reports, ServerStatus, Stamp,
};

use super::fleet::followed;
use super::intake::{News, Word};
use super::power::{doom, metered};
use super::server_record::{OnStop, ServerConfig};
use super::{App, drives, imaging, plugs, quarantine};
use crate::db::{DriveRow, Holder, OutboxRow, ServerRow, Stray, Writer};
use crate::usage::{self, Edge};

impl App {
    /// Takes in what `host` says, in one transaction.
    ///
    /// # Errors
    /// `NotFound` for a host that is not known; `Internal`.
    pub async fn ingest(&self, host: HostId, reports: &Reports) -> Result<()> {
        self.hear(host);
        self.take_in(host, Word::News(News::Objects(reports.clone()))).await
    }

    /// Answers how many of the reports were ignored.
    pub(super) async fn objects_are(
        &self,
        tx: &mut Writer<'_>,
        host: HostId,
        reports: &Reports,
        now: Timestamp,
    ) -> Result<u64> {
        let before = followed(tx, host).await?;
        let mut stale = 0;
        for status in &reports.objects {
            let heeded = match status {
                ObjectStatus::Drive(status) => self.drive_reported(tx, host, status, now).await?,
                ObjectStatus::Job(status) => imaging::reported(tx, host, status, now).await?,
                ObjectStatus::Server(status) => self.server_reported(tx, host, status, now).await?,
                ObjectStatus::Snapshot(status) => {
                    self.snapshot_reported(tx, host, status, now).await?
                }
            };
            stale += u64::from(!heeded);
        }
        let mut row = before.clone();
        row.enter(HostEvent::Answered, now);
        if row != before {
            tx.save_host(&row).await?;
        }
        Ok(stale)
    }

    /// The number of a generation of this era; one of an older era is older than all of ours.
    pub(super) fn number(&self, generation: Generation) -> u64 {
        if generation.era == self.db.era() { generation.number } else { 0 }
    }

    async fn drive_reported(
        &self,
        tx: &mut Writer<'_>,
        host: HostId,
        status: &DriveStatus,
        now: Timestamp,
    ) -> Result<bool> {
        let known = tx.drive(status.drive).await?;
        let stray = || Stray::Drive(status.clone());
        let Some(before) = quarantine::heeded(tx, host, known, stray, now).await? else {
            return Ok(false);
        };
        let mut row = before.clone();
        row.epoch = row.epoch.max(status.epoch);
        let current = self.number(status.generation) >= row.generation;
        if current {
            if let Some(fault) = &status.fault {
                drive_faulted(tx, &mut row, fault, now).await?;
            } else if status.gone {
                let step = row.state.step(DriveEvent::ReportedGone)?;
                enter(&mut row, step, now);
                if row.state != DriveState::Gone {
                    tracing::error!(drive = %row.drive, %host, "a drive that should exist is gone");
                }
            } else {
                let step = row.state.step(DriveEvent::Reported)?;
                enter(&mut row, step, now);
                row.seen_generation = self.number(status.generation);
                row.seen_size = Bytes::try_from(status.size).unwrap_or(row.size);
            }
        }
        if row != before {
            tx.save_drive(&row).await?;
        }
        Ok(current)
    }

    async fn server_reported(
        &self,
        tx: &mut Writer<'_>,
        host: HostId,
        status: &ServerStatus,
        now: Timestamp,
    ) -> Result<bool> {
        let known = tx.server(status.server).await?;
        let stray = || Stray::Server(status.clone());
        let Some(before) = quarantine::heeded(tx, host, known, stray, now).await? else {
            return Ok(false);
        };
        let mut row = before.clone();
        let number = self.number(status.generation);
        let current = number >= row.generation;
        let is_plugged = !matches!(status.plugged, Some(Plugged::NotYet(_)));
        if is_plugged {
            row.seen_generation = row.seen_generation.max(number);
        }
        if current && status.run == row.run && before.seen_generation < number {
            plugs::reported(tx, &mut row, status.plugged.as_ref()).await?;
        }
        // A stop may overtake its start: the host has both, and never began that run.
        let never_began =
            current && !row.powered && status.run < row.run && status.phase == RunPhase::Ended;
        if status.run == row.run || never_began {
            row.seen_reset = row.seen_reset.max(status.reset);
            match status.phase {
                RunPhase::Ended => run_ended(tx, &mut row, status, now).await?,
                RunPhase::Starting => {}
                RunPhase::Running | RunPhase::Paused | RunPhase::Unresponsive => {
                    run_began(tx, &mut row, status, now).await?;
                }
            }
            if let Step::To(state) = row.state.step(ServerEvent::Reported(status.phase))? {
                row.state = state;
                row.since = now;
                if state == ServerState::Stopped
                    && ServerConfig::parse(&row.config)?.ending == OnStop::Vanish
                {
                    doom(tx, &mut row, now).await?;
                }
            }
        }
        if status.gone && current && row.state == ServerState::Destroying {
            run_ended(tx, &mut row, status, now).await?;
            row.state = row.state.step(ServerEvent::ReportedGone)?.after(row.state);
            row.since = now;
        }
        if row != before {
            tx.save_server(&row).await?;
        }
        Ok(current || status.run == before.run)
    }
}

fn enter(row: &mut DriveRow, step: Step<DriveState>, now: Timestamp) {
    if let Step::To(state) = step {
        row.state = state;
        row.since = now;
    }
}

/// Its host can't make the drive what it should be. A new drive is given up; a new size too, and
/// the old one stands; for anything else the host goes on trying.
async fn drive_faulted(
    tx: &mut Writer<'_>,
    row: &mut DriveRow,
    fault: &Fault,
    now: Timestamp,
) -> Result<()> {
    if row.fault_generation == row.generation {
        return Ok(());
    }
    tracing::warn!(drive = %row.drive, state = %row.state, code = fault.code, message = fault.message,
        "a host cannot make a drive what it should be");
    row.fault_generation = row.generation;
    row.fault_code.clone_from(&fault.code);
    row.failed = Some(fault.message.clone());
    match row.state {
        DriveState::Creating => drives::tombstone(tx, row, now).await,
        DriveState::Ready if row.size != row.seen_size => {
            row.size = row.seen_size;
            row.generation += 1;
            tx.queue(row.host, OutboxRow::Drive(row.drive), row.generation).await?;
            let (metered, size) = (drives::metered(row), row.size.get());
            usage::change_quantity(tx, &metered, size, Edge::Ours(now), None).await
        }
        DriveState::Ready | DriveState::Destroying | DriveState::Gone => Ok(()),
    }
}

/// The server's newest run runs: from its host's stamp on it is metered.
async fn run_began(
    tx: &mut Writer<'_>,
    row: &mut ServerRow,
    status: &ServerStatus,
    now: Timestamp,
) -> Result<()> {
    if row.ended_run >= row.run {
        return Ok(());
    }
    row.screen = status.screen;
    let Some(stamp) = &status.started else { return Ok(()) };
    if row.started.is_none() {
        row.started = Some(stamp.wall.min(now));
        meter_from(tx, row, stamp, now).await?;
    }
    Ok(())
}

/// The server's newest run is over: its claims are released, its usage ends at its host's stamp.
async fn run_ended(
    tx: &mut Writer<'_>,
    row: &mut ServerRow,
    status: &ServerStatus,
    now: Timestamp,
) -> Result<()> {
    if row.ended_run >= row.run {
        return Ok(());
    }
    let about_it = status.run == row.run;
    let ended = status.ended.as_ref().filter(|_| about_it);
    if let Some(stamp) = status.started.as_ref().filter(|_| about_it && row.started.is_none()) {
        meter_from(tx, row, stamp, now).await?;
    }
    let edge = match ended {
        Some(ended) => Edge::Stamped { stamp: ended.at.wall, receipt: now },
        None => Edge::Ours(now),
    };
    for meter in [Meter::Cpu, Meter::Memory] {
        usage::end(tx, &metered(row, meter), edge).await?;
    }
    tx.delete_claims_of(Holder::Server(row.server)).await?;
    if let Some(fault) = ended.and_then(|ended| ended.fault.as_ref()) {
        row.failed_run = row.run;
        row.failed = Some(fault.message.clone());
    }
    row.ended_run = row.run;
    row.started = None;
    row.screen = None;
    Ok(())
}

async fn meter_from(
    tx: &mut Writer<'_>,
    row: &ServerRow,
    stamp: &Stamp,
    now: Timestamp,
) -> Result<()> {
    let edge = Edge::Stamped { stamp: stamp.wall, receipt: now };
    let quantities = [(Meter::Cpu, row.cpu.0), (Meter::Memory, row.memory.0)];
    for (meter, quantity) in quantities {
        usage::begin(tx, &metered(row, meter), quantity.into(), edge, row.change).await?;
    }
    Ok(())
}
