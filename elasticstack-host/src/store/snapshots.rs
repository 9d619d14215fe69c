//! Snapshots of drives on directory arrays: by sharing blocks where the file system can (reflinks),
//! else by copying the bytes.
//!
//! Sharing takes what is in the file at one instant, while whoever has it open goes on writing:
//! the kernel keeps writes out of it for that long. Copying can't, so a drive that somebody may
//! write past this store is not copied.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use async_trait::async_trait;
use elasticstack_core::block::{Cloned, SnapshotReport, Snapshots, Writers};
use elasticstack_core::prelude::*;

use super::clone::reflink;
use super::directory::failed;
use super::drive::{PATIENCE, fenced, unknown as unknown_drive};
use super::extents::{self, lay_out};
use super::layout::SnapshotRecord;
use super::snapshot::unknown;
use super::volume::copy;
use super::{DirectoryStore, blocking};

#[async_trait]
impl Snapshots for DirectoryStore {
    async fn take_snapshot(
        &self,
        snapshot: SnapshotId,
        drive: DriveId,
        writers: Writers,
    ) -> Result<()> {
        let known = self.catalogue.find_snapshot(snapshot);
        if let Some(known) = known.ok().flatten().filter(|known| known.is_there()) {
            return same_drive(&known.record, drive);
        }
        let source = self.catalogue.find(drive)?;
        let raw = source.array.raw(drive);
        let path = raw.clone();
        blocking(move || {
            File::open(&path)
                .and_then(|file| extents::check(&file, drive, writers))
                .map_err(failed("looking at", &path))?
        })
        .await?;
        let quiet = source.quiet(PATIENCE).await?;
        let catalogue = Arc::clone(&self.catalogue);
        blocking(move || {
            let of = source.record().ok_or_else(|| unknown_drive(drive))?;
            let record = SnapshotRecord::new(snapshot, &of);
            let taken = catalogue.find_or_promise_snapshot(&source.array, record)?;
            same_drive(&taken.record, drive)?;
            let mut refused = false;
            let made = taken.make(|file| {
                let from = File::open(&raw)?;
                match (reflink(&from, file)?, writers) {
                    (Cloned::Shared, _) => Ok(()),
                    (Cloned::MustCopy, Writers::Volumes) => {
                        copy(&from, file)?;
                        file.set_len(of.size.get())
                    }
                    (Cloned::MustCopy, Writers::Attached) => {
                        refused = true;
                        Err(io::ErrorKind::Unsupported.into())
                    }
                }
            });
            drop(quiet);
            if taken.is_gone() {
                catalogue.forget_snapshot(snapshot, &taken);
            }
            if refused { Err(must_be_still(&source.array.name)) } else { made }
        })
        .await
    }

    async fn restore_snapshot(&self, snapshot: SnapshotId, epoch: Epoch) -> Result<()> {
        let found = self.catalogue.find_snapshot(snapshot)?;
        let found = found.ok_or_else(|| unknown(snapshot))?;
        let drive = self.catalogue.find(found.record.drive)?;
        let quiet = drive.quiet(PATIENCE).await?;
        blocking(move || {
            let _held = found.hold()?;
            let (id, size) = (found.record.drive, found.record.size);
            drive.redo(
                |record| {
                    if epoch < record.epoch {
                        return Err(fenced(id, epoch, record.epoch));
                    }
                    if record.size < size {
                        return Err(too_small(record.size, size));
                    }
                    record.fence = epoch;
                    record.epoch = epoch;
                    Ok(())
                },
                |_, new| drive.array.drives.put(new, |file| fill(file, &found.raw(), new.size)),
            )?;
            drop(quiet);
            Ok(())
        })
        .await
    }

    async fn destroy_snapshot(&self, snapshot: SnapshotId) -> Result<()> {
        let Some(found) = self.catalogue.find_snapshot(snapshot)? else { return Ok(()) };
        let catalogue = Arc::clone(&self.catalogue);
        blocking(move || {
            found.destroy()?;
            catalogue.forget_snapshot(snapshot, &found);
            Ok(())
        })
        .await
    }

    async fn list_snapshots(&self) -> Result<Vec<SnapshotReport>> {
        Ok(self.catalogue.snapshot_reports())
    }
}

/// Makes an empty file hold what a snapshot does, then zeros up to `size`.
fn fill(file: &File, snapshot: &Path, size: Bytes) -> io::Result<()> {
    lay_out(file)?;
    let from = File::open(snapshot)?;
    if reflink(&from, file)? == Cloned::MustCopy {
        copy(&from, file)?;
    }
    file.set_len(size.get())
}

