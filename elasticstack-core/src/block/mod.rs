//! Drives: the contract between whoever keeps bytes and whoever uses them.

mod disks;
mod lend;
mod snapshots;
mod types;

use std::sync::Arc;

use async_trait::async_trait;

pub use disks::{DiskReport, DiskState, Disks, Warning, WarningKind, Work, WorkKind};
pub use lend::{Borrowing, Lend, LendId, LendSpec, Writing, borrower_of};
pub use snapshots::{SnapshotReport, Snapshots, Writers};
pub use types::{ArrayReport, ArrayState, Attachment, DriveReport, DriveSpec};

use crate::error::Result;
use crate::generation::{Epoch, Generation};
use crate::id::DriveId;
use crate::units::Bytes;

/// Keeps drives on the arrays of one host.
///
/// Each array fails alone. While one is [`ArrayState::Failed`], its drives are not listed, nothing
/// is made on it, and whatever is asked of a drive that may lie on it is `Unavailable`, never
/// `NotFound` nor done; the drives of other arrays are as ever.
///
/// # Contract
/// - **BS-1** `create` is durable when it returns, and repeating it with the same spec succeeds
///   and changes nothing. The same id with another size, array or owner is `ChangedMeanwhile`.
/// - **BS-2** A new drive reads as zeros, whatever the array held before.
/// - **BS-3** Σ sizes of drives and snapshots on an array never exceeds what its report promises,
///   unless the array over-commits: one more `create`, `grow` or snapshot is `NoCapacity`.
/// - **BS-4** `open` with an epoch below the drive's last fence is `Fenced`; one above every epoch
///   seen is recorded durably first. It fences nobody: shared claims are open side by side, each
///   under its own epoch. An unknown drive is `NotFound`.
/// - **BS-5** `fence(e)` returns once `e` is durable, every volume opened below `e` refuses with
///   `Fenced` and none of their I/O is in flight. Repeating it, or a lower fence, changes nothing.
/// - **BS-6** `destroy` frees the space and is durable; repeating it succeeds; volumes still open
///   fail. A generation below the drive's is `Stale` and destroys nothing.
/// - **BS-7** `list` tells, also after a crash, exactly the drives created and not destroyed, with
///   size, owner, array, generation and epoch.
#[async_trait]
pub trait BlockStore: Send + Sync {
    /// Makes a drive of zeros.
    ///
    /// # Errors
    /// `NoCapacity`; `ChangedMeanwhile` for another drive of this id; `NotFound` for the array;
    /// `Unavailable` if it has failed.
    async fn create(&self, spec: &DriveSpec) -> Result<()>;

    /// Opens a drive under a claim's epoch. Cancelling may leave the epoch recorded, no more.
    ///
    /// # Errors
    /// `NotFound`; `Fenced` for an old epoch; `Unavailable` if its array has failed.
    async fn open(&self, drive: DriveId, epoch: Epoch) -> Result<Arc<dyn Volume>>;

    /// Ends all access below `epoch`. The caller first ends what opened the drive through an
    /// [`Attachment`] and so past this store, such as a hypervisor's process.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` while old I/O does not drain: the fence stands, call again; and if
    /// its array has failed.
    async fn fence(&self, drive: DriveId, epoch: Epoch) -> Result<()>;

    /// Every drive on the arrays that work.
    ///
    /// # Errors
    /// `Internal` if such an array cannot be read.
    async fn list(&self) -> Result<Vec<DriveReport>>;

    /// Destroys a drive, on a tombstone of this generation.
    ///
    /// # Errors
    /// `Stale` for a generation below the drive's; `Unavailable` while I/O does not drain, or if
    /// the drive may lie on an array that has failed.
    async fn destroy(&self, drive: DriveId, generation: Generation) -> Result<()>;

    /// Every array here, also one that has failed, and the room on it.
    ///
    /// # Errors
    /// `Internal` if an array cannot be asked.
    async fn capacity(&self) -> Result<Vec<ArrayReport>>;

    /// Changing sizes, if this store can.
    fn resizer(&self) -> Option<&dyn Resize> {
        None
    }

    /// Copying a drive without copying its bytes, if this store can.
    fn cloner(&self) -> Option<&dyn CloneDrive> {
        None
    }

    /// Keeping what drives hold at one instant, if this store can.
    fn snapshots(&self) -> Option<&dyn Snapshots> {
        None
    }
}

