//! Taking stock: what a host has is compared with what a restored database believes, before the
//! host is told anything.
//!
//! ```text
//!  new era ─▶ every host unheard, nothing sent ─▶ host answers: its stock ─▶ heard: documents of
//!                                                 one transaction a host      the new era go out
//! ```
//! Invariants: what a host has is believed, about what it has: a drive is as large as it lies
//! there, a guest that runs goes on with the drives that it has, a run that is over stays over. What
//! a host has and the database does not know is kept in quarantine. What the database knows and the
//! host neither has nor was told to have is gone, if the array that it lay on can be looked at. Runs,
//! resets, restores, epochs and generations go on above all that a host has seen. Usage ends where
//! knowledge ended.

use std::collections::{BTreeMap, BTreeSet};

use elasticstack_core::biller::Meter;
use elasticstack_core::block::ArrayState;
use elasticstack_core::hypervisor::Access;
use elasticstack_core::prelude::*;
use elasticstack_core::state::{
    DriveEvent, DriveState, HostEvent, JobState, RunPhase, ServerEvent, ServerState, SnapshotState,
};
use elasticstack_core::wire::internal::{
    Document, DriveDocument, DriveStatus, HostReport, ObjectStatus, ServerDocument, ServerStatus,
    SnapshotDocument, SnapshotStatus, Stock,
};

use super::power::{doom, lent_to, metered};
use super::resources::connect;
use super::server_record::{OnStop, ServerConfig};
use super::{App, drives, quarantine, snapshots};
use crate::db::{
    ClaimRow, DriveRow, Holder, JobRow, OutboxRow, Reader, ServerRow, SnapshotRow, Stray, Why,
    Writer,
};
use crate::usage::{self, Edge};

/// What is told a customer whose drive may not hold what it was to be imaged from.
const MAYBE_IMAGED: &str = "the control plane was restored from a backup made while the drive was \
                            imaged, and its host knows nothing of that: check the drive, or image \
                            it again";

/// What is told a customer whose drive was to be restored.
const NOT_RESTORED: &str = "the control plane was restored from a backup made while the snapshot's \
                            drive was restored, and its host knows nothing of that: check the \
                            drive, or restore it again";

/// What is told a customer whose server is not where it ran.
const NOT_THERE: &str = "the control plane was restored from a backup, and the server's host knows \
                         nothing of its run: start it";

/// A host's stock, by what is looked up in it.
struct Found<'a> {
    host: HostId,
    online: BTreeSet<ArrayId>,
    drives: BTreeMap<DriveId, &'a DriveStatus>,
    servers: BTreeMap<ServerId, &'a ServerStatus>,
    drive_documents: BTreeMap<DriveId, &'a DriveDocument>,
    server_documents: BTreeMap<ServerId, &'a ServerDocument>,
    jobs: BTreeSet<JobId>,
    snapshots: BTreeMap<SnapshotId, &'a SnapshotStatus>,
    snapshot_documents: BTreeMap<SnapshotId, &'a SnapshotDocument>,
    /// The highest epoch that any document gives access to a drive under.
    epochs: BTreeMap<DriveId, Epoch>,
}

impl<'a> Found<'a> {
    fn in_stock(host: HostId, report: &HostReport, stock: &'a Stock) -> Self {
        let online = report.arrays.iter().filter(|array| array.state == ArrayState::Online);
        let mut found = Self {
            host,
            online: online.map(|array| array.array).collect(),
            drives: BTreeMap::new(),
            servers: BTreeMap::new(),
            drive_documents: BTreeMap::new(),
            server_documents: BTreeMap::new(),
            jobs: BTreeSet::new(),
            snapshots: BTreeMap::new(),
            snapshot_documents: BTreeMap::new(),
            epochs: BTreeMap::new(),
        };
        for object in &stock.objects {
            match object {
                ObjectStatus::Drive(status) => drop(found.drives.insert(status.drive, status)),
                ObjectStatus::Server(status) => drop(found.servers.insert(status.server, status)),
                ObjectStatus::Snapshot(status) => {
                    found.snapshots.insert(status.snapshot, status);
                }
                ObjectStatus::Job(_) => {}
            }
        }
        for document in &stock.documents {
            match document {
                Document::Drive(document) => {
                    for lent in &document.lends {
                        found.has_given(document.drive, lent.epoch);
                    }
                    found.drive_documents.insert(document.drive, document);
                }
                Document::Job(document) => {
                    found.jobs.insert(document.job);
                    found.has_given(document.source, document.source_epoch);
                    found.has_given(document.target, document.target_epoch);
                }
                Document::Snapshot(document) => {
                    found.has_given(document.drive, document.epoch);
                    found.snapshot_documents.insert(document.snapshot, document);
                }
                Document::Server(document) => {
                    for claim in &document.hardware.drives {
                        found.has_given(claim.drive, claim.epoch);
                    }
                    found.server_documents.insert(document.server, document);
                }
            }
        }
        found
    }

