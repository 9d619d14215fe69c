//! Snapshots: what drives held at one instant, kept beside them on their arrays.

use async_trait::async_trait;

use crate::error::Result;
use crate::generation::Epoch;
use crate::id::{AccountId, ArrayId, DriveId, SnapshotId};
use crate::units::Bytes;

/// Keeps what drives hold at one instant, and brings it back.
///
/// A snapshot lies on its drive's array and takes room there as large as the drive was, whatever
/// it shares with it: so a write can never fail because of a snapshot. It outlives its drive.
///
/// # Contract
/// - **SN-1** A snapshot holds what a power cut at one instant of `take_snapshot` would have left
///   of the drive, which may be open and written meanwhile. It is durable when the call returns.
/// - **SN-2** Repeating `take_snapshot` changes nothing, however the drive changed since; the
///   same id for another drive is `ChangedMeanwhile`.
/// - **SN-3** A snapshot stays as it is, whatever becomes of its drive.
/// - **SN-4** After `restore_snapshot` the drive reads as the snapshot, then zeros up to its own
///   size, which stays; this is durable when the call returns, and a crash before leaves the
///   drive as it was or as it is then. Volumes below its epoch are `Fenced`. A drive that was
///   opened under a higher epoch is `Fenced`, one smaller than the snapshot `InvalidValue`, and
///   then nothing has changed.
/// - **SN-5** `destroy_snapshot` frees the room, leaves the drive alone and is durable; repeating
///   it succeeds.
/// - **SN-6** `list_snapshots` tells, also after a crash, exactly the snapshots taken and not
///   destroyed.
#[async_trait]
pub trait Snapshots: Send + Sync {
    /// Takes a snapshot of `drive`.
    ///
    /// # Errors
    /// `NotFound` for the drive; `NoCapacity`; `ChangedMeanwhile`; `DriveInUse` if this can't be
    /// done beside these `writers`; `Unavailable` while I/O does not drain, or if the array has
    /// failed.
    async fn take_snapshot(
        &self,
        snapshot: SnapshotId,
        drive: DriveId,
        writers: Writers,
    ) -> Result<()>;

    /// Makes the snapshot's drive hold what the snapshot does, under a claim's epoch. The caller
    /// holds that claim, has no volume open under it, and first ends what opened the drive past
    /// this store.
    ///
    /// # Errors
    /// `NotFound` for the snapshot or its drive; `Fenced`; `InvalidValue`; `NoCapacity` where the
    /// bytes must be copied and the array is full; `Unavailable` as in taking.
    async fn restore_snapshot(&self, snapshot: SnapshotId, epoch: Epoch) -> Result<()>;

    /// Destroys a snapshot.
    ///
    /// # Errors
    /// `Unavailable` if it may lie on an array that has failed.
    async fn destroy_snapshot(&self, snapshot: SnapshotId) -> Result<()>;

    /// Every snapshot on the arrays that work.
    ///
    /// # Errors
    /// `Internal` if such an array cannot be read.
    async fn list_snapshots(&self) -> Result<Vec<SnapshotReport>>;
}

/// Who may write to a drive while it is cloned or a snapshot of it is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writers {
    /// Nobody but through its volumes.
    Volumes,
    /// Also somebody past the store, through an [`Attachment`](super::Attachment).
    Attached,
}

/// A snapshot as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotReport {
    /// Which snapshot.
    pub snapshot: SnapshotId,
    /// The drive that it was taken of.
    pub drive: DriveId,
    /// The array that it lies on.
    pub array: ArrayId,
    /// The drive's owner.
    pub account: AccountId,
    /// The drive's size at that instant, which is also what it may come to occupy.
    pub size: Bytes,
}
