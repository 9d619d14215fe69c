//! Hosts: joining them, what they have, the documents that go out to them.
//!
//! Invariant: a document is rendered from the rows when it is asked for, so that what is sent is
//! always the newest; a host is silent only by its deadline and active again by answering.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{MutexGuard, PoisonError};

use elasticstack_core::block::ArrayState;
use elasticstack_core::hypervisor::ServerKind;
use elasticstack_core::prelude::*;
use elasticstack_core::state::{HostEvent, HostState, JobState, ServerState, SnapshotState, Step};
use elasticstack_core::units::TooManyBytes;
use elasticstack_core::wire::internal::{
    ArrayStatus, Cursor, Document, DriveDocument, Hardware, HostReport, JobDocument, Lender,
    PROTOCOL, ServerDocument, SnapshotDocument,
};

use super::intake::{News, Note, Word};
use super::{App, HostRecord};
use crate::db::{
    ArrayHealth, ArrayRow, ClaimRow, DriveRow, Holder, HostRow, JobRow, Known, OutboxRow,
    Placements, Reader, ServerRow, SnapshotRow, Writer,
};

/// What this process has of a host in memory.
#[derive(Debug)]
pub(super) struct Heard {
    /// When it was heard of last.
    pub(super) at: Timestamp,
    /// What it said of itself, once that is taken in and for as long as nothing has happened to
    /// its row since that it would have to undo by saying it again.
    pub(super) report: Option<HostReport>,
    /// Whether its silence has had its consequences.
    pub(super) is_given_up: bool,
}

impl Heard {
    pub(super) const fn at(at: Timestamp) -> Self {
        Self { at, report: None, is_given_up: false }
    }
}

impl App {
    /// Makes a host known, or notes its new name or address.
    ///
    /// # Errors
    /// `InvalidValue` if another host has the name.
    pub async fn host_create(&self, host: HostId, name: &Name, address: &str) -> Result<()> {
        let now = self.now();
        self.db.write(|tx| Box::pin(make_known(tx, host, name, address, now))).await
    }

