//! The scheduler that ships. Owns the preference among what fits: few hosts that are well used
//! before many that are half empty, so that the next large server still finds its room.

use std::cmp::Reverse;

use super::{
    ArrayRoom, Constraint, DriveDemand, HostRoom, Inventory, Placement, Refusal, Request,
    Scheduler, ServerDemand,
};

/// Best fit, local first.
///
/// A server goes where the fewest of its drives are lent; of those hosts to the one where it
/// strands least, as memory without processor time to go with it, or the reverse, is of no use to
/// anybody; of those to the fullest.
///
/// A drive comes before its server, and most servers run where their drive is. So it goes to the
/// fullest host that still has room for a server of the size to be expected: one that has of the
/// fleet's free memory and processor time the share that the drive has of its free bytes. There it
/// goes to the array with the least room.
///
/// If a host does not lend, its drives' servers run there or nowhere, whatever their size turns out to
/// be. So a drive goes to one that does not lend only if it fits on none that does and expects room,
/// and then to the one with the largest share of what is scarcer there.
///
/// A decision reads every host and array once and keeps nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReferenceScheduler;

impl Scheduler for ReferenceScheduler {
    fn place(&self, inventory: &Inventory, request: &Request) -> Result<Placement, Refusal> {
        match request {
            Request::Drive(demand) => place_drive(inventory, demand),
            Request::Server(demand) => place_server(inventory, demand),
        }
    }
}

fn place_drive(inventory: &Inventory, demand: &DriveDemand) -> Result<Placement, Refusal> {
    let fit = inventory.arrays_for(demand)?;
    let free = Free::of(inventory);
    let expected = free.server_with(demand);
    let best = fit.into_iter().min_by_key(|(host, array)| {
        let left = expected.left_on(host);
        let bound = (!host.lends).then(|| Reverse(free.share(host)));
        (demand.crowds(host), left.is_none(), bound, left, array.free, host.host, array.array)
    });
    let found = |(host, array): (&HostRoom, &ArrayRoom)| Placement {
        host: host.host,
        array: Some(array.array),
    };
    best.map(found).ok_or(Refusal::none(Constraint::AcceptingArrays))
}

fn place_server(inventory: &Inventory, demand: &ServerDemand) -> Result<Placement, Refusal> {
    let fit = inventory.hosts_for(demand)?;
    let free = Free::of(inventory);
    let best = fit.into_iter().min_by_key(|host| {
        (demand.lends(host.host), free.stranded(host, demand), host.memory, host.host)
    });
    let found = |host: &HostRoom| Placement { host: host.host, array: None };
    best.map(found).ok_or(Refusal::none(Constraint::AcceptingHosts))
}

/// What is free on all hosts that accept placements. The sums of 2³² hosts fit.
struct Free {
    memory: u128,
    cpu: u128,
    bytes: u128,
}

impl Free {
    fn of(inventory: &Inventory) -> Self {
        let mut free = Self { memory: 0, cpu: 0, bytes: 0 };
        for host in inventory.hosts.iter().filter(|host| host.accepts) {
            free.memory += u128::from(host.memory.0);
            free.cpu += u128::from(host.cpu.0);
            let arrays = host.arrays.iter().filter(|array| array.accepts);
            free.bytes += arrays.map(|array| u128::from(array.free.get())).sum::<u128>();
        }
        free
    }

    /// The server to be expected with a drive.
    fn server_with(&self, drive: &DriveDemand) -> Expected {
        let size = u128::from(drive.size.get());
        let share = |all: u128| (size * all).checked_div(self.bytes).unwrap_or(0);
        Expected { memory: share(self.memory), cpu: share(self.cpu) }
    }

    /// The smaller of the shares that `host` has of the fleet's free memory and processor time, in a
    /// unit that is the same for every host.
    fn share(&self, host: &HostRoom) -> u128 {
        let (memory, cpu) = (u128::from(host.memory.0), u128::from(host.cpu.0));
        (memory * self.cpu).min(cpu * self.memory)
    }

