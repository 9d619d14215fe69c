//! Guests as state: [`SimHypervisor`].
//!
//! A guest does nothing on its own but greet on its serial port; a test makes it power off, panic
//! or hang with [`SimHypervisor::becomes`], and read and write with [`SimHypervisor::transfers`]. It
//! lets go of its drives unless a test makes it hold on.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use futures_core::stream::BoxStream;

use super::events::Events;
use super::lend::SimNetwork;
use super::lock;
use crate::block::Attachment;
use crate::error::{Error, ErrorKind, Result};
use crate::generation::Run;
use crate::hypervisor::{
    Console, Counters, Device, DriveSlot, EndCause, Hypervisor, IoCounts, Observed, Phase,
    ServerSpec, Signal,
};
use crate::id::ServerId;
use crate::units::MebiBytes;

/// The longest serial log, as the contract has it.
const LOG: usize = 1 << 20;
/// Stands where the oldest part of a log was cut off.
const GAP: &[u8] = b"[earlier output is lost]\n";

/// The guests of one simulated host. Clones are the same host.
#[derive(Debug, Clone)]
pub struct SimHypervisor(Arc<Mutex<State>>);

#[derive(Debug)]
struct State {
    memory: MebiBytes,
    screens: Option<SocketAddr>,
    network: SimNetwork,
    guests: BTreeMap<ServerId, Guest>,
    /// Counts the guests ever started.
    starts: u64,
    events: Events,
}

#[derive(Debug)]
struct Guest {
    memory: MebiBytes,
    run: Run,
    phase: Phase,
    start: u64,
    serial: Vec<u8>,
    drives: Vec<DriveSlot>,
    /// Of every drive that is plugged in.
    counts: BTreeMap<Device, IoCounts>,
    screen: Option<SocketAddr>,
    grip: Grip,
}

/// What a guest does with a drive that is unplugged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Grip {
    LetsGo,
    HoldsOn,
}

impl SimHypervisor {
    /// What every guest writes to its serial port when it starts or is reset.
    pub const GREETING: &'static str = "the simulated guest is up\n";

    /// A host with this much memory for guests.
    #[must_use]
    pub fn new(memory: MebiBytes) -> Self {
        Self(Arc::new(Mutex::new(State {
            memory,
            screens: None,
            network: SimNetwork::default(),
            guests: BTreeMap::new(),
            starts: 0,
            events: Events::default(),
        })))
    }

    /// The same host, where every guest that is to have a screen is said to have it at `address`.
    /// Without it none has one: a simulated guest draws nothing.
    #[must_use]
    pub fn with_screens_at(self, address: SocketAddr) -> Self {
        lock(&self.0).screens = Some(address);
        self
    }

    /// The same host on a storage network: a guest starts only once what it borrows is lent to it.
    #[must_use]
    pub fn on(self, network: &SimNetwork) -> Self {
        lock(&self.0).network = network.clone();
        self
    }

    /// Makes the guest do what leads to `phase`: `Ended(Guest)` powers it off, `Ended(Panicked)`
    /// crashes it, `Ended(Lost)` kills its process, `Unresponsive` hangs it, `Paused` fails its
    /// storage and `Running` cures those two.
    ///
    /// # Errors
    /// `NotFound` for a guest that is not there or has ended.
    pub fn becomes(&self, server: ServerId, phase: Phase) -> Result<()> {
        lock(&self.0).change(server, |guest| guest.phase = phase)
    }

    /// Makes the guest write to its serial port.
    ///
    /// # Errors
    /// `NotFound` for a guest that is not there or has ended.
    pub fn prints(&self, server: ServerId, text: &str) -> Result<()> {
        lock(&self.0).change(server, |guest| guest.print(text.as_bytes()))
    }

    /// From now on the guest lets go of no drive that is unplugged.
    ///
    /// # Errors
    /// `NotFound` for a guest that is not there or has ended.
    pub fn holds_on(&self, server: ServerId) -> Result<()> {
        lock(&self.0).change(server, |guest| guest.grip = Grip::HoldsOn)
    }

    /// Makes the guest read and write so much more of the drive at `device`.
    ///
    /// # Errors
    /// `NotFound` for a guest that is not there or has ended, or has no drive there.
    pub fn transfers(&self, server: ServerId, device: Device, more: IoCounts) -> Result<()> {
        let mut state = lock(&self.0);
        let guest = state.guests.get_mut(&server).filter(|guest| !guest.has_ended());
        let counts = guest.and_then(|guest| guest.counts.get_mut(&device));
        let nowhere = || format!("server {server} does not run with a drive at {device}");
        let counts = counts.ok_or_else(|| Error::new(ErrorKind::NotFound, nowhere()))?;
        *counts = counts.saturating_add(more);
        Ok(())
    }

    /// What is plugged in to the guest.
    #[must_use]
    pub fn plugged(&self, server: ServerId) -> Vec<DriveSlot> {
        let state = lock(&self.0);
        state.guests.get(&server).map(|guest| guest.drives.clone()).unwrap_or_default()
    }

    /// Ends this process and starts it anew: guests stay as they are, event streams end.
    pub fn restart(&self) {
        lock(&self.0).events.close();
    }

