//! A guest's virtual processors: a thread each, which runs the guest until the guest wants something of
//! the machine, and how they are all held or ended from outside.
#![expect(unsafe_code, reason = "a guest is given its memory by an ioctl on an address")]

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use elasticstack_core::error::{Error, Result};
use kvm_bindings::{
    CpuId, KVM_MAX_CPUID_ENTRIES, Msrs, kvm_msr_entry, kvm_userspace_memory_region,
};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
use vm_memory::{GuestMemoryBackend as _, GuestMemoryMmap, GuestMemoryRegion as _};
use vmm_sys_util::signal::{Killable as _, SIGRTMIN, register_signal_handler};

use super::board::{Board, Space};
use super::jail::{Confinement, Kind};
use super::news::{Listener, News};

/// How long to wait before a processor is woken once more, which was just about to run its guest.
const KNOCK: Duration = Duration::from_millis(2);

/// MTRRdefType: MTRRs are on, and memory is write-back where they say nothing (Intel SDM 3A, 12.11.2.1).
const MSR_MTRR_DEFAULT: u32 = 0x2ff;
const MTRR_ON_WRITE_BACK: u64 = 1 << 11 | 6;

/// CPUID leaf 1: there is a hypervisor, and the local APIC has TSC-deadline mode (SDM 2A).
const HYPERVISOR: u32 = 1 << 31;
const TSC_DEADLINE: u32 = 1 << 24;

/// What processors are made of, and where they say how their guest ended.
pub(super) struct Host<'a> {
    pub kvm: &'a Kvm,
    pub vm: &'a VmFd,
    pub board: Arc<Board>,
    pub listener: Listener,
    pub confinement: Confinement,
}

/// The processors of a guest that runs. Dropped, they end.
#[derive(Debug)]
pub(super) struct Processors {
    gate: Arc<Gate>,
    threads: Vec<JoinHandle<()>>,
    /// The guest writes to its memory for as long as it runs.
    _board: Arc<Board>,
}

/// What the threads are to do, and how many of them have heard that they are to wait.
#[derive(Debug, Default)]
struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    wanted: Wanted,
    held: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
enum Wanted {
    Run,
    #[default]
    Hold,
    End,
}

impl Processors {
    /// Makes so many, held. The first begins as `begin` sets its registers; the others wait for it to start
    /// them.
    ///
    /// # Errors
    /// `Internal` if KVM refuses.
    pub(super) fn new(
        host: Host<'_>,
        count: u8,
        begin: impl FnOnce(&VcpuFd) -> Result<(), kvm_ioctls::Error>,
    ) -> Result<Self> {
        let Host { kvm, vm, board, listener, confinement } = host;
        register_signal_handler(SIGRTMIN(), heard).map_err(refused("hearing signals"))?;
        give(vm, board.memory()).map_err(refused("giving a guest its memory"))?;
        let supported = kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES);
        let supported = supported.map_err(refused("asking for the processor's features"))?;
        let has_deadline = kvm.check_extension(Cap::TscDeadlineTimer);
        let mut begin = Some(begin);
        let (gate, threads) = (Arc::<Gate>::default(), Vec::new());
        let mut processors = Self { gate, threads, _board: Arc::clone(&board) };
        for number in 0..count {
            let processor = vm.create_vcpu(number.into()).map_err(refused("making a processor"))?;
            let mut features = supported.clone();
            describe(&mut features, number, count, has_deadline);
            processor.set_cpuid2(&features).map_err(refused("setting a processor's features"))?;
            let ranges = kvm_msr_entry {
                index: MSR_MTRR_DEFAULT,
                data: MTRR_ON_WRITE_BACK,
                ..Default::default()
            };
            let ranges = Msrs::from_entries(&[ranges]).map_err(|_| Error::internal("MSRs"))?;
            processor.set_msrs(&ranges).map_err(refused("setting a processor's MSRs"))?;
            if let Some(begin) = begin.take() {
                begin(&processor).map_err(refused("setting a processor's registers"))?;
            }
            let (gate, board, listener) =
                (Arc::clone(&processors.gate), Arc::clone(&board), listener.clone());
            let thread = thread::Builder::new().name(format!("processor {number}"));
            let thread = thread.spawn(move || match confinement.enter(Kind::Processor) {
                Ok(()) => run(processor, &gate, &board, &listener),
                Err(error) => listener.tell(News::Failed(format!("{error:?}"))),
            });
            let thread = thread
                .map_err(|error| Error::internal("starting a processor's thread").source(error))?;
            processors.threads.push(thread);
        }
        Ok(processors)
    }

    /// Lets the guest go on.
    pub(super) fn go_on(&self) {
        self.gate.want(Wanted::Run);
    }

    /// Holds the guest; when this returns, no instruction of it is executed.
    pub(super) fn hold(&self) {
        self.gate.want(Wanted::Hold);
        loop {
            let state = self.gate.state();
            // One that has ended executes nothing either.
            let ended = self.threads.iter().filter(|thread| thread.is_finished()).count();
            if state.held + ended >= self.threads.len() {
                return;
            }
            drop(state);
            self.knock();
        }
    }

    fn knock(&self) {
        for thread in &self.threads {
            // One that has ended hears nothing.
            let _ = thread.kill(SIGRTMIN());
        }
        thread::sleep(KNOCK);
    }
}

