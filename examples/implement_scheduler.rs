//! A scheduler of your own in some hundred lines, tested by the conformance kit.
//!
//! This one keeps its hosts equally busy: everything goes where most is free, so that no guest has
//! more neighbours than it must. The core finds what fits and names what binds when nothing does;
//! what is left to write is which of those that fit is best. Copy it, change what it prefers, and
//! run the kit: `cargo test -p elasticstack-examples --bin implement_scheduler`.

use std::cmp::Reverse;

use anyhow::{Context as _, Result, bail};
use elasticstack_core::hypervisor::ServerKind;
use elasticstack_core::prelude::*;
use elasticstack_core::scheduler::{
    ArrayRoom, Constraint, DriveDemand, HostRoom, Inventory, Placement, Refusal, Request,
    Scheduler, ServerDemand, Tier,
};
use elasticstack_core::sim::SimRng;

/// Takes what has most room.
struct Spread;

impl Scheduler for Spread {
    fn place(&self, inventory: &Inventory, request: &Request) -> Result<Placement, Refusal> {
        let best = match request {
            Request::Drive(demand) => emptiest_array(inventory, demand)?,
            Request::Server(demand) => emptiest_host(inventory, demand)?,
            // A kind of request that is newer than this scheduler.
            _ => None,
        };
        best.ok_or(Refusal { constraint: Constraint::AcceptingHosts, wanted: 1, available: 0 })
    }
}

/// SC-4 comes first: another host than that of an avoided drive, if there is one. The id comes last,
/// so that the order of the inventory never decides (SC-8).
fn emptiest_array(
    inventory: &Inventory,
    demand: &DriveDemand,
) -> Result<Option<Placement>, Refusal> {
    let fit = inventory.arrays_for(demand)?;
    let best = fit.into_iter().min_by_key(|(host, array)| {
        (demand.crowds(host), Reverse(array.free), host.host, array.array)
    });
    Ok(best.map(|(host, array)| Placement { host: host.host, array: Some(array.array) }))
}

/// SC-5 comes first: the fewer drives are lent, the better.
fn emptiest_host(
    inventory: &Inventory,
    demand: &ServerDemand,
) -> Result<Option<Placement>, Refusal> {
    let fit = inventory.hosts_for(demand)?;
    let best = fit.into_iter().min_by_key(|host| {
        (demand.lends(host.host), Reverse(host.memory), Reverse(host.cpu), host.host)
    });
    Ok(best.map(|host| Placement { host: host.host, array: None }))
}

/// Takes from the inventory what was placed, as a control plane does in its database.
fn take(inventory: &mut Inventory, request: &Request, placement: Placement) -> Result<()> {
    let mut hosts = inventory.hosts.iter_mut();
    let host = hosts.find(|host| host.host == placement.host).context("a host of no inventory")?;
    match request {
        Request::Drive(demand) => {
            let mut arrays = host.arrays.iter_mut();
            let array = arrays.find(|array| Some(array.array) == placement.array);
            let array = array.context("an array of no host")?;
            array.free = array.free.saturating_sub(demand.size);
        }
        Request::Server(demand) => {
            host.memory.0 = host.memory.0.saturating_sub(demand.memory.0);
            host.cpu.0 = host.cpu.0.saturating_sub(demand.cpu.0);
        }
        other => bail!("nothing is known to take for {other:?}"),
    }
    Ok(())
}

/// Three equal hosts of one array.
fn inventory() -> Inventory {
    let mut rng = SimRng::new(1);
    let hosts = (0..3).map(|_| HostRoom {
        host: rng.id(),
        accepts: true,
        lends: true,
        containers: false,
        cpu: MegaHertz(20_000),
        memory: MebiBytes(16_384),
        arrays: vec![ArrayRoom {
            array: rng.id(),
            accepts: true,
            tier: Tier::Disk,
            free: Bytes::from_gib(500),
        }],
    });
    Inventory { hosts: hosts.collect() }
}

/// Places servers of one size, each with its drive, until one is refused: tells where each went, and
/// what bound in the end.
fn fill(scheduler: &dyn Scheduler, mut inventory: Inventory) -> Result<(Vec<HostId>, Refusal)> {
    let mut servers = Vec::new();
    loop {
        let (size, tier, avoid) = (Bytes::from_gib(40), Tier::Disk, Vec::new());
        let request = Request::Drive(DriveDemand { size, tier, avoid });
        let drive = match scheduler.place(&inventory, &request) {
            Ok(placement) => placement,
            Err(refusal) => return Ok((servers, refusal)),
        };
        take(&mut inventory, &request, drive)?;
        let (cpu, memory) = (MegaHertz(2_000), MebiBytes(4_096));
        let (drives_on, avoid) = (vec![drive.host], Vec::new());
        let request =
            Request::Server(ServerDemand { kind: ServerKind::Vm, cpu, memory, drives_on, avoid });
        match scheduler.place(&inventory, &request) {
            Ok(server) => {
                take(&mut inventory, &request, server)?;
                servers.push(server.host);
            }
            Err(refusal) => return Ok((servers, refusal)),
        }
    }
}

fn main() -> Result<()> {
    let (servers, refusal) = fill(&Spread, inventory())?;
    for (number, host) in servers.iter().enumerate() {
        println!("server {number} runs on {host}");
    }
    println!("one more: {refusal}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    elasticstack_core::scheduler_conformance! { spread, || Spread }

    #[test]
    fn it_takes_the_hosts_in_turn_and_says_what_binds_in_the_end() {
        let (servers, refusal) = fill(&Spread, inventory()).unwrap();
        assert_eq!(servers.len(), 12, "four on each of three hosts");
        for round in servers.chunks(3) {
            assert_eq!(BTreeSet::from_iter(round).len(), 3, "each host once in {round:?}");
        }
        let bound = Refusal { constraint: Constraint::Memory, wanted: 4_096, available: 0 };
        assert_eq!(refusal, bound);
    }
}
