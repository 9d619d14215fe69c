//! What the agent's calls and its tasks share: records, board, grants, and the two traits.
//!
//! Owns the ways to say that something changed: `wake` names one object, `stir` tells all that
//! wait for a drive or a turn. Not here: what is done about it ([`crate::driver`]).

use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use elasticstack_core::block::{BlockStore, Lend, LendId};
use elasticstack_core::clock::Clock;
use elasticstack_core::error::{Error, Result};
use elasticstack_core::hypervisor::{Hypervisor, Observed};
use elasticstack_core::id::{DriveId, ServerId};
use elasticstack_core::wire::internal::{
    Access, ClaimedDrive, Document, Documents, DriveDocument, JobDocument, ServerDocument,
    SnapshotDocument, Stamp,
};
use tokio::sync::{Semaphore, SemaphorePermit, mpsc, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::arrays::Desk;
use super::board::{Acknowledged, Board, Key};
use super::grants::{Grants, Holder, Refused};
use super::records::{Record, RecordError, Table};
use super::{HostDescription, locked};
use crate::fetch::Fetcher;
use crate::lend::Borrow;
use crate::sys::clock;

/// How many drives are imaged at a time.
const JOBS_AT_ONCE: usize = 2;

/// How many of them from elsewhere, which may be slow, beside these.
const DOWNLOADS_AT_ONCE: usize = 4;

/// One host, as the agent sees it.
pub(crate) struct Host {
    pub store: Arc<dyn BlockStore>,
    /// What lends drives to servers on other hosts; `None` where that is not offered.
    pub lender: Option<Arc<dyn Lend>>,
    /// What borrows drives of other hosts for jobs.
    pub borrower: Arc<dyn Borrow>,
    pub hypervisor: Arc<dyn Hypervisor>,
    pub description: HostDescription,
    pub fetcher: Fetcher,
    /// Where orders for arrays are given; `None` where none are taken.
    pub arrays: Option<Desk>,
    clock: Arc<dyn Clock>,
    /// The id of the present boot.
    pub boot: String,
    pub drives: Table<DriveDocument>,
    pub jobs: Table<JobDocument>,
    pub servers: Table<ServerDocument>,
    pub snapshots: Table<SnapshotDocument>,
    pub board: Board,
    grants: Mutex<Grants>,
    accesses: AtomicU64,
    slots: Semaphore,
    slots_of_downloads: Semaphore,
    wakes: mpsc::UnboundedSender<Key>,
    stirred: watch::Sender<()>,
    /// Ends every task at its next rest.
    pub closing: CancellationToken,
    /// Every task of this agent.
    pub tasks: TaskTracker,
}

/// The traits and facts that a host is made of.
pub(crate) struct Parts {
    pub store: Arc<dyn BlockStore>,
    pub lender: Option<Arc<dyn Lend>>,
    pub borrower: Arc<dyn Borrow>,
    pub hypervisor: Arc<dyn Hypervisor>,
    pub description: HostDescription,
    pub fetcher: Fetcher,
    pub arrays: Option<Desk>,
    pub clock: Arc<dyn Clock>,
}

impl Host {
    /// Reads what is durable under `state`. Blocks on the disk.
    pub(crate) fn open(
        state: &Path,
        parts: Parts,
        wakes: mpsc::UnboundedSender<Key>,
    ) -> Result<Self> {
        let Parts { store, lender, borrower, hypervisor, description, fetcher, arrays, clock } =
            parts;
        let unreadable = |error: RecordError| Error::internal("read the records").source(error);
        Ok(Self {
            boot: stamp(clock.as_ref())?.boot,
            store,
            lender,
            borrower,
            hypervisor,
            description,
            fetcher,
            arrays,
            clock,
            drives: Table::open(state).map_err(unreadable)?,
            jobs: Table::open(state).map_err(unreadable)?,
            servers: Table::open(state).map_err(unreadable)?,
            snapshots: Table::open(state).map_err(unreadable)?,
            board: Board::new(),
            grants: Mutex::default(),
            accesses: AtomicU64::new(0),
            slots: Semaphore::new(JOBS_AT_ONCE),
            slots_of_downloads: Semaphore::new(DOWNLOADS_AT_ONCE),
            wakes,
            stirred: watch::Sender::new(()),
            closing: CancellationToken::new(),
            tasks: TaskTracker::new(),
        })
    }

    /// Fills the grant table from what is durable and what runs. A run that exists holds its
    /// drives, whatever its document says by now.
    pub(crate) fn restore_grants(&self, observed: &[Observed]) {
        let mut grants = locked(&self.grants);
        for record in self.servers.all() {
            let server = record.document.server;
            let exists = observed.iter().any(|run| run.server == server);
            if record.facts.is_open() || exists {
                grants.restore(Holder::Server(server), &held(&record.facts.claims));
            }
        }
        for record in self.drives.all() {
            let drive = record.document.drive;
            for lent in &record.facts.lent {
                let lend = LendId { drive, epoch: lent.epoch };
                grants.restore(Holder::Lend(lend), &[(drive, lent.access)]);
            }
        }
        for record in self.jobs.all() {
            if record.facts.end.is_none() && !record.document.gone {
                // One that is refused was waiting before, and waits again.
                let _ = grants.take(Holder::Job(record.document.job), &claims_of(&record.document));
            }
        }
        for record in self.snapshots.all().iter().filter(|record| is_to_restore(record)) {
            let SnapshotDocument { snapshot, drive, .. } = record.document;
            let _ = grants.take(Holder::Snapshot(snapshot), &[(drive, Access::Exclusive)]);
        }
    }

    /// Makes documents durable, then has them looked at. Blocks on the disk.
    pub(crate) fn accept(&self, documents: Documents) -> Result<u64, RecordError> {
        let (mut drives, mut jobs) = (Vec::new(), Vec::new());
        let (mut servers, mut snapshots) = (Vec::new(), Vec::new());
        for document in documents.documents {
            match document {
                Document::Drive(document) => drives.push(document),
                Document::Job(document) => jobs.push(document),
                Document::Server(document) => servers.push(document),
                Document::Snapshot(document) => snapshots.push(document),
            }
        }
        let keys: Vec<Key> = (drives.iter().map(|document| Key::Drive(document.drive)))
            .chain(jobs.iter().map(|document| Key::Job(document.job)))
            .chain(servers.iter().map(|document| Key::Server(document.server)))
            .chain(snapshots.iter().map(|document| Key::Snapshot(document.snapshot)))
            .collect();
        let ignored = || {
            Ok(self.drives.put(drives)?
                + self.jobs.put(jobs)?
                + self.servers.put(servers)?
                + self.snapshots.put(snapshots)?)
        };
        let ignored = ignored();
        // Also after a failure: some of them may have become durable.
        keys.into_iter().for_each(|key| self.wake(key));
        ignored
    }

    /// Forgets an object of which the other side knows that it is gone. Blocks on the disk.
    pub(crate) fn forget(&self, acknowledged: Acknowledged) -> Result<(), RecordError> {
        let Acknowledged { key, generation, .. } = acknowledged;
        match key {
            Key::Drive(drive) => self.drives.forget(drive, generation)?,
            Key::Job(job) => self.jobs.forget(job, generation)?,
            Key::Server(server) => self.servers.forget(server, generation)?,
            Key::Snapshot(snapshot) => self.snapshots.forget(snapshot, generation)?,
        }
        self.board.forget(acknowledged);
        self.wake(key);
        Ok(())
    }

    /// Runs what blocks on the disk, to its end even if the caller goes away.
    pub(crate) async fn on_disk<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl FnOnce(&Self) -> Result<T, RecordError> + Send + 'static,
    ) -> Result<T> {
        let host = Arc::clone(self);
        match tokio::task::spawn_blocking(move || work(&host)).await {
            Ok(done) => done.map_err(|error| Error::internal("keep the records").source(error)),
            Err(broken) => Err(Error::internal("keep the records").source(broken)),
        }
    }

    /// This instant.
    pub(crate) fn stamp(&self) -> Result<Stamp> {
        stamp(self.clock.as_ref())
    }

    /// Has an object looked at.
    pub(crate) fn wake(&self, key: Key) {
        // Nobody listens only once the agent is closed, and then nobody is to act.
        let _ = self.wakes.send(key);
    }

    /// Yields whenever a drive or a turn became free.
    pub(crate) fn stirred(&self) -> watch::Receiver<()> {
        self.stirred.subscribe()
    }

    /// Has everybody look who waits for a drive or a turn.
    pub(crate) fn stir(&self) {
        self.stirred.send_replace(());
    }

    /// Gives `holder` these drives, or changes nothing.
    pub(crate) fn take(&self, holder: Holder, wanted: &[(DriveId, Access)]) -> Result<(), Refused> {
        locked(&self.grants).take(holder, wanted)
    }

    /// Takes everything from `holder`.
    pub(crate) fn release(&self, holder: Holder) {
        if locked(&self.grants).release(holder) {
            self.stirred.send_replace(());
        }
    }

    /// Every lend that holds its drive.
    pub(crate) fn lends(&self) -> Vec<LendId> {
        locked(&self.grants).lends()
    }

    /// The servers that hold a drive for their runs.
    pub(crate) fn servers_with(&self, drive: DriveId) -> Vec<ServerId> {
        locked(&self.grants).servers_with(drive)
    }

    /// Gives `holder` one drive for as long as the answer lives.
    pub(crate) fn borrow(
        self: &Arc<Self>,
        holder: Holder,
        drive: DriveId,
        access: Access,
    ) -> Result<Borrowed, Refused> {
        self.take(holder, &[(drive, access)])?;
        Ok(Borrowed { host: Arc::clone(self), holder })
    }

    /// A holder for one access of the data path.
    pub(crate) fn access(&self) -> Holder {
        Holder::Data(self.accesses.fetch_add(1, Ordering::Relaxed))
    }

    /// The turn for a job, if there is one.
    pub(crate) fn turn(&self, job: &JobDocument) -> Option<Turn<'_>> {
        let slots = if job.download.is_some() { &self.slots_of_downloads } else { &self.slots };
        let permit = slots.try_acquire().ok()?;
        Some(Turn { host: self, permit: Some(permit) })
    }
}

