//! Runs guests, each in a process of its own: the implementation of [`Hypervisor`], [`Console`] and
//! [`Counters`] for this host.
//!
//! Owns the processes of one runtime directory, from their first instruction to their last. What they
//! are is a [`Vmm`]'s to say: QEMU ([`crate::qemu`]), our own ([`crate::kvm`]) or either ([`ByKind`]), all of
//! which speak the QEMU Machine Protocol. Does not own drives: it is told which files to attach, and the caller holds
//! their claims.
//!
//! A guest outlives this process. Invariants, whenever this process is killed:
//! - A server's lock file is open and locked as the standard input of its one process, and of
//!   nothing else for long: while it is locked no second one can start, and when it is free none
//!   lives (`dir.rs`).
//! - What a run came to is on disk before it matters (`start.rs`), and a guest that ends itself
//!   waits, paused, until its ending is recorded (`guest.rs`).

mod by_kind;
mod changes;
pub mod conformance;
mod counts;
mod dir;
mod guest;
mod iso9660;
pub(crate) mod nodes;
mod phase;
mod plug;
mod qmp;
pub mod qmp_codec;
mod reach;
mod scope;
mod screen;
mod seed;
mod serial;
mod start;
mod throttle;
mod vmm;

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use elasticstack_core::error::{Error, ErrorKind, Result};
use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::{
    Console, Counters, Device, DriveSlot, Hypervisor, IoCounts, Observed, Phase, ServerSpec, Signal,
};
use elasticstack_core::id::ServerId;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

pub use self::by_kind::ByKind;
use self::changes::Changes;
use self::dir::{ServerDir, Stage};
use self::guest::{Guest, Wish};
pub use self::nodes::process_name;
use self::reach::reach_more;
pub use self::scope::Scope;
pub use self::vmm::{Launch, Vmm};

/// The agent's socket, in a server's directory.
pub(crate) const QMP_SOCKET: &str = "qmp";
/// The operator's socket, in a server's directory.
pub(crate) const OPERATOR_SOCKET: &str = "operator.qmp";
/// The CD that tells a guest who it is, in a server's directory.
pub(crate) const SEED: &str = "seed.iso";
/// How long is waited for the process before us to leave the runtime directory.
const PREDECESSOR: Duration = Duration::from_secs(5);
/// How long a guest may take to let go of a drive before that is said of it.
const LET_GO: Duration = Duration::from_secs(5);
/// How soon it is looked again whether it has.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// Where guests are run.
#[derive(Debug, Clone)]
pub struct GuestsConfig {
    /// One directory a server is kept here; made if need be. It belongs on a local file system
    /// that outlives a restart of the host: only then is a run that the restart ended told as
    /// `Lost`, and not started again.
    pub runtime_dir: PathBuf,
    /// Where their processes are put.
    pub scope: Scope,
}

/// Runs guests.
///
/// Dropping it, or [`Guests::close`], leaves the guests running; the next [`Guests::open`] of the same
/// directory adopts them.
pub struct Guests {
    shared: Arc<Shared>,
    servers: Arc<Mutex<HashMap<ServerId, Arc<Server>>>>,
}

/// What every task of one [`Guests`] needs.
#[derive(Debug)]
struct Shared {
    root: PathBuf,
    vmm: Arc<dyn Vmm>,
    scope: Scope,
    changes: Changes,
    closing: CancellationToken,
    tasks: TaskTracker,
    /// Held so that no other process acts on this directory.
    _lock: File,
}

/// One server, while anything of it exists or is being made.
#[derive(Debug, Default)]
struct Server {
    /// Held by the one call that changes what exists.
    turn: tokio::sync::Mutex<()>,
    guest: Mutex<Option<Arc<Guest>>>,
}

impl Guests {
    /// Takes charge of a runtime directory and adopts the guests that run there; new ones are run by `vmm`.
    ///
    /// # Errors
    /// `Unavailable` if another process is in charge of it; `Internal` if it can't be used, or
    /// if what it says about a guest can't be understood.
    pub async fn open(config: GuestsConfig, vmm: impl Vmm + 'static) -> Result<Self> {
        let GuestsConfig { runtime_dir, scope } = config;
        let prepare = move || {
            DirBuilder::new().recursive(true).mode(0o700).create(&runtime_dir)?;
            let root = fs::canonicalize(runtime_dir)?;
            let lock = File::create(root.join("agent.lock"))?;
            Ok((root, lock))
        };
        let (root, lock) = blocking("preparing the runtime directory", prepare).await?;
        let deadline = Instant::now() + PREDECESSOR;
        while let Err(error) = lock.try_lock() {
            if Instant::now() >= deadline {
                let message = "another agent is in charge of this host's guests: end it first";
                return Err(Error::new(ErrorKind::Unavailable, message)
                    .context(format!("locking {}", root.join("agent.lock").display()))
                    .source(error));
            }
            sleep(Duration::from_millis(20)).await;
        }
        let guests = Self {
            shared: Arc::new(Shared {
                root,
                vmm: Arc::new(vmm),
                scope,
                changes: Changes::default(),
                closing: CancellationToken::new(),
                tasks: TaskTracker::new(),
                _lock: lock,
            }),
            servers: Arc::default(),
        };
        guests.adopt().await?;
        Ok(guests)
    }

