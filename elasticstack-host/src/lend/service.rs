//! The process that lends: it serves borrowers over iSCSI and does what the agent asks over its
//! socket. It outlives the agent, and keeps nothing: what it lends is what it was told.
//!
//! It has no more than it needs. The agent gives it the open files of drives, and once it listens it
//! gives up root, if it has that, with every way back.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use elasticstack_core::block::{Lend as _, LendId, LendSpec};
use elasticstack_core::prelude::*;
use nix::sys::prctl;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::unistd::{Gid, Uid, User};
use tokio::sync::Semaphore;

use super::control::{Answer, Ask, Channel, VERSION, lend_of, parse};
use super::file::FileVolume;
use super::in_process::InProcessLender;
use crate::iscsi::IscsiServer;

/// The most connections of agents; there is one agent, which may be just taking the place of one.
const AGENTS: usize = 8;

/// The most threads that serve borrowers, each of them a part.
const THREADS: usize = 4;

/// How the process is told to be.
#[derive(Debug, Clone)]
pub struct Service {
    /// The agent's socket, in a directory that is the agent's alone.
    pub socket: PathBuf,
    /// Where borrowers connect.
    pub listen: SocketAddr,
    /// Who it is from then on, if it is started by root.
    pub user: Option<String>,
}

impl Service {
    /// Serves until it is killed.
    ///
    /// # Errors
    /// If it can't listen, or can't become who it is to be.
    pub fn run(self) -> Result<()> {
        let (borrowers, agents) = (self.listen()?, self.listen_to_agents()?);
        self.give_up_privileges()?;
        runtime()?.block_on(serve(borrowers, agents))
    }

    fn listen(&self) -> Result<TcpListener> {
        let failed = |error| {
            Error::internal(format!("listening for borrowers on {}", self.listen)).source(error)
        };
        let listener = TcpListener::bind(self.listen).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(listener)
    }

    /// Takes the socket's place. Whoever starts this sees to it that no other process has it.
    fn listen_to_agents(&self) -> Result<UnixListener> {
        let path = &self.socket;
        let failed = |error| {
            Error::internal(format!("listening for the agent at {}", path.display())).source(error)
        };
        match fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(failed(error));
            }
            _ => {}
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        // Between the two only the directory keeps others out.
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(listener)
    }

    /// Before there is a second thread.
    fn give_up_privileges(&self) -> Result<()> {
        let failed = |what| move |error: nix::Error| Error::internal(what).source(error);
        // As many open files as may be: three of each lend, and one of each session.
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).map_err(failed("asking for limits"))?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most).map_err(failed("setting limits"))?;
        // Secrets and drives' bytes are in its memory.
        setrlimit(Resource::RLIMIT_CORE, 0, 0).map_err(failed("setting limits"))?;
        if let Some(name) = &self.user
            && Uid::effective().is_root()
        {
            let found = User::from_name(name).map_err(failed("looking for a user"))?;
            let user = found.ok_or_else(|| {
                Error::internal(format!("there is no user {name:?} to lend drives: make one"))
            })?;
            become_user(user.uid, user.gid).map_err(failed("becoming another user"))?;
        }
        prctl::set_no_new_privs().map_err(failed("giving up new privileges"))?;
        // After the change of user, which resets it: nobody else looks into its memory.
        prctl::set_dumpable(false).map_err(failed("keeping others out of its memory"))
    }
}

fn become_user(uid: Uid, gid: Gid) -> nix::Result<()> {
    nix::unistd::setgroups(&[gid])?;
    nix::unistd::setresgid(gid, gid, gid)?;
    nix::unistd::setresuid(uid, uid, uid)
}

/// A runtime of one thread. All that a connection does is done by the thread that took it: handing
/// work over to another costs more than most of it.
fn runtime() -> Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::internal("starting a runtime").source(error))
}

/// Serves borrowers by one more thread.
fn serve_beside(server: IscsiServer, borrowers: TcpListener) -> Result<()> {
    let runtime = runtime()?;
    let serve = move || {
        let served = runtime.block_on(async {
            let borrowers = tokio::net::TcpListener::from_std(borrowers).map_err(listening)?;
            server.serve(borrowers).await
        });
        if let Err(error) = served {
            tracing::error!(error = %Chain(&error), "a thread takes no borrowers any more");
        }
    };
    let thread = std::thread::Builder::new().name("borrowers".to_owned()).spawn(serve);
    thread.map(drop).map_err(|error| Error::internal("starting a thread").source(error))
}