    fn has_given(&mut self, drive: DriveId, epoch: Epoch) {
        let highest = self.epochs.entry(drive).or_default();
        *highest = epoch.max(*highest);
    }
}

impl App {
    /// Whether a host has yet to tell what it has, since the database was restored.
    ///
    /// # Errors
    /// `Unavailable`; `Internal`.
    pub async fn is_unheard(&self, host: HostId) -> Result<bool> {
        self.db.glance().await?.is_unheard(host).await
    }

    /// Takes in all that a host has, which nobody was told since the database was restored. From
    /// then on it is sent its documents. Repeating it changes nothing.
    ///
    /// # Errors
    /// `Unavailable`; `Internal`.
    pub async fn take_stock(&self, host: HostId, report: &HostReport, stock: &Stock) -> Result<()> {
        let now = self.now();
        let found = &Found::in_stock(host, report, stock);
        self.db
            .write(|tx| {
                Box::pin(async move {
                    if !tx.is_unheard(host).await? {
                        return Ok(());
                    }
                    let then = tx.known_until().await?.unwrap_or(now).min(now);
                    for row in tx.jobs_on(host).await? {
                        count_job(tx, found, row).await?;
                    }
                    for row in tx.drives_on(host).await? {
                        count_drive(tx, found, row, (then, now)).await?;
                    }
                    for row in tx.snapshots_from(host).await? {
                        count_snapshot(tx, found, row, (then, now)).await?;
                    }
                    let mut servers = tx.servers_on(host).await?;
                    for id in found.servers.keys() {
                        let elsewhere = |row: &ServerRow| row.host != Some(host);
                        servers.extend(tx.server(*id).await?.filter(elsewhere));
                    }
                    // What ended lets go of the drives that what runs has taken since.
                    servers.sort_by_key(|row| found.newer_run(row).is_some());
                    for row in servers {
                        count_server(tx, found, row, (then, now)).await?;
                    }
                    keep_strays(tx, found, now).await?;
                    tx.heard(host).await?;
                    if let Some(mut row) = tx.host(host).await? {
                        row.state = row.state.step(HostEvent::Answered).after(row.state);
                        tx.save_host(&row).await?;
                    }
                    Ok(())
                })
            })
            .await
    }
}

/// Puts what the host has and the database does not know into quarantine.
async fn keep_strays(tx: &mut Writer<'_>, found: &Found<'_>, now: Timestamp) -> Result<()> {
    for (drive, status) in &found.drives {
        if tx.drive(*drive).await?.is_none() {
            let stray = Stray::Drive((*status).clone());
            quarantine::seen(tx, found.host, stray, Why::Unknown, now).await?;
        }
    }
    for (server, status) in &found.servers {
        if tx.server(*server).await?.is_none() {
            let stray = Stray::Server((*status).clone());
            quarantine::seen(tx, found.host, stray, Why::Unknown, now).await?;
        }
    }
    for (snapshot, status) in &found.snapshots {
        if tx.snapshot(*snapshot).await?.is_none() {
            let stray = Stray::Snapshot((*status).clone());
            quarantine::seen(tx, found.host, stray, Why::Unknown, now).await?;
        }
    }
    Ok(())
}

