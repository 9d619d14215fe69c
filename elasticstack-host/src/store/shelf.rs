//! One folder of an array, with drives or with snapshots: the sequences of steps that make and
//! destroy one, and finishing or forgetting what a crash cut short.
//!
//! Every sequence has one step that decides, so that a crash anywhere leaves the old state or the
//! new one. Whoever calls sees to it that one sequence at a time runs on one id.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::marker::PhantomData;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use elasticstack_core::id::{IdKind, TypedId};
use elasticstack_core::prelude::*;

use super::directory::{Directory, failed};
use super::layout::{self, Damage, Kept, Part, Recovery};

/// The folder of everything of which an `R` is the record.
#[derive(Debug)]
pub(super) struct Shelf<R> {
    array: ArrayId,
    pub(super) files: Directory,
    records: PhantomData<fn() -> R>,
}

/// What was found when an array was opened.
#[derive(Debug)]
pub(super) struct Found<R: Kept> {
    pub(super) whole: Vec<R>,
    pub(super) set_aside: BTreeSet<TypedId<R::Kind>>,
}

impl<R: Kept> Shelf<R> {
    /// Opens the folder at `path`, making it if it is missing.
    pub(super) fn open(array: ArrayId, path: &Path) -> Result<Self> {
        Ok(Self { array, files: Directory::open(path)?, records: PhantomData })
    }

    /// Where the bytes of `id` lie.
    pub(super) fn raw(&self, id: TypedId<R::Kind>) -> PathBuf {
        self.files.path().join(Part::Raw.of(id))
    }

    /// Makes one, or gives one other bytes and another record: the bytes are what `fill` makes of
    /// an empty file. A new one is decided by the record's rename. Where there was one before, the
    /// bytes' rename decides, and a crash just before it leaves the old bytes with the new record.
    pub(super) fn put(&self, record: &R, fill: impl FnOnce(&File) -> io::Result<()>) -> Result<()> {
        let id = record.id();
        self.files.make(&Part::RawNew.of(id), fill)?;
        self.save(record)?;
        self.files.rename(&Part::RawNew.of(id), &Part::Raw.of(id))?;
        self.files.sync()
    }

    /// Replaces a record.
    pub(super) fn save(&self, record: &R) -> Result<()> {
        let json = serde_json::to_vec(record)
            .map_err(|error| Error::internal("writing a record").source(error))?;
        let id = record.id();
        self.files.replace(&Part::Record.of(id), &Part::RecordNew.of(id), &json)
    }

    /// Destroys one, or what is left of it. Decided by the record's rename.
    pub(super) fn destroy(&self, id: TypedId<R::Kind>) -> Result<()> {
        self.files.rename_if_there(&Part::Record.of(id), &Part::RecordGone.of(id))?;
        self.files.sync()?;
        for part in [Part::Raw, Part::RawNew, Part::RecordNew] {
            self.files.remove(&part.of(id))?;
        }
        self.files.sync()?;
        self.files.remove(&Part::RecordGone.of(id))
    }

    /// Brings everything to a clean state.
    pub(super) fn recover(&self) -> Result<Found<R>> {
        let kind = R::Kind::NAME;
        let mut parts_of: BTreeMap<TypedId<R::Kind>, BTreeSet<Part>> = BTreeMap::new();
        for name in self.files.names()? {
            match Part::parse(&name) {
                Some((id, part)) => drop(parts_of.entry(id).or_default().insert(part)),
                None => {
                    tracing::warn!(array = %self.array, name, "left a file alone that is no {kind}'s");
                }
            }
        }
        let mut found = Found { whole: Vec::new(), set_aside: BTreeSet::new() };
        for (id, parts) in parts_of {
            match self.recover_one(id, &parts)? {
                Ok(None) => {}
                Ok(Some(record)) => found.whole.push(record),
                Err(damage) => {
                    self.say_set_aside(id, &damage);
                    found.set_aside.insert(id);
                }
            }
        }
        Ok(found)
    }

    /// Tells the operator that the files of `id` are left as they are.
    pub(super) fn say_set_aside(&self, id: TypedId<R::Kind>, damage: &Damage) {
        let (why, kind) = (damage as &dyn std::error::Error, R::Kind::NAME);
        tracing::error!(array = %self.array, %id, why, "set the files of a {kind} aside");
    }

    fn recover_one(
        &self,
        id: TypedId<R::Kind>,
        parts: &BTreeSet<Part>,
    ) -> Result<Result<Option<R>, Damage>> {
        match Recovery::from(parts) {
            Recovery::SetAside => return Ok(Err(Damage::Half)),
            Recovery::FinishDestroy | Recovery::ForgetCreate => {
                return self.destroy(id).map(|()| Ok(None));
            }
            Recovery::FinishCreate => {
                self.files.rename(&Part::RawNew.of(id), &Part::Raw.of(id))?;
            }
            Recovery::Keep => {}
        }
        for scratch in [Part::RawNew, Part::RecordNew, Part::RecordGone] {
            self.files.remove(&scratch.of(id))?;
        }
        self.files.sync()?;
        let path = self.files.path().join(Part::Record.of(id));
        let json = fs::read(&path).map_err(failed("reading", &path))?;
        let record: R = match layout::read(&json, id, self.array) {
            Ok(record) => record,
            Err(damage) => return Ok(Err(damage)),
        };
        let raw = Part::Raw.of(id);
        let (found, recorded) = (self.files.length(&raw)?.unwrap_or(0), record.size().get());
        if found < recorded {
            return Ok(Err(Damage::Short { found, recorded }));
        }
        if found > recorded {
            self.files.resize(&raw, record.size())?;
        }
        Ok(Ok(Some(record)))
    }

    /// How many bytes the files here occupy; what they share with each other counts for each.
    pub(super) fn occupied(&self) -> Result<u64> {
        let mut occupied = 0_u64;
        for name in self.files.names()? {
            let path = self.files.path().join(name);
            let blocks = match fs::symlink_metadata(&path) {
                Ok(metadata) => metadata.blocks(),
                // It went meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(failed("looking at", &path)(error)),
            };
            occupied = occupied.saturating_add(blocks.saturating_mul(512));
        }
        Ok(occupied)
    }
}
