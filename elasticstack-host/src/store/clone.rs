//! Copying drives of directory arrays by sharing their blocks (reflinks).

use std::fs::{File, OpenOptions};
use std::io;
use std::sync::Arc;

use async_trait::async_trait;
use elasticstack_core::block::{CloneDrive, Cloned, Writers};
use elasticstack_core::prelude::*;
use rustix::io::Errno;

use super::directory::failed;
use super::drive::Drive;
use super::extents;
use super::volume::punch;
use super::{DirectoryStore, blocking};

#[async_trait]
impl CloneDrive for DirectoryStore {
    async fn clone_drive(
        &self,
        source: DriveId,
        target: DriveId,
        writers: Writers,
    ) -> Result<Cloned> {
        let (from, to) = (self.catalogue.find(source)?, self.catalogue.find(target)?);
        if source == target {
            let public = format!("drive {source} can't be a copy of itself");
            return Err(Error::new(ErrorKind::InvalidValue, public));
        }
        // In the order of the ids, so that two clones never wait for each other.
        let (first, second) = if source < target { (&from, &to) } else { (&to, &from) };
        let permits = (first.hold().await?, second.hold().await?);
        if to.size() < from.size() {
            let public =
                format!("the target has {}, less than the source's {}", to.size(), from.size());
            return Err(Error::new(ErrorKind::InvalidValue, public));
        }
        if !Arc::ptr_eq(&from.array, &to.array) {
            return Ok(Cloned::MustCopy);
        }
        blocking(move || {
            let path = to.array.raw(target);
            let result = share((&from, source), (&to, target), writers);
            drop(permits);
            result.map_err(failed("sharing blocks with", &path))?
        })
        .await
    }
}

fn share(
    (from, source): (&Drive, DriveId),
    (to, target): (&Drive, DriveId),
    writers: Writers,
) -> io::Result<Result<Cloned>> {
    let file = File::open(from.array.raw(source))?;
    let target = OpenOptions::new().write(true).open(to.array.raw(target))?;
    if let Err(refused) = extents::check(&file, source, writers)? {
        return Ok(Err(refused));
    }
    if reflink(&file, &target)? == Cloned::MustCopy {
        return Ok(Ok(Cloned::MustCopy));
    }
    // What the target held beyond the source's end is still there.
    punch(&target, from.size(), to.size().saturating_sub(from.size()))?;
    to.sync(|| target.sync_all())?;
    Ok(Ok(Cloned::Shared))
}

/// Has `target` share all blocks of `source`, as they are at one instant.
pub(super) fn reflink(source: &File, target: &File) -> io::Result<Cloned> {
    match rustix::fs::ioctl_ficlone(target, source) {
        Ok(()) => Ok(Cloned::Shared),
        Err(Errno::OPNOTSUPP | Errno::NOTTY | Errno::NOSYS | Errno::XDEV | Errno::INVAL) => {
            Ok(Cloned::MustCopy)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use elasticstack_core::block::{BlockStore as _, DriveSpec};

    use super::super::tests::{
        Mounted, all, array, array_id, contents, drive_id, fill, open_arrays, open_store, refused,
        scratch, spec,
    };
    use super::super::{ArrayCapacity, DirectoryArray};
    use super::*;

    /// Clones 2 MiB into 4 MiB that held something else, checks whatever came of it, and tells.
    async fn clone_and_check(root: &Path) -> Cloned {
        let store = open_store(root);
        store.create(&spec(1, 2)).await.unwrap();
        store.create(&spec(2, 4)).await.unwrap();
        let source = store.open(drive_id(1), Epoch(1)).await.unwrap();
        let target = store.open(drive_id(2), Epoch(1)).await.unwrap();
        fill(&*source, 7).await;
        fill(&*target, 9).await;
        let cloned = store.clone_drive(drive_id(1), drive_id(2), Writers::Volumes).await.unwrap();
        eprintln!("cloning on {} came to {cloned:?}", root.display());
        let bytes = contents(&*target).await;
        match cloned {
            Cloned::MustCopy => assert!(all(&bytes, 9)),
            Cloned::Shared => {
                let (copy, rest) = bytes.split_at(2 << 20);
                assert!(all(copy, 7) && all(rest, 0));
                fill(&*source, 1).await;
                target.write_at(Bytes::ZERO, vec![3; 4096].into()).await.unwrap();
                let bytes = contents(&*target).await;
                assert!(all(&bytes[..4096], 3) && all(&bytes[4096..2 << 20], 7));
                assert!(all(&contents(&*source).await, 1));
            }
        }
        cloned
    }

    #[tokio::test]
    async fn a_clone_is_whole_or_the_target_is_unchanged() {
        clone_and_check(scratch().path()).await;
    }

    #[tokio::test]
    async fn what_cannot_be_cloned_is_refused_or_to_be_copied() {
        let root = scratch();
        let store = open_store(root.path());
        store.create(&spec(1, 2)).await.unwrap();
        store.create(&spec(2, 1)).await.unwrap();
        store.create(&DriveSpec { array: array_id(2), ..spec(3, 2) }).await.unwrap();
        let clone = |source, target| {
            store.clone_drive(drive_id(source), drive_id(target), Writers::Volumes)
        };
        refused(clone(1, 2).await, ErrorKind::InvalidValue);
        refused(clone(1, 1).await, ErrorKind::InvalidValue);
        refused(clone(1, 9).await, ErrorKind::NotFound);
        refused(clone(9, 1).await, ErrorKind::NotFound);
        assert_eq!(clone(1, 3).await.unwrap(), Cloned::MustCopy);
    }

    #[tokio::test]
    #[ignore = "needs root and loop devices: cargo xtask test"]
    async fn xfs_shares_blocks_between_drives() {
        let (root, image) = (scratch(), scratch());
        let mounted = Mounted::xfs(&image.path().join("xfs"), root.path());
        assert_eq!(clone_and_check(root.path()).await, Cloned::Shared);
        drop(mounted);
    }

    #[tokio::test]
    #[ignore = "needs root and loop devices: cargo xtask test"]
    async fn a_full_disk_under_an_over_committed_array_is_no_capacity() {
        let (root, image) = (scratch(), scratch());
        let mounted = Mounted::xfs(&image.path().join("xfs"), root.path());
        let capacity = ArrayCapacity::Fixed(Bytes::from_gib(2));
        let config = DirectoryArray { capacity, ..array(root.path(), 1) };
        let store = open_arrays(root.path(), vec![config]);
        store.create(&spec(1, 1024)).await.unwrap();
        let volume = store.open(drive_id(1), Epoch(1)).await.unwrap();
        let mut full = None;
        for mib in 0..1024 {
            let data = vec![7; 1 << 20].into();
            if let Err(error) = volume.write_at(Bytes::from_mib(mib), data).await {
                full = Some(error);
                break;
            }
        }
        assert_eq!(full.map(|error| error.kind()), Some(ErrorKind::NoCapacity));
        volume.discard(Bytes::ZERO, volume.size()).await.unwrap();
        volume.write_at(Bytes::ZERO, vec![7; 1 << 20].into()).await.unwrap();
        volume.flush().await.unwrap();
        drop((store, volume, mounted));
    }
}
