//! One snapshot while its store is open: its record, which never changes, whether it is there, and
//! one change at a time.

use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};

use elasticstack_core::prelude::*;

use super::array::Array;
use super::drive::lock;
use super::layout::SnapshotRecord;

#[derive(Debug)]
pub(super) struct Snapshot {
    pub(super) array: Arc<Array>,
    pub(super) record: SnapshotRecord,
    /// Held by a blocking thread for a sequence of steps on the disk.
    change: Mutex<()>,
    /// Held for an instant.
    phase: Mutex<Phase>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Room is promised to it and it is to be made.
    Making,
    /// It exists.
    Whole,
    /// It is being destroyed; again and again, until that succeeds.
    Going,
    /// It is destroyed, or could not be made.
    Gone,
}

impl Snapshot {
    /// A snapshot that was found on its array.
    pub(super) fn whole(array: Arc<Array>, record: SnapshotRecord) -> Self {
        Self { array, record, change: Mutex::default(), phase: Mutex::new(Phase::Whole) }
    }

    /// A snapshot that is yet to be made, see [`Snapshot::make`].
    pub(super) fn promised(array: Arc<Array>, record: SnapshotRecord) -> Self {
        Self { array, record, change: Mutex::default(), phase: Mutex::new(Phase::Making) }
    }

    /// Whether it exists and is not gone from its array.
    pub(super) fn is_there(&self) -> bool {
        matches!(self.phase(), Phase::Whole | Phase::Going)
    }

    /// Whether nothing is left of it.
    pub(super) fn is_gone(&self) -> bool {
        self.phase() == Phase::Gone
    }

    /// Where its bytes lie.
    pub(super) fn raw(&self) -> PathBuf {
        self.array.snapshots.raw(self.record.snapshot)
    }

    /// Makes it of what `fill` makes of an empty file, if that is still to be done. Blocks.
    pub(super) fn make(&self, fill: impl FnOnce(&File) -> io::Result<()>) -> Result<()> {
        let _turn = lock(&self.change);
        match self.phase() {
            Phase::Whole => return Ok(()),
            Phase::Going | Phase::Gone => return Err(self.going()),
            Phase::Making => {}
        }
        if let Err(error) = self.array.snapshots.put(&self.record, fill) {
            // What is left could be found again, and be a snapshot, when the store is reopened.
            let snapshot = self.record.snapshot;
            if let Err(left) = self.array.snapshots.destroy(snapshot) {
                tracing::warn!(%snapshot, error = %Chain(&left), "left files behind");
            }
            *lock(&self.phase) = Phase::Gone;
            return Err(error);
        }
        *lock(&self.phase) = Phase::Whole;
        Ok(())
    }

    /// Keeps it from going for as long as the answer lives. Blocks.
    pub(super) fn hold(&self) -> Result<MutexGuard<'_, ()>> {
        let turn = lock(&self.change);
        if self.phase() == Phase::Whole { Ok(turn) } else { Err(unknown(self.record.snapshot)) }
    }

    /// Destroys it on its array. Blocks.
    pub(super) fn destroy(&self) -> Result<()> {
        let _turn = lock(&self.change);
        if self.phase() == Phase::Gone {
            return Ok(());
        }
        *lock(&self.phase) = Phase::Going;
        self.array.snapshots.destroy(self.record.snapshot)?;
        *lock(&self.phase) = Phase::Gone;
        Ok(())
    }

    fn phase(&self) -> Phase {
        *lock(&self.phase)
    }

    fn going(&self) -> Error {
        let public =
            format!("snapshot {} is just being destroyed: try again later", self.record.snapshot);
        Error::new(ErrorKind::Unavailable, public)
    }
}

/// There is no such snapshot.
pub(super) fn unknown(snapshot: SnapshotId) -> Error {
    Error::new(ErrorKind::NotFound, format!("snapshot {snapshot} is not on this host"))
}
