//! Makes the documents true: one task for each object that needs work, serial for one object,
//! concurrent across objects.
//!
//! A task does one pass, rests, and passes again when it is woken: by a new document, by the
//! hypervisor, by a drive that became free, or after a while if the pass failed. A pass always
//! decides afresh from what is durable and what is seen, so that it does not matter how often it
//! runs or where the one before it was cut off.

pub(crate) mod drive;
mod job;
mod lends;
mod open;
mod revocable;
pub(crate) mod server;
pub(crate) mod snapshot;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use elasticstack_core::error::{Chain, Result};
use elasticstack_core::hypervisor::Phase;
use elasticstack_core::id::ServerId;
use futures_util::{StreamExt, stream};
use tokio::sync::{Notify, mpsc};
use tokio::task::{Id, JoinError, JoinSet};
use tokio::time::MissedTickBehavior;

use crate::agent::{Host, Key};

/// How often the hypervisor is asked for what its events may have missed.
const SWEEP: Duration = Duration::from_secs(5);

/// The pause after a first failure; each further one doubles it.
const FIRST_PAUSE: Duration = Duration::from_millis(50);

/// The longest pause after a failure.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What makes one object's document true.
#[async_trait]
trait Work: Send {
    /// Does what can be done now.
    ///
    /// # Errors
    /// What kept it from going on; it is tried again.
    async fn pass(&mut self) -> Result<Rest>;
}

/// When the next pass is due, beside a wake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// Only when woken.
    Idle,
    /// When a drive or a turn becomes free.
    Stirred,
    /// After a while.
    Retry,
    /// Never: the object is forgotten.
    Finished,
}

/// Starts the driver's tasks.
pub(crate) fn start(host: &Arc<Host>, wakes: mpsc::UnboundedReceiver<Key>) {
    host.tasks.spawn(supervise(Arc::clone(host), wakes));
}

async fn supervise(host: Arc<Host>, mut wakes: mpsc::UnboundedReceiver<Key>) {
    let mut crew = Crew { host: Arc::clone(&host), tasks: HashMap::new(), running: JoinSet::new() };
    // Should the events ever end, the sweep still sees what happens.
    let mut events = host.hypervisor.events().chain(stream::pending());
    let mut sweep = Sweep::default();
    let mut ticks = tokio::time::interval(SWEEP);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    crew.begin().await;
    loop {
        tokio::select! {
            () = host.closing.cancelled() => break,
            Some(key) = wakes.recv() => crew.wake(key),
            Some(joined) = crew.running.join_next_with_id() => crew.joined(joined),
            Some(server) = events.next() => crew.wake(Key::Server(server)),
            _ = ticks.tick() => {
                crew.wake_broken();
                lends::wake_lost(&host).await;
                sweep.changed(&host).await.into_iter().for_each(|s| crew.wake(Key::Server(s)));
            }
        }
    }
    while crew.running.join_next().await.is_some() {}
}

/// The tasks, by object.
struct Crew {
    host: Arc<Host>,
    tasks: HashMap<Key, Task>,
    running: JoinSet<Key>,
}

struct Task {
    /// `None` for one that panicked and is begun again at the next sweep.
    id: Option<Id>,
    wake: Arc<Notify>,
}

impl Crew {
    /// Has everything looked at that is not as it should be already.
    async fn begin(&mut self) {
        drive::publish_settled(&self.host).await;
        snapshot::publish_settled(&self.host).await;
        for record in self.host.drives.all() {
            let drive = record.document.drive;
            if self.host.board.drive(drive).is_none() {
                self.wake(Key::Drive(drive));
            }
        }
        for record in self.host.snapshots.all() {
            let snapshot = record.document.snapshot;
            if self.host.board.snapshot(snapshot).is_none() {
                self.wake(Key::Snapshot(snapshot));
            }
        }
        self.host.jobs.all().iter().for_each(|record| self.wake(Key::Job(record.document.job)));
        let servers = self.host.servers.all();
        servers.iter().for_each(|record| self.wake(Key::Server(record.document.server)));
    }

