//! All drives and snapshots of a store by id, and the room they leave on its arrays. Never asks the
//! disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use elasticstack_core::block::{
    ArrayReport, ArrayState, Disks, DriveReport, DriveSpec, SnapshotReport, Warning,
};
use elasticstack_core::prelude::*;

use super::array::{Array, OpenedArray, Room};
use super::drive::{Drive, lock, unknown};
use super::layout::{Damage, SnapshotRecord};
use super::snapshot::Snapshot;

#[derive(Debug, Default)]
pub(super) struct Catalogue {
    /// How the disks of the arrays are, of those that told it.
    disks: Mutex<BTreeMap<ArrayId, Disks>>,
    /// What an operator should look at of the arrays.
    warnings: Mutex<BTreeMap<ArrayId, Vec<Warning>>>,
    held: Mutex<Held>,
}

/// The arrays, what they hold, and what they have promised to.
#[derive(Debug, Default)]
struct Held {
    arrays: BTreeMap<ArrayId, Arc<Array>>,
    /// The names of the arrays that could not be opened.
    failed: BTreeMap<ArrayId, String>,
    set_aside: BTreeSet<DriveId>,
    snapshots_set_aside: BTreeSet<SnapshotId>,
    drives: BTreeMap<DriveId, Arc<Drive>>,
    snapshots: BTreeMap<SnapshotId, Arc<Snapshot>>,
}

impl Catalogue {
    /// Takes in an array and what was found on it. A drive that lies on two arrays is set aside.
    pub(super) fn add(&self, opened: OpenedArray) -> Result<()> {
        let OpenedArray { array, drives, snapshots } = opened;
        let mut held = lock(&self.held);
        let held = &mut *held;
        held.check_alone(&array)?;
        held.set_aside.extend(drives.set_aside);
        let array = Arc::new(array);
        for record in drives.whole {
            let id = record.drive;
            let drive = Arc::new(Drive::whole(Arc::clone(&array), record));
            if let Some(other) = held.drives.insert(id, drive) {
                // Nothing tells which of the two is the right one.
                other.array.drives.say_set_aside(id, &Damage::Twice);
                held.set_aside.insert(id);
            }
        }
        held.drives.retain(|id, _| !held.set_aside.contains(id));
        held.snapshots_set_aside.extend(snapshots.set_aside);
        for record in snapshots.whole {
            let id = record.snapshot;
            let snapshot = Arc::new(Snapshot::whole(Arc::clone(&array), record));
            if let Some(other) = held.snapshots.insert(id, snapshot) {
                other.array.snapshots.say_set_aside(id, &Damage::Twice);
                held.snapshots_set_aside.insert(id);
            }
        }
        held.snapshots.retain(|id, _| !held.snapshots_set_aside.contains(id));
        held.arrays.insert(array.id, array);
        Ok(())
    }

    /// Refuses an array that can't join those in use without harm to them.
    pub(super) fn check_joins(&self, opened: &OpenedArray) -> Result<()> {
        let OpenedArray { array, drives, snapshots } = opened;
        let held = lock(&self.held);
        held.check_alone(array)?;
        let drives = drives.whole.iter().map(|record| record.drive).chain(drives.set_aside.clone());
        let kept = snapshots.whole.iter().map(|record| record.snapshot);
        let kept = kept.chain(snapshots.set_aside.clone());
        let drives = drives.filter_map(|id| held.drives.get(&id));
        let drives = drives.map(|drive| ("a drive", &drive.array.name));
        let kept = kept.filter_map(|id| held.snapshots.get(&id));
        let mut twice = drives.chain(kept.map(|found| ("a snapshot", &found.array.name)));
        match twice.next() {
            None => Ok(()),
            Some((what, other)) => {
                let sentence = format!(
                    "array {} and array {other} have {what} of the same id: one is a copy of the \
                     other, and nothing tells which is the right one; take one of the two away",
                    array.name
                );
                Err(Error::new(ErrorKind::ResourceInUse, sentence).field("name"))
            }
        }
    }

    /// Takes note of an array that could not be opened.
    pub(super) fn add_failed(&self, array: ArrayId, name: String) {
        lock(&self.held).failed.insert(array, name);
    }

    /// Whether an array works, if it is one of this store's.
    pub(super) fn state(&self, id: ArrayId) -> Option<ArrayState> {
        let held = lock(&self.held);
        match held.arrays.get(&id) {
            Some(array) if !array.has_failed() => Some(ArrayState::Online),
            None if !held.failed.contains_key(&id) => None,
            Some(_) | None => Some(ArrayState::Failed),
        }
    }

