//! An open drive of a directory array: its raw file, under one epoch.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

use async_trait::async_trait;
use elasticstack_core::block::{Attachment, Volume};
use elasticstack_core::prelude::*;
use rustix::fs::{FallocateFlags, SeekFrom};
use rustix::io::Errno;

use super::blocking;
use super::directory::failed;
use super::drive::Drive;

/// What file systems commonly write as a whole.
const BLOCK: Bytes = Bytes::from_kib(4);

#[derive(Debug)]
pub(super) struct FileVolume {
    drive: Arc<Drive>,
    id: DriveId,
    epoch: Epoch,
    file: Arc<File>,
}

impl FileVolume {
    /// Opens the drive's file. Blocks.
    pub(super) fn open(drive: Arc<Drive>, id: DriveId, epoch: Epoch) -> Result<Self> {
        let path = drive.array.raw(id);
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(failed("opening", &path))?;
        Ok(Self { drive, id, epoch, file: Arc::new(file) })
    }

    /// Does `work` on the file in a thread that may block, while the range is within the drive
    /// and the epoch has access.
    async fn access<T: Send + 'static>(
        &self,
        action: &'static str,
        (offset, length): (Bytes, u64),
        work: impl FnOnce(&File, &Drive) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = self.drive.enter(self.epoch, offset, length).await?;
        let (drive, file, id) = (Arc::clone(&self.drive), Arc::clone(&self.file), self.id);
        blocking(move || {
            let result = work(&file, &drive);
            drop(permit);
            result.map_err(|error| failed(action, &drive.array.raw(id))(error))
        })
        .await
    }
}

#[async_trait]
impl Volume for FileVolume {
    fn size(&self) -> Bytes {
        self.drive.size()
    }

    fn block_size(&self) -> Bytes {
        BLOCK
    }

    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()> {
        let length = buffer.len();
        let bytes = self
            .access("reading", (offset, length_of(length)), move |file, _| {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, offset.get())?;
                Ok(bytes)
            })
            .await?;
        buffer.copy_from_slice(&bytes);
        Ok(())
    }

    async fn write_at(&self, offset: Bytes, data: bytes::Bytes) -> Result<()> {
        let range = (offset, length_of(data.len()));
        self.access("writing", range, move |file, _| file.write_all_at(&data, offset.get())).await
    }

    async fn flush(&self) -> Result<()> {
        self.access("syncing", (Bytes::ZERO, 0), |file, drive| drive.sync(|| file.sync_data()))
            .await
    }

    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()> {
        let range = (offset, length.get());
        self.access("discarding", range, move |file, _| punch(file, offset, length)).await
    }

    async fn next_data(&self, offset: Bytes) -> Result<Option<(Bytes, Bytes)>> {
        let found = self
            .access("seeking in", (offset, 0), move |file, _| next_data(file, offset.get()))
            .await?;
        let size = self.size();
        Ok(found.and_then(|(start, end)| {
            let start = Bytes::try_from(start).ok()?;
            let end = Bytes::try_from(end).map_or(size, |end| end.min(size));
            (start < end).then(|| (start, end.saturating_sub(start)))
        }))
    }

    fn attachment(&self) -> Option<Attachment> {
        Some(Attachment::File(self.drive.array.raw(self.id)))
    }
}

/// Frees a range of a file, or writes zeros where the file system can't free any.
pub(super) fn punch(file: &File, offset: Bytes, length: Bytes) -> io::Result<()> {
    if length == Bytes::ZERO {
        return Ok(());
    }
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, offset.get(), length.get()) {
        Err(Errno::OPNOTSUPP | Errno::NOSYS) => write_zeros(file, offset.get(), length.get()),
        result => result.map_err(io::Error::from),
    }
}

fn write_zeros(file: &File, mut offset: u64, mut length: u64) -> io::Result<()> {
    let zeros = vec![0; 1 << 20];
    while length > 0 {
        let piece = usize::try_from(length).map_or(zeros.len(), |rest| rest.min(zeros.len()));
        let (now, _) = zeros.split_at(piece);
        file.write_all_at(now, offset)?;
        offset = offset.saturating_add(length_of(piece));
        length = length.saturating_sub(length_of(piece));
    }
    Ok(())
}

/// Where the first data at or after `offset` begins and ends. Moves the file's position, which
/// nothing here relies on.
fn next_data(file: &File, offset: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
    Ok(Some((start, end)))
}

/// A length in memory as one on disk.
fn length_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_holes_zeros_are_written_and_nothing_beside_them() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; 3 << 20], 0).unwrap();
        write_zeros(&file, 5, (2 << 20) + 1).unwrap();
        let mut bytes = vec![1; 3 << 20];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let end = 5 + (2 << 20) + 1;
        assert!(bytes[..5].iter().chain(&bytes[end..]).all(|byte| *byte == 7));
        assert!(bytes[5..end].iter().all(|byte| *byte == 0));
    }
}
