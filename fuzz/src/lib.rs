//! A guest's devices as a hostile guest meets them. Owns what the targets that are such guests share: the
//! board, a driver that makes any chain of any descriptors, and the question whether a sound one is served.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Condvar, Mutex, OnceLock};
use std::time::Duration;

use elasticstack_core::block::{BlockStore as _, Volume, Writing};
use elasticstack_core::generation::Epoch;
use elasticstack_core::sim::{SimStore, block_on};
use elasticstack_core::units::Bytes;
use elasticstack_host::kvm::{Board, Card, Devices, Drive, Raise, Space};

/// Bytes of the guest's memory.
const MEMORY: u64 = 1 << 20;

/// Where the registers of virtio devices begin, and of how many bytes they are.
const DEVICES: u64 = 0xd000_0000;
const REGISTERS: u64 = 0x1000;

/// Registers of a virtio device (Virtual I/O Device 1.2, section 4.2.2).
const FEATURES: u64 = 0x20;
const FEATURES_WORD: u64 = 0x24;
const QUEUE: u64 = 0x30;
const QUEUE_SIZE: u64 = 0x38;
const QUEUE_READY: u64 = 0x44;
const NOTIFY: u64 = 0x50;
const STATUS: u64 = 0x70;
const DESCRIPTORS: u64 = 0x80;
const AVAILABLE: u64 = 0x90;
const USED: u64 = 0xa0;

/// How long each queue is, and how far apart they are.
const SIZE: u16 = 16;
const APART: u64 = 0x4000;

/// Where the serial port's registers begin.
const SERIAL: u64 = 0x3f8;

/// More than a device needs for a request, sound or not, which it need not answer.
const PATIENCE: Duration = Duration::from_millis(2);

/// Far more than it needs for one that it must answer.
const GUARD: Duration = Duration::from_secs(8);

/// The devices that each guest has.
#[derive(Debug, Clone, Copy)]
pub enum Device {
    /// One MiB.
    Drive,
    /// With a wire whose other end the target holds.
    Card,
    /// Random numbers.
    Entropy,
}

impl Device {
    /// All, in their order on the board.
    pub const ALL: [Self; 3] = [Self::Drive, Self::Card, Self::Entropy];
}

/// Flags of a descriptor (section 2.7.5).
pub const NEXT: u16 = 1;
/// The device writes it.
pub const WRITE: u16 = 2;

/// A descriptor, sound or not.
#[derive(Debug, Clone, Copy)]
pub struct Piece {
    /// Where in memory.
    pub at: u64,
    /// Bytes.
    pub length: u32,
    /// [`NEXT`], [`WRITE`], or anything else.
    pub flags: u16,
    /// The next one's number.
    pub next: u16,
}

/// A guest: its board, its driver's side of two queues, and what is at the other ends of its wires.
#[derive(Debug)]
pub struct Guest {
    board: Board,
    wire: UnixDatagram,
    raised: Arc<Raised>,
    console: Console,
    given: [u16; 2],
}

impl Guest {
    /// One with each device of [`Device`] and a serial port, none of them set up.
    ///
    /// # Panics
    /// If the process has no more threads or files.
    #[must_use]
    pub fn new() -> Self {
        let raised = Arc::new(Raised::default());
        let raises = Arc::clone(&raised);
        let wires = move |_| {
            let raised = Arc::clone(&raises);
            Ok(Box::new(move || raised.raise()) as Raise)
        };
        let (wire, own) = UnixDatagram::pair().unwrap();
        for end in [&wire, &own] {
            end.set_nonblocking(true).unwrap();
        }
        let cards = [Card::new(own.into(), [2, 0, 0, 0, 0, 1])];
        let devices = Devices { drives: &[drive()], cards: &cards };
        let console = Console::default();
        let board = Board::new(MEMORY, devices, console.clone(), |_| {}, wires).unwrap();
        Self { board, wire, raised, console, given: [0; 2] }
    }

    /// All that the guest can access.
    #[must_use]
    pub const fn board(&self) -> &Board {
        &self.board
    }

    /// Writes one of a virtio device's registers.
    pub fn register(&self, device: Device, register: u64, value: u32) {
        let at = DEVICES + device as u64 * REGISTERS + register;
        self.board.write(Space::Memory, at, &value.to_le_bytes());
    }

    /// Resets a device and sets it up with these features beside that of version 1, as a driver does; the first
    /// queue is from 4 KiB on, the second, if there is one, from 20 KiB on.
    pub fn set_up(&mut self, device: Device, features: u32) {
        self.given = [0; 2];
        for queue in 0..2 {
            self.board.fill(place(queue, 2), &[0; 4]);
        }
        for (register, value) in [
            (STATUS, 0),
            (STATUS, 3),
            (FEATURES_WORD, 1),
            (FEATURES, 1),
            (FEATURES_WORD, 0),
            (FEATURES, features),
            (STATUS, 11),
        ] {
            self.register(device, register, value);
        }
        for queue in 0..2 {
            self.register(device, QUEUE, u32::from(queue));
            self.register(device, QUEUE_SIZE, u32::from(SIZE));
            for (part, register) in (1..).zip([DESCRIPTORS, AVAILABLE, USED]) {
                self.register(device, register, u32::try_from(place(queue, part)).unwrap());
            }
            self.register(device, QUEUE_READY, 1);
        }
        self.register(device, QUEUE, 0);
        self.register(device, STATUS, 15);
    }

