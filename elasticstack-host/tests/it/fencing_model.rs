//! The rounds of fencing on a model, and with mistakes planted in it that the judge has to find.
//!
//! The model of a target is what matters of one for fencing: who may log in, sessions, and writes
//! that are under way whatever becomes of the session that they came by. They go past the store to
//! the drive, as those do that a kernel serves from a file.

use std::collections::BTreeMap;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;

use async_trait::async_trait;
use elasticstack_core::block::{
    ArrayReport, Attachment, BlockStore, Borrowing, DriveReport, DriveSpec, Lend, LendId, LendSpec,
    Volume,
};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::{SimRng, SimStore, block_on};

use crate::fencing::{Agent, Desk, Dice, Ground, drive, is_long, rounds};
use crate::fencing_judge::Breach;
use crate::fencing_paths::LocalLend;

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Bug {
    /// Whoever is cut may log in again before that is refused.
    CutsBeforeRefusing,
    /// Sessions go on.
    RefusesAndCutsNobody,
    /// What is under way is not waited for.
    AnswersBeforeDraining,
    /// Writes are acknowledged when they are not durable yet.
    WritesBack,
    /// The store's fence does nothing.
    ChecksNoEpoch,
}

struct Session {
    is_cut: AtomicBool,
}

struct Pending {
    lend: LendId,
    at: Bytes,
    data: bytes::Bytes,
    is_done: Arc<AtomicBool>,
}

#[derive(Default)]
struct Target {
    /// Who may log in, and the sessions; whoever was refused may have some still.
    lends: BTreeMap<LendId, (bool, Vec<Arc<Session>>)>,
    under_way: Vec<Pending>,
}

/// A model of a host that lends, or whose agent has its drives itself.
struct Model {
    store: SimStore,
    drive: DriveId,
    target: Arc<Mutex<Target>>,
    rng: Mutex<SimRng>,
    bug: Option<Bug>,
    lends: bool,
}

async fn give_way() {
    let mut given = false;
    poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

impl Model {
    fn new(seed: u64, lends: bool, bug: Option<Bug>) -> (Self, DriveSpec) {
        let store = SimStore::new(seed, &[Bytes::from_mib(8)]);
        let array = block_on(store.capacity()).unwrap()[0].array;
        let spec = drive(array);
        let (target, rng) = (Arc::default(), Mutex::new(SimRng::new(seed)));
        (Self { store, drive: spec.drive, target, rng, bug, lends }, spec)
    }

    fn has(&self, bug: Bug) -> bool {
        self.bug == Some(bug)
    }

    /// The drive, past all fences.
    async fn medium(&self) -> Arc<dyn Volume> {
        self.store.open(self.drive, Epoch(u64::MAX)).await.unwrap()
    }

    /// Has one write that is under way come to the drive.
    async fn work(&self) {
        let pending = {
            let mut target = self.target.lock().unwrap();
            let count = u64::try_from(target.under_way.len()).unwrap();
            // Some take long.
            if count == 0 || !self.rng.lock().unwrap().one_in(4) {
                return;
            }
            let at = usize::try_from(self.rng.lock().unwrap().below(count)).unwrap();
            target.under_way.swap_remove(at)
        };
        let medium = self.medium().await;
        medium.write_at(pending.at, pending.data).await.unwrap();
        if !self.has(Bug::WritesBack) {
            medium.flush().await.unwrap();
        }
        pending.is_done.store(true, Ordering::SeqCst);
    }
}

#[async_trait]
impl Ground for Model {
    async fn agent(&self) -> Agent {
        let store: Arc<dyn BlockStore> = if self.has(Bug::ChecksNoEpoch) {
            Arc::new(Unfenced(self.store.clone()))
        } else {
            Arc::new(self.store.clone())
        };
        if !self.lends {
            return Agent { store, lender: Arc::new(LocalLend) };
        }
        let lender = ModelLend { target: Arc::clone(&self.target), bug: self.bug };
        Agent { store, lender: Arc::new(lender) }
    }

    async fn lose_power(&self) {
        let Target { lends, .. } = std::mem::take(&mut *self.target.lock().unwrap());
        for session in lends.values().flat_map(|(_, sessions)| sessions) {
            session.is_cut.store(true, Ordering::SeqCst);
        }
        self.store.crash();
    }

    async fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>> {
        if !self.lends {
            let agent = self.agent().await;
            return LocalLend::borrow(&*agent.store, borrowing).await;
        }
        let session = Arc::new(Session { is_cut: AtomicBool::new(false) });
        match self.target.lock().unwrap().lends.get_mut(&borrowing.lend) {
            Some((true, sessions)) => sessions.push(Arc::clone(&session)),
            _ => return Err(Error::new(ErrorKind::NotFound, "it is not lent")),
        }
        Ok(Arc::new(Borrowed { target: Arc::clone(&self.target), session, lend: borrowing.lend }))
    }

    fn ends_borrowers(&self) -> bool {
        !self.lends
    }

    async fn pause(&self) {
        give_way().await;
        self.work().await;
    }

    fn kills_anywhere(&self) -> bool {
        true
    }
}

struct ModelLend {
    target: Arc<Mutex<Target>>,
    bug: Option<Bug>,
}

impl ModelLend {
    fn refuse(&self, lend: LendId) {
        if let Some((may_log_in, _)) = self.target.lock().unwrap().lends.get_mut(&lend) {
            *may_log_in = false;
        }
    }

    fn cut(&self, lend: LendId) {
        if let Some((_, sessions)) = self.target.lock().unwrap().lends.get_mut(&lend) {
            for session in sessions.drain(..) {
                session.is_cut.store(true, Ordering::SeqCst);
            }
        }
    }
}

#[async_trait]
impl Lend for ModelLend {
    fn portal(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 3260))
    }

    async fn lend(&self, spec: &LendSpec, _volume: Arc<dyn Volume>) -> Result<()> {
        give_way().await;
        let lends = &mut self.target.lock().unwrap().lends;
        lends.entry(spec.lend).or_insert_with(|| (true, Vec::new()));
        Ok(())
    }

    async fn withdraw(&self, lend: LendId) -> Result<()> {
        if self.bug == Some(Bug::CutsBeforeRefusing) {
            self.cut(lend);
            give_way().await;
            self.refuse(lend);
        } else {
            self.refuse(lend);
            give_way().await;
            if self.bug != Some(Bug::RefusesAndCutsNobody) {
                self.cut(lend);
            }
        }
        give_way().await;
        let is_under_way = || {
            let target = self.target.lock().unwrap();
            target.under_way.iter().any(|pending| pending.lend == lend)
        };
        for _ in 0..20 {
            if self.bug == Some(Bug::AnswersBeforeDraining) || !is_under_way() {
                self.target.lock().unwrap().lends.remove(&lend);
                return Ok(());
            }
            give_way().await;
        }
        Err(Error::new(ErrorKind::Unavailable, "what is lent is still in use: try again"))
    }

    async fn lent(&self) -> Result<Vec<LendId>> {
        Ok(self.target.lock().unwrap().lends.keys().copied().collect())
    }
}