    /// Cuts the host's power: every run is gone, the ended ones too.
    pub fn host_crash(&self) {
        let mut state = lock(&self.0);
        state.guests.clear();
        state.events.close();
    }

    /// What exists of a server, by names that no two starts share. Empty if there is nothing.
    #[must_use]
    pub fn traces(&self, server: ServerId) -> Vec<String> {
        let guest = |guest: &Guest| format!("guest {}", guest.start);
        lock(&self.0).guests.get(&server).map(guest).into_iter().collect()
    }
}

impl State {
    /// Changes a guest that lives and tells everybody.
    fn change(&mut self, server: ServerId, change: impl FnOnce(&mut Guest)) -> Result<()> {
        match self.guests.get_mut(&server) {
            Some(guest) if !guest.has_ended() => change(guest),
            _ => return Err(absent(server)),
        }
        self.events.tell(server);
        Ok(())
    }

    /// Fails unless what is borrowed for a guest is lent to it, but for what it has already.
    fn reach(&self, spec: &ServerSpec) -> Result<()> {
        let has = self.guests.get(&spec.server).map(|guest| &guest.drives);
        for slot in spec.drives.iter().filter(|slot| has.is_none_or(|has| !has.contains(slot))) {
            if let Attachment::Iscsi(borrowing) = &slot.attachment {
                self.network.borrow(borrowing).map_err(|error| {
                    let sentence = "a drive of the server is not lent to it yet: try again later";
                    Error::new(ErrorKind::Unavailable, sentence).source(error)
                })?;
            }
        }
        Ok(())
    }

    fn free(&self) -> MebiBytes {
        let used = self.guests.values().map(|guest| guest.memory.0).fold(0, u32::saturating_add);
        MebiBytes(self.memory.0.saturating_sub(used))
    }
}

impl Guest {
    const fn has_ended(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Makes what is plugged in where drives come and go what is wanted.
    fn plug(&mut self, wanted: &[DriveSlot]) -> Result<()> {
        let is_hot = |slot: &DriveSlot| slot.device.bus().is_hot();
        let goes = |slot: &DriveSlot| is_hot(slot) && !wanted.contains(slot);
        let held = self.drives.iter().find(|slot| self.grip == Grip::HoldsOn && goes(slot));
        let held = held.map(|slot| slot.device);
        self.drives.retain(|slot| self.grip == Grip::HoldsOn || !goes(slot));
        self.counts.retain(|device, _| self.drives.iter().any(|slot| slot.device == *device));
        for slot in wanted.iter().filter(|slot| is_hot(slot)) {
            if !self.drives.iter().any(|there| there.device == slot.device) {
                self.drives.push(slot.clone());
                self.counts.insert(slot.device, IoCounts::default());
            }
        }
        match held {
            None => Ok(()),
            Some(device) => {
                let sentence = format!("the guest does not let go of {device}: have it do so");
                Err(Error::new(ErrorKind::Unavailable, sentence))
            }
        }
    }

    fn print(&mut self, text: &[u8]) {
        self.serial.extend_from_slice(text);
        if let Some(excess) = self.serial.len().checked_sub(LOG).filter(|excess| *excess > 0) {
            self.serial.splice(..excess + GAP.len(), GAP.iter().copied());
        }
    }
}

fn absent(server: ServerId) -> Error {
    Error::new(ErrorKind::NotFound, format!("server {server} does not run: start it"))
}

fn silent(server: ServerId) -> Error {
    let sentence = format!("server {server} does not answer: stop it or try again later");
    Error::new(ErrorKind::Unavailable, sentence)
}

#[async_trait]
impl Hypervisor for SimHypervisor {
    async fn ensure(&self, spec: &ServerSpec, run: Run) -> Result<()> {
        let mut state = lock(&self.0);
        let server = spec.server;
        let reached = state.reach(spec);
        if let Some(guest) = state.guests.get_mut(&server) {
            let found = guest.run;
            let (kind, sentence) = if run > found {
                (ErrorKind::ServerBusy, format!("run {found} of {server} exists: remove it first"))
            } else if run < found || guest.has_ended() {
                (ErrorKind::Stale, format!("run {run} of {server} is over: ask for a newer one"))
            } else {
                return reached.and_then(|()| guest.plug(&spec.drives));
            };
            return Err(Error::new(kind, sentence));
        }
        reached?;
        let (asked, free) = (spec.memory, state.free());
        if asked > free {
            let sentence = format!("the server needs {asked}, this host has {free}: ask for less");
            return Err(Error::new(ErrorKind::JobFailed, sentence));
        }
        state.starts += 1;
        let start = state.starts;
        let mut guest = Guest {
            memory: asked,
            run,
            phase: Phase::Running,
            start,
            serial: Vec::new(),
            drives: spec.drives.clone(),
            counts: spec.drives.iter().map(|slot| (slot.device, IoCounts::default())).collect(),
            screen: spec.screen.as_ref().and(state.screens),
            grip: Grip::LetsGo,
        };
        guest.print(Self::GREETING.as_bytes());
        state.guests.insert(server, guest);
        state.events.tell(server);
        Ok(())
    }

