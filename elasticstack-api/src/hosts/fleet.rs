//! All hosts of a cloud, and the tasks that keep them and the intent for them together.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes as Data;
use elasticstack_core::prelude::*;

use super::client::{HostClient, Patience};
use super::dial::Dial;
use super::follow::{Outages, follow, push};
use super::tasks::Tasks;
use crate::app::{App, DataPath, HostRecord};

/// How often deadlines are applied and usage is handed over.
const TICK: Duration = Duration::from_secs(1);

/// The way to every host. It exists before the use cases, which read and write drives through it,
/// and works for them once [`Fleet::spawn`] gives it them. Its tasks keep both alive until it is
/// stopped.
pub struct Fleet {
    dial: Arc<dyn Dial>,
    patience: Patience,
    clients: Mutex<HashMap<HostId, Arc<HostClient>>>,
    tasks: Tasks,
}

impl Fleet {
    /// A fleet of no hosts yet.
    #[must_use]
    pub fn new(dial: Arc<dyn Dial>, patience: Patience) -> Self {
        Self { dial, patience, clients: Mutex::default(), tasks: Tasks::default() }
    }

    /// Takes up the hosts that `app` knows and begins to serve them, and those added later.
    ///
    /// # Errors
    /// What [`App::hosts`] fails with; nothing runs then.
    pub async fn spawn(self: &Arc<Self>, app: &Arc<App>) -> Result<()> {
        for host in app.hosts().await? {
            self.enlist(app, host);
        }
        self.tasks.spawn(enlist_newcomers(Arc::clone(self), Arc::clone(app)));
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

    fn enlist(&self, app: &Arc<App>, host: HostRecord) {
        let mut clients = self.lock();
        if clients.contains_key(&host.host) {
            return;
        }
        let id = host.host;
        let client =
            HostClient::new(host, Arc::clone(&self.dial), self.tasks.clone(), self.patience);
        let client = Arc::new(client);
        clients.insert(id, Arc::clone(&client));
        drop(clients);
        self.tasks.spawn(push(Arc::clone(app), Arc::clone(&client)));
        self.tasks.spawn(follow(Arc::clone(app), client));
    }

    fn client(&self, host: HostId) -> Result<Arc<HostClient>> {
        self.lock().get(&host).cloned().ok_or_else(|| {
            Error::new(
                ErrorKind::Unavailable,
                "the host of this object is not connected yet: try again, nothing is lost",
            )
            .context(format!("{host:?}"))
        })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<HostId, Arc<HostClient>>> {
        // No code that could panic runs under this lock.
        self.clients.lock().unwrap_or_else(PoisonError::into_inner)
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

    async fn write(&self, host: HostId, drive: DriveId, offset: Bytes, data: Data) -> Result<()> {
        self.client(host)?.write(drive, offset, data).await
    }

    async fn serial(&self, host: HostId, server: ServerId) -> Result<Data> {
        self.client(host)?.serial(server).await
    }
}

async fn enlist_newcomers(fleet: Arc<Fleet>, app: Arc<App>) {
    let mut changes = app.changes();
    let mut outages = Outages::new("taking up hosts that were added");
    loop {
        changes.borrow_and_update();
        match app.hosts().await {
            Ok(hosts) => {
                outages.over();
                hosts.into_iter().for_each(|host| fleet.enlist(&app, host));
                if changes.changed().await.is_err() {
                    return;
                }
            }
            Err(error) => outages.wait_after(&error).await,
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
