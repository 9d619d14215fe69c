//! The worlds in which the scheduler kit asks: small, so that everything happens in one of them,
//! and the same in every run.

use std::fmt;

use crate::hypervisor::ServerKind;
use crate::id::{ArrayId, TypedId};
use crate::scheduler::{
    ArrayRoom, DriveDemand, HostRoom, Inventory, Placement, Refusal, Request, Scheduler,
    ServerDemand, Tier,
};
use crate::sim::SimRng;
use crate::units::{Bytes, MebiBytes, MegaHertz};

const WORLDS: usize = 3_000;

/// What there is, and what is asked for.
#[derive(Debug, Clone)]
pub(super) struct World {
    pub(super) inventory: Inventory,
    pub(super) request: Request,
}

impl World {
    pub(super) fn ask(&self, scheduler: &dyn Scheduler) -> Result<Placement, Refusal> {
        scheduler.place(&self.inventory, &self.request)
    }
}

impl fmt::Display for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} on {:?}", self.request, self.inventory)
    }
}

/// Every world, always in the same order.
pub(super) fn all() -> Vec<World> {
    let mut rng = SimRng::new(0x5c_4ed);
    (0..WORLDS).map(|_| world(&mut rng)).collect()
}

/// A host that takes placements and has room for nothing.
pub(super) fn full_host() -> HostRoom {
    HostRoom {
        host: id(ELSEWHERE),
        accepts: true,
        lends: true,
        containers: true,
        cpu: MegaHertz(0),
        memory: MebiBytes(0),
        arrays: Vec::new(),
    }
}

/// An array that takes drives and has room for none.
pub(super) fn full_array(tier: Tier) -> ArrayRoom {
    ArrayRoom { array: id(ELSEWHERE), accepts: true, tier, free: Bytes::ZERO }
}

/// The number of what is in no world.
const ELSEWHERE: u64 = 99;

/// Hosts are numbered from 0 on and the arrays of host `n` from 100 + 10 `n` on. The order of their
/// ids is another.
fn id<K>(number: u64) -> TypedId<K> {
    SimRng::new(number).id()
}

fn world(rng: &mut SimRng) -> World {
    let scale = if rng.one_in(4) { Scale::Endless } else { Scale::Scarce };
    let hosts = (0..rng.below(5)).map(|number| host(rng, number, scale)).collect();
    let request = if rng.one_in(2) {
        Request::Drive(DriveDemand {
            size: scale.bytes(rng),
            tier: tier(rng),
            avoid: some(rng, |rng| array_id(rng.below(5), rng.below(3))),
        })
    } else {
        Request::Server(ServerDemand {
            kind: if rng.one_in(8) { ServerKind::Container } else { ServerKind::Vm },
            cpu: MegaHertz(scale.units(rng)),
            memory: MebiBytes(scale.units(rng)),
            drives_on: some(rng, |rng| id(rng.below(5))),
            avoid: some(rng, |rng| id(rng.below(5))),
        })
    };
    World { inventory: Inventory { hosts }, request }
}

fn host(rng: &mut SimRng, number: u64, scale: Scale) -> HostRoom {
    let arrays = (0..rng.below(4)).map(|array| ArrayRoom {
        array: array_id(number, array),
        accepts: !rng.one_in(4),
        tier: tier(rng),
        free: scale.bytes(rng),
    });
    let arrays = arrays.collect();
    HostRoom {
        host: id(number),
        accepts: !rng.one_in(4),
        lends: !rng.one_in(3),
        containers: !rng.one_in(4),
        cpu: MegaHertz(scale.units(rng)),
        memory: MebiBytes(scale.units(rng)),
        arrays,
    }
}

fn array_id(host: u64, array: u64) -> ArrayId {
    id(100 + 10 * host + array)
}

/// None to three of something.
fn some<T>(rng: &mut SimRng, one: impl Fn(&mut SimRng) -> T) -> Vec<T> {
    (0..rng.below(7).saturating_sub(3)).map(|_| one(rng)).collect()
}

fn tier(rng: &mut SimRng) -> Tier {
    if rng.one_in(4) { Tier::Ssd } else { Tier::Disk }
}

/// What amounts look like: so small that most are equal or just not, or up to the largest there is.
#[derive(Clone, Copy)]
enum Scale {
    Scarce,
    Endless,
}

impl Scale {
    fn units(self, rng: &mut SimRng) -> u32 {
        let quarters = (0..rng.below(5)).map(|_| match self {
            Self::Scarce => 1,
            Self::Endless => u32::MAX / 4 + 1,
        });
        quarters.fold(0, u32::saturating_add)
    }

    fn bytes(self, rng: &mut SimRng) -> Bytes {
        let most = i64::MAX.unsigned_abs();
        let quarter = match self {
            Self::Scarce => 1,
            Self::Endless => most / 4 + 1,
        };
        let bytes = (rng.below(5) * quarter).min(most);
        Bytes::try_from(bytes).unwrap_or_default()
    }
}
