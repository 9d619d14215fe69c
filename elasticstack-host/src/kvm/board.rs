//! A guest's memory and its devices, without its processors: all of a machine that the guest's accesses reach,
//! whoever makes them.

use std::fmt;
use std::io::Write;
use std::sync::Arc;

use elasticstack_core::error::{Error, ErrorKind, Result};
use vm_memory::{Bytes as _, GuestAddress};

use super::bell::Bell;
use super::block::Block;
use super::bus::Bus;
use super::entropy::Entropy;
use super::layout::{
    PANIC, POWER, SERIAL, SERIAL_LINE, VIRTIO_MAX, VIRTIO_SIZE, virtio, virtio_line,
};
use super::machine::Drive;
use super::memory::Memory;
use super::mmio::{Line, Mmio, Model, NOTIFY};
use super::net::{Card, Net};
use super::news::{Listener, News};
use super::power::{Panic, Power};
use super::serial::Serial;
use super::stall::Stall;

/// One of the two address spaces of a PC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Of memory, and of the registers of devices in it.
    Memory,
    /// Of ports.
    Ports,
}

/// What is plugged in beside what every board has.
#[derive(Debug, Clone, Copy, Default)]
pub struct Devices<'a> {
    /// The drives, in the order in which the guest numbers them.
    pub drives: &'a [Drive],
    /// The network cards, in the order in which the guest numbers them.
    pub cards: &'a [Card],
}

/// What raises an interrupt.
pub type Raise = Box<dyn Fn() + Send + Sync>;

/// The memory and the devices. Dropped, all devices are at rest.
pub struct Board {
    memory: Arc<Memory>,
    buses: Buses,
    virtio: Vec<Arc<Mmio>>,
    stall: Stall,
}

#[derive(Debug, Default)]
struct Buses {
    memory: Bus,
    ports: Bus,
}

impl Board {
    /// Puts together so many bytes of memory, a serial port that writes to `console`, registers of power and
    /// panic, and by virtio the drives, the cards and random numbers. What happens to the guest is told to `hear`;
    /// `wire` makes what raises the interrupt of a line.
    ///
    /// # Errors
    /// `InvalidValue` if there are more drives and cards than lines for their interrupts; `Internal` if there is not that
    /// much memory; those of `wire`.
    pub fn new(
        bytes: u64,
        devices: Devices<'_>,
        console: impl Write + Send + 'static,
        hear: impl Fn(News) + Send + Sync + 'static,
        mut wire: impl FnMut(u32) -> Result<Raise>,
    ) -> Result<Self> {
        let listener = Listener::new(hear);
        let memory = Arc::new(Memory::zeros(bytes)?);
        let mut buses = Buses::default();
        buses.ports.plug(SERIAL, Arc::new(Serial::new(console, wire(SERIAL_LINE)?)));
        buses.ports.plug(POWER, Arc::new(Power(listener.clone())));
        buses.ports.plug(PANIC, Arc::new(Panic(listener.clone())));
        let stall = Stall::new(listener);
        let mut board = Self { memory, buses, virtio: Vec::new(), stall };
        let Devices { drives, cards } = devices;
        for drive in drives {
            let memory = Arc::clone(&board.memory);
            let drive = Block::new(drive.clone(), memory, board.stall.clone())?;
            board.plug(Box::new(drive), &mut wire)?;
        }
        for card in cards {
            let card = Net::new(card.clone(), Arc::clone(&board.memory))?;
            board.plug(Box::new(card), &mut wire)?;
        }
        let entropy = Entropy::new(Arc::clone(&board.memory))?;
        board.plug(Box::new(entropy), &mut wire)?;
        Ok(board)
    }

    /// Puts in a virtio device, as the next.
    fn plug(
        &mut self,
        model: Box<dyn Model>,
        wire: &mut impl FnMut(u32) -> Result<Raise>,
    ) -> Result<()> {
        let number = self.devices();
        if number >= VIRTIO_MAX {
            let sentence = format!("a guest has at most {VIRTIO_MAX} drives and cards");
            return Err(Error::new(ErrorKind::InvalidValue, sentence));
        }
        let device =
            Arc::new(Mmio::new(model, Line::new(wire(virtio_line(number))?), Bell::new()?));
        let at = virtio(number);
        self.buses.memory.plug(at..at + VIRTIO_SIZE, device.clone());
        self.virtio.push(device);
        Ok(())
    }

    /// How many virtio devices there are.
    pub(super) fn devices(&self) -> u32 {
        u32::try_from(self.virtio.len()).unwrap_or(u32::MAX)
    }

    /// Where in memory's address space each device's driver rings, and what.
    pub(super) fn bells(&self) -> impl Iterator<Item = (u64, &Bell)> {
        (0..).zip(&self.virtio).map(|(number, device)| (virtio(number) + NOTIFY, device.bell()))
    }

    pub(super) fn memory(&self) -> &Arc<Memory> {
        &self.memory
    }

    /// What the guest reads of a device; ones where there is none.
    pub fn read(&self, space: Space, address: u64, data: &mut [u8]) {
        self.bus(space).read(address, data);
    }

    /// What the guest writes to a device; nothing where there is none.
    pub fn write(&self, space: Space, address: u64, data: &[u8]) {
        self.bus(space).write(address, data);
    }

    /// What the guest writes to its memory; as much of it as there is memory for.
    pub fn fill(&self, address: u64, data: &[u8]) {
        // Beyond memory there is nothing to be written.
        let _ = self.memory.write(data, GuestAddress(address));
    }

    /// Has all requests that wait since a drive failed try again.
    pub fn go_on(&self) {
        self.stall.end();
    }

    fn bus(&self, space: Space) -> &Bus {
        match space {
            Space::Memory => &self.buses.memory,
            Space::Ports => &self.buses.ports,
        }
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        for device in &self.virtio {
            device.reset();
        }
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("buses", &self.buses).finish_non_exhaustive()
    }
}
