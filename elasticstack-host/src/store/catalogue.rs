//! All drives and snapshots of a store by id, and the room they leave on its arrays. Never asks the
//! disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use elasticstack_core::block::{
    ArrayReport, ArrayState, Disks, DriveReport, DriveSpec, SnapshotReport, Warning,
};
use elasticstack_core::prelude::*;

use super::array::{Array, Room};
use super::drive::{Drive, lock, unknown};
use super::layout::{Damage, Record, SnapshotRecord};
use super::shelf::Found;
use super::snapshot::Snapshot;

#[derive(Debug, Default)]
pub(super) struct Catalogue {
    pub(super) arrays: BTreeMap<ArrayId, Arc<Array>>,
    /// The names of the arrays that could not be opened.
    failed: BTreeMap<ArrayId, String>,
    /// How the disks of the arrays are, of those that told it.
    disks: Mutex<BTreeMap<ArrayId, Disks>>,
    /// What an operator should look at of the arrays.
    warnings: Mutex<BTreeMap<ArrayId, Vec<Warning>>>,
    held: Mutex<Held>,
    set_aside: BTreeSet<DriveId>,
    snapshots_set_aside: BTreeSet<SnapshotId>,
}

/// What the arrays hold, and what they have promised to.
#[derive(Debug, Default)]
struct Held {
    drives: BTreeMap<DriveId, Arc<Drive>>,
    snapshots: BTreeMap<SnapshotId, Arc<Snapshot>>,
}

impl Catalogue {
    /// Takes in an array and what was found on it.
    pub(super) fn add(
        &mut self,
        array: Array,
        found: Found<Record>,
        kept: Found<SnapshotRecord>,
    ) -> Result<()> {
        if let Some(other) = self
            .arrays
            .values()
            .find(|other| other.device.is_some() && other.device == array.device)
        {
            return Err(Error::internal(format!(
                "arrays {} and {} lie on one file system, so neither can promise all of it: give \
                 one a fixed capacity",
                other.name, array.name
            )));
        }
        let Found { whole, set_aside } = found;
        self.set_aside.extend(set_aside);
        let array = Arc::new(array);
        let held = self.held.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        for record in whole {
            let id = record.drive;
            let drive = Arc::new(Drive::whole(Arc::clone(&array), record));
            if let Some(other) = held.drives.insert(id, drive) {
                // Nothing tells which of the two is the right one.
                other.array.drives.say_set_aside(id, &Damage::Twice);
                self.set_aside.insert(id);
            }
        }
        held.drives.retain(|id, _| !self.set_aside.contains(id));
        self.snapshots_set_aside.extend(kept.set_aside);
        for record in kept.whole {
            let id = record.snapshot;
            let snapshot = Arc::new(Snapshot::whole(Arc::clone(&array), record));
            if let Some(other) = held.snapshots.insert(id, snapshot) {
                other.array.snapshots.say_set_aside(id, &Damage::Twice);
                self.snapshots_set_aside.insert(id);
            }
        }
        held.snapshots.retain(|id, _| !self.snapshots_set_aside.contains(id));
        self.arrays.insert(array.id, array);
        Ok(())
    }

    /// Takes note of an array that could not be opened.
    pub(super) fn add_failed(&mut self, array: ArrayId, name: String) {
        self.failed.insert(array, name);
    }

    /// The drive of this id. `Unavailable` if it may lie on an array that has failed.
    pub(super) fn find(&self, id: DriveId) -> Result<Arc<Drive>> {
        if self.set_aside.contains(&id) {
            return Err(Error::internal(format!("drive {id} was set aside, see the log")));
        }
        let found = lock(&self.held).drives.get(&id).cloned();
        match (found, self.failed.first_key_value()) {
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
        if self.snapshots_set_aside.contains(&id) {
            return Err(Error::internal(format!("snapshot {id} was set aside, see the log")));
        }
        let found = lock(&self.held).snapshots.get(&id).cloned();
        match (&found, self.failed.first_key_value()) {
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
        if self.set_aside.contains(&spec.drive) {
            return self.find(spec.drive);
        }
        let failed =
            |name| out_of_reach(&format!("drive {} belongs on array {name}", spec.drive), name);
        let array = match (self.arrays.get(&spec.array), self.failed.get(&spec.array)) {
            (Some(array), _) if array.has_failed() => return Err(failed(&array.name)),
            (Some(array), _) => array,
            (None, Some(name)) => return Err(failed(name)),
            (None, None) => {
                let public = format!("array {} is not on this host", spec.array);
                return Err(Error::new(ErrorKind::NotFound, public));
            }
        };
        let mut held = lock(&self.held);
        if let Some(drive) = held.drives.get(&spec.drive) {
            return Ok(Arc::clone(drive));
        }
        held.room(array, spec.size)?;
        let drive = Arc::new(Drive::promised(Arc::clone(array), spec));
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
        let Some(array) = self.arrays.get(&array).filter(|array| !array.has_failed()) else {
            return Ok(None);
        };
        let (capacity, promised) = (array.capacity, lock(&self.held).promised(array));
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
        let opened = self.arrays.values().map(|array| match array.has_failed() {
            true => failed(array.id, &array.name),
            false => ArrayReport {
                capacity: array.capacity,
                promised: held.promised(array),
                state: ArrayState::Online,
                ..failed(array.id, &array.name)
            },
        });
        opened.chain(self.failed.iter().map(|(array, name)| failed(*array, name))).collect()
    }
}

fn out_of_reach(what: &str, array: &str) -> Error {
    let context = format!("{what}, which has failed: mend it and start the agent again");
    let public = format!("array {array} has failed: try again after its operator has mended it");
    Error::new(ErrorKind::Unavailable, public).context(context)
}

impl Held {
    fn promised(&self, array: &Array) -> Bytes {
        let drives = self.drives.values().filter(|drive| drive.array.id == array.id);
        let snapshots = self.snapshots.values().filter(|snapshot| snapshot.array.id == array.id);
        drives
            .map(|drive| drive.promise().get())
            .chain(snapshots.map(|snapshot| snapshot.record.size.get()))
            .fold(0, u64::saturating_add)
            .try_into()
            .unwrap_or(array.capacity)
    }

    /// Fails with `NoCapacity` unless the array can promise so much more.
    fn room(&self, array: &Array, more: Bytes) -> Result<()> {
        let room = array.capacity.saturating_sub(self.promised(array));
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
