//! A drive as the guest finds it: virtio-blk (Virtual I/O Device 1.2, section 5.2) over a [`Volume`].
//!
//! Nothing of the guest's memory is handed to the kernel: what is read is copied in when it is there,
//! what is written is copied out before. So a request that is given up touches no memory any more.

use std::sync::Arc;

use elasticstack_core::block::Writing;
use elasticstack_core::error::{ErrorKind, Result};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use tokio::task::coop::consume_budget;
use virtio_queue::{Queue, QueueT as _};
use vm_memory::GuestMemoryMmap;

use super::bell::{Bell, Ear};
use super::block_request::{Ask, Request, SECTOR, Status, identity};
use super::machine::Drive;
use super::memory::Memory;
use super::meter::Way;
use super::mmio::{Line, Model, Serving};
use super::stall::Stall;
use super::worker::Worker;

/// virtio-blk's number.
const KIND: u32 = 2;

/// Descriptors of the queue, which is how many requests are under way at most.
const DEPTH: [u16; 1] = [256];

/// Features (section 5.2.3), and of any device those of its queue (section 6).
const SIZE_MAX: u64 = 1 << 1;
const SEG_MAX: u64 = 1 << 2;
const READ_ONLY: u64 = 1 << 5;
const BLK_SIZE: u64 = 1 << 6;
const FLUSH: u64 = 1 << 9;
const DISCARD: u64 = 1 << 13;
const INDIRECT: u64 = 1 << 28;
const EVENT_INDEX: u64 = 1 << 29;

/// How many pieces of memory a request has at most, beside its header and its status.
const SEGMENTS: u32 = 126;

/// How many bytes each of them has at most: together as much as the largest request.
const SEGMENT: u32 = 32 << 10;

/// Of how many bytes the requests under way are before no other is begun. All of a guest's may be of the
/// same memory of its, and together of far more than it has.
const UNDER_WAY: usize = 8 << 20;

/// How many sectors one discard frees at most.
const DISCARD_MAX: u32 = 1 << 21;

/// The device.
pub(super) struct Block {
    served: Arc<Served>,
    memory: Arc<Memory>,
    worker: Worker,
}

/// When a write is durable (section 5.2.6.2): with a driver that does not flush, once it is answered.
#[derive(Debug, Clone, Copy)]
enum Caching {
    Back,
    Through,
}

/// What requests are served by.
struct Served {
    drive: Drive,
    stall: Stall,
}

impl Block {
    /// # Errors
    /// `Internal` if there is no thread for it.
    pub(super) fn new(drive: Drive, memory: Arc<Memory>, stall: Stall) -> Result<Self> {
        let served = Arc::new(Served { drive, stall });
        Ok(Self { served, memory, worker: Worker::new("drive")? })
    }
}

impl Model for Block {
    fn kind(&self) -> u32 {
        KIND
    }

    fn features(&self) -> u64 {
        let access = match self.served.drive.writing {
            Writing::Allowed => DISCARD | FLUSH,
            Writing::Refused => READ_ONLY,
        };
        access | SIZE_MAX | SEG_MAX | BLK_SIZE | INDIRECT | EVENT_INDEX
    }

    fn queues(&self) -> &[u16] {
        &DEPTH
    }

    fn config(&self) -> Vec<u8> {
        let mut config = [0; 60];
        let volume = &self.served.drive.volume;
        let sectors = volume.size().get() / SECTOR;
        let alignment = u32::try_from(volume.block_size().get() / SECTOR).unwrap_or(1);
        config[..8].copy_from_slice(&sectors.to_le_bytes());
        let limits = [(8, SEGMENT), (12, SEGMENTS), (20, 512)];
        let discards = [(36, DISCARD_MAX), (40, 1), (44, alignment)];
        for (at, value) in limits.into_iter().chain(discards) {
            config[at..at + 4].copy_from_slice(&value.to_le_bytes());
        }
        config.to_vec()
    }

