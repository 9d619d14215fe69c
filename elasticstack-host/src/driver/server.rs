//! Servers: carries out what [`crate::reconcile`] decides, one action after another.
//!
//! Invariants: what an action does to the world it does after what must be durable first; the
//! grants of a run are held from before it starts until nothing of it is left.

use std::num::NonZeroU8;
use std::sync::Arc;

use async_trait::async_trait;
use elasticstack_core::block::Volume;
use elasticstack_core::error::{Chain, Error, ErrorKind, Result};
use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::{DriveSlot, EndCause, Phase, ServerSpec, Signal};
use elasticstack_core::id::{DriveId, ServerId};
use elasticstack_core::state::RunPhase;
use elasticstack_core::units::{MebiBytes, MegaHertz, VcpuCount};
use elasticstack_core::wire::internal::{
    Access, ClaimedDrive, Ended, Fault, Hardware, ObjectStatus, ServerDocument, ServerStatus,
};

use super::open::{Patience, Verdict, open};
use super::{Rest, Work};
use crate::agent::{Holder, Host, Record};
use crate::reconcile::{self, Action, Past, Seen};

/// The work on one server.
pub(super) struct ServerWork {
    host: Arc<Host>,
    server: ServerId,
    /// The drives of its run, open as long as something of it exists.
    volumes: Vec<Arc<dyn Volume>>,
    patience: Patience,
}

/// Why a run did not begin in this pass.
enum Delay {
    /// Not yet: try again then.
    Until(Rest),
    /// It never will.
    Failed(Error),
}

#[async_trait]
impl Work for ServerWork {
    async fn pass(&mut self) -> Result<Rest> {
        loop {
            let Some(record) = self.host.servers.get(self.server) else {
                return Ok(Rest::Finished);
            };
            let Record { document, facts: past } = &record;
            let seen = self.look().await?;
            match reconcile::next(document, past, seen, &self.host.boot) {
                Action::Nothing => {
                    if seen.is_some() {
                        self.keep_open(past).await;
                    } else {
                        self.volumes.clear();
                        self.host.release(Holder::Server(self.server));
                    }
                    self.publish(document, past, seen).await;
                    return Ok(Rest::Idle);
                }
                Action::Begin => {
                    if let Some(rest) = self.begin(&record).await? {
                        return Ok(rest);
                    }
                }
                Action::Adopt(run) => self.adopt(document, run).await?,
                Action::RecordStart => {
                    self.record_start(past.run).await?;
                }
                Action::RecordEnd(cause) => self.record_end(past.run, cause, None).await?,
                Action::Remove => self.host.hypervisor.remove(self.server).await?,
                Action::Reset(number) => {
                    self.publish(document, past, seen).await;
                    self.host.hypervisor.signal(self.server, Signal::Reset).await?;
                    self.amend(move |past| past.reset = number).await?;
                }
                Action::Shutdown(number) => {
                    self.publish(document, past, seen).await;
                    self.host.hypervisor.signal(self.server, Signal::PowerButton).await?;
                    self.amend(move |past| past.shutdown = number).await?;
                }
                Action::SkipSignals => {
                    let (reset, shutdown) = (document.reset, document.shutdown);
                    self.amend(move |past| {
                        past.reset = past.reset.max(reset);
                        past.shutdown = past.shutdown.max(shutdown);
                    })
                    .await?;
                }
            }
        }
    }
}

impl ServerWork {
    pub(super) fn new(host: Arc<Host>, server: ServerId) -> Self {
        Self { host, server, volumes: Vec::new(), patience: Patience::default() }
    }

    async fn look(&self) -> Result<Option<Seen>> {
        let observed = self.host.hypervisor.observe().await?;
        let ours = observed.into_iter().find(|run| run.server == self.server);
        Ok(ours.map(|run| Seen { run: run.run, phase: run.phase }))
    }

    /// Begins the document's run. `Some` if it has to be tried again later; a start that fails
    /// for good ends its run.
    async fn begin(&mut self, record: &Record<ServerDocument>) -> Result<Option<Rest>> {
        let Record { document, facts } = record;
        let run = document.run;
        if facts.run != run {
            self.patience = Patience::default();
        }
        let past = self.record_begin(document, facts).await?;
        self.publish(document, &past, None).await;
        match self.start(document).await {
            Ok(()) => self.record_start(run).await?,
            Err(Delay::Until(rest)) => return Ok(Some(rest)),
            Err(Delay::Failed(error)) => {
                let server = self.server;
                tracing::error!(%server, %run, error = %Chain(&error), "a server did not start");
                self.volumes.clear();
                self.record_end(run, EndCause::Lost, Some(Fault::from(&error))).await?;
            }
        }
        Ok(None)
    }

    /// Records the run as begun, with what it claims, before anything is done for it.
    async fn record_begin(&self, document: &ServerDocument, facts: &Past) -> Result<Past> {
        let again = facts.run == document.run;
        let past = Past {
            run: document.run,
            claims: document.hardware.drives.clone(),
            begun: if again { facts.begun.clone() } else { Some(self.host.stamp()?) },
            started: None,
            ended: None,
            reset: document.reset.max(facts.reset),
            shutdown: document.shutdown.max(facts.shutdown),
        };
        if past != *facts {
            let recorded = past.clone();
            self.amend(move |facts| *facts = recorded).await?;
        }
        Ok(past)
    }