    /// Every host that may be spoken with.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn hosts(&self) -> Result<Vec<HostRecord>> {
        let rows = self.db.glance().await?.hosts().await?;
        let record = |HostRow { host, name, address, known, .. }| {
            let certificate = match known {
                Known::ByName => None,
                Known::By(hash) => Some(hash),
                Known::Revoked => return None,
            };
            Some(HostRecord { host, name, address, certificate })
        };
        Ok(rows.into_iter().filter_map(record).collect())
    }

    /// Takes in what a host is and has: it is active, and its arrays have so much room. An array
    /// that has failed, or that it no longer tells of, takes nothing new; its drives stay known.
    /// After a restore it is active only once its stock is taken ([`App::take_stock`]).
    ///
    /// # Errors
    /// `NotFound` for a host that is not known; `Unavailable` for one that speaks a protocol which
    /// this program does not.
    pub async fn host_answered(&self, host: HostId, report: &HostReport) -> Result<()> {
        if !(PROTOCOL - 1..=PROTOCOL).contains(&report.protocol) {
            return Err(Error::new(
                ErrorKind::Unavailable,
                format!(
                    "the host speaks protocol {}, this program {PROTOCOL} and the one before it: \
                     bring both to one release",
                    report.protocol
                ),
            ));
        }
        self.hear(host);
        self.take_in(host, Word::News(News::Host(report.clone()))).await?;
        self.heard().entry(host).or_insert(Heard::at(self.now())).report = Some(report.clone());
        Ok(())
    }

    /// As [`App::host_answered`], for a host that we have the lease of: what it said before and is
    /// taken in already is only noted as a sign of life.
    ///
    /// # Errors
    /// As [`App::host_answered`].
    pub async fn host_still_answers(&self, host: HostId, report: &HostReport) -> Result<()> {
        let is_known =
            self.heard().get(&host).and_then(|heard| heard.report.as_ref()) == Some(report);
        if !is_known {
            return self.host_answered(host, report).await;
        }
        self.hear(host);
        Ok(())
    }

    /// Notes that a host answered just now.
    pub(super) fn hear(&self, host: HostId) {
        let now = self.now();
        let mut all = self.heard();
        let heard = all.entry(host).or_insert(Heard::at(now));
        (heard.at, heard.is_given_up) = (now, false);
    }

    pub(super) fn heard(&self) -> MutexGuard<'_, BTreeMap<HostId, Heard>> {
        // No code that could panic runs under this lock.
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The hosts for which this process has written down that they must be told something, as
    /// soon as there is one. Asked for by one task.
    pub async fn hosts_queued_for(&self) -> BTreeSet<HostId> {
        self.db.queued_for().await
    }

    /// How many hosts may be spoken with.
    ///
    /// # Errors
    /// `Unavailable`; `Internal`.
    pub async fn host_count(&self) -> Result<u64> {
        self.db.glance().await?.host_count_but_revoked().await
    }

    /// The hosts that have documents to be sent.
    ///
    /// # Errors
    /// `Unavailable`; `Internal`.
    pub async fn hosts_to_tell(&self) -> Result<Vec<HostId>> {
        self.db.glance().await?.hosts_to_tell().await
    }

    /// The documents that the host has not confirmed, oldest wish first, at most `limit`, each as
    /// it stands now.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn outbox(&self, host: HostId, limit: u32) -> Result<Vec<Document>> {
        // Each as it stands when it is read: whatever changes one of them queues it again.
        let mut reader = self.db.glance().await?;
        let mut documents = Vec::new();
        for waiting in reader.outbox_of(host, limit).await? {
            documents.extend(self.document(&mut reader, host, waiting).await?);
        }
        Ok(documents)
    }

    async fn document(
        &self,
        reader: &mut Reader,
        host: HostId,
        waiting: OutboxRow,
    ) -> Result<Option<Document>> {
        Ok(match waiting {
            OutboxRow::Drive(id) => match reader.drive(id).await? {
                None => None,
                Some(row) => {
                    let claims = reader.claims_on(id).await?;
                    Some(Document::Drive(self.drive_document(&row, claims)))
                }
            },
            OutboxRow::Job(id) => match reader.job(id).await? {
                None => None,
                Some(row) => {
                    let lender = lender_of(reader, &row).await?;
                    Some(Document::Job(self.job_document(&row, lender)))
                }
            },
            OutboxRow::Server(id) => reader
                .server(id)
                .await?
                .map(|row| Document::Server(self.server_document(host, row))),
            OutboxRow::Snapshot(id) => reader
                .snapshot(id)
                .await?
                .map(|row| Document::Snapshot(self.snapshot_document(&row))),
        })
    }

    fn drive_document(&self, row: &DriveRow, claims: Vec<ClaimRow>) -> DriveDocument {
        use elasticstack_core::state::DriveState::{Creating, Destroying, Gone, Ready};
        DriveDocument {
            drive: row.drive,
            generation: self.generation(row.generation),
            gone: match row.state {
                Creating | Ready => false,
                Destroying | Gone => true,
            },
            account: row.account,
            array: row.array,
            size: row.size.get(),
            lends: claims.into_iter().filter_map(|claim| claim.lent).collect(),
        }
    }

    fn job_document(&self, row: &JobRow, lender: Option<Lender>) -> JobDocument {
        JobDocument {
            job: row.job,
            generation: self.generation(row.generation),
            gone: row.state != JobState::Running,
            source: row.source,
            source_epoch: row.source_epoch,
            target: row.target,
            target_epoch: row.target_epoch,
            conversion: row.conversion,
            download: row.download.clone(),
            lender,
            sum: row.sum.clone(),
        }
    }

    fn snapshot_document(&self, row: &SnapshotRow) -> SnapshotDocument {
        SnapshotDocument {
            snapshot: row.snapshot,
            generation: self.generation(row.generation),
            gone: !SnapshotState::IS_THERE.contains(&row.state),
            drive: row.drive,
            array: row.array,
            restore: row.restore,
            epoch: row.epoch,
        }
    }

    /// A host that the server has left is told to forget it.
    fn server_document(&self, host: HostId, row: ServerRow) -> ServerDocument {
        let doomed = matches!(row.state, ServerState::Destroying | ServerState::Gone);
        ServerDocument {
            server: row.server,
            generation: self.generation(row.generation),
            gone: doomed || row.host != Some(host),
            run: row.run,
            powered: row.powered,
            reset: row.reset,
            shutdown: row.shutdown,
            hardware: row.hardware.unwrap_or(Hardware {
                kind: ServerKind::Vm,
                cpu_mhz: row.cpu.0,
                vcpus: 1,
                memory_mib: row.memory.0,
                drives: Vec::new(),
                boot: Vec::new(),
                nics: Vec::new(),
                screen: None,
                seed: None,
            }),
        }
    }

    /// The host has these documents durably: they wait no longer, unless a newer one does.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn delivered(&self, host: HostId, documents: &[Document]) -> Result<()> {
        self.take_in(host, Word::Note(Note::Confirmed(documents.to_vec()))).await
    }

    pub(super) async fn documents_are_there(
        &self,
        tx: &mut Writer<'_>,
        host: HostId,
        documents: &[Document],
    ) -> Result<()> {
        for document in documents {
            let (object, generation) = match document {
                Document::Drive(document) => {
                    (OutboxRow::Drive(document.drive), document.generation)
                }
                Document::Job(document) => (OutboxRow::Job(document.job), document.generation),
                Document::Server(document) => {
                    (OutboxRow::Server(document.server), document.generation)
                }
                Document::Snapshot(document) => {
                    (OutboxRow::Snapshot(document.snapshot), document.generation)
                }
            };
            if generation.era == self.db.era() {
                tx.unqueue(host, object, generation.number).await?;
            }
        }
        Ok(())
    }

    /// Notes up to where the host's reports are taken in. What is not noted is asked for again, and
    /// changes nothing.
    ///
    /// # Errors
    /// `Unavailable`; `Internal`.
    pub async fn taken_in(&self, host: HostId, cursor: &Cursor) -> Result<()> {
        self.take_in(host, Word::Note(Note::TakenIn(cursor.clone()))).await
    }

    /// Up to where the host's reports are known to be taken in; `None` for nowhere.
    ///
    /// # Errors
    /// `NotFound` for a host that is not known.
    pub async fn cursor(&self, host: HostId) -> Result<Option<Cursor>> {
        let row = self.db.glance().await?.host(host).await?;
        Ok(row.ok_or_else(|| unknown(host))?.cursor)
    }
}

