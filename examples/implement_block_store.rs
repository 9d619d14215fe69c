//! A block store of your own in some hundred lines, tested by the conformance kit.
//!
//! This one keeps each drive as a row of bytes in memory, and the memory plays the disk: whatever
//! is in it is durable. Copy it, replace the `Vec<u8>` by your hardware, and run the kit until it
//! passes: `cargo test -p elasticstack-examples --bin implement_block_store`.
//!
//! `cargo run -p elasticstack-examples --bin implement_block_store -- guest` boots a guest from it, which
//! needs Debian's `qemu-system-x86` and `qemu-block-extra`.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use elasticstack_core::block::{
    ArrayReport, ArrayState, Attachment, BlockStore, Borrowing, DriveReport, DriveSpec, Lend as _,
    LendId, LendSpec, Volume, Writing,
};
use elasticstack_core::hypervisor::{
    Access, Console as _, DriveSlot, Hypervisor as _, IoLimits, Media, ServerKind, ServerSpec,
};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::SimRng;
use elasticstack_core::units::VcpuCount;
use elasticstack_host::guests::{Guests, GuestsConfig, Scope};
use elasticstack_host::lend::InProcessLender;
use elasticstack_host::qemu::{Accelerator, Qemu};
use tokio::net::TcpListener;

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
            warnings: Vec::new(),
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

/// A whole guest in 38 bytes, for the BIOS: it says `hello` on its serial port and halts.
#[rustfmt::skip]
const GUEST: &[u8] = &[
    0x31, 0xc0,             // xor ax, ax
    0x8e, 0xd8,             // mov ds, ax
    0xbe, 0x15, 0x7c,       // mov si, hello
    0xba, 0xf8, 0x03,       // mov dx, 0x3f8        ; COM1
    0xac,                   // next: lodsb
    0x84, 0xc0,             // test al, al
    0x74, 0x03,             // jz halt
    0xee,                   // out dx, al
    0xeb, 0xf8,             // jmp next
    0xf4,                   // halt: hlt
    0xeb, 0xfd,             // jmp halt
    b'h', b'e', b'l', b'l', b'o', b' ', b'f', b'r', b'o', b'm', b' ', b'R', b'A', b'M', b'\n', 0,
];

/// Boots a guest from a drive of the store. QEMU knows nothing of it: what is no file on this host is
/// lent over iSCSI, here by this very process, as to a server on another host.
async fn boot(store: &RamStore, drive: DriveId, runtime_dir: PathBuf) -> anyhow::Result<String> {
    let volume = store.open(drive, Epoch(1)).await?;
    volume.write_at(Bytes::ZERO, GUEST.into()).await?;
    volume.write_at(Bytes::try_from(510)?, vec![0x55, 0xaa].into()).await?;
    let lender = InProcessLender::new(TcpListener::bind("127.0.0.1:0").await?)?;
    let lend = LendSpec {
        lend: LendId { drive, epoch: Epoch(1) },
        borrower: SimRng::new(3).id(),
        writing: Writing::Allowed,
        secret: Secret::new("known to both ends"),
    };
    lender.lend(&lend, volume).await?;
    let LendSpec { lend, borrower, secret, .. } = lend;
    let borrowing = Borrowing { portal: lender.portal(), lend, borrower, secret };
    let program = PathBuf::from("qemu-system-x86_64");
    let (accelerator, scope) = (Accelerator::detect().0, Scope::Session);
    let guests =
        Guests::open(GuestsConfig { runtime_dir, scope }, Qemu { program, accelerator }).await?;
    let spec = ServerSpec {
        server: borrower,
        kind: ServerKind::Vm,
        cpu: MegaHertz(1_000),
        vcpus: VcpuCount::for_cpu(MegaHertz(1_000)),
        memory: MebiBytes(32),
        drives: vec![DriveSlot {
            device: "ide:0:0".parse()?,
            media: Media::Disk,
            access: Access::Exclusive,
            attachment: Attachment::Iscsi(borrowing),
            limits: IoLimits::default(),
        }],
        boot: Vec::new(),
        nics: Vec::new(),
        screen: None,
        seed: None,
    };
    guests.ensure(&spec, Run(1)).await?;
    let said = loop {
        let said = String::from_utf8(guests.serial(borrower).await?)?;
        if said.ends_with('\n') {
            break said;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    guests.remove(borrower).await?;
    guests.close().await;
    Ok(said)
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let store = RamStore::new(Bytes::from_mib(64));
    let mut rng = SimRng::new(2);
    let drive = rng.id();
    let spec = DriveSpec {
        drive,
        array: store.array.array,
        account: rng.id(),
        size: Bytes::from_mib(10),
        generation: Generation::new(Era(1), 1),
    };
    store.create(&spec).await?;
    for array in store.capacity().await? {
        println!("{} promises {} of {}", array.name, array.promised, array.capacity);
    }
    if std::env::args().nth(1).as_deref() == Some("guest") {
        let directory = tempfile::tempdir()?;
        print!("a guest says: {}", boot(&store, drive, directory.path().join("servers")).await?);
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

    #[tokio::test]
    #[ignore = "needs QEMU: cargo xtask test"]
    async fn a_guest_boots_from_a_drive_that_is_nothing_but_memory() {
        let store = RamStore::new(Bytes::from_mib(64));
        let mut rng = SimRng::new(2);
        let (drive, account, array) = (rng.id(), rng.id(), store.array.array);
        let (size, generation) = (Bytes::from_mib(1), Generation::new(Era(1), 1));
        store.create(&DriveSpec { drive, array, account, size, generation }).await.unwrap();
        let directory = tempfile::tempdir().unwrap();
        let said = boot(&store, drive, directory.path().join("servers")).await.unwrap();
        assert_eq!(said, "hello from RAM\n");
    }
}
