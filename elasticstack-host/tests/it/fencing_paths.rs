//! The rounds of fencing on what is real and needs no machine of its own: a store's volumes, and our
//! target of iSCSI with our initiator.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use async_trait::async_trait;
use elasticstack_core::block::{Attachment, BlockStore, Borrowing, Lend, LendId, LendSpec, Volume};
use elasticstack_core::prelude::*;
use elasticstack_host::iscsi::initiator::Initiator;
use elasticstack_host::lend::InProcessLender;
use elasticstack_host::store::DirectoryStore;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

use crate::fencing::{Agent, Desk, Dice, Ground, array, count, drive, open_store, rounds};
use crate::fencing_judge::Breach;

/// Lends nothing: whoever has the drive opens it in the store, as the agent's own data path does.
pub(crate) struct LocalLend;

impl LocalLend {
    pub(crate) async fn borrow(
        store: &dyn BlockStore,
        borrowing: &Borrowing,
    ) -> Result<Arc<dyn Volume>> {
        let volume = store.open(borrowing.lend.drive, borrowing.lend.epoch).await?;
        Ok(Arc::new(Flushed(volume)))
    }
}

#[async_trait]
impl Lend for LocalLend {
    fn portal(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 3260))
    }

    async fn lend(&self, _: &LendSpec, _: Arc<dyn Volume>) -> Result<()> {
        Ok(())
    }

    async fn withdraw(&self, _: LendId) -> Result<()> {
        Ok(())
    }

    async fn lent(&self) -> Result<Vec<LendId>> {
        Ok(Vec::new())
    }
}

/// A volume whose writes are flushed before they are told to be done.
struct Flushed(Arc<dyn Volume>);

#[async_trait]
impl Volume for Flushed {
    fn size(&self) -> Bytes {
        self.0.size()
    }

    fn block_size(&self) -> Bytes {
        self.0.block_size()
    }

    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()> {
        self.0.read_at(offset, buffer).await
    }

    async fn write_at(&self, offset: Bytes, data: bytes::Bytes) -> Result<()> {
        self.0.write_at(offset, data).await?;
        self.0.flush().await
    }

    async fn flush(&self) -> Result<()> {
        self.0.flush().await
    }

    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()> {
        self.0.discard(offset, length).await
    }

    fn attachment(&self) -> Option<Attachment> {
        None
    }
}

/// A store whose volumes are written to directly.
struct Local {
    root: PathBuf,
    store: Mutex<Weak<dyn BlockStore>>,
}

#[async_trait]
impl Ground for Local {
    async fn agent(&self) -> Agent {
        let store: Arc<dyn BlockStore> = Arc::new(open_store(&self.root).await);
        *self.store.lock().unwrap() = Arc::downgrade(&store);
        Agent { store, lender: Arc::new(LocalLend) }
    }

    async fn lose_power(&self) {
        unreachable!("it takes a machine")
    }

    async fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>> {
        let store = self.store.lock().unwrap().upgrade();
        let gone = || Error::new(ErrorKind::Unavailable, "the agent is gone");
        LocalLend::borrow(&*store.ok_or_else(gone)?, borrowing).await
    }

    fn ends_borrowers(&self) -> bool {
        true
    }

    async fn pause(&self) {
        tokio::task::yield_now().await;
    }
}

/// Our target, in the agent's process, ending with it.
struct Target {
    root: PathBuf,
    bug: Option<Bug>,
}

/// A mistake of a lender on our target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// It withdraws nothing, and the store's fence is all there is.
    WithdrawsNothing,
    /// Nor has what it lends an epoch that the store could fence.
    ChecksNoEpoch,
}

struct Careless {
    lender: InProcessLender,
    store: Weak<dyn BlockStore>,
    bug: Bug,
}

#[async_trait]
impl Lend for Careless {
    fn portal(&self) -> SocketAddr {
        self.lender.portal()
    }

    async fn lend(&self, spec: &LendSpec, mut volume: Arc<dyn Volume>) -> Result<()> {
        if self.bug == Bug::ChecksNoEpoch {
            let store = self.store.upgrade().unwrap();
            volume = store.open(spec.lend.drive, Epoch(u64::MAX)).await?;
        }
        self.lender.lend(spec, volume).await
    }

    async fn withdraw(&self, _: LendId) -> Result<()> {
        Ok(())
    }

    async fn lent(&self) -> Result<Vec<LendId>> {
        self.lender.lent().await
    }
}

#[async_trait]
impl Ground for Target {
    async fn agent(&self) -> Agent {
        let store: Arc<dyn BlockStore> = Arc::new(open_store(&self.root).await);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let lender = InProcessLender::new(listener).unwrap();
        let lender: Arc<dyn Lend> = match self.bug {
            None => Arc::new(lender),
            Some(bug) => Arc::new(Careless { lender, store: Arc::downgrade(&store), bug }),
        };
        Agent { store, lender }
    }

    async fn lose_power(&self) {
        unreachable!("it takes a machine")
    }

    async fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>> {
        Ok(Arc::new(Initiator::login(borrowing).await?))
    }

    // The next life listens elsewhere.
    fn ends_borrowers(&self) -> bool {
        true
    }

    async fn pause(&self) {
        tokio::time::sleep(Duration::from_micros(200)).await;
    }
}

const DICE: Dice = Dice { kill: 20, power: 0 };

fn run(ground: &dyn Ground, seed: u64, rounds_of: u64) -> Result<(), Breach> {
    let (desk, spec) = (Desk::new(seed, DICE), drive(array()));
    let work = rounds(ground, &desk, &spec, 1..=rounds_of + 1);
    Runtime::new().unwrap().block_on(work)
}

#[test]
fn rounds_of_fencing_on_a_real_store_let_no_stale_write_in() {
    let root = tempfile::tempdir().unwrap();
    let nobody: Weak<dyn BlockStore> = Weak::<DirectoryStore>::new();
    let local = Local { root: root.path().to_owned(), store: Mutex::new(nobody) };
    run(&local, 1, count(50)).unwrap();
}

#[test]
fn rounds_of_fencing_on_our_target_let_no_stale_write_in() {
    let root = tempfile::tempdir().unwrap();
    run(&Target { root: root.path().to_owned(), bug: None }, 2, count(50)).unwrap();
}

#[test]
fn a_target_that_checks_no_epoch_is_found_and_one_that_only_checks_it_is_safe() {
    for (bug, is_found) in [(Bug::WithdrawsNothing, false), (Bug::ChecksNoEpoch, true)] {
        let root = tempfile::tempdir().unwrap();
        let judged = run(&Target { root: root.path().to_owned(), bug: Some(bug) }, 3, 30);
        assert_eq!(judged.is_err(), is_found, "{bug:?}: {judged:?}");
    }
}
