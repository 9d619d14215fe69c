//! A store and a hypervisor in memory, for the agent's tests: they outlive agents, as disks and
//! guests do, and can be told to fail.

use std::collections::{BTreeMap, HashMap};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes as Chunk;
use elasticstack_core::block::{
    ArrayReport, ArrayState, Attachment, BlockStore, DriveReport, DriveSpec, Lend, LendId,
    LendSpec, Resize, Volume,
};
use elasticstack_core::error::{Error, ErrorKind, Result};
use elasticstack_core::generation::{Epoch, Generation, Run};
use elasticstack_core::hypervisor::{
    Console, EndCause, Hypervisor, Observed, Phase, ServerSpec, Signal,
};
use elasticstack_core::id::{ArrayId, DriveId, ServerId};
use elasticstack_core::units::Bytes;
use futures_core::stream::BoxStream;
use futures_util::StreamExt;
use tokio::sync::{Semaphore, broadcast};
use tokio_stream::wrappers::BroadcastStream;

use super::{HostDescription, locked};

const CAPACITY: Bytes = Bytes::from_mib(64);

/// What the host of a test says of itself.
pub(super) fn description() -> HostDescription {
    HostDescription {
        cpu_mhz: 4000,
        memory_mib: 8192,
        accelerator: "of a test".to_owned(),
        cpu_limits: "none".to_owned(),
        containers: false,
    }
}

/// One array in memory.
pub(super) struct FakeStore {
    array: ArrayId,
    drives: Arc<Mutex<HashMap<DriveId, FakeDrive>>>,
    /// Reads wait here while it has no permits.
    pub gate: Arc<Semaphore>,
}

struct FakeDrive {
    spec: DriveSpec,
    epoch: Epoch,
    data: Vec<u8>,
}

fn error(kind: ErrorKind) -> Error {
    Error::new(kind, format!("the fake says {}", kind.code()))
}

fn length(size: Bytes) -> usize {
    usize::try_from(size.get()).unwrap()
}

impl FakeStore {
    pub(super) fn new(array: ArrayId) -> Self {
        Self {
            array,
            drives: Arc::default(),
            gate: Arc::new(Semaphore::new(Semaphore::MAX_PERMITS)),
        }
    }

    /// What a drive holds.
    pub(super) fn content(&self, drive: DriveId) -> Option<Vec<u8>> {
        locked(&self.drives).get(&drive).map(|drive| drive.data.clone())
    }

    /// Loses a drive, as a dead disk does.
    pub(super) fn lose(&self, drive: DriveId) {
        locked(&self.drives).remove(&drive);
    }
}

#[async_trait]
impl BlockStore for FakeStore {
    async fn create(&self, spec: &DriveSpec) -> Result<()> {
        let mut drives = locked(&self.drives);
        if spec.array != self.array {
            return Err(error(ErrorKind::NotFound));
        }
        let promised: u64 = drives.values().map(|drive| drive.spec.size.get()).sum();
        match drives.get(&spec.drive) {
            Some(there) if there.spec.size != spec.size => Err(error(ErrorKind::ChangedMeanwhile)),
            Some(_) => Ok(()),
            None if promised + spec.size.get() > CAPACITY.get() => {
                Err(error(ErrorKind::NoCapacity))
            }
            None => {
                let data = vec![0; length(spec.size)];
                let drive = FakeDrive { spec: spec.clone(), epoch: Epoch(0), data };
                drives.insert(spec.drive, drive);
                Ok(())
            }
        }
    }

    async fn open(&self, drive: DriveId, epoch: Epoch) -> Result<Arc<dyn Volume>> {
        let mut drives = locked(&self.drives);
        let found = drives.get_mut(&drive).ok_or_else(|| error(ErrorKind::NotFound))?;
        if epoch < found.epoch {
            return Err(error(ErrorKind::Fenced));
        }
        found.epoch = epoch;
        let (drives, gate) = (Arc::clone(&self.drives), Arc::clone(&self.gate));
        Ok(Arc::new(FakeVolume { drives, gate, drive, epoch }))
    }