/// Refuses a wish about what a host has not told of since the database was restored.
///
/// # Errors
/// `Unavailable`.
pub(super) async fn heard(reader: &mut Reader, host: HostId) -> Result<()> {
    if reader.is_unheard(host).await? {
        return Err(Error::new(
            ErrorKind::Unavailable,
            "the control plane was restored from a backup and the host of this object has not \
             told yet what it has: repeat the call once it has",
        )
        .context(host.to_string()));
    }
    Ok(())
}

/// A job that its host does not know has ended or was never begun; told again, it would overwrite
/// what its target holds now.
async fn count_job(tx: &mut Writer<'_>, found: &Found<'_>, mut row: JobRow) -> Result<()> {
    if found.jobs.contains(&row.job) {
        row.generation += 1;
        tx.save_job(&row).await?;
        return tx.queue(found.host, OutboxRow::Job(row.job), row.generation).await;
    }
    tracing::warn!(job = %row.job, host = %found.host, "a host knows nothing of a job");
    if row.state == JobState::Running
        && let Some(mut target) = tx.drive(row.target).await?
    {
        target.failed = Some(MAYBE_IMAGED.to_owned());
        tx.save_drive(&target).await?;
    }
    tx.delete_claims_of(Holder::Job(row.job)).await?;
    tx.delete_job(row.job).await
}

async fn count_drive(
    tx: &mut Writer<'_>,
    found: &Found<'_>,
    mut row: DriveRow,
    (then, now): (Timestamp, Timestamp),
) -> Result<()> {
    let (drive, host) = (row.drive, found.host);
    let status = found.drives.get(&drive);
    let asked = found.drive_documents.get(&drive).filter(|document| !document.gone);
    let given = found.epochs.get(&drive).copied().unwrap_or_default();
    row.epoch = row.epoch.max(given).max(status.map_or(Epoch::default(), |status| status.epoch));
    row.generation += 1;
    let size = status.map(|status| status.size).or(asked.map(|document| document.size));
    let size = size.and_then(|size| Bytes::try_from(size).ok());
    match (size, row.state) {
        (_, DriveState::Destroying) | (None, DriveState::Creating) => {}
        (Some(size), _) => {
            row.seen_size = status.map_or(row.seen_size, |_| size);
            if size != row.size {
                tracing::warn!(%drive, %host, was = %row.size, is = %size, "a drive's size is another");
                row.size = size;
                let (metered, edge) = (drives::metered(&row), Edge::Ours(now));
                usage::change_quantity(tx, &metered, size.get(), edge, None).await?;
            }
        }
        (None, _) if found.online.contains(&row.array) => {
            tracing::warn!(%drive, %host, "a drive was destroyed after the backup and is gone");
            for event in [DriveEvent::Destroy, DriveEvent::ReportedGone] {
                row.state = row.state.step(event)?.after(row.state);
            }
            row.since = now;
            usage::end(tx, &drives::metered(&row), Edge::Ours(then)).await?;
            tx.delete_claims_on(drive).await?;
            return tx.save_drive(&row).await;
        }
        (None, _) => {
            // Nobody can tell how large it is: it is told nothing until somebody wants it changed.
            tracing::warn!(%drive, %host, "a drive lies on an array that can't be looked at");
            return tx.save_drive(&row).await;
        }
    }
    tx.queue(host, OutboxRow::Drive(drive), row.generation).await?;
    tx.save_drive(&row).await
}

