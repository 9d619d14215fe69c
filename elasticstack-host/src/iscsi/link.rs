//! What all commands of one connection share: the way out to the initiator, the command window, the
//! memory, and the bursts of data that are awaited.
//!
//! A connection's memory is bounded by its own parameters and shared with nobody, so that no
//! connection waits for another: data that nobody asked for by the window, everything else by
//! [`Link::buffer`].

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::{Buf as _, Bytes, BytesMut};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot};

use super::negotiate::Parameters;
use super::pdu::{NO_TAG, Response};
use super::tasks::Running;

/// What all buffers of a connection together may hold, in bytes: four of the longest bursts.
const BUFFERS: usize = 512 << 10;

/// Where data begins in memory, in bytes: disks take it from there without a copy.
pub(crate) const ALIGNMENT: usize = 512;

/// How many PDUs may wait to be sent on a connection.
const QUEUE: usize = 64;

/// Commands for immediate delivery take no place in the window, but there is an end to them too: a
/// quarter as many.
const fn most_immediate(window: u32) -> u32 {
    if window < 8 { 2 } else { window / 4 }
}

/// One PDU on its way out.
#[derive(Debug)]
pub(super) struct Outgoing {
    pub(super) response: Response,
    pub(super) data: Bytes,
    /// The place of the command that this PDU ends.
    pub(super) slot: Option<Slot>,
    /// The task that this PDU ends.
    pub(super) running: Option<Running>,
}

impl Outgoing {
    pub(super) fn new(response: Response) -> Self {
        Self { response, data: Bytes::new(), slot: None, running: None }
    }
}

/// One connection, as its commands see it.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) parameters: Parameters,
    pub(super) window: Arc<Window>,
    out: mpsc::Sender<Outgoing>,
    buffers: Arc<Semaphore>,
    bursts: Mutex<HashMap<(u32, u32), Burst>>,
    next_tag: AtomicU32,
}

impl Link {
    /// A connection whose next command has the number `exp_cmd_sn`, and what it wants to send.
    pub(super) fn new(parameters: Parameters, exp_cmd_sn: u32) -> (Self, mpsc::Receiver<Outgoing>) {
        let (out, sent) = mpsc::channel(QUEUE);
        let window = Arc::new(Window::new(exp_cmd_sn, parameters.window()));
        let link = Self {
            parameters,
            window,
            out,
            buffers: Arc::new(Semaphore::new(BUFFERS)),
            bursts: Mutex::default(),
            next_tag: AtomicU32::new(0),
        };
        (link, sent)
    }

    /// Sends a PDU when its turn comes. One to a connection that is gone is lost.
    pub(super) async fn send(&self, outgoing: Outgoing) {
        let _ = self.out.send(outgoing).await;
    }

    /// An empty buffer with room for `length` bytes, [`MAX_BURST`](super::negotiate::MAX_BURST) at
    /// most, once there is memory. Whoever holds one asks for no other.
    pub(super) async fn buffer(&self, length: usize) -> Buffer {
        let permits = u32::try_from(length.min(BUFFERS)).unwrap_or(u32::MAX);
        let permit = Arc::clone(&self.buffers).acquire_many_owned(permits).await.ok();
        Buffer { bytes: aligned(length), permit }
    }

    /// Awaits a burst of a task's data, behind what is in `buffer`, which has room for it. With a
    /// tag of its own it is asked for by an R2T that has it, with [`NO_TAG`] it comes unasked.
    pub(super) fn expect(self: &Arc<Self>, expected: Expected, buffer: Buffer) -> Awaited {
        let (done, data) = oneshot::channel();
        let key = (expected.initiator_task_tag, expected.target_transfer_tag);
        let start = buffer.bytes.len();
        let burst = Burst { buffer, start, expected, next_data_sn: 0, is_broken: false, done };
        self.bursts().insert(key, burst);
        Awaited { link: Arc::clone(self), key, data }
    }

