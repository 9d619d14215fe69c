//! One drive while its store is open: its record, who may have access, and one change at a time.
//!
//! Three locks, taken in this order. The *turnstile* is held shared by every access to the bytes
//! and alone by what must have none in flight; it goes along into the blocking thread that does
//! the work, so that dropping a future never lets go of it too early. *Change* is held by a
//! blocking thread for a sequence of steps on the disk. *State* is held for an instant and never
//! while the disk is asked.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use elasticstack_core::block::DriveSpec;
use elasticstack_core::prelude::*;
use tokio::sync::{OwnedRwLockReadGuard, OwnedRwLockWriteGuard, RwLock};

use super::array::Array;
use super::layout::Record;

/// How long to wait for I/O to end before saying that it does not.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

#[derive(Debug)]
pub(super) struct Drive {
    pub(super) array: Arc<Array>,
    turnstile: Arc<RwLock<()>>,
    change: Mutex<()>,
    state: Mutex<State>,
    medium_failed: AtomicBool,
}

#[derive(Debug)]
struct State {
    record: Record,
    /// What is promised to it: its size, or more while it grows.
    promised: Bytes,
    phase: Phase,
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

impl Drive {
    /// A drive that was found on its array.
    pub(super) fn whole(array: Arc<Array>, record: Record) -> Self {
        Self::new(array, record, Phase::Whole)
    }

    /// A drive that is yet to be made, see [`Drive::make`].
    pub(super) fn promised(array: Arc<Array>, spec: &DriveSpec) -> Self {
        Self::new(array, Record::new(spec), Phase::Making)
    }

    fn new(array: Arc<Array>, record: Record, phase: Phase) -> Self {
        let state = State { promised: record.size, record, phase };
        Self {
            array,
            turnstile: Arc::default(),
            change: Mutex::default(),
            state: Mutex::new(state),
            medium_failed: AtomicBool::new(false),
        }
    }

    pub(super) fn size(&self) -> Bytes {
        lock(&self.state).record.size
    }

    /// The record, once the drive exists and until it is gone from its array.
    pub(super) fn record(&self) -> Option<Record> {
        let state = lock(&self.state);
        matches!(state.phase, Phase::Whole | Phase::Going).then(|| state.record.clone())
    }

    /// Whether nothing is left of it, so that another of its id may be made.
    pub(super) fn is_gone(&self) -> bool {
        lock(&self.state).phase == Phase::Gone
    }

    /// What the array has promised to this drive.
    pub(super) fn promise(&self) -> Bytes {
        lock(&self.state).promised
    }

    /// Sets the promise while a change of size is under way.
    pub(super) fn set_promise(&self, promised: Bytes) {
        lock(&self.state).promised = promised;
    }

    /// Makes the drive on its array if that is still to be done. Blocks.
    pub(super) fn make(&self, spec: &DriveSpec) -> Result<()> {
        let _turn = lock(&self.change);
        let (record, phase) = {
            let state = lock(&self.state);
            (state.record.clone(), state.phase)
        };
        match phase {
            Phase::Going | Phase::Gone => return Err(going(spec.drive)),
            Phase::Making | Phase::Whole => same_drive(&record, spec)?,
        }
        if phase == Phase::Making {
            if let Err(error) = self.array.create(&record) {
                // What is left could be found again, and be a drive, when the store is reopened.
                if let Err(left) = self.array.drives.destroy(spec.drive) {
                    tracing::warn!(drive = %spec.drive, error = %Chain(&left), "left files behind");
                }
                lock(&self.state).phase = Phase::Gone;
                return Err(error);
            }
            lock(&self.state).phase = Phase::Whole;
        }
        Ok(())
    }

    /// Changes the record, durably before anybody sees it. `store` does the steps on the disk
    /// that go with it, unless there is nothing to change. Blocks.
    pub(super) fn revise(
        &self,
        revise: impl FnOnce(&mut Record) -> Result<()>,
        store: impl FnOnce(&Record, &Record) -> Result<()>,
    ) -> Result<Record> {
        self.redo(revise, |old, new| if new == old { Ok(()) } else { store(old, new) })
    }

    /// As [`Drive::revise`], and does the steps also if the record stays as it is.
    pub(super) fn redo(
        &self,
        revise: impl FnOnce(&mut Record) -> Result<()>,
        store: impl FnOnce(&Record, &Record) -> Result<()>,
    ) -> Result<Record> {
        let _turn = lock(&self.change);
        let old = self.current()?;
        let mut new = old.clone();
        revise(&mut new)?;
        store(&old, &new)?;
        lock(&self.state).record = new.clone();
        Ok(new)
    }

