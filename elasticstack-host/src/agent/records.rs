//! What the agent must not forget: one durable JSON file per object, `FOLDER/ID.json`, holding the
//! desired document and the facts of what was done about it; and the same in memory.
//!
//! Not here: what objects look like now, which is observed anew in each life ([`super::board`]).
//!
//! Invariants: memory never runs ahead of the disk; a file is replaced whole or not at all, so
//! that a crash leaves the record before or the record after; generations only grow.
//!
//! Methods that write block on the disk: call them from a thread that may.

use std::collections::HashMap;
use std::fmt::{Debug, Display};
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::hash::Hash;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Mutex;

use elasticstack_core::generation::Generation;
use elasticstack_core::id::{DriveId, JobId, ServerId, SnapshotId};
use elasticstack_core::wire::internal::{
    DriveDocument, Fault, JobDocument, LentDrive, ServerDocument, SnapshotDocument,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::locked;
use crate::reconcile::Past;

/// A kind of document, and where its records lie.
pub(crate) trait Desired: Clone + Debug + Serialize + DeserializeOwned + Send {
    /// What names the object.
    type Id: Copy + Eq + Hash + Debug + Display + FromStr + Send;
    /// What is durably known of what was done about the document.
    type Facts: Clone + Debug + Default + Serialize + DeserializeOwned + Send;

    /// The folder of its records.
    const FOLDER: &'static str;

    fn id(&self) -> Self::Id;
    fn generation(&self) -> Generation;
    fn is_gone(&self) -> bool;
}

/// What was done about a drive.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct DriveFacts {
    /// It existed once: should it be missing, its bytes are missing, and an empty drive must not
    /// take its place.
    pub created: bool,
    /// All that may be lent: noted before a lend is made, and until it is withdrawn.
    #[serde(default)]
    pub lent: Vec<LentDrive>,
}

/// What was done about a job.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct JobFacts {
    /// How it ended; a job without an end begins again from zero.
    pub end: Option<JobEnd>,
}

/// How a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum JobEnd {
    /// The target is whole and durable.
    Done,
    /// The target's SHA-256 is this.
    Summed(String),
    /// Without success.
    Failed(Fault),
}

/// What was done about a snapshot.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SnapshotFacts {
    /// It was taken once: should it be missing, what its drive holds by now must not take its
    /// place.
    pub taken: bool,
    /// The newest restore that is over.
    pub restored: u64,
    /// Why that one left the drive as it was, if it did.
    pub refused: Option<Fault>,
}

macro_rules! desired {
    ($document:ty, $id:ty, $field:ident, $facts:ty, $folder:literal) => {
        impl Desired for $document {
            type Id = $id;
            type Facts = $facts;
            const FOLDER: &'static str = $folder;

            fn id(&self) -> $id {
                self.$field
            }

            fn generation(&self) -> Generation {
                self.generation
            }

            fn is_gone(&self) -> bool {
                self.gone
            }
        }
    };
}

desired!(DriveDocument, DriveId, drive, DriveFacts, "drives");
desired!(JobDocument, JobId, job, JobFacts, "jobs");
desired!(ServerDocument, ServerId, server, Past, "servers");
desired!(SnapshotDocument, SnapshotId, snapshot, SnapshotFacts, "snapshots");

/// One object.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(bound = "")]
pub(crate) struct Record<D: Desired> {
    pub document: D,
    pub facts: D::Facts,
}

/// A record could not be read or written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RecordError {
    #[error("cannot {operation} {}", path.display())]
    Io { operation: &'static str, path: PathBuf, source: io::Error },
    #[error(
        "{} is no record: restore it from a backup, or move it away to have its object forgotten",
        path.display()
    )]
    Malformed { path: PathBuf, source: serde_json::Error },
    #[error("{} is not named by an id: move it away", path.display())]
    Misnamed { path: PathBuf },
}

/// Every object of one kind.
#[derive(Debug)]
pub(crate) struct Table<D: Desired> {
    folder: PathBuf,
    /// Held by whoever writes, over the disk and the memory.
    writing: Mutex<()>,
    /// Held for moments only.
    records: Mutex<HashMap<D::Id, Record<D>>>,
}

