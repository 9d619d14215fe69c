//! A drive's file, as the process that lends it has it: open, and no more known of it than that.
//!
//! Writes that are in flight together share one flush, which they would else each wait for in turn.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use elasticstack_core::block::{Attachment, Volume};
use elasticstack_core::prelude::*;
use tokio::sync::Mutex;

use crate::store::{next_data, punch};

/// What file systems commonly write as a whole.
const BLOCK: Bytes = Bytes::from_kib(4);

/// An open file as a volume.
#[derive(Debug)]
pub(super) struct FileVolume {
    file: Arc<File>,
    size: AtomicU64,
    flushes: Flushes,
}

impl FileVolume {
    /// The volume that this file is, as long as it is now.
    ///
    /// # Errors
    /// `NotOffered` for what is no regular file.
    pub(super) fn new(file: File) -> Result<Self> {
        let volume =
            Self { file: Arc::new(file), size: AtomicU64::new(0), flushes: Flushes::default() };
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
        use std::os::unix::fs::MetadataExt as _;
        let identity = |file: &File| file.metadata().map(|found| (found.dev(), found.ino()));
        matches!((identity(&self.file), identity(other)), (Ok(one), Ok(other)) if one == other)
    }

    async fn access<T: Send + 'static>(
        &self,
        action: &'static str,
        (offset, length): (Bytes, u64),
        work: impl FnOnce(&File) -> io::Result<T> + Send + 'static,
    ) -> Result<T> {
        let size = self.size.load(Ordering::Acquire);
        if offset.get().checked_add(length).is_none_or(|end| end > size) {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                format!("{length} bytes at {} end past the drive's end, {size}", offset.get()),
            ));
        }
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
        let length = buffer.len();
        let bytes = self
            .access("reading", (offset, length_of(length)), move |file| {
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
        self.access("writing", range, move |file| file.write_all_at(&data, offset.get())).await
    }

    async fn flush(&self) -> Result<()> {
        self.flushes
            .share(|has_failed| {
                let sync = move |file: &File| sync_once(file, &has_failed);
                self.access("syncing", (Bytes::ZERO, 0), sync)
            })
            .await
    }

    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()> {
        let range = (offset, length.get());
        self.access("freeing", range, move |file| punch(file, offset, length)).await
    }

    async fn next_data(&self, offset: Bytes) -> Result<Option<(Bytes, Bytes)>> {
        let found = self
            .access("seeking in", (offset, 0), move |file| next_data(file, offset.get()))
            .await?;
        let size = self.size();
        Ok(found.and_then(|(start, end)| {
            let start = Bytes::try_from(start).ok()?;
            let end = Bytes::try_from(end).map_or(size, |end| end.min(size));
            (start < end).then(|| (start, end.saturating_sub(start)))
        }))
    }

    fn attachment(&self) -> Option<Attachment> {
        None
    }
}

/// Flushes that are asked for while one is under way share the next one.
#[derive(Debug, Default)]
struct Flushes {
    /// How many were asked for.
    asked: AtomicU64,
    /// How many of those are done.
    done: Mutex<u64>,
    has_failed: Arc<AtomicBool>,
}

impl Flushes {
    async fn share<F: Future<Output = Result<()>>>(
        &self,
        sync: impl FnOnce(Arc<AtomicBool>) -> F,
    ) -> Result<()> {
        let mine = self.asked.fetch_add(1, Ordering::AcqRel).saturating_add(1);
        let mut done = self.done.lock().await;
        if *done < mine {
            // Everything that was asked for by now was written by now.
            let until = self.asked.load(Ordering::Acquire);
            sync(Arc::clone(&self.has_failed)).await?;
            *done = until;
        }
        Ok(())
    }
}

/// Makes what was written durable. After one failure the kernel forgets which bytes were lost, so
/// that later ones would succeed in error: none may, also if nobody waited for the first.
fn sync_once(file: &File, has_failed: &AtomicBool) -> io::Result<()> {
    if has_failed.load(Ordering::Acquire) {
        return Err(io::Error::other("an earlier sync failed and its bytes are lost"));
    }
    file.sync_data().inspect_err(|_| has_failed.store(true, Ordering::Release))
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
    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn flushes_that_are_in_flight_together_share_one_that_began_after_them() {
        let (flushes, go, syncs) = (Flushes::default(), Semaphore::new(0), AtomicU64::new(0));
        let flush = || {
            flushes.share(async |_| {
                syncs.fetch_add(1, Ordering::SeqCst);
                go.acquire().await.unwrap().forget();
                Ok(())
            })
        };
        let (first, second, third) = (flush(), flush(), flush());
        tokio::pin!(first, second, third);
        assert!(futures_util::poll!(&mut first).is_pending());
        // These may have written after the first began.
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(futures_util::poll!(&mut third).is_pending());
        go.add_permits(1);
        first.await.unwrap();
        assert!(futures_util::poll!(&mut second).is_pending());
        go.add_permits(1);
        second.await.unwrap();
        third.await.unwrap();
        assert_eq!(syncs.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn after_one_failed_sync_none_succeeds_whoever_waited_for_it() {
        let volume = FileVolume::new(tempfile::tempfile().unwrap()).unwrap();
        volume.flush().await.unwrap();
        volume.flushes.has_failed.store(true, Ordering::Release);
        volume.flush().await.unwrap_err();
    }
}
