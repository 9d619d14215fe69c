//! A drive's file, as the process that lends it has it: open, and no more known of it than that.
//!
//! What is read is copied out of the page cache at once where it is there, and else read by a thread
//! that may wait. What is written is the [`Writer`]'s.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::BorrowedFd;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use elasticstack_core::block::{Attachment, Volume};
use elasticstack_core::prelude::*;
use rustix::io::ReadWriteFlags;

use super::writer::{Keeping, Writer};
use crate::store::{next_data, punch, start_and_length};
use crate::sys::ring::Ring;

/// What file systems commonly write as a whole.
pub(super) const BLOCK: Bytes = Bytes::from_kib(4);

/// An open file as a volume.
#[derive(Debug)]
pub(crate) struct FileVolume {
    file: Arc<File>,
    size: AtomicU64,
    writer: Writer,
    found: Mutex<Found>,
}

/// Where data was found last: some initiators ask before each read.
#[derive(Debug, Default)]
struct Found {
    /// Its start and end, unless something was freed since. What is written only adds to it.
    data: Option<(u64, u64)>,
    /// How often something was freed.
    frees: u64,
}

impl FileVolume {
    /// The volume that this file is, as long as it is now. `past` is the same file, opened so that
    /// writes go past the page cache; where there is none, or the kernel permits no io_uring, they go
    /// through it. Of a process that is killed `held` stays open until its last write has ended.
    ///
    /// # Errors
    /// `NotOffered` for what is no regular file; `InvalidValue` if `past` is another one.
    pub(crate) fn new(file: File, past: Option<File>, held: BorrowedFd<'_>) -> Result<Self> {
        let file = Arc::new(file);
        if past.as_ref().is_some_and(|past| !is_same(&file, past)) {
            return Err(Error::new(ErrorKind::InvalidValue, "the two files of a lend are not one"));
        }
        let past = past.and_then(|past| match Ring::new(held) {
            Ok(ring) => Some((past, ring)),
            Err(error) => {
                tracing::warn!(%error, "no io_uring: a drive's writes go through the page cache");
                None
            }
        });
        let writer = Writer::new(Arc::clone(&file), past);
        let found = Mutex::default();
        let volume = Self { file, size: AtomicU64::new(0), writer, found };
        volume.measure()?;
        Ok(volume)
    }

    /// Takes the file's length as the drive's.
    pub(super) fn measure(&self) -> Result<()> {
        let metadata = self.file.metadata().map_err(failed("looking at"))?;
        if !metadata.is_file() {
            return Err(Error::new(ErrorKind::NotOffered, "what is no file can't be lent"));
        }
        self.size.store(metadata.len(), Ordering::Release);
        Ok(())
    }

    /// Whether `other` is the same file.
    pub(super) fn is_of(&self, other: &File) -> bool {
        is_same(&self.file, other)
    }

    fn check(&self, offset: Bytes, length: u64) -> Result<()> {
        let size = self.size.load(Ordering::Acquire);
        if offset.get().checked_add(length).is_none_or(|end| end > size) {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                format!("{length} bytes at {} end past the drive's end, {size}", offset.get()),
            ));
        }
        Ok(())
    }

    async fn write(&self, offset: Bytes, data: bytes::Bytes, keeping: Keeping) -> Result<()> {
        self.check(offset, length_of(data.len()))?;
        self.writer.write(offset.get(), data, keeping).await.map_err(failed("writing"))
    }

    fn found(&self) -> MutexGuard<'_, Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does what may block in a thread that may.
    async fn access<T: Send + 'static>(
        &self,
        action: &'static str,
        (offset, length): (Bytes, u64),
        work: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        self.check(offset, length)?;
        let file = Arc::clone(&self.file);
        tokio::task::spawn_blocking(move || work(&file))
            .await
            .map_err(|error| Error::internal("running what blocks").source(error))?
            .map_err(failed(action))
    }
}

#[async_trait]
impl Volume for FileVolume {
    fn size(&self) -> Bytes {
        Bytes::try_from(self.size.load(Ordering::Acquire)).unwrap_or(Bytes::ZERO)
    }