    async fn start(&mut self, document: &ServerDocument) -> Result<(), Delay> {
        let claims = &document.hardware.drives;
        if self.host.take(Holder::Server(self.server), &held(claims)).is_err() {
            return Err(Delay::Until(Rest::Stirred));
        }
        self.volumes.clear();
        let mut slots = Vec::new();
        for claim in claims {
            let volume = match open(&self.host, claim.drive, claim.epoch, claim.access).await {
                Ok(volume) => volume,
                Err(error) => match self.patience.judge(&self.host, claim.drive, error) {
                    Verdict::Wait => return Err(Delay::Until(Rest::Retry)),
                    Verdict::GiveUp(error) => return Err(Delay::Failed(error)),
                },
            };
            let attachment = volume.attachment().ok_or_else(|| {
                let message = format!("drive {} has no form that a guest can use", claim.drive);
                Delay::Failed(Error::new(ErrorKind::NotOffered, message))
            })?;
            let &ClaimedDrive { device, media, access, .. } = claim;
            slots.push(DriveSlot { device, media, access, attachment });
            self.volumes.push(volume);
        }
        let spec = spec_of(self.server, &document.hardware, slots).map_err(Delay::Failed)?;
        self.host.hypervisor.ensure(&spec, document.run).await.map_err(Delay::Failed)
    }

    /// Takes over a run that exists and of which no record is left: the document is all there is
    /// to tell what it holds.
    async fn adopt(&mut self, document: &ServerDocument, run: Run) -> Result<()> {
        let server = self.server;
        tracing::warn!(%server, %run, "a run without a record is adopted");
        let now = self.host.stamp()?;
        let claims = document.hardware.drives.clone();
        self.amend(move |past| {
            let (begun, started) = (Some(now.clone()), Some(now));
            let (reset, shutdown) = (past.reset, past.shutdown);
            *past = Past { run, claims, begun, started, ended: None, reset, shutdown };
        })
        .await?;
        let claims = &document.hardware.drives;
        if self.host.take(Holder::Server(server), &held(claims)).is_err() {
            tracing::error!(%server, %run, "an adopted run uses a drive that is held already");
        }
        Ok(())
    }

    /// Opens the drives of a run that an earlier life of this process began.
    async fn keep_open(&mut self, past: &Past) {
        if !self.volumes.is_empty() {
            return;
        }
        for claim in &past.claims {
            match self.host.store.open(claim.drive, claim.epoch).await {
                Ok(volume) => self.volumes.push(volume),
                // The guest goes on with what it has; only a fence could have done this.
                Err(error) => {
                    let (server, drive) = (self.server, claim.drive);
                    tracing::warn!(%server, %drive, error = %Chain(&error), "a drive in use does not open");
                }
            }
        }
    }

    async fn record_start(&self, run: Run) -> Result<()> {
        let at = self.host.stamp()?;
        self.amend(move |past| {
            if past.run == run {
                past.started = Some(at);
            }
        })
        .await
    }

    async fn record_end(&self, run: Run, cause: EndCause, fault: Option<Fault>) -> Result<()> {
        let at = self.host.stamp()?;
        self.amend(move |past| {
            if past.run == run {
                past.ended = Some(Ended { at, cause, fault });
            }
        })
        .await
    }

    async fn amend(&self, change: impl FnOnce(&mut Past) + Send + 'static) -> Result<()> {
        let server = self.server;
        self.host.on_disk(move |host| host.servers.amend(server, change)).await
    }

    async fn publish(&self, document: &ServerDocument, past: &Past, seen: Option<Seen>) {
        let phase = match seen.map(|seen| seen.phase) {
            None if past.is_open() => RunPhase::Starting,
            None | Some(Phase::Ended(_)) => RunPhase::Ended,
            Some(Phase::Running) => RunPhase::Running,
            Some(Phase::Paused) => RunPhase::Paused,
            Some(Phase::Unresponsive) => RunPhase::Unresponsive,
        };
        let screen = match self.host.hypervisor.console() {
            Some(console) if seen.is_some() => console.screen(self.server).await.ok().flatten(),
            _ => None,
        };
        self.host.board.publish(ObjectStatus::Server(ServerStatus {
            server: self.server,
            generation: document.generation,
            gone: document.gone,
            run: past.run,
            phase,
            started: past.started.clone(),
            ended: past.ended.clone(),
            reset: past.reset,
            shutdown: past.shutdown,
            screen,
        }));
    }
}

fn held(claims: &[ClaimedDrive]) -> Vec<(DriveId, Access)> {
    claims.iter().map(|claim| (claim.drive, claim.access)).collect()
}

fn spec_of(server: ServerId, hardware: &Hardware, drives: Vec<DriveSlot>) -> Result<ServerSpec> {
    let vcpus = NonZeroU8::new(hardware.vcpus).ok_or_else(|| {
        Error::new(ErrorKind::InvalidValue, "0 virtual CPUs asked for: give at least 1")
            .field("smp")
    })?;
    Ok(ServerSpec {
        server,
        cpu: MegaHertz(hardware.cpu_mhz),
        vcpus: VcpuCount(vcpus),
        memory: MebiBytes(hardware.memory_mib),
        drives,
        boot: hardware.boot.clone(),
        nics: hardware.nics.clone(),
        screen: hardware.screen.clone(),
    })
}
