//! Which hosts and arrays a request fits on, and if on none, what binds. Owns every hard
//! constraint; which of those that fit is best is each scheduler's own.
//!
//! Invariant: what is tested one after the other is tested in the order of [`Constraint`], so that
//! the refusal of the host that came nearest is the greatest, and lifting it lets that host on.

use super::{
    ArrayRoom, Constraint, DriveDemand, HostRoom, Inventory, Refusal, Request, ServerDemand,
};
use crate::hypervisor::ServerKind;
use crate::id::{ArrayId, HostId};

impl Inventory {
    /// Every array on which the drive may go, with its host.
    ///
    /// # Errors
    /// If there is none, the refusal that SC-7 of [`Scheduler`](super::Scheduler) asks for.
    pub fn arrays_for(
        &self,
        demand: &DriveDemand,
    ) -> Result<Vec<(&HostRoom, &ArrayRoom)>, Refusal> {
        let mut nearest = NO_HOST;
        let mut fit = Vec::new();
        for host in self.hosts.iter().filter(|host| host.accepts) {
            nearest.or(NO_ARRAY);
            for array in &host.arrays {
                match array_is_short(array, demand) {
                    None => fit.push((host, array)),
                    Some(refusal) => nearest.or(refusal),
                }
            }
        }
        if fit.is_empty() { Err(nearest) } else { Ok(fit) }
    }

    /// Every host on which the server may go.
    ///
    /// # Errors
    /// If there is none, the refusal that SC-7 of [`Scheduler`](super::Scheduler) asks for.
    pub fn hosts_for(&self, demand: &ServerDemand) -> Result<Vec<&HostRoom>, Refusal> {
        let lends = |home| self.hosts.iter().any(|host| host.host == home && host.lends);
        let mut pinned = demand.drives_on.clone();
        pinned.retain(|home| !lends(*home));
        let mut nearest = NO_HOST;
        let mut fit = Vec::new();
        for host in self.hosts.iter().filter(|host| host.accepts) {
            match host_is_short(host, demand, &pinned) {
                None => fit.push(host),
                Some(refusal) => nearest.or(refusal),
            }
        }
        if fit.is_empty() { Err(nearest) } else { Ok(fit) }
    }
}

impl HostRoom {
    /// Whether servers of that kind run here.
    #[must_use]
    pub const fn runs(&self, kind: ServerKind) -> bool {
        match kind {
            ServerKind::Vm => true,
            ServerKind::Container => self.containers,
        }
    }
}

impl Request {
    /// Whether `room` is enough for it, on `array` if it is a drive: all that depends on that host
    /// alone.
    #[must_use]
    pub fn fits_on(&self, room: &HostRoom, array: Option<ArrayId>) -> bool {
        let has_room = match self {
            Self::Drive(demand) => room.arrays.iter().any(|candidate| {
                array == Some(candidate.array) && array_is_short(candidate, demand).is_none()
            }),
            Self::Server(demand) => {
                room.runs(demand.kind) && resources_are_short(room, demand).is_none()
            }
        };
        room.accepts && has_room
    }
}

impl DriveDemand {
    /// Whether the drive shares `host` with an array it avoids, which it does only at worst.
    #[must_use]
    pub fn crowds(&self, host: &HostRoom) -> bool {
        !self.avoid.is_empty() && host.arrays.iter().any(|array| self.avoid.contains(&array.array))
    }
}

impl ServerDemand {
    /// How many of the server's drives are lent to it if it runs on `host`.
    #[must_use]
    pub fn lends(&self, host: HostId) -> usize {
        self.drives_on.iter().filter(|home| **home != host).count()
    }
}

const NO_HOST: Refusal = Refusal::none(Constraint::AcceptingHosts);
const NO_ARRAY: Refusal = Refusal::none(Constraint::AcceptingArrays);

impl Refusal {
    /// One is wanted and there is none.
    pub(super) const fn none(constraint: Constraint) -> Self {
        Self { constraint, wanted: 1, available: 0 }
    }