/// The drives of this host among those that a run claims.
pub(crate) fn held(claims: &[ClaimedDrive]) -> Vec<(DriveId, Access)> {
    let here = claims.iter().filter(|claim| claim.lender.is_none());
    here.map(|claim| (claim.drive, claim.access)).collect()
}

/// The drives of this host that a job holds for its life.
pub(crate) fn claims_of(job: &JobDocument) -> Vec<(DriveId, Access)> {
    let is_here = job.source != job.target && job.lender.is_none();
    let source = is_here.then_some((job.source, Access::Shared));
    source.into_iter().chain([(job.target, Access::Exclusive)]).collect()
}

/// Whether a drive is still to be made what the snapshot holds.
pub(crate) fn is_to_restore(record: &Record<SnapshotDocument>) -> bool {
    let Record { document, facts } = record;
    !document.gone && document.restore > facts.restored
}

fn stamp(clock: &dyn Clock) -> Result<Stamp> {
    clock::stamp(clock.now()).map_err(|error| Error::internal("read the clock").source(error))
}

/// A drive held until this is dropped.
pub(crate) struct Borrowed {
    host: Arc<Host>,
    holder: Holder,
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        self.host.release(self.holder);
    }
}

/// One of the turns at imaging, given back when dropped.
pub(crate) struct Turn<'a> {
    host: &'a Host,
    permit: Option<SemaphorePermit<'a>>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        drop(self.permit.take());
        self.host.stirred.send_replace(());
    }
}
