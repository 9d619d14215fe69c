//! The scheduler that ships: drives spread to the emptiest array, servers stay with their drives.

use super::{
    ArrayRoom, Constraint, DriveDemand, HostRoom, Inventory, Placement, Refusal, Request,
    Scheduler, ServerDemand,
};
use crate::units::Bytes;

/// Places a drive on the array with the most free bytes, and a server on the host that holds its
/// drives, or without drives on the host with the most free memory. Ties go to the smaller id.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReferenceScheduler;

impl Scheduler for ReferenceScheduler {
    fn place(&self, inventory: &Inventory, request: &Request) -> Result<Placement, Refusal> {
        let hosts = || inventory.hosts.iter().filter(|host| host.accepts);
        if hosts().next().is_none() {
            return Err(refusal(Constraint::AcceptingHosts, 1, 0));
        }
        match request {
            Request::Drive(demand) => place_drive(hosts(), demand),
            Request::Server(demand) => place_server(hosts(), demand),
        }
    }
}

fn place_drive<'a>(
    hosts: impl Iterator<Item = &'a HostRoom>,
    demand: &DriveDemand,
) -> Result<Placement, Refusal> {
    let emptiest: Option<(&HostRoom, &ArrayRoom)> = hosts
        .flat_map(|host| host.arrays.iter().map(move |array| (host, array)))
        .filter(|(_, array)| !demand.avoid.contains(&array.array))
        .min_by_key(|(host, array)| (std::cmp::Reverse(array.free), host.host, array.array));
    match emptiest {
        Some((host, array)) if array.free >= demand.size => {
            Ok(Placement { host: host.host, array: Some(array.array) })
        }
        nearest => {
            let free = nearest.map_or(Bytes::ZERO, |(_, array)| array.free);
            Err(refusal(Constraint::ArrayBytes, demand.size.get(), free.get()))
        }
    }
}

fn place_server<'a>(
    hosts: impl Iterator<Item = &'a HostRoom>,
    demand: &ServerDemand,
) -> Result<Placement, Refusal> {
    let home = match demand.drives_on.as_slice() {
        [] => None,
        [home] => Some(*home),
        several => {
            let wanted = u64::try_from(several.len()).unwrap_or(u64::MAX);
            return Err(refusal(Constraint::DrivesTogether, wanted, 1));
        }
    };
    let roomiest =
        hosts.filter(|host| home.is_none_or(|home| home == host.host)).min_by_key(|host| {
            (shortage(host, demand).is_some(), std::cmp::Reverse(host.memory), host.host)
        });
    match roomiest {
        None => Err(refusal(Constraint::AcceptingHosts, 1, 0)),
        Some(host) => match shortage(host, demand) {
            None => Ok(Placement { host: host.host, array: None }),
            Some(short) => Err(short),
        },
    }
}

fn shortage(host: &HostRoom, demand: &ServerDemand) -> Option<Refusal> {
    if host.memory < demand.memory {
        let (wanted, available) = (demand.memory.0, host.memory.0);
        Some(refusal(Constraint::Memory, wanted.into(), available.into()))
    } else if host.cpu < demand.cpu {
        let (wanted, available) = (demand.cpu.0, host.cpu.0);
        Some(refusal(Constraint::Cpu, wanted.into(), available.into()))
    } else {
        None
    }
}

const fn refusal(constraint: Constraint, wanted: u64, available: u64) -> Refusal {
    Refusal { constraint, wanted, available }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;
    use crate::id::{ArrayId, HostId};
    use crate::units::{MebiBytes, MegaHertz};

    fn host_id(n: u128) -> HostId {
        HostId::from_uuid(Uuid::from_u128(n))
    }

    fn inventories() -> impl Strategy<Value = Inventory> {
        let host =
            (any::<bool>(), 0_u32..4_000, 0_u32..4_096, proptest::collection::vec(0_u32..64, 0..3));
        proptest::collection::vec(host, 0..4).prop_map(|hosts| Inventory {
            hosts: (0_u128..)
                .zip(hosts)
                .map(|(n, (accepts, cpu, memory, arrays))| HostRoom {
                    host: host_id(n),
                    accepts,
                    cpu: MegaHertz(cpu),
                    memory: MebiBytes(memory),
                    arrays: (n * 8..)
                        .zip(arrays)
                        .map(|(id, gib)| ArrayRoom {
                            array: ArrayId::from_uuid(Uuid::from_u128(id)),
                            free: Bytes::from_gib(gib),
                        })
                        .collect(),
                })
                .collect(),
        })
    }

    proptest! {
        #[test]
        fn a_drive_is_placed_exactly_when_some_array_has_room(inventory in inventories(), gib in 1_u32..80) {
            let size = Bytes::from_gib(gib);
            let request = Request::Drive(DriveDemand { size, avoid: Vec::new() });
            let fits = inventory.hosts.iter().any(|host| {
                host.accepts && host.arrays.iter().any(|array| array.free >= size)
            });
            match ReferenceScheduler.place(&inventory, &request) {
                Ok(placement) => {
                    let host = inventory.hosts.iter().find(|host| host.host == placement.host).unwrap();
                    let array = host.arrays.iter().find(|array| Some(array.array) == placement.array).unwrap();
                    prop_assert!(host.accepts && array.free >= size);
                }
                Err(refusal) => prop_assert!(!fits && refusal.available < refusal.wanted, "{refusal}"),
            }
        }

        #[test]
        fn a_server_is_placed_exactly_when_its_host_has_room(
            inventory in inventories(), cpu in 0_u32..5_000, memory in 0_u32..5_000, home in proptest::option::of(0_u128..4),
        ) {
            let demand = ServerDemand {
                cpu: MegaHertz(cpu), memory: MebiBytes(memory), drives_on: home.map(host_id).into_iter().collect(),
            };
            let fits = |host: &HostRoom| {
                host.accepts && host.cpu.0 >= cpu && host.memory.0 >= memory
                    && home.is_none_or(|home| host_id(home) == host.host)
            };
            match ReferenceScheduler.place(&inventory, &Request::Server(demand)) {
                Ok(placement) => prop_assert!(inventory.hosts.iter().any(|host| host.host == placement.host && fits(host))),
                Err(refusal) => prop_assert!(!inventory.hosts.iter().any(fits), "{refusal}"),
            }
        }
    }
}
