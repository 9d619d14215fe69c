//! A lender whose lends are served by a process of their own, which this starts where none runs and
//! otherwise finds, so that they go on while the agent does not.
//!
//! The process holds the lock of its directory's file `lock` as long as any thread of it lives, or a
//! write of it that the kernel has: that file is its standard input. If the process dies, nothing is lent any more, and the next call
//! starts another.

use std::fs::{DirBuilder, File, OpenOptions};
use std::io;
use std::net::SocketAddr;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use elasticstack_core::block::{Attachment, Lend, LendId, LendSpec, Volume, Writing};
use elasticstack_core::prelude::*;
use nix::fcntl::OFlag;
use rustix::fs::FlockOperation;
use tokio::net::UnixStream;
use tokio::sync::Semaphore;
use tokio::time::{Instant, sleep, timeout};

use super::control::{Answer, Ask, Channel, Terms, VERSION, answer, lend_of};
use crate::guests::Scope;
use crate::sys::process::Process;

/// How long a process that was just started may take to answer.
const START: Duration = Duration::from_secs(20);

/// How long an answer may take; a withdrawal waits for its I/O.
const PATIENCE: Duration = Duration::from_secs(30);

/// How many ask at a time; the process hears twice as many.
const AT_ONCE: usize = 4;

/// How often a process that is starting is looked for.
const POLL: Duration = Duration::from_millis(10);

/// How the process is started.
#[derive(Debug, Clone)]
pub struct ProcessConfig {
    /// The program `elasticstack-target`.
    pub program: PathBuf,
    /// A directory of the agent's own, made if it is not there.
    pub dir: PathBuf,
    /// Where borrowers connect.
    pub listen: SocketAddr,
    /// Who the process is, if the agent is root.
    pub user: Option<String>,
    /// Where the process belongs.
    pub scope: Scope,
}

impl ProcessConfig {
    /// Waits until no process holds the lock, and becomes the one that does; where the system's own
    /// supervisor starts it, and not the agent. Blocks. Returns only if that fails.
    #[must_use]
    pub fn become_process(&self) -> Error {
        let failed = internal("becoming the process that lends");
        let locked = open(&self.dir).and_then(|lock| {
            rustix::fs::flock(&lock, FlockOperation::LockExclusive)?;
            Ok(lock)
        });
        let lock = match locked {
            Ok(lock) => lock,
            Err(error) => return failed(error),
        };
        let mut command = Command::new(&self.program);
        self.tell(&mut command, lock);
        failed(command.exec())
    }

    /// What the process is told, and the lock that it holds.
    fn tell(&self, command: &mut Command, lock: File) {
        command
            .arg("--socket")
            .arg(self.dir.join("socket"))
            .args(["--listen", &self.listen.to_string()])
            .env_clear()
            .stdin(Stdio::from(lock))
            .current_dir("/");
        if let Some(path) = std::env::var_os("PATH") {
            command.env("PATH", path);
        }
        if let Some(user) = &self.user {
            command.args(["--user", user]);
        }
    }
}

/// Lends by a process that outlives this one.
#[derive(Debug)]
pub struct ProcessLender {
    config: ProcessConfig,
    portal: Mutex<SocketAddr>,
    /// The turns of those that ask: one that waits for a disk holds up no other.
    turns: Semaphore,
    /// The connections that nobody asks by now.
    idle: Mutex<Vec<Channel>>,
    /// The process, if this one started it. Held by whoever looks for it, or starts it.
    child: tokio::sync::Mutex<Option<Process>>,
}

impl ProcessLender {
    /// Finds the process, or starts it.
    ///
    /// # Errors
    /// `Internal` if it does not start.
    pub async fn open(config: ProcessConfig) -> Result<Self> {
        let portal = Mutex::new(config.listen);
        let (idle, child) = (Mutex::default(), tokio::sync::Mutex::default());
        let lender = Self { config, portal, turns: Semaphore::new(AT_ONCE), idle, child };
        lender.lent().await?;
        Ok(lender)
    }

    /// Asks, and once more of another process if that one has just died. Every ask may be repeated.
    async fn ask(&self, ask: &Ask, files: &[File]) -> Result<Answer> {
        // It is never closed.
        let _turn = self.turns.acquire().await;
        let mut failure = None;
        for _ in 0..2 {
            // Out of its place: given up on in the middle, it is not asked again.
            let idle = self.idle().pop();
            let mut channel = match idle {
                Some(channel) => channel,
                None => self.connect().await?,
            };
            let files: Vec<_> = files.iter().map(File::as_fd).collect();
            let exchange = async {
                channel.send(ask, &files).await?;
                hear(&mut channel).await
            };
            match timeout(PATIENCE, exchange).await {
                Ok(Ok(answer)) => {
                    self.idle().push(channel);
                    return answer.checked();
                }
                Ok(Err(error)) => {
                    // The others are of the same process.
                    self.idle().clear();
                    failure = Some(error);
                }
                Err(_) => failure = Some(io::ErrorKind::TimedOut.into()),
            }
        }
        let failure = failure.unwrap_or_else(|| io::ErrorKind::NotConnected.into());
        Err(unavailable("asking the process that lends").source(failure))
    }

