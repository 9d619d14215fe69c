//! A network card as the guest finds it: virtio-net (Virtual I/O Device 1.2, section 5.1) over a file
//! that takes and gives one frame at a time, such as a tap.
//!
//! As on a wire, a frame that finds no room is lost: the guest's when the host takes no more, the
//! host's when the guest has no buffer that holds it.
#![expect(unsafe_code, reason = "a card's file is watched by its descriptor")]

use std::fmt;
use std::io::{self, Read as _, Write as _};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use elasticstack_core::error::Result;
use rustix::io::{read, write};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::task::coop::consume_budget;
use virtio_queue::{Queue, QueueT as _, Reader, Writer};
use vm_memory::GuestMemoryMmap;

use super::bell::{Bell, Ear};
use super::memory::Memory;
use super::mmio::{Line, Model, Serving};
use super::worker::Worker;

/// virtio-net's number.
const KIND: u32 = 1;

/// Descriptors of the queues: the first receives, the second transmits.
const DEPTH: [u16; 2] = [256, 256];

/// The feature by which the card has an address of its own (section 5.1.3).
const MAC: u64 = 1 << 5;

/// What is before each frame (section 5.1.6): nothing is left to the other side, and it is one piece.
const HEADER: [u8; 12] = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0];

/// Bytes of a frame at most, of any network that there is.
const FRAME: usize = 65_536;

/// A network card of a guest. Clones are the same.
#[derive(Clone)]
pub struct Card {
    frames: Arc<OwnedFd>,
    mac: [u8; 6],
}

impl Card {
    /// One with this address, at a file that does not block and takes a frame by a write and gives one by
    /// a read.
    #[must_use]
    pub fn new(frames: OwnedFd, mac: [u8; 6]) -> Self {
        Self { frames: Arc::new(frames), mac }
    }
}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Card").field("mac", &self.mac).finish_non_exhaustive()
    }
}

/// The device.
pub(super) struct Net {
    card: Card,
    memory: Arc<Memory>,
    worker: Worker,
}

impl Net {
    /// # Errors
    /// `Internal` if there is no thread for it.
    pub(super) fn new(card: Card, memory: Arc<Memory>) -> Result<Self> {
        Ok(Self { card, memory, worker: Worker::new("card")? })
    }
}

impl Model for Net {
    fn kind(&self) -> u32 {
        KIND
    }

    fn features(&self) -> u64 {
        MAC
    }

    fn queues(&self) -> &[u16] {
        &DEPTH
    }

    fn config(&self) -> Vec<u8> {
        self.card.mac.to_vec()
    }

    fn start(
        &self,
        _features: u64,
        queues: Vec<Option<Queue>>,
        line: Line,
        bell: Bell,
    ) -> Option<Box<dyn Serving>> {
        let [receive, transmit] = <[_; 2]>::try_from(queues).ok()?;
        let (receive, transmit) = (receive?, transmit?);
        let (frames, memory) = (Arc::clone(&self.card.frames), Arc::clone(&self.memory));
        self.worker.serve(bell, move |ear| async move {
            let frames = match watched(frames) {
                Ok(frames) => frames,
                Err(error) => {
                    tracing::warn!(%error, "a guest's card has no network");
                    return Ok(());
                }
            };
            Traffic { memory: &memory, frames, line }.serve(receive, transmit, &ear).await
        })
    }
}

/// The file, with notice of when it has a frame.
fn watched(frames: Arc<OwnedFd>) -> io::Result<AsyncFd<Arc<OwnedFd>>> {
    // JUSTIFICATION: tokio has no safe call for a file that it does not open itself.
    // SAFETY: the descriptor is the same and open for as long as the answer lives, which owns a part of it.
    unsafe { AsyncFd::register_with_interest(frames, Interest::READABLE) }.map_err(Into::into)
}

/// What there was to be received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Frame,
    None,
    /// There will be nothing more.
    Disconnected,
}

/// A card at work.
struct Traffic<'a> {
    memory: &'a GuestMemoryMmap,
    frames: AsyncFd<Arc<OwnedFd>>,
    line: Line,
}

