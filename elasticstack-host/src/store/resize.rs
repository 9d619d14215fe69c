//! Changing the size of drives on directory arrays.

use std::sync::Arc;

use async_trait::async_trait;
use elasticstack_core::block::{DriveSpec, Resize};
use elasticstack_core::prelude::*;

use super::drive::PATIENCE;
use super::{DirectoryStore, blocking};

#[async_trait]
impl Resize for DirectoryStore {
    async fn resize(&self, spec: &DriveSpec) -> Result<()> {
        let drive = self.catalogue.find(spec.drive)?;
        drive.check_generation(spec.generation)?;
        // Nobody may write past a new end, or see the end move under a request.
        let quiet = drive.quiet(PATIENCE).await?;
        let (catalogue, spec) = (Arc::clone(&self.catalogue), spec.clone());
        blocking(move || {
            let result = drive.revise(
                |record| {
                    drive.check_generation(spec.generation)?;
                    if (record.array, record.account) != (spec.array, spec.account) {
                        let public = format!(
                            "drive {} lies on array {} and does not change its array or owner",
                            spec.drive, record.array
                        );
                        return Err(Error::new(ErrorKind::ChangedMeanwhile, public));
                    }
                    if spec.size > record.size {
                        catalogue.promise_more(&drive, spec.size)?;
                    }
                    record.size = spec.size;
                    record.generation = spec.generation;
                    Ok(())
                },
                |old, new| drive.array.resize(old.size, new),
            );
            drive.set_promise(drive.size());
            drop(quiet);
            result.map(drop)
        })
        .await
    }
}

#[cfg(test)]
mod tests {
    use elasticstack_core::block::BlockStore as _;

    use super::super::tests::{
        all, contents, drive_id, fill, generation, open_store, refused, scratch, spec,
    };
    use super::*;

    fn sized(mib: u32, number: u64) -> DriveSpec {
        DriveSpec { generation: generation(number), ..spec(1, mib) }
    }

    #[tokio::test]
    async fn growing_adds_zeros_and_shrinking_forgets_what_is_cut_off() {
        let root = scratch();
        let store = open_store(root.path());
        refused(store.resize(&sized(1, 1)).await, ErrorKind::NotFound);
        store.create(&sized(2, 1)).await.unwrap();
        let volume = store.open(drive_id(1), Epoch(1)).await.unwrap();
        fill(&*volume, 7).await;
        let mib = 1 << 20;
        for (number, size, kept) in [(2, 3, 2), (3, 1, 1), (4, 2, 1)] {
            for _repeated in 0..2 {
                store.resize(&sized(size, number)).await.unwrap();
                assert_eq!(volume.size(), Bytes::from_mib(size));
                let bytes = contents(&*volume).await;
                let (old, new) = bytes.split_at(kept * mib);
                assert!(all(old, 7) && all(new, 0), "at generation {number}");
            }
        }
        refused(volume.read_at(Bytes::from_mib(2), &mut [0]).await, ErrorKind::InvalidValue);
        drop((store, volume));
        let report = open_store(root.path()).list().await.unwrap().remove(0);
        assert_eq!((report.spec, report.epoch), (sized(2, 4), Epoch(1)));
    }

    #[tokio::test]
    async fn old_generations_and_sizes_beyond_the_array_change_nothing() {
        let root = scratch();
        let store = open_store(root.path());
        store.create(&sized(2, 5)).await.unwrap();
        store.create(&spec(2, 10)).await.unwrap();
        refused(store.resize(&sized(1, 4)).await, ErrorKind::Stale);
        refused(store.resize(&sized(7, 6)).await, ErrorKind::NoCapacity);
        let elsewhere = DriveSpec { array: super::super::tests::array_id(2), ..sized(3, 6) };
        refused(store.resize(&elsewhere).await, ErrorKind::ChangedMeanwhile);
        let promised = async || store.capacity().await.unwrap().remove(0).promised;
        assert_eq!(promised().await, Bytes::from_mib(12));
        assert_eq!(store.list().await.unwrap().remove(0).spec, sized(2, 5));
        store.resize(&sized(6, 6)).await.unwrap();
        assert_eq!(promised().await, Bytes::from_mib(16));
        store.resize(&sized(2, 7)).await.unwrap();
        store.create(&spec(3, 4)).await.unwrap();
    }
}
