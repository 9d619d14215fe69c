//! The words of placement.

use std::fmt;

use crate::id::{ArrayId, HostId};
use crate::units::{Bytes, MebiBytes, MegaHertz};

/// All free room, by host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Inventory {
    /// The hosts, in any order.
    pub hosts: Vec<HostRoom>,
}

/// The free room of one host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRoom {
    /// Which host.
    pub host: HostId,
    /// Whether new things may be placed on it.
    pub accepts: bool,
    /// Processor time not promised to any server.
    pub cpu: MegaHertz,
    /// Memory not promised to any server.
    pub memory: MebiBytes,
    /// Its arrays.
    pub arrays: Vec<ArrayRoom>,
}

/// The free room of one array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayRoom {
    /// Which array.
    pub array: ArrayId,
    /// Bytes not promised to any drive.
    pub free: Bytes,
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
    /// Arrays it must not share.
    pub avoid: Vec<ArrayId>,
}

/// What a server needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerDemand {
    /// Its processor time.
    pub cpu: MegaHertz,
    /// Its memory.
    pub memory: MebiBytes,
    /// The hosts that hold its drives, each once.
    pub drives_on: Vec<HostId>,
}

/// Where something goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Placement {
    /// The host.
    pub host: HostId,
    /// The array, for a drive.
    pub array: Option<ArrayId>,
}

/// Why nothing fits: the constraint that bound on the nearest host, and how far off it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{constraint}: asked for {wanted}, the most that one host has is {available}")]
pub struct Refusal {
    /// What was short.
    pub constraint: Constraint,
    /// How much was asked for, in the constraint's unit.
    pub wanted: u64,
    /// The most that any candidate had.
    pub available: u64,
}

/// What can be short.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Constraint {
    /// No host accepts placements.
    AcceptingHosts,
    /// The server's drives lie on different hosts.
    DrivesTogether,
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
            Self::DrivesTogether => "the drives lie on different hosts",
            Self::ArrayBytes => "not enough room on an array (bytes)",
            Self::Memory => "not enough memory on a host (MiB)",
            Self::Cpu => "not enough processor time on a host (MHz)",
        })
    }
}
