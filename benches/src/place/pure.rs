//! The decision alone: the pure scheduler, on one thread: a fleet that is four fifths full, in which the oldest server
//! and its drive go whenever new ones come, so that no two decisions see the same inventory. Only
//! the decision is timed, not the upkeep of the inventory, which is the caller's; and in time of the
//! thread's processor, as a goal for one core says nothing of what else the machine does.

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::time::Duration;

use anyhow::{Context as _, Result};
use elasticstack_core::hypervisor::ServerKind;
use elasticstack_core::id::HostId;
use elasticstack_core::scheduler::{
    ArrayRoom, DriveDemand, HostRoom, Inventory, Placement, ReferenceScheduler, Request, Scheduler,
    ServerDemand, Tier,
};
use elasticstack_core::sim::SimRng;
use elasticstack_core::units::{Bytes, MebiBytes, MegaHertz};
use rustix::time::{ClockId, clock_gettime};

use crate::table::{Row, Verdict};

const FLEETS: [u32; 3] = [10, 100, 1_000];
const ARRAYS: u32 = 4;
/// How many decisions are timed on each fleet.
const DECISIONS: usize = 40_000;

const HOST_MEMORY: MebiBytes = MebiBytes(131_072);
const HOST_CPU: MegaHertz = MegaHertz(96_000);
const ARRAY_SIZE: Bytes = Bytes::from_gib(2_000);
/// How much of the fleet's memory is promised while it is measured, in percent.
const FULL: u64 = 80;

/// Decisions a second on one core.
const RATE_GOAL: f64 = 10_000.0;
/// In milliseconds.
const P99_GOAL: f64 = 1.0;

/// The rows of the decision.
pub(super) fn rows() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    for hosts in FLEETS {
        println!("{DECISIONS} decisions on {hosts} hosts of {ARRAYS} arrays");
        rows.extend(fleet(hosts)?);
    }
    Ok(rows)
}

/// The rows of a fleet of so many hosts.
fn fleet(hosts: u32) -> Result<[Row; 3]> {
    let mut fleet = Fleet::new(hosts);
    fleet.fill()?;
    while fleet.times.len() < DECISIONS {
        fleet.goes()?;
        let wants = fleet.wants();
        fleet.comes(wants)?;
    }
    println!("  {} servers at work, {} refusals", fleet.guests.len(), fleet.refused);
    let mut times = fleet.times;
    times.sort_unstable();
    let total: f64 = times.iter().map(Duration::as_secs_f64).sum();
    let decisions = u32::try_from(times.len()).context("too many decisions to count")?;
    let rate = f64::from(decisions) / total;
    let [p50, p99] = [50, 99].map(|percent| milliseconds(&times, percent));
    let most = format!("at most {P99_GOAL} ms");
    Ok([
        Row::alone(
            format!("decisions a second, {hosts} hosts"),
            format!("{rate:.0}"),
            format!("at least {RATE_GOAL}"),
            Verdict::at_least(rate, RATE_GOAL),
        ),
        Row::alone(
            format!("half of them take, {hosts} hosts"),
            format!("{p50:.4} ms"),
            most.clone(),
            Verdict::at_most(p50, P99_GOAL),
        ),
        Row::alone(
            format!("99 of 100 take, {hosts} hosts"),
            format!("{p99:.4} ms"),
            most,
            Verdict::at_most(p99, P99_GOAL),
        ),
    ])
}

/// The time that so many of a hundred do not exceed; not a number of nothing.
fn milliseconds(sorted: &[Duration], percent: usize) -> f64 {
    let last = (sorted.len() * percent).div_ceil(100).wrapping_sub(1);
    sorted.get(last).map_or(f64::NAN, |time| time.as_secs_f64() * 1e3)
}

/// A fleet at work.
struct Fleet {
    inventory: Inventory,
    /// Where each host stands in the inventory.
    places: BTreeMap<HostId, usize>,
    /// From the oldest to the newest.
    guests: VecDeque<Guest>,
    rng: SimRng,
    /// How long each decision took.
    times: Vec<Duration>,
    refused: usize,
}

/// A drive and its server, and where they are.
struct Guest {
    wants: Wants,
    drive: Placement,
    server: Placement,
}

#[derive(Clone, Copy)]
struct Wants {
    size: Bytes,
    cpu: MegaHertz,
    memory: MebiBytes,
}

impl Fleet {
    fn new(hosts: u32) -> Self {
        let mut rng = SimRng::new(u64::from(hosts));
        let hosts: Vec<_> = (0..hosts).map(|_| host(&mut rng)).collect();
        let places = hosts.iter().enumerate().map(|(place, room)| (room.host, place)).collect();
        let inventory = Inventory { hosts };
        let (guests, times) = (VecDeque::new(), Vec::new());
        Self { inventory, places, guests, rng, times, refused: 0 }
    }