impl<D: Desired> Table<D> {
    /// Reads the records under `state`, and makes their folder if there is none.
    pub(crate) fn open(state: &Path) -> Result<Self, RecordError> {
        let folder = state.join(D::FOLDER);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&folder)
            .map_err(|source| io_error("create", &folder, source))?;
        sync_folder(state)?;
        let mut records = HashMap::new();
        let entries = fs::read_dir(&folder).map_err(|e| io_error("list", &folder, e))?;
        for entry in entries {
            let path = entry.map_err(|e| io_error("list", &folder, e))?.path();
            if path.extension().is_some_and(|extension| extension == "new") {
                fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))?;
                continue;
            }
            let stem = path.file_stem().and_then(|stem| stem.to_str());
            let id: Option<D::Id> = stem.and_then(|stem| stem.parse().ok());
            let text = fs::read(&path).map_err(|e| io_error("read", &path, e))?;
            let record: Record<D> = serde_json::from_slice(&text)
                .map_err(|source| RecordError::Malformed { path: path.clone(), source })?;
            match id {
                Some(id) if id == record.document.id() => records.insert(id, record),
                _ => return Err(RecordError::Misnamed { path }),
            };
        }
        Ok(Self { folder, writing: Mutex::new(()), records: Mutex::new(records) })
    }

    /// The record of an object.
    pub(crate) fn get(&self, id: D::Id) -> Option<Record<D>> {
        locked(&self.records).get(&id).cloned()
    }

    /// Every record.
    pub(crate) fn all(&self) -> Vec<Record<D>> {
        locked(&self.records).values().cloned().collect()
    }

    /// Makes each document durable unless there is one of its generation or a newer one; tells
    /// how many were older.
    pub(crate) fn put(&self, documents: Vec<D>) -> Result<u64, RecordError> {
        let _writing = locked(&self.writing);
        let mut ignored = 0;
        let mut fresh: HashMap<D::Id, Record<D>> = HashMap::new();
        for document in documents {
            let id = document.id();
            let known = fresh.remove(&id).or_else(|| self.get(id));
            let record = match known {
                Some(known) if known.document.generation() >= document.generation() => {
                    ignored += u64::from(known.document.generation() > document.generation());
                    known
                }
                Some(known) => Record { document, facts: known.facts },
                None => Record { document, facts: D::Facts::default() },
            };
            fresh.insert(id, record);
        }
        for record in fresh.values() {
            self.write(record)?;
        }
        sync_folder(&self.folder)?;
        locked(&self.records).extend(fresh);
        Ok(ignored)
    }

    /// Changes the facts of an object durably, if it is known.
    pub(crate) fn amend(
        &self,
        id: D::Id,
        change: impl FnOnce(&mut D::Facts),
    ) -> Result<(), RecordError> {
        let _writing = locked(&self.writing);
        let Some(mut record) = self.get(id) else { return Ok(()) };
        change(&mut record.facts);
        self.write(&record)?;
        sync_folder(&self.folder)?;
        locked(&self.records).insert(id, record);
        Ok(())
    }

    /// Forgets an object whose tombstone of this generation is still the newest word on it.
    pub(crate) fn forget(&self, id: D::Id, generation: Generation) -> Result<(), RecordError> {
        let _writing = locked(&self.writing);
        let obeyed = |record: Record<D>| {
            record.document.is_gone() && record.document.generation() == generation
        };
        if self.get(id).is_some_and(obeyed) {
            let path = self.folder.join(format!("{id}.json"));
            fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))?;
            sync_folder(&self.folder)?;
            locked(&self.records).remove(&id);
        }
        Ok(())
    }

    fn write(&self, record: &Record<D>) -> Result<(), RecordError> {
        let id = record.document.id();
        let path = self.folder.join(format!("{id}.json"));
        let new = self.folder.join(format!("{id}.new"));
        let text = serde_json::to_vec_pretty(record)
            .map_err(|source| RecordError::Malformed { path: path.clone(), source })?;
        let written = || {
            let mut file = OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)?;
            file.write_all(&text)?;
            file.sync_all()?;
            fs::rename(&new, &path)
        };
        written().map_err(|source| io_error("write", &path, source))
    }
}

fn sync_folder(folder: &Path) -> Result<(), RecordError> {
    File::open(folder)
        .and_then(|folder| folder.sync_all())
        .map_err(|source| io_error("sync", folder, source))
}