fn same_drive(record: &SnapshotRecord, drive: DriveId) -> Result<()> {
    let SnapshotRecord { snapshot, drive: found, .. } = record;
    if *found == drive {
        return Ok(());
    }
    let public = format!("snapshot {snapshot} exists already, of drive {found}, not {drive}");
    Err(Error::new(ErrorKind::ChangedMeanwhile, public))
}

fn must_be_still(array: &str) -> Error {
    let public = format!(
        "array {array} cannot share blocks, so that a snapshot is a copy, which takes its time: stop \
         what uses the drive first"
    );
    Error::new(ErrorKind::DriveInUse, public)
}

fn too_small(drive: Bytes, snapshot: Bytes) -> Error {
    let public =
        format!("the snapshot has {snapshot}, the drive only {drive}: grow the drive first");
    Error::new(ErrorKind::InvalidValue, public).field("size")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};
    use std::sync::atomic::{AtomicBool, Ordering};

    use elasticstack_core::block::{Attachment, BlockStore as _, DriveSpec, Volume};

    use super::super::array::Array;
    use super::super::directory::Fuse;
    use super::super::tests::{
        Mounted, all, array, array_id, contents, drive_id, fill, generation, open_arrays,
        open_store, refused, scratch, spec,
    };
    use super::super::{ArrayCapacity, DirectoryArray, KnownArrays};
    use super::*;

    fn snapshot_id(number: u8) -> SnapshotId {
        format!("5a000000-0000-4000-8000-0000000000{number:02x}").parse().unwrap()
    }

    async fn take(store: &DirectoryStore, number: u8, drive: u8) -> Result<()> {
        store.take_snapshot(snapshot_id(number), drive_id(drive), Writers::Volumes).await
    }

    async fn restore(store: &DirectoryStore, number: u8, epoch: u64) -> Result<()> {
        store.restore_snapshot(snapshot_id(number), Epoch(epoch)).await
    }

    /// Drive 1 of 2 MiB, full of `byte` and flushed, opened under `epoch`.
    async fn filled(store: &DirectoryStore, byte: u8, epoch: u64) -> Arc<dyn Volume> {
        store.create(&spec(1, 2)).await.unwrap();
        let volume = store.open(drive_id(1), Epoch(epoch)).await.unwrap();
        fill(&*volume, byte).await;
        volume.flush().await.unwrap();
        volume
    }

    fn array_of(store: &DirectoryStore) -> Arc<Array> {
        store.catalogue.array(array_id(1)).unwrap()
    }

    /// What there is: the bytes of drive 1, and what is known of the snapshots.
    async fn seen(store: &DirectoryStore) -> (Vec<u8>, Vec<SnapshotReport>) {
        let drives = store.list().await.unwrap();
        let report = drives.into_iter().find(|report| report.spec.drive == drive_id(1)).unwrap();
        let volume = store.open(drive_id(1), report.epoch).await.unwrap();
        (contents(&*volume).await, store.list_snapshots().await.unwrap())
    }

    /// Cuts a change off before each of its steps, reopens, and checks that all is as before or as
    /// after it, that nothing is left over, and that doing it again leads to the same end.
    async fn crash_everywhere(
        prepare: impl AsyncFn(&DirectoryStore),
        fuse: impl Fn(&Array) -> &Fuse,
        change: impl AsyncFn(&DirectoryStore) -> Result<()>,
    ) {
        let mut outcomes = [0, 0];
        for steps in 0.. {
            let root = scratch();
            let store = open_store(root.path());
            prepare(&store).await;
            let before = seen(&store).await;
            fuse(&array_of(&store)).set(steps);
            let result = change(&store).await;
            drop(store);

            let store = open_store(root.path());
            let found = seen(&store).await;
            let array = array_of(&store);
            assert_eq!(array.drives.files.names().unwrap().len(), 2);
            assert_eq!(array.snapshots.files.names().unwrap().len(), 2 * found.1.len());
            for report in &found.1 {
                let raw = array.snapshots.raw(report.snapshot);
                assert_eq!(fs::metadata(raw).unwrap().len(), report.size.get());
            }
            drop(array);
            change(&store).await.unwrap();
            let after = seen(&store).await;
            assert!(found == before || found == after, "after {steps} steps");
            assert!(before != after);
            if result.is_ok() {
                assert!(found == after);
                assert!(outcomes.iter().all(|seen| *seen > 0), "{outcomes:?} in {steps} steps");
                return;
            }
            outcomes[usize::from(found == after)] += 1;
        }
    }

    #[tokio::test]
    async fn a_crash_anywhere_leaves_what_was_or_what_is_to_be() {
        let drives: fn(&Array) -> &Fuse = |array| &array.drives.files.fuse;
        let snapshots: fn(&Array) -> &Fuse = |array| &array.snapshots.files.fuse;
        let full = async |store: &DirectoryStore| drop(filled(store, 7, 1).await);
        let taken = async |store: &DirectoryStore| {
            let volume = filled(store, 7, 1).await;
            take(store, 1, 1).await.unwrap();
            fill(&*volume, 9).await;
        };
        crash_everywhere(full, snapshots, async |store| take(store, 1, 1).await).await;
        crash_everywhere(taken, drives, async |store| restore(store, 1, 2).await).await;
        let destroy = async |store: &DirectoryStore| store.destroy_snapshot(snapshot_id(1)).await;
        crash_everywhere(taken, snapshots, destroy).await;
    }

    #[tokio::test]
    async fn a_take_that_fails_leaves_a_store_that_goes_on() {
        let root = scratch();
        let store = open_store(root.path());
        drop(filled(&store, 7, 1).await);
        for steps in 0..12 {
            let fuse = |steps| array_of(&store).snapshots.files.fuse.set(steps);
            fuse(steps);
            let taken = take(&store, 1, 1).await;
            fuse(usize::MAX);
            take(&store, 1, 1).await.unwrap();
            fuse(steps);
            let destroyed = store.destroy_snapshot(snapshot_id(1)).await;
            fuse(usize::MAX);
            store.destroy_snapshot(snapshot_id(1)).await.unwrap();
            assert_eq!(store.list_snapshots().await.unwrap(), [], "{taken:?} {destroyed:?}");
            assert_eq!(store.catalogue.array_reports()[0].promised, Bytes::from_mib(2));
        }
    }

    #[tokio::test]
    async fn drives_and_snapshots_never_share_a_promise() {
        let root = scratch();
        let store = Arc::new(open_store(root.path()));
        store.create(&spec(1, 3)).await.unwrap();
        let mut under_way = Vec::new();
        for number in 2..=12 {
            let (creating, taking) = (Arc::clone(&store), Arc::clone(&store));
            under_way.push(tokio::spawn(async move { creating.create(&spec(number, 3)).await }));
            under_way.push(tokio::spawn(async move { take(&taking, number, 1).await }));
        }
        let mut made = 0;
        for task in under_way {
            match task.await.unwrap() {
                Ok(()) => made += 1,
                refusal => drop(refused(refusal, ErrorKind::NoCapacity)),
            }
        }
        let there = store.list().await.unwrap().len() + store.list_snapshots().await.unwrap().len();
        assert_eq!((made, there), (4, 5));
        assert_eq!(store.capacity().await.unwrap()[0].promised, Bytes::from_mib(15));
    }

    #[tokio::test]
    async fn a_directory_brings_its_snapshots_along() {
        let (root, elsewhere) = (scratch(), scratch());
        let store = open_store(root.path());
        let volume = filled(&store, 7, 1).await;
        take(&store, 1, 1).await.unwrap();
        fill(&*volume, 9).await;
        let before = store.list_snapshots().await.unwrap();
        drop((store, volume));
        fs::rename(root.path().join("1"), elsewhere.path().join("5")).unwrap();
        let moved =
            DirectoryArray { path: elsewhere.path().join("5"), ..array(elsewhere.path(), 1) };
        let known = KnownArrays::read(elsewhere.path()).unwrap();
        let store = DirectoryStore::open(known, vec![moved]).unwrap();
        assert_eq!(store.list_snapshots().await.unwrap(), before);
        restore(&store, 1, 2).await.unwrap();
        assert!(all(&seen(&store).await.0, 7));
    }

    #[tokio::test]
    async fn a_snapshot_on_an_array_that_failed_is_out_of_reach_and_not_gone() {
        let root = scratch();
        let store = open_store(root.path());
        drop(filled(&store, 7, 1).await);
        take(&store, 1, 1).await.unwrap();
        drop(store);
        fs::rename(root.path().join("1"), root.path().join("aside")).unwrap();
        let store = open_store(root.path());
        assert_eq!(store.list_snapshots().await.unwrap(), []);
        refused(store.destroy_snapshot(snapshot_id(1)).await, ErrorKind::Unavailable);
        refused(restore(&store, 1, 2).await, ErrorKind::Unavailable);
        refused(take(&store, 1, 1).await, ErrorKind::Unavailable);
        let on_two = DriveSpec { array: array_id(2), ..spec(2, 1) };
        store.create(&on_two).await.unwrap();
        take(&store, 2, 2).await.unwrap();
        store.destroy_snapshot(snapshot_id(2)).await.unwrap();
        drop(store);
        fs::rename(root.path().join("aside"), root.path().join("1")).unwrap();
        let store = open_store(root.path());
        restore(&store, 1, 2).await.unwrap();
        assert!(all(&seen(&store).await.0, 7));
    }

    #[tokio::test]
    async fn a_copy_keeps_holes_and_is_not_made_of_a_drive_that_others_may_write() {
        let root = scratch();
        let store = open_store(root.path());
        store.create(&spec(1, 8)).await.unwrap();
        let volume = store.open(drive_id(1), Epoch(1)).await.unwrap();
        volume.write_at(Bytes::from_mib(3), vec![7; 8192].into()).await.unwrap();
        let beside = store.take_snapshot(snapshot_id(9), drive_id(1), Writers::Attached).await;
        match beside {
            Ok(()) => store.destroy_snapshot(snapshot_id(9)).await.unwrap(),
            refusal => drop(refused(refusal, ErrorKind::DriveInUse)),
        }
        assert_eq!(store.list_snapshots().await.unwrap(), []);
        take(&store, 1, 1).await.unwrap();
        let raw = fs::metadata(array_of(&store).snapshots.raw(snapshot_id(1))).unwrap();
        assert!(raw.len() == 8 << 20 && raw.blocks() <= 64, "{} blocks", raw.blocks());
        fill(&*volume, 9).await;
        restore(&store, 1, 2).await.unwrap();
        let bytes = seen(&store).await.0;
        let (head, rest) = bytes.split_at(3 << 20);
        assert!(all(head, 0) && all(&rest[..8192], 7) && all(&rest[8192..], 0));
        refused(volume.flush().await, ErrorKind::Fenced);
        store.destroy(drive_id(1), generation(1)).await.unwrap();
        refused(restore(&store, 1, 3).await, ErrorKind::NotFound);
    }

    /// A program that writes past the store, as a guest does: block 0, then the last one, again
    /// and again with the number of the round.
    #[tokio::test]
    #[ignore = "needs root and loop devices: cargo xtask test"]
    async fn on_xfs_a_snapshot_beside_a_writing_process_is_of_one_instant() {
        let (root, image) = (scratch(), scratch());
        let mounted = Mounted::xfs(&image.path().join("xfs"), root.path());
        let capacity = ArrayCapacity::Fixed(Bytes::from_mib(64));
        let config = DirectoryArray { capacity, ..array(root.path(), 1) };
        let store = open_arrays(root.path(), vec![config]);
        store.create(&spec(1, 4)).await.unwrap();
        let volume = store.open(drive_id(1), Epoch(1)).await.unwrap();
        let Some(Attachment::File(path)) = volume.attachment() else { panic!("no file") };
        let ended = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&ended);
        let writer = std::thread::spawn(move || {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            for round in 1_u64.. {
                let block = round.to_le_bytes().repeat(512);
                file.write_all_at(&block, 0).unwrap();
                file.write_all_at(&block, LAST).unwrap();
                if told.load(Ordering::SeqCst) {
                    return round;
                }
            }
            0
        });
        for number in 1..=10 {
            let snapshot = snapshot_id(number);
            store.take_snapshot(snapshot, drive_id(1), Writers::Attached).await.unwrap();
        }
        ended.store(true, Ordering::SeqCst);
        let rounds = writer.join().unwrap();
        drop(volume);
        let mut seen = 0;
        for number in 1..=10 {
            restore(&store, number, 1 + u64::from(number)).await.unwrap();
            let volume = store.open(drive_id(1), Epoch(1 + u64::from(number))).await.unwrap();
            let (first, last) = (round_at(&*volume, 0).await, round_at(&*volume, LAST).await);
            assert!(first == last || first == last + 1, "of rounds {first} and {last}");
            assert!((seen..=rounds).contains(&last), "{last} after {seen}");
            seen = last;
        }
        assert!(seen > 0, "nothing was written before the last snapshot");
        drop((store, mounted));
    }

    const LAST: u64 = (4 << 20) - 4096;

    async fn round_at(volume: &dyn Volume, offset: u64) -> u64 {
        let mut block = vec![0; 4096];
        volume.read_at(Bytes::try_from(offset).unwrap(), &mut block).await.unwrap();
        let round: [u8; 8] = block[..8].try_into().unwrap();
        assert_eq!(block, round.repeat(512), "a block is torn");
        u64::from_le_bytes(round)
    }
}