    async fn signal(&self, server: ServerId, signal: Signal) -> Result<()> {
        let mut state = lock(&self.0);
        if state.guests.get(&server).is_some_and(|guest| guest.phase == Phase::Unresponsive) {
            return Err(silent(server));
        }
        state.change(server, |guest| match signal {
            Signal::PowerButton => guest.phase = Phase::Ended(EndCause::Guest),
            Signal::Reset => guest.print(Self::GREETING.as_bytes()),
        })
    }

    async fn remove(&self, server: ServerId) -> Result<()> {
        let mut state = lock(&self.0);
        if state.guests.remove(&server).is_some() {
            state.events.tell(server);
        }
        Ok(())
    }

    async fn observe(&self) -> Result<Vec<Observed>> {
        let state = lock(&self.0);
        let observed = |(server, guest): (&ServerId, &Guest)| Observed {
            server: *server,
            run: guest.run,
            phase: guest.phase,
        };
        Ok(state.guests.iter().map(observed).collect())
    }

    fn events(&self) -> BoxStream<'static, ServerId> {
        Box::pin(lock(&self.0).events.subscribe())
    }

    fn console(&self) -> Option<&dyn Console> {
        Some(self)
    }

    fn counters(&self) -> Option<&dyn Counters> {
        Some(self)
    }
}

#[async_trait]
impl Console for SimHypervisor {
    async fn serial(&self, server: ServerId) -> Result<Vec<u8>> {
        let state = lock(&self.0);
        state.guests.get(&server).map(|guest| guest.serial.clone()).ok_or_else(|| absent(server))
    }

    async fn screen(&self, server: ServerId) -> Result<Option<SocketAddr>> {
        let state = lock(&self.0);
        state.guests.get(&server).map(|guest| guest.screen).ok_or_else(|| absent(server))
    }
}

#[async_trait]
impl Counters for SimHypervisor {
    async fn counts(&self, server: ServerId) -> Result<BTreeMap<Device, IoCounts>> {
        let state = lock(&self.0);
        match state.guests.get(&server).filter(|guest| !guest.has_ended()) {
            None => Err(absent(server)),
            Some(guest) if guest.phase == Phase::Unresponsive => Err(silent(server)),
            Some(guest) => Ok(guest.counts.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hypervisor::ServerKind;
    use crate::sim::{SimRng, block_on};
    use crate::units::{MegaHertz, VcpuCount};

    fn spec(memory: u32) -> ServerSpec {
        ServerSpec {
            server: SimRng::new(u64::from(memory)).id(),
            kind: ServerKind::Vm,
            cpu: MegaHertz(1000),
            vcpus: VcpuCount::for_cpu(MegaHertz(1000)),
            memory: MebiBytes(memory),
            drives: Vec::new(),
            boot: Vec::new(),
            nics: Vec::new(),
            screen: None,
            seed: None,
        }
    }

    #[test]
    fn a_host_runs_no_more_memory_than_it_has() {
        let host = SimHypervisor::new(MebiBytes(1000));
        block_on(host.ensure(&spec(600), Run(1))).unwrap();
        let refused = block_on(host.ensure(&spec(401), Run(1))).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::JobFailed);
        assert!(refused.to_string().contains("401 MiB, this host has 400 MiB"), "{refused}");
        block_on(host.ensure(&spec(400), Run(1))).unwrap();
    }

    #[test]
    fn guests_outlive_the_process_but_not_the_host() {
        let host = SimHypervisor::new(MebiBytes(1000));
        block_on(host.ensure(&spec(600), Run(1))).unwrap();
        host.restart();
        assert_eq!(block_on(host.observe()).unwrap().len(), 1);
        host.host_crash();
        assert_eq!(block_on(host.observe()).unwrap(), []);
    }

    #[test]
    fn a_hung_guest_takes_no_signal_until_it_recovers() {
        let host = SimHypervisor::new(MebiBytes(1000));
        let spec = spec(600);
        block_on(host.ensure(&spec, Run(1))).unwrap();
        host.becomes(spec.server, Phase::Unresponsive).unwrap();
        let refused = block_on(host.signal(spec.server, Signal::PowerButton)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Unavailable);
        host.becomes(spec.server, Phase::Running).unwrap();
        block_on(host.signal(spec.server, Signal::PowerButton)).unwrap();
        let seen = block_on(host.observe()).unwrap();
        assert_eq!(seen[0].phase, Phase::Ended(EndCause::Guest));
        let refused = block_on(host.signal(spec.server, Signal::Reset)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotFound);
    }

    #[test]
    fn a_long_serial_log_keeps_its_end_and_marks_the_gap() {
        let host = SimHypervisor::new(MebiBytes(1000));
        let spec = spec(600);
        block_on(host.ensure(&spec, Run(1))).unwrap();
        host.prints(spec.server, &"x".repeat(LOG)).unwrap();
        host.prints(spec.server, "the end").unwrap();
        let log = block_on(host.serial(spec.server)).unwrap();
        assert_eq!(log.len(), LOG);
        assert!(log.starts_with(GAP) && log.ends_with(b"xthe end"));
    }
}