    /// Gives a device's queue the chain that begins at `head` of these descriptors, and says that it is so many
    /// requests; waits until something is answered, for a while.
    pub fn give(&mut self, device: Device, queue: u8, pieces: &[Piece], head: u16, requests: u16) {
        self.put(device, queue, pieces, head, requests, PATIENCE);
    }

    fn put(
        &mut self,
        device: Device,
        queue: u8,
        pieces: &[Piece],
        head: u16,
        requests: u16,
        guard: Duration,
    ) -> bool {
        for (number, piece) in (0..).zip(pieces) {
            let mut descriptor = piece.at.to_le_bytes().to_vec();
            descriptor.extend(piece.length.to_le_bytes());
            descriptor.extend(piece.flags.to_le_bytes());
            descriptor.extend(piece.next.to_le_bytes());
            self.board.fill(place(queue, 1) + 16 * number, &descriptor);
        }
        let given = &mut self.given[usize::from(queue)];
        let entry = place(queue, 2) + 4 + u64::from(*given % SIZE) * 2;
        *given = given.wrapping_add(requests);
        self.board.fill(entry, &head.to_le_bytes());
        // A device may look before it is rung.
        let before = self.raised.count();
        self.board.fill(place(queue, 2) + 2, &given.to_le_bytes());
        self.register(device, NOTIFY, u32::from(queue));
        self.raised.wait(before, guard)
    }

    /// Has the host's side of the card's wire send a frame; one for which there is no room is lost.
    pub fn send(&self, frame: &[u8]) {
        let _ = self.wire.send(frame);
    }

    /// What the guest has written to its serial port.
    #[must_use]
    pub fn console(&self) -> Vec<u8> {
        self.console.0.lock().unwrap().clone()
    }

    /// Fails unless a sound driver is served by every device now, whatever happened before.
    ///
    /// # Panics
    /// If one is not.
    pub fn is_served(&mut self) {
        for device in Device::ALL {
            self.register(device, STATUS, 0);
        }
        for device in Device::ALL {
            self.set_up(device, 0);
            let (header, data) = (0x1_0000, 0x1_1000);
            // Of the drive its identity, of the card a frame that is sent.
            self.board.fill(header, &[8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
            let asked = Piece { at: header, length: 16, flags: NEXT, next: 1 };
            let answered = Piece { at: data, length: 21, flags: WRITE, next: 0 };
            let (queue, pieces) = match device {
                Device::Drive => (0, vec![asked, answered]),
                Device::Card => (1, vec![Piece { flags: 0, ..asked }]),
                Device::Entropy => (0, vec![answered]),
            };
            assert!(self.put(device, queue, &pieces, 0, 1, GUARD), "{device:?} serves nobody");
            self.register(device, STATUS, 0);
        }
        self.is_heard();
    }

    /// Fails unless what a sound driver writes to the serial port now is heard.
    ///
    /// # Panics
    /// If it is not.
    pub fn is_heard(&self) {
        // Of the line: 8 bits and no divisor; of the modem: no loopback.
        for (register, value) in [(3, 3), (4, 0), (0, b'!')] {
            self.board.write(Space::Ports, SERIAL + register, &[value]);
        }
        assert_eq!(self.console().last(), Some(&b'!'), "nobody hears the serial port");
    }
}

impl Default for Guest {
    fn default() -> Self {
        Self::new()
    }
}

/// Where in memory that part of a queue is: its descriptors, what is given, what is given back.
const fn place(queue: u8, part: u64) -> u64 {
    APART * queue as u64 + 0x1000 * part
}

fn drive() -> Drive {
    static VOLUME: OnceLock<Arc<dyn Volume>> = OnceLock::new();
    let volume = VOLUME.get_or_init(|| {
        let store = SimStore::new(1, &[Bytes::from_mib(64)]);
        block_on(async {
            let drive = store.drive(Bytes::from_mib(1));
            store.create(&drive).await.unwrap();
            let volume: Arc<dyn Volume> = store.open(drive.drive, Epoch(1)).await.unwrap();
            volume
        })
    });
    Drive::new(Arc::clone(volume), Writing::Allowed, "fuzz".to_owned())
}

/// How often any device has raised its interrupt.
#[derive(Debug, Default)]
struct Raised {
    count: Mutex<u64>,
    changed: Condvar,
}

impl Raised {
    fn raise(&self) {
        *self.count.lock().unwrap() += 1;
        self.changed.notify_all();
    }

    fn count(&self) -> u64 {
        *self.count.lock().unwrap()
    }

    /// Whether it is raised after `before`, in that time.
    fn wait(&self, before: u64, guard: Duration) -> bool {
        let count = self.count.lock().unwrap();
        let same = |count: &mut u64| *count == before;
        !self.changed.wait_timeout_while(count, guard, same).unwrap().1.timed_out()
    }
}

/// Takes what the guest writes to its serial port.
#[derive(Debug, Clone, Default)]
struct Console(Arc<Mutex<Vec<u8>>>);

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