    /// Destroys the drive on its array; access ends even if that fails half-way. Blocks.
    pub(super) fn destroy(&self, generation: Generation) -> Result<()> {
        let _turn = lock(&self.change);
        let drive = {
            let mut state = lock(&self.state);
            if state.phase == Phase::Gone {
                return Ok(());
            }
            not_stale(&state.record, generation)?;
            state.phase = Phase::Going;
            state.record.drive
        };
        self.array.drives.destroy(drive)?;
        lock(&self.state).phase = Phase::Gone;
        Ok(())
    }

    /// Fails with `Stale` if the drive has seen a newer generation.
    pub(super) fn check_generation(&self, generation: Generation) -> Result<()> {
        not_stale(&lock(&self.state).record, generation)
    }

    /// Lets one access of `length` bytes at `offset` begin.
    pub(super) async fn enter(
        &self,
        epoch: Epoch,
        offset: Bytes,
        length: u64,
    ) -> Result<OwnedRwLockReadGuard<()>> {
        let permit = Arc::clone(&self.turnstile).read_owned().await;
        let state = lock(&self.state);
        let Record { drive, size, fence, .. } = state.record;
        if state.phase != Phase::Whole {
            return Err(Error::new(ErrorKind::Fenced, format!("drive {drive} is destroyed")));
        }
        if epoch < fence {
            return Err(fenced(drive, epoch, fence));
        }
        let end = offset.get().checked_add(length);
        if end.is_none_or(|end| end > size.get()) {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                format!("{length} bytes at offset {offset} reach past the drive's end at {size}"),
            ));
        }
        drop(state);
        Ok(permit)
    }

    /// Keeps the drive from changing its size or going, for work of the store's own.
    pub(super) async fn hold(&self) -> Result<OwnedRwLockReadGuard<()>> {
        let permit = Arc::clone(&self.turnstile).read_owned().await;
        self.current()?;
        Ok(permit)
    }

    /// Waits until no access is in flight, and lets none begin. `Unavailable` if that takes
    /// longer than `patience`.
    pub(super) async fn quiet(&self, patience: Duration) -> Result<OwnedRwLockWriteGuard<()>> {
        let turnstile = Arc::clone(&self.turnstile).write_owned();
        tokio::time::timeout(patience, turnstile).await.map_err(|_| {
            let drive = lock(&self.state).record.drive;
            Error::new(
                ErrorKind::Unavailable,
                format!("drive {drive} has reads or writes that do not end: try again later"),
            )
        })
    }

    /// After one failed sync the kernel forgets which bytes were lost, so that later ones would
    /// succeed in error: none may.
    pub(super) fn sync(&self, sync: impl FnOnce() -> std::io::Result<()>) -> std::io::Result<()> {
        if self.medium_failed.load(Ordering::SeqCst) {
            return Err(std::io::Error::other("an earlier sync failed and its bytes are lost"));
        }
        sync().inspect_err(|_| self.medium_failed.store(true, Ordering::SeqCst))
    }

    fn current(&self) -> Result<Record> {
        let state = lock(&self.state);
        match state.phase {
            Phase::Whole => Ok(state.record.clone()),
            Phase::Making | Phase::Going | Phase::Gone => Err(unknown(state.record.drive)),
        }
    }
}

/// Locks what is only ever assigned whole, so that a panic elsewhere can't have left it torn.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// There is no such drive.
pub(super) fn unknown(drive: DriveId) -> Error {
    Error::new(ErrorKind::NotFound, format!("drive {drive} is not on this host"))
}

/// The epoch was fenced off.
pub(super) fn fenced(drive: DriveId, epoch: Epoch, fence: Epoch) -> Error {
    Error::new(
        ErrorKind::Fenced,
        format!("drive {drive} was taken over by epoch {fence}, this access is of epoch {epoch}"),
    )
}

fn going(drive: DriveId) -> Error {
    let public = format!("drive {drive} is just being destroyed: try again later");
    Error::new(ErrorKind::Unavailable, public)
}

fn not_stale(record: &Record, generation: Generation) -> Result<()> {
    if generation < record.generation {
        let public = format!(
            "generation {generation} of drive {} is older than {}, which it has",
            record.drive, record.generation
        );
        return Err(Error::new(ErrorKind::Stale, public));
    }
    Ok(())
}

/// Fails with `ChangedMeanwhile` unless the record is of a drive of this size, array and owner.
fn same_drive(record: &Record, spec: &DriveSpec) -> Result<()> {
    let DriveSpec { drive, array, account, size, generation: _ } = *spec;
    if (record.size, record.array, record.account) == (size, array, account) {
        return Ok(());
    }
    let public = format!(
        "drive {drive} exists already, with {} on array {}, not {size} on array {array}",
        record.size, record.array
    );
    Err(Error::new(ErrorKind::ChangedMeanwhile, public))
}
