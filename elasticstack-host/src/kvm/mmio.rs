//! A virtio device as the guest finds it: the registers of virtio over MMIO, and what the driver makes of
//! them (Virtual I/O Device 1.2, sections 2.1, 3.1 and 4.2).
//!
//! Pure but for its bell and its line. Nothing that a guest writes is trusted: what the standard does
//! not allow changes nothing, and a device that the driver has set up wrongly asks to be reset.

use std::fmt;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use virtio_queue::{Queue, QueueT as _};
use vm_memory::{GuestAddress, GuestMemoryMmap};

use super::bell::Bell;
use super::bus::Device;

/// As virtio over MMIO begins: "virt".
const MAGIC: u32 = 0x7472_6976;
const VERSION: u32 = 2;
/// Nobody in particular.
const VENDOR: u32 = 0;

/// Of the features, the one that every device here has: it is none of the old kind.
const VERSION_1: u64 = 1 << 32;

/// Bits of the device's status.
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
const NEEDS_RESET: u32 = 64;

/// Bits of the interrupt's status.
const USED_BUFFER: u32 = 1;
const CONFIGURATION: u32 = 2;

/// The register by which a driver says that it has given something (`QueueNotify`).
pub(super) const NOTIFY: u64 = 0x50;

/// Where the device's own configuration begins.
const CONFIG: u64 = 0x100;

/// What kind of device this is, and its work once a driver has set it up.
pub(super) trait Model: Send {
    /// The device's kind, by its number in the standard (section 5).
    fn kind(&self) -> u32;

    /// The features offered beside those of every device.
    fn features(&self) -> u64;

    /// How many descriptors each of its queues has at most, powers of two.
    fn queues(&self) -> &[u16];

    /// Its configuration, as the driver reads it.
    fn config(&self) -> Vec<u8>;

    /// Begins to serve what the driver has set up, with these of the features, unless there is nothing
    /// to serve. The queues are in order; one that the driver left out is `None`. The bell is rung when the
    /// driver has put something into any of them, and now and then when it has not.
    fn start(
        &self,
        features: u64,
        queues: Vec<Option<Queue>>,
        line: Line,
        bell: Bell,
    ) -> Option<Box<dyn Serving>>;
}

/// A device at work. Dropped, it ends: then nothing of the guest's memory is touched any more.
pub(super) trait Serving: Send {}

/// How a device is heard by the guest. Clones are the same.
#[derive(Clone)]
pub(super) struct Line {
    status: Arc<AtomicU32>,
    raise: Arc<dyn Fn() + Send + Sync>,
}

impl Line {
    pub(super) fn new(raise: impl Fn() + Send + Sync + 'static) -> Self {
        Self { status: Arc::default(), raise: Arc::new(raise) }
    }

    /// Gives a request back to the driver, which is told if it wishes to be.
    ///
    /// # Errors
    /// The queue can't be.
    pub(super) fn give_back(
        &self,
        queue: &mut Queue,
        memory: &GuestMemoryMmap,
        head: u16,
        written: u32,
    ) -> Result<(), virtio_queue::Error> {
        queue.add_used(memory, head, written)?;
        if queue.needs_notification(memory)? {
            self.say(USED_BUFFER);
        }
        Ok(())
    }

    /// The device's configuration has changed.
    pub(super) fn reconfigured(&self) {
        self.say(CONFIGURATION);
    }

    fn say(&self, what: u32) {
        self.status.fetch_or(what, Ordering::SeqCst);
        (self.raise)();
    }
}

impl fmt::Debug for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Line").field("status", &self.status).finish_non_exhaustive()
    }
}

/// A virtio device at a range of memory's address space.
pub(super) struct Mmio {
    line: Line,
    bell: Bell,
    state: Mutex<State>,
}

struct State {
    model: Box<dyn Model>,
    serving: Option<Box<dyn Serving>>,
    status: u32,
    /// Which 32 of the features are asked for, and which are told.
    asked: u32,
    told: u32,
    /// What the driver has taken of them.
    features: u64,
    /// Which queue the driver speaks of.
    queue: u32,
    queues: Vec<Setup>,
}

/// What a driver has said of a queue.
#[derive(Debug, Clone, Copy, Default)]
struct Setup {
    size: u32,
    is_ready: bool,
    descriptors: u64,
    available: u64,
    used: u64,
}

