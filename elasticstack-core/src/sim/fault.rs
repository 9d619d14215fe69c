//! Failure on demand: [`Faulty`] wraps any backend, real or simulated, and fails by a [`Plan`].
//!
//! A fault comes before the call, which then does nothing, or after it, so that the work is done
//! and only the answer is lost: whoever can't tell the two apart must be able to ask again.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_core::stream::BoxStream;

use super::{SimRng, lock};
use crate::block::{
    ArrayReport, Attachment, BlockStore, CloneDrive, Cloned, DriveReport, DriveSpec, Resize,
    SnapshotReport, Snapshots, Volume, Writers,
};
use crate::error::{Error, ErrorKind, Result};
use crate::generation::{Epoch, Generation, Run};
use crate::hypervisor::{
    Console, Counters, Device, Hypervisor, IoCounts, Observed, ServerSpec, Signal,
};
use crate::id::{DriveId, ServerId, SnapshotId};
use crate::units::Bytes;

/// A call that can be made to fail: the methods that answer with a `Result`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is the method of its name")]
#[non_exhaustive]
pub enum Call {
    Capacity,
    CloneDrive,
    Counts,
    Create,
    Destroy,
    DestroySnapshot,
    Discard,
    Ensure,
    Fence,
    Flush,
    List,
    ListSnapshots,
    NextData,
    Observe,
    Open,
    ReadAt,
    Remove,
    Resize,
    RestoreSnapshot,
    Screen,
    Serial,
    Signal,
    TakeSnapshot,
    WriteAt,
}

/// On which side of the work a fault comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Nothing is done.
    Before,
    /// The work is done and its answer is lost.
    After,
}

/// One failure.
#[derive(Debug, Clone, Copy)]
pub struct Fault {
    /// Which call fails.
    pub call: Call,
    /// The how-manieth of its kind, from 1, counted over everything that shares the plan.
    pub nth: u64,
    /// Before or after the work.
    pub when: When,
    /// With which error.
    pub kind: ErrorKind,
}

/// What fails. Clones share their count.
#[derive(Debug, Clone, Default)]
pub struct Plan(Arc<Mutex<Counts>>);

#[derive(Debug, Default)]
struct Counts {
    faults: Vec<Fault>,
    calls: BTreeMap<Call, u64>,
    chance: Option<(SimRng, u64)>,
}

impl Plan {
    /// Exactly these faults.
    #[must_use]
    pub fn of(faults: impl IntoIterator<Item = Fault>) -> Self {
        let faults = faults.into_iter().collect();
        Self(Arc::new(Mutex::new(Counts { faults, ..Counts::default() })))
    }

    /// Every call is `Unavailable` with a chance of one in `n`, before or after its work.
    #[must_use]
    pub fn random(seed: u64, n: u64) -> Self {
        let chance = Some((SimRng::new(seed), n));
        Self(Arc::new(Mutex::new(Counts { chance, ..Counts::default() })))
    }

    /// How many calls of this kind were made.
    #[must_use]
    pub fn calls(&self, call: Call) -> u64 {
        lock(&self.0).calls.get(&call).copied().unwrap_or(0)
    }

    fn next(&self, call: Call) -> Option<(When, Error)> {
        let Counts { faults, calls, chance } = &mut *lock(&self.0);
        let nth = calls.entry(call).or_default();
        *nth += 1;
        let planned = faults.iter().find(|fault| fault.call == call && fault.nth == *nth);
        let random = chance.as_mut().and_then(|(rng, n)| {
            let when = if rng.one_in(2) { When::Before } else { When::After };
            rng.one_in(*n).then_some((when, ErrorKind::Unavailable))
        });
        let (when, kind) = planned.map(|fault| (fault.when, fault.kind)).or(random)?;
        let sentence = format!("{call:?} number {nth} was made to fail: try again");
        Some((when, Error::new(kind, sentence)))
    }

    async fn run<T>(&self, call: Call, work: impl Future<Output = Result<T>>) -> Result<T> {
        match self.next(call) {
            None => work.await,
            Some((When::Before, error)) => Err(error),
            Some((When::After, error)) => {
                work.await?;
                Err(error)
            }
        }
    }
}

/// A backend that fails by plan and is otherwise the one it wraps. The volumes it opens fail by
/// the same plan. Event streams and attachments are passed through.
pub struct Faulty<B: ?Sized> {
    inner: Arc<B>,
    plan: Plan,
}