struct Borrowed {
    target: Arc<Mutex<Target>>,
    session: Arc<Session>,
    lend: LendId,
}

#[async_trait]
impl Volume for Borrowed {
    fn size(&self) -> Bytes {
        Bytes::from_mib(1)
    }

    fn block_size(&self) -> Bytes {
        Bytes::from_kib(4)
    }

    async fn read_at(&self, _: Bytes, _: &mut [u8]) -> Result<()> {
        unreachable!("borrowers write")
    }

    async fn write_at(&self, at: Bytes, data: bytes::Bytes) -> Result<()> {
        let is_cut = || self.session.is_cut.load(Ordering::SeqCst);
        let gone = || Err(Error::new(ErrorKind::Unavailable, "the session is gone"));
        let is_done = Arc::new(AtomicBool::new(false));
        let lend = self.lend;
        {
            let mut target = self.target.lock().unwrap();
            if is_cut() {
                return gone();
            }
            target.under_way.push(Pending { lend, at, data, is_done: Arc::clone(&is_done) });
        }
        while !is_done.load(Ordering::SeqCst) {
            if is_cut() {
                return gone();
            }
            give_way().await;
        }
        // Cut at this moment, it may have been told or not.
        if is_cut() { gone() } else { Ok(()) }
    }

    async fn flush(&self) -> Result<()> {
        Ok(())
    }

    async fn discard(&self, _: Bytes, _: Bytes) -> Result<()> {
        unreachable!("borrowers write")
    }

    fn attachment(&self) -> Option<Attachment> {
        None
    }
}

/// A store that fences nobody.
struct Unfenced(SimStore);

#[async_trait]
impl BlockStore for Unfenced {
    async fn create(&self, spec: &DriveSpec) -> Result<()> {
        self.0.create(spec).await
    }

    async fn open(&self, drive: DriveId, epoch: Epoch) -> Result<Arc<dyn Volume>> {
        self.0.open(drive, epoch).await
    }

    async fn fence(&self, _: DriveId, _: Epoch) -> Result<()> {
        Ok(())
    }

    async fn list(&self) -> Result<Vec<DriveReport>> {
        self.0.list().await
    }

    async fn destroy(&self, drive: DriveId, generation: Generation) -> Result<()> {
        self.0.destroy(drive, generation).await
    }

    async fn capacity(&self) -> Result<Vec<ArrayReport>> {
        self.0.capacity().await
    }
}

const ROUNDS: u64 = 50;

const DICE: Dice = Dice { kill: 12, power: 25 };

fn run(seed: u64, lends: bool, bug: Option<Bug>) -> Result<(), Breach> {
    let (model, spec) = Model::new(seed, lends, bug);
    let desk = Desk::new(seed, DICE);
    block_on(rounds(&model, &desk, &spec, 1..=ROUNDS + 1))
}

#[test]
fn rounds_of_fencing_on_the_model_let_no_stale_write_in() {
    let rounds = if is_long() { 10_000 } else { 1_000 };
    for seed in 0..rounds / ROUNDS {
        // Most of what may go wrong is in lending.
        let lends = seed % 4 != 0;
        if let Err(breach) = run(seed, lends, None) {
            panic!("seed {seed}: {breach:?}");
        }
    }
}

#[test]
fn every_mistake_that_is_planted_in_fencing_is_found() {
    for (lends, bug) in [
        (true, Bug::CutsBeforeRefusing),
        (true, Bug::RefusesAndCutsNobody),
        (true, Bug::AnswersBeforeDraining),
        (true, Bug::WritesBack),
        (false, Bug::ChecksNoEpoch),
    ] {
        let found = (0..20).find_map(|seed| run(seed, lends, Some(bug)).err());
        println!("{bug:?}: {found:?}");
        let is_it = match &found {
            Some(Breach::Lost(..)) => true,
            Some(Breach::StaleAcknowledged(_) | Breach::StaleFound(_)) => bug != Bug::WritesBack,
            _ => false,
        };
        assert!(is_it, "{bug:?} is found as {found:?}");
    }
}