fn listening(error: std::io::Error) -> Error {
    Error::internal("listening").source(error)
}

async fn serve(borrowers: TcpListener, agents: UnixListener) -> Result<()> {
    let threads = std::thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS));
    let more: Result<Vec<_>, _> = (1..threads).map(|_| borrowers.try_clone()).collect();
    let borrowers = tokio::net::TcpListener::from_std(borrowers).map_err(listening)?;
    let agents = tokio::net::UnixListener::from_std(agents).map_err(listening)?;
    let lender = InProcessLender::new(borrowers)?;
    for borrowers in more.map_err(listening)? {
        serve_beside(lender.server().clone(), borrowers)?;
    }
    let shared = Arc::new(Shared { lender, files: Mutex::default() });
    let places = Arc::new(Semaphore::new(AGENTS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return Ok(()) };
        let stream = match agents.accept().await {
            Ok((stream, _)) => stream,
            // What is lent goes on, whatever becomes of the agent.
            Err(error) => {
                tracing::warn!(%error, "the agent can't be heard now");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let shared = Arc::clone(&shared);
        tokio::spawn(async move {
            if let Err(error) = shared.converse(Channel::new(stream)).await {
                tracing::warn!(%error, "an agent was hung up on");
            }
            drop(place);
        });
    }
}

struct Shared {
    lender: InProcessLender,
    /// The files of what is lent.
    files: Mutex<BTreeMap<LendId, Arc<FileVolume>>>,
}

impl Shared {
    async fn converse(&self, mut channel: Channel) -> std::io::Result<()> {
        while let Some((line, files)) = channel.receive().await? {
            let answer = match parse(&line) {
                Ok(ask) => self.answer(ask, files).await,
                Err(error) => Err(error),
            };
            let answer = answer.unwrap_or_else(|error| {
                tracing::warn!(error = %Chain(&error), "what the agent asks is not done");
                Answer::failed(&error)
            });
            channel.send(&answer, &[]).await?;
        }
        Ok(())
    }

    async fn answer(&self, ask: Ask, files: Vec<OwnedFd>) -> Result<Answer> {
        match ask {
            Ask::Hello { version: _ } => {
                Ok(Answer::Hello { version: VERSION, portal: self.lender.portal() })
            }
            Ask::Lend(terms) => {
                self.lend(&terms.try_into()?, files).await?;
                Ok(Answer::Done)
            }
            Ask::Withdraw { target } => {
                let lend = lend_of(&target)?;
                self.lender.withdraw(lend).await?;
                self.files().remove(&lend);
                Ok(Answer::Done)
            }
            Ask::Lent => {
                let lent = self.lender.lent().await?;
                Ok(Answer::Lent { targets: lent.into_iter().map(LendId::target).collect() })
            }
        }
    }

    async fn lend(&self, spec: &LendSpec, files: Vec<OwnedFd>) -> Result<()> {
        let mut files = files.into_iter().map(File::from);
        let Some(file) = files.next() else {
            return Err(Error::new(ErrorKind::InvalidValue, "a lend comes with its drive's file"));
        };
        let known = self.files().get(&spec.lend).cloned();
        let volume = match known {
            Some(known) if known.is_of(&file) => {
                known.measure()?;
                known
            }
            Some(_) => {
                return Err(Error::new(
                    ErrorKind::ChangedMeanwhile,
                    format!("{} is of another file: withdraw it first", spec.lend),
                ));
            }
            // Its lock tells that this process is gone.
            None => Arc::new(FileVolume::new(file, files.next(), std::io::stdin().as_fd())?),
        };
        self.lender.lend(spec, Arc::clone(&volume) as _).await?;
        self.files().entry(spec.lend).or_insert(volume);
        Ok(())
    }

    fn files(&self) -> MutexGuard<'_, BTreeMap<LendId, Arc<FileVolume>>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
