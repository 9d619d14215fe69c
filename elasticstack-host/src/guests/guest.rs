//! One run of one server, and the task that follows it.
//!
//! The task owns the QMP connection: it takes requests, drains the serial ring, and publishes what
//! the guest does. It connects again whenever the connection breaks, and ends with the run. Nobody
//! else talks to its process once it runs.
//!
//! ```text
//!   follow ── the guest ended itself ─────────────────▶ record it durably, publish, done
//!     │ ▲ └── Guests is closed ───────────────────────▶ done; the guest goes on
//!     ▼ │ connect again
//!   broken ── its lock is free: the process is gone ──▶ record `Lost`, publish, done
//! ```

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use elasticstack_core::error::{Error, ErrorKind, Result};
use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::{Device, DriveSlot, EndCause, IoCounts, Phase};
use elasticstack_core::id::ServerId;
use serde_json::Value;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, error, info, warn};

use super::dir::{Record, ServerDir, Stage};
use super::nodes::SERIAL_RING;
use super::phase::{Notice, Status};
use super::plug::{Plugged, plug, unopened};
use super::qmp::{Qmp, QmpError};
use super::serial::{Gap, SerialLog};
use super::throttle::throttle;
use super::{Shared, blocking, counts};
use crate::sys::process::Process;

/// How often the serial ring is drained.
const DRAIN: Duration = Duration::from_secs(1);
/// How soon again if it was more than a quarter full.
const DRAIN_SOON: Duration = Duration::from_millis(50);
/// The first wait before connecting again; each further one is twice as long.
const RETRY: Duration = Duration::from_millis(10);
/// The longest wait before connecting again.
const RETRY_LIMIT: Duration = Duration::from_secs(1);
/// How long a request may take in all.
const REQUEST: Duration = Duration::from_secs(20);

/// A run that exists, over or not.
#[derive(Debug)]
pub(super) struct Guest {
    pub(super) run: Run,
    pub(super) screen: Option<Ipv4Addr>,
    pub(super) dir: Arc<ServerDir>,
    /// Set for a child of this process, so that it can be reaped.
    pub(super) process: Option<Process>,
    phase: watch::Receiver<Option<Phase>>,
    requests: mpsc::Sender<Request>,
    removing: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

/// What the guest's task is asked for.
#[derive(Debug)]
pub(super) enum Wish {
    /// Press the power button.
    PowerButton,
    /// Press reset, and let it run even if its storage had stopped it.
    Reset,
    /// Let a guest that was stopped by its storage try again.
    Resume,
    /// Write what it said on its serial port to the log.
    Drain,
    /// Make the drives that come and go these, and all limits what they are to be.
    Plug(Arc<[DriveSlot]>),
    /// Tell which of these drives its process has not opened.
    FindUnopened(Vec<DriveSlot>, oneshot::Sender<Vec<DriveSlot>>),
    /// Tell what it has read and written.
    Count(oneshot::Sender<BTreeMap<Device, IoCounts>>),
}

#[derive(Debug)]
struct Request {
    wish: Wish,
    reply: oneshot::Sender<Result<()>>,
}

impl Guest {
    /// Follows a run: one just started, with its connection and process, or an adopted one.
    pub(super) fn follow(
        shared: &Arc<Shared>,
        server: ServerId,
        dir: Arc<ServerDir>,
        record: Record,
        started: Option<(Qmp, Process)>,
    ) -> Self {
        let (qmp, process) = started.unzip();
        let known = match (&qmp, record.stage) {
            (_, Stage::Ended(cause)) => Some(Phase::Ended(cause)),
            (Some(_), _) => Some(Phase::Running),
            (None, _) => None,
        };
        let (publish, phase) = watch::channel(known);
        let (requests, inbox) = mpsc::channel(8);
        let removing = CancellationToken::new();
        let gap = if qmp.is_some() { Gap::None } else { Gap::Possible };
        let follower = Follower {
            shared: Arc::clone(shared),
            server,
            serial: Arc::new(Mutex::new(SerialLog::new(dir.serial_log(), gap))),
            dir: Arc::clone(&dir),
            record,
            phase: publish,
            requests: inbox,
            removing: removing.clone(),
        };
        let over = matches!(record.stage, Stage::Ended(_));
        let task = (!over).then(|| shared.tasks.spawn(follower.run(qmp)));
        Self {
            run: record.run,
            screen: record.screen,
            dir,
            process,
            phase,
            requests,
            removing,
            task: Mutex::new(task),
        }
    }