    /// A tag for an R2T.
    pub(super) fn transfer_tag(&self) -> u32 {
        match self.next_tag.fetch_add(1, Ordering::Relaxed) {
            NO_TAG => self.next_tag.fetch_add(1, Ordering::Relaxed),
            tag => tag,
        }
    }

    /// The burst that a Data-Out belongs to, to be given back or finished.
    pub(super) fn take_burst(&self, key: (u32, u32)) -> Option<Burst> {
        self.bursts().remove(&key)
    }

    /// Gives a burst back that is not complete, unless nobody awaits it any more.
    pub(super) fn return_burst(&self, burst: Burst) {
        let key = (burst.expected.initiator_task_tag, burst.expected.target_transfer_tag);
        let mut bursts = self.bursts();
        if !burst.done.is_closed() {
            bursts.insert(key, burst);
        }
    }

    fn bursts(&self) -> MutexGuard<'_, HashMap<(u32, u32), Burst>> {
        self.bursts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Memory that counts as the connection's until the last of its bytes is dropped.
#[derive(Debug)]
pub(super) struct Buffer {
    pub(super) bytes: BytesMut,
    permit: Option<OwnedSemaphorePermit>,
}

impl Buffer {
    /// Memory that is bounded by the window, such as for data that comes unasked.
    pub(super) fn of_window(length: usize) -> Self {
        Self { bytes: aligned(length), permit: None }
    }

    /// Its bytes, to be shared. They take their part of the connection's memory along.
    pub(super) fn freeze(self) -> Bytes {
        struct Counted {
            bytes: Bytes,
            _permit: OwnedSemaphorePermit,
        }
        impl AsRef<[u8]> for Counted {
            fn as_ref(&self) -> &[u8] {
                &self.bytes
            }
        }
        let bytes = self.bytes.freeze();
        match self.permit {
            Some(permit) => Bytes::from_owner(Counted { bytes, _permit: permit }),
            None => bytes,
        }
    }
}

/// An empty buffer with room for `length` bytes, which begins at a multiple of [`ALIGNMENT`].
pub(crate) fn aligned(length: usize) -> BytesMut {
    if length == 0 {
        return BytesMut::new();
    }
    let mut bytes = BytesMut::with_capacity(length.saturating_add(ALIGNMENT));
    let before = bytes.as_ptr().align_offset(ALIGNMENT).min(ALIGNMENT);
    bytes.resize(before, 0);
    bytes.advance(before);
    bytes
}

/// Which data is awaited.
#[derive(Debug, Clone, Copy)]
pub(super) struct Expected {
    pub(super) initiator_task_tag: u32,
    pub(super) target_transfer_tag: u32,
    pub(super) offset: u32,
    pub(super) length: u32,
}

/// A burst of data that is coming in.
#[derive(Debug)]
pub(super) struct Burst {
    pub(super) buffer: Buffer,
    /// Where it begins in the buffer.
    start: usize,
    expected: Expected,
    next_data_sn: u32,
    is_broken: bool,
    done: oneshot::Sender<Option<Buffer>>,
}

impl Burst {
    /// Whether a Data-Out of `length` bytes is the one that comes next. Data out of order, twice,
    /// missing or more than was asked for can't be mended at error recovery level 0; what comes
    /// after it does not either.
    pub(super) fn continues_with(&mut self, data_sn: u32, offset: u32, length: usize) -> bool {
        let have = self.have();
        let begins = u64::from(self.expected.offset).saturating_add(have.try_into().unwrap_or(0));
        let fits = usize::try_from(self.expected.length)
            .is_ok_and(|whole| length <= whole.saturating_sub(have));
        let is_next = data_sn == self.next_data_sn && u64::from(offset) == begins && fits;
        self.next_data_sn = self.next_data_sn.wrapping_add(1);
        self.is_broken |= !is_next;
        !self.is_broken
    }

