//! A drive's file, as the process that lends it has it: open, and no more known of it than that.
//!
//! What the kernel can do at once is done at once, from and to where the bytes are; what would wait
//! for a disk waits in a thread that may. Writes that are in flight together share one flush, which
//! they would else each wait for in turn.

use std::fs::File;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use elasticstack_core::block::{Attachment, Volume};
use elasticstack_core::prelude::*;
use rustix::io::ReadWriteFlags;
use tokio::sync::{Mutex, oneshot};

use crate::store::{next_data, punch, start_and_length};

/// What file systems commonly write as a whole.
const BLOCK: Bytes = Bytes::from_kib(4);

/// An open file as a volume.
#[derive(Debug)]
pub(super) struct FileVolume {
    file: Arc<File>,
    size: AtomicU64,
    writes: Arc<Writes>,
    flushes: Flushes,
}

impl FileVolume {
    /// The volume that this file is, as long as it is now.
    ///
    /// # Errors
    /// `NotOffered` for what is no regular file.
    pub(super) fn new(file: File) -> Result<Self> {
        let (file, size) = (Arc::new(file), AtomicU64::new(0));
        let volume = Self { file, size, writes: Arc::default(), flushes: Flushes::default() };
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

    /// Writes what can be written without waiting, and tells how much that was.
    fn write_at_once(&self, offset: u64, data: &[u8]) -> usize {
        if self.writes.always_wait.load(Ordering::Relaxed) {
            return 0;
        }
        let (parts, flags) = ([IoSlice::new(data)], ReadWriteFlags::NOWAIT);
        rustix::io::pwritev2(&self.file, &parts, offset, flags).unwrap_or_else(|error| {
            // Not every file system tells when it would wait.
            let always = error == rustix::io::Errno::OPNOTSUPP;
            self.writes.always_wait.store(always, Ordering::Relaxed);
            0
        })
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
        self.check(offset, length_of(data.len()))?;
        let written = self.write_at_once(offset.get(), &data);
        if written >= data.len() {
            return Ok(());
        }
        let offset = offset.get().saturating_add(length_of(written));
        let written = self.writes.write(&self.file, offset, data.slice(written..));
        let written = written.await.map_err(|_| Error::internal("running what blocks"))?;
        written.map_err(failed("writing"))
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
        Ok(found.and_then(|found| start_and_length(found, self.size())))
    }

    fn attachment(&self) -> Option<Attachment> {
        None
    }
}

/// Writes that may wait. Those that come while one waits are done after it by the same thread, as to
/// wake one up for each costs more than to write.
#[derive(Debug, Default)]
struct Writes {
    always_wait: AtomicBool,
    queue: std::sync::Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Write>,
    has_thread: bool,
}

#[derive(Debug)]
struct Write {
    offset: u64,
    data: bytes::Bytes,
    done: oneshot::Sender<io::Result<()>>,
}

impl Writes {
    /// Begins a write. Who gives up on it does not end it.
    fn write(
        self: &Arc<Self>,
        file: &Arc<File>,
        offset: u64,
        data: bytes::Bytes,
    ) -> oneshot::Receiver<io::Result<()>> {
        let (done, written) = oneshot::channel();
        let mut queue = self.queue();
        queue.waiting.push(Write { offset, data, done });
        if !std::mem::replace(&mut queue.has_thread, true) {
            let (own, file) = (Arc::clone(self), Arc::clone(file));
            tokio::task::spawn_blocking(move || own.work(&file));
        }
        written
    }

    fn work(&self, file: &File) {
        loop {
            let batch = {
                let mut queue = self.queue();
                queue.has_thread = !queue.waiting.is_empty();
                std::mem::take(&mut queue.waiting)
            };
            if batch.is_empty() {
                return;
            }
            for Write { offset, data, done } in batch {
                let _ = done.send(file.write_all_at(&data, offset));
            }
        }
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
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
            // Whoever is about to ask is waited for, as writes end together.
            tokio::task::yield_now().await;
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
        while syncs.load(Ordering::SeqCst) == 0 {
            assert!(futures_util::poll!(&mut first).is_pending());
            tokio::task::yield_now().await;
        }
        // These may have written after the first began.
        assert!(futures_util::poll!(&mut second).is_pending());
        assert!(futures_util::poll!(&mut third).is_pending());
        go.add_permits(1);
        first.await.unwrap();
        while syncs.load(Ordering::SeqCst) == 1 {
            assert!(futures_util::poll!(&mut second).is_pending());
            tokio::task::yield_now().await;
        }
        go.add_permits(1);
        second.await.unwrap();
        third.await.unwrap();
        assert_eq!(syncs.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn writes_that_wait_are_all_done_whoever_still_waits_for_them() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(1 << 20).unwrap();
        let volume = Arc::new(FileVolume::new(file).unwrap());
        volume.writes.always_wait.store(true, Ordering::Relaxed);
        let mut writing = Vec::new();
        for number in 0..200_u8 {
            let offset = u64::from(number) * 4096;
            let data = vec![number + 1; 4096].into();
            let written = volume.writes.write(&volume.file, offset, data);
            // Every other one is given up on.
            writing.extend(Some(written).filter(|_| number % 2 == 1));
        }
        for written in writing {
            written.await.unwrap().unwrap();
        }
        for number in 0..200_u8 {
            let (mut block, offset) = ([0; 4096], Bytes::from_kib(u32::from(number) * 4));
            volume.read_at(offset, &mut block).await.unwrap();
            assert!(block.iter().all(|byte| *byte == number + 1), "{number}");
        }
    }

    #[tokio::test]
    async fn after_one_failed_sync_none_succeeds_whoever_waited_for_it() {
        let volume = FileVolume::new(tempfile::tempfile().unwrap()).unwrap();
        volume.flush().await.unwrap();
        volume.flushes.has_failed.store(true, Ordering::Release);
        volume.flush().await.unwrap_err();
    }
}