    /// What it does, as last seen.
    pub(super) fn phase(&self) -> Phase {
        self.phase.borrow().unwrap_or(Phase::Unresponsive)
    }

    /// Returns once it is known what it does.
    pub(super) async fn known(&self) {
        // An error means that its task is over: what is known then stays.
        let _ = self.phase.clone().wait_for(Option::is_some).await;
    }

    /// Has its task carry out `wish`.
    ///
    /// # Errors
    /// `NotFound` if it is over, `Unavailable` if it does not answer.
    pub(super) async fn request(&self, wish: Wish) -> Result<()> {
        let (reply, answer) = oneshot::channel();
        let asked = async {
            self.requests.send(Request { wish, reply }).await.ok()?;
            answer.await.ok()
        };
        match timeout(REQUEST, asked).await {
            Ok(Some(result)) => result,
            Ok(None) if matches!(self.phase(), Phase::Ended(_)) => Err(over()),
            Ok(None) | Err(_) => Err(silent()),
        }
    }

    /// Those of these drives that its process has not opened.
    ///
    /// # Errors
    /// As [`Guest::request`].
    pub(super) async fn unopened(&self, drives: Vec<DriveSlot>) -> Result<Vec<DriveSlot>> {
        let (tell, told) = oneshot::channel();
        self.request(Wish::FindUnopened(drives, tell)).await?;
        told.await.map_err(|_| silent())
    }

    /// What it has read and written. One that is known not to answer is not waited for.
    ///
    /// # Errors
    /// As [`Guest::request`].
    pub(super) async fn counts(&self) -> Result<BTreeMap<Device, IoCounts>> {
        if self.phase() == Phase::Unresponsive {
            return Err(silent());
        }
        let (tell, told) = oneshot::channel();
        self.request(Wish::Count(tell)).await?;
        told.await.map_err(|_| silent())
    }

    /// Says that its process is about to be killed on request, so that its end is no loss.
    pub(super) fn expect_end(&self) {
        self.removing.cancel();
    }

    /// Returns once nothing in this process concerns itself with it. Only once its process is gone.
    pub(super) async fn settled(&self) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            error!(error = &error as &dyn std::error::Error, "a guest's task failed");
        }
        if let Some(process) = &self.process
            && let Err(error) = process.exited().await
        {
            warn!(error = &error as &dyn std::error::Error, "a guest's process was not reaped");
        }
    }
}

fn over() -> Error {
    Error::new(ErrorKind::NotFound, "the server does not run")
}

fn silent() -> Error {
    Error::new(ErrorKind::Unavailable, "the server does not answer now: try again later")
}

fn held(device: Device) -> Error {
    let message = format!("the guest does not let go of {device}: have it do so, or stop it");
    Error::new(ErrorKind::Unavailable, message)
}

/// How following a guest came to an end.
enum Outcome {
    Closing,
    Ended(EndCause),
}

/// What became of a wish.
enum Carried {
    Out,
    OutThenEnded(EndCause),
    NotSinceEnded(EndCause),
    /// It could not be, for this reason; the guest goes on.
    Not(Error),
}

/// The task's state.
struct Follower {
    shared: Arc<Shared>,
    server: ServerId,
    dir: Arc<ServerDir>,
    record: Record,
    serial: Arc<Mutex<SerialLog>>,
    phase: watch::Sender<Option<Phase>>,
    requests: mpsc::Receiver<Request>,
    removing: CancellationToken,
}

