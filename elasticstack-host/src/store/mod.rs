//! Keeps drives on *directory* arrays: each a directory, normally the root of a file system of its
//! own, that holds one sparse raw file and one small record a drive, and the same for each
//! snapshot. So disks that move to another host bring their drives and snapshots along.
//!
//! Owns what is on the array, who may open a drive and how much is promised. Does not decide where
//! drives go, nor when they are destroyed.
//!
//! Dropping the future of a change does not stop the change: it runs to its end in its thread.

mod array;
mod catalogue;
mod clone;
mod directory;
mod drive;
mod extents;
#[cfg(test)]
mod failed_tests;
#[cfg(test)]
mod join_tests;
#[cfg(test)]
mod kit;
mod known;
mod layout;
mod resize;
mod shelf;
mod snapshot;
mod snapshots;
#[cfg(test)]
mod tests;
mod volume;

use std::collections::BTreeSet;
use std::sync::Arc;

use async_trait::async_trait;
use elasticstack_core::block::{
    ArrayReport, ArrayState, BlockStore, CloneDrive, Disks, DriveReport, DriveSpec, Resize,
    Snapshots, Volume, Warning,
};
use elasticstack_core::prelude::*;

pub use array::{ArrayCapacity, DirectoryArray, OpenedArray, Room};
pub use known::KnownArrays;

use array::Array;
use catalogue::Catalogue;
use drive::{PATIENCE, fenced};
use volume::FileVolume;
pub(crate) use volume::{next_data, punch, start_and_length};

/// The drives on the directory arrays of one host.
#[derive(Debug)]
pub struct DirectoryStore {
    catalogue: Arc<Catalogue>,
}

impl DirectoryStore {
    /// Opens the arrays, finishing what a crash cut short. Blocks while it reads one small file
    /// for each drive.
    ///
    /// An array stays locked until the store and all volumes opened from it are dropped.
    ///
    /// One that cannot be read, is open elsewhere, is labelled as another array, shares a file
    /// system with another one of [`ArrayCapacity::Disk`], or was here before and is not there
    /// now, has failed until the next opening: the log says why, and the others are as ever.
    ///
    /// One that fails later is found by [`DirectoryStore::check`].
    ///
    /// Files that it can't make sense of are left alone and told of in the log; a drive that they
    /// may belong to is not listed, and everything asked of it is `Internal`.
    ///
    /// # Errors
    /// `Internal`, with the reason in its context, if an array is listed twice, or `known` can't
    /// be kept.
    pub fn open(mut known: KnownArrays, arrays: Vec<DirectoryArray>) -> Result<Self> {
        let mut listed = BTreeSet::new();
        if let Some(twice) = arrays.iter().find(|config| !listed.insert(config.array)) {
            return Err(Error::internal(format!(
                "array {} is listed twice, the second time at {}: remove one of the two from the \
                 configuration",
                twice.array,
                twice.path.display()
            )));
        }
        let catalogue = Catalogue::default();
        for config in arrays {
            let DirectoryArray { array, name, path, .. } = config.clone();
            match Array::open(config, &known).and_then(|opened| catalogue.add(opened)) {
                Ok(()) => known.remember(&path, array)?,
                Err(error) => {
                    let error = Chain(&error);
                    tracing::error!(%array, name, %error, "an array has failed: its drives are \
                        unavailable and nothing is placed on it until it is opened again");
                    catalogue.add_failed(array, name);
                }
            }
        }
        Ok(Self { catalogue: Arc::new(catalogue) })
    }

    /// Refuses an array that can't be taken in.
    ///
    /// # Errors
    /// `ResourceInUse` if it has a drive or snapshot that another array has too; `Internal` if it shares a file
    /// system with another one of [`ArrayCapacity::Disk`].
    pub fn check_joins(&self, opened: &OpenedArray) -> Result<()> {
        self.catalogue.check_joins(opened)
    }

    /// Takes in an array beside those that it has: its drives are there from now on, and there may be more.
    ///
    /// # Errors
    /// Those of [`DirectoryStore::check_joins`].
    pub fn take_in(&self, opened: OpenedArray) -> Result<()> {
        self.catalogue.check_joins(&opened)?;
        self.catalogue.add(opened)
    }

    /// Whether an array works, if it has it.
    #[must_use]
    pub fn state(&self, array: ArrayId) -> Option<ArrayState> {
        self.catalogue.state(array)
    }

