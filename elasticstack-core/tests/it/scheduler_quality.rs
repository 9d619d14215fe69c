//! How well the reference scheduler places, beside the exact optimum of small instances.
//!
//! Customers come one after the other, each with a drive and a server that uses it; the scheduler
//! knows nothing of those to come and turns nobody away who fits. The optimum knows them all
//! beforehand.

use std::cmp::Reverse;

use elasticstack_core::hypervisor::ServerKind;
use elasticstack_core::prelude::*;
use elasticstack_core::scheduler::{
    ArrayRoom, DriveDemand, HostRoom, Inventory, Placement, ReferenceScheduler, Refusal, Request,
    Scheduler, ServerDemand, Tier,
};
use elasticstack_core::sim::SimRng;

use crate::optimum::{Optimum, Quality, stranded};

/// How many customers are served is compared on these.
const INSTANCES: u64 = 1_000;
const LARGE: Shape = Shape { more_hosts: 3, customers: 14, lends: Lends::All };

/// So few that all placements of all sets of customers can be tried: lends and stranded memory are
/// compared on these.
const SMALL: Shape = Shape { more_hosts: 2, customers: 10, lends: Lends::Most };

/// How large an instance is at most.
#[derive(Clone, Copy)]
struct Shape {
    /// Beside two; less than this.
    more_hosts: u64,
    customers: usize,
    lends: Lends,
}

/// Which hosts lend.
#[derive(Debug, Clone, Copy)]
enum Lends {
    All,
    /// Two of three.
    Most,
    None,
}

/// A drive and the server that uses it. The ones to avoid are earlier customers, by number.
#[derive(Clone, Copy)]
pub(crate) struct Customer {
    pub(crate) size: Bytes,
    pub(crate) tier: Tier,
    pub(crate) memory: MebiBytes,
    pub(crate) cpu: MegaHertz,
    pub(crate) avoids_server: Option<usize>,
    pub(crate) avoids_drive: Option<usize>,
}

impl Customer {
    /// Memory and processor time.
    pub(crate) fn server(&self) -> [u64; 2] {
        [self.memory.0.into(), self.cpu.0.into()]
    }

    /// What it wants of disks, of flash, of memory and of processor time.
    fn amounts(&self) -> [u64; 4] {
        let [memory, cpu] = self.server();
        match self.tier {
            Tier::Disk => [self.size.get(), 0, memory, cpu],
            Tier::Ssd => [0, self.size.get(), memory, cpu],
        }
    }
}

pub(crate) struct Instance {
    pub(crate) inventory: Inventory,
    pub(crate) customers: Vec<Customer>,
}

fn below(rng: &mut SimRng, limit: u32) -> u32 {
    u32::try_from(rng.below(limit.into())).unwrap()
}

impl Instance {
    /// Hosts of one or two arrays each, and customers who together want 70 to 90 % of what is
    /// scarcest of all that accepts anything. One host in six accepts nothing, nor does one array
    /// in eight; one array in three is of flash. One customer in five has a server to avoid, and one
    /// in five a drive.
    fn new(seed: u64, shape: Shape) -> Self {
        let mut rng = SimRng::new(seed);
        let mut hosts = Vec::new();
        for number in 0..2 + rng.below(shape.more_hosts) {
            let arrays = (0..1 + rng.below(2)).map(|_| ArrayRoom {
                array: rng.id(),
                accepts: number == 0 || !rng.one_in(8),
                tier: if rng.one_in(3) { Tier::Ssd } else { Tier::Disk },
                free: Bytes::from_gib(200 + 100 * below(&mut rng, 5)),
            });
            let arrays = arrays.collect();
            let memory = MebiBytes(8_192 * (1 + below(&mut rng, 3)));
            let cpu = MegaHertz(8_000 + 4_000 * below(&mut rng, 5));
            let accepts = number == 0 || !rng.one_in(6);
            let two_in_three = !rng.one_in(3);
            let lends = match shape.lends {
                Lends::All => true,
                Lends::Most => two_in_three,
                Lends::None => false,
            };
            hosts.push(HostRoom {
                host: rng.id(),
                accepts,
                lends,
                containers: false,
                cpu,
                memory,
                arrays,
            });
        }
        let inventory = Inventory { hosts };
        let load = 70 + rng.below(21);
        let mut left = [0_u64; 4];
        let mut tiers = Vec::new();
        for host in inventory.hosts.iter().filter(|host| host.accepts) {
            left[2] += u64::from(host.memory.0);
            left[3] += u64::from(host.cpu.0);
            for array in host.arrays.iter().filter(|array| array.accepts) {
                left[usize::from(array.tier == Tier::Ssd)] += array.free.get();
                tiers.push(array.tier);
            }
        }
        left = left.map(|total| total / 100 * load);
        let mut customers = Vec::new();
        while customers.len() < shape.customers {
            let customer = customer(&mut rng, &tiers, customers.len());
            let amounts = customer.amounts();
            if (0..4).any(|k| amounts[k] > left[k]) {
                break;
            }
            left = std::array::from_fn(|k| left[k] - amounts[k]);
            customers.push(customer);
        }
        Self { inventory, customers }
    }

