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
        Ok(found.and_then(|found| start_and_length(found, self.size())))
    }

    fn attachment(&self) -> Option<Attachment> {
        Some(Attachment::File(self.drive.array.raw(self.id)))
    }
}

/// Frees a range of a file, or writes zeros where the file system can't free any.
pub(crate) fn punch(file: &File, offset: Bytes, length: Bytes) -> io::Result<()> {
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

/// Writes what `source` holds to `target`, which is empty, and leaves holes where it has some.
pub(super) fn copy(source: &File, target: &File) -> io::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    let mut position = 0;
    while let Some((start, end)) = next_data(source, position)? {
        position = start;
        while position < end {
            let rest = usize::try_from(end.saturating_sub(position)).unwrap_or(usize::MAX);
            let (piece, _) = buffer.split_at_mut(rest.min(1 << 20));
            source.read_exact_at(piece, position)?;
            target.write_all_at(piece, position)?;
            position = position.saturating_add(length_of(piece.len()));
        }
    }
    Ok(())
}

/// Where the first data at or after `offset` begins and ends. Moves the file's position, which
/// nothing here relies on.
pub(crate) fn next_data(file: &File, offset: u64) -> io::Result<Option<(u64, u64)>> {
    let start = match rustix::fs::seek(file, SeekFrom::Data(offset)) {
        Ok(start) => start,
        Err(Errno::NXIO) => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let end = rustix::fs::seek(file, SeekFrom::Hole(start))?;
    Ok(Some((start, end)))
}

/// What of a range that [`next_data`] found lies on a drive of this size, if anything does.
pub(crate) fn start_and_length((start, end): (u64, u64), size: Bytes) -> Option<(Bytes, Bytes)> {
    let start = Bytes::try_from(start).ok()?;
    let end = Bytes::try_from(end).map_or(size, |end| end.min(size));
    (start < end).then(|| (start, end.saturating_sub(start)))
}

/// A length in memory as one on disk.
fn length_of(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use elasticstack_core::block::BlockStore as _;
    use proptest::prelude::*;

    use super::super::DirectoryStore;
    use super::super::tests::{
        all, contents, drive_id, fill, generation, open_store, refused, scratch, spec,
    };
    use super::*;

    fn at(offset: u64) -> Bytes {
        Bytes::try_from(offset).unwrap()
    }

    async fn open(store: &DirectoryStore) -> Arc<dyn Volume> {
        store.open(drive_id(1), Epoch(1)).await.unwrap()
    }

    #[test]
    fn without_holes_zeros_are_written_and_nothing_beside_them() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&vec![7; 3 << 20], 0).unwrap();
        write_zeros(&file, 5, (2 << 20) + 1).unwrap();
        let mut bytes = vec![1; 3 << 20];
        file.read_exact_at(&mut bytes, 0).unwrap();
        let end = 5 + (2 << 20) + 1;
        assert!(bytes[..5].iter().chain(&bytes[end..]).all(|byte| *byte == 7));
        assert!(all(&bytes[5..end], 0));
    }

    #[tokio::test]
    async fn an_access_past_the_end_changes_nothing_not_even_in_part() {
        let root = scratch();
        let store = open_store(root.path());
        store.create(&spec(1, 1)).await.unwrap();
        let volume = open(&store).await;
        fill(&*volume, 7).await;
        let end = volume.size().get();
        for (offset, length) in [(end, 1), (end - 1, 2), (0, 2 << 20), (u64::MAX >> 1, 1)] {
            let mut buffer = vec![1; usize::try_from(length).unwrap()];
            refused(volume.read_at(at(offset), &mut buffer).await, ErrorKind::InvalidValue);
            assert!(all(&buffer, 1));
            let write = volume.write_at(at(offset), buffer.into());
            refused(write.await, ErrorKind::InvalidValue);
            refused(volume.discard(at(offset), at(length)).await, ErrorKind::InvalidValue);
        }
        refused(volume.next_data(at(end + 1)).await, ErrorKind::InvalidValue);
        assert_eq!(volume.next_data(at(end)).await.unwrap(), None);
        volume.write_at(at(end), bytes::Bytes::new()).await.unwrap();
        assert!(all(&contents(&*volume).await, 7));
        let Some(Attachment::File(path)) = volume.attachment() else { panic!("no file") };
        assert_eq!(std::fs::metadata(path).unwrap().len(), end);
    }

    #[tokio::test]
    async fn after_one_failed_sync_none_succeeds() {
        let root = scratch();
        let store = open_store(root.path());
        store.create(&spec(1, 1)).await.unwrap();
        let volume = open(&store).await;
        volume.flush().await.unwrap();
        let drive = store.catalogue.find(drive_id(1)).unwrap();
        drive.sync(|| Err(io::Error::other("the disk is broken, says the test"))).unwrap_err();
        refused(volume.flush().await, ErrorKind::Internal);
        refused(open(&store).await.flush().await, ErrorKind::Internal);
    }

    #[tokio::test]
    async fn an_access_whose_caller_went_away_still_counts_as_in_flight() {
        let root = scratch();
        let store = open_store(root.path());
        store.create(&spec(1, 1)).await.unwrap();
        let drive = store.catalogue.find(drive_id(1)).unwrap();
        let volume = FileVolume::open(drive.clone(), drive_id(1), Epoch(1)).unwrap();
        let (finish, told) = std::sync::mpsc::channel::<()>();
        let access = volume.access("waiting for", (Bytes::ZERO, 1), move |_, _| {
            told.recv().map_err(io::Error::other)
        });
        tokio::time::timeout(Duration::ZERO, access).await.unwrap_err();
        refused(drive.quiet(Duration::ZERO).await, ErrorKind::Unavailable);
        finish.send(()).unwrap();
        drive.quiet(Duration::from_secs(60)).await.unwrap();
    }

    #[derive(Debug, Clone)]
    enum Step {
        Write { offset: usize, length: usize, byte: u8 },
        Discard { offset: usize, length: usize },
        Read { offset: usize, length: usize },
        Resize { mib: u32 },
        Flush,
        Reopen,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        // Sometimes past the end, which is at 1 to 3 MiB.
        let range = || (0..4_usize << 20, 0..300_000_usize);
        let step = prop_oneof![
            4 => (range(), 1..=255_u8)
                .prop_map(|((offset, length), byte)| Step::Write { offset, length, byte }),
            2 => range().prop_map(|(offset, length)| Step::Discard { offset, length }),
            2 => range().prop_map(|(offset, length)| Step::Read { offset, length }),
            1 => (1..=3_u32).prop_map(|mib| Step::Resize { mib }),
            1 => Just(Step::Flush),
            1 => Just(Step::Reopen),
        ];
        proptest::collection::vec(step, 1..30)
    }

    /// Every byte outside of what `next_data` tells is zero.
    async fn check_holes(volume: &dyn Volume, model: &[u8]) {
        let mut position = 0;
        while let Some((start, length)) = volume.next_data(at(position)).await.unwrap() {
            assert!(start.get() >= position && length > Bytes::ZERO);
            let (from, to) = (usize::try_from(position), usize::try_from(start.get()));
            assert!(all(&model[from.unwrap()..to.unwrap()], 0));
            position = start.get() + length.get();
        }
        assert!(all(&model[usize::try_from(position).unwrap()..], 0));
    }

    async fn run(steps: Vec<Step>) {
        let root = scratch();
        let mut store = open_store(root.path());
        store.create(&spec(1, 2)).await.unwrap();
        let mut volume = open(&store).await;
        let mut model = vec![0; 2 << 20];
        for (number, step) in (2..).zip(steps) {
            let done = match step {
                Step::Write { offset, length, byte } => {
                    let data = vec![byte; length];
                    let done = volume.write_at(at(length_of(offset)), data.into()).await;
                    (done, model.get_mut(offset..offset + length).map(|range| range.fill(byte)))
                }
                Step::Discard { offset, length } => {
                    let done = volume.discard(at(length_of(offset)), at(length_of(length))).await;
                    (done, model.get_mut(offset..offset + length).map(|range| range.fill(0)))
                }
                Step::Read { offset, length } => {
                    let mut bytes = vec![1; length];
                    let done = volume.read_at(at(length_of(offset)), &mut bytes).await;
                    let expected = model.get(offset..offset + length);
                    (done, expected.map(|expected| assert!(expected == bytes)))
                }
                Step::Resize { mib } => {
                    model.resize(usize::try_from(mib).unwrap() << 20, 0);
                    let spec = super::super::tests::spec(1, mib);
                    let spec = elasticstack_core::block::DriveSpec {
                        generation: generation(number),
                        ..spec
                    };
                    (store.resizer().unwrap().resize(&spec).await, Some(()))
                }
                Step::Flush => (volume.flush().await, Some(())),
                Step::Reopen => {
                    drop((volume, store));
                    store = open_store(root.path());
                    volume = open(&store).await;
                    (Ok(()), Some(()))
                }
            };
            match done {
                (done, Some(())) => done.unwrap(),
                (refusal, None) => drop(refused(refusal, ErrorKind::InvalidValue)),
            }
        }
        assert!(contents(&*volume).await == model);
        check_holes(&*volume, &model).await;
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn a_volume_is_a_vector_of_bytes_that_outlives_its_store(steps in steps()) {
            tokio::runtime::Runtime::new().unwrap().block_on(run(steps));
        }
    }
}