    /// Hands the data over to whoever awaits it, unless it is not what was asked for. Less than
    /// that is right only unasked.
    pub(super) fn finish(self) {
        let is_whole = self.expected.target_transfer_tag == NO_TAG
            || usize::try_from(self.expected.length) == Ok(self.have());
        let is_right = is_whole && !self.is_broken;
        let _ = self.done.send(is_right.then_some(self.buffer));
    }

    /// How many bytes of it have come.
    fn have(&self) -> usize {
        self.buffer.bytes.len().saturating_sub(self.start)
    }
}

/// A burst, as the command sees it that awaits it. Dropping it frees its memory.
#[derive(Debug)]
pub(super) struct Awaited {
    link: Arc<Link>,
    key: (u32, u32),
    data: oneshot::Receiver<Option<Buffer>>,
}

/// Why a burst's data is not there.
#[derive(Debug)]
pub(super) enum NoData {
    /// The initiator sent something else than what was asked for.
    Wrong,
    /// The connection has ended.
    Gone,
}

impl Awaited {
    /// The buffer with the data, once its burst has ended. Cancel safe.
    pub(super) async fn data(&mut self) -> Result<Buffer, NoData> {
        match (&mut self.data).await {
            Ok(data) => data.ok_or(NoData::Wrong),
            Err(_) => Err(NoData::Gone),
        }
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        // First of all, so that a burst that is just being filled is not given back.
        self.data.close();
        drop(self.link.take_burst(self.key));
    }
}

/// The commands that may be in flight (RFC 7143, section 4.2.2.1).
#[derive(Debug)]
pub(super) struct Window {
    size: u32,
    state: Mutex<WindowState>,
}

#[derive(Debug)]
struct WindowState {
    exp_cmd_sn: u32,
    max_cmd_sn: u32,
    in_flight: u32,
    immediate: u32,
}

/// Whether a command may begin.
#[derive(Debug)]
pub(super) enum Entry {
    /// It may, and holds this place until its response is sent.
    Admitted(Slot),
    /// It is outside of the window, and to be ignored.
    Ignored,
    /// There are too many for immediate delivery.
    TooMany,
    /// Its number leaves one out that can never come, as there is one connection.
    Gap,
}

impl Window {
    fn new(exp_cmd_sn: u32, size: u32) -> Self {
        let max_cmd_sn = exp_cmd_sn.wrapping_add(size).wrapping_sub(1);
        let state = WindowState { exp_cmd_sn, max_cmd_sn, in_flight: 0, immediate: 0 };
        Self { size, state: Mutex::new(state) }
    }

    /// Lets a command in, by its number.
    pub(super) fn enter(self: &Arc<Self>, cmd_sn: u32, immediate: bool) -> Entry {
        let mut state = self.state();
        if immediate {
            if state.immediate >= most_immediate(self.size) {
                return Entry::TooMany;
            }
            state.immediate += 1;
        } else {
            let width = state.max_cmd_sn.wrapping_sub(state.exp_cmd_sn).wrapping_add(1);
            match cmd_sn.wrapping_sub(state.exp_cmd_sn) {
                0 if width > 0 => {}
                ahead if ahead < width => return Entry::Gap,
                _ => return Entry::Ignored,
            }
            state.exp_cmd_sn = state.exp_cmd_sn.wrapping_add(1);
            state.in_flight += 1;
        }
        Entry::Admitted(Slot { window: Arc::clone(self), immediate })
    }

    /// ExpCmdSN and MaxCmdSN, to be told to the initiator.
    pub(super) fn numbers(&self) -> (u32, u32) {
        let mut state = self.state();
        let free = self.size.saturating_sub(state.in_flight);
        let max = state.exp_cmd_sn.wrapping_add(free).wrapping_sub(1);
        // What was once granted stays so: the number never goes back.
        if max.wrapping_sub(state.max_cmd_sn) <= self.size {
            state.max_cmd_sn = max;
        }
        (state.exp_cmd_sn, state.max_cmd_sn)
    }

