//! The agent: takes desired documents over the internal API, keeps them durably, has them made
//! true, and tells what is.
//!
//! Owns the router, the records and the tasks. Does not own guests: closing the agent, or killing
//! it, stops none, and the next agent on the same state directory adopts them.

mod arrays;
mod board;
mod certificate;
mod counts;
mod data;
mod grants;
mod host;
mod http;
mod records;
mod screen;
mod serve;
mod stock;

use std::fmt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use elasticstack_core::block::{BlockStore, Lend};
use elasticstack_core::clock::{Clock, Timestamp};
use elasticstack_core::error::{Error, Result};
use elasticstack_core::hypervisor::{EndCause, Hypervisor, Phase};
use elasticstack_core::id::ServerId;
use elasticstack_core::wire::internal::Ended;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

pub use certificate::Certificate;

pub(crate) use board::Key;
pub(crate) use grants::Holder;
pub(crate) use host::{Host, claims_of, held, is_to_restore};
pub(crate) use records::{JobEnd, Record};

use crate::array::Keeper;
use crate::driver;
use crate::fetch::Fetcher;
use crate::lend::{Borrow, IscsiBorrower};
use crate::reconcile::Past;
use arrays::Desk;
use host::Parts;

/// What a host says of itself in its report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostDescription {
    /// Processor time in all, in MHz.
    pub cpu_mhz: u32,
    /// Memory for guests in all, in MiB.
    pub memory_mib: u32,
    /// What runs guests, such as `kvm` or `software cpu`, and why.
    pub accelerator: String,
    /// How processor time is limited, or `none`.
    pub cpu_limits: String,
    /// Whether it runs containers.
    pub containers: bool,
}

/// The agent of one host.
///
/// Its tasks end with [`Agent::close`]; dropped without it they end by themselves, unjoined.
pub struct Agent {
    host: Arc<Host>,
}

impl Agent {
    /// An agent to be made.
    pub fn builder() -> AgentBuilder {
        AgentBuilder::default()
    }

    /// The whole internal API. Whoever serves it brings the listener, TLS and who may call.
    pub fn router(&self) -> axum::Router {
        http::router(Arc::clone(&self.host))
    }

    /// Serves the internal API to the control plane, and to nobody else, until dropped.
    ///
    /// # Errors
    /// `InvalidValue` if the certificate can't be used.
    pub async fn serve(&self, listener: TcpListener, certificate: &Certificate) -> Result<()> {
        serve::serve(self.router(), listener, certificate).await
    }

    /// Ends every task and waits for it. Guests run on, imaging begins again at the next start,
    /// and calls that arrive later change nothing. Repeating it is harmless.
    ///
    /// # Cancel safety
    /// The tasks end all the same.
    pub async fn close(&self) {
        self.host.closing.cancel();
        self.host.tasks.close();
        self.host.tasks.wait().await;
    }

    /// Closes the agent, then ends every run as cutting the power does and records that it was
    /// stopped from outside, so that only a newer start begins it again.
    ///
    /// # Errors
    /// What the hypervisor or the disk says; runs not yet ended go on. Call again.
    pub async fn stop_guests(&self) -> Result<()> {
        self.close().await;
        let host = &self.host;
        for seen in host.hypervisor.observe().await? {
            if let Phase::Ended(cause) = seen.phase {
                record_end(host, seen.server, cause).await?;
            }
            host.hypervisor.remove(seen.server).await?;
        }
        for record in host.servers.all() {
            record_end(host, record.document.server, EndCause::Stopped).await?;
        }
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.host.closing.cancel();
    }
}

impl fmt::Debug for Agent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Agent").field("boot", &self.host.boot).finish_non_exhaustive()
    }
}

/// Makes an [`Agent`]. All parts but the lender, the borrower, the fetcher, the keeper and the clock must be given.
#[derive(Default)]
#[must_use]
pub struct AgentBuilder {
    state_dir: Option<PathBuf>,
    store: Option<Arc<dyn BlockStore>>,
    lender: Option<Arc<dyn Lend>>,
    borrower: Option<Arc<dyn Borrow>>,
    hypervisor: Option<Arc<dyn Hypervisor>>,
    description: Option<HostDescription>,
    fetcher: Option<Fetcher>,
    keeper: Option<Keeper>,
    clock: Option<Arc<dyn Clock>>,
}

