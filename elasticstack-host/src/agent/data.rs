//! The data path: bytes of a drive that nobody else uses, read or written over the internal API.
//!
//! Each access holds the drive in the grant table while it lasts: a read tolerates others that
//! only read, a write tolerates nobody. An export is a row of reads.

use std::sync::Arc;

use bytes::Bytes as Chunk;
use elasticstack_core::block::Volume;
use elasticstack_core::error::{Error, ErrorKind, Result};
use elasticstack_core::generation::Epoch;
use elasticstack_core::id::DriveId;
use elasticstack_core::units::Bytes;
use elasticstack_core::wire::internal::Access;

use super::host::{Borrowed, Host};
use crate::image::Export;

/// The most bytes that one read answers.
pub(crate) const READ_LIMIT: Bytes = Bytes::from_mib(4);

/// Reads `length` bytes from `offset` on.
///
/// # Errors
/// `DriveInUse` under an exclusive claim; `InvalidValue` past the end or over the limit;
/// `NotFound`.
pub(crate) async fn read(
    host: &Arc<Host>,
    drive: DriveId,
    offset: u64,
    length: u64,
) -> Result<Chunk> {
    if length > READ_LIMIT.get() {
        let message = format!("{length} bytes asked for: one read gives {READ_LIMIT} at most");
        return Err(Error::new(ErrorKind::InvalidValue, message).field("length"));
    }
    let _borrowed = host.borrow(host.access(), drive, Access::Shared)?;
    let volume = open(host, drive).await?;
    let offset = within(volume.as_ref(), offset, length)?;
    let too_long = |_| Error::internal("a read that the limit allows is no size here");
    let mut buffer = vec![0; usize::try_from(length).map_err(too_long)?];
    volume.read_at(offset, &mut buffer).await?;
    Ok(Chunk::from(buffer))
}

/// Writes `data` at `offset`; it is durable when this returns.
///
/// # Errors
/// `DriveInUse` while anybody uses the drive; `InvalidValue` past the end, and then nothing is
/// written; `NotFound`; what the volume says.
///
/// # Cancel safety
/// The write goes on to its end and holds the drive until then.
pub(crate) async fn write(
    host: &Arc<Host>,
    drive: DriveId,
    offset: u64,
    data: Chunk,
) -> Result<()> {
    let borrowed = host.borrow(host.access(), drive, Access::Exclusive)?;
    let work = write_holding(Arc::clone(host), borrowed, drive, offset, data);
    let done = host.tasks.spawn(work).await;
    done.map_err(|error| Error::internal("write to a drive").source(error))?
}

async fn write_holding(
    host: Arc<Host>,
    _borrowed: Borrowed,
    drive: DriveId,
    offset: u64,
    data: Chunk,
) -> Result<()> {
    let volume = open(&host, drive).await?;
    let length = u64::try_from(data.len()).unwrap_or(u64::MAX);
    let offset = within(volume.as_ref(), offset, length)?;
    volume.write_at(offset, data).await?;
    volume.flush().await
}

/// A drive that is told as a qcow2 image.
pub(crate) struct Exporting {
    host: Arc<Host>,
    drive: DriveId,
    export: Export,
}

/// Finds out what there is to be told of a drive.
///
/// # Errors
/// `DriveInUse` under an exclusive claim; `NotFound`; what the volume says.
pub(crate) async fn export(host: &Arc<Host>, drive: DriveId) -> Result<Exporting> {
    let _borrowed = host.borrow(host.access(), drive, Access::Shared)?;
    let export = Export::of(open(host, drive).await?).await?;
    Ok(Exporting { host: Arc::clone(host), drive, export })
}

impl Exporting {
    pub(crate) const fn length(&self) -> u64 {
        self.export.length()
    }

    /// The next piece of the image. The drive is held for each by itself, so that nobody waits for
    /// whoever takes them slowly: once somebody else has had it, under a newer epoch, all ends.
    pub(crate) async fn next(&mut self) -> Result<Option<Chunk>> {
        let _borrowed = self.host.borrow(self.host.access(), self.drive, Access::Shared)?;
        self.export.next().await
    }
}

/// Opens the drive under the highest epoch that ever had access: this path makes no claim.
async fn open(host: &Host, drive: DriveId) -> Result<Arc<dyn Volume>> {
    let drives = host.store.list().await?;
    let report = drives.into_iter().find(|report| report.spec.drive == drive);
    // Of one that it does not list the store says why: it does not exist, or its array has failed.
    host.store.open(drive, report.map_or(Epoch(0), |report| report.epoch)).await
}

/// The offset, if `length` bytes from it on lie on the drive.
fn within(volume: &dyn Volume, offset: u64, length: u64) -> Result<Bytes> {
    let size = volume.size();
    let past_the_end = || {
        let message = format!("{length} bytes at {offset} end past the drive's {}", size.get());
        Error::new(ErrorKind::InvalidValue, message).field("offset")
    };
    let end = offset.checked_add(length).ok_or_else(past_the_end)?;
    if end > size.get() {
        return Err(past_the_end());
    }
    Bytes::try_from(offset).map_err(|_| past_the_end())
}
