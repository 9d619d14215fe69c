//! The words of placement.

use std::fmt;

use crate::hypervisor::ServerKind;
use crate::id::{ArrayId, HostId};
use crate::units::{Bytes, MebiBytes, MegaHertz};

/// All free room, by host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The hosts, in any order, each once.
    pub hosts: Vec<HostRoom>,
}

/// The free room of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoom {
    /// Which host.
    pub host: HostId,
    /// Whether new things may be placed on it.
    pub accepts: bool,
    /// Whether servers on other hosts can use its drives.
    pub lends: bool,
    /// Whether it runs containers.
    pub containers: bool,
    /// Processor time not promised to any server.
    pub cpu: MegaHertz,
    /// Memory not promised to any server.
    pub memory: MebiBytes,
    /// Its arrays, in any order, each once.
    pub arrays: Vec<ArrayRoom>,
}

/// The free room of one array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayRoom {
    /// Which array.
    pub array: ArrayId,
    /// Whether new drives may be placed on it: one that has failed takes none.
    pub accepts: bool,
    /// What it is made of.
    pub tier: Tier,
    /// Bytes not promised to any drive.
    pub free: Bytes,
}

/// What an array is made of. Exhaustive: these are the tiers that customers can name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tier {
    /// Disks that turn, or nothing in particular.
    Disk,
    /// Flash.
    Ssd,
}

/// What is to be placed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Request {
    /// A new drive.
    Drive(DriveDemand),
    /// A server that is about to run.
    Server(ServerDemand),
}

/// What a new drive needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveDemand {
    /// Its size.
    pub size: Bytes,
    /// What its array is to be made of.
    pub tier: Tier,
    /// Arrays it must not share: those of the drives it avoids.
    pub avoid: Vec<ArrayId>,
}

/// What a server needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerDemand {
    /// What it is.
    pub kind: ServerKind,
    /// Its processor time.
    pub cpu: MegaHertz,
    /// Its memory.
    pub memory: MebiBytes,
    /// The host of each of its drives: one that holds two stands here twice.
    pub drives_on: Vec<HostId>,
    /// Hosts it must not share: those of the servers and of the drives it avoids.
    pub avoid: Vec<HostId>,
}

/// Where something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The host.
    pub host: HostId,
    /// The array, for a drive.
    pub array: Option<ArrayId>,
}

/// Why nothing fits: what binds on the host that came nearest, and how far off that was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{constraint}: asked for {wanted}, the most to be had is {available}")]
pub struct Refusal {
    /// What was short.
    pub constraint: Constraint,
    /// How much was asked for, in the constraint's unit.
    pub wanted: u64,
    /// The most that any candidate had; less than `wanted`.
    pub available: u64,
}

/// What can be short, in the order in which it is looked at: whoever fails a later one came nearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Constraint {
    /// No host accepts placements. Counts hosts.
    AcceptingHosts,
    /// No array accepts drives. Counts arrays.
    AcceptingArrays,
    /// No array is of the tier asked for. Counts arrays.
    Tier,
    /// No host runs servers of that kind. Counts hosts.
    Kind,
    /// Not every drive of a server is on one host or can be lent to it. Counts drives.
    Drives,
    /// Every host or array left is one to avoid. Counts hosts or arrays.
    Avoid,
    /// Bytes on one array.
    ArrayBytes,
    /// Memory on one host, in MiB.
    Memory,
    /// Processor time on one host, in MHz.
    Cpu,
}

impl fmt::Display for Constraint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::AcceptingHosts => "no host accepts new placements",
            Self::AcceptingArrays => "no array accepts new drives",
            Self::Tier => "no array of that tier accepts new drives",
            Self::Kind => "no host that accepts new placements runs containers",
            Self::Drives => "the drives can't all be used on one host that accepts new placements",
            Self::Avoid => "nothing is left beside what is to be avoided",
            Self::ArrayBytes => "not enough room on an array (bytes)",
            Self::Memory => "not enough memory on a host (MiB)",
            Self::Cpu => "not enough processor time on a host (MHz)",
        })
    }
}