    /// What the scheduler makes of it. A customer whose server does not fit gives its drive back.
    fn served_by(&self, scheduler: &dyn Scheduler) -> Quality {
        let mut room = self.inventory.clone();
        let mut placed = Vec::new();
        for customer in &self.customers {
            placed.push(serve(scheduler, &mut room, customer, &placed));
        }
        let served = placed.iter().flatten();
        let [before, left] = [&self.inventory, &room].map(|inventory| {
            let hosts = inventory.hosts.iter().filter(|host| host.accepts);
            hosts.map(|host| [host.memory.0.into(), host.cpu.0.into()]).collect::<Vec<_>>()
        });
        let all = [0, 1].map(|k| before.iter().map(|host| host[k]).sum());
        Quality {
            served: served.clone().count(),
            lends: served.filter(|served| served.is_lent).count(),
            stranded: stranded(all, left.into_iter()),
        }
    }
}

fn customer(rng: &mut SimRng, tiers: &[Tier], earlier: usize) -> Customer {
    let avoided = |rng: &mut SimRng| {
        let one = earlier > 0 && rng.one_in(5);
        one.then(|| usize::try_from(rng.below(earlier as u64)).unwrap())
    };
    let memory = 512 << below(rng, 5);
    Customer {
        size: Bytes::from_gib(10 * (1 + below(rng, 20))),
        tier: tiers[usize::try_from(rng.below(tiers.len() as u64)).unwrap()],
        memory: MebiBytes(memory),
        cpu: MegaHertz(memory / 2 + 500 * (1 + below(rng, 9))),
        avoids_server: avoided(rng),
        avoids_drive: avoided(rng),
    }
}

/// Where a customer's drive and its server are.
#[derive(Clone, Copy)]
struct Served {
    array: ArrayId,
    host: HostId,
    is_lent: bool,
}

fn serve(
    scheduler: &dyn Scheduler,
    room: &mut Inventory,
    customer: &Customer,
    placed: &[Option<Served>],
) -> Option<Served> {
    let Customer { size, tier, memory, cpu, avoids_server, avoids_drive } = *customer;
    let of = |earlier: Option<usize>| placed[earlier?];
    let avoid = of(avoids_drive).map(|other| other.array).into_iter().collect();
    let demand = DriveDemand { size, tier, avoid };
    let drive = scheduler.place(room, &Request::Drive(demand)).ok()?;
    let avoid = of(avoids_server).map(|other| other.host).into_iter().collect();
    let demand =
        ServerDemand { kind: ServerKind::Vm, cpu, memory, drives_on: vec![drive.host], avoid };
    let host = scheduler.place(room, &Request::Server(demand)).ok()?.host;
    let taken = room.hosts.iter_mut().find(|room| room.host == host).unwrap();
    taken.memory.0 -= memory.0;
    taken.cpu.0 -= cpu.0;
    let mut arrays = room.hosts.iter_mut().flat_map(|host| &mut host.arrays);
    let taken = arrays.find(|room| Some(room.array) == drive.array).unwrap();
    taken.free = Bytes::try_from(taken.free.get() - size.get()).unwrap();
    Some(Served { array: taken.array, host, is_lent: drive.host != host })
}

/// What suggests itself first: every drive to the emptiest array, every server to its drive's host
/// or else to the emptiest.
struct Emptiest;

impl Scheduler for Emptiest {
    fn place(&self, inventory: &Inventory, request: &Request) -> Result<Placement, Refusal> {
        match request {
            Request::Drive(demand) => {
                let fit = inventory.arrays_for(demand)?.into_iter();
                let (host, array) = fit.max_by_key(|(_, array)| array.free).unwrap();
                Ok(Placement { host: host.host, array: Some(array.array) })
            }
            Request::Server(demand) => {
                let fit = inventory.hosts_for(demand)?.into_iter();
                let key = |host: &&HostRoom| (Reverse(demand.lends(host.host)), host.memory);
                Ok(Placement { host: fit.max_by_key(key).unwrap().host, array: None })
            }
            other => panic!("nobody asks for {other:?}"),
        }
    }
}

/// Where a host does not lend, a drive says where its server runs before anything is known of that:
/// whoever places it guesses, and the optimum does not.
#[test]
fn the_reference_scheduler_serves_97_percent_of_the_exact_optimum_and_the_emptiest_host_fewer() {
    for (lends, least) in [(Lends::All, 97), (Lends::Most, 95), (Lends::None, 90)] {
        let (mut optimum, mut ours, mut emptiest) = (0, 0, 0);
        for seed in 0..INSTANCES {
            let instance = Instance::new(seed, Shape { lends, ..LARGE });
            optimum += Optimum::of(&instance).served();
            ours += instance.served_by(&ReferenceScheduler).served;
            emptiest += instance.served_by(&Emptiest).served;
        }
        println!(
            "{lends:?} lend: of {optimum} servers {ours} are placed, {emptiest} if the emptiest host \
             is taken"
        );
        assert!(ours * 100 >= optimum * least, "{ours} of {optimum}");
        assert!(ours <= optimum, "{ours} of {optimum}: the optimum is none");
        assert!(emptiest * 100 < optimum * least, "any order does here: {emptiest} of {optimum}");
    }
}