impl Follower {
    async fn run(mut self, mut qmp: Option<Qmp>) {
        let mut pause = RETRY;
        loop {
            let connected = match qmp.take() {
                Some(qmp) => Ok(qmp),
                None => Qmp::connect(&self.dir.qmp_socket()).await,
            };
            let failure = match connected {
                Ok(mut qmp) => match self.follow(&mut qmp, &mut pause).await {
                    Ok(Outcome::Closing) => return,
                    Ok(Outcome::Ended(cause)) => return self.end(cause).await,
                    Err(failure) => match qmp.last_words().await {
                        Some(cause) => return self.end(cause).await,
                        None => failure,
                    },
                },
                Err(failure) => failure,
            };
            let dir = Arc::clone(&self.dir);
            match blocking("asking whether a guest lives", move || dir.is_held()).await {
                Ok(false) if self.removing.is_cancelled() => return,
                Ok(false) => return self.end(EndCause::Lost).await,
                Ok(true) => {}
                Err(error) => {
                    warn!(server_id = %self.server, ?error, "a guest's lock is unreadable")
                }
            }
            // A connection that merely ended is first tried again.
            if pause > RETRY || matches!(failure, QmpError::Silent(_)) {
                let failure = &failure as &dyn std::error::Error;
                debug!(server_id = %self.server, error = failure, "a guest does not answer");
                self.publish(Phase::Unresponsive);
            }
            tokio::select! {
                () = self.shared.closing.cancelled() => return,
                () = sleep(pause) => pause = (pause * 2).min(RETRY_LIMIT),
            }
        }
    }

    /// Follows the guest over one connection.
    async fn follow(&mut self, qmp: &mut Qmp, pause: &mut Duration) -> Result<Outcome, QmpError> {
        if let Some(cause) = self.look(qmp).await? {
            return self.finish(qmp, cause).await;
        }
        *pause = RETRY;
        let mut drain_at = Instant::now();
        loop {
            let ended = tokio::select! {
                () = self.shared.closing.cancelled() => return Ok(Outcome::Closing),
                notice = qmp.notice() => match notice? {
                    Notice::Ended(cause) => Some(cause),
                    Notice::Changed | Notice::Reset => self.look(qmp).await?,
                },
                Some(request) = self.requests.recv() => self.serve(qmp, request).await?,
                () = sleep_until(drain_at) => {
                    drain_at = Instant::now() + self.drain(qmp).await?;
                    self.trim_log().await;
                    None
                }
            };
            if let Some(cause) = ended {
                return self.finish(qmp, cause).await;
            }
        }
    }

    /// Publishes what the guest does; answers how it ended, if it did.
    async fn look(&mut self, qmp: &mut Qmp) -> Result<Option<EndCause>, QmpError> {
        let mut status = qmp.status().await?;
        if status == Status::Prelaunch {
            match self.record.stage {
                // Whoever started it got no further: nothing of it has run.
                Stage::Starting | Stage::Released => {
                    qmp.execute("cont", Value::Null).await?;
                    status = qmp.status().await?;
                }
                // A reset that met a guest which had stopped, perhaps for good. It is not known
                // which, and what has ended must not run again.
                Stage::Running | Stage::Ended(_) => return Ok(Some(EndCause::Lost)),
            }
        }
        if self.record.stage != Stage::Running {
            self.record(Stage::Running).await;
        }
        if let Status::Ended(cause) = status {
            return Ok(Some(cause));
        }
        self.publish(status.phase());
        Ok(None)
    }

    async fn serve(
        &mut self,
        qmp: &mut Qmp,
        Request { wish, reply }: Request,
    ) -> Result<Option<EndCause>, QmpError> {
        if reply.is_closed() {
            return Ok(None);
        }
        let (answer, outcome) = match self.carry_out(qmp, wish).await {
            Ok(Carried::Out) => (Ok(()), Ok(None)),
            Ok(Carried::OutThenEnded(cause)) => (Ok(()), Ok(Some(cause))),
            Ok(Carried::NotSinceEnded(cause)) => (Err(over()), Ok(Some(cause))),
            Ok(Carried::Not(error)) => (Err(error), Ok(None)),
            Err(failure @ QmpError::Refused { .. }) => {
                (Err(Error::internal("a signal to a guest").source(failure)), Ok(None))
            }
            Err(failure) => (Err(silent()), Err(failure)),
        };
        // Whoever asked may have gone meanwhile.
        let _ = reply.send(answer);
        outcome
    }

