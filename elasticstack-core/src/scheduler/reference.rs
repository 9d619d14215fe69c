//! The scheduler that ships. Owns the preference among what fits: few hosts that are well used
//! before many that are half empty, so that the next large server still finds its room.

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
    let expected = Free::of(inventory).server_with(demand);
    let best = fit.into_iter().min_by_key(|(host, array)| {
        let left = expected.left_on(host);
        (demand.crowds(host), left.is_none(), left, array.free, host.host, array.array)
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
