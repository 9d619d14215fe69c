//! All hosts of a cloud, and the tasks that keep them and the intent for them together.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes as Data;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::{Counts, CountsOf};
use tokio::sync::Notify;
use tokio::time::Instant;

use super::client::{HostClient, Patience};
use super::dial::Dial;
use super::follow::{Outages, follow, push};
use super::tasks::Tasks;
use crate::app::{App, DataPath, Export, HostRecord, LEASE, Screen};

/// How often deadlines are applied and usage is handed over.
const TICK: Duration = Duration::from_secs(1);

/// The least time from one look at everything that is to be sent to the next, however much changes.
const SURVEY: Duration = Duration::from_millis(100);

/// The least time from one look for new hosts to the next, however much changes.
const LOOK: Duration = Duration::from_millis(200);

/// The way to every host. It exists before the use cases, which read and write drives through it,
/// and works for them once [`Fleet::spawn`] gives it them. Its tasks keep both alive until it is
/// stopped.
pub struct Fleet {
    dial: Arc<dyn Dial>,
    patience: Patience,
    hosts: Mutex<HashMap<HostId, Host>>,
    tasks: Tasks,
}

struct Host {
    client: Arc<HostClient>,
    /// Rings when there is something to be sent.
    call: Arc<Notify>,
    /// The tasks of its connection.
    connection: Tasks,
    /// The tasks that send and follow, while its lease is ours.
    work: Option<Tasks>,
}

impl Host {
    /// Speaks with it no more.
    fn stop(&self) {
        self.work.iter().for_each(Tasks::stop);
        self.connection.stop();
    }
}

impl Fleet {
    /// A fleet of no hosts yet.
    #[must_use]
    pub fn new(dial: Arc<dyn Dial>, patience: Patience) -> Self {
        Self { dial, patience, hosts: Mutex::default(), tasks: Tasks::default() }
    }

    /// Takes up the hosts that `app` knows and begins to serve them, and those added later.
    ///
    /// # Errors
    /// What [`App::hosts`] fails with; nothing runs then.
    pub async fn spawn(self: &Arc<Self>, app: &Arc<App>) -> Result<()> {
        self.enlist(app.hosts().await?);
        self.tasks.spawn(keep_leases(Arc::clone(self), Arc::clone(app)));
        self.tasks.spawn(call_pushers(Arc::clone(self), Arc::clone(app)));
        self.tasks.spawn(tick(Arc::clone(app)));
        Ok(())
    }

    /// Begins to end all work for hosts, without waiting.
    pub fn stop(&self) {
        self.tasks.stop();
    }

    /// Ends all work for hosts and waits until it has ended. Hosts go on by themselves.
    pub async fn close(&self) {
        self.tasks.close().await;
        self.lock().clear();
    }

    /// Makes the ways to hosts that have none, ends those to hosts that may not be spoken with any
    /// more or are to be reached otherwise, and says whether there are new ones.
    fn enlist(&self, known: Vec<HostRecord>) -> Newcomers {
        let mut hosts = self.lock();
        let known: HashMap<HostId, HostRecord> =
            known.into_iter().map(|record| (record.host, record)).collect();
        hosts.retain(|id, host| {
            let stays = known.get(id) == Some(host.client.record());
            if !stays {
                host.stop();
            }
            stays
        });
        let before = hosts.len();
        for (id, record) in known {
            hosts.entry(id).or_insert_with(|| {
                let (dial, connection) = (Arc::clone(&self.dial), self.tasks.branch());
                let tasks = connection.clone();
                let client = Arc::new(HostClient::new(record, dial, tasks, self.patience));
                Host { client, call: Arc::default(), connection, work: None }
            });
        }
        if hosts.len() > before { Newcomers::Some } else { Newcomers::None }
    }

    /// How many hosts are known here.
    fn count(&self) -> u64 {
        u64::try_from(self.lock().len()).unwrap_or(u64::MAX)
    }

    /// Works for the hosts in `held` and for no others.
    fn work_for(&self, app: &Arc<App>, held: &BTreeSet<HostId>) {
        for (id, host) in self.lock().iter_mut() {
            if !held.contains(id) {
                if let Some(work) = host.work.take() {
                    tracing::warn!(host_id = %id, "another server works for the host now");
                    work.stop();
                }
            } else if host.work.is_none() {
                let work = self.tasks.branch();
                let (client, call) = (Arc::clone(&host.client), Arc::clone(&host.call));
                work.spawn(push(Arc::clone(app), Arc::clone(&client), call));
                work.spawn(follow(Arc::clone(app), client));
                host.work = Some(work);
            }
        }
    }

