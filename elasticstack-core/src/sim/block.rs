//! Drives in memory: [`SimStore`].
//!
//! What a call owes durably is durable at once; what only `flush` makes durable waits in a cache
//! that [`SimStore::crash`] loses, block by block as its seed falls.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use super::medium::{BLOCK, Medium};
use super::snapshots::Snapshot;
use super::{SimRng, lock};
use crate::block::{
    ArrayReport, ArrayState, Attachment, BlockStore, CloneDrive, Cloned, DriveReport, DriveSpec,
    Resize, Snapshots, Volume, Writers,
};
use crate::error::{Error, ErrorKind, Result};
use crate::generation::{Epoch, Era, Generation};
use crate::id::{ArrayId, DriveId, SnapshotId, TypedId};
use crate::units::Bytes;

/// The drives of one simulated host. Clones are the same store.
#[derive(Debug, Clone)]
pub struct SimStore(pub(super) Arc<Mutex<State>>);

#[derive(Debug)]
pub(super) struct State {
    arrays: Vec<ArrayReport>,
    drives: BTreeMap<DriveId, Drive>,
    pub(super) snapshots: BTreeMap<SnapshotId, Snapshot>,
    /// Counts crashes; volumes of an earlier one are dead.
    boot: u64,
    /// Counts creations, so that a drive's volumes don't come to life with its successor.
    births: u64,
    rng: SimRng,
}

#[derive(Debug)]
pub(super) struct Drive {
    pub(super) spec: DriveSpec,
    pub(super) epoch: Epoch,
    pub(super) fence: Epoch,
    birth: u64,
    pub(super) medium: Medium,
}

impl SimStore {
    /// A store with one array for each capacity, called `array0` and so on. The seed decides the
    /// arrays' ids and what survives a crash.
    #[must_use]
    pub fn new(seed: u64, capacities: &[Bytes]) -> Self {
        let mut rng = SimRng::new(seed);
        let array = |(number, capacity): (usize, &Bytes)| ArrayReport {
            array: rng.id(),
            name: format!("array{number}"),
            capacity: *capacity,
            promised: Bytes::ZERO,
            state: ArrayState::Online,
            disks: None,
            warnings: Vec::new(),
        };
        let arrays = capacities.iter().enumerate().map(array).collect();
        let (drives, snapshots) = (BTreeMap::new(), BTreeMap::new());
        let state = State { arrays, drives, snapshots, boot: 0, births: 0, rng };
        Self(Arc::new(Mutex::new(state)))
    }

    /// A new id, from the store's seed.
    #[must_use]
    pub fn id<K>(&self) -> TypedId<K> {
        lock(&self.0).rng.id()
    }

    /// A new drive of this size for the first array, to be created.
    ///
    /// # Panics
    /// If the store has no array.
    #[must_use]
    pub fn drive(&self, size: Bytes) -> DriveSpec {
        let array = lock(&self.0).arrays[0].array;
        let generation = Generation::new(Era(1), 1);
        DriveSpec { drive: self.id(), generation, account: self.id(), array, size }
    }

    /// Cuts the host's power and turns it on again. Each unflushed block survives or is lost;
    /// every volume opened before is `Unavailable` from here on.
    pub fn crash(&self) {
        let State { drives, boot, rng, .. } = &mut *lock(&self.0);
        *boot += 1;
        for drive in drives.values_mut() {
            drive.medium.crash(rng);
        }
    }
}

impl State {
    /// Refuses if what is on `array`, `except` one drive, leaves less room than `size`.
    pub(super) fn reserve(
        &self,
        array: ArrayId,
        size: Bytes,
        except: Option<DriveId>,
    ) -> Result<()> {
        let Some(report) = self.arrays.iter().find(|report| report.array == array) else {
            return Err(Error::new(ErrorKind::NotFound, format!("no array {array} here")));
        };
        let room = report.capacity.saturating_sub(self.promised(array, except));
        if size > room {
            let array = &report.name;
            return Err(Error::new(
                ErrorKind::NoCapacity,
                format!("asked for {size}, but {array} has room for {room}: ask for less"),
            ));
        }
        Ok(())
    }