    fn block_size(&self) -> Bytes {
        BLOCK
    }

    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()> {
        self.check(offset, length_of(buffer.len()))?;
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = ReadWriteFlags::NOWAIT;
        let read = rustix::io::preadv2(&self.file, &mut parts, offset.get(), flags).unwrap_or(0);
        let Some((_, rest)) =
            buffer.split_at_mut_checked(read).filter(|(_, rest)| !rest.is_empty())
        else {
            return Ok(());
        };
        let (offset, length) = (offset.get().saturating_add(length_of(read)), rest.len());
        let bytes = self
            .access("reading", (Bytes::ZERO, 0), move |file| {
                let mut bytes = vec![0; length];
                file.read_exact_at(&mut bytes, offset)?;
                Ok(bytes)
            })
            .await?;
        rest.copy_from_slice(&bytes);
        Ok(())
    }

    async fn write_at(&self, offset: Bytes, data: bytes::Bytes) -> Result<()> {
        self.write(offset, data, Keeping::Written).await
    }

    async fn flush(&self) -> Result<()> {
        self.writer.flush().await.map_err(failed("syncing"))
    }

    async fn write_through(&self, offset: Bytes, data: bytes::Bytes) -> Result<()> {
        self.write(offset, data, Keeping::Durable).await
    }

    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()> {
        let range = (offset, length.get());
        let freed = self.access("freeing", range, move |file| punch(file, offset, length)).await;
        let mut found = self.found();
        *found = Found { data: None, frees: found.frees.wrapping_add(1) };
        freed
    }

    async fn next_data(&self, offset: Bytes) -> Result<Option<(Bytes, Bytes)>> {
        let from = offset.get();
        let frees = {
            let found = self.found();
            if let Some((_, end)) = found.data.filter(|(start, end)| (*start..*end).contains(&from))
            {
                return Ok(start_and_length((from, end), self.size()));
            }
            found.frees
        };
        let data =
            self.access("seeking in", (offset, 0), move |file| next_data(file, from)).await?;
        let mut found = self.found();
        if found.frees == frees {
            found.data = data;
        }
        drop(found);
        Ok(data.and_then(|data| start_and_length(data, self.size())))
    }

    fn attachment(&self) -> Option<Attachment> {
        None
    }
}

fn is_same(one: &File, other: &File) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    let identity = |file: &File| file.metadata().map(|found| (found.dev(), found.ino()));
    matches!((identity(one), identity(other)), (Ok(one), Ok(other)) if one == other)
}

fn length_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

fn failed(action: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| {
        let kind = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::NoCapacity,
            _ => {
                return Error::internal(format!("{action} a lent drive's file")).source(error);
            }
        };
        Error::new(kind, "the array is full").source(error)
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[tokio::test]
    async fn where_data_was_found_is_looked_up_once_until_something_is_freed() {
        let file = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        file.as_file().write_all_at(&[1; 1 << 16], 0).unwrap();
        file.as_file().set_len(1 << 17).unwrap();
        let open = File::options().read(true).write(true).open(file.path()).unwrap();
        let volume = FileVolume::new(open, None, file.as_file().as_fd()).unwrap();
        let kib = Bytes::from_kib;
        let first = volume.next_data(Bytes::ZERO).await.unwrap();
        assert_eq!(first, Some((Bytes::ZERO, kib(64))));

        // Behind its back, so that who asks the file again is told otherwise.
        punch(file.as_file(), kib(32), kib(32)).unwrap();
        assert_eq!(volume.next_data(kib(40)).await.unwrap(), Some((kib(40), kib(24))));
        assert_eq!(volume.next_data(kib(64)).await.unwrap(), None);

        assert_eq!(volume.next_data(Bytes::ZERO).await.unwrap(), Some((Bytes::ZERO, kib(32))));
        volume.discard(kib(16), kib(16)).await.unwrap();
        assert_eq!(volume.next_data(Bytes::ZERO).await.unwrap(), Some((Bytes::ZERO, kib(16))));
        assert_eq!(volume.next_data(kib(16)).await.unwrap(), None);
    }
}