    /// Lets servers come until the fleet is as full as it is to be.
    fn fill(&mut self) -> Result<()> {
        let all = u64::from(HOST_MEMORY.0) * u64::try_from(self.places.len())?;
        let mut promised = 0;
        while promised < all / 100 * FULL {
            let wants = self.wants();
            self.comes(wants)?;
            promised += u64::from(wants.memory.0);
        }
        self.times.clear();
        Ok(())
    }

    fn wants(&mut self) -> Wants {
        let gib = 1 << self.rng.below(5);
        let half_cores = 1 + u32::try_from(self.rng.below(8)).unwrap_or(0);
        Wants {
            size: Bytes::from_gib(10 + 5 * gib),
            cpu: MegaHertz(500 * half_cores),
            memory: MebiBytes(1_024 * gib),
        }
    }

    /// Has a drive placed and then its server.
    fn comes(&mut self, wants: Wants) -> Result<()> {
        let Wants { size, cpu, memory } = wants;
        let beside = self.guests.back().filter(|_| self.rng.one_in(8));
        let avoid = beside.and_then(|guest| guest.drive.array).into_iter().collect();
        let drive = self.decide(&Request::Drive(DriveDemand { size, tier: Tier::Disk, avoid }));
        let Some(drive) = drive else { return Ok(()) };
        let beside = self.guests.back().filter(|_| self.rng.one_in(8));
        let avoid = beside.map(|guest| guest.server.host).into_iter().collect();
        let drives_on = vec![drive.host];
        let server = self.decide(&Request::Server(ServerDemand {
            kind: ServerKind::Vm,
            cpu,
            memory,
            drives_on,
            avoid,
        }));
        let Some(server) = server else { return Ok(()) };
        let guest = Guest { wants, drive, server };
        self.account(&guest, u64::checked_sub).context("more was placed than there was")?;
        self.guests.push_back(guest);
        Ok(())
    }

    /// Ends the oldest server and its drive.
    fn goes(&mut self) -> Result<()> {
        let guest = self.guests.pop_front().context("the fleet is empty")?;
        self.account(&guest, u64::checked_add).context("more was freed than there is")
    }

    fn decide(&mut self, request: &Request) -> Option<Placement> {
        let began = worked();
        let answer = ReferenceScheduler.place(black_box(&self.inventory), black_box(request));
        self.times.push(worked().saturating_sub(began));
        self.refused += usize::from(answer.is_err());
        answer.ok()
    }

    /// Changes what is free by what the guest has.
    fn account(&mut self, guest: &Guest, change: fn(u64, u64) -> Option<u64>) -> Option<()> {
        let Wants { size, cpu, memory } = guest.wants;
        let small = |free: u32, part: u32| u32::try_from(change(free.into(), part.into())?).ok();
        let host = self.inventory.hosts.get_mut(*self.places.get(&guest.server.host)?)?;
        host.cpu = MegaHertz(small(host.cpu.0, cpu.0)?);
        host.memory = MebiBytes(small(host.memory.0, memory.0)?);
        let home = self.inventory.hosts.get_mut(*self.places.get(&guest.drive.host)?)?;
        let mut arrays = home.arrays.iter_mut();
        let array = arrays.find(|array| Some(array.array) == guest.drive.array)?;
        array.free = Bytes::try_from(change(array.free.get(), size.get())?).ok()?;
        Some(())
    }
}

/// How long this thread has been at work on a processor.
fn worked() -> Duration {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    Duration::try_from(now).unwrap_or_default()
}

fn host(rng: &mut SimRng) -> HostRoom {
    let arrays = (0..ARRAYS).map(|_| ArrayRoom {
        array: rng.id(),
        accepts: true,
        tier: Tier::Disk,
        free: ARRAY_SIZE,
    });
    let arrays = arrays.collect();
    HostRoom {
        host: rng.id(),
        accepts: true,
        lends: true,
        containers: false,
        cpu: HOST_CPU,
        memory: HOST_MEMORY,
        arrays,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_and_goes_leaves_all_the_room_there_was() {
        let mut fleet = Fleet::new(3);
        let empty = fleet.inventory.clone();
        fleet.fill().unwrap();
        assert_ne!(fleet.inventory, empty);
        while !fleet.guests.is_empty() {
            fleet.goes().unwrap();
        }
        assert_eq!(fleet.inventory, empty);
    }

    #[test]
    fn the_99th_of_a_hundred_times_is_what_one_exceeds() {
        let times: Vec<_> = (1..=200).map(Duration::from_millis).collect();
        assert_eq!(milliseconds(&times, 50), 100.0);
        assert_eq!(milliseconds(&times, 99), 198.0);
        assert!(milliseconds(&[], 99).is_nan());
    }
}
