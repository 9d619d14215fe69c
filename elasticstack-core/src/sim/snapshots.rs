//! Snapshots of drives in memory. What one holds is durable at once, and no crash takes any of it.

use async_trait::async_trait;

use super::block::SimStore;
use super::lock;
use super::medium::Medium;
use crate::block::{SnapshotReport, Snapshots, Writers};
use crate::error::{Error, ErrorKind, Result};
use crate::generation::Epoch;
use crate::id::{DriveId, SnapshotId};

/// One snapshot.
#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) report: SnapshotReport,
    medium: Medium,
}

fn refusal<T>(kind: ErrorKind, sentence: String) -> Result<T> {
    Err(Error::new(kind, sentence))
}

#[async_trait]
impl Snapshots for SimStore {
    async fn take_snapshot(
        &self,
        snapshot: SnapshotId,
        drive: DriveId,
        _writers: Writers,
    ) -> Result<()> {
        let mut state = lock(&self.0);
        if let Some(found) = state.snapshots.get(&snapshot).map(|found| found.report.drive) {
            return if found == drive {
                Ok(())
            } else {
                let sentence = format!("snapshot {snapshot} is of drive {found}: use another id");
                refusal(ErrorKind::ChangedMeanwhile, sentence)
            };
        }
        let found = state.drive(drive)?;
        let (spec, mut medium) = (found.spec.clone(), found.medium.clone());
        state.reserve(spec.array, spec.size, None)?;
        medium.flush();
        let (array, account, size) = (spec.array, spec.account, spec.size);
        let report = SnapshotReport { snapshot, drive, array, account, size };
        state.snapshots.insert(snapshot, Snapshot { report, medium });
        Ok(())
    }

    async fn restore_snapshot(&self, snapshot: SnapshotId, epoch: Epoch) -> Result<()> {
        let mut state = lock(&self.0);
        let Some(Snapshot { report, medium }) = state.snapshots.get(&snapshot) else {
            let sentence = format!("no snapshot {snapshot} here: list the snapshots");
            return refusal(ErrorKind::NotFound, sentence);
        };
        let (drive, size, medium) = (report.drive, report.size, medium.clone());
        let found = state.drive(drive)?;
        if epoch < found.epoch {
            let epochs = format!("epoch {}, above {epoch}", found.epoch);
            return refusal(ErrorKind::Fenced, format!("drive {drive} was opened under {epochs}"));
        }
        if found.spec.size < size {
            let sentence =
                format!("the snapshot has {size}, the drive {}: grow it first", found.spec.size);
            return refusal(ErrorKind::InvalidValue, sentence);
        }
        found.epoch = epoch;
        found.fence = epoch;
        found.medium = medium;
        Ok(())
    }

    async fn destroy_snapshot(&self, snapshot: SnapshotId) -> Result<()> {
        lock(&self.0).snapshots.remove(&snapshot);
        Ok(())
    }

    async fn list_snapshots(&self) -> Result<Vec<SnapshotReport>> {
        let state = lock(&self.0);
        Ok(state.snapshots.values().map(|snapshot| snapshot.report.clone()).collect())
    }
}