/// Changes the size of drives.
///
/// # Contract
/// - **RS-1** Growing keeps every byte and adds zeros; it is durable when it returns.
/// - **RS-2** Shrinking keeps the bytes below the new size; growing back shows zeros.
/// - **RS-3** The spec's generation is recorded; one below the drive's is `Stale`; repeating
///   the same spec changes nothing.
#[async_trait]
pub trait Resize: Send + Sync {
    /// Makes the drive `spec.size` long.
    ///
    /// # Errors
    /// `NotFound`; `NoCapacity`; `Stale`; `ChangedMeanwhile` for another array or owner;
    /// `Unavailable` while I/O does not drain.
    async fn resize(&self, spec: &DriveSpec) -> Result<()>;
}

/// Copies drives by sharing their blocks, such as reflinks do.
///
/// # Contract
/// - **CL-1** After `Shared`, the target reads as the source did, then zeros up to its own size,
///   and a write to either is not seen in the other.
/// - **CL-2** A pair of drives that can't share blocks, such as ones on two arrays, is
///   `MustCopy` and the target is unchanged.
#[async_trait]
pub trait CloneDrive: Send + Sync {
    /// Makes `target` a copy of `source`; both are open under their claims by the caller.
    ///
    /// # Errors
    /// `NotFound`; `InvalidValue` if the target is smaller; `DriveInUse` if this would hold up the
    /// `writers` of the source for too long.
    async fn clone_drive(
        &self,
        source: DriveId,
        target: DriveId,
        writers: Writers,
    ) -> Result<Cloned>;
}

/// What became of a wish to clone by sharing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cloned {
    /// Done: the blocks are shared.
    Shared,
    /// These two drives can't share blocks: copy the bytes.
    MustCopy,
}

/// One open drive.
///
/// # Contract
/// - **VO-1** `read_at` sees every earlier `write_at` and `discard` of the same drive.
/// - **VO-2** What `flush` or `write_through` has confirmed survives a crash of the host.
/// - **VO-3** An access past the end is `InvalidValue` and changes nothing, not even in part.
/// - **VO-4** A discarded range reads as zeros.
/// - **VO-5** After a fence above its epoch every call is `Fenced` and changes nothing.
/// - **VO-6** `next_data` passes over no byte that is not zero.
/// - **VO-7** A volume that gives no access any more keeps its last size: whoever copies it then
///   meets an error, not an end.
#[async_trait]
pub trait Volume: Send + Sync {
    /// The drive's size now, or the last one known.
    fn size(&self) -> Bytes;

    /// The unit of atomic writes and the granularity of good performance, a power of two.
    fn block_size(&self) -> Bytes;

    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `InvalidValue` past the end; `Fenced`; `Internal` if the medium fails.
    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()>;

    /// Writes `data` at `offset`. Durable only after [`Volume::flush`].
    ///
    /// # Errors
    /// `InvalidValue` past the end; `Fenced`; `NoCapacity` on a full, over-committed array;
    /// `Internal` if the medium fails.
    async fn write_at(&self, offset: Bytes, data: bytes::Bytes) -> Result<()>;

    /// Makes all earlier writes durable.
    ///
    /// # Errors
    /// `Fenced`; `Internal` if the medium fails.
    async fn flush(&self) -> Result<()>;

    /// Writes `data` at `offset`, and makes that and all earlier writes durable: what
    /// [`Volume::write_at`] and then [`Volume::flush`] do, where both at once cost less.
    ///
    /// # Errors
    /// As theirs.
    async fn write_through(&self, offset: Bytes, data: bytes::Bytes) -> Result<()> {
        self.write_at(offset, data).await?;
        self.flush().await
    }

    /// Frees a range, which then reads as zeros.
    ///
    /// # Errors
    /// As [`Volume::write_at`].
    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()>;

    /// The first range at or after `offset` that may hold something other than zeros, as
    /// (start, length); `None` if all the rest is zeros. A volume that does not know answers
    /// with all the rest.
    ///
    /// # Errors
    /// As [`Volume::read_at`].
    async fn next_data(&self, offset: Bytes) -> Result<Option<(Bytes, Bytes)>> {
        let rest = self.size().saturating_sub(offset);
        // Reads nothing, but is refused like every other call once the drive is fenced.
        self.read_at(Bytes::ZERO, &mut []).await?;
        Ok((rest > Bytes::ZERO).then_some((offset, rest)))
    }

    /// How a hypervisor reaches the drive directly, if it can.
    fn attachment(&self) -> Option<Attachment>;
}
