//! The best that can be done with a small instance of placement, found by exhaustive search.
//!
//! Best is, in this order: the most customers are served under all hard constraints, the fewest
//! drives are lent, the least memory is stranded. The search knows all customers beforehand and turns
//! away whom it likes, which nobody can do who places one after the other.

use std::cmp::Reverse;

use elasticstack_core::scheduler::Tier;

use crate::scheduler_quality::{Customer, Instance};

/// How good a placement of all customers is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Quality {
    pub(crate) served: usize,
    /// Drives that are not on the host of their server.
    pub(crate) lends: usize,
    /// Memory in MiB that is left without processor time to go with it.
    pub(crate) stranded: u64,
}

impl Quality {
    /// Of two, the better one's is the smaller.
    pub(crate) fn rank(&self) -> (Reverse<usize>, usize, u64) {
        (Reverse(self.served), self.lends, self.stranded)
    }
}

/// The memory in MiB that no server will use for want of processor time: what is left on each host
/// beyond the share of all memory that its processor time is of all of it. Each is memory and
/// processor time.
pub(crate) fn stranded(all: [u64; 2], left: impl Iterator<Item = [u64; 2]>) -> u64 {
    let [all_memory, all_cpu] = all;
    left.map(|[memory, cpu]| memory.saturating_sub(cpu * all_memory / all_cpu)).sum()
}

/// What can be had of an instance.
pub(crate) struct Optimum<'a> {
    customers: &'a [Customer],
    /// Memory and processor time of each host that accepts.
    hosts: Vec<[u64; 2]>,
    lends: Vec<bool>,
    /// Those that accept, of those hosts.
    arrays: Vec<Array>,
    /// Their bytes by host and tier.
    bytes: Vec<[u64; 2]>,
}

struct Array {
    host: usize,
    tier: Tier,
    free: u64,
}

impl<'a> Optimum<'a> {
    pub(crate) fn of(instance: &'a Instance) -> Self {
        let (mut hosts, mut lends) = (Vec::new(), Vec::new());
        let (mut arrays, mut bytes) = (Vec::new(), Vec::new());
        for (host, room) in instance.inventory.hosts.iter().filter(|room| room.accepts).enumerate()
        {
            hosts.push([room.memory.0.into(), room.cpu.0.into()]);
            lends.push(room.lends);
            bytes.push([0; 2]);
            for array in room.arrays.iter().filter(|array| array.accepts) {
                let (tier, free) = (array.tier, array.free.get());
                arrays.push(Array { host, tier, free });
                bytes[host][shelf(tier)] += free;
            }
        }
        Self { customers: &instance.customers, hosts, lends, arrays, bytes }
    }

    /// How many customers can be served together.
    pub(crate) fn served(&self) -> usize {
        let served = |set: &u32| Search::new(self, *set, Until::Any).run(None).is_some();
        self.sets().into_iter().find(served).unwrap().count_ones() as usize
    }

    /// The best of all placements.
    pub(crate) fn quality(&self) -> Quality {
        let mut best: Option<Quality> = None;
        for set in self.sets() {
            if best.is_some_and(|best| best.served > set.count_ones() as usize) {
                break;
            }
            best = Search::new(self, set, Until::Best).run(best);
        }
        best.unwrap()
    }

    /// All sets of customers, the largest first.
    fn sets(&self) -> Vec<u32> {
        let mut sets: Vec<u32> = (0..1 << self.customers.len()).collect();
        sets.sort_by_key(|set| Reverse(set.count_ones()));
        sets
    }
}

const fn shelf(tier: Tier) -> usize {
    match tier {
        Tier::Disk => 0,
        Tier::Ssd => 1,
    }
}

/// When a search is over.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    Any,
    Best,
}

/// The search for a placement of one set of customers: the servers first, and whenever all of them
/// have a host, their drives.
struct Search<'a> {
    of: &'a Optimum<'a>,
    until: Until,
    /// The numbers of its customers, those with the largest servers first.
    servers: Vec<usize>,
    /// The same, those with the largest drives first.
    drives: Vec<usize>,
    /// What is left of each host.
    left: Vec<[u64; 2]>,
    /// The bytes that the servers on each host use, by tier.
    wanted: Vec<[u64; 2]>,
    /// The host of each customer's server.
    hosts: Vec<Option<usize>>,
    best: Option<Quality>,
}

impl<'a> Search<'a> {
    fn new(of: &'a Optimum<'a>, set: u32, until: Until) -> Self {
        let mut servers: Vec<_> = (0..of.customers.len()).filter(|n| set & (1 << n) != 0).collect();
        let mut drives = servers.clone();
        servers.sort_by_key(|n| Reverse(of.customers[*n].server()));
        drives.sort_by_key(|n| Reverse(of.customers[*n].size));
        let (left, wanted) = (of.hosts.clone(), vec![[0; 2]; of.hosts.len()]);
        let hosts = vec![None; of.customers.len()];
        Self { of, until, servers, drives, left, wanted, hosts, best: None }
    }

