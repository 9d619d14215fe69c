//! A whole guest: its memory, its processors, its interrupt controllers (KVM's own) and its devices, put
//! together.

use std::fmt;
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use elasticstack_core::block::{Volume, Writing};
use elasticstack_core::error::{Error, ErrorKind, Result};
use kvm_ioctls::{Kvm, VcpuFd, VmFd};
use vm_memory::{GuestAddress, GuestMemoryMmap};
use vmm_sys_util::eventfd::EventFd;

use super::acpi;
use super::block::Block;
use super::bus::Bus;
use super::entropy::Entropy;
use super::kernel::Kernel;
use super::layout::{
    BUTTON_LINE, PANIC, POWER, SERIAL, SERIAL_LINE, TASK_STATE, VIRTIO_MAX, VIRTIO_SIZE, memory,
    virtio, virtio_line,
};
use super::meter::Meter;
use super::mmio::{Line, Mmio, Model};
use super::news::{Listener, News};
use super::power::{Panic, Power};
use super::processor::{Buses, Host, Processors};
use super::serial::Serial;
use super::stall::Stall;

/// A guest as it should be.
#[derive(Debug)]
pub struct Spec {
    /// Bytes of memory.
    pub memory: u64,
    /// Virtual processors.
    pub processors: u8,
    /// The kernel, a bzImage.
    pub kernel: PathBuf,
    /// Its initial RAM disk.
    pub initial_disk: Option<PathBuf>,
    /// What the kernel is told, beside what every guest's is.
    pub command_line: String,
    /// The drives, in the order in which the guest numbers them.
    pub drives: Vec<Drive>,
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
    processors: Processors,
    devices: Vec<Arc<Mmio>>,
    stall: Stall,
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
    /// `InvalidValue` if it has more drives than lines for their interrupts; `Internal` if KVM refuses, or
    /// the kernel can't be loaded.
    pub fn new(
        spec: &Spec,
        console: impl Write + Send + 'static,
        hear: impl Fn(News) + Send + Sync + 'static,
    ) -> Result<Self> {
        let kvm = Kvm::new().map_err(refused("opening /dev/kvm"))?;
        let vm = kvm.create_vm().map_err(refused("making a guest"))?;
        let memory = Arc::new(zeros(spec.memory)?);
        vm.set_tss_address(TASK_STATE).map_err(refused("placing the task state"))?;
        vm.create_irq_chip().map_err(refused("making interrupt controllers"))?;

        let listener = Listener::new(hear);
        let stall = Stall::new(listener.clone());
        let mut buses = Buses { memory: Bus::default(), ports: Bus::default() };
        let serial = Serial::new(console, raise(interrupt(&vm, SERIAL_LINE)?));
        buses.ports.plug(SERIAL, Arc::new(serial));
        buses.ports.plug(POWER, Arc::new(Power(listener.clone())));
        buses.ports.plug(PANIC, Arc::new(Panic(listener.clone())));
        let mut devices = Vec::new();
        for drive in &spec.drives {
            let drive = Block::new(drive.clone(), Arc::clone(&memory), stall.clone());
            devices.push(plug(&vm, &mut buses.memory, devices.len(), Box::new(drive))?);
        }
        let entropy = Box::new(Entropy::new(Arc::clone(&memory)));
        devices.push(plug(&vm, &mut buses.memory, devices.len(), entropy)?);
        let kernel = Kernel {
            image: &spec.kernel,
            initial_disk: spec.initial_disk.as_deref(),
            command_line: &spec.command_line,
        };
        let count = u32::try_from(devices.len()).unwrap_or(0);
        let entry = kernel.load(&memory, spec.memory, &acpi::tables(spec.processors, count))?;
        let begin = |processor: &VcpuFd| entry.begin(processor);
        let host = Host { kvm: &kvm, vm: &vm, memory, buses: Arc::new(buses), listener };
        let processors = Processors::new(host, spec.processors, begin)?;
        let button = interrupt(&vm, BUTTON_LINE)?;
        Ok(Self { processors, devices, stall, _vm: vm, button })
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
        self.stall.end();
        self.processors.go_on();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.processors.hold();
        for device in &self.devices {
            device.reset();
        }
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("processors", &self.processors).finish_non_exhaustive()
    }
}

/// So many bytes of memory, of which the host gives what is touched.
fn zeros(bytes: u64) -> Result<GuestMemoryMmap> {
    let part = |(start, length)| Some((GuestAddress(start), usize::try_from(length).ok()?));
    let parts: Option<Vec<_>> = memory(bytes).into_iter().map(part).collect();
    let no_memory = || Error::internal(format!("giving a guest {bytes} bytes of memory"));
    let memory = GuestMemoryMmap::from_ranges(&parts.ok_or_else(no_memory)?);
    memory.map_err(|error| no_memory().source(error))
}

/// Puts in a virtio device, as the next.
fn plug(vm: &VmFd, bus: &mut Bus, number: usize, model: Box<dyn Model>) -> Result<Arc<Mmio>> {
    let number = u32::try_from(number).unwrap_or(u32::MAX);
    if number >= VIRTIO_MAX {
        let sentence = format!("a guest has at most {VIRTIO_MAX} drives and cards");
        return Err(Error::new(ErrorKind::InvalidValue, sentence));
    }
    let line = Line::new(raise(interrupt(vm, virtio_line(number))?));
    let device = Arc::new(Mmio::new(model, line));
    let at = virtio(number);
    bus.plug(at..at + VIRTIO_SIZE, device.clone());
    Ok(device)
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