    /// Connects to the process, which is started if none runs.
    async fn connect(&self) -> Result<Channel> {
        let mut child = self.child.lock().await;
        let deadline = Instant::now() + START;
        loop {
            let failure = match self.greet().await {
                Ok(channel) => return Ok(channel),
                Err(failure) => failure,
            };
            let gone = match &mut *child {
                // Asked so that it is reaped.
                Some(process) => process.has_exited().map_err(internal("watching a process"))?,
                None => true,
            };
            if gone {
                let ended = child.take().is_some();
                if ended {
                    tracing::error!(
                        dir = %self.config.dir.display(),
                        "the process that lends has died, and with it every lend"
                    );
                }
                let config = self.config.clone();
                let started = tokio::task::spawn_blocking(move || start(&config));
                let started = started.await.map_err(internal("starting the process that lends"))?;
                *child = started?;
            }
            if Instant::now() >= deadline {
                let log = self.config.dir.join("log");
                return Err(unavailable("starting the process that lends")
                    .context(format!("it does not answer, see {}", log.display()))
                    .source(failure));
            }
            sleep(POLL).await;
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Channel>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn greet(&self) -> io::Result<Channel> {
        let socket = self.config.dir.join("socket");
        let stream = timeout(PATIENCE, UnixStream::connect(socket)).await??;
        let mut channel = Channel::new(stream);
        channel.send(&Ask::Hello { version: VERSION }, &[]).await?;
        match timeout(PATIENCE, hear(&mut channel)).await?? {
            Answer::Hello { version, portal } => {
                tracing::info!(version, %portal, "connected to the process that lends");
                *self.portal.lock().unwrap_or_else(PoisonError::into_inner) = portal;
                Ok(channel)
            }
            other => Err(io::Error::other(format!("it answers hello with {other:?}"))),
        }
    }
}

async fn hear(channel: &mut Channel) -> io::Result<Answer> {
    match channel.receive().await? {
        Some((line, _)) => answer(&line),
        None => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Starts the process, unless one holds the lock: that one is just starting, or ending. Blocks.
fn start(config: &ProcessConfig) -> Result<Option<Process>> {
    let failed = internal("starting the process that lends");
    let lock = open(&config.dir).map_err(&failed)?;
    match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
        Err(rustix::io::Errno::WOULDBLOCK) => return Ok(None),
        locked => locked.map_err(|error| failed(error.into()))?,
    }
    let log = File::create(config.dir.join("log")).map_err(&failed)?;
    let mut command = config.scope.command("target of iSCSI");
    command.arg(&config.program);
    config.tell(&mut command, lock);
    command.stdout(Stdio::from(log.try_clone().map_err(&failed)?)).stderr(Stdio::from(log));
    let child = command.spawn().map_err(&failed)?;
    let process = Process::of_child(&child).map_err(&failed)?;
    config.scope.enclose("target", &process).map_err(&failed)?;
    Ok(Some(process))
}

/// The directory's lock file, which is made with it.
fn open(dir: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    options.open(dir.join("lock"))
}

#[async_trait]
impl Lend for ProcessLender {
    fn portal(&self) -> SocketAddr {
        *self.portal.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn lend(&self, spec: &LendSpec, volume: Arc<dyn Volume>) -> Result<()> {
        let Some(Attachment::File(path)) = volume.attachment() else {
            return Err(Error::new(
                ErrorKind::NotOffered,
                "a drive that is no file of this host can't be lent by a process of its own",
            ));
        };
        let may_write = spec.writing == Writing::Allowed;
        let opened = tokio::task::spawn_blocking(move || -> io::Result<Vec<File>> {
            let file = OpenOptions::new().read(true).write(may_write).open(&path)?;
            let mut past = OpenOptions::new();
            past.write(true).custom_flags(OFlag::O_DIRECT.bits());
            // Not every file system has it, and then the process does without.
            let past = may_write.then(|| past.open(&path).ok()).flatten();
            Ok([file].into_iter().chain(past).collect())
        });
        let files = opened
            .await
            .map_err(internal("opening a drive"))?
            .map_err(|error| Error::internal("opening a drive's file to lend it").source(error))?;
        self.ask(&Ask::Lend(Terms::from(spec)), &files).await.map(drop)
    }

    async fn withdraw(&self, lend: LendId) -> Result<()> {
        self.ask(&Ask::Withdraw { target: lend.target() }, &[]).await.map(drop)
    }

    async fn lent(&self) -> Result<Vec<LendId>> {
        match self.ask(&Ask::Lent, &[]).await? {
            Answer::Lent { targets } => targets.iter().map(|target| lend_of(target)).collect(),
            other => Err(Error::internal(format!("the process that lends answers with {other:?}"))),
        }
    }
}

fn unavailable(context: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, "drives can't be lent or withdrawn now: try again later")
        .context(context)
}

fn internal<E: std::error::Error + Send + Sync + 'static>(
    context: &'static str,
) -> impl Fn(E) -> Error {
    move |error| Error::internal(context).source(error)
}