    /// Ends all tasks; guests go on. A start that is under way is finished first.
    pub async fn close(self) {
        self.shared.closing.cancel();
        self.shared.tasks.close();
        self.shared.tasks.wait().await;
    }

    async fn adopt(&self) -> Result<()> {
        let root = self.shared.root.clone();
        let list = move || -> io::Result<Vec<_>> {
            let mut found = Vec::new();
            for entry in fs::read_dir(&root)? {
                let name = entry?.file_name();
                if let Some(server) = name.to_str().and_then(|name| name.parse().ok()) {
                    let dir = ServerDir::open(&root, server)?;
                    let record = dir.record().map_err(|error| {
                        let path = dir.path().display();
                        io::Error::other(format!("{path}/run.json is not understood: {error}"))
                    })?;
                    found.push((server, Arc::new(dir), record));
                }
            }
            Ok(found)
        };
        let mut adopted = Vec::new();
        for (server, dir, record) in blocking("reading the runtime directory", list).await? {
            match record {
                Some(record) if record.stage != Stage::Starting => {
                    let guest = Guest::follow(&self.shared, server, dir, record, None);
                    adopted.push((server, Arc::new(guest)));
                }
                // Nothing of it has ever run.
                started => {
                    let run = started.map_or(Run::default(), |record| record.run);
                    warn!(server_id = %server, %run, "a start that was cut short is undone");
                    start::clear(&self.shared, &dir, server, run).await?;
                }
            }
        }
        join_all(adopted.iter().map(|(_, guest)| guest.known())).await;
        let mut servers = lock(&self.servers);
        for (server, guest) in adopted {
            info!(server_id = %server, run = %guest.run, phase = ?guest.phase(), "a run is adopted");
            let turn = tokio::sync::Mutex::default();
            servers.insert(server, Arc::new(Server { turn, guest: Mutex::new(Some(guest)) }));
        }
        Ok(())
    }

    fn guest(&self, server: ServerId) -> Result<Arc<Guest>> {
        let found = lock(&self.servers).get(&server).and_then(|server| lock(&server.guest).clone());
        found.ok_or_else(|| Error::new(ErrorKind::NotFound, "the server does not run"))
    }

    /// Runs `work` on the server to its end, even if the caller stops waiting, and never two at a
    /// time for one server.
    async fn in_turn<F>(
        &self,
        id: ServerId,
        work: impl FnOnce(Arc<Shared>, Arc<Server>) -> F,
    ) -> Result<()>
    where
        F: Future<Output = Result<()>> + Send + 'static,
    {
        let server = Arc::clone(lock(&self.servers).entry(id).or_default());
        let future = work(Arc::clone(&self.shared), Arc::clone(&server));
        let (shared, servers) = (Arc::clone(&self.shared), Arc::clone(&self.servers));
        let task = self.shared.tasks.spawn(async move {
            let turn = server.turn.lock().await;
            let result = future.await;
            drop(turn);
            shared.changes.announce(id);
            // Two: the map's and ours. Others can only come from the map, which is locked.
            let mut servers = lock(&servers);
            if lock(&server.guest).is_none() && Arc::strong_count(&server) == 2 {
                servers.remove(&id);
            }
            result
        });
        task.await.map_err(|error| Error::internal("a task about a guest").source(error))?
    }
}

impl Drop for Guests {
    fn drop(&mut self) {
        self.shared.closing.cancel();
    }
}

impl fmt::Debug for Guests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guests").field("root", &self.shared.root).finish_non_exhaustive()
    }
}

#[async_trait]
impl Hypervisor for Guests {
    async fn ensure(&self, spec: &ServerSpec, run: Run) -> Result<()> {
        let spec = spec.clone();
        self.in_turn(spec.server, |shared, server| async move {
            let existing = lock(&server.guest).clone();
            match existing {
                Some(guest) => keep(&guest, &spec, run).await,
                None => {
                    let guest = start::start(&shared, &spec, run).await?;
                    *lock(&server.guest) = Some(Arc::new(guest));
                    Ok(())
                }
            }
        })
        .await
    }