    async fn fence(&self, drive: DriveId, epoch: Epoch) -> Result<()> {
        let mut drives = locked(&self.drives);
        let found = drives.get_mut(&drive).ok_or_else(|| error(ErrorKind::NotFound))?;
        found.epoch = found.epoch.max(epoch);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<DriveReport>> {
        let drives = locked(&self.drives);
        Ok(drives
            .values()
            .map(|drive| DriveReport { spec: drive.spec.clone(), epoch: drive.epoch })
            .collect())
    }

    async fn destroy(&self, drive: DriveId, generation: Generation) -> Result<()> {
        let mut drives = locked(&self.drives);
        if drives.get(&drive).is_some_and(|found| found.spec.generation > generation) {
            return Err(error(ErrorKind::Stale));
        }
        drives.remove(&drive);
        Ok(())
    }

    async fn capacity(&self) -> Result<Vec<ArrayReport>> {
        let drives = locked(&self.drives);
        let promised: u64 = drives.values().map(|drive| drive.spec.size.get()).sum();
        let promised = Bytes::try_from(promised).unwrap();
        let (name, state) = ("memory".to_owned(), ArrayState::Online);
        Ok(vec![ArrayReport {
            array: self.array,
            name,
            capacity: CAPACITY,
            promised,
            state,
            disks: None,
            warnings: Vec::new(),
        }])
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        Some(self)
    }
}

#[async_trait]
impl Resize for FakeStore {
    async fn resize(&self, spec: &DriveSpec) -> Result<()> {
        let mut drives = locked(&self.drives);
        let found = drives.get_mut(&spec.drive).ok_or_else(|| error(ErrorKind::NotFound))?;
        if found.spec.generation > spec.generation {
            return Err(error(ErrorKind::Stale));
        }
        found.data.resize(length(spec.size), 0);
        found.spec = spec.clone();
        Ok(())
    }
}

struct FakeVolume {
    drives: Arc<Mutex<HashMap<DriveId, FakeDrive>>>,
    gate: Arc<Semaphore>,
    drive: DriveId,
    epoch: Epoch,
}

impl FakeVolume {
    fn with<T>(&self, offset: Bytes, size: usize, f: impl FnOnce(&mut [u8]) -> T) -> Result<T> {
        let mut drives = locked(&self.drives);
        let drive = drives.get_mut(&self.drive).ok_or_else(|| error(ErrorKind::NotFound))?;
        if self.epoch < drive.epoch {
            return Err(error(ErrorKind::Fenced));
        }
        let start = length(offset);
        let range = drive.data.get_mut(start..start + size);
        range.map(f).ok_or_else(|| error(ErrorKind::InvalidValue))
    }
}

#[async_trait]
impl Volume for FakeVolume {
    fn size(&self) -> Bytes {
        locked(&self.drives).get(&self.drive).map_or(Bytes::ZERO, |drive| drive.spec.size)
    }

    fn block_size(&self) -> Bytes {
        Bytes::try_from(512).unwrap()
    }

    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()> {
        self.gate.acquire().await.unwrap().forget();
        self.with(offset, buffer.len(), |data| buffer.copy_from_slice(data))
    }

    async fn write_at(&self, offset: Bytes, data: Chunk) -> Result<()> {
        self.with(offset, data.len(), |old| old.copy_from_slice(&data))
    }

    async fn flush(&self) -> Result<()> {
        self.with(Bytes::ZERO, 0, |_| ())
    }

    async fn discard(&self, offset: Bytes, size: Bytes) -> Result<()> {
        self.with(offset, length(size), |data| data.fill(0))
    }

    fn attachment(&self) -> Option<Attachment> {
        Some(Attachment::File(PathBuf::from(format!("/fake/{}", self.drive))))
    }
}

/// Lends in memory.
#[derive(Default)]
pub(super) struct FakeLender {
    lends: Mutex<BTreeMap<LendId, LendSpec>>,
    /// Whether what borrowers asked for does not come to an end.
    pub stuck: Mutex<bool>,
}

impl FakeLender {
    /// Every lend, by its epoch.
    pub(super) fn epochs(&self) -> Vec<u64> {
        locked(&self.lends).keys().map(|lend| lend.epoch.0).collect()
    }

    /// Makes a lend that no agent knows of.
    pub(super) fn remember(&self, spec: LendSpec) {
        locked(&self.lends).insert(spec.lend, spec);
    }

    /// Loses every lend, as a target that crashes does.
    pub(super) fn crash(&self) {
        locked(&self.lends).clear();
    }
}

#[async_trait]
impl Lend for FakeLender {
    fn portal(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], 3260))
    }

    async fn lend(&self, spec: &LendSpec, _volume: Arc<dyn Volume>) -> Result<()> {
        let mut lends = locked(&self.lends);
        let older = |lend: &&LendId| lend.drive == spec.lend.drive && lend.epoch < spec.lend.epoch;
        assert_eq!(lends.keys().find(older), None, "an older lend is withdrawn first");
        lends.insert(spec.lend, spec.clone());
        Ok(())
    }

    async fn withdraw(&self, lend: LendId) -> Result<()> {
        if *locked(&self.stuck) {
            return Err(error(ErrorKind::Unavailable));
        }
        locked(&self.lends).remove(&lend);
        Ok(())
    }

    async fn lent(&self) -> Result<Vec<LendId>> {
        Ok(locked(&self.lends).keys().copied().collect())
    }
}

