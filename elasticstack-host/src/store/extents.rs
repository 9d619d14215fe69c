//! How drives are laid out on file systems that can be told, and what that spares: sharing the blocks of
//! a drive takes as long as it has extents, and nobody can write it meanwhile.
//!
//! Both figures are justified by `cargo xtask bench clone`.

use std::fs::File;
use std::io;

use elasticstack_core::block::Writers;
use elasticstack_core::prelude::*;

use crate::sys::extents;

/// In steps of what a drive gets room, and a drive that shares blocks gets its own: a drive that was
/// written in any order is then in one extent a step at most once it is full, instead of one a write.
/// What a step has more than was written counts for the drive, and is the file system's to take back
/// where blocks were shared.
const STEP: Bytes = Bytes::from_mib(1);

/// In how many extents the blocks of a drive may be to be shared while somebody writes it: for a third of a
/// second, of the one that a write may wait.
const MOST_WHILE_WRITTEN: u64 = 20_000;

/// Has an empty file get room as a drive does, where its file system can.
pub(super) fn lay_out(file: &File) -> io::Result<()> {
    extents::set_step(file, STEP).map(drop)
}

/// Refuses to have the blocks of `file`, a drive's, shared if that would hold up its `writers` for too
/// long. Blocks, and nobody else, while it brings the drive to the disk, which sharing then need not.
pub(super) fn check(file: &File, drive: DriveId, writers: Writers) -> io::Result<Result<()>> {
    file.sync_data()?;
    if writers == Writers::Volumes {
        return Ok(Ok(()));
    }
    Ok(match extents::count(file)? {
        Some(found) if found > MOST_WHILE_WRITTEN => Err(too_scattered(drive, found)),
        Some(_) | None => Ok(()),
    })
}

