//! Servers: carries out what [`crate::reconcile`] decides, one action after another.
//!
//! Invariants: what an action does to the world it does after what must be durable first; the
//! grants of a run are held from before it starts until nothing of it is left.

use std::num::NonZeroU8;
use std::sync::Arc;

use async_trait::async_trait;
use elasticstack_core::block::{Attachment, Borrowing, LendId, Volume};
use elasticstack_core::error::{Chain, Error, ErrorKind, Result};
use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::{DriveSlot, EndCause, Phase, ServerSpec, Signal};
use elasticstack_core::id::{DriveId, ServerId};
use elasticstack_core::state::RunPhase;
use elasticstack_core::units::{MebiBytes, MegaHertz, VcpuCount};
use elasticstack_core::wire::internal::{
    ClaimedDrive, Ended, Fault, Hardware, Lender, ObjectStatus, Plugged, ServerDocument,
    ServerStatus,
};

use super::open::{Patience, Verdict, open};
use super::{Rest, Work};
use crate::agent::{Holder, Host, Record, held};
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
                    self.publish(document, past, seen, None).await;
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
                Action::Replug => {
                    if let Some(rest) = self.replug(&record, seen).await? {
                        return Ok(rest);
                    }
                }
                Action::Reset(number) => {
                    self.publish_passing(document, past, seen).await;
                    self.host.hypervisor.signal(self.server, Signal::Reset).await?;
                    self.amend(move |past| past.reset = number).await?;
                }
                Action::Shutdown(number) => {
                    self.publish_passing(document, past, seen).await;
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
        self.publish_passing(document, &past, None).await;
        match self.start(document).await {
            Ok(()) => self.record_start(run).await?,
            Err(Delay::Until(rest)) => {
                self.publish(document, &past, None, None).await;
                return Ok(Some(rest));
            }
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
            plugged: Vec::new(),
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
        let (slots, volumes) = match self.open_all(claims).await {
            Ok(opened) => opened,
            Err((drive, error)) => match self.patience.judge(&self.host, drive, error) {
                Verdict::Wait => return Err(Delay::Until(Rest::Retry)),
                Verdict::GiveUp(error) => return Err(Delay::Failed(error)),
            },
        };
        self.volumes = volumes;
        let spec = spec_of(self.server, &document.hardware, slots).map_err(Delay::Failed)?;
        self.host.hypervisor.ensure(&spec, document.run).await.map_err(|error| {
            // A drive that another host lends, and that host does not do so yet, or does not answer.
            let passes = error.kind() == ErrorKind::Unavailable;
            if passes { Delay::Until(Rest::Retry) } else { Delay::Failed(error) }
        })
    }

    /// Makes the drives of the run that goes on the document's. `Some` if it has to be tried again
    /// later. Where it is cut off, what may be plugged in is among the claims.
    async fn replug(
        &mut self,
        record: &Record<ServerDocument>,
        seen: Option<Seen>,
    ) -> Result<Option<Rest>> {
        let Record { document, facts: past } = record;
        let drives = &document.hardware.drives;
        let mut claims = past.claims.clone();
        claims.extend(drives.iter().filter(|claim| !past.claims.contains(claim)).cloned());
        let holder = Holder::Server(self.server);
        if self.host.take(holder, &held(&claims)).is_err() {
            let why = Error::new(ErrorKind::DriveInUse, "a drive to be plugged in is in use");
            self.publish(document, past, seen, Some(Fault::from(&why))).await;
            return Ok(Some(Rest::Stirred));
        }
        if claims != past.claims {
            let claims = claims.clone();
            self.amend(move |past| past.claims = claims).await?;
        }
        let opened = match self.open_all(drives).await {
            Ok((slots, volumes)) => {
                spec_of(self.server, &document.hardware, slots).map(|spec| (spec, volumes))
            }
            Err((_, error)) => Err(error),
        };
        let plugged = match opened {
            Ok((spec, volumes)) => {
                let plugged = self.host.hypervisor.ensure(&spec, document.run).await;
                plugged.map(|()| volumes)
            }
            Err(error) => Err(error),
        };
        match plugged {
            Ok(volumes) => {
                let now = drives.clone();
                self.amend(move |past| {
                    past.claims.clone_from(&now);
                    past.plugged = now;
                })
                .await?;
                self.volumes = volumes;
                // It only gives back what is unplugged: its own are never in its way.
                let _ = self.host.take(holder, &held(drives));
                self.host.stir();
                Ok(None)
            }
            Err(error) => {
                let server = self.server;
                tracing::warn!(%server, error = %Chain(&error), "drives are not plugged in as asked");
                self.publish(document, past, seen, Some(Fault::from(&error))).await;
                Ok(Some(Rest::Retry))
            }
        }
    }

    /// Opens drives under their claims, or says which one can't be opened.
    async fn open_all(
        &self,
        claims: &[ClaimedDrive],
    ) -> Result<(Vec<DriveSlot>, Vec<Arc<dyn Volume>>), (DriveId, Error)> {
        let (mut slots, mut volumes) = (Vec::new(), Vec::new());
        for claim in claims {
            let of_it = |error| (claim.drive, error);
            let attachment = match &claim.lender {
                Some(lender) => Attachment::Iscsi(self.borrowing(claim, lender)),
                None => {
                    let opened = open(&self.host, claim.drive, claim.epoch, claim.access).await;
                    let volume = opened.map_err(of_it)?;
                    let attachment = volume.attachment();
                    volumes.push(volume);
                    attachment.ok_or_else(|| {
                        let drive = claim.drive;
                        let message = format!("drive {drive} has no form that a guest can use");
                        of_it(Error::new(ErrorKind::NotOffered, message))
                    })?
                }
            };
            let &ClaimedDrive { device, media, access, limits, .. } = claim;
            slots.push(DriveSlot { device, media, access, attachment, limits });
        }
        Ok((slots, volumes))
    }

    fn borrowing(&self, claim: &ClaimedDrive, lender: &Lender) -> Borrowing {
        let Lender { portal, secret } = lender.clone();
        let lend = LendId { drive: claim.drive, epoch: claim.epoch };
        Borrowing { portal, lend, borrower: self.server, secret }
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
            let plugged = Vec::new();
            *past = Past { run, claims, plugged, begun, started, ended: None, reset, shutdown };
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
        for claim in past.claims.iter().filter(|claim| claim.lender.is_none()) {
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
                past.plugged.clone_from(&past.claims);
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

    async fn publish(
        &self,
        document: &ServerDocument,
        past: &Past,
        seen: Option<Seen>,
        fault: Option<Fault>,
    ) {
        let status = self.status(document, past, seen, fault).await;
        self.host.board.publish(status);
    }

    /// As [`ServerWork::publish`], of what is about to change.
    async fn publish_passing(&self, document: &ServerDocument, past: &Past, seen: Option<Seen>) {
        let status = self.status(document, past, seen, None).await;
        self.host.board.publish_passing(status);
    }

    async fn status(
        &self,
        document: &ServerDocument,
        past: &Past,
        seen: Option<Seen>,
        fault: Option<Fault>,
    ) -> ObjectStatus {
        let plugged = seen.map(|_| match fault {
            Some(fault) => Plugged::NotYet(fault),
            None => plugged(document, past),
        });
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
        ObjectStatus::Server(ServerStatus {
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
            plugged,
        })
    }
}

/// Whether the drives that are known to be plugged in to a run are what the document says.
pub(crate) fn plugged(document: &ServerDocument, past: &Past) -> Plugged {
    if past.plugged == document.hardware.drives {
        return Plugged::AsAsked;
    }
    let why = "its drives change while the guest runs: not yet";
    Plugged::NotYet(Fault::from(&Error::new(ErrorKind::Unavailable, why)))
}

fn spec_of(server: ServerId, hardware: &Hardware, drives: Vec<DriveSlot>) -> Result<ServerSpec> {
    let vcpus = NonZeroU8::new(hardware.vcpus).ok_or_else(|| {
        Error::new(ErrorKind::InvalidValue, "0 virtual CPUs asked for: give at least 1")
            .field("smp")
    })?;
    Ok(ServerSpec {
        server,
        kind: hardware.kind,
        cpu: MegaHertz(hardware.cpu_mhz),
        vcpus: VcpuCount(vcpus),
        memory: MebiBytes(hardware.memory_mib),
        drives,
        boot: hardware.boot.clone(),
        nics: hardware.nics.clone(),
        screen: hardware.screen.clone(),
        seed: hardware.seed.clone(),
    })
}