    fn state(&self) -> MutexGuard<'_, WindowState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A command's place in the window; dropping it frees the place.
#[derive(Debug)]
pub(super) struct Slot {
    window: Arc<Window>,
    immediate: bool,
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut state = self.window.state();
        let count = if self.immediate { &mut state.immediate } else { &mut state.in_flight };
        *count = count.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::super::medium::STEP;
    use super::super::negotiate::{DEFAULT_SEGMENT, MAX_BURST};
    use super::*;

    fn admitted(window: &Arc<Window>, cmd_sn: u32) -> Slot {
        match window.enter(cmd_sn, false) {
            Entry::Admitted(slot) => slot,
            other => panic!("{cmd_sn}: {other:?}"),
        }
    }

    #[test]
    fn the_window_moves_as_commands_end_and_never_back() {
        let window = Arc::new(Window::new(u32::MAX, 2));
        assert_eq!(window.numbers(), (u32::MAX, 0));
        let first = admitted(&window, u32::MAX);
        let second = admitted(&window, 0);
        assert_eq!(window.numbers(), (1, 0), "it is full");
        assert!(matches!(window.enter(1, false), Entry::Ignored));
        drop(first);
        assert_eq!(window.numbers(), (1, 1));
        assert!(matches!(window.enter(0, false), Entry::Ignored), "it came before");
        assert!(matches!(window.enter(7, false), Entry::Ignored));
        drop((admitted(&window, 1), second));
        assert_eq!(window.numbers(), (2, 3));
        assert!(matches!(window.enter(3, false), Entry::Gap));
    }

    #[test]
    fn commands_for_immediate_delivery_end_somewhere_too() {
        let window = Arc::new(Window::new(5, 32));
        let held: Vec<_> = (0..8).map(|_| window.enter(5, true)).collect();
        assert!(matches!(window.enter(5, true), Entry::TooMany));
        drop(held);
        assert!(matches!(window.enter(5, true), Entry::Admitted(_)));
    }

    #[test]
    fn whatever_is_agreed_a_connection_takes_a_mebibyte_at_most() {
        for (key, value) in [("FirstBurstLength", "512"), ("FirstBurstLength", "262144"), ("X", "")]
        {
            let mut parameters = Parameters::default();
            parameters.answer(key, value);
            for segment in [DEFAULT_SEGMENT, MAX_BURST] {
                parameters.max_receive_segment = segment;
                let commands = parameters.window() + most_immediate(parameters.window());
                let padding = u32::try_from(ALIGNMENT).unwrap();
                let of_each = parameters.unsolicited_limit() + padding + STEP;
                let of_all = usize::try_from(commands * of_each).unwrap();
                assert!(of_all + BUFFERS <= 1 << 20, "{key}={value}: {of_all}");
            }
        }
    }

    #[tokio::test]
    async fn memory_counts_until_the_last_byte_of_it_is_dropped() {
        let (link, _sent) = Link::new(Parameters::default(), 1);
        let mut buffer = link.buffer(BUFFERS).await;
        buffer.bytes.resize(10, 1);
        let data = buffer.freeze();
        let part = data.slice(3..4);
        drop(data);
        assert_eq!(link.buffers.available_permits(), 0);
        drop(part);
        assert_eq!(link.buffers.available_permits(), BUFFERS);
    }

    #[tokio::test]
    async fn a_burst_that_nobody_awaits_any_more_is_not_kept() {
        let (link, _sent) = Link::new(Parameters::default(), 1);
        let link = Arc::new(link);
        let expected =
            Expected { initiator_task_tag: 1, target_transfer_tag: 2, offset: 0, length: 4 };
        let awaited = link.expect(expected, link.buffer(4).await);
        let burst = link.take_burst((1, 2)).unwrap();
        drop(awaited);
        link.return_burst(burst);
        assert!(link.bursts().is_empty());
        assert_eq!(link.buffers.available_permits(), BUFFERS);
    }
}