/// Restores are counted by the host: one that it was told of goes on or is over, and one that it
/// was not told of is given up, as its drive may hold something newer by now.
async fn count_snapshot(
    tx: &mut Writer<'_>,
    found: &Found<'_>,
    mut row: SnapshotRow,
    (then, now): (Timestamp, Timestamp),
) -> Result<()> {
    let (snapshot, host) = (row.snapshot, found.host);
    row.generation += 1;
    match found.snapshots.get(&snapshot) {
        _ if row.state == SnapshotState::Destroying => {}
        Some(status) => {
            let told = found.snapshot_documents.get(&snapshot).filter(|document| !document.gone);
            let goes_on = told.filter(|document| document.restore > status.restored);
            tx.delete_claims_of(Holder::Snapshot(snapshot)).await?;
            if row.restore > status.restored && goes_on.is_none() {
                tracing::warn!(%snapshot, %host, "a host knows nothing of a restore");
                row.failed = Some(NOT_RESTORED.to_owned());
            }
            row.seen_restore = status.restored;
            row.restore = goes_on.map_or(status.restored, |document| document.restore);
            row.state = SnapshotState::Ready;
            if let Some(document) = goes_on {
                row.state = SnapshotState::Restoring;
                row.epoch = document.epoch;
                tx.delete_claims_on(row.drive).await?;
                let (holder, access) = (Holder::Snapshot(snapshot), Access::Exclusive);
                let claim =
                    ClaimRow { drive: row.drive, holder, epoch: row.epoch, access, lent: None };
                tx.insert_claim(&claim).await?;
            }
        }
        None if found.online.contains(&row.array) && row.state != SnapshotState::Creating => {
            tracing::warn!(%snapshot, %host, "a snapshot was destroyed after the backup and is gone");
            row.state = SnapshotState::Gone;
            row.since = now;
            usage::end(tx, &snapshots::metered(&row), Edge::Ours(then)).await?;
            tx.delete_claims_of(Holder::Snapshot(snapshot)).await?;
            return tx.save_snapshot(&row).await;
        }
        None if row.state == SnapshotState::Creating => {}
        // Of what can't be looked at its host is told nothing: it would take one of another instant.
        None => return tx.save_snapshot(&row).await,
    }
    snapshots::queue(tx, &row).await?;
    tx.save_snapshot(&row).await
}

impl<'a> Found<'a> {
    /// The document of a server's run that goes on here.
    fn goes_on(&self, server: ServerId) -> Option<&'a ServerDocument> {
        let status = self.servers.get(&server)?;
        let document = *self.server_documents.get(&server)?;
        let goes_on = status.phase != RunPhase::Ended && document.run == status.run;
        (goes_on && !document.gone).then_some(document)
    }

    /// A newer run of a server than the database knows, if it goes on here and all of it is known.
    fn newer_run(&self, row: &ServerRow) -> Option<&'a ServerDocument> {
        self.goes_on(row.server).filter(|document| document.run > row.run)
    }

    /// The run that the database knows, if it goes on here with drives that it was given later.
    fn replugged(&self, row: &ServerRow) -> Option<&'a ServerDocument> {
        let known = row.hardware.as_ref()?;
        let later = |document: &&ServerDocument| {
            document.run == row.run
                && document.generation.number >= row.generation
                && document.hardware.drives != known.drives
        };
        self.goes_on(row.server).filter(later)
    }
}

async fn count_server(
    tx: &mut Writer<'_>,
    found: &Found<'_>,
    mut row: ServerRow,
    (then, now): (Timestamp, Timestamp),
) -> Result<()> {
    let (server, host) = (row.server, found.host);
    let holds = ServerState::HOLDS_RESOURCES.contains(&row.state);
    let status = found.servers.get(&server).copied();
    let replugged = found.replugged(&row);
    row.generation += 1;
    if let Some(status) = status {
        row.reset = row.reset.max(status.reset);
        row.seen_reset = row.seen_reset.max(status.reset);
        row.shutdown = row.shutdown.max(status.shutdown);
    }
    if let Some(document) = found.newer_run(&row).filter(|_| row.state != ServerState::Gone) {
        adopt(tx, found, &mut row, document, (then, now)).await?;
    } else if row.host != Some(host) {
        // It is another host's, or nobody's: whatever is left of it here is to end.
        tracing::warn!(%server, %host, "a server is another host's and is ended here");
        tx.queue(host, OutboxRow::Server(server), row.generation).await?;
        return tx.save_server(&row).await;
    } else if let Some(status) = status {
        if status.run > row.run {
            end_usage(tx, &row, then).await?;
            row.run = status.run;
            row.started = None;
        } else if let (Some(document), Some(hardware)) = (replugged, row.hardware.as_mut()) {
            tracing::warn!(%server, %host, "a run's drives came or went after the backup");
            // Its claims on what went stay until its host says that the guest has let go.
            hardware.drives.clone_from(&document.hardware.drives);
            claim(tx, document).await?;
        }
    } else if holds && row.state != ServerState::Destroying {
        tracing::warn!(%server, %host, "a host knows nothing of a run");
        end_usage(tx, &row, then).await?;
        tx.delete_claims_of(Holder::Server(server)).await?;
        row.ended_run = row.run;
        row.started = None;
        row.screen = None;
        row.powered = false;
        row.failed = Some(NOT_THERE.to_owned());
        row.state = ServerState::Stopped;
        row.since = now;
        if ServerConfig::parse(&row.config)?.ending == OnStop::Vanish {
            doom(tx, &mut row, now).await?;
        }
        return tx.save_server(&row).await;
    } else if holds {
        end_usage(tx, &row, then).await?;
    } else {
        return tx.save_server(&row).await;
    }
    tx.queue(host, OutboxRow::Server(server), row.generation).await?;
    tx.save_server(&row).await
}

