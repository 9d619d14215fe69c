//! Looks at an array again and again, for as long as its store is open, and tells the store how it is.
//!
//! Each array is looked at by a thread of its own: a sick disk may hold that up for minutes, which
//! delays what is told of its own array and of no other.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use elasticstack_core::block::Disks;
use elasticstack_core::prelude::*;

use super::made::MadeArray;
use super::md::{Health, Md};
use crate::store::DirectoryStore;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// Watches an array of the store's, which is `made` of disks if it is no mere directory: how they are
/// is in its reports from then on, and once it or its file system fails, it has failed in the store.
///
/// # Errors
/// `Internal` if there can be no thread more.
pub fn watch(store: &Arc<DirectoryStore>, array: ArrayId, made: Option<MadeArray>) -> Result<()> {
    let watcher = Watcher { store: Arc::downgrade(store), array, made, serials: BTreeMap::new() };
    thread::Builder::new()
        .name("array".to_owned())
        .spawn(move || watcher.watch())
        .map(drop)
        .map_err(|error| Error::internal("starting a thread that watches an array").source(error))
}

struct Watcher {
    store: Weak<DirectoryStore>,
    array: ArrayId,
    made: Option<MadeArray>,
    /// Of its disks by their devices: one that was pulled tells its own no more.
    serials: BTreeMap<String, String>,
}

impl Watcher {
    fn watch(mut self) {
        let (mut was_failed, mut trouble) = (false, None);
        while let Some(store) = self.store.upgrade() {
            store.check(self.array);
            match self.made.map(|made| Md::find(made.md)) {
                None => {}
                Some(Ok(found)) => {
                    let has_failed = found.as_ref().is_none_or(|md| md.health() == Health::Failed);
                    // The files of the kernel are read one after the other, and may not fit once.
                    if has_failed && was_failed {
                        store.give_up(self.array, "it has lost more disks than it can do without");
                    }
                    (was_failed, trouble) = (has_failed, None);
                    store.note_disks(self.array, found.map(|md| self.named(md)));
                }
                Some(Err(error)) => {
                    let error = Chain(&error).to_string();
                    if trouble.as_ref() != Some(&error) {
                        tracing::warn!(array = %self.array, error, "an array can't be looked at");
                    }
                    trouble = Some(error);
                }
            }
            drop(store);
            thread::sleep(PAUSE);
        }
    }

    /// How its disks are, by their serial numbers.
    fn named(&mut self, md: Md) -> Disks {
        let mut disks = md.disks();
        for (member, disk) in md.members.into_iter().zip(&mut disks.each) {
            match member.serial {
                Some(serial) => drop(self.serials.insert(member.device, serial)),
                None => {
                    let known = self.serials.get(&member.device).cloned();
                    disk.name = known.unwrap_or(member.device);
                }
            }
        }
        disks
    }
}