impl Drop for Processors {
    fn drop(&mut self) {
        self.gate.want(Wanted::End);
        while self.threads.iter().any(|thread| !thread.is_finished()) {
            self.knock();
        }
    }
}

impl Gate {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self, wanted: Wanted) {
        self.state().wanted = wanted;
        self.changed.notify_all();
    }

    /// Waits while the guest is held. Whether it goes on.
    fn pass(&self) -> bool {
        let mut state = self.state();
        if state.wanted == Wanted::Hold {
            state.held += 1;
            let on = |state: &mut State| state.wanted == Wanted::Hold;
            state = self.changed.wait_while(state, on).unwrap_or_else(PoisonError::into_inner);
            state.held -= 1;
        }
        state.wanted == Wanted::Run
    }
}

/// Has the guest find this memory.
fn give(vm: &VmFd, memory: &GuestMemoryMmap) -> Result<(), kvm_ioctls::Error> {
    for (slot, region) in (0..).zip(memory.iter()) {
        let region = kvm_userspace_memory_region {
            slot,
            flags: 0,
            guest_phys_addr: region.start_addr().0,
            memory_size: region.len(),
            userspace_addr: region.as_ptr() as u64,
        };
        // JUSTIFICATION: no safe call gives a guest its memory.
        // SAFETY: the region is mapped, is as long as that and overlaps no other, and `Processors` keeps
        // it until none of them is left.
        unsafe { vm.set_user_memory_region(region) }?;
    }
    Ok(())
}

/// That a signal came is all: KVM returns by it.
extern "C" fn heard(_: i32, _: *mut nix::libc::siginfo_t, _: *mut std::ffi::c_void) {}

fn refused(action: &'static str) -> impl FnOnce(kvm_ioctls::Error) -> Error {
    move |error| Error::internal(format!("KVM: {action}")).source(std::io::Error::from(error))
}

fn run(mut processor: VcpuFd, gate: &Gate, board: &Board, listener: &Listener) {
    while gate.pass() {
        let news = match processor.run() {
            Ok(VcpuExit::IoIn(port, data)) => {
                board.read(Space::Ports, port.into(), data);
                continue;
            }
            Ok(VcpuExit::IoOut(port, data)) => {
                board.write(Space::Ports, port.into(), data);
                continue;
            }
            Ok(VcpuExit::MmioRead(address, data)) => {
                board.read(Space::Memory, address, data);
                continue;
            }
            Ok(VcpuExit::MmioWrite(address, data)) => {
                board.write(Space::Memory, address, data);
                continue;
            }
            Ok(VcpuExit::Intr) => continue,
            Err(error) if [nix::libc::EINTR, nix::libc::EAGAIN].contains(&error.errno()) => {
                continue;
            }
            // A triple fault, by which some systems start anew.
            Ok(VcpuExit::Shutdown) => News::Reset,
            Ok(exit) => News::Failed(format!("KVM can't go on: {exit:?}")),
            Err(error) => News::Failed(format!("KVM can't go on: {error}")),
        };
        listener.tell(news);
        return;
    }
}

