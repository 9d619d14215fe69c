//! The writes and flushes of one file, of whoever asks. What is asked while some are under way is
//! done after them, together: one thread at a time does all that waits, its writes at once and then
//! one flush for those that want to be durable.
//!
//! Writes go past the page cache, by a [`Ring`], where the file system and the kernel have it and a
//! write begins and ends with a block; others go through the page cache, after those. So no page is
//! dirty while one goes past it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use rustix::fs::{Timestamps, UTIME_NOW, UTIME_OMIT, futimens};
use rustix::time::{ClockId, Timespec, clock_gettime};
use tokio::sync::oneshot;

use super::file::BLOCK;
use crate::iscsi::ALIGNMENT;
use crate::sys::ring::Ring;

/// The writes and flushes of a file.
#[derive(Debug)]
pub(super) struct Writer {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug)]
struct Queue {
    waiting: Vec<Wanted>,
    /// The file, unless a thread has it, which then does what waits.
    disk: Option<Disk>,
}

/// What is asked for.
#[derive(Debug)]
struct Wanted {
    /// Bytes and where they go.
    write: Option<(u64, Bytes)>,
    keeping: Keeping,
    done: oneshot::Sender<io::Result<()>>,
}

/// How far a write goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping {
    /// Until it is read back.
    Written,
    /// Until it outlives a loss of power.
    Durable,
}

impl Writer {
    /// Writes `file`, and past the page cache where there are the same file opened for that and a ring.
    pub(super) fn new(file: Arc<File>, past: Option<(File, Ring)>) -> Self {
        let past = past.map(|(file, ring)| Past { file, ring, touched: None });
        let disk = Some(Disk { file, past, has_failed: false });
        Self { queue: Arc::new(Mutex::new(Queue { waiting: Vec::new(), disk })) }
    }

    /// Writes `data`. Begun, it is done, whoever gives up on it.
    pub(super) async fn write(&self, offset: u64, data: Bytes, keeping: Keeping) -> io::Result<()> {
        answered(self.ask(Some((offset, data)), keeping)).await
    }

    /// Makes all that was written durable. After one failure the kernel forgets which bytes were lost,
    /// so that later ones would succeed in error: none does.
    pub(super) async fn flush(&self) -> io::Result<()> {
        answered(self.ask(None, Keeping::Durable)).await
    }

    fn ask(
        &self,
        write: Option<(u64, Bytes)>,
        keeping: Keeping,
    ) -> oneshot::Receiver<io::Result<()>> {
        let (done, answer) = oneshot::channel();
        let mut queue = lock(&self.queue);
        queue.waiting.push(Wanted { write, keeping, done });
        if let Some(disk) = queue.disk.take() {
            let queue = Arc::clone(&self.queue);
            tokio::task::spawn_blocking(move || work(&queue, disk));
        }
        answer
    }
}

async fn answered(answer: oneshot::Receiver<io::Result<()>>) -> io::Result<()> {
    answer.await.unwrap_or_else(|_| Err(io::Error::other("what writes has ended")))
}

/// Does what waits until nothing does.
fn work(queue: &Mutex<Queue>, mut disk: Disk) {
    loop {
        let batch = {
            let mut queue = lock(queue);
            if queue.waiting.is_empty() {
                queue.disk = Some(disk);
                return;
            }
            std::mem::take(&mut queue.waiting)
        };
        disk.perform(batch);
    }
}

fn lock(queue: &Mutex<Queue>) -> MutexGuard<'_, Queue> {
    queue.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
struct Disk {
    file: Arc<File>,
    past: Option<Past>,
    has_failed: bool,
}

/// The way past the page cache.
#[derive(Debug)]
struct Past {
    file: File,
    ring: Ring,
    /// When the file was last said to have changed.
    touched: Option<Timespec>,
}

impl Past {
    fn write_all(&mut self, pieces: &[(u64, &[u8])]) -> Vec<io::Result<()>> {
        self.touch();
        self.ring.write_all(&self.file, pieces)
    }

    /// Says that the file changed now, by the clock that file systems have, which moves every few
    /// milliseconds. Writes that would have to say so wait for locks, so the kernel gives each of them
    /// to a thread of its own, which costs more than the write.
    fn touch(&mut self) {
        let now = clock_gettime(ClockId::RealtimeCoarse);
        if self.touched.replace(now) != Some(now) {
            let of = |tv_nsec| Timespec { tv_sec: 0, tv_nsec };
            let times =
                Timestamps { last_access: of(UTIME_OMIT), last_modification: of(UTIME_NOW) };
            // Without it they are written all the same.
            let _ = futimens(&self.file, &times);
        }
    }
}

impl Disk {
    fn perform(&mut self, batch: Vec<Wanted>) {
        let pieces: Vec<_> = batch.iter().filter_map(|wanted| wanted.write.as_ref()).collect();
        let mut written = self.write(&pieces).into_iter();
        let is_durable = |wanted: &Wanted| wanted.keeping == Keeping::Durable;
        let synced = if batch.iter().any(is_durable) { self.sync() } else { Ok(()) };
        for wanted in batch {
            let written = wanted.write.as_ref().and_then(|_| written.next()).unwrap_or(Ok(()));
            let result = match (written, &synced) {
                (Ok(()), Err(error)) if is_durable(&wanted) => Err(same(error)),
                (written, _) => written,
            };
            let _ = wanted.done.send(result);
        }
    }