    /// How far apart the shares of the fleet's free memory and processor time are that are left on
    /// `host` beside the server, in a unit that is the same for every host.
    fn stranded(&self, host: &HostRoom, server: &ServerDemand) -> u128 {
        let memory = u128::from(host.memory.0.saturating_sub(server.memory.0));
        let cpu = u128::from(host.cpu.0.saturating_sub(server.cpu.0));
        (memory * self.cpu).abs_diff(cpu * self.memory)
    }
}

struct Expected {
    memory: u128,
    cpu: u128,
}

impl Expected {
    /// The memory left on `host` beside the server, if it fits there.
    fn left_on(&self, host: &HostRoom) -> Option<u128> {
        let _cpu = u128::from(host.cpu.0).checked_sub(self.cpu)?;
        u128::from(host.memory.0).checked_sub(self.memory)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::hypervisor::ServerKind;
    use crate::id::{ArrayId, HostId};
    use crate::scheduler::Tier;
    use crate::units::{Bytes, MebiBytes, MegaHertz};

    /// Of so much free memory and processor time, with an array of 100 GiB.
    fn host(number: u128, memory: u32, cpu: u32) -> HostRoom {
        HostRoom {
            host: HostId::from_uuid(Uuid::from_u128(number)),
            accepts: true,
            lends: true,
            containers: false,
            cpu: MegaHertz(cpu),
            memory: MebiBytes(memory),
            arrays: vec![ArrayRoom {
                array: ArrayId::from_uuid(Uuid::from_u128(number)),
                accepts: true,
                tier: Tier::Disk,
                free: Bytes::from_gib(100),
            }],
        }
    }

    #[test]
    fn stranded_is_what_is_left_of_one_resource_without_its_share_of_the_other() {
        // A host has 2,048 MiB and 4,000 MHz; all that is free is twice that.
        let free = Free { memory: 4_096, cpu: 8_000, bytes: 0 };
        for (memory, cpu, stranded) in [
            (0, 0, 0),
            (1_024, 2_000, 0),
            (2_048, 4_000, 0),
            // 1,024 MiB without any processor time, out of 8,000 MHz.
            (1_024, 4_000, 1_024 * 8_000),
            // 2,000 MHz without any memory, out of 4,096 MiB: as much of what there is.
            (2_048, 2_000, 2_000 * 4_096),
            (1_024, 3_000, 512 * 8_000),
            (1_536, 2_000, 1_000 * 4_096),
        ] {
            let (memory, cpu) = (MebiBytes(memory), MegaHertz(cpu));
            let demand = ServerDemand {
                kind: ServerKind::Vm,
                cpu,
                memory,
                drives_on: vec![],
                avoid: vec![],
            };
            assert_eq!(
                free.stranded(&host(1, 2_048, 4_000), &demand),
                stranded,
                "{memory:?} {cpu:?}"
            );
        }
    }

    #[test]
    fn a_drive_goes_to_the_fullest_that_lends_or_else_to_the_roomiest_of_those_that_do_not() {
        let chosen = |hosts: [(u32, u32, bool); 4]| {
            let hosts = (1..).zip(hosts).map(|(number, (memory, cpu, lends))| HostRoom {
                lends,
                ..host(number, memory, cpu)
            });
            let inventory = Inventory { hosts: hosts.collect() };
            let (size, tier, avoid) = (Bytes::from_gib(10), Tier::Disk, vec![]);
            let request = Request::Drive(DriveDemand { size, tier, avoid });
            let placed = ReferenceScheduler.place(&inventory, &request).unwrap();
            placed.host.as_uuid().as_u128()
        };
        let (full, half, empty) = ((1_000, 1_000), (4_000, 4_000), (8_000, 8_000));
        let of = |lends, (memory, cpu): (u32, u32)| (memory, cpu, lends);
        let all =
            |lends| [of(lends, half), of(lends, full), of(lends, empty), of(lends, (9_000, 500))];
        assert_eq!(chosen(all(true)), 2);
        assert_eq!(chosen(all(false)), 3, "much memory is of no use without processor time");
        assert_eq!(chosen([of(false, empty), of(true, full), of(true, half), of(false, full)]), 2);
        assert_eq!(
            chosen([of(false, half), of(true, (100, 100)), of(false, empty), of(false, full)]),
            3,
            "the one that lends has no room for the server to be expected"
        );
    }
}