/// Guests in memory.
pub(super) struct FakeHypervisor {
    guests: Mutex<HashMap<ServerId, (Run, Phase)>>,
    events: broadcast::Sender<ServerId>,
    /// Every run that was started, in order.
    pub started: Mutex<Vec<Run>>,
    /// Every signal that was sent.
    pub signals: Mutex<Vec<Signal>>,
    /// Whether starts fail.
    pub broken: Mutex<bool>,
    /// Whether the hosts that lend drives answer.
    pub unreachable: Mutex<bool>,
    /// What the newest start had for drives.
    pub attached: Mutex<Vec<Attachment>>,
    /// Where every guest's screen is.
    pub screen: Mutex<SocketAddr>,
}

impl FakeHypervisor {
    pub(super) fn new() -> Self {
        let (events, _) = broadcast::channel(64);
        let (started, signals, broken, unreachable, attached) = Default::default();
        let screen = Mutex::new(SocketAddr::from(([127, 0, 0, 1], 5901)));
        let guests = Mutex::default();
        Self { guests, events, started, signals, broken, unreachable, attached, screen }
    }

    /// What a server's run does.
    pub(super) fn phase(&self, server: ServerId) -> Option<Phase> {
        locked(&self.guests).get(&server).map(|(_, phase)| *phase)
    }

    /// A guest comes to this by itself.
    pub(super) fn come_to(&self, server: ServerId, phase: Phase) {
        locked(&self.guests).get_mut(&server).unwrap().1 = phase;
        let _ = self.events.send(server);
    }

    /// A guest's process vanishes without a trace.
    pub(super) fn vanish(&self, server: ServerId) {
        locked(&self.guests).remove(&server).unwrap();
    }
}

#[async_trait]
impl Hypervisor for FakeHypervisor {
    async fn ensure(&self, spec: &ServerSpec, run: Run) -> Result<()> {
        if *locked(&self.broken) {
            return Err(error(ErrorKind::JobFailed));
        }
        let drives = spec.drives.iter().map(|slot| slot.attachment.clone());
        *locked(&self.attached) = drives.collect();
        if *locked(&self.unreachable) {
            return Err(error(ErrorKind::Unavailable));
        }
        let mut guests = locked(&self.guests);
        match guests.get(&spec.server) {
            Some((there, Phase::Ended(_))) if *there == run => Err(error(ErrorKind::Stale)),
            Some((there, _)) if *there == run => Ok(()),
            Some(_) => Err(error(ErrorKind::ServerBusy)),
            None => {
                guests.insert(spec.server, (run, Phase::Running));
                locked(&self.started).push(run);
                let _ = self.events.send(spec.server);
                Ok(())
            }
        }
    }

    async fn signal(&self, server: ServerId, signal: Signal) -> Result<()> {
        match self.phase(server) {
            Some(Phase::Running | Phase::Paused) => {
                locked(&self.signals).push(signal);
                if signal == Signal::PowerButton {
                    self.come_to(server, Phase::Ended(EndCause::Guest));
                }
                Ok(())
            }
            Some(Phase::Unresponsive) => Err(error(ErrorKind::Unavailable)),
            Some(Phase::Ended(_)) | None => Err(error(ErrorKind::NotFound)),
        }
    }

    async fn remove(&self, server: ServerId) -> Result<()> {
        locked(&self.guests).remove(&server);
        Ok(())
    }

    async fn observe(&self) -> Result<Vec<Observed>> {
        let guests = locked(&self.guests);
        let seen = guests.iter().map(|(&server, &(run, phase))| Observed { server, run, phase });
        Ok(seen.collect())
    }

    fn events(&self) -> BoxStream<'static, ServerId> {
        let events = BroadcastStream::new(self.events.subscribe());
        events.filter_map(|event| async move { event.ok() }).boxed()
    }

    fn console(&self) -> Option<&dyn Console> {
        Some(self)
    }
}

#[async_trait]
impl Console for FakeHypervisor {
    async fn serial(&self, server: ServerId) -> Result<Vec<u8>> {
        self.phase(server).map(|_| b"login:".to_vec()).ok_or_else(|| error(ErrorKind::NotFound))
    }

    async fn screen(&self, _server: ServerId) -> Result<Option<SocketAddr>> {
        Ok(Some(*locked(&self.screen)))
    }
}