/// The server runs here, in a run that was begun after the backup: it goes on, with what it has.
async fn adopt(
    tx: &mut Writer<'_>,
    found: &Found<'_>,
    row: &mut ServerRow,
    document: &ServerDocument,
    (then, now): (Timestamp, Timestamp),
) -> Result<()> {
    let (server, host) = (row.server, found.host);
    tracing::warn!(%server, %host, run = %document.run, "a run begun after the backup goes on");
    end_usage(tx, row, then).await?;
    tx.delete_claims_of(Holder::Server(server)).await?;
    if let Some(left) = row.host.filter(|left| *left != host) {
        tx.queue(left, OutboxRow::Server(server), row.generation).await?;
    }
    claim(tx, document).await?;
    for wire in &ServerConfig::parse(&row.config)?.wires {
        if let Err(error) = connect(tx, row, wire).await {
            tracing::warn!(%server, error = %Chain(&error), "a run uses what is not its own");
        }
    }
    row.host = Some(host);
    row.run = document.run;
    row.powered = document.powered;
    row.hardware = Some(document.hardware.clone());
    row.cpu = MegaHertz(document.hardware.cpu_mhz);
    row.memory = MebiBytes(document.hardware.memory_mib);
    row.change = None;
    row.started = None;
    row.failed = None;
    row.failed_run = Run(0);
    if row.state != ServerState::Destroying {
        row.state = ServerState::Stopped.step(ServerEvent::Start)?.after(row.state);
        row.since = now;
    }
    Ok(())
}

/// Claims the drives of a run that goes on, under the epochs that its host was given.
async fn claim(tx: &mut Writer<'_>, document: &ServerDocument) -> Result<()> {
    let holder = Holder::Server(document.server);
    for claimed in &document.hardware.drives {
        let access = claimed.access;
        match access {
            // Its host let nobody else have it: whoever had it before has ended.
            Access::Exclusive => tx.delete_claims_on(claimed.drive).await?,
            Access::Shared => tx.delete_claim(claimed.drive, holder).await?,
        }
        let Some(mut drive) = tx.drive(claimed.drive).await? else { continue };
        drive.epoch = drive.epoch.max(claimed.epoch);
        tx.save_drive(&drive).await?;
        let (drive, epoch) = (drive.drive, claimed.epoch);
        let lent = lent_to(document.server, claimed);
        tx.insert_claim(&ClaimRow { drive, holder, epoch, access, lent }).await?;
    }
    Ok(())
}

/// Ends what is metered of a run whose end nobody saw, where knowledge of it ended.
async fn end_usage(tx: &mut Writer<'_>, row: &ServerRow, then: Timestamp) -> Result<()> {
    for meter in [Meter::Cpu, Meter::Memory] {
        usage::end(tx, &metered(row, meter), Edge::Ours(then)).await?;
    }
    Ok(())
}