    /// Becomes `other` if that came nearer.
    fn or(&mut self, other: Self) {
        if (self.constraint, self.available) < (other.constraint, other.available) {
            *self = other;
        }
    }
}

fn array_is_short(array: &ArrayRoom, demand: &DriveDemand) -> Option<Refusal> {
    if !array.accepts {
        return Some(NO_ARRAY);
    }
    if array.tier != demand.tier {
        return Some(Refusal::none(Constraint::Tier));
    }
    if demand.avoid.contains(&array.array) {
        return Some(Refusal::none(Constraint::Avoid));
    }
    short(Constraint::ArrayBytes, demand.size.get(), array.free.get())
}

/// `pinned` are the homes of the drives that can't be lent.
fn host_is_short(host: &HostRoom, demand: &ServerDemand, pinned: &[HostId]) -> Option<Refusal> {
    if !host.runs(demand.kind) {
        return Some(Refusal::none(Constraint::Kind));
    }
    let out_of_reach = pinned.iter().filter(|home| **home != host.host).count();
    let [wanted, missing] = [demand.drives_on.len(), out_of_reach].map(|n| n as u64);
    short(Constraint::Drives, wanted, wanted - missing)
        .or_else(|| demand.avoid.contains(&host.host).then_some(Refusal::none(Constraint::Avoid)))
        .or_else(|| resources_are_short(host, demand))
}

fn resources_are_short(host: &HostRoom, demand: &ServerDemand) -> Option<Refusal> {
    short(Constraint::Memory, demand.memory.0.into(), host.memory.0.into())
        .or_else(|| short(Constraint::Cpu, demand.cpu.0.into(), host.cpu.0.into()))
}

fn short(constraint: Constraint, wanted: u64, available: u64) -> Option<Refusal> {
    (available < wanted).then_some(Refusal { constraint, wanted, available })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::scheduler::Tier;
    use crate::units::{Bytes, MebiBytes, MegaHertz};

    proptest! {
        #[test]
        fn what_fits_on_a_host_is_what_fits_in_a_fleet_of_that_host(
            accepts: bool,
            containers: bool,
            is_container: bool,
            takes: bool,
            tier in 0..2,
            room in (0_u32..3, 0_u32..3, 0_u64..3),
            wanted in (0_u32..3, 0_u32..3, 0_u64..3),
        ) {
            let (host, array) =
                (HostId::from_uuid(Uuid::from_u128(1)), ArrayId::from_uuid(Uuid::from_u128(2)));
            let bytes = |size| Bytes::try_from(size).unwrap_or_default();
            let tier = if tier == 0 { Tier::Disk } else { Tier::Ssd };
            let arrays = vec![ArrayRoom { array, accepts: takes, tier, free: bytes(room.2) }];
            let (cpu, memory) = (MegaHertz(room.0), MebiBytes(room.1));
            let room = HostRoom { host, accepts, lends: false, containers, cpu, memory, arrays };
            let fleet = Inventory { hosts: vec![room.clone()] };
            let (cpu, memory) = (MegaHertz(wanted.0), MebiBytes(wanted.1));
            let kind = if is_container { ServerKind::Container } else { ServerKind::Vm };
            let server = ServerDemand { kind, cpu, memory, drives_on: vec![], avoid: vec![] };
            let fits = fleet.hosts_for(&server).is_ok();
            prop_assert_eq!(Request::Server(server).fits_on(&room, None), fits);
            let drive = DriveDemand { size: bytes(wanted.2), tier: Tier::Disk, avoid: vec![] };
            let fits = fleet.arrays_for(&drive).is_ok();
            prop_assert_eq!(Request::Drive(drive.clone()).fits_on(&room, Some(array)), fits);
            let other = ArrayId::from_uuid(Uuid::from_u128(3));
            prop_assert!(!Request::Drive(drive).fits_on(&room, Some(other)));
        }
    }
}