impl AgentBuilder {
    /// Where documents and what was done about them are kept; made if it is absent. One agent at
    /// a time may use it.
    pub fn state_dir(mut self, directory: PathBuf) -> Self {
        self.state_dir = Some(directory);
        self
    }

    /// What keeps drives.
    pub fn store(mut self, store: Arc<dyn BlockStore>) -> Self {
        self.store = Some(store);
        self
    }

    /// What lends this host's drives to servers on others; without one they are not lent.
    pub fn lender(mut self, lender: Arc<dyn Lend>) -> Self {
        self.lender = Some(lender);
        self
    }

    /// What borrows other hosts' drives for jobs; our own iSCSI initiator if none is given.
    pub fn borrower(mut self, borrower: Arc<dyn Borrow>) -> Self {
        self.borrower = Some(borrower);
        self
    }

    /// What runs guests.
    pub fn hypervisor(mut self, hypervisor: Arc<dyn Hypervisor>) -> Self {
        self.hypervisor = Some(hypervisor);
        self
    }

    /// What the host says of itself.
    pub fn description(mut self, description: HostDescription) -> Self {
        self.description = Some(description);
        self
    }

    /// What fetches files for drives; from public addresses only if none is given.
    pub fn fetcher(mut self, fetcher: Fetcher) -> Self {
        self.fetcher = Some(fetcher);
        self
    }

    /// What makes arrays of disks and tends them; without one no orders for them are taken.
    pub fn keeper(mut self, keeper: Keeper) -> Self {
        self.keeper = Some(keeper);
        self
    }

    /// The wall clock; the system's if none is given.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Reads what is durable, adopts what runs, and begins to work.
    ///
    /// # Errors
    /// `Internal` if a part is missing, or the records or the hypervisor can't be read.
    pub async fn build(self) -> Result<Agent> {
        let missing = |part| Error::internal(format!("the agent's builder was given no {part}"));
        let state = self.state_dir.ok_or_else(|| missing("state directory"))?;
        let parts = Parts {
            store: self.store.ok_or_else(|| missing("store"))?,
            lender: self.lender,
            borrower: self.borrower.unwrap_or_else(|| Arc::new(IscsiBorrower)),
            hypervisor: self.hypervisor.ok_or_else(|| missing("hypervisor"))?,
            description: self.description.ok_or_else(|| missing("description"))?,
            fetcher: self.fetcher.unwrap_or_default(),
            arrays: self.keeper.map(Desk::new),
            clock: self.clock.unwrap_or_else(|| Arc::new(|| Timestamp::from(SystemTime::now()))),
        };
        let (wakes, woken) = mpsc::unbounded_channel();
        let opened = tokio::task::spawn_blocking(move || Host::open(&state, parts, wakes)).await;
        let host = opened.map_err(|error| Error::internal("read the records").source(error))??;
        let host = Arc::new(host);
        let observed = host.hypervisor.observe().await?;
        for run in observed.iter().filter(|run| host.servers.get(run.server).is_none()) {
            // Only a tombstone destroys: it is left alone until its document comes.
            tracing::warn!(server = %run.server, run = %run.run, "a run that no document knows");
        }
        host.restore_grants(&observed);
        driver::start(&host, woken);
        Ok(Agent { host })
    }
}

impl fmt::Debug for AgentBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AgentBuilder").field("state_dir", &self.state_dir).finish_non_exhaustive()
    }
}

/// Records the end of a server's newest run, if it has none yet.
async fn record_end(host: &Arc<Host>, server: ServerId, cause: EndCause) -> Result<()> {
    let at = host.stamp()?;
    let end = move |past: &mut Past| {
        if past.is_open() {
            past.ended = Some(Ended { at, cause, fault: None });
        }
    };
    host.on_disk(move |host| host.servers.amend(server, end)).await
}

/// The guard of a lock that is held for moments only. What a panic left behind is whole: every
/// change under these locks is one assignment or one call.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod array_tests;
#[cfg(test)]
mod counts_tests;
#[cfg(test)]
mod download_tests;
#[cfg(test)]
mod export_tests;
#[cfg(test)]
mod failed_array_tests;
#[cfg(test)]
mod fakes;
#[cfg(test)]
mod lend_tests;
#[cfg(test)]
mod plug_tests;
#[cfg(test)]
mod screen_tests;
#[cfg(test)]
mod snapshot_tests;
#[cfg(test)]
mod stray_tests;
#[cfg(test)]
mod sum_tests;
#[cfg(test)]
mod tests;
