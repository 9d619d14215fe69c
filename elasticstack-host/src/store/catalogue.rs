//! All drives of a store by id, and the room they leave on its arrays. Never asks the disk.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use elasticstack_core::block::{ArrayReport, ArrayState, DriveReport, DriveSpec};
use elasticstack_core::prelude::*;

use super::array::{Array, Found};
use super::drive::{Drive, lock, unknown};
use super::layout::Damage;

#[derive(Debug, Default)]
pub(super) struct Catalogue {
    pub(super) arrays: BTreeMap<ArrayId, Arc<Array>>,
    /// The names of the arrays that could not be opened.
    failed: BTreeMap<ArrayId, String>,
    drives: Mutex<BTreeMap<DriveId, Arc<Drive>>>,
    set_aside: BTreeSet<DriveId>,
}

impl Catalogue {
    /// Takes in an array and the drives found on it.
    pub(super) fn add(&mut self, array: Array, found: Found) -> Result<()> {
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
        let drives = self.drives.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        for record in whole {
            let id = record.drive;
            let drive = Arc::new(Drive::whole(Arc::clone(&array), record));
            if let Some(other) = drives.insert(id, drive) {
                // Nothing tells which of the two is the right one.
                other.array.say_set_aside(id, &Damage::Twice);
                self.set_aside.insert(id);
            }
        }
        drives.retain(|id, _| !self.set_aside.contains(id));
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
        let found = lock(&self.drives).get(&id).cloned();
        found.ok_or_else(|| match self.failed.first_key_value() {
            None => unknown(id),
            Some((_, name)) => out_of_reach(&format!("drive {id} may be on array {name}"), name),
        })
    }

    /// The drive of this spec, with room promised to it if it is new.
    pub(super) fn find_or_promise(&self, spec: &DriveSpec) -> Result<Arc<Drive>> {
        if self.set_aside.contains(&spec.drive) {
            return self.find(spec.drive);
        }
        let array =
            self.arrays.get(&spec.array).ok_or_else(|| match self.failed.get(&spec.array) {
                Some(name) => {
                    out_of_reach(&format!("drive {} belongs on array {name}", spec.drive), name)
                }
                None => {
                    let public = format!("array {} is not on this host", spec.array);
                    Error::new(ErrorKind::NotFound, public)
                }
            })?;
        let mut drives = lock(&self.drives);
        if let Some(drive) = drives.get(&spec.drive) {
            return Ok(Arc::clone(drive));
        }
        room(&drives, array, spec.size)?;
        let drive = Arc::new(Drive::promised(Arc::clone(array), spec));
        drives.insert(spec.drive, Arc::clone(&drive));
        Ok(drive)
    }

    /// Promises `size` to a drive instead of less. The caller changes that drive alone.
    pub(super) fn promise_more(&self, drive: &Drive, size: Bytes) -> Result<()> {
        let drives = lock(&self.drives);
        room(&drives, &drive.array, size.saturating_sub(drive.promise()))?;
        drive.set_promise(size);
        Ok(())
    }

    /// Takes a drive out that is gone from its array.
    pub(super) fn forget(&self, id: DriveId, drive: &Arc<Drive>) {
        let mut drives = lock(&self.drives);
        if drives.get(&id).is_some_and(|known| Arc::ptr_eq(known, drive)) {
            drives.remove(&id);
        }
    }

    pub(super) fn drive_reports(&self) -> Vec<DriveReport> {
        let drives = lock(&self.drives);
        drives.values().filter_map(|drive| drive.record()).map(|record| record.report()).collect()
    }

    pub(super) fn array_reports(&self) -> Vec<ArrayReport> {
        let drives = lock(&self.drives);
        let online = self.arrays.values().map(|array| ArrayReport {
            array: array.id,
            name: array.name.clone(),
            capacity: array.capacity,
            promised: promised(&drives, array),
            state: ArrayState::Online,
        });
        let failed = self.failed.iter().map(|(array, name)| ArrayReport {
            array: *array,
            name: name.clone(),
            capacity: Bytes::ZERO,
            promised: Bytes::ZERO,
            state: ArrayState::Failed,
        });
        online.chain(failed).collect()
    }
}

fn out_of_reach(what: &str, array: &str) -> Error {
    let context = format!("{what}, which has failed: mend it and start the agent again");
    let public = format!("array {array} has failed: try again after its operator has mended it");
    Error::new(ErrorKind::Unavailable, public).context(context)
}

fn promised(drives: &BTreeMap<DriveId, Arc<Drive>>, array: &Array) -> Bytes {
    drives
        .values()
        .filter(|drive| drive.array.id == array.id)
        .map(|drive| drive.promise().get())
        .fold(0, u64::saturating_add)
        .try_into()
        .unwrap_or(array.capacity)
}

/// Fails with `NoCapacity` unless the array can promise so much more.
fn room(drives: &BTreeMap<DriveId, Arc<Drive>>, array: &Array, more: Bytes) -> Result<()> {
    let room = array.capacity.saturating_sub(promised(drives, array));
    if more <= room {
        return Ok(());
    }
    let public = format!(
        "array {} has room for {room} more, not {more}: choose a smaller size or another array",
        array.name
    );
    Err(Error::new(ErrorKind::NoCapacity, public))
}