    /// The best placement that there is, if one is better than `best`; else `best`.
    fn run(mut self, best: Option<Quality>) -> Option<Quality> {
        self.best = best;
        let sum = |all: &[[u64; 2]], k: usize| all.iter().map(|one| one[k]).sum::<u64>();
        let servers: Vec<_> = self.servers.iter().map(|n| self.of.customers[*n].server()).collect();
        // Before any server has a host every array is as good as on it.
        if (0..2).all(|k| sum(&servers, k) <= sum(&self.left, k)) && self.drives_fit(usize::MAX) {
            self.rest_of_servers(0);
        }
        self.best
    }

    /// Tries every host for each of the servers from `next` on; whether the search is over.
    fn rest_of_servers(&mut self, next: usize) -> bool {
        let Some(&n) = self.servers.get(next) else { return self.servers_are_placed() };
        let customer = &self.of.customers[n];
        let [memory, cpu] = customer.server();
        let tier = shelf(customer.tier);
        for host in 0..self.left.len() {
            let before = self.left[host];
            let neighbours = self.servers[..next].iter().filter(|n| self.hosts[**n] == Some(host));
            if before[0] < memory || before[1] < cpu || self.is_avoided(n, neighbours, server) {
                continue;
            }
            self.left[host] = [before[0] - memory, before[1] - cpu];
            self.wanted[host][tier] += customer.size.get();
            self.hosts[n] = Some(host);
            let is_over = self.bytes_may_fit() && self.rest_of_servers(next + 1);
            self.hosts[n] = None;
            self.wanted[host][tier] -= customer.size.get();
            self.left[host] = before;
            if is_over {
                return true;
            }
        }
        false
    }

    /// Whether the bytes that are wanted so far fit, as far as sums tell: what is wanted on a host that
    /// does not lend lies there or is lent by others.
    fn bytes_may_fit(&self) -> bool {
        (0..2).all(|tier| {
            let (mut elsewhere, mut lent) = (0, 0);
            for (host, wanted) in self.wanted.iter().enumerate() {
                let own = self.of.bytes[host][tier];
                if self.of.lends[host] {
                    elsewhere += wanted[tier];
                    lent += own;
                } else {
                    elsewhere += wanted[tier].saturating_sub(own);
                }
            }
            elsewhere <= lent
        })
    }

    /// Looks for the fewest lends with which the drives fit too; whether the search is over.
    fn servers_are_placed(&mut self) -> bool {
        let served = self.servers.len();
        let all = [0, 1].map(|k| self.of.hosts.iter().map(|host| host[k]).sum());
        let stranded = stranded(all, self.left.iter().copied());
        let fewest = match self.until {
            Until::Any => served,
            Until::Best => 0,
        };
        for lends in fewest..=served {
            let found = Quality { served, lends, stranded };
            if self.best.is_some_and(|best| best.rank() <= found.rank()) {
                break;
            }
            if self.drives_fit(lends) {
                self.best = Some(found);
                return self.until == Until::Any;
            }
        }
        false
    }

    fn drives_fit(&self, most_lends: usize) -> bool {
        let mut free: Vec<_> = self.of.arrays.iter().map(|array| array.free).collect();
        self.rest_of_drives(&mut free, &mut Vec::new(), most_lends)
    }

    /// Whether the drives after those in `placed`, which tells their arrays, fit into what is free.
    fn rest_of_drives(&self, free: &mut [u64], placed: &mut Vec<usize>, lends: usize) -> bool {
        let Some(&n) = self.drives.get(placed.len()) else { return true };
        let customer = &self.of.customers[n];
        for (at, array) in self.of.arrays.iter().enumerate() {
            let is_lent = self.hosts[n].is_some_and(|host| host != array.host);
            let neighbours = self.drives.iter().zip(&*placed).filter(|(_, array)| **array == at);
            if array.tier != customer.tier
                || free[at] < customer.size.get()
                || is_lent && (lends == 0 || !self.of.lends[array.host])
                || self.is_avoided(n, neighbours.map(|(n, _)| n), drive)
            {
                continue;
            }
            free[at] -= customer.size.get();
            placed.push(at);
            let fit = self.rest_of_drives(free, placed, lends - usize::from(is_lent));
            placed.pop();
            free[at] += customer.size.get();
            if fit {
                return true;
            }
        }
        false
    }

    /// Whether `n` avoids one of its neighbours, or one of them avoids `n`.
    fn is_avoided<'n>(
        &self,
        n: usize,
        mut neighbours: impl Iterator<Item = &'n usize>,
        avoids: fn(&Customer) -> Option<usize>,
    ) -> bool {
        let avoids = |one: usize, other: usize| avoids(&self.of.customers[one]) == Some(other);
        neighbours.any(|other| avoids(n, *other) || avoids(*other, n))
    }
}

fn server(customer: &Customer) -> Option<usize> {
    customer.avoids_server
}

fn drive(customer: &Customer) -> Option<usize> {
    customer.avoids_drive
}