    async fn carry_out(&mut self, qmp: &mut Qmp, wish: Wish) -> Result<Carried, QmpError> {
        let before = qmp.status().await?;
        if let Status::Ended(cause) = before {
            return Ok(Carried::NotSinceEnded(cause));
        }
        match wish {
            Wish::Drain => {
                self.drain(qmp).await?;
            }
            Wish::PowerButton => {
                qmp.execute("system_powerdown", Value::Null).await?;
            }
            Wish::Resume if before == Status::StorageFailed => {
                qmp.execute("cont", Value::Null).await?;
            }
            Wish::Resume => {}
            Wish::FindUnopened(drives, tell) => {
                // Whoever asked may have gone meanwhile.
                let _ = tell.send(unopened(qmp, drives).await?);
            }
            Wish::Count(tell) => {
                // Whoever asked may have gone meanwhile.
                let _ = tell.send(counts::look(qmp).await?);
            }
            Wish::Plug(drives) => {
                let plugged = plug(qmp, &drives).await?;
                throttle(qmp, &drives).await?;
                match plugged {
                    Plugged::AsWanted => {}
                    Plugged::Held(device) => return Ok(Carried::Not(held(device))),
                    Plugged::Refused(device, refused) => {
                        let message = format!("a drive could not be plugged in at {device}");
                        let error = Error::new(ErrorKind::JobFailed, message).source(refused);
                        return Ok(Carried::Not(error));
                    }
                }
            }
            Wish::Reset => {
                qmp.execute("system_reset", Value::Null).await?;
                loop {
                    let notice = timeout(REQUEST, qmp.notice()).await;
                    match notice.map_err(|_| QmpError::Silent("system_reset"))?? {
                        Notice::Ended(cause) => return Ok(Carried::NotSinceEnded(cause)),
                        Notice::Changed => {}
                        Notice::Reset => break,
                    }
                }
                if before != Status::Running {
                    qmp.execute("cont", Value::Null).await?;
                }
            }
        }
        Ok(self.look(qmp).await?.map_or(Carried::Out, Carried::OutThenEnded))
    }

    /// Moves what the guest wrote from the ring to the log; answers when to do so again.
    async fn drain(&mut self, qmp: &mut Qmp) -> Result<Duration, QmpError> {
        let output = qmp.serial().await?;
        let soon = output.len() > SERIAL_RING / 4;
        if !output.is_empty() {
            let serial = Arc::clone(&self.serial);
            let written = blocking("writing a serial log", move || {
                let mut serial = serial.lock().unwrap_or_else(PoisonError::into_inner);
                serial.append(&output, SERIAL_RING)
            });
            if let Err(error) = written.await {
                warn!(server_id = %self.server, ?error, "serial output is lost");
            }
        }
        Ok(if soon { DRAIN_SOON } else { DRAIN })
    }

    async fn trim_log(&self) {
        let dir = Arc::clone(&self.dir);
        let trimmed = blocking("trimming a log", move || dir.trim_log()).await;
        if let Err(error) = trimmed {
            warn!(server_id = %self.server, ?error, "the log of a guest's process is not kept short");
        }
    }

    async fn finish(&mut self, qmp: &mut Qmp, cause: EndCause) -> Result<Outcome, QmpError> {
        if let Err(failure) = self.drain(qmp).await {
            let failure = &failure as &dyn std::error::Error;
            warn!(server_id = %self.server, error = failure, "the last serial output is lost");
        }
        Ok(Outcome::Ended(cause))
    }

    async fn end(mut self, cause: EndCause) {
        info!(server_id = %self.server, run = %self.record.run, ?cause, "a guest ended");
        self.record(Stage::Ended(cause)).await;
        self.publish(Phase::Ended(cause));
    }

    async fn record(&mut self, stage: Stage) {
        self.record.stage = stage;
        let (dir, record) = (Arc::clone(&self.dir), self.record);
        let written = blocking("recording a run", move || dir.write_record(&record)).await;
        if let Err(error) = written {
            // What is not recorded can still be asked of the paused process.
            error!(server_id = %self.server, ?error, "a run's stage was not recorded");
        }
    }

    fn publish(&self, phase: Phase) {
        if self.phase.send_replace(Some(phase)) != Some(phase) {
            self.shared.changes.announce(self.server);
        }
    }
}
