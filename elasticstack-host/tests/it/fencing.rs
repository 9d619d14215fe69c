//! Rounds of fencing: a drive is claimed under one epoch after another while whoever had it before
//! goes on writing, and the agent is killed and the power lost in between. [`Judge`] decides.
//!
//! The same rounds are run on a model, with mistakes planted in it, and on what is real.

use std::fs::File;
use std::future::poll_fn;
use std::io::Write as _;
use std::ops::RangeInclusive;
use std::path::Path;
use std::pin::pin;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use async_trait::async_trait;
use elasticstack_core::block::{
    ArrayState, BlockStore, Borrowing, DriveSpec, Lend, LendId, LendSpec, Volume, Writing,
};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::SimRng;
use elasticstack_host::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays};
use futures_core::future::BoxFuture;

use crate::fencing_judge::{BLOCK, BLOCKS, Breach, Event, Judge, Write};

/// How many writes the holder of a claim is told are done before the next claim.
const WRITES: u32 = 4;

/// How many borrowers of old epochs go on trying.
const OLD: usize = 3;

/// What one life of the agent works with.
pub(crate) struct Agent {
    pub(crate) store: Arc<dyn BlockStore>,
    pub(crate) lender: Arc<dyn Lend>,
}

/// What the rounds take place on.
#[async_trait]
pub(crate) trait Ground: Send + Sync {
    /// The next life of the agent, after an earlier one was killed.
    async fn agent(&self) -> Agent;

    /// Cuts the power; what was lent is not lent any more. Where this is done to a whole machine,
    /// this process ends with it.
    async fn lose_power(&self);

    /// Logs in to what is lent.
    async fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>>;

    /// Whether borrowers end with the agent, being parts of it.
    fn ends_borrowers(&self) -> bool {
        false
    }

    /// Lets what runs beside this go on.
    async fn pause(&self);

    /// The agent is killed at any await of it, and not only between its calls.
    fn kills_anywhere(&self) -> bool {
        false
    }
}

/// How often, on average: once in so many steps; never for 0.
#[derive(Clone, Copy)]
pub(crate) struct Dice {
    pub(crate) kill: u64,
    pub(crate) power: u64,
}

/// What happens to the agent.
enum Cut {
    Killed,
    PowerLost,
    Breach(Breach),
}

impl From<Breach> for Cut {
    fn from(breach: Breach) -> Self {
        Self::Breach(breach)
    }
}

/// What all who take part share.
pub(crate) struct Desk {
    judge: Mutex<Judge>,
    breach: Mutex<Option<Breach>>,
    rng: Mutex<SimRng>,
    numbers: Mutex<u64>,
    acknowledged: Mutex<(Epoch, u32)>,
    /// Where every event goes before the next happens.
    journal: Mutex<Option<File>>,
    dice: Dice,
}

impl Desk {
    pub(crate) fn new(seed: u64, dice: Dice) -> Self {
        Self {
            judge: Mutex::default(),
            breach: Mutex::default(),
            rng: Mutex::new(SimRng::new(seed)),
            numbers: Mutex::default(),
            acknowledged: Mutex::default(),
            journal: Mutex::default(),
            dice,
        }
    }

    /// Goes on after these events, and writes down further ones.
    pub(crate) fn resume(self, events: &[Event], journal: File) -> Self {
        for event in events {
            if let Event::Sent(write) = event {
                *self.numbers.lock().unwrap() = write.number;
            }
            self.see(event);
        }
        *self.journal.lock().unwrap() = Some(journal);
        self
    }

    fn see(&self, event: &Event) {
        if let Some(journal) = &mut *self.journal.lock().unwrap() {
            journal.write_all(format!("{event}\n").as_bytes()).unwrap();
        }
        if let Err(breach) = self.judge.lock().unwrap().see(event) {
            self.breach.lock().unwrap().get_or_insert(breach);
        }
        if let Event::Acknowledged(write) = event {
            let mut acknowledged = self.acknowledged.lock().unwrap();
            if acknowledged.0 == write.epoch {
                acknowledged.1 += 1;
            }
        }
    }

    fn below(&self, limit: u64) -> u64 {
        self.rng.lock().unwrap().below(limit)
    }