    fn wake(&mut self, key: Key) {
        if let Some(Task { id: Some(_), wake }) = self.tasks.get(&key) {
            wake.notify_one();
            return;
        }
        let host = Arc::clone(&self.host);
        let wake = Arc::new(Notify::new());
        let work: Box<dyn Work> = match key {
            Key::Drive(drive) => Box::new(drive::DriveWork::new(Arc::clone(&host), drive)),
            Key::Job(job) => Box::new(job::JobWork::new(Arc::clone(&host), job, Arc::clone(&wake))),
            Key::Server(server) => Box::new(server::ServerWork::new(Arc::clone(&host), server)),
            Key::Snapshot(snapshot) => {
                Box::new(snapshot::SnapshotWork::new(Arc::clone(&host), snapshot))
            }
        };
        let running = self.running.spawn(serve(host, key, work, Arc::clone(&wake)));
        self.tasks.insert(key, Task { id: Some(running.id()), wake });
    }

    fn joined(&mut self, joined: Result<(Id, Key), JoinError>) {
        match joined {
            Ok((_, key)) => {
                self.tasks.remove(&key);
                // It may have come back while its task was ending.
                if is_known(&self.host, key) {
                    self.wake(key);
                }
            }
            Err(error) => {
                tracing::error!(%error, "a task broke: it is begun again");
                let broken = self.tasks.values_mut().find(|task| task.id == Some(error.id()));
                if let Some(task) = broken {
                    task.id = None;
                }
            }
        }
    }

    fn wake_broken(&mut self) {
        let broken = self.tasks.iter().filter(|(_, task)| task.id.is_none());
        let broken: Vec<Key> = broken.map(|(&key, _)| key).collect();
        broken.into_iter().for_each(|key| self.wake(key));
    }
}

fn is_known(host: &Host, key: Key) -> bool {
    match key {
        Key::Drive(drive) => host.drives.get(drive).is_some(),
        Key::Job(job) => host.jobs.get(job).is_some(),
        Key::Server(server) => host.servers.get(server).is_some(),
        Key::Snapshot(snapshot) => host.snapshots.get(snapshot).is_some(),
    }
}

/// Passes and rests until the object is forgotten or the agent closes.
async fn serve(host: Arc<Host>, key: Key, mut work: Box<dyn Work>, wake: Arc<Notify>) -> Key {
    let mut stirred = host.stirred();
    let mut failures: u32 = 0;
    while !host.closing.is_cancelled() {
        stirred.mark_unchanged();
        let rest = work.pass().await.unwrap_or_else(|error| {
            if failures == 0 {
                tracing::error!(?key, error = %Chain(&error), "a pass failed: it is tried again");
            }
            Rest::Retry
        });
        failures = if rest == Rest::Retry { failures.saturating_add(1) } else { 0 };
        let due = async {
            match rest {
                Rest::Finished => {}
                Rest::Idle => std::future::pending().await,
                // The host outlives its tasks, and so does the sender.
                Rest::Stirred => stirred.changed().await.unwrap_or_default(),
                Rest::Retry => tokio::time::sleep(pause(failures)).await,
            }
        };
        tokio::select! {
            () = due => {}
            () = wake.notified(), if rest != Rest::Finished => {}
            () = host.closing.cancelled() => {}
        }
        if rest == Rest::Finished {
            break;
        }
    }
    key
}

fn pause(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1).min(16);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

/// What the last sweep saw of each run.
#[derive(Default)]
struct Sweep {
    seen: HashMap<ServerId, Phase>,
}

impl Sweep {
    /// The servers of which something changed since the last time.
    async fn changed(&mut self, host: &Host) -> Vec<ServerId> {
        let Ok(observed) = host.hypervisor.observe().await else {
            return Vec::new(); // the passes that need it meet the same failure, and log it
        };
        let now: HashMap<_, _> = observed.into_iter().map(|run| (run.server, run.phase)).collect();
        let then = std::mem::replace(&mut self.seen, now);
        let appeared = self.seen.iter().filter(|(server, phase)| then.get(server) != Some(phase));
        let vanished = then.keys().filter(|server| !self.seen.contains_key(server));
        appeared.map(|(server, _)| server).chain(vanished).copied().collect()
    }
}