    /// Wakes the senders of these hosts.
    fn call(&self, waiting: impl IntoIterator<Item = HostId>) {
        let hosts = self.lock();
        waiting.into_iter().filter_map(|id| hosts.get(&id)).for_each(|host| {
            host.call.notify_one();
        });
    }

    fn client(&self, host: HostId) -> Result<Arc<HostClient>> {
        self.lock().get(&host).map(|host| Arc::clone(&host.client)).ok_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                "the host of this object is not connected yet: try again, nothing is lost",
            )
            .context(format!("{host:?}"))
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HostId, Host>> {
        // No code that could panic runs under this lock.
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Fleet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fleet").field("hosts", &self.lock().len()).finish_non_exhaustive()
    }
}

#[async_trait]
impl DataPath for Fleet {
    async fn read(
        &self,
        host: HostId,
        drive: DriveId,
        offset: Bytes,
        length: Bytes,
    ) -> Result<Data> {
        self.client(host)?.read(drive, offset, length).await
    }

    async fn export(&self, host: HostId, drive: DriveId) -> Result<Export> {
        self.client(host)?.export(drive).await
    }

    async fn write(&self, host: HostId, drive: DriveId, offset: Bytes, data: Data) -> Result<()> {
        self.client(host)?.write(drive, offset, data).await
    }

    async fn serial(&self, host: HostId, server: ServerId) -> Result<Data> {
        self.client(host)?.serial(server).await
    }

    async fn counts(&self, host: HostId, of: CountsOf) -> Result<Counts> {
        self.client(host)?.counts(&of).await
    }

    async fn screen(&self, host: HostId, server: ServerId, run: Run) -> Result<Box<dyn Screen>> {
        self.client(host)?.screen(server, run).await
    }
}

/// Whether hosts were added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Newcomers {
    None,
    Some,
}

/// Takes up hosts that were added, and works for those whose leases it can have.
async fn keep_leases(fleet: Arc<Fleet>, app: Arc<App>) {
    let mut changes = app.changes();
    let mut outages = Outages::new("leasing hosts");
    let mut renewal = Instant::now();
    loop {
        changes.borrow_and_update();
        match look_after(&fleet, &app, &mut renewal).await {
            Ok(()) => outages.over(),
            Err(error) => {
                outages.wait_after(&error).await;
                continue;
            }
        }
        tokio::time::sleep(LOOK).await;
        tokio::select! {
            changed = changes.changed() => if changed.is_err() { return },
            () = tokio::time::sleep_until(renewal) => {}
        }
    }
}

async fn look_after(fleet: &Fleet, app: &Arc<App>, renewal: &mut Instant) -> Result<()> {
    // One that joined again or moved is as many as before.
    let is_due = *renewal <= Instant::now();
    let newcomers = if is_due || app.host_count().await? != fleet.count() {
        fleet.enlist(app.hosts().await?)
    } else {
        Newcomers::None
    };
    if newcomers == Newcomers::Some || is_due {
        fleet.work_for(app, &app.lease_hosts().await?);
        *renewal = Instant::now() + LEASE / 3;
    }
    Ok(())
}

/// Has whatever was written down for a host sent: at once what this process wrote down, and soon
/// what others did, or what was left when its sender was not yet at work.
async fn call_pushers(fleet: Arc<Fleet>, app: Arc<App>) {
    let mut changes = app.changes();
    let mut outages = Outages::new("looking for what is to be sent");
    loop {
        changes.borrow_and_update();
        match app.hosts_to_tell().await {
            Ok(waiting) => {
                outages.over();
                fleet.call(waiting);
            }
            Err(error) => {
                outages.wait_after(&error).await;
                continue;
            }
        }
        let pause = async {
            tokio::time::sleep(SURVEY).await;
            changes.changed().await
        };
        let mut pause = std::pin::pin!(pause);
        loop {
            tokio::select! {
                queued = app.hosts_queued_for() => fleet.call(queued),
                changed = &mut pause => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
            }
        }
    }
}

async fn tick(app: Arc<App>) {
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut deadlines = Outages::new("applying deadlines");
    let mut usage = Outages::new("handing usage over");
    loop {
        ticks.tick().await;
        match app.deadlines().await {
            Ok(()) => deadlines.over(),
            Err(error) => deadlines.note(&error),
        }
        match app.forward_usage().await {
            Ok(()) => usage.over(),
            Err(error) => usage.note(&error),
        }
    }
}