    /// The array, if it was opened.
    pub(super) fn array(&self, id: ArrayId) -> Option<Arc<Array>> {
        lock(&self.held).arrays.get(&id).cloned()
    }

    /// The drive of this id. `Unavailable` if it may lie on an array that has failed.
    pub(super) fn find(&self, id: DriveId) -> Result<Arc<Drive>> {
        let held = lock(&self.held);
        if held.set_aside.contains(&id) {
            return Err(Error::internal(format!("drive {id} was set aside, see the log")));
        }
        let found = held.drives.get(&id).cloned();
        match (found, held.failed.first_key_value()) {
            (Some(drive), _) if drive.array.has_failed() => {
                let name = &drive.array.name;
                Err(out_of_reach(&format!("drive {id} is on array {name}"), name))
            }
            (Some(drive), _) => Ok(drive),
            (None, None) => Err(unknown(id)),
            (None, Some((_, name))) => {
                Err(out_of_reach(&format!("drive {id} may be on array {name}"), name))
            }
        }
    }

    /// The snapshot of this id, if there is one. `Unavailable` if it may lie on an array that has
    /// failed.
    pub(super) fn find_snapshot(&self, id: SnapshotId) -> Result<Option<Arc<Snapshot>>> {
        let held = lock(&self.held);
        if held.snapshots_set_aside.contains(&id) {
            return Err(Error::internal(format!("snapshot {id} was set aside, see the log")));
        }
        let found = held.snapshots.get(&id).cloned();
        match (&found, held.failed.first_key_value()) {
            (Some(snapshot), _) if snapshot.array.has_failed() => {
                let name = &snapshot.array.name;
                Err(out_of_reach(&format!("snapshot {id} is on array {name}"), name))
            }
            (Some(_), _) | (None, None) => Ok(found),
            (None, Some((_, name))) => {
                Err(out_of_reach(&format!("snapshot {id} may be on array {name}"), name))
            }
        }
    }

    /// The drive of this spec, with room promised to it if it is new.
    pub(super) fn find_or_promise(&self, spec: &DriveSpec) -> Result<Arc<Drive>> {
        let mut held = lock(&self.held);
        if held.set_aside.contains(&spec.drive) {
            drop(held);
            return self.find(spec.drive);
        }
        let failed =
            |name| out_of_reach(&format!("drive {} belongs on array {name}", spec.drive), name);
        let array = match (held.arrays.get(&spec.array), held.failed.get(&spec.array)) {
            (Some(array), _) if array.has_failed() => return Err(failed(&array.name)),
            (Some(array), _) => Arc::clone(array),
            (None, Some(name)) => return Err(failed(name)),
            (None, None) => {
                let public = format!("array {} is not on this host", spec.array);
                return Err(Error::new(ErrorKind::NotFound, public));
            }
        };
        if let Some(drive) = held.drives.get(&spec.drive) {
            return Ok(Arc::clone(drive));
        }
        held.room(&array, spec.size)?;
        let drive = Arc::new(Drive::promised(array, spec));
        held.drives.insert(spec.drive, Arc::clone(&drive));
        Ok(drive)
    }

    /// The snapshot of this record, with room promised to it on `array` if it is new.
    pub(super) fn find_or_promise_snapshot(
        &self,
        array: &Arc<Array>,
        record: SnapshotRecord,
    ) -> Result<Arc<Snapshot>> {
        let mut held = lock(&self.held);
        if let Some(snapshot) = held.snapshots.get(&record.snapshot) {
            return Ok(Arc::clone(snapshot));
        }
        held.room(array, record.size)?;
        let id = record.snapshot;
        let snapshot = Arc::new(Snapshot::promised(Arc::clone(array), record));
        held.snapshots.insert(id, Arc::clone(&snapshot));
        Ok(snapshot)
    }

    /// Promises `size` to a drive instead of less. The caller changes that drive alone.
    pub(super) fn promise_more(&self, drive: &Drive, size: Bytes) -> Result<()> {
        let held = lock(&self.held);
        held.room(&drive.array, size.saturating_sub(drive.promise()))?;
        drive.set_promise(size);
        Ok(())
    }

    /// Takes a drive out that is gone from its array.
    pub(super) fn forget(&self, id: DriveId, drive: &Arc<Drive>) {
        let drives = &mut lock(&self.held).drives;
        if drives.get(&id).is_some_and(|known| Arc::ptr_eq(known, drive)) {
            drives.remove(&id);
        }
    }