fn too_scattered(drive: DriveId, found: u64) -> Error {
    let public = format!(
        "drive {drive} lies in {found} pieces on its array, and to clone it or take a snapshot while it \
         is in use would hold its writes up for too long above {MOST_WHILE_WRITTEN}: stop what uses it \
         first"
    );
    Error::new(ErrorKind::DriveInUse, public)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{FileExt as _, MetadataExt as _};

    use elasticstack_core::block::{Attachment, BlockStore as _, CloneDrive as _, Snapshots as _};

    use super::super::tests::{
        Mounted, array, drive_id, generation, open_arrays, refused, scratch, spec,
    };
    use super::super::{ArrayCapacity, DirectoryArray, DirectoryStore};
    use super::*;

    const BLOCK: u64 = 4096;
    const MIB: u64 = 1 << 20;

    /// A store on an XFS of its own, of 320 MiB, that promises so much.
    fn on_xfs(
        root: &tempfile::TempDir,
        image: &tempfile::TempDir,
        mib: u32,
    ) -> (Mounted, DirectoryStore) {
        let mounted = Mounted::xfs(&image.path().join("xfs"), root.path());
        let capacity = ArrayCapacity::Fixed(Bytes::from_mib(mib));
        let config = DirectoryArray { capacity, ..array(root.path(), 1) };
        let store = open_arrays(root.path(), vec![config]);
        (mounted, store)
    }

    /// A drive as a guest has it.
    async fn attached(store: &DirectoryStore, number: u8) -> File {
        let volume = store.open(drive_id(number), Epoch(1)).await.unwrap();
        let Some(Attachment::File(path)) = volume.attachment() else { panic!("no file") };
        File::options().read(true).write(true).open(path).unwrap()
    }

    /// Checks what a file occupies, but for some blocks that say where its extents are.
    #[track_caller]
    fn occupies(file: &File, bytes: u64) {
        let found = file.metadata().unwrap().blocks() * 512;
        assert!((bytes..bytes + 16 * BLOCK).contains(&found), "{found}, not {bytes}");
    }

    /// Blocks from 0 on in an order in which none follows its neighbour.
    fn scattered(blocks: u64) -> impl Iterator<Item = u64> {
        (0..blocks).map(move |n| n * 4_099 % blocks)
    }

    #[tokio::test]
    #[ignore = "needs root and loop devices: cargo xtask test"]
    async fn on_xfs_a_drive_written_in_any_order_is_in_one_extent_a_step_and_stays_thin() {
        let (root, image) = (scratch(), scratch());
        let (mounted, store) = on_xfs(&root, &image, 64);
        store.create(&spec(1, 16)).await.unwrap();
        let file = attached(&store, 1).await;
        assert_eq!(file.metadata().unwrap().blocks(), 0);
        file.write_all_at(&[7; 4096], 5 * MIB + BLOCK).unwrap();
        file.sync_all().unwrap();
        occupies(&file, STEP.get());
        for block in scattered(16 * MIB / BLOCK) {
            file.write_all_at(&[9; 4096], block * BLOCK).unwrap();
            if block % 8 == 0 {
                file.sync_data().unwrap();
            }
        }
        file.sync_all().unwrap();
        occupies(&file, 16 * MIB);
        let found = extents::count(&file).unwrap().unwrap();
        assert!(found <= 16, "{found} extents");
        let volume = store.open(drive_id(1), Epoch(1)).await.unwrap();
        volume.discard(Bytes::from_mib(1), Bytes::from_kib(1028)).await.unwrap();
        occupies(&file, 15 * MIB - BLOCK);

        // A restored drive is laid out in the same way.
        let snapshot = "5a000000-0000-4000-8000-000000000001".parse().unwrap();
        store.take_snapshot(snapshot, drive_id(1), Writers::Volumes).await.unwrap();
        drop((volume, file));
        store.restore_snapshot(snapshot, Epoch(2)).await.unwrap();
        let path = store.catalogue.find(drive_id(1)).unwrap().array.raw(drive_id(1));
        let file = File::options().read(true).write(true).open(path).unwrap();
        file.write_all_at(&[9; 4096], MIB).unwrap();
        file.sync_all().unwrap();
        occupies(&file, 16 * MIB - BLOCK);
        drop((file, store, mounted));
    }

    #[tokio::test]
    #[ignore = "needs root and loop devices: cargo xtask test"]
    async fn on_xfs_what_would_hold_a_guest_up_for_too_long_is_refused_until_it_is_stopped() {
        let (root, image) = (scratch(), scratch());
        let (mounted, store) = on_xfs(&root, &image, 400);
        for number in [1, 2] {
            store.create(&spec(number, 84)).await.unwrap();
        }
        let file = attached(&store, 1).await;
        let take = async |number: u8, writers| {
            let snapshot = format!("5a000000-0000-4000-8000-0000000000{number:02x}");
            store.take_snapshot(snapshot.parse().unwrap(), drive_id(1), writers).await
        };
        let clone = async |writers| store.clone_drive(drive_id(1), drive_id(2), writers).await;
        // A block that was written, and one that has room and was not.
        for block in (0..MOST_WHILE_WRITTEN - 2).step_by(2) {
            file.write_all_at(&[7; 4096], block * BLOCK).unwrap();
        }
        take(1, Writers::Attached).await.unwrap();
        clone(Writers::Attached).await.unwrap();
        for block in (MOST_WHILE_WRITTEN..MOST_WHILE_WRITTEN + 256).step_by(2) {
            file.write_all_at(&[7; 4096], block * BLOCK).unwrap();
        }
        for error in [
            refused(take(2, Writers::Attached).await, ErrorKind::DriveInUse),
            refused(clone(Writers::Attached).await, ErrorKind::DriveInUse),
        ] {
            let said = error.public_message();
            assert!(said.contains("20000") && said.contains("stop what uses it"), "{said}");
        }
        assert_eq!(store.list_snapshots().await.unwrap().len(), 1);
        take(2, Writers::Volumes).await.unwrap();
        clone(Writers::Volumes).await.unwrap();
        drop((file, store, mounted));
    }

    /// XFS sets more room aside than was written where blocks are shared, and takes it back.
    #[tokio::test]
    #[ignore = "needs root and loop devices: cargo xtask test"]
    async fn on_xfs_what_is_set_aside_never_costs_a_write_that_was_promised_room() {
        let (root, image) = (scratch(), scratch());
        let (mounted, store) = on_xfs(&root, &image, 1);
        drop(store);
        let config = DirectoryArray {
            capacity: ArrayCapacity::Disk { reserve: Bytes::from_mib(16) },
            ..array(root.path(), 1)
        };
        let store = open_arrays(root.path(), vec![config]);
        let capacity = store.capacity().await.unwrap()[0].capacity.get() / MIB;
        let capacity = u32::try_from(capacity).unwrap();
        let mib = capacity / 2;
        store.create(&spec(1, mib)).await.unwrap();
        refused(store.create(&spec(2, capacity - mib + 1)).await, ErrorKind::NoCapacity);
        let file = attached(&store, 1).await;
        let blocks = u64::from(mib) * MIB / BLOCK;
        for round in 1..=4_u8 {
            let snapshot =
                format!("5a000000-0000-4000-8000-0000000000{round:02x}").parse().unwrap();
            store.take_snapshot(snapshot, drive_id(1), Writers::Attached).await.unwrap();
            // Some here and there at first, for which most of the drive is set aside, then all.
            let order = scattered(blocks).step_by(32).chain(0..blocks);
            for block in order {
                file.write_all_at(&[round; 4096], block * BLOCK).unwrap();
            }
            file.sync_all().unwrap();
            store.destroy_snapshot(snapshot).await.unwrap();
        }
        let generation = generation(2);
        drop(file);
        store.destroy(drive_id(1), generation).await.unwrap();
        drop((store, mounted));
    }
}