/// Each is compared where all before it is optimal. Lends are decided by the drives, which come first,
/// and what is left stranded by who comes after: the optimum knows both.
#[test]
fn where_the_most_are_served_lends_are_few_and_where_those_are_fewest_little_memory_is_stranded() {
    let (mut most_served, mut lends, mut fewest) = (0, 0, 0);
    let (mut fewest_lent, mut stranded, mut least) = (0, 0, 0);
    for seed in 0..INSTANCES {
        let instance = Instance::new(seed, SMALL);
        let (ours, best) =
            (instance.served_by(&ReferenceScheduler), Optimum::of(&instance).quality());
        assert!(best.rank() <= ours.rank(), "{seed}: {ours:?} is better than {best:?}");
        if ours.served == best.served {
            most_served += 1;
            lends += ours.lends;
            fewest += best.lends;
            if ours.lends == best.lends {
                fewest_lent += 1;
                stranded += ours.stranded;
                least += best.stranded;
            }
        }
    }
    println!(
        "in {most_served} of {INSTANCES} instances the most are served: {lends} drives are lent, \
         {fewest} at least; in {fewest_lent} of these the fewest are: {stranded} MiB are stranded, \
         {least} at least"
    );
    assert!(lends <= fewest * 4, "{lends} are lent, {fewest} at least");
    assert!(stranded * 100 <= least * 110, "{stranded} MiB are stranded, {least} at least");
}

/// Two hosts of one array each, all alike.
fn two_hosts() -> Instance {
    let mut instance = Instance::new(0, SMALL);
    instance.inventory.hosts.truncate(2);
    for host in &mut instance.inventory.hosts {
        (host.accepts, host.lends) = (true, true);
        (host.memory, host.cpu) = (MebiBytes(1_024), MegaHertz(2_000));
        host.arrays.truncate(1);
        host.arrays[0].accepts = true;
        (host.arrays[0].tier, host.arrays[0].free) = (Tier::Disk, Bytes::from_gib(100));
    }
    instance
}

/// One of which each of those hosts has room for two.
const SMALL_ONE: Customer = Customer {
    size: Bytes::from_gib(10),
    tier: Tier::Disk,
    memory: MebiBytes(512),
    cpu: MegaHertz(1_000),
    avoids_server: None,
    avoids_drive: None,
};

#[test]
fn the_optimum_turns_one_large_customer_away_for_two_small_ones_and_keeps_apart_what_avoids() {
    let mut instance = two_hosts();
    let small = SMALL_ONE;
    let large = Customer { memory: MebiBytes(1_024), ..small };
    instance.customers = vec![large, large, small, small];
    let ours = instance.served_by(&ReferenceScheduler).served;
    assert_eq!((ours, Optimum::of(&instance).served()), (2, 3));
    let third = Customer { avoids_drive: Some(0), ..small };
    let fourth = Customer { avoids_drive: Some(1), size: Bytes::from_gib(95), ..small };
    instance.customers = vec![small, small, third, fourth];
    assert_eq!(Optimum::of(&instance).served(), 3);
}

#[test]
fn the_optimum_lends_only_what_it_must_and_may_and_strands_the_least() {
    let best = |instance: &Instance| {
        let Quality { served, lends, stranded } = Optimum::of(instance).quality();
        assert_eq!(served, Optimum::of(instance).served());
        (served, lends, stranded)
    };
    let mut instance = two_hosts();
    instance.customers = vec![SMALL_ONE; 4];
    assert_eq!(best(&instance), (4, 0, 0));
    instance.inventory.hosts[0].arrays[0].free = Bytes::ZERO;
    assert_eq!(best(&instance), (4, 2, 0), "two lie on the other host");
    instance.inventory.hosts[1].lends = false;
    assert_eq!(best(&instance), (2, 0, 0), "which does not lend");
    instance.inventory.hosts[1].accepts = false;
    assert_eq!(best(&instance), (0, 0, 0), "and takes nothing");

    let mut instance = two_hosts();
    let flash = Customer { tier: Tier::Ssd, ..SMALL_ONE };
    instance.customers = vec![SMALL_ONE, flash];
    assert_eq!(best(&instance), (1, 0, 0), "there is no flash");
    instance.inventory.hosts[1].arrays[0].tier = Tier::Ssd;
    assert_eq!(best(&instance), (2, 0, 0));
    instance.inventory.hosts[1].arrays[0].accepts = false;
    assert_eq!(best(&instance), (1, 0, 0), "none that takes anything");

    let mut instance = two_hosts();
    let hungry = Customer { cpu: MegaHertz(2_000), ..SMALL_ONE };
    instance.customers = vec![hungry];
    assert_eq!(best(&instance), (1, 0, 512), "half of a host is left without processor time");
}
