//! How many more servers of one size fit, and what keeps the next one out. Pure: the inventory is a
//! copy, and every host is chosen by the scheduler itself.
//!
//! A server and its drive go to one host, or the drive to a host that lends. As a server is worth
//! the same wherever it is, no order of placing them fits more: a host's own arrays serve nobody
//! better than its own servers.

use std::collections::BTreeMap;

use super::{
    ArrayRoom, Constraint, DriveDemand, HostRoom, Inventory, Refusal, Request, Scheduler,
    ServerDemand, Tier,
};
use crate::hypervisor::ServerKind;
use crate::id::HostId;
use crate::units::{Bytes, MebiBytes, MegaHertz};

/// A server with at most one drive of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ServerSize {
    /// Its processor time.
    pub cpu: MegaHertz,
    /// Its memory.
    pub memory: MebiBytes,
    /// The size of its drive; zero for none.
    pub drive: Bytes,
    /// What the drive's array is to be made of.
    pub tier: Tier,
}

/// How many more servers of one size fit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headroom {
    /// How many on each host that takes any.
    pub hosts: BTreeMap<HostId, u64>,
    /// What keeps the next one out.
    pub binds: Refusal,
}

impl Headroom {
    /// How many in all.
    #[must_use]
    pub fn servers(&self) -> u64 {
        self.hosts.values().sum()
    }
}

impl Inventory {
    /// How many more servers of this size fit, by the choices of `scheduler`, and what binds then.
    /// It asks at most twice for each host, however many fit; a size of no memory and no processor
    /// time fits nowhere.
    #[must_use]
    pub fn headroom(&self, scheduler: &dyn Scheduler, size: &ServerSize) -> Headroom {
        let mut left = self.clone();
        let mut hosts = BTreeMap::new();
        loop {
            match left.seat(scheduler, size) {
                Err(binds) => return Headroom { hosts, binds },
                Ok(host) => {
                    let more = left.fill(host, size);
                    if more == 0 {
                        let binds = Refusal::none(Constraint::AcceptingHosts);
                        return Headroom { hosts, binds };
                    }
                    *hosts.entry(host).or_default() += more;
                }
            }
        }
    }

    /// A host on which one more server of this size fits with its drive.
    ///
    /// # Errors
    /// What keeps it out: of a drive if some host has room for the server without it.
    pub fn seat(&self, scheduler: &dyn Scheduler, size: &ServerSize) -> Result<HostId, Refusal> {
        let (cpu, memory) = (size.cpu, size.memory);
        let server = Request::Server(ServerDemand {
            kind: ServerKind::Vm,
            cpu,
            memory,
            drives_on: Vec::new(),
            avoid: Vec::new(),
        });
        let mut open = self.clone();
        let mut without_drive: Option<Refusal> = None;
        loop {
            let host = match scheduler.place(&open, &server) {
                Ok(placement) => placement.host,
                Err(refusal) => return Err(without_drive.unwrap_or(refusal)),
            };
            if size.drive == Bytes::ZERO {
                return Ok(host);
            }
            let demand = DriveDemand { size: size.drive, tier: size.tier, avoid: Vec::new() };
            let reach = |room: &HostRoom| room.host == host || room.lends;
            let within =
                Inventory { hosts: self.hosts.iter().filter(|h| reach(h)).cloned().collect() };
            match scheduler.place(&within, &Request::Drive(demand)) {
                Ok(_) => return Ok(host),
                Err(refusal) => {
                    let nearest = without_drive.get_or_insert(refusal);
                    if (nearest.constraint, nearest.available)
                        < (refusal.constraint, refusal.available)
                    {
                        *nearest = refusal;
                    }
                }
            }
            for room in open.hosts.iter_mut().filter(|room| room.host == host) {
                room.accepts = false;
            }
        }
    }

    /// Takes the room for as many servers of this size as fit on `host`: their drives on its own
    /// arrays first, then on those of hosts that lend. Says how many.
    fn fill(&mut self, host: HostId, size: &ServerSize) -> u64 {
        let Some(room) = self.hosts.iter_mut().find(|room| room.host == host) else { return 0 };
        let times = |free: u32, each: u32| u64::from(free).checked_div(each.into());
        let seats = [times(room.memory.0, size.memory.0), times(room.cpu.0, size.cpu.0)];
        let Some(seats) = seats.into_iter().flatten().min() else { return 0 };
        let mut filled = seats;
        if size.drive > Bytes::ZERO {
            filled = room.store(seats, size);
            for lender in self.hosts.iter_mut().filter(|room| room.lends && room.host != host) {
                filled += lender.store(seats - filled, size);
            }
        }
        for room in self.hosts.iter_mut().filter(|room| room.host == host) {
            room.memory = MebiBytes(less(room.memory.0, size.memory.0, filled));
            room.cpu = MegaHertz(less(room.cpu.0, size.cpu.0, filled));
        }
        filled
    }
}

impl HostRoom {
    /// Takes the bytes for at most `wanted` drives of this size, and says for how many.
    fn store(&mut self, wanted: u64, size: &ServerSize) -> u64 {
        let mut stored = 0;
        let fits = |array: &&mut ArrayRoom| array.accepts && array.tier == size.tier;
        if !self.accepts {
            return 0;
        }
        for array in self.arrays.iter_mut().filter(fits) {
            let most = array.free.get().checked_div(size.drive.get()).unwrap_or(0);
            let drives = most.min(wanted - stored);
            let taken = Bytes::try_from(size.drive.get() * drives).unwrap_or(array.free);
            array.free = array.free.saturating_sub(taken);
            stored += drives;
        }
        stored
    }
}

