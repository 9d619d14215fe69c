//! A whole guest: its memory, its processors, its interrupt controllers (KVM's own) and its devices, put
//! together.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use elasticstack_core::block::{Volume, Writing};
use elasticstack_core::error::{Error, Result};
use kvm_ioctls::{IoEventAddress, NoDatamatch, VcpuFd, VmFd};
use vmm_sys_util::eventfd::EventFd;

use super::acpi;
use super::base::Base;
use super::board::{Board, Devices, Raise};
use super::jail::Confinement;
use super::kernel::Kernel;
use super::layout::{BUTTON_LINE, TASK_STATE};
use super::meter::Meter;
use super::net::Card;
use super::news::{Listener, News};
use super::processor::{Host, Processors};

/// A guest as it should be.
#[derive(Debug)]
pub struct Spec {
    /// Bytes of memory.
    pub memory: u64,
    /// Virtual processors.
    pub processors: u8,
    /// What the kernel is told, beside what every guest's is.
    pub command_line: String,
    /// The drives, in the order in which the guest numbers them.
    pub drives: Vec<Drive>,
    /// The network cards, in the order in which the guest numbers them.
    pub cards: Vec<Card>,
    /// What its threads may do.
    pub confinement: Confinement,
}

/// A drive of a guest. Clones are the same.
#[derive(Clone)]
pub struct Drive {
    /// Its bytes.
    pub volume: Arc<dyn Volume>,
    /// Whether the guest may write to it.
    pub writing: Writing,
    /// What the guest finds as its serial number, of which it sees 20 bytes.
    pub name: String,
    pub(super) meter: Arc<Meter>,
}

impl Drive {
    /// A drive without limits.
    #[must_use]
    pub fn new(volume: Arc<dyn Volume>, writing: Writing, name: String) -> Self {
        Self { volume, writing, name, meter: Arc::default() }
    }
}

impl fmt::Debug for Drive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { writing, name, .. } = self;
        f.debug_struct("Drive")
            .field("name", name)
            .field("writing", writing)
            .finish_non_exhaustive()
    }
}

/// A guest that exists. Dropped, it is cut off.
pub struct Machine {
    /// They go first: while they run, devices are written to.
    processors: Processors,
    board: Arc<Board>,
    /// Its interrupts are wired for as long as this is open.
    _vm: VmFd,
    button: EventFd,
}

impl Machine {
    /// Makes a guest, which executes nothing before it is resumed. What it writes to its first serial port
    /// goes to `console`, what happens to it to `hear`, from threads of the guest's own: there nothing may
    /// wait for the machine. A guest that has turned itself off, or was told to have failed, does nothing
    /// more that matters; pause it.
    ///
    /// # Errors
    /// `InvalidValue` if it has more drives and cards than lines for their interrupts; `Internal` if KVM refuses, or
    /// the kernel can't be loaded.
    pub fn new(
        base: &Base,
        spec: &Spec,
        console: impl Write + Send + 'static,
        hear: impl Fn(News) + Send + Sync + 'static,
    ) -> Result<Self> {
        let vm = base.kvm.create_vm().map_err(refused("making a guest"))?;
        vm.set_tss_address(TASK_STATE).map_err(refused("placing the task state"))?;
        vm.create_irq_chip().map_err(refused("making interrupt controllers"))?;
        let listener = Listener::new(hear);
        let told = listener.clone();
        let wire = |line| Ok(Box::new(raise(interrupt(&vm, line)?)) as Raise);
        let devices = Devices { drives: &spec.drives, cards: &spec.cards };
        let board = Board::new(spec.memory, devices, console, move |news| told.tell(news), wire)?;
        for (address, bell) in board.bells() {
            let address = IoEventAddress::Mmio(address);
            let wired = vm.register_ioevent(bell.event(), &address, NoDatamatch);
            wired.map_err(refused("wiring a bell"))?;
        }
        let kernel = Kernel { base, command_line: &spec.command_line };
        let tables = acpi::tables(spec.processors, board.devices());
        let entry = kernel.load(board.memory(), spec.memory, &tables)?;
        let begin = |processor: &VcpuFd| entry.begin(processor);
        let board = Arc::new(board);
        let (kvm, confinement) = (&base.kvm, spec.confinement);
        let host = Host { kvm, vm: &vm, board: Arc::clone(&board), listener, confinement };
        let processors = Processors::new(host, spec.processors, begin)?;
        let button = interrupt(&vm, BUTTON_LINE)?;
        Ok(Self { processors, board, _vm: vm, button })
    }

    /// Presses the power button.
    ///
    /// # Errors
    /// `Internal` if KVM does not take it.
    pub fn press_button(&self) -> Result<()> {
        let pressed = self.button.write(1);
        pressed.map_err(|error| Error::internal("pressing a guest's power button").source(error))
    }

    /// Holds the guest: when this returns, it executes nothing.
    pub fn pause(&self) {
        self.processors.hold();
    }

    /// Lets a guest that is held go on, and try again what its drives failed.
    pub fn resume(&self) {
        self.board.go_on();
        self.processors.go_on();
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("processors", &self.processors).finish_non_exhaustive()
    }
}

/// What raises an interrupt of the guest when it is written to.
fn interrupt(vm: &VmFd, line: u32) -> Result<EventFd> {
    let event =
        EventFd::new(0).map_err(|error| Error::internal("making an event").source(error))?;
    vm.register_irqfd(&event, line).map_err(refused("wiring an interrupt"))?;
    Ok(event)
}

fn raise(event: EventFd) -> impl Fn() + Send + Sync + 'static {
    move || {
        // Its count can't be full: KVM empties it.
        let _ = event.write(1);
    }
}

fn refused(action: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Error {
    move |error| Error::internal(format!("KVM: {action}")).source(io::Error::from(error))
}
