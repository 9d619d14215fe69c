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