    /// Takes a snapshot out that is gone from its array.
    pub(super) fn forget_snapshot(&self, id: SnapshotId, snapshot: &Arc<Snapshot>) {
        let snapshots = &mut lock(&self.held).snapshots;
        if snapshots.get(&id).is_some_and(|known| Arc::ptr_eq(known, snapshot)) {
            snapshots.remove(&id);
        }
    }

    pub(super) fn drive_reports(&self) -> Vec<DriveReport> {
        let held = lock(&self.held);
        let drives = held.drives.values().filter(|drive| !drive.array.has_failed());
        let records = drives.filter_map(|drive| drive.record());
        records.map(|record| record.report()).collect()
    }

    pub(super) fn snapshot_reports(&self) -> Vec<SnapshotReport> {
        let held = lock(&self.held);
        let snapshots = held.snapshots.values().filter(|snapshot| !snapshot.array.has_failed());
        let there = snapshots.filter(|snapshot| snapshot.is_there());
        there.map(|snapshot| snapshot.record.report()).collect()
    }

    /// Takes note of how the disks of an array are; `None` if nobody knows.
    pub(super) fn note_disks(&self, array: ArrayId, disks: Option<Disks>) {
        let mut known = lock(&self.disks);
        match disks {
            Some(disks) => drop(known.insert(array, disks)),
            None => drop(known.remove(&array)),
        }
    }

    /// Takes note of what an operator should look at of an array.
    pub(super) fn note_warnings(&self, array: ArrayId, warnings: Vec<Warning>) {
        lock(&self.warnings).insert(array, warnings);
    }

    /// The room of an array that works. Blocks on its file system.
    pub(super) fn room(&self, array: ArrayId) -> Result<Option<Room>> {
        let Some(array) = self.array(array).filter(|array| !array.has_failed()) else {
            return Ok(None);
        };
        let (capacity, promised) = (array.capacity(), lock(&self.held).promised(&array));
        Ok(Some(Room { capacity, promised, free_on_disk: array.free_on_disk()? }))
    }

    pub(super) fn array_reports(&self) -> Vec<ArrayReport> {
        let (held, disks) = (lock(&self.held), lock(&self.disks));
        let warnings = lock(&self.warnings);
        let failed = |array: ArrayId, name: &str| ArrayReport {
            array,
            name: name.to_owned(),
            capacity: Bytes::ZERO,
            promised: Bytes::ZERO,
            state: ArrayState::Failed,
            disks: disks.get(&array).cloned(),
            warnings: warnings.get(&array).cloned().unwrap_or_default(),
        };
        let opened = held.arrays.values().map(|array| match array.has_failed() {
            true => failed(array.id, &array.name),
            false => ArrayReport {
                capacity: array.capacity(),
                promised: held.promised(array),
                state: ArrayState::Online,
                ..failed(array.id, &array.name)
            },
        });
        opened.chain(held.failed.iter().map(|(array, name)| failed(*array, name))).collect()
    }
}

fn out_of_reach(what: &str, array: &str) -> Error {
    let context = format!("{what}, which has failed: mend it and start the agent again");
    let public = format!("array {array} has failed: try again after its operator has mended it");
    Error::new(ErrorKind::Unavailable, public).context(context)
}

impl Held {
    /// Refuses an array that shares the room of its file system with another one.
    fn check_alone(&self, array: &Array) -> Result<()> {
        let shares = |other: &&Arc<Array>| other.device.is_some() && other.device == array.device;
        let Some(other) = self.arrays.values().find(shares) else { return Ok(()) };
        Err(Error::internal(format!(
            "arrays {} and {} lie on one file system, so neither can promise all of it: give one a \
             fixed capacity",
            other.name, array.name
        )))
    }

    fn promised(&self, array: &Array) -> Bytes {
        let drives = self.drives.values().filter(|drive| drive.array.id == array.id);
        let snapshots = self.snapshots.values().filter(|snapshot| snapshot.array.id == array.id);
        drives
            .map(|drive| drive.promise().get())
            .chain(snapshots.map(|snapshot| snapshot.record.size.get()))
            .fold(0, u64::saturating_add)
            .try_into()
            .unwrap_or_else(|_| array.capacity())
    }

    /// Fails with `NoCapacity` unless the array can promise so much more.
    fn room(&self, array: &Array, more: Bytes) -> Result<()> {
        let room = array.capacity().saturating_sub(self.promised(array));
        if more <= room {
            return Ok(());
        }
        let public = format!(
            "array {} has room for {room} more, not {more}: choose a smaller size or another array",
            array.name
        );
        Err(Error::new(ErrorKind::NoCapacity, public))
    }
}