    fn promised(&self, array: ArrayId, except: Option<DriveId>) -> Bytes {
        let drives = self.drives.values().map(|drive| &drive.spec);
        let drives = drives.filter(|spec| spec.array == array && Some(spec.drive) != except);
        let snapshots = self.snapshots.values().map(|snapshot| &snapshot.report);
        let snapshots = snapshots.filter(|report| report.array == array);
        let sizes = drives.map(|spec| spec.size).chain(snapshots.map(|report| report.size));
        sizes.fold(Bytes::ZERO, |sum, size| {
            sum.checked_add(size).expect("what an array promises is a size")
        })
    }

    pub(super) fn drive(&mut self, drive: DriveId) -> Result<&mut Drive> {
        self.drives.get_mut(&drive).ok_or_else(|| {
            Error::new(ErrorKind::NotFound, format!("no drive {drive} here: list the drives"))
        })
    }
}

fn stale(drive: &DriveSpec, asked: Generation) -> Error {
    let found = drive.generation;
    let drive = drive.drive;
    let sentence = format!("drive {drive} is at generation {found}, later than {asked}: read it");
    Error::new(ErrorKind::Stale, sentence)
}

#[async_trait]
impl BlockStore for SimStore {
    async fn create(&self, spec: &DriveSpec) -> Result<()> {
        let mut state = lock(&self.0);
        if let Some(Drive { spec: found, .. }) = state.drives.get(&spec.drive) {
            let same = |drive: &DriveSpec| (drive.size, drive.array, drive.account);
            if same(found) == same(spec) {
                return Ok(());
            }
            return Err(Error::new(
                ErrorKind::ChangedMeanwhile,
                format!("drive {} exists and differs: read it or use another id", spec.drive),
            ));
        }
        state.reserve(spec.array, spec.size, None)?;
        state.births += 1;
        let drive = Drive {
            spec: spec.clone(),
            epoch: Epoch::default(),
            fence: Epoch::default(),
            birth: state.births,
            medium: Medium::default(),
        };
        state.drives.insert(spec.drive, drive);
        Ok(())
    }

    async fn open(&self, drive: DriveId, epoch: Epoch) -> Result<Arc<dyn Volume>> {
        let mut state = lock(&self.0);
        let boot = state.boot;
        let found = state.drive(drive)?;
        found.admit(epoch)?;
        found.epoch = found.epoch.max(epoch);
        let (store, birth, size) = (self.clone(), found.birth, Mutex::new(found.spec.size));
        Ok(Arc::new(SimVolume { store, drive, epoch, birth, boot, size }))
    }

    async fn fence(&self, drive: DriveId, epoch: Epoch) -> Result<()> {
        let mut state = lock(&self.0);
        let found = state.drive(drive)?;
        found.fence = found.fence.max(epoch);
        found.epoch = found.epoch.max(epoch);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<DriveReport>> {
        let state = lock(&self.0);
        let report = |drive: &Drive| DriveReport { spec: drive.spec.clone(), epoch: drive.epoch };
        Ok(state.drives.values().map(report).collect())
    }

    async fn destroy(&self, drive: DriveId, generation: Generation) -> Result<()> {
        let mut state = lock(&self.0);
        match state.drives.get(&drive) {
            Some(found) if generation < found.spec.generation => {
                return Err(stale(&found.spec, generation));
            }
            Some(_) => state.drives.remove(&drive),
            None => None,
        };
        Ok(())
    }

    async fn capacity(&self) -> Result<Vec<ArrayReport>> {
        let state = lock(&self.0);
        let report = |array: &ArrayReport| ArrayReport {
            promised: state.promised(array.array, None),
            ..array.clone()
        };
        Ok(state.arrays.iter().map(report).collect())
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        Some(self)
    }

    fn cloner(&self) -> Option<&dyn CloneDrive> {
        Some(self)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }
}

#[async_trait]
impl Resize for SimStore {
    async fn resize(&self, spec: &DriveSpec) -> Result<()> {
        let mut state = lock(&self.0);
        let found = &state.drive(spec.drive)?.spec;
        if spec.generation < found.generation {
            return Err(stale(found, spec.generation));
        }
        let array = found.array;
        state.reserve(array, spec.size, Some(spec.drive))?;
        let found = state.drive(spec.drive)?;
        let (old, new) = (found.spec.size.get(), spec.size.get());
        found.medium.discard(new, old.saturating_sub(new));
        found.medium.flush();
        found.spec.size = spec.size;
        found.spec.generation = spec.generation;
        Ok(())
    }
}

#[async_trait]
impl CloneDrive for SimStore {
    async fn clone_drive(&self, source: DriveId, target: DriveId, _: Writers) -> Result<Cloned> {
        let mut state = lock(&self.0);
        let Drive { spec: from, medium, .. } = state.drive(source)?;
        let (from, mut medium) = (from.clone(), medium.clone());
        let to = state.drive(target)?;
        if to.spec.size < from.size {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                format!(
                    "a copy of {} needs as much room, {target} has {}",
                    from.size, to.spec.size
                ),
            ));
        }
        if to.spec.array != from.array {
            return Ok(Cloned::MustCopy);
        }
        medium.flush();
        to.medium = medium;
        Ok(Cloned::Shared)
    }
}