impl<B: ?Sized> Faulty<B> {
    /// Wraps `inner`.
    #[must_use]
    pub fn new(inner: Arc<B>, plan: Plan) -> Self {
        Self { inner, plan }
    }
}

impl<B: ?Sized> fmt::Debug for Faulty<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Faulty").field("plan", &self.plan).finish_non_exhaustive()
    }
}

/// What a capability that vanished between two calls is.
fn gone() -> Error {
    Error::internal("the wrapped backend took a capability back")
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: BlockStore + ?Sized> BlockStore for Faulty<B> {
    async fn create(&self, spec: &DriveSpec) -> Result<()> {
        self.plan.run(Call::Create, self.inner.create(spec)).await
    }

    async fn open(&self, drive: DriveId, epoch: Epoch) -> Result<Arc<dyn Volume>> {
        let volume = self.plan.run(Call::Open, self.inner.open(drive, epoch)).await?;
        Ok(Arc::new(Faulty::new(volume, self.plan.clone())))
    }

    async fn fence(&self, drive: DriveId, epoch: Epoch) -> Result<()> {
        self.plan.run(Call::Fence, self.inner.fence(drive, epoch)).await
    }

    async fn list(&self) -> Result<Vec<DriveReport>> {
        self.plan.run(Call::List, self.inner.list()).await
    }

    async fn destroy(&self, drive: DriveId, generation: Generation) -> Result<()> {
        self.plan.run(Call::Destroy, self.inner.destroy(drive, generation)).await
    }

    async fn capacity(&self) -> Result<Vec<ArrayReport>> {
        self.plan.run(Call::Capacity, self.inner.capacity()).await
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        self.inner.resizer().map(|_| self as &dyn Resize)
    }

    fn cloner(&self) -> Option<&dyn CloneDrive> {
        self.inner.cloner().map(|_| self as &dyn CloneDrive)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        self.inner.snapshots().map(|_| self as &dyn Snapshots)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: BlockStore + ?Sized> Resize for Faulty<B> {
    async fn resize(&self, spec: &DriveSpec) -> Result<()> {
        let resizer = self.inner.resizer().ok_or_else(gone)?;
        self.plan.run(Call::Resize, resizer.resize(spec)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: BlockStore + ?Sized> CloneDrive for Faulty<B> {
    async fn clone_drive(
        &self,
        source: DriveId,
        target: DriveId,
        writers: Writers,
    ) -> Result<Cloned> {
        let cloner = self.inner.cloner().ok_or_else(gone)?;
        self.plan.run(Call::CloneDrive, cloner.clone_drive(source, target, writers)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: BlockStore + ?Sized> Snapshots for Faulty<B> {
    async fn take_snapshot(
        &self,
        snapshot: SnapshotId,
        drive: DriveId,
        writers: Writers,
    ) -> Result<()> {
        let inner = self.inner.snapshots().ok_or_else(gone)?;
        self.plan.run(Call::TakeSnapshot, inner.take_snapshot(snapshot, drive, writers)).await
    }

    async fn restore_snapshot(&self, snapshot: SnapshotId, epoch: Epoch) -> Result<()> {
        let inner = self.inner.snapshots().ok_or_else(gone)?;
        self.plan.run(Call::RestoreSnapshot, inner.restore_snapshot(snapshot, epoch)).await
    }

    async fn destroy_snapshot(&self, snapshot: SnapshotId) -> Result<()> {
        let inner = self.inner.snapshots().ok_or_else(gone)?;
        self.plan.run(Call::DestroySnapshot, inner.destroy_snapshot(snapshot)).await
    }

    async fn list_snapshots(&self) -> Result<Vec<SnapshotReport>> {
        let inner = self.inner.snapshots().ok_or_else(gone)?;
        self.plan.run(Call::ListSnapshots, inner.list_snapshots()).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<V: Volume + ?Sized> Volume for Faulty<V> {
    fn size(&self) -> Bytes {
        self.inner.size()
    }

    fn block_size(&self) -> Bytes {
        self.inner.block_size()
    }

    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()> {
        self.plan.run(Call::ReadAt, self.inner.read_at(offset, buffer)).await
    }

    async fn write_at(&self, offset: Bytes, data: bytes::Bytes) -> Result<()> {
        self.plan.run(Call::WriteAt, self.inner.write_at(offset, data)).await
    }

    async fn flush(&self) -> Result<()> {
        self.plan.run(Call::Flush, self.inner.flush()).await
    }

    async fn write_through(&self, offset: Bytes, data: bytes::Bytes) -> Result<()> {
        // Either half may fail.
        self.write_at(offset, data).await?;
        self.flush().await
    }

    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()> {
        self.plan.run(Call::Discard, self.inner.discard(offset, length)).await
    }

    async fn next_data(&self, offset: Bytes) -> Result<Option<(Bytes, Bytes)>> {
        self.plan.run(Call::NextData, self.inner.next_data(offset)).await
    }

    fn attachment(&self) -> Option<Attachment> {
        self.inner.attachment()
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Hypervisor + ?Sized> Hypervisor for Faulty<B> {
    async fn ensure(&self, spec: &ServerSpec, run: Run) -> Result<()> {
        self.plan.run(Call::Ensure, self.inner.ensure(spec, run)).await
    }

    async fn signal(&self, server: ServerId, signal: Signal) -> Result<()> {
        self.plan.run(Call::Signal, self.inner.signal(server, signal)).await
    }

    async fn remove(&self, server: ServerId) -> Result<()> {
        self.plan.run(Call::Remove, self.inner.remove(server)).await
    }

    async fn observe(&self) -> Result<Vec<Observed>> {
        self.plan.run(Call::Observe, self.inner.observe()).await
    }

    fn events(&self) -> BoxStream<'static, ServerId> {
        self.inner.events()
    }

    fn console(&self) -> Option<&dyn Console> {
        self.inner.console().map(|_| self as &dyn Console)
    }

    fn counters(&self) -> Option<&dyn Counters> {
        self.inner.counters().map(|_| self as &dyn Counters)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Hypervisor + ?Sized> Console for Faulty<B> {
    async fn serial(&self, server: ServerId) -> Result<Vec<u8>> {
        let console = self.inner.console().ok_or_else(gone)?;
        self.plan.run(Call::Serial, console.serial(server)).await
    }

    async fn screen(&self, server: ServerId) -> Result<Option<SocketAddr>> {
        let console = self.inner.console().ok_or_else(gone)?;
        self.plan.run(Call::Screen, console.screen(server)).await
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: Hypervisor + ?Sized> Counters for Faulty<B> {
    async fn counts(&self, server: ServerId) -> Result<BTreeMap<Device, IoCounts>> {
        let counters = self.inner.counters().ok_or_else(gone)?;
        self.plan.run(Call::Counts, counters.counts(server)).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::{SimStore, block_on};

    fn drive(store: &SimStore) -> DriveSpec {
        DriveSpec {
            drive: store.id(),
            array: block_on(store.capacity()).unwrap()[0].array,
            account: store.id(),
            size: Bytes::from_mib(1),
            generation: Generation::new(crate::generation::Era(1), 1),
        }
    }

    #[test]
    fn the_planned_call_fails_and_its_work_is_left_undone_or_done_as_planned() {
        let fault = |call, when| Fault { call, nth: 2, when, kind: ErrorKind::Internal };
        for (when, found) in [(When::Before, *b"first"), (When::After, *b"later")] {
            let store = SimStore::new(1, &[Bytes::from_mib(8)]);
            let spec = drive(&store);
            let faulty = Faulty::new(Arc::new(store), Plan::of([fault(Call::WriteAt, when)]));
            block_on(async {
                faulty.create(&spec).await.unwrap();
                let volume = faulty.open(spec.drive, Epoch(1)).await.unwrap();
                let write = |text| volume.write_at(Bytes::ZERO, bytes::Bytes::from_static(text));
                write(b"first").await.unwrap();
                assert_eq!(write(b"later").await.unwrap_err().kind(), ErrorKind::Internal);
                let mut bytes = [0; 5];
                volume.read_at(Bytes::ZERO, &mut bytes).await.unwrap();
                assert_eq!(bytes, found);
            });
        }
    }

    #[test]
    fn whoever_asks_again_gets_through_random_faults() {
        let store = SimStore::new(1, &[Bytes::from_mib(8)]);
        let spec = drive(&store);
        let plan = Plan::random(3, 2);
        let faulty = Faulty::new(Arc::new(store.clone()), plan.clone());
        for _ in 0..10 {
            while block_on(faulty.create(&spec)).is_err() {}
            while block_on(faulty.destroy(spec.drive, spec.generation)).is_err() {}
        }
        assert!(plan.calls(Call::Create) > 10 && plan.calls(Call::Destroy) > 10);
        assert_eq!(block_on(store.list()).unwrap(), []);
    }
}