    fn start(
        &self,
        features: u64,
        queues: Vec<Option<Queue>>,
        line: Line,
        bell: Bell,
    ) -> Option<Box<dyn Serving>> {
        let mut queue = queues.into_iter().next().flatten()?;
        queue.set_event_idx(features & EVENT_INDEX != 0);
        let (served, memory) = (Arc::clone(&self.served), Arc::clone(&self.memory));
        let caching = if features & FLUSH == 0 { Caching::Through } else { Caching::Back };
        self.worker.serve(bell, move |ear| async move {
            serve(&served, caching, &memory, queue, &ear, &line).await
        })
    }
}

/// Serves a queue for as long as it is sound.
async fn serve(
    served: &Served,
    caching: Caching,
    memory: &GuestMemoryMmap,
    mut queue: Queue,
    ear: &Ear,
    line: &Line,
) -> Result<(), virtio_queue::Error> {
    let mut under_way = FuturesUnordered::new();
    let mut bytes_under_way = 0;
    loop {
        queue.disable_notification(memory)?;
        let mut is_more_said = false;
        // A sound driver has no more under way than its queue is long; another one is not to fill memory.
        while under_way.len() < usize::from(DEPTH[0]) && bytes_under_way < UNDER_WAY {
            if let Some(chain) = queue.pop_descriptor_chain(memory) {
                is_more_said = false;
                let head = chain.head_index();
                let request = Request::read(memory, chain);
                let length = request.as_ref().map_or(0, |request| request.ask.length());
                bytes_under_way += length;
                under_way.push(async move {
                    // One without a place for its status can't be answered, nor done.
                    let Some(request) = request else { return (head, length, 0) };
                    (head, length, served.answer(caching, request).await)
                });
                continue;
            }
            if is_more_said {
                return Err(virtio_queue::Error::InvalidAvailRingIndex);
            }
            is_more_said = queue.enable_notification(memory)?;
            if !is_more_said {
                break;
            }
        }
        // However fast its driver is, the work can be ended.
        consume_budget().await;
        tokio::select! {
            () = ear.rung() => {}
            Some((head, length, written)) = under_way.next() => {
                bytes_under_way -= length;
                line.give_back(&mut queue, memory, head, written)?;
            }
        }
    }
}

impl Served {
    /// Does what a request asks for, and says how it ended; answers with how much was written to the
    /// guest's memory.
    async fn answer(&self, caching: Caching, mut request: Request<'_>) -> u32 {
        if let Ask::Read(..) | Ask::Write(..) = request.ask {
            self.drive.meter.pass(as_u64(request.ask.length())).await;
        }
        let done = loop {
            match self.serve(caching, &mut request).await {
                Ok(status) => break status,
                // Past the drive's end: the guest's own mistake.
                Err(error) if error.kind() == ErrorKind::InvalidValue => break Status::IoError,
                Err(error) => {
                    tracing::warn!(%error, "a request of a guest's drive failed, and waits");
                    self.stall.wait(&error).await;
                }
            }
        };
        request.end(done)
    }

    async fn serve(&self, caching: Caching, request: &mut Request<'_>) -> Result<Status> {
        let Drive { volume, writing, name, meter } = &self.drive;
        let is_refused = *writing == Writing::Refused;
        match request.ask.clone() {
            Ask::Read(offset, length) => {
                let mut data = vec![0; length];
                volume.read_at(offset, &mut data).await?;
                meter.count(Way::Read, as_u64(length));
                return Ok(request.give(&data));
            }
            Ask::Identity => return Ok(request.give(&identity(name))),
            Ask::Other => return Ok(Status::Unsupported),
            Ask::Broken => return Ok(Status::IoError),
            Ask::Write(..) | Ask::Discard(..) if is_refused => return Ok(Status::IoError),
            Ask::Write(offset, data) => {
                let length = as_u64(data.len());
                match caching {
                    Caching::Back => volume.write_at(offset, data).await?,
                    Caching::Through => volume.write_through(offset, data).await?,
                }
                meter.count(Way::Write, length);
            }
            Ask::Discard(offset, length) => volume.discard(offset, length).await?,
            Ask::Flush => volume.flush().await?,
        }
        Ok(Status::Ok)
    }
}

