//! Looks at an array again and again, for as long as its store is open, and tells the store how it is.
//!
//! Each array is looked at by a thread of its own: a sick disk may hold that up for minutes, which
//! delays what is told of its own array and of no other.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::thread;
use std::time::Duration;

use elasticstack_core::block::{DiskReport, Disks, Warning};
use elasticstack_core::prelude::*;

use super::made::MadeArray;
use super::md::{Health, Md, Member};
use super::signs::{Signs, Watched, keep};
use crate::store::DirectoryStore;

/// The pause between two looks.
const PAUSE: Duration = Duration::from_secs(2);

/// Watches an array of the store's, which is `made` of disks if it is no mere directory: how they are, and what an
/// operator should look at, is in its reports from then on, and the latter also in the directory `notes`;
/// once it or its file system fails, it has failed in the store.
///
/// # Errors
/// `Internal` if there can be no thread more.
pub fn watch(
    store: &Arc<DirectoryStore>,
    array: ArrayId,
    made: Option<MadeArray>,
    notes: PathBuf,
) -> Result<()> {
    let watcher = Watcher {
        store: Arc::downgrade(store),
        array,
        made,
        notes,
        serials: BTreeMap::new(),
        signs: Signs::new(),
        warnings: None,
    };
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
    notes: PathBuf,
    /// Of its disks by their devices: one that was pulled tells its own no more.
    serials: BTreeMap<String, String>,
    signs: Signs,
    /// What was last told.
    warnings: Option<Vec<Warning>>,
}

impl Watcher {
    fn watch(mut self) {
        let (mut was_failed, mut trouble) = (false, None);
        while let Some(store) = self.store.upgrade() {
            store.check(self.array);
            match self.made.map(|made| Md::find(made.md)) {
                None => self.warn(&store, &[], &[]),
                Some(Ok(found)) => {
                    let has_failed = found.as_ref().is_none_or(|md| md.health() == Health::Failed);
                    // The files of the kernel are read one after the other, and may not fit once.
                    if has_failed && was_failed {
                        store.give_up(self.array, "it has lost more disks than it can do without");
                    }
                    (was_failed, trouble) = (has_failed, None);
                    let members: Vec<_> = found.iter().flat_map(|md| md.members.clone()).collect();
                    let disks = found.map(|md| self.named(md));
                    let each =
                        disks.iter().flat_map(|disks| disks.each.clone()).collect::<Vec<_>>();
                    store.note_disks(self.array, disks);
                    self.warn(&store, &members, &each);
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

    /// Tells what an operator should look at, if that has changed.
    fn warn(&mut self, store: &DirectoryStore, members: &[Member], reports: &[DiskReport]) {
        let serving = members.iter().zip(reports).filter(|(member, _)| member.is_in_sync());
        let disks: Vec<_> = serving
            .map(|(member, report)| Watched { name: &report.name, device: &member.device })
            .collect();
        let room = store.room(self.array).unwrap_or_else(|error| {
            tracing::debug!(array = %self.array, error = %Chain(&error), "an array's room is unknown");
            None
        });
        let warnings = self.signs.look(&disks, room);
        if self.warnings.as_ref() == Some(&warnings) {
            return;
        }
        for Warning { kind, sentence, .. } in &warnings {
            tracing::warn!(array = %self.array, kind = kind.as_str(), "{sentence}");
        }
        store.note_warnings(self.array, warnings.clone());
        match keep(&self.notes, self.array, &warnings) {
            Ok(()) => self.warnings = Some(warnings),
            // It is tried again with the next look.
            Err(error) => tracing::warn!(error = %Chain(&error), "what is told can't be kept"),
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