impl Traffic<'_> {
    /// Serves both queues for as long as they are sound, one frame of each by turns.
    async fn serve(
        &self,
        mut receive: Queue,
        mut transmit: Queue,
        ear: &Ear,
    ) -> Result<(), virtio_queue::Error> {
        let mut room = vec![0; HEADER.len() + FRAME];
        let mut is_connected = true;
        loop {
            let is_sent = self.send(&mut transmit, &mut room)?;
            let has_buffer = is_connected && self.has_buffer(&receive)?;
            let taken = if has_buffer { self.take(&mut receive, &mut room)? } else { Taken::None };
            is_connected &= taken != Taken::Disconnected;
            if is_sent || taken != Taken::None {
                // However much there is, the work can be ended.
                consume_budget().await;
                continue;
            }
            tokio::select! {
                () = ear.rung() => {}
                // A wait that fails is a read that fails next.
                _ = self.frames.readable(), if has_buffer => {}
            }
        }
    }

    /// Sends the next of the guest's frames, if there is one.
    fn send(&self, queue: &mut Queue, room: &mut [u8]) -> Result<bool, virtio_queue::Error> {
        let Some(chain) = queue.pop_descriptor_chain(self.memory) else { return Ok(false) };
        let head = chain.head_index();
        if let Ok(mut from) = Reader::new(self.memory, chain) {
            let length = from.available_bytes();
            if let Some(bytes) = room.get_mut(..length)
                && length > HEADER.len()
                && from.read_exact(bytes).is_ok()
            {
                // One that is not taken is lost.
                let _ = write(self.frames.get_ref(), &bytes[HEADER.len()..]);
            }
        }
        self.line.give_back(queue, self.memory, head, 0)?;
        Ok(true)
    }

    /// Whether the guest has somewhere to put a frame.
    fn has_buffer(&self, queue: &Queue) -> Result<bool, virtio_queue::Error> {
        let given = queue.avail_idx(self.memory, std::sync::atomic::Ordering::Acquire)?.0;
        Ok(given != queue.next_avail())
    }

    /// Gives the guest the next frame, if there is one.
    fn take(&self, queue: &mut Queue, room: &mut [u8]) -> Result<Taken, virtio_queue::Error> {
        let (header, frame) = room.split_at_mut(HEADER.len());
        header.copy_from_slice(&HEADER);
        let read = self.frames.try_io(Interest::READABLE, |frames| Ok(read(frames, frame)?));
        let length = match read {
            Ok(0) => return Ok(Taken::Disconnected),
            Ok(length) => length,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Taken::None),
            Err(error) => {
                tracing::warn!(%error, "a guest's card lost its network");
                return Ok(Taken::Disconnected);
            }
        };
        // The guest promised more than its queue holds.
        let chain = queue.pop_descriptor_chain(self.memory);
        let chain = chain.ok_or(virtio_queue::Error::InvalidAvailRingIndex)?;
        let head = chain.head_index();
        let bytes = &room[..HEADER.len() + length];
        let given = Writer::new(self.memory, chain).ok().and_then(|mut to| {
            let fits = to.available_bytes() >= bytes.len();
            (fits && to.write_all(bytes).is_ok()).then(|| u32::try_from(bytes.len()).ok())?
        });
        self.line.give_back(queue, self.memory, head, given.unwrap_or(0))?;
        Ok(Taken::Frame)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;
    use std::sync::mpsc::{Receiver, channel};
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::kvm::test_driver::{AVAILABLE, DriverMemory, DriverQueue, MEMORY, Piece, SIZE};

    /// Where the queues lie, and the frames.
    const QUEUE: [u64; 2] = [0x1000, 0x5000];
    const DATA: u64 = 0x1_0000;
    const GUARD: Duration = Duration::from_secs(60);

    const RECEIVE: usize = 0;
    const TRANSMIT: usize = 1;

    /// A driver of a card, and the other end of its wire.
    struct Driver {
        bell: Bell,
        _serving: Box<dyn Serving>,
        /// Its thread is there for as long as it is.
        _net: Net,
        memory: DriverMemory,
        queues: [DriverQueue; 2],
        wire: UnixDatagram,
        raised: Receiver<()>,
    }

    impl Driver {
        fn new() -> Self {
            let (wire, own) = UnixDatagram::pair().unwrap();
            wire.set_read_timeout(Some(GUARD)).unwrap();
            own.set_nonblocking(true).unwrap();
            let memory = DriverMemory::new();
            let card = Card::new(own.into(), [2, 0, 0, 0, 0, 1]);
            let net = Net::new(card, memory.of_device()).unwrap();
            let (raise, raised) = channel();
            let raise = std::sync::Mutex::new(raise);
            let line = Line::new(move || raise.lock().unwrap().send(()).unwrap());
            let queues = QUEUE.map(DriverQueue::new);
            let given = queues.each_ref().map(|queue| Some(queue.of_device(DEPTH[0])));
            let bell = Bell::new().unwrap();
            let serving = net.start(MAC, given.into(), line, bell.clone()).unwrap();
            Self { bell, _serving: serving, _net: net, memory, queues, wire, raised }
        }

        /// Gives a queue a chain of pieces, and rings.
        fn give(&mut self, queue: usize, pieces: &[Piece]) {
            self.queues[queue].give(&self.memory, pieces);
            self.bell.ring();
        }

        /// Waits until all that was given to a queue has come back; answers with how much was written to
        /// the last.
        fn until_back(&self, queue: usize) -> u32 {
            let queue = &self.queues[queue];
            while queue.given_back(&self.memory) != queue.given {
                self.raised.recv_timeout(GUARD).unwrap();
            }
            queue.written(&self.memory)
        }

        fn send(&mut self, frame: &[u8]) {
            self.memory.put(DATA, &[&[0; 12], frame].concat());
            let length = u32::try_from(frame.len()).unwrap();
            self.give(TRANSMIT, &[(DATA, 12, false), (DATA + 12, length, false)]);
            self.until_back(TRANSMIT);
        }

        fn hear(&self) -> Vec<u8> {
            let mut frame = vec![0; FRAME];
            let length = self.wire.recv(&mut frame).unwrap();
            frame.truncate(length);
            frame
        }
    }

    #[test]
    fn frames_pass_both_ways_whole_and_in_order() {
        let mut driver = Driver::new();
        for number in 0..40 {
            let frame = vec![number; 14 + usize::from(number)];
            driver.send(&frame);
            assert_eq!(driver.hear(), frame);
            driver.wire.send(&frame).unwrap();
            driver.give(RECEIVE, &[(DATA, 12, true), (DATA + 0x100, 1514, true)]);
            assert_eq!(driver.until_back(RECEIVE), 12 + u32::try_from(frame.len()).unwrap());
            assert_eq!(driver.memory.get(DATA, 12), HEADER);
            assert_eq!(driver.memory.get(DATA + 0x100, frame.len()), frame);
        }
    }

    #[test]
    fn a_frame_that_finds_no_room_is_lost_and_no_other() {
        let mut driver = Driver::new();
        driver.wire.send(&[1; 1000]).unwrap();
        driver.wire.send(&[2; 100]).unwrap();
        driver.give(RECEIVE, &[(DATA, 500, true)]);
        assert_eq!(driver.until_back(RECEIVE), 0);
        driver.give(RECEIVE, &[(DATA, 500, true)]);
        assert_eq!(driver.until_back(RECEIVE), 112);
        // Nothing but a header, more than any network has, and what the device can't read.
        driver.memory.put(DATA, &[0; 100]);
        driver.give(TRANSMIT, &[(DATA, 12, false)]);
        driver.give(TRANSMIT, &[(0, 1 << 19, false)]);
        driver.give(TRANSMIT, &[(u64::MAX - 4, 100, false)]);
        driver.until_back(TRANSMIT);
        driver.send(&[3; 60]);
        assert_eq!(driver.hear(), [3; 60]);
    }

    #[test]
    fn a_card_whose_wire_is_gone_sends_into_the_void_and_can_be_reset() {
        let mut driver = Driver::new();
        driver.give(RECEIVE, &[(DATA, 500, true)]);
        driver.wire.shutdown(std::net::Shutdown::Both).unwrap();
        driver.wire = UnixDatagram::unbound().unwrap();
        driver.send(&[3; 60]);
        end(driver);
    }

    #[test]
    fn a_driver_that_breaks_a_queue_can_still_have_the_card_reset() {
        for queue in [RECEIVE, TRANSMIT] {
            for index in [SIZE + 1, 1_000, u16::MAX] {
                let driver = Driver::new();
                driver.memory.put(QUEUE[queue] + AVAILABLE + 2, &index.to_le_bytes());
                driver.wire.send(&[1; 100]).unwrap();
                driver.bell.ring();
                end(driver);
            }
        }
    }

    fn end(driver: Driver) {
        let (tell, told) = channel();
        std::thread::spawn(move || {
            drop(driver);
            tell.send(()).unwrap();
        });
        told.recv_timeout(GUARD).expect("it ends");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn no_chain_of_a_guest_reaches_beyond_its_memory_or_ends_the_card(
            pieces in proptest::collection::vec(
                (
                    prop_oneof![0_u64..0x2_0000, MEMORY - 64..MEMORY + 64, any::<u64>()],
                    prop_oneof![0_u32..64, 500_u32..2000, any::<u32>()],
                    any::<bool>(),
                ),
                1..8,
            ),
            queue in 0_usize..2,
        ) {
            // Its own queues are the driver's to break, but then nothing is served any more.
            let keeps_off = |(at, length, _): &Piece| {
                *at >= DATA || at.saturating_add(u64::from(*length)) <= 0x1000
            };
            prop_assume!(pieces.iter().all(keeps_off));
            let mut driver = Driver::new();
            driver.wire.send(&[1; 100]).unwrap();
            driver.give(queue, &pieces);
            driver.until_back(queue);
            // What was sent of it.
            driver.wire.set_nonblocking(true).unwrap();
            while driver.wire.recv(&mut [0; 16]).is_ok() {}
            driver.wire.set_nonblocking(false).unwrap();
            driver.send(&[3; 60]);
            prop_assert_eq!(driver.hear(), vec![3; 60]);
        }
    }
}