    /// Asks the file system of an array whether it still works, and gives the array up if it does not. One
    /// that has grown has more to promise from then on. Blocks, on a sick disk for minutes.
    pub fn check(&self, array: ArrayId) {
        let Some(opened) = self.catalogue.array(array) else { return };
        match opened.probe() {
            Err(error) => self.give_up(array, &Chain(&error).to_string()),
            Ok(()) => opened.measure().unwrap_or_else(|error| {
                tracing::warn!(%array, error = %Chain(&error), "how large an array is is unknown");
            }),
        }
    }

    /// Takes an array that was opened for failed, until it is opened again: its drives are unavailable
    /// from now on, and nothing is placed on it. What has them open gets what its disks answer.
    pub fn give_up(&self, array: ArrayId, why: &str) {
        if self.catalogue.array(array).is_some_and(|opened| opened.fail()) {
            tracing::error!(%array, why, "an array has failed: its drives are unavailable and \
                nothing is placed on it until it is opened again");
        }
    }

    /// Takes note of how the disks of an array are, which its reports tell from now on; `None` if
    /// nobody knows.
    pub fn note_disks(&self, array: ArrayId, disks: Option<Disks>) {
        self.catalogue.note_disks(array, disks);
    }

    /// Takes note of what an operator should look at of an array, which its reports tell from now on.
    pub fn note_warnings(&self, array: ArrayId, warnings: Vec<Warning>) {
        self.catalogue.note_warnings(array, warnings);
    }

    /// The room of an array; `None` if it has failed. Blocks, on a sick disk for minutes.
    ///
    /// # Errors
    /// `Internal` if its file system does not tell.
    pub fn room(&self, array: ArrayId) -> Result<Option<Room>> {
        self.catalogue.room(array)
    }
}

#[async_trait]
impl BlockStore for DirectoryStore {
    async fn create(&self, spec: &DriveSpec) -> Result<()> {
        let (catalogue, spec) = (Arc::clone(&self.catalogue), spec.clone());
        blocking(move || {
            let drive = catalogue.find_or_promise(&spec)?;
            drive.make(&spec).inspect_err(|_| {
                if drive.is_gone() {
                    catalogue.forget(spec.drive, &drive);
                }
            })
        })
        .await
    }

    async fn open(&self, drive: DriveId, epoch: Epoch) -> Result<Arc<dyn Volume>> {
        let found = self.catalogue.find(drive)?;
        blocking(move || {
            found.revise(
                |record| {
                    if epoch < record.fence {
                        return Err(fenced(drive, epoch, record.fence));
                    }
                    record.epoch = record.epoch.max(epoch);
                    Ok(())
                },
                |_, new| found.array.drives.save(new),
            )?;
            Ok(Arc::new(FileVolume::open(found, drive, epoch)?) as Arc<dyn Volume>)
        })
        .await
    }

    async fn fence(&self, drive: DriveId, epoch: Epoch) -> Result<()> {
        let found = self.catalogue.find(drive)?;
        let fencing = Arc::clone(&found);
        blocking(move || {
            fencing.revise(
                |record| {
                    record.fence = record.fence.max(epoch);
                    record.epoch = record.epoch.max(epoch);
                    Ok(())
                },
                |_, new| fencing.array.drives.save(new),
            )
        })
        .await?;
        found.quiet(PATIENCE).await.map(drop)
    }

    async fn list(&self) -> Result<Vec<DriveReport>> {
        Ok(self.catalogue.drive_reports())
    }

    async fn destroy(&self, drive: DriveId, generation: Generation) -> Result<()> {
        let found = match self.catalogue.find(drive) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        found.check_generation(generation)?;
        let quiet = found.quiet(PATIENCE).await?;
        let catalogue = Arc::clone(&self.catalogue);
        blocking(move || {
            found.destroy(generation)?;
            catalogue.forget(drive, &found);
            drop(quiet);
            Ok(())
        })
        .await
    }

    async fn capacity(&self) -> Result<Vec<ArrayReport>> {
        Ok(self.catalogue.array_reports())
    }

    fn resizer(&self) -> Option<&dyn Resize> {
        Some(self)
    }

    fn cloner(&self) -> Option<&dyn CloneDrive> {
        Some(self)
    }

    fn snapshots(&self) -> Option<&dyn Snapshots> {
        Some(self)
    }
}

/// Does work that may block in a thread for such.
pub(crate) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| Error::internal("a thread that may block ended").source(error))?
}