impl Drive {
    fn admit(&self, epoch: Epoch) -> Result<()> {
        if epoch < self.fence {
            let Self { spec: DriveSpec { drive, .. }, fence, .. } = self;
            let sentence = format!("drive {drive} is fenced at epoch {fence}, above {epoch}");
            return Err(Error::new(ErrorKind::Fenced, sentence));
        }
        Ok(())
    }
}

/// One open drive. It holds no bytes: the store does.
#[derive(Debug)]
struct SimVolume {
    store: SimStore,
    drive: DriveId,
    epoch: Epoch,
    birth: u64,
    boot: u64,
    /// The last one known.
    size: Mutex<Bytes>,
}

impl SimVolume {
    /// Does `act` on the drive if this volume still gives access to it.
    fn with<T>(&self, act: impl FnOnce(&mut Drive) -> Result<T>) -> Result<T> {
        let mut state = lock(&self.store.0);
        if state.boot != self.boot {
            let sentence = format!("drive {} was opened before a crash: open it", self.drive);
            return Err(Error::new(ErrorKind::Unavailable, sentence));
        }
        let drive = state.drive(self.drive)?;
        if drive.birth != self.birth {
            let sentence = format!("drive {} was destroyed and made again: open it", self.drive);
            return Err(Error::new(ErrorKind::NotFound, sentence));
        }
        drive.admit(self.epoch)?;
        act(drive)
    }
}

fn within(drive: &Drive, offset: Bytes, length: u64) -> Result<()> {
    let size = drive.spec.size;
    match offset.get().checked_add(length) {
        Some(end) if end <= size.get() => Ok(()),
        _ => Err(Error::new(
            ErrorKind::InvalidValue,
            format!("{length} bytes at {} end past the drive's end, {}", offset.get(), size.get()),
        )),
    }
}

#[async_trait]
impl Volume for SimVolume {
    fn size(&self) -> Bytes {
        let now = self.with(|drive| Ok(drive.spec.size));
        let mut size = lock(&self.size);
        *size = now.unwrap_or(*size);
        *size
    }

    fn block_size(&self) -> Bytes {
        Bytes::try_from(BLOCK).expect("a block is small")
    }

    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()> {
        self.with(|drive| {
            within(drive, offset, buffer.len() as u64)?;
            drive.medium.read(offset.get(), buffer);
            Ok(())
        })
    }

    async fn write_at(&self, offset: Bytes, data: bytes::Bytes) -> Result<()> {
        self.with(|drive| {
            within(drive, offset, data.len() as u64)?;
            drive.medium.write(offset.get(), &data);
            Ok(())
        })
    }

    async fn flush(&self) -> Result<()> {
        self.with(|drive| {
            drive.medium.flush();
            Ok(())
        })
    }

    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()> {
        self.with(|drive| {
            within(drive, offset, length.get())?;
            drive.medium.discard(offset.get(), length.get());
            Ok(())
        })
    }

    async fn next_data(&self, offset: Bytes) -> Result<Option<(Bytes, Bytes)>> {
        self.with(|drive| {
            let Some((start, end)) = drive.medium.next_data(offset.get()) else { return Ok(None) };
            let bytes = |n: u64| Bytes::try_from(n).expect("data lies within the drive");
            let end = end.min(drive.spec.size.get());
            Ok(Some((bytes(start), bytes(end.saturating_sub(start)))))
        })
    }

    /// A path that names the drive and exists nowhere: a simulated hypervisor opens no files.
    fn attachment(&self) -> Option<Attachment> {
        Some(Attachment::File(PathBuf::from(format!("/sim/{}", self.drive))))
    }
}
