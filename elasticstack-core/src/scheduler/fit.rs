//! Which hosts and arrays a request fits on, and if on none, what binds. Owns every hard
//! constraint; which of those that fit is best is each scheduler's own.
//!
//! Invariant: what is tested one after the other is tested in the order of [`Constraint`], so that
//! the refusal of the host that came nearest is the greatest, and lifting it lets that host on.

use super::{ArrayRoom, Constraint, DriveDemand, HostRoom, Inventory, Refusal, ServerDemand};
use crate::id::HostId;

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
    let out_of_reach = pinned.iter().filter(|home| **home != host.host).count();
    let [wanted, missing] = [demand.drives_on.len(), out_of_reach].map(|n| n as u64);
    short(Constraint::Drives, wanted, wanted - missing)
        .or_else(|| demand.avoid.contains(&host.host).then_some(Refusal::none(Constraint::Avoid)))
        .or_else(|| short(Constraint::Memory, demand.memory.0.into(), host.memory.0.into()))
        .or_else(|| short(Constraint::Cpu, demand.cpu.0.into(), host.cpu.0.into()))
}

fn short(constraint: Constraint, wanted: u64, available: u64) -> Option<Refusal> {
    (available < wanted).then_some(Refusal { constraint, wanted, available })
}