/// What the guest is told of its processor: KVM's list, with this processor's number in it.
fn describe(features: &mut CpuId, number: u8, count: u8, has_deadline: bool) {
    let (id, count) = (u32::from(number), u32::from(count));
    let bits = u32::BITS - count.saturating_sub(1).leading_zeros();
    for entry in features.as_mut_slice() {
        match (entry.function, entry.index) {
            (0x1, _) => {
                entry.ebx = entry.ebx & 0xffff | count << 16 | id << 24;
                entry.ecx |= HYPERVISOR | if has_deadline { TSC_DEADLINE } else { 0 };
            }
            // One thread a core, all cores in one package.
            (0xb | 0x1f, 0) => {
                (entry.eax, entry.ebx, entry.ecx, entry.edx) = (0, 1, 1 << 8, id);
            }
            (0xb | 0x1f, 1) => {
                (entry.eax, entry.ebx, entry.ecx, entry.edx) = (bits, count, 2 << 8 | 1, id);
            }
            (0xb | 0x1f, _) => {
                (entry.eax, entry.ebx, entry.edx) = (0, 0, id);
            }
            (0x8000_0008, _) => {
                entry.ecx = entry.ecx & !0xf0ff | bits << 12 | count.saturating_sub(1);
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{RecvTimeoutError, channel};

    use kvm_bindings::kvm_regs;
    use vm_memory::{Bytes as _, GuestAddress};

    use super::*;
    use crate::kvm::board::Devices;

    /// Real mode, at 0x1000: counts at 0x2000 until there is a 1 at 0x2004, then says `hi` at the serial
    /// port and turns itself off.
    const CODE: [u8; 33] = [
        0x31, 0xc0, 0x8e, 0xd8, // xor ax, ax; mov ds, ax
        0xff, 0x06, 0x00, 0x20, // again: inc word [0x2000]
        0x80, 0x3e, 0x04, 0x20, 0x01, // cmp byte [0x2004], 1
        0x75, 0xf5, // jne again
        0xba, 0xf8, 0x03, 0xb0, b'h', 0xee, // mov dx, 0x3f8; mov al, 'h'; out dx, al
        0xb0, b'i', 0xee, // mov al, 'i'; out dx, al
        0xba, 0x00, 0x06, 0xb0, 0x34, 0xee, // mov dx, 0x600; mov al, 0x34; out dx, al
        0xf4, 0xeb, 0xfd, // stop: hlt; jmp stop
    ];

    fn real_mode(processor: &VcpuFd) -> Result<(), kvm_ioctls::Error> {
        let mut system = processor.get_sregs()?;
        (system.cs.base, system.cs.selector) = (0, 0);
        processor.set_sregs(&system)?;
        processor.set_regs(&kvm_regs { rip: 0x1000, rflags: 2, ..Default::default() })
    }

    #[test]
    #[ignore = "needs /dev/kvm: cargo xtask test"]
    fn by_dev_kvm_a_guest_of_thirty_bytes_runs_is_held_goes_on_speaks_and_turns_itself_off() {
        let kvm = Kvm::new().unwrap();
        let vm = kvm.create_vm().unwrap();
        let (tell, heard) = channel();
        let hear = move |news| tell.send(news).unwrap();
        let (listener, log) = (Listener::new(hear.clone()), Arc::new(Mutex::new(Vec::new())));
        let console = Log(Arc::clone(&log));
        let board = Board::new(0x10000, Devices::default(), console, hear, |_| Ok(Box::new(|| {})))
            .unwrap();
        board.fill(0x1000, &CODE);
        let memory = Arc::clone(board.memory());
        let confinement = Confinement::Strict;
        let host = Host { kvm: &kvm, vm: &vm, board: Arc::new(board), listener, confinement };
        let processors = Processors::new(host, 1, real_mode).unwrap();
        let count = || memory.read_obj::<u16>(GuestAddress(0x2000)).unwrap();
        let goes_on = || {
            let before = count();
            while count() == before {
                thread::yield_now();
            }
        };
        assert_eq!(count(), 0, "it was not let go");
        processors.go_on();
        goes_on();
        for _ in 0..20 {
            processors.hold();
            let before = count();
            assert_eq!(heard.recv_timeout(KNOCK), Err(RecvTimeoutError::Timeout));
            assert_eq!(count(), before, "it is held");
            processors.go_on();
            goes_on();
        }
        memory.write_obj(1_u8, GuestAddress(0x2004)).unwrap();
        assert_eq!(heard.recv().unwrap(), News::Off);
        assert_eq!(*log.lock().unwrap(), b"hi");
    }

    struct Log(Arc<Mutex<Vec<u8>>>);

    impl std::io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
}
