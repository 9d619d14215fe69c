//! What is said about the disks that an array is made of.

use serde::{Deserialize, Serialize};

/// How the disks of an array are, as whoever puts them together last said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disks {
    /// How many the array is made of, spares aside.
    pub count: u32,
    /// How many of those it lacks, or has no whole copy on.
    pub missing: u32,
    /// What is done to all of it beside serving it, if anything.
    pub work: Option<Work>,
    /// Sectors of 512 bytes that the last check found to differ between copies, or not to fit their parity.
    pub mismatches: u64,
    /// Each of them, also spares and what failed.
    pub each: Vec<DiskReport>,
}

/// Work on an array as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Work {
    /// What is done.
    pub kind: WorkKind,
    /// Hundredths that are done; 0 as long as it waits.
    pub percent: u8,
}

/// What is done to an array. Exhaustive: whoever reads it decides about each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkKind {
    /// What a disk held, or should, is written to another one.
    Rebuild,
    /// Its copies or its parity are made to agree, after a crash or when it is new.
    Resync,
    /// Its copies or its parity are compared.
    Check,
    /// They are compared, and written anew where they differ.
    Repair,
    /// It is laid out over other disks.
    Reshape,
}

impl WorkKind {
    /// In one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rebuild => "rebuild",
            Self::Resync => "resync",
            Self::Check => "check",
            Self::Repair => "repair",
            Self::Reshape => "reshape",
        }
    }
}

/// One disk of an array.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiskReport {
    /// Its serial number, or what its host calls it if it tells none.
    pub name: String,
    /// What the array has of it.
    pub state: DiskState,
    /// Read errors on it that were corrected from the other disks since the array was put together.
    pub corrected: u64,
}

/// What an array has of a disk. Exhaustive: whoever reads it decides about each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DiskState {
    /// A whole copy of what it should hold.
    InSync,
    /// Nothing yet: it waits to take a place, or is being written for one.
    Spare,
    /// Nothing any more: it failed, or was replaced.
    Faulty,
}

impl DiskState {
    /// In one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InSync => "in_sync",
            Self::Spare => "spare",
            Self::Faulty => "faulty",
        }
    }
}

/// What an operator should look at before it becomes a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Warning {
    /// Of what kind.
    pub kind: WarningKind,
    /// The disk that it is about, as its report calls it.
    pub disk: Option<String>,
    /// What was found and what to do, in one sentence. It changes only if what was found does.
    pub sentence: String,
}

/// The kinds of warnings. Exhaustive: whoever reads one decides about each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WarningKind {
    /// A disk says of itself that it is about to fail.
    DiskFailing,
    /// A disk has lost sectors, or could not read some.
    DiskErrors,
    /// Most of what a disk may be written is written.
    DiskWorn,
    /// A disk takes far longer than the others of its array.
    DiskSlow,
    /// Little more can be placed on the array, or written to it.
    NearlyFull,
}

impl WarningKind {
    /// In one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::DiskFailing => "disk_failing",
            Self::DiskErrors => "disk_errors",
            Self::DiskWorn => "disk_worn",
            Self::DiskSlow => "disk_slow",
            Self::NearlyFull => "nearly_full",
        }
    }
}
