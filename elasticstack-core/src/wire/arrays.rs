//! Documents of the [internal API](super::internal) about the disks of one host and the arrays that are made
//! of them: what there is, and what is to be done.
//!
//! An order is refused if it has a key that its host does not know, as what is left out might be what
//! keeps a disk from being overwritten. Answers may grow.
//!
//! Sizes are bytes. A disk is named by its serial number, which gives up what it holds, or by a path that begins
//! with a slash, such as `/dev/sdb`: then it has to be empty.

use serde::{Deserialize, Serialize};

use super::internal::Fault;
use crate::block::Warning;
use crate::id::ArrayId;

/// The disks of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDisks {
    /// By their devices.
    pub disks: Vec<HostDisk>,
}

/// A whole disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostDisk {
    /// Such as `/dev/sdb`, until the next boot.
    pub device: String,
    /// Its serial number, if it tells one.
    pub serial: Option<String>,
    /// How large it is.
    pub size: u64,
    /// What it is used for, or holds.
    pub holds: DiskContent,
}

/// What is on a disk.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskContent {
    /// Something on the host uses it: it can't be taken.
    InUse,
    /// Nothing that shows at either end of it.
    Nothing,
    /// Things of these types, in words of `wipefs`: `xfs`, `gpt`, `linux_raid_member`.
    Types(Vec<String>),
    /// Bytes that no tool knows the meaning of.
    Bytes,
    /// Nobody knows: it can't be read, as the host's log says.
    Unreadable,
}

/// The arrays of a host, as its configuration has them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostArrays {
    /// In the order of the configuration.
    pub arrays: Vec<HostArray>,
    /// The last order in the life of the agent's process, if there was one.
    pub order: Option<OrderStatus>,
}

/// An array of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostArray {
    /// Which, if that is known.
    pub array: Option<ArrayId>,
    /// What the operator calls it.
    pub name: String,
    /// Where it is mounted.
    pub path: String,
    /// What it is made of.
    pub made_of: MadeOf,
    /// What an operator should look at.
    pub warnings: Vec<Warning>,
}

/// What an array is made of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MadeOf {
    /// A directory, of whatever the operator has mounted there.
    Directory,
    /// Disks, but it is not put together.
    NotPutTogether,
    /// Disks.
    Raid(RaidStatus),
}

/// A RAID that is put together, in the kernel's words where it has some.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaidStatus {
    /// Such as `/dev/md127`, until the next boot.
    pub device: String,
    /// `raid1`, `raid10`, `raid5` or `raid6`.
    pub level: String,
    /// `whole`, `rebuilding`, `degraded` or `failed`.
    pub health: String,
    /// How many disks it is made of, spares aside.
    pub count: u32,
    /// How many of those it lacks, or has no whole copy on.
    pub missing: u32,
    /// What the kernel does to it beside serving it, if anything.
    pub work: Option<RaidWork>,
    /// Sectors of 512 bytes that the last scrub found to differ.
    pub mismatches: u64,
    /// Whether what is discarded on it is discarded on its disks.
    pub discards: bool,
    /// Its disks, by their devices.
    pub disks: Vec<RaidDisk>,
}

/// Work on a RAID as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaidWork {
    /// `resync`, `recover`, `check`, `repair`, `reshape` and others.
    pub kind: String,
    /// Hundredths that are done; 0 as long as it waits.
    pub percent: u8,
}

/// A disk of a RAID.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RaidDisk {
    /// Its name below `/dev`.
    pub device: String,
    /// Its serial number, if it tells one and is still in the machine.
    pub serial: Option<String>,
    /// `in_sync`, `spare`, `faulty`, `write_mostly` and others.
    pub state: Vec<String>,
    /// Read errors that were corrected from the other disks since it was put together.
    pub corrected: u64,
}

/// Has something done to the arrays of a host. It is checked, begun, and waited for; it goes on when nobody
/// waits. Asked for again while it is done, it is waited for again; asked for after its host's agent was killed, it
/// goes on where it was cut off. Meanwhile any other order is refused as `resource_in_use`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OrderArray {
    /// What.
    pub order: ArrayOrder,
    /// How long to wait for its end, in milliseconds, at most 60,000.
    pub wait_ms: u32,
}

/// What is to be done to an array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum ArrayOrder {
    /// Make it of disks, with a file system, and use it.
    Create {
        /// What it is called: 1 to 32 letters, digits, dots, dashes and underscores.
        name: String,
        /// `raid1`, `raid10`, `raid5` or `raid6`.
        level: String,
        /// Its disks.
        disks: Vec<String>,
        /// Those that take the place of one that fails.
        #[serde(default)]
        spares: Vec<String>,
        /// Whether it keeps a checksum of every block.
        #[serde(default)]
        integrity: bool,
        /// Where it is mounted: an absolute path below the host's place for arrays, where nothing is.
        path: String,
    },
    /// Take it over with its disks, which come from another machine, and use it.
    Import {
        /// What it is called there, and will be here.
        name: String,
        /// Whether it was made with checksums.
        #[serde(default)]
        integrity: bool,
        /// As in `create`.
        path: String,
    },
    /// Add a disk, for one that is missing or as a spare.
    Add {
        /// The array.
        name: String,
        /// The disk.
        disk: String,
    },
    /// Copy a disk that still works to another one, which takes its place.
    Replace {
        /// The array.
        name: String,
        /// The disk that is to go.
        old: String,
        /// The disk that takes its place.
        new: String,
    },
    /// Take a disk out that the array can do without.
    Remove {
        /// The array.
        name: String,
        /// The disk.
        disk: String,
    },
    /// Read all of it and compare its copies, in the background.
    Scrub {
        /// The array.
        name: String,
        /// What to do where they differ.
        mode: ScrubMode,
    },
    /// Make it and its file system as large as its disks allow, and wait for that.
    Grow {
        /// The array.
        name: String,
        /// Disks that are added before.
        #[serde(default)]
        disks: Vec<String>,
    },
}

/// What a scrub does where copies differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ScrubMode {
    /// Count it.
    Check,
    /// Write it anew.
    Repair,
    /// Nothing: the scrub that runs ends.
    Stop,
}

/// How far an order is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderStatus {
    /// Which.
    pub order: ArrayOrder,
    /// How far.
    pub progress: OrderProgress,
}

/// How far an order is. What the kernel goes on with by itself, such as a rebuild, is no part of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OrderProgress {
    /// It is being done.
    Working,
    /// It is done.
    Done,
    /// It ended without success.
    Failed(Fault),
}