/// What is left of `free` beside so many of `each`, which are no more than it.
fn less(free: u32, each: u32, many: u64) -> u32 {
    let taken = u64::from(each).saturating_mul(many);
    free.saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::super::ReferenceScheduler;
    use super::*;
    use crate::id::ArrayId;

    /// A host by the arrays' free MiB.
    fn host(n: u128, cpu: u32, memory: u32, arrays: &[u64]) -> HostRoom {
        let array = |(index, free): (usize, &u64)| ArrayRoom {
            array: ArrayId::from_uuid(Uuid::from_u128(n * 16 + index as u128)),
            accepts: true,
            tier: Tier::Disk,
            free: Bytes::from_mib(u32::try_from(*free).unwrap()),
        };
        HostRoom {
            host: HostId::from_uuid(Uuid::from_u128(n)),
            accepts: true,
            lends: false,
            containers: false,
            cpu: MegaHertz(cpu),
            memory: MebiBytes(memory),
            arrays: arrays.iter().enumerate().map(array).collect(),
        }
    }

    fn size(cpu: u32, memory: u32, drive: u32) -> ServerSize {
        let drive = Bytes::from_mib(drive);
        ServerSize { cpu: MegaHertz(cpu), memory: MebiBytes(memory), drive, tier: Tier::Disk }
    }

    #[test]
    fn what_is_scarcest_on_each_host_decides() {
        use Constraint::{AcceptingArrays, AcceptingHosts, ArrayBytes, Cpu, Memory};
        let lender = |mut room: HostRoom| {
            room.lends = true;
            room
        };
        let closed = |mut room: HostRoom| {
            room.accepts = false;
            room
        };
        for (hosts, drive, servers, binds) in [
            (vec![], 10, 0, AcceptingHosts),
            (vec![closed(host(1, 9_000, 9_000, &[90]))], 10, 0, AcceptingHosts),
            (vec![host(1, 5_000, 9_000, &[90])], 10, 5, Cpu),
            (vec![host(1, 9_000, 5_000, &[90])], 10, 5, Memory),
            (vec![host(1, 9_000, 9_000, &[19, 25])], 10, 3, ArrayBytes),
            (vec![host(1, 9_000, 9_000, &[])], 10, 0, AcceptingArrays),
            (vec![host(1, 9_000, 9_000, &[])], 0, 9, Memory),
            // Bytes on another host are of use only if it lends.
            (vec![host(1, 9_000, 9_000, &[]), host(2, 999, 999, &[90])], 10, 0, AcceptingArrays),
            (vec![host(1, 9_000, 9_000, &[]), lender(host(2, 999, 999, &[70]))], 10, 7, ArrayBytes),
            (vec![host(1, 4_000, 9_000, &[20]), host(2, 9_000, 9_000, &[70])], 10, 9, ArrayBytes),
        ] {
            let found =
                Inventory { hosts }.headroom(&ReferenceScheduler, &size(1_000, 1_000, drive));
            assert_eq!((found.servers(), found.binds.constraint), (servers, binds), "{found:?}");
            assert!(found.binds.available < found.binds.wanted);
        }
        let nothing = Inventory { hosts: vec![host(1, 1, 1, &[1])] };
        assert_eq!(nothing.headroom(&ReferenceScheduler, &size(0, 0, 0)).servers(), 0);
    }

    fn inventories() -> impl Strategy<Value = Inventory> {
        let flags = (prop::bool::weighted(0.9), any::<bool>());
        let room = (0..9_u32, 0..9_u32, prop::collection::vec(0..60_u64, 0..3), flags);
        prop::collection::vec(room, 0..6).prop_map(|rooms| Inventory {
            hosts: (1..)
                .zip(rooms)
                .map(|(n, (cpu, memory, arrays, (accepts, lends)))| HostRoom {
                    accepts,
                    lends,
                    ..host(n, cpu * 700, memory * 600, &arrays)
                })
                .collect(),
        })
    }

    /// Takes the room for one server where `seat` says.
    fn sit(inventory: &mut Inventory, host: HostId, size: &ServerSize) {
        let seated = inventory.hosts.iter_mut().find(|room| room.host == host).unwrap();
        seated.cpu.0 -= size.cpu.0;
        seated.memory.0 -= size.memory.0;
        if size.drive == Bytes::ZERO {
            return;
        }
        let (own, others): (Vec<_>, Vec<_>) =
            inventory.hosts.iter_mut().partition(|room| room.host == host);
        let mut near = own.into_iter().chain(others.into_iter().filter(|room| room.lends));
        assert!(near.any(|room| room.store(1, size) == 1), "the drive was said to fit");
    }

    proptest! {
        #[test]
        fn so_many_are_placed_one_by_one_and_one_more_is_refused_for_the_same_reason(
            inventory in inventories(), cpu in 500..2_000_u32, memory in 200..2_000_u32, drive in 0..30_u32,
        ) {
            let size = size(cpu, memory, drive);
            let found = inventory.headroom(&ReferenceScheduler, &size);
            let mut left = inventory;
            for placed in 0..found.servers() {
                let seat = left.seat(&ReferenceScheduler, &size);
                prop_assert!(seat.is_ok(), "{placed} of {}: {seat:?}", found.servers());
                sit(&mut left, seat.unwrap(), &size);
            }
            let refused = left.seat(&ReferenceScheduler, &size).unwrap_err();
            prop_assert_eq!(refused.constraint, found.binds.constraint);
        }
    }
}