/// Who lends a job its source, if somebody does.
async fn lender_of(reader: &mut Reader, row: &JobRow) -> Result<Option<Lender>> {
    let claims = reader.claims_of(Holder::Job(row.job)).await?;
    let mut lent = claims.into_iter().filter(|claim| claim.drive == row.source);
    let Some(lent) = lent.find_map(|claim| claim.lent) else { return Ok(None) };
    let Some(drive) = reader.drive(row.source).await? else { return Ok(None) };
    let portal = reader.host(drive.host).await?.and_then(|host| host.portal);
    Ok(portal.map(|portal| Lender { portal, secret: lent.secret }))
}

/// A host is active, and is and has what it says.
pub(super) async fn host_is(
    tx: &mut Writer<'_>,
    host: HostId,
    report: &HostReport,
    now: Timestamp,
) -> Result<()> {
    let arrays = arrays_in(host, report)
        .map_err(|error| Error::internal("reading a host's arrays").source(error))?;
    let before = followed(tx, host).await?;
    let mut row = before.clone();
    if !tx.is_unheard(host).await? {
        row.enter(HostEvent::Answered, now);
    }
    row.cpu = MegaHertz(report.cpu_mhz);
    row.memory = MebiBytes(report.memory_mib);
    row.accelerator.clone_from(&report.accelerator);
    row.cpu_limits.clone_from(&report.cpu_limits);
    row.portal = report.portal;
    row.containers = report.containers;
    if row != before {
        tx.save_host(&row).await?;
    }
    let known = tx.arrays_of(host).await?;
    for (array, row) in &arrays {
        let before = known.get(array);
        let placements = before.map_or(row.placements, |before| before.placements);
        let row = &ArrayRow { placements, ..row.clone() };
        if row.capacity == Bytes::ZERO && before.is_some_and(|before| before.capacity > Bytes::ZERO)
        {
            tracing::warn!(%host, %array, "an array takes nothing new");
        }
        if before != Some(row) {
            tx.save_array(row).await?;
        }
    }
    for (array, row) in known {
        if !arrays.contains_key(&array) && row.health != ArrayHealth::Missing {
            tracing::warn!(%host, %array, "a host no longer tells of an array");
            let (health, capacity) = (ArrayHealth::Missing, Bytes::ZERO);
            let row = ArrayRow { health, capacity, disks: None, warnings: Vec::new(), ..row };
            tx.save_array(&row).await?;
        }
    }
    Ok(())
}

