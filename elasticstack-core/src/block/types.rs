//! What is said about drives and arrays at the [`super::BlockStore`] boundary.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Borrowing, Disks, Warning};
use crate::generation::{Epoch, Generation};
use crate::id::{AccountId, ArrayId, DriveId};
use crate::units::Bytes;

/// A drive as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveSpec {
    /// Which drive.
    pub drive: DriveId,
    /// The array it lies on.
    pub array: ArrayId,
    /// Its owner, kept beside it so that the drive can be attributed without the database.
    pub account: AccountId,
    /// Its size, which is also what it may come to occupy.
    pub size: Bytes,
    /// The version of this spec.
    pub generation: Generation,
}

/// A drive as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DriveReport {
    /// The spec it was last made to match.
    pub spec: DriveSpec,
    /// The highest epoch it was ever opened or fenced with; 0 if none.
    pub epoch: Epoch,
}

/// An array and the room on it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArrayReport {
    /// Which array.
    pub array: ArrayId,
    /// What the array calls itself, such as `fast` or `md0`.
    pub name: String,
    /// The most that drives and snapshots on it may sum up to, its reserve already taken off. An array that
    /// over-commits has its own word on this, which may be larger than its disks.
    pub capacity: Bytes,
    /// Σ sizes of the drives and snapshots on it.
    pub promised: Bytes,
    /// Whether it can be used.
    pub state: ArrayState,
    /// How its disks are, if it is made of some and that is known.
    pub disks: Option<Disks>,
    /// What an operator should look at.
    pub warnings: Vec<Warning>,
}

/// Whether an array can be used. Exhaustive: whoever reads it decides about each.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ArrayState {
    /// It works.
    #[default]
    Online,
    /// It could not be opened, or has failed since. What it holds stays as it is; it has no room.
    Failed,
}

/// How a hypervisor reaches a drive without going through the [`super::Volume`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Attachment {
    /// A raw file of exactly the drive's size; no other format is ever probed.
    File(PathBuf),
    /// A drive of another host, lent over iSCSI. Whoever attaches it logs in as its borrower.
    Iscsi(Borrowing),
}