    fn write(&mut self, pieces: &[&(u64, Bytes)]) -> Vec<io::Result<()>> {
        let Self { file, past, .. } = self;
        let mut results: Vec<_> = pieces.iter().map(|_| None).collect();
        if let Some(past) = past {
            let may = |(_, piece): &(usize, &&(u64, Bytes))| is_of_blocks(piece);
            let (places, whole): (Vec<_>, Vec<_>) = pieces
                .iter()
                .enumerate()
                .filter(may)
                .map(|(place, (offset, data))| (place, (*offset, &data[..])))
                .unzip();
            for (place, result) in places.into_iter().zip(past.write_all(&whole)) {
                // What takes larger blocks says so.
                let is_refused = |error: &io::Error| error.kind() == io::ErrorKind::InvalidInput;
                if let Some(to) = results.get_mut(place)
                    && !result.as_ref().is_err_and(is_refused)
                {
                    *to = Some(result);
                }
            }
        }
        let all = results.into_iter().zip(pieces);
        all.map(|(result, (offset, data))| {
            result.unwrap_or_else(|| file.write_all_at(data, *offset))
        })
        .collect()
    }

    fn sync(&mut self) -> io::Result<()> {
        if self.has_failed {
            return Err(io::Error::other("an earlier sync failed and its bytes are lost"));
        }
        self.file.sync_data().inspect_err(|_| self.has_failed = true)
    }
}

/// Whether disks take a write as it is.
fn is_of_blocks((offset, data): &(u64, Bytes)) -> bool {
    let is_block = |number: u64| number.is_multiple_of(BLOCK.get());
    is_block(*offset)
        && u64::try_from(data.len()).is_ok_and(is_block)
        && data.as_ptr().addr().is_multiple_of(ALIGNMENT)
}

/// An error for one more to whom it happened.
fn same(error: &io::Error) -> io::Error {
    let other = || io::Error::new(error.kind(), error.to_string());
    error.raw_os_error().map_or_else(other, io::Error::from_raw_os_error)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    /// A file of a mebibyte, and the writer of it.
    fn written(past: bool) -> (Arc<File>, Writer) {
        let named = tempfile::NamedTempFile::new_in("/var/tmp").unwrap();
        named.as_file().set_len(1 << 20).unwrap();
        let past = past.then(|| {
            use std::os::unix::fs::OpenOptionsExt as _;
            let direct = nix::fcntl::OFlag::O_DIRECT.bits();
            let file = File::options().write(true).custom_flags(direct).open(named.path());
            let file = file.unwrap();
            let ring = Ring::new(file.as_fd()).unwrap();
            (file, ring)
        });
        let file = Arc::new(named.into_file());
        (Arc::clone(&file), Writer::new(file, past))
    }

    fn aligned(bytes: &[u8]) -> Bytes {
        let mut buffer = crate::iscsi::aligned(bytes.len());
        buffer.extend_from_slice(bytes);
        buffer.freeze()
    }

    #[tokio::test]
    async fn writes_are_all_done_whoever_still_waits_for_them_and_whichever_way_they_go() {
        for past in [false, true] {
            let (file, writer) = written(past);
            let mut writing = Vec::new();
            for number in 0..200_u8 {
                let offset = u64::from(number) * 4096;
                // Whole blocks, blocks that are aligned to nothing, and parts of blocks.
                let data = match number % 3 {
                    0 => aligned(&[number + 1; 4096]),
                    1 => aligned(&[number + 1; 4097]).slice(1..),
                    _ => aligned(&[number + 1; 512]),
                };
                let answer = writer.ask(Some((offset, data)), Keeping::Written);
                // Every other one is given up on.
                writing.extend(Some(answer).filter(|_| number % 2 == 1));
            }
            for answer in writing {
                answered(answer).await.unwrap();
            }
            writer.flush().await.unwrap();
            for number in 0..200_u8 {
                let length = if number % 3 == 2 { 512 } else { 4096 };
                let mut block = [0; 4096];
                file.read_exact_at(&mut block, u64::from(number) * 4096).unwrap();
                let (told, rest) = block.split_at(length);
                assert!(told.iter().all(|byte| *byte == number + 1), "{number}");
                assert!(rest.iter().all(|byte| *byte == 0), "{number}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_asked_meanwhile_shares_one_flush_and_after_one_failed_none_succeeds() {
        let (_, writer) = written(false);
        let Some(mut disk) = lock(&writer.queue).disk.take() else { unreachable!() };
        // A thread has the file: these wait.
        let write = |keeping| writer.ask(Some((0, Bytes::from_static(b"bytes"))), keeping);
        let answers =
            [write(Keeping::Written), write(Keeping::Durable), writer.ask(None, Keeping::Durable)];
        let batch = std::mem::take(&mut lock(&writer.queue).waiting);
        assert_eq!(batch.len(), answers.len());
        disk.has_failed = true;
        disk.perform(batch);
        let [written, durable, flushed] = answers;
        answered(written).await.unwrap();
        answered(durable).await.unwrap_err();
        answered(flushed).await.unwrap_err();
        lock(&writer.queue).disk = Some(disk);
        writer.flush().await.unwrap_err();
    }

    #[test]
    fn what_goes_past_the_page_cache_begins_and_ends_with_a_block() {
        let block = aligned(&[1; 8192]);
        for (offset, data, may) in [
            (0, block.clone(), true),
            (4096, block.slice(512..4608), true),
            (512, block.slice(..4096), false),
            (0, block.slice(..512), false),
            (0, block.slice(1..4097), false),
        ] {
            assert_eq!(is_of_blocks(&(offset, data)), may, "{offset}");
        }
    }
}
