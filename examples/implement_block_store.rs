//! A block store of your own in some hundred lines, tested by the conformance kit.
//!
//! This one keeps each drive as a row of bytes in memory, and the memory plays the disk: whatever
//! is in it is durable. Copy it, replace the `Vec<u8>` by your hardware, and run the kit until it
//! passes: `cargo test -p elasticstack-examples --bin implement_block_store`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use elasticstack_core::block::{
    ArrayReport, ArrayState, Attachment, BlockStore, DriveReport, DriveSpec, Volume,
};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::{SimRng, block_on};

/// All drives of one array. Clones are the same store.
#[derive(Clone)]
struct RamStore {
    array: ArrayReport,
    drives: Arc<Mutex<BTreeMap<DriveId, Drive>>>,
}

struct Drive {
    report: DriveReport,
    fence: Epoch,
    /// Shared with the volumes: who holds another one holds a drive that was destroyed.
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl RamStore {
    fn new(capacity: Bytes) -> Self {
        let (array, promised) = (SimRng::new(1).id(), Bytes::ZERO);
        let array = ArrayReport {
            array,
            name: "ram".to_owned(),
            capacity,
            promised,
            state: ArrayState::Online,
            disks: None,
        };
        Self { array, drives: Arc::default() }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn refuse<T>(kind: ErrorKind, sentence: String) -> Result<T> {
    Err(Error::new(kind, sentence))
}

fn find(drives: &mut BTreeMap<DriveId, Drive>, drive: DriveId) -> Result<&mut Drive> {
    let absent = || Error::new(ErrorKind::NotFound, format!("no drive {drive} here: list them"));
    drives.get_mut(&drive).ok_or_else(absent)
}

fn promised(drives: &BTreeMap<DriveId, Drive>) -> u64 {
    drives.values().map(|drive| drive.report.spec.size.get()).sum()
}

#[async_trait]
impl BlockStore for RamStore {
    async fn create(&self, spec: &DriveSpec) -> Result<()> {
        let mut drives = lock(&self.drives);
        if let Some(Drive { report: DriveReport { spec: old, .. }, .. }) = drives.get(&spec.drive) {
            if (old.size, old.array, old.account) == (spec.size, spec.array, spec.account) {
                return Ok(());
            }
            return refuse(ErrorKind::ChangedMeanwhile, format!("{} differs", spec.drive));
        }
        if spec.array != self.array.array {
            return refuse(ErrorKind::NotFound, format!("no array {} here", spec.array));
        }
        let room = self.array.capacity.get().saturating_sub(promised(&drives));
        let (Ok(size), true) = (usize::try_from(spec.size.get()), spec.size.get() <= room) else {
            let sentence = format!("asked for {}, there is room for {room} bytes", spec.size);
            return refuse(ErrorKind::NoCapacity, sentence);
        };
        let report = DriveReport { spec: spec.clone(), epoch: Epoch(0) };
        let bytes = Arc::new(Mutex::new(vec![0; size]));
        drives.insert(spec.drive, Drive { report, fence: Epoch(0), bytes });
        Ok(())
    }

    async fn open(&self, drive: DriveId, epoch: Epoch) -> Result<Arc<dyn Volume>> {
        let mut drives = lock(&self.drives);
        let found = find(&mut drives, drive)?;
        if epoch < found.fence {
            return refuse(ErrorKind::Fenced, format!("{drive} is fenced at {}", found.fence));
        }
        found.report.epoch = found.report.epoch.max(epoch);
        let (bytes, size) = (Arc::clone(&found.bytes), found.report.spec.size);
        Ok(Arc::new(RamVolume { store: self.clone(), drive, epoch, bytes, size }))
    }

    // No I/O is in flight here: every call of a volume holds the lock from its check to its end.
    async fn fence(&self, drive: DriveId, epoch: Epoch) -> Result<()> {
        let mut drives = lock(&self.drives);
        let found = find(&mut drives, drive)?;
        found.fence = found.fence.max(epoch);
        found.report.epoch = found.report.epoch.max(epoch);
        Ok(())
    }

    async fn list(&self) -> Result<Vec<DriveReport>> {
        Ok(lock(&self.drives).values().map(|drive| drive.report.clone()).collect())
    }

    async fn destroy(&self, drive: DriveId, generation: Generation) -> Result<()> {
        let mut drives = lock(&self.drives);
        match drives.get(&drive).map(|found| found.report.spec.generation) {
            Some(found) if generation < found => {
                refuse(ErrorKind::Stale, format!("{drive} is at generation {found}: read it"))
            }
            _ => {
                drives.remove(&drive);
                Ok(())
            }
        }
    }

    async fn capacity(&self) -> Result<Vec<ArrayReport>> {
        let promised = promised(&lock(&self.drives));
        let promised = Bytes::try_from(promised)
            .map_err(|error| Error::internal("adding up the drives' sizes").source(error))?;
        Ok(vec![ArrayReport { promised, ..self.array.clone() }])
    }
}

struct RamVolume {
    store: RamStore,
    drive: DriveId,
    epoch: Epoch,
    bytes: Arc<Mutex<Vec<u8>>>,
    size: Bytes,
}

impl RamVolume {
    /// Does `act` on a range of the drive, if this volume still gives access to it.
    fn with(&self, at: Bytes, length: u64, act: impl FnOnce(&mut [u8])) -> Result<()> {
        let mut drives = lock(&self.store.drives);
        let found = find(&mut drives, self.drive)?;
        if !Arc::ptr_eq(&found.bytes, &self.bytes) {
            return refuse(ErrorKind::NotFound, format!("{} was destroyed", self.drive));
        }
        if self.epoch < found.fence {
            return refuse(ErrorKind::Fenced, format!("{} is fenced", self.drive));
        }
        let mut bytes = lock(&self.bytes);
        match range(at, length).and_then(|range| bytes.get_mut(range)) {
            Some(bytes) => act(bytes),
            None => {
                let sentence = format!("{length} bytes at {} pass {}", at.get(), self.size.get());
                return refuse(ErrorKind::InvalidValue, sentence);
            }
        }
        Ok(())
    }
}

fn range(at: Bytes, length: u64) -> Option<Range<usize>> {
    let end = at.get().checked_add(length)?;
    Some(usize::try_from(at.get()).ok()?..usize::try_from(end).ok()?)
}

#[async_trait]
impl Volume for RamVolume {
    fn size(&self) -> Bytes {
        self.size
    }

    fn block_size(&self) -> Bytes {
        Bytes::from_mib(1)
    }

    async fn read_at(&self, at: Bytes, buffer: &mut [u8]) -> Result<()> {
        self.with(at, buffer.len() as u64, |bytes| buffer.copy_from_slice(bytes))
    }

    async fn write_at(&self, at: Bytes, data: bytes::Bytes) -> Result<()> {
        self.with(at, data.len() as u64, |bytes| bytes.copy_from_slice(&data))
    }

    async fn flush(&self) -> Result<()> {
        self.with(Bytes::ZERO, 0, |_| ())
    }

    async fn discard(&self, at: Bytes, length: Bytes) -> Result<()> {
        self.with(at, length.get(), |bytes| bytes.fill(0))
    }

    fn attachment(&self) -> Option<Attachment> {
        None
    }
}

fn main() -> Result<()> {
    let store = RamStore::new(Bytes::from_mib(64));
    let mut rng = SimRng::new(2);
    block_on(store.create(&DriveSpec {
        drive: rng.id(),
        array: store.array.array,
        account: rng.id(),
        size: Bytes::from_mib(10),
        generation: Generation::new(Era(1), 1),
    }))?;
    for array in block_on(store.capacity())? {
        println!("{} promises {} of {}", array.name, array.promised, array.capacity);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use elasticstack_core::conformance::BlockStoreFixture;

    use super::*;

    #[async_trait]
    impl BlockStoreFixture for RamStore {
        async fn start(&self) -> Result<Arc<dyn BlockStore>> {
            Ok(Arc::new(self.clone()))
        }

        // The memory plays the disk, so a power cut takes nothing but the open volumes.
        async fn crash(&self, store: Arc<dyn BlockStore>) -> Result<()> {
            drop(store);
            Ok(())
        }
    }

    elasticstack_core::blockstore_conformance! { ram_store, || RamStore::new(Bytes::from_mib(64)) }
}