    fn one_in(&self, n: u64) -> bool {
        self.rng.lock().unwrap().one_in(n)
    }

    /// Between any two steps of the agent.
    fn between(&self) -> Result<(), Cut> {
        if let Some(breach) = self.breach.lock().unwrap().clone() {
            return Err(Cut::Breach(breach));
        }
        match (self.one_in(self.dice.power), self.one_in(self.dice.kill)) {
            (true, _) => Err(Cut::PowerLost),
            (_, true) => Err(Cut::Killed),
            _ => Ok(()),
        }
    }

    fn write(&self, epoch: Epoch) -> Write {
        let mut numbers = self.numbers.lock().unwrap();
        *numbers += 1;
        let block = usize::try_from(self.below(u64::try_from(BLOCKS).unwrap())).unwrap();
        Write { number: *numbers, epoch, block }
    }
}

/// Whether this is the long form, of nights.
pub(crate) fn is_long() -> bool {
    std::env::var_os("ELASTICSTACK_LONG_TESTS").is_some()
}

/// How many rounds there are on a real path: few by day.
pub(crate) fn count(by_day: u64) -> u64 {
    if is_long() { 200 } else { by_day }
}

pub(crate) fn array() -> ArrayId {
    "a77a0000-0000-4000-8000-000000000001".parse().unwrap()
}

