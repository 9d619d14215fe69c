//! Hosts: joining them, what they have, the documents that go out to them.
//!
//! Invariant: a document is rendered from the rows when it is asked for, so that what is sent is
//! always the newest; a host is silent only by its deadline and active again by answering.

use std::collections::BTreeMap;
use std::sync::PoisonError;

use elasticstack_core::block::ArrayState;
use elasticstack_core::prelude::*;
use elasticstack_core::state::{HostEvent, HostState, JobState, ServerState};
use elasticstack_core::units::TooManyBytes;
use elasticstack_core::wire::internal::{
    Cursor, Document, DriveDocument, Hardware, HostReport, JobDocument, PROTOCOL, ServerDocument,
};

use super::{App, HostRecord};
use crate::db::{ArrayRow, DriveRow, HostRow, JobRow, OutboxRow, Reader, ServerRow, Writer};

impl App {
    /// Makes a host known, or notes its new name or address.
    ///
    /// # Errors
    /// `InvalidValue` if another host has the name.
    pub async fn host_create(&self, host: HostId, name: &Name, address: &str) -> Result<()> {
        self.db.write(|tx| Box::pin(make_known(tx, host, name, address))).await
    }

    /// Every host.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn hosts(&self) -> Result<Vec<HostRecord>> {
        let rows = self.db.read().await?.hosts().await?;
        let record = |HostRow { host, name, address, .. }| HostRecord { host, name, address };
        Ok(rows.into_iter().map(record).collect())
    }

    /// Takes in what a host is and has: it is active, and its arrays have so much room. An array
    /// that has failed, or that it no longer tells of, takes nothing new; its drives stay known.
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
        let most = i64::MAX.unsigned_abs();
        let arrays: &BTreeMap<ArrayId, ArrayRow> = &report
            .arrays
            .iter()
            .map(|array| {
                let capacity = match array.state {
                    ArrayState::Online => Bytes::try_from(array.capacity.min(most))?,
                    ArrayState::Failed => Bytes::ZERO,
                };
                Ok((array.array, ArrayRow { name: array.name.clone(), capacity }))
            })
            .collect::<Result<_, TooManyBytes>>()
            .map_err(|error| Error::internal("reading a host's arrays").source(error))?;
        self.db
            .write(|tx| {
                Box::pin(async move {
                    let before = tx.host(host).await?.ok_or_else(|| unknown(host))?;
                    let mut row = before.clone();
                    row.state = row.state.step(HostEvent::Answered).after(row.state);
                    row.cpu = MegaHertz(report.cpu_mhz);
                    row.memory = MebiBytes(report.memory_mib);
                    row.accelerator.clone_from(&report.accelerator);
                    row.cpu_limits.clone_from(&report.cpu_limits);
                    if row != before {
                        tx.save_host(&row).await?;
                    }
                    let known = tx.arrays_of(host).await?;
                    for (array, row) in arrays {
                        let before = known.get(array);
                        if row.capacity == Bytes::ZERO
                            && before.is_some_and(|before| before.capacity > Bytes::ZERO)
                        {
                            tracing::warn!(%host, %array, "an array takes nothing new");
                        }
                        if before != Some(row) {
                            tx.save_array(host, *array, row).await?;
                        }
                    }
                    for (array, row) in known {
                        if !arrays.contains_key(&array) && row.capacity > Bytes::ZERO {
                            tracing::warn!(%host, %array, "a host no longer tells of an array");
                            let row = ArrayRow { capacity: Bytes::ZERO, ..row };
                            tx.save_array(host, array, &row).await?;
                        }
                    }
                    Ok(())
                })
            })
            .await
    }

    /// Notes that a host answered just now.
    pub(super) fn hear(&self, host: HostId) {
        let now = self.now();
        self.heard.lock().unwrap_or_else(PoisonError::into_inner).insert(host, now);
    }

    /// The hosts that have documents to be sent.
    ///
    /// # Errors
    /// `Unavailable`; `Internal`.
    pub async fn hosts_to_tell(&self) -> Result<Vec<HostId>> {
        self.db.read().await?.hosts_to_tell().await
    }

    /// The documents that the host has not confirmed, oldest wish first, at most `limit`, each as
    /// it stands now.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn outbox(&self, host: HostId, limit: u32) -> Result<Vec<Document>> {
        let mut reader = self.db.read().await?;
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
            OutboxRow::Drive(id) => {
                reader.drive(id).await?.map(|row| Document::Drive(self.drive_document(&row)))
            }
            OutboxRow::Job(id) => {
                reader.job(id).await?.map(|row| Document::Job(self.job_document(&row)))
            }
            OutboxRow::Server(id) => reader
                .server(id)
                .await?
                .map(|row| Document::Server(self.server_document(host, row))),
        })
    }

    fn drive_document(&self, row: &DriveRow) -> DriveDocument {
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
        }
    }

    fn job_document(&self, row: &JobRow) -> JobDocument {
        JobDocument {
            job: row.job,
            generation: self.generation(row.generation),
            gone: row.state != JobState::Running,
            source: row.source,
            source_epoch: row.source_epoch,
            target: row.target,
            target_epoch: row.target_epoch,
            conversion: row.conversion,
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
                cpu_mhz: row.cpu.0,
                vcpus: 1,
                memory_mib: row.memory.0,
                drives: Vec::new(),
                boot: Vec::new(),
                nics: Vec::new(),
                screen: None,
            }),
        }
    }

    /// The host has these documents durably: they wait no longer, unless a newer one does.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn delivered(&self, host: HostId, documents: &[Document]) -> Result<()> {
        let era = self.db.era();
        self.db
            .write(|tx| {
                Box::pin(async move {
                    for document in documents {
                        let (object, generation) = match document {
                            Document::Drive(document) => {
                                (OutboxRow::Drive(document.drive), document.generation)
                            }
                            Document::Job(document) => {
                                (OutboxRow::Job(document.job), document.generation)
                            }
                            Document::Server(document) => {
                                (OutboxRow::Server(document.server), document.generation)
                            }
                        };
                        if generation.era == era {
                            tx.unqueue(host, object, generation.number).await?;
                        }
                    }
                    Ok(())
                })
            })
            .await
    }

    /// Up to where the host's reports are taken in; `None` for nowhere.
    ///
    /// # Errors
    /// `NotFound` for a host that is not known.
    pub async fn cursor(&self, host: HostId) -> Result<Option<Cursor>> {
        let row = self.db.read().await?.host(host).await?;
        Ok(row.ok_or_else(|| unknown(host))?.cursor)
    }
}

/// Adds a host, or notes its new name or address.
pub(super) async fn make_known(
    tx: &mut Writer<'_>,
    host: HostId,
    name: &Name,
    address: &str,
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
        cpu: MegaHertz(0),
        memory: MebiBytes(0),
        accelerator: String::new(),
        cpu_limits: String::new(),
        cursor: None,
    });
    row.name = name.clone();
    address.clone_into(&mut row.address);
    if before.as_ref() != Some(&row) {
        tx.save_host(&row).await?;
    }
    Ok(())
}

pub(super) fn unknown(host: HostId) -> Error {
    Error::new(ErrorKind::NotFound, "the host could not be found: make it known first")
        .context(host.to_string())
}