fn arrays_in(
    host: HostId,
    report: &HostReport,
) -> Result<BTreeMap<ArrayId, ArrayRow>, TooManyBytes> {
    let most = i64::MAX.unsigned_abs();
    let row = |status: &ArrayStatus| {
        let (health, capacity) = match status.state {
            ArrayState::Online => {
                (ArrayHealth::Online, Bytes::try_from(status.capacity.min(most))?)
            }
            ArrayState::Failed => (ArrayHealth::Failed, Bytes::ZERO),
        };
        let (array, name, placements) = (status.array, status.name.clone(), Placements::Open);
        let (disks, warnings) = (status.disks.clone(), status.warnings.clone());
        Ok((array, ArrayRow { array, host, name, health, placements, capacity, disks, warnings }))
    };
    report.arrays.iter().map(row).collect()
}

/// Adds a host, or notes its new name or address.
pub(super) async fn make_known(
    tx: &mut Writer<'_>,
    host: HostId,
    name: &Name,
    address: &str,
    now: Timestamp,
) -> Result<()> {
    let hosts = tx.hosts().await?;
    if hosts.iter().any(|row| row.name == *name && row.host != host) {
        return Err(Error::new(
            ErrorKind::InvalidValue,
            format!("a host is called {name} already: give another name"),
        )
        .field("name"));
    }
    let before = hosts.into_iter().find(|row| row.host == host);
    let mut row = before.clone().unwrap_or_else(|| HostRow {
        host,
        name: name.clone(),
        address: String::new(),
        state: HostState::Joining,
        since: now,
        placements: Placements::Open,
        known: Known::ByName,
        cpu: MegaHertz(0),
        memory: MebiBytes(0),
        accelerator: String::new(),
        cpu_limits: String::new(),
        portal: None,
        containers: false,
        cursor: None,
    });
    row.name = name.clone();
    address.clone_into(&mut row.address);
    if before.as_ref() != Some(&row) {
        tx.save_host(&row).await?;
    }
    Ok(())
}

/// A host that may be spoken with.
///
/// # Errors
/// `NotFound` for one that is not known; `Unavailable` for one whose certificate was taken away
/// while it was spoken with.
pub(super) async fn followed(reader: &mut Reader, host: HostId) -> Result<HostRow> {
    let row = reader.host(host).await?.ok_or_else(|| unknown(host))?;
    if row.known == Known::Revoked {
        let sentence = "the host's certificate was revoked: have it join again";
        return Err(Error::new(ErrorKind::Unavailable, sentence).context(host.to_string()));
    }
    Ok(row)
}

impl HostRow {
    /// Enters the state that `event` makes of its own.
    pub(super) fn enter(&mut self, event: HostEvent, now: Timestamp) {
        if let Step::To(state) = self.state.step(event) {
            self.state = state;
            self.since = now;
        }
    }
}

pub(super) fn unknown(host: HostId) -> Error {
    Error::new(ErrorKind::NotFound, "the host could not be found: make it known first")
        .context(host.to_string())
}