    async fn signal(&self, server: ServerId, signal: Signal) -> Result<()> {
        let wish = match signal {
            Signal::PowerButton => Wish::PowerButton,
            Signal::Reset => Wish::Reset,
        };
        self.guest(server)?.request(wish).await
    }

    async fn remove(&self, id: ServerId) -> Result<()> {
        self.in_turn(id, move |shared, server| async move {
            let Some(guest) = lock(&server.guest).clone() else { return Ok(()) };
            guest.expect_end();
            start::cut_power(&guest.dir, id, guest.run).await?;
            guest.settled().await;
            start::clear(&shared, &guest.dir, id, guest.run).await?;
            *lock(&server.guest) = None;
            Ok(())
        })
        .await
    }

    async fn observe(&self) -> Result<Vec<Observed>> {
        let servers = lock(&self.servers);
        let seen = servers.iter().filter_map(|(server, slot)| {
            let guest = lock(&slot.guest);
            guest.as_ref().map(|guest| Observed {
                server: *server,
                run: guest.run,
                phase: guest.phase(),
            })
        });
        Ok(seen.collect())
    }

    fn events(&self) -> BoxStream<'static, ServerId> {
        self.shared.changes.subscribe().boxed()
    }

    fn console(&self) -> Option<&dyn Console> {
        Some(self)
    }

    fn counters(&self) -> Option<&dyn Counters> {
        Some(self)
    }
}

#[async_trait]
impl Console for Guests {
    async fn serial(&self, server: ServerId) -> Result<Vec<u8>> {
        let guest = self.guest(server)?;
        if let Phase::Running | Phase::Paused = guest.phase()
            && let Err(error) = guest.request(Wish::Drain).await
        {
            warn!(server_id = %server, ?error, "the newest serial output is missing");
        }
        let read = move || match fs::read(guest.dir.serial_log()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            log => log,
        };
        blocking("reading a serial log", read).await
    }

    async fn screen(&self, server: ServerId) -> Result<Option<SocketAddr>> {
        Ok(self.guest(server)?.screen.map(screen::socket))
    }
}

#[async_trait]
impl Counters for Guests {
    async fn counts(&self, server: ServerId) -> Result<BTreeMap<Device, IoCounts>> {
        self.guest(server)?.counts().await
    }
}

/// `ensure` of `run` where a run exists.
async fn keep(guest: &Guest, spec: &ServerSpec, run: Run) -> Result<()> {
    if run > guest.run {
        let message = "the server's last run still exists: stop it first";
        return Err(Error::new(ErrorKind::ServerBusy, message));
    }
    let stale = || {
        let message =
            format!("run {run} of the server is over: only a newer one can start it again");
        Error::new(ErrorKind::Stale, message)
    };
    let kept = match guest.phase() {
        Phase::Running if run == guest.run => plug(guest, &spec.drives).await,
        Phase::Paused if run == guest.run => resume(guest, &spec.drives).await,
        Phase::Unresponsive if run == guest.run => {
            Err(Error::new(ErrorKind::Unavailable, "the server does not answer now"))
        }
        _ => Err(stale()),
    };
    kept.map_err(|error| if error.kind() == ErrorKind::NotFound { stale() } else { error })
}

/// Lets a paused guest go on, with these drives. What needs nothing of the guest is done first:
/// once it goes on it may end itself at any time.
async fn resume(guest: &Guest, drives: &[DriveSlot]) -> Result<()> {
    let plugged = match reach_more(guest, drives).await {
        Ok(()) => guest.request(Wish::Plug(drives.into())).await,
        unreached => unreached,
    };
    guest.request(Wish::Resume).await?;
    match plugged {
        Err(error) if error.kind() == ErrorKind::Unavailable => plug(guest, drives).await,
        plugged => plugged,
    }
}

/// Makes the guest's hot drives these, and waits a while for it to let go of others.
async fn plug(guest: &Guest, drives: &[DriveSlot]) -> Result<()> {
    reach_more(guest, drives).await?;
    let drives: Arc<[DriveSlot]> = drives.into();
    let deadline = Instant::now() + LET_GO;
    loop {
        match guest.request(Wish::Plug(Arc::clone(&drives))).await {
            Err(error) if error.kind() == ErrorKind::Unavailable && Instant::now() < deadline => {
                sleep(LOOK_AGAIN).await;
            }
            plugged => return plugged,
        }
    }
}

/// Does what may block, on a thread where that is allowed.
async fn blocking<T: Send + 'static>(
    what: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(Ok(done)) => Ok(done),
        Ok(Err(error)) => Err(Error::internal(what).source(error)),
        Err(error) => Err(Error::internal(what).source(error)),
    }
}

/// No code panics while it holds one of these locks, so what they guard is whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