impl Mmio {
    pub(super) fn new(model: Box<dyn Model>, line: Line, bell: Bell) -> Self {
        let queues = vec![Setup::default(); model.queues().len()];
        let state = State {
            model,
            serving: None,
            status: 0,
            asked: 0,
            told: 0,
            features: 0,
            queue: 0,
            queues,
        };
        Self { line, bell, state: Mutex::new(state) }
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// As a machine's reset leaves it.
    pub(super) fn reset(&self) {
        self.state().reset();
        self.line.status.store(0, Ordering::SeqCst);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Device for Mmio {
    fn read(&self, offset: u64, data: &mut [u8]) {
        data.fill(0);
        let state = self.state();
        if let Some(at) = offset.checked_sub(CONFIG) {
            let config = state.model.config();
            let at = usize::try_from(at).unwrap_or(usize::MAX);
            let found = config.get(at..).unwrap_or_default();
            let length = found.len().min(data.len());
            data[..length].copy_from_slice(&found[..length]);
        } else if let Ok(register) = <&mut [u8; 4]>::try_from(data) {
            *register = state.register(offset, &self.line).to_le_bytes();
        }
    }

    fn write(&self, offset: u64, data: &[u8]) {
        // No configuration here can be written.
        let Ok(value) = <[u8; 4]>::try_from(data).map(u32::from_le_bytes) else { return };
        let mut state = self.state();
        match offset {
            NOTIFY => self.bell.ring(),
            0x64 => {
                self.line.status.fetch_and(!value, Ordering::SeqCst);
            }
            0x70 if value == 0 => {
                state.reset();
                self.line.status.store(0, Ordering::SeqCst);
            }
            0x70 => state.become_status(value, &self.line, &self.bell),
            _ => state.set(offset, value),
        }
    }
}

impl State {
    fn register(&self, offset: u64, line: &Line) -> u32 {
        match offset {
            0x00 => MAGIC,
            0x04 => VERSION,
            0x08 => self.model.kind(),
            0x0c => VENDOR,
            0x10 => half(self.offered(), self.asked),
            0x34 => self.most().into(),
            0x44 => self.setup().is_some_and(|setup| setup.is_ready).into(),
            0x60 => line.status.load(Ordering::SeqCst),
            0x70 => self.status,
            // No shared memory.
            0xb0..=0xbc => u32::MAX,
            _ => 0,
        }
    }

    fn set(&mut self, offset: u64, value: u32) {
        match offset {
            0x14 => self.asked = value,
            0x24 => self.told = value,
            0x30 => self.queue = value,
            0x20 if self.status & FEATURES_OK == 0 => {
                let taken = u64::from(value);
                self.features = match self.told {
                    0 => self.features & !u64::from(u32::MAX) | taken,
                    1 => self.features & u64::from(u32::MAX) | taken << 32,
                    _ => return,
                };
            }
            _ => self.set_queue(offset, value),
        }
    }

    fn set_queue(&mut self, offset: u64, value: u32) {
        let is_serving = self.status & DRIVER_OK != 0;
        let index = usize::try_from(self.queue).unwrap_or(usize::MAX);
        let Some(setup) = self.queues.get_mut(index).filter(|_| !is_serving) else { return };
        let low = |address: u64| address & !u64::from(u32::MAX) | u64::from(value);
        let high = |address: u64| address & u64::from(u32::MAX) | u64::from(value) << 32;
        match offset {
            0x44 => setup.is_ready = value == 1,
            _ if setup.is_ready => {}
            0x38 => setup.size = value,
            0x80 => setup.descriptors = low(setup.descriptors),
            0x84 => setup.descriptors = high(setup.descriptors),
            0x90 => setup.available = low(setup.available),
            0x94 => setup.available = high(setup.available),
            0xa0 => setup.used = low(setup.used),
            0xa4 => setup.used = high(setup.used),
            _ => {}
        }
    }

    /// The driver says how far it is.
    fn become_status(&mut self, value: u32, line: &Line, bell: &Bell) {
        // Only a reset takes a bit back.
        let news = value & !self.status;
        if self.status & !value & !NEEDS_RESET != 0 || self.status & NEEDS_RESET != 0 {
            return;
        }
        self.status |= value & !NEEDS_RESET;
        let is_offered = self.features & !self.offered() == 0;
        if news & FEATURES_OK != 0 && !(is_offered && self.features & VERSION_1 != 0) {
            self.status &= !FEATURES_OK;
        }
        if news & DRIVER_OK == 0 {
            return;
        }
        match self.set_up().filter(|_| self.status & FEATURES_OK != 0) {
            Some(queues) => {
                let (line, bell) = (line.clone(), bell.clone());
                self.serving = self.model.start(self.features, queues, line, bell);
            }
            None => {
                self.status = self.status & !DRIVER_OK | NEEDS_RESET;
                line.reconfigured();
            }
        }
    }

    /// The queues as the driver has set them up, unless that can't be.
    fn set_up(&self) -> Option<Vec<Option<Queue>>> {
        let queue = |(setup, most): (&Setup, &u16)| {
            if !setup.is_ready {
                return Some(None);
            }
            let mut queue = Queue::new(*most).ok()?;
            queue.try_set_size(u16::try_from(setup.size).ok()?).ok()?;
            queue.try_set_desc_table_address(GuestAddress(setup.descriptors)).ok()?;
            queue.try_set_avail_ring_address(GuestAddress(setup.available)).ok()?;
            queue.try_set_used_ring_address(GuestAddress(setup.used)).ok()?;
            queue.set_ready(true);
            Some(Some(queue))
        };
        self.queues.iter().zip(self.model.queues()).map(queue).collect()
    }

    fn reset(&mut self) {
        self.serving = None;
        self.queues.fill(Setup::default());
        (self.status, self.asked, self.told, self.features, self.queue) = (0, 0, 0, 0, 0);
    }

    fn offered(&self) -> u64 {
        self.model.features() | VERSION_1
    }

    fn most(&self) -> u16 {
        let index = usize::try_from(self.queue).unwrap_or(usize::MAX);
        self.model.queues().get(index).copied().unwrap_or(0)
    }

    fn setup(&self) -> Option<&Setup> {
        self.queues.get(usize::try_from(self.queue).ok()?)
    }
}

/// 32 of 64 bits; none beyond.
fn half(bits: u64, which: u32) -> u32 {
    let shifted = match which {
        0 => bits,
        1 => bits >> 32,
        _ => 0,
    };
    u32::try_from(shifted & u64::from(u32::MAX)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Counts what it is told.
    #[derive(Default)]
    struct Probe(Arc<Mutex<Told>>);

    #[derive(Debug, Default, Clone, PartialEq, Eq)]
    struct Told {
        /// Features and queues of each start.
        starts: Vec<(u64, Vec<bool>)>,
        stops: usize,
    }

    const OFFERED: u64 = 1 << 5 | 1 << 29;

    impl Model for Probe {
        fn kind(&self) -> u32 {
            2
        }

        fn features(&self) -> u64 {
            OFFERED
        }

        fn queues(&self) -> &[u16] {
            &[256, 64]
        }

        fn config(&self) -> Vec<u8> {
            (1..=12).collect()
        }

        fn start(
            &self,
            features: u64,
            queues: Vec<Option<Queue>>,
            _line: Line,
            _bell: Bell,
        ) -> Option<Box<dyn Serving>> {
            let queues = queues.iter().map(Option::is_some).collect();
            self.0.lock().unwrap().starts.push((features, queues));
            Some(Box::new(AtWork(Arc::clone(&self.0))))
        }
    }

    struct AtWork(Arc<Mutex<Told>>);

    impl Serving for AtWork {}

    impl Drop for AtWork {
        fn drop(&mut self) {
            self.0.lock().unwrap().stops += 1;
        }
    }

    struct Rig {
        mmio: Mmio,
        told: Arc<Mutex<Told>>,
        raised: Arc<AtomicU32>,
    }

    impl Rig {
        fn new() -> Self {
            let (told, raised) = (Arc::default(), Arc::<AtomicU32>::default());
            let count = Arc::clone(&raised);
            let line = Line::new(move || {
                count.fetch_add(1, Ordering::SeqCst);
            });
            let probe = Box::new(Probe(Arc::clone(&told)));
            Self { mmio: Mmio::new(probe, line, Bell::new().unwrap()), told, raised }
        }

        fn get(&self, register: u64) -> u32 {
            let mut value = [0; 4];
            self.mmio.read(register, &mut value);
            u32::from_le_bytes(value)
        }

        fn set(&self, register: u64, value: u32) {
            self.mmio.write(register, &value.to_le_bytes());
        }

        /// As drivers do it (section 3.1.1), with these of the features.
        fn set_up(&self, features: u64) {
            for status in [0, 1, 3] {
                self.set(0x70, status);
            }
            for part in [0, 1] {
                self.set(0x24, part);
                self.set(0x20, half(features, part));
            }
            self.set(0x70, 11);
            self.set(0x30, 1);
            for (register, value) in
                [(0x38, 16), (0x80, 0x1000), (0x90, 0x2000), (0xa0, 0x3000), (0x44, 1)]
            {
                self.set(register, value);
            }
            self.set(0x70, 15);
        }

        fn told(&self) -> Told {
            self.told.lock().unwrap().clone()
        }
    }

    #[test]
    fn a_driver_finds_the_device_sets_it_up_and_resets_it() {
        let rig = Rig::new();
        assert_eq!([0, 4, 8].map(|register| rig.get(register)), [MAGIC, 2, 2]);
        rig.set(0x14, 1);
        assert_eq!(rig.get(0x10), 1);
        rig.set(0x14, 0);
        assert_eq!(u64::from(rig.get(0x10)), OFFERED);
        assert_eq!([0x100, 0x109, 0x10c].map(|at| rig.get(at)), [0x0403_0201, 0x000c_0b0a, 0]);
        rig.set_up(VERSION_1 | 1 << 29);
        assert_eq!(rig.get(0x70), 15);
        assert_eq!(rig.get(0x34), 64);
        assert!(rig.mmio.bell().event().read().is_err(), "it was rung");
        rig.set(NOTIFY, 1);
        assert_eq!(rig.mmio.bell().event().read().unwrap(), 1);
        let starts = vec![(VERSION_1 | 1 << 29, vec![false, true])];
        let mut told = Told { starts, stops: 0 };
        assert_eq!(rig.told(), told);
        // What is served is not changed under it.
        rig.set(0x44, 0);
        assert_eq!(rig.get(0x44), 1);
        rig.set(0x70, 0);
        told.stops = 1;
        assert_eq!(rig.told(), told);
        assert_eq!((rig.get(0x70), rig.get(0x44)), (0, 0));
    }

    #[test]
    fn features_that_are_not_offered_and_old_drivers_are_refused() {
        for features in [1 << 29, VERSION_1 | 1 << 7, 0] {
            let rig = Rig::new();
            rig.set_up(features);
            assert_eq!(rig.get(0x70) & FEATURES_OK, 0, "{features:#x}");
            assert_eq!(rig.told().starts, []);
            assert_ne!(rig.get(0x70) & NEEDS_RESET, 0);
        }
    }

    #[test]
    fn a_queue_that_can_not_be_is_told_as_one_that_needs_a_reset() {
        for (register, value) in [(0x38, 0), (0x38, 3), (0x38, 128), (0x80, 0x1001), (0xa0, 2)] {
            let rig = Rig::new();
            rig.set_up(VERSION_1);
            rig.set(0x70, 0);
            for status in [1, 3] {
                rig.set(0x70, status);
            }
            rig.set(0x24, 1);
            rig.set(0x20, 1);
            rig.set(0x70, 11);
            rig.set(0x30, 1);
            for (register, value) in
                [(0x38, 16), (0x80, 0x1000), (0x90, 0x2000), (0xa0, 0x3000), (register, value)]
            {
                rig.set(register, value);
            }
            rig.set(0x44, 1);
            rig.set(0x70, 15);
            assert_eq!(rig.get(0x70) & (DRIVER_OK | NEEDS_RESET), NEEDS_RESET, "{register:#x}");
            assert_eq!(rig.told().starts.len(), 1, "{register:#x} {value:#x}");
            assert_eq!(rig.get(0x60), CONFIGURATION);
            assert_eq!(rig.raised.load(Ordering::SeqCst), 1);
            rig.set(0x64, CONFIGURATION);
            assert_eq!(rig.get(0x60), 0);
        }
    }

    proptest! {
        #[test]
        fn whatever_is_written_a_device_is_started_and_stopped_in_turn(
            writes in proptest::collection::vec(
                (
                    prop_oneof![(0_u64..0x50).prop_map(|register| register * 4), 0_u64..0x200],
                    prop_oneof![0_u32..20, any::<u32>()],
                    0_usize..9,
                ),
                0..200,
            ),
            sound: bool,
        ) {
            let rig = Rig::new();
            if sound {
                rig.set_up(VERSION_1);
            }
            for (register, value, length) in writes {
                let bytes = [value.to_le_bytes(), value.to_be_bytes()].concat();
                rig.mmio.write(register, &bytes[..length]);
                let mut read = vec![0; length];
                rig.mmio.read(register, &mut read);
                let told = rig.told();
                let serves = rig.get(0x70) & DRIVER_OK != 0;
                prop_assert_eq!(told.starts.len(), told.stops + usize::from(serves));
                for (features, _) in told.starts {
                    prop_assert_eq!(features & !(OFFERED | VERSION_1), 0);
                    prop_assert_ne!(features & VERSION_1, 0);
                }
            }
        }
    }
}