fn io_error(operation: &'static str, path: &Path, source: io::Error) -> RecordError {
    RecordError::Io { operation, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use elasticstack_core::generation::Era;
    use proptest::prelude::*;

    use super::*;

    fn drive(n: u8, number: u64, gone: bool) -> DriveDocument {
        let id = |kind: u8| format!("5b0e3c52-0000-4000-8000-0000000{kind:02x}0{n:02x}");
        DriveDocument {
            drive: id(0).parse().unwrap(),
            generation: Generation::new(Era(1), number),
            gone,
            account: id(1).parse().unwrap(),
            array: id(2).parse().unwrap(),
            size: number << 20,
            lends: Vec::new(),
        }
    }

    fn shown(table: &Table<DriveDocument>) -> Vec<String> {
        let mut all: Vec<_> = table.all().iter().map(|record| format!("{record:?}")).collect();
        all.sort();
        all
    }

    #[test]
    fn a_crash_while_a_record_is_written_leaves_the_one_before() {
        let state = tempfile::tempdir().unwrap();
        let table = Table::open(state.path()).unwrap();
        table.put(vec![drive(1, 1, false)]).unwrap();
        let before = shown(&table);
        let id = drive(1, 1, false).drive;
        let facts = DriveFacts { created: true, lent: Vec::new() };
        let next = Record { document: drive(1, 2, false), facts };
        let text = serde_json::to_vec_pretty(&next).unwrap();
        for length in 0..=text.len() {
            let torn = state.path().join(format!("drives/{id}.new"));
            fs::write(&torn, &text[..length]).unwrap();
            assert_eq!(shown(&Table::open(state.path()).unwrap()), before, "{length} bytes");
            assert!(!torn.exists());
        }
    }

    #[test]
    fn a_record_that_cannot_be_read_is_named_and_not_passed_over() {
        let state = tempfile::tempdir().unwrap();
        Table::<DriveDocument>::open(state.path()).unwrap();
        let id = drive(1, 1, false).drive;
        fs::write(state.path().join(format!("drives/{id}.json")), "{").unwrap();
        let error = Table::<DriveDocument>::open(state.path()).unwrap_err();
        assert!(error.to_string().contains(&id.to_string()), "{error}");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Put(Vec<(u8, u64, bool)>),
        Amend(u8),
        Forget(u8, u64),
        Reopen,
    }

    fn step() -> impl Strategy<Value = Step> {
        let documents = proptest::collection::vec((0_u8..3, 1_u64..5, any::<bool>()), 0..4);
        prop_oneof![
            documents.prop_map(Step::Put),
            (0_u8..3).prop_map(Step::Amend),
            (0_u8..3, 1_u64..5).prop_map(|(n, number)| Step::Forget(n, number)),
            Just(Step::Reopen),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn a_reopened_table_knows_all_and_generations_only_grow(
            steps in proptest::collection::vec(step(), 0..12)
        ) {
            let state = tempfile::tempdir().unwrap();
            let mut table = Table::<DriveDocument>::open(state.path()).unwrap();
            for step in steps {
                match step {
                    Step::Put(documents) => {
                        let documents: Vec<_> = documents
                            .into_iter()
                            .map(|(n, number, gone)| drive(n, number, gone))
                            .collect();
                        table.put(documents.clone()).unwrap();
                        for document in documents {
                            let kept = table.get(document.drive).unwrap().document;
                            prop_assert!(kept.generation >= document.generation);
                        }
                    }
                    Step::Amend(n) => {
                        table.amend(drive(n, 1, false).drive, |facts| facts.created = true).unwrap();
                    }
                    Step::Forget(n, number) => {
                        let id = drive(n, 1, false).drive;
                        let before = table.get(id);
                        table.forget(id, Generation::new(Era(1), number)).unwrap();
                        if before.is_some_and(|record| !record.document.gone) {
                            prop_assert!(table.get(id).is_some(), "forgot what is not gone");
                        }
                    }
                    Step::Reopen => {}
                }
                let reopened = Table::open(state.path()).unwrap();
                prop_assert_eq!(shown(&reopened), shown(&table));
                table = reopened;
            }
        }
    }
}