/// Opens the store, as soon as an earlier life has let go of it.
pub(crate) async fn open_store(root: &Path) -> DirectoryStore {
    let config = DirectoryArray {
        array: array(),
        name: "fast".to_owned(),
        path: root.join("array"),
        capacity: ArrayCapacity::Fixed(Bytes::from_mib(16)),
    };
    loop {
        std::fs::create_dir_all(root).unwrap();
        let known = KnownArrays::read(root).unwrap();
        let store = DirectoryStore::open(known, vec![config.clone()]).unwrap();
        if store.capacity().await.unwrap()[0].state == ArrayState::Online {
            return store;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The drive of the rounds.
pub(crate) fn drive(array: ArrayId) -> DriveSpec {
    DriveSpec {
        drive: "5b0e3c52-0000-4000-8000-0000000000fe".parse().unwrap(),
        array,
        account: "acc00000-0000-4000-8000-000000000001".parse().unwrap(),
        size: Bytes::from_mib(1),
        generation: Generation::new(Era(1), 1),
    }
}

/// How the drive is lent under an epoch. Each time to another server.
fn lend_of(drive: DriveId, epoch: Epoch) -> LendSpec {
    LendSpec {
        lend: LendId { drive, epoch },
        borrower: format!("5e17e700-0000-4000-8000-{:012x}", epoch.0).parse().unwrap(),
        writing: Writing::Allowed,
        secret: Secret::new(format!("secret-of-epoch-{epoch}")),
    }
}

/// Runs rounds under these epochs, and says what may not be. Under the last, nobody writes any more.
pub(crate) async fn rounds(
    ground: &dyn Ground,
    desk: &Desk,
    spec: &DriveSpec,
    epochs: RangeInclusive<u64>,
) -> Result<(), Breach> {
    let mut agent = ground.agent().await;
    agent.store.create(spec).await.unwrap();
    let mut borrowers = Vec::new();
    let (first, last) = epochs.clone().into_inner();
    if let Some(old) = first.checked_sub(1).filter(|old| *old > 0) {
        let of = lend_of(spec.drive, Epoch(old));
        borrowers.push(borrower(ground, desk, borrowing(&agent, &of)));
    }
    for epoch in epochs.map(Epoch) {
        *desk.acknowledged.lock().unwrap() = (epoch, 0);
        let of = lend_of(spec.drive, epoch);
        let mut has_borrower = false;
        loop {
            let patience = ground.kills_anywhere().then(|| desk.below(400));
            let claiming = claim(ground, &agent, desk, &of);
            let claimed = alongside(&mut borrowers, claiming, patience).await;
            let mut ended = claimed.unwrap_or(Err(Cut::Killed));
            if ended.is_ok() && epoch.0 < last {
                if !std::mem::replace(&mut has_borrower, true) {
                    borrowers.push(borrower(ground, desk, borrowing(&agent, &of)));
                }
                ended = alongside(&mut borrowers, hold(ground, desk), None).await.unwrap();
            }
            let Err(cut) = ended else { break };
            drop(agent);
            if ground.ends_borrowers() {
                borrowers.clear();
                has_borrower = false;
            }
            match cut {
                Cut::Breach(breach) => return Err(breach),
                Cut::Killed => {}
                Cut::PowerLost => ground.lose_power().await,
            }
            agent = ground.agent().await;
        }
        if borrowers.len() > OLD {
            drop(borrowers.remove(0));
        }
    }
    drop(borrowers);
    Ok(())
}

fn borrowing(agent: &Agent, spec: &LendSpec) -> Borrowing {
    let LendSpec { lend, borrower, writing: _, secret } = spec.clone();
    Borrowing { portal: agent.lender.portal(), lend, borrower, secret }
}

/// The agent's sequence: the old access ends, the fence answers, the new one begins.
async fn claim(ground: &dyn Ground, agent: &Agent, desk: &Desk, of: &LendSpec) -> Result<(), Cut> {
    let LendId { drive, epoch } = of.lend;
    desk.between()?;
    let lent = agent.lender.lent().await.unwrap();
    for old in lent.into_iter().filter(|lend| lend.drive == drive && lend.epoch < epoch) {
        desk.between()?;
        while let Err(error) = agent.lender.withdraw(old).await {
            assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
            ground.pause().await;
        }
    }
    desk.between()?;
    while let Err(error) = agent.store.fence(drive, epoch).await {
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        ground.pause().await;
    }
    desk.see(&Event::Fenced(epoch));
    desk.between()?;
    let volume = agent.store.open(drive, epoch).await.unwrap();
    // What is found now is what is there from now on.
    volume.flush().await.unwrap();
    let mut bytes = vec![0; BLOCK * BLOCKS];
    desk.see(&Event::Looks);
    volume.read_at(Bytes::ZERO, &mut bytes).await.unwrap();
    desk.see(&Event::found(&bytes)?);
    desk.between()?;
    agent.lender.lend(of, volume).await.unwrap();
    desk.between()
}

/// Waits until the holder of the claim has been told of some writes.
async fn hold(ground: &dyn Ground, desk: &Desk) -> Result<(), Cut> {
    while desk.acknowledged.lock().unwrap().1 < WRITES {
        ground.pause().await;
        if let Some(breach) = desk.breach.lock().unwrap().clone() {
            return Err(Cut::Breach(breach));
        }
    }
    desk.between()
}

/// Logs in and writes, again and again, whether it may or not.
fn borrower<'a>(ground: &'a dyn Ground, desk: &'a Desk, of: Borrowing) -> BoxFuture<'a, ()> {
    Box::pin(async move {
        loop {
            ground.pause().await;
            let Ok(volume) = ground.borrow(&of).await else { continue };
            loop {
                let write = desk.write(of.lend.epoch);
                desk.see(&Event::Sent(write));
                let at = Bytes::try_from(u64::try_from(write.block * BLOCK).unwrap()).unwrap();
                if volume.write_at(at, write.bytes().into()).await.is_err() {
                    break;
                }
                desk.see(&Event::Acknowledged(write));
                ground.pause().await;
            }
        }
    })
}

/// Does `work` while the borrowers go on; `None` if it was given up on after it was waited for so
/// often.
async fn alongside<T>(
    borrowers: &mut [BoxFuture<'_, ()>],
    work: impl Future<Output = T>,
    mut patience: Option<u64>,
) -> Option<T> {
    let mut work = pin!(work);
    poll_fn(|context| {
        for borrower in &mut *borrowers {
            assert!(borrower.as_mut().poll(context).is_pending());
        }
        if let Poll::Ready(done) = work.as_mut().poll(context) {
            return Poll::Ready(Some(done));
        }
        match &mut patience {
            Some(0) => Poll::Ready(None),
            Some(patience) => {
                *patience -= 1;
                Poll::Pending
            }
            None => Poll::Pending,
        }
    })
    .await
}