fn as_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use elasticstack_core::block::{BlockStore as _, Volume};
    use elasticstack_core::generation::Epoch;
    use elasticstack_core::id::DriveId;
    use elasticstack_core::sim::SimStore;
    use elasticstack_core::units::Bytes;
    use proptest::prelude::*;
    use vm_memory::{Bytes as _, GuestAddress};

    use super::*;
    use crate::kvm::news::{Listener, News};
    use crate::kvm::test_driver::{AVAILABLE, DriverMemory, DriverQueue, MEMORY, Piece, SIZE};

    /// Where a driver's queue is, and what it asks with.
    const QUEUE: u64 = 0x1000;
    const HEADER: u64 = 0x4000;
    const STATUS: u64 = 0x5000;
    const DATA: u64 = 0x8000;

    const GUARD: Duration = Duration::from_secs(60);

    struct Driver {
        bell: Bell,
        _serving: Box<dyn Serving>,
        /// Its thread is there for as long as it is.
        _block: Block,
        memory: DriverMemory,
        queue: DriverQueue,
        store: SimStore,
        drive: DriveId,
        volume: Arc<dyn Volume>,
        stall: Stall,
        told: Receiver<News>,
        raised: Receiver<()>,
    }

    impl Driver {
        /// One that takes these of the features.
        fn new(writing: Writing, features: u64) -> Self {
            let opened = futures_util::FutureExt::now_or_never(async {
                let store = SimStore::new(1, &[Bytes::from_mib(64)]);
                let drive = store.drive(Bytes::from_mib(4));
                store.create(&drive).await.unwrap();
                let volume: Arc<dyn Volume> = store.open(drive.drive, Epoch(1)).await.unwrap();
                (store, drive.drive, volume)
            });
            let (store, drive, volume) = opened.unwrap();
            let (memory, queue) = (DriverMemory::new(), DriverQueue::new(QUEUE));
            let (raise, raised) = channel();
            let name = "a drive with a long name".to_owned();
            let (tell, told) = channel();
            let listener = Listener::new(move |news| tell.send(news).unwrap());
            let stall = Stall::new(listener);
            let (own, guest) = (Arc::clone(&volume), memory.of_device());
            let block = Block::new(Drive::new(own, writing, name), guest, stall.clone()).unwrap();
            let raise = std::sync::Mutex::new(raise);
            let line = Line::new(move || raise.lock().unwrap().send(()).unwrap());
            let (bell, queues) = (Bell::new().unwrap(), vec![Some(queue.of_device(DEPTH[0]))]);
            let serving = block.start(features, queues, line, bell.clone()).unwrap();
            Self {
                bell,
                _serving: serving,
                _block: block,
                memory,
                queue,
                store,
                drive,
                volume,
                stall,
                told,
                raised,
            }
        }

        /// Makes a chain of pieces and rings.
        fn offer(&mut self, pieces: &[Piece]) {
            self.queue.give(&self.memory, pieces);
            self.bell.ring();
        }

        /// Asks for something, with these pieces between header and status; answers with the status and
        /// how much was written.
        fn ask(&mut self, kind: u32, sector: u64, pieces: &[Piece]) -> (u8, u32) {
            self.offer_request(kind, sector, pieces);
            // Others before it may be answered yet.
            while self.memory.get(STATUS, 1) == [0xff] {
                self.raised.recv_timeout(GUARD).unwrap();
            }
            (self.memory.get(STATUS, 1)[0], self.queue.written(&self.memory))
        }

        fn offer_request(&mut self, kind: u32, sector: u64, pieces: &[Piece]) {
            let mut header = kind.to_le_bytes().to_vec();
            header.extend([0; 4]);
            header.extend(sector.to_le_bytes());
            self.memory.put(HEADER, &header);
            self.memory.put(STATUS, &[0xff]);
            let pieces = [&[(HEADER, 16, false)], pieces, &[(STATUS, 1, true)]].concat();
            self.offer(&pieces);
        }

        fn content(&self, at: u64, length: usize) -> Vec<u8> {
            let mut bytes = vec![0; length];
            let read = self.volume.read_at(Bytes::try_from(at).unwrap(), &mut bytes);
            futures_util::FutureExt::now_or_never(read).unwrap().unwrap();
            bytes
        }
    }

    #[test]
    fn what_a_guest_writes_is_on_the_drive_and_read_again() {
        let mut driver = Driver::new(Writing::Allowed, FLUSH);
        let written: Vec<u8> = (0..=u8::MAX).cycle().take(4096).collect();
        driver.memory.put(DATA, &written);
        // In two pieces, of which one is odd.
        let pieces = [(DATA, 1001, false), (DATA + 1001, 3095, false)];
        assert_eq!(driver.ask(1, 8, &pieces), (0, 1));
        assert_eq!(driver.content(4096, 4096), written);
        assert_eq!(driver.ask(4, 0, &[]), (0, 1));
        assert_eq!(driver.ask(0, 8, &[(DATA + 0x2000, 4096, true)]), (0, 4097));
        assert_eq!(driver.memory.get(DATA + 0x2000, 4096), written);
        assert_eq!(driver.ask(8, 0, &[(DATA, 20, true)]), (0, 21));
        assert_eq!(driver.memory.get(DATA, 20), b"a drive with a long ");
        let range = [8_u64.to_le_bytes(), 4_u64.to_le_bytes()].concat();
        driver.memory.put(DATA, &range);
        assert_eq!(driver.ask(11, 0, &[(DATA, 16, false)]), (0, 1));
        assert_eq!(driver.content(4096, 4096), [vec![0; 2048], written[2048..].to_vec()].concat());
    }

    /// How much of what a guest wrote a power cut leaves, if it took these of the features.
    fn kept(features: u64) -> usize {
        let mut driver = Driver::new(Writing::Allowed, features);
        driver.memory.put(DATA, &[1; 64 * 1024]);
        assert_eq!(driver.ask(1, 0, &[(DATA, 64 * 1024, false)]), (0, 1));
        driver.store.crash();
        let opened =
            futures_util::FutureExt::now_or_never(driver.store.open(driver.drive, Epoch(1)));
        driver.volume = opened.unwrap().unwrap();
        driver.content(0, 64 * 1024).iter().filter(|byte| **byte == 1).count()
    }

    #[test]
    fn a_write_of_a_guest_that_does_not_flush_is_durable_once_answered() {
        assert_eq!(kept(0), 64 * 1024);
        assert!(kept(FLUSH) < 64 * 1024);
    }

    #[test]
    fn a_request_that_the_drive_fails_waits_for_the_guest_to_be_resumed_and_is_done_again() {
        let mut driver = Driver::new(Writing::Allowed, FLUSH);
        driver.store.crash();
        driver.offer_request(4, 0, &[]);
        for _again in 0..2 {
            assert!(matches!(driver.told.recv_timeout(GUARD), Ok(News::Stalled(_))));
            assert_eq!(driver.memory.get(STATUS, 1), [0xff], "it is answered");
            driver.stall.end();
        }
    }

    #[test]
    fn requests_of_the_same_memory_are_not_all_held_at_once_and_are_all_answered() {
        let mut driver = Driver::new(Writing::Allowed, FLUSH);
        let pieces = [(DATA, 512 << 10, true); 8];
        for _request in 0..SIZE {
            driver.offer_request(0, 0, &pieces);
        }
        while driver.queue.given_back(&driver.memory) != SIZE {
            driver.raised.recv_timeout(GUARD).unwrap();
        }
        // Each that is begun waits and says so.
        driver.store.crash();
        for _request in 0..SIZE {
            driver.offer_request(0, 0, &pieces);
        }
        let waiting = std::iter::from_fn(|| driver.told.recv_timeout(Duration::from_secs(1)).ok());
        let most = UNDER_WAY / (4 << 20) + 1;
        assert!((1..=most).contains(&waiting.count()));
    }

    #[test]
    fn a_driver_that_breaks_its_queue_can_still_have_the_device_reset() {
        // More than the queue is long.
        for index in [SIZE + 1, 1_000, u16::MAX] {
            let driver = Driver::new(Writing::Allowed, FLUSH);
            driver.memory.put(QUEUE + AVAILABLE + 2, &index.to_le_bytes());
            driver.bell.ring();
            let (tell, told) = channel();
            std::thread::spawn(move || {
                drop(driver);
                tell.send(()).unwrap();
            });
            told.recv_timeout(GUARD).expect("it ends");
        }
    }

    #[test]
    fn a_driver_that_asks_without_waiting_can_still_have_the_device_reset() {
        let driver = Driver::new(Writing::Allowed, FLUSH);
        let memory = driver.memory.of_device();
        let end = Arc::new(std::sync::atomic::AtomicBool::new(false));
        let is_ended = Arc::clone(&end);
        let floods = std::thread::spawn(move || {
            let mut index = 0_u16;
            while !is_ended.load(std::sync::atomic::Ordering::SeqCst) {
                index = index.wrapping_add(1);
                memory.write_obj(index, GuestAddress(AVAILABLE + 2)).unwrap();
            }
        });
        driver.bell.ring();
        let (tell, told) = channel();
        std::thread::spawn(move || {
            drop(driver);
            tell.send(()).unwrap();
        });
        told.recv_timeout(GUARD).expect("it ends");
        end.store(true, std::sync::atomic::Ordering::SeqCst);
        floods.join().unwrap();
    }

    #[test]
    fn what_can_not_be_is_refused_and_changes_nothing() {
        let mut driver = Driver::new(Writing::Allowed, FLUSH);
        driver.memory.put(DATA, &[1; 512]);
        for (kind, sector, pieces, status) in [
            (1, 8192, vec![(DATA, 512, false)], 1),
            (1, u64::MAX, vec![(DATA, 512, false)], 1),
            (0, 8192, vec![(DATA, 512, true)], 1),
            (1, 0, vec![(DATA, 5 << 20, false)], 1),
            (8, 0, vec![(DATA, 19, true)], 1),
            (11, 0, vec![(DATA, 15, false)], 1),
            (13, 0, vec![], 2),
        ] {
            assert_eq!(driver.ask(kind, sector, &pieces).0, status, "{kind} {sector} {pieces:?}");
        }
        assert_eq!(driver.content(0, 4096), [0; 4096]);
        let mut reader = Driver::new(Writing::Refused, 0);
        assert_eq!(reader.ask(1, 0, &[(DATA, 512, false)]).0, 1);
        assert_eq!(reader.ask(0, 0, &[(DATA, 512, true)]).0, 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_chain_of_a_guest_reaches_beyond_its_memory_or_ends_the_device(
            pieces in proptest::collection::vec(
                (
                    prop_oneof![0_u64..0x2_0000, MEMORY - 64..MEMORY + 64, any::<u64>()],
                    prop_oneof![0_u32..64, 500_u32..600, any::<u32>()],
                    any::<bool>(),
                ),
                1..8,
            ),
            header: [u8; 16],
        ) {
            // Its own queue is the driver's to break, but then nothing is served any more.
            let keeps_off = |(at, length, _): &Piece| {
                *at >= 0x4000 || at.saturating_add(u64::from(*length)) <= 0x1000
            };
            prop_assume!(pieces.iter().all(keeps_off));
            let mut driver = Driver::new(Writing::Allowed, FLUSH);
            driver.memory.put(HEADER, &header);
            driver.offer(&pieces);
            // After it comes one that is sound, once this one's pieces are read.
            while driver.raised.recv_timeout(Duration::from_millis(20)).is_ok() {}
            prop_assert_eq!(driver.ask(4, 0, &[]).0, 0);
        }
    }
}
