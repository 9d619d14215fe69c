//! One directory array: opening it, the sequences of steps that make, change and destroy a drive
//! on it, and finishing or forgetting what a crash cut short.
//!
//! Every sequence has one step that decides, so that a crash anywhere leaves the old state or the
//! new one. Whoever calls sees to it that one sequence at a time runs on a drive.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind as IoKind;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use elasticstack_core::prelude::*;

use super::directory::{Directory, failed};
use super::layout::{Damage, Label, Part, Record, Recovery};

/// An array as its operator describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DirectoryArray {
    /// Which array.
    pub array: ArrayId,
    /// What the operator calls it.
    pub name: String,
    /// Its directory. A new one is made if it is missing, labelled with the array's id, and
    /// afterwards opens under no other.
    pub path: PathBuf,
    /// How much may be promised on it.
    pub capacity: ArrayCapacity,
}

impl DirectoryArray {
    /// The array that the directory at `path` is labelled as; `None` for a new directory.
    ///
    /// # Errors
    /// `Internal` if the label can't be read.
    pub fn label(path: &Path) -> Result<Option<ArrayId>> {
        Ok(read_label(&path.join("array.json"))?.map(|label| label.array))
    }
}

/// How much the drives of an array may sum up to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ArrayCapacity {
    /// What its file system has for it when the store is opened, less a reserve: no promise here
    /// can fail. The file system must not hold a second such array.
    Disk {
        /// What is kept back for the file system's own needs.
        reserve: Bytes,
    },
    /// What the operator says. More than the disks have is over-commitment: writes may then fail
    /// for want of space.
    Fixed(Bytes),
}

/// Whether this host has opened an array before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum History {
    /// Its directory may be empty: then it is labelled.
    New,
    /// It has a label, or is not there.
    Known,
}

/// An open array, locked against every other store.
#[derive(Debug)]
pub(super) struct Array {
    pub(super) id: ArrayId,
    pub(super) name: String,
    pub(super) capacity: Bytes,
    /// The file system's number, if its room is what the capacity was computed from.
    pub(super) device: Option<u64>,
    pub(super) drives: Directory,
    _lock: File,
}

/// The drives found on an array when it was opened.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) whole: Vec<Record>,
    pub(super) set_aside: BTreeSet<DriveId>,
}

impl Array {
    /// Locks the array, checks that it is the one meant, and brings every drive to a clean state.
    pub(super) fn open(config: DirectoryArray, history: History) -> Result<(Self, Found)> {
        let DirectoryArray { array: id, name, path, capacity } = config;
        // Before anything is made in what may be the mount point of a disk that is not there.
        if history == History::Known && DirectoryArray::label(&path)?.is_none() {
            return Err(Error::internal(format!(
                "array {name} was at {} before, and now nothing there is labelled as an array: \
                 mount its file system",
                path.display()
            )));
        }
        let root = Directory::open(&path)?;
        let lock = lock(root.path(), &name)?;
        check_label(&root, id)?;
        let drives = Directory::open(&root.path().join("drives"))?;
        root.sync()?;
        let mut array = Self { id, name, capacity: Bytes::ZERO, device: None, drives, _lock: lock };
        let found = array.recover()?;
        match capacity {
            ArrayCapacity::Fixed(capacity) => array.capacity = capacity,
            ArrayCapacity::Disk { reserve } => {
                let (device, room) = array.room_on_disk()?;
                array.device = Some(device);
                array.capacity = room.saturating_sub(reserve);
            }
        }
        Ok((array, found))
    }

    /// Where a drive's bytes lie.
    pub(super) fn raw(&self, drive: DriveId) -> PathBuf {
        self.drives.path().join(Part::Raw.of(drive))
    }

    /// Makes a drive of zeros. Decided by the record's rename.
    pub(super) fn create(&self, record: &Record) -> Result<()> {
        let drive = record.drive;
        self.drives.make_sparse(&Part::RawNew.of(drive), record.size)?;
        self.save(record)?;
        self.drives.rename(&Part::RawNew.of(drive), &Part::Raw.of(drive))?;
        self.drives.sync()
    }

    /// Replaces a drive's record.
    pub(super) fn save(&self, record: &Record) -> Result<()> {
        let json = serde_json::to_vec(record)
            .map_err(|error| Error::internal("writing a drive's record").source(error))?;
        let name = Part::Record.of(record.drive);
        self.drives.replace(&name, &Part::RecordNew.of(record.drive), &json)
    }

    /// Gives a drive of `old` size the record's. Decided by the record's rename: until then the
    /// bytes are at least as long as the drive, and after it anything longer is cut off.
    pub(super) fn resize(&self, old: Bytes, record: &Record) -> Result<()> {
        let raw = Part::Raw.of(record.drive);
        if record.size > old {
            self.drives.resize(&raw, record.size)?;
        }
        self.save(record)?;
        if record.size < old {
            self.drives.resize(&raw, record.size)?;
        }
        Ok(())
    }

    /// Destroys a drive, or what is left of one. Decided by the record's rename.
    pub(super) fn destroy(&self, drive: DriveId) -> Result<()> {
        self.drives.rename_if_there(&Part::Record.of(drive), &Part::RecordGone.of(drive))?;
        self.drives.sync()?;
        for part in [Part::Raw, Part::RawNew, Part::RecordNew] {
            self.drives.remove(&part.of(drive))?;
        }
        self.drives.sync()?;
        self.drives.remove(&Part::RecordGone.of(drive))
    }

    fn recover(&self) -> Result<Found> {
        let mut drives: BTreeMap<DriveId, BTreeSet<Part>> = BTreeMap::new();
        for name in self.drives.names()? {
            match Part::parse(&name) {
                Some((drive, part)) => drop(drives.entry(drive).or_default().insert(part)),
                None => {
                    tracing::warn!(array = %self.id, name, "left a file alone that is no drive's")
                }
            }
        }
        let mut found = Found::default();
        for (drive, parts) in drives {
            match self.recover_drive(drive, &parts)? {
                Ok(None) => {}
                Ok(Some(record)) => found.whole.push(record),
                Err(damage) => {
                    self.say_set_aside(drive, &damage);
                    found.set_aside.insert(drive);
                }
            }
        }
        Ok(found)
    }

    /// Tells the operator that a drive's files are left as they are.
    pub(super) fn say_set_aside(&self, drive: DriveId, damage: &Damage) {
        let why = damage as &dyn std::error::Error;
        tracing::error!(array = %self.id, name = self.name, %drive, why, "set a drive's files aside");
    }

    fn recover_drive(
        &self,
        drive: DriveId,
        parts: &BTreeSet<Part>,
    ) -> Result<Result<Option<Record>, Damage>> {
        match Recovery::from(parts) {
            Recovery::SetAside => return Ok(Err(Damage::Half)),
            Recovery::FinishDestroy | Recovery::ForgetCreate => {
                return self.destroy(drive).map(|()| Ok(None));
            }
            Recovery::FinishCreate => {
                self.drives.rename(&Part::RawNew.of(drive), &Part::Raw.of(drive))?;
            }
            Recovery::Keep => {}
        }
        for scratch in [Part::RawNew, Part::RecordNew, Part::RecordGone] {
            self.drives.remove(&scratch.of(drive))?;
        }
        self.drives.sync()?;
        let path = self.drives.path().join(Part::Record.of(drive));
        let json = fs::read(&path).map_err(failed("reading", &path))?;
        let record = match Record::read(&json, drive, self.id) {
            Ok(record) => record,
            Err(damage) => return Ok(Err(damage)),
        };
        let raw = Part::Raw.of(drive);
        let (found, recorded) = (self.drives.length(&raw)?.unwrap_or(0), record.size.get());
        if found < recorded {
            return Ok(Err(Damage::Short { found, recorded }));
        }
        if found > recorded {
            self.drives.resize(&raw, record.size)?;
        }
        Ok(Ok(Some(record)))
    }

    /// The file system's number, and what it has for drives: what is free and what they occupy.
    fn room_on_disk(&self) -> Result<(u64, Bytes)> {
        let path = self.drives.path();
        let device = fs::metadata(path).map_err(failed("looking at", path))?.dev();
        let disk = rustix::fs::statvfs(path)
            .map_err(|error| failed("asking for the room at", path)(error.into()))?;
        let mut room = disk.f_bavail.saturating_mul(disk.f_frsize);
        for name in self.drives.names()? {
            let path = path.join(name);
            let blocks = fs::symlink_metadata(&path).map_err(failed("looking at", &path))?.blocks();
            room = room.saturating_add(blocks.saturating_mul(512));
        }
        // Drives that share blocks count them more than once above.
        let room = room.min(disk.f_blocks.saturating_mul(disk.f_frsize));
        let room = Bytes::try_from(room)
            .map_err(|error| Error::internal(format!("{}", path.display())).source(error))?;
        Ok((device, room))
    }
}

fn lock(root: &Path, name: &str) -> Result<File> {
    let path = root.join("lock");
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(&path)
        .map_err(failed("opening", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Error::internal(format!(
            "array {name} at {} is open in another process, or listed twice: end the other one",
            root.display()
        ))),
        Err(TryLockError::Error(error)) => Err(failed("locking", &path)(error)),
    }
}

fn check_label(root: &Directory, array: ArrayId) -> Result<()> {
    let path = root.path().join("array.json");
    let found = match read_label(&path)? {
        Some(label) => label,
        None => {
            // The label comes first of all, so drives without one were put here by hand.
            if root.length("drives")?.is_some() {
                return Err(Error::internal(format!(
                    "{} has drives but no array.json: put back the one they came with",
                    root.path().display()
                )));
            }
            let label = Label::new(array);
            let json = serde_json::to_vec(&label)
                .map_err(|error| Error::internal("writing array.json").source(error))?;
            root.replace("array.json", "array.json.new", &json)?;
            label
        }
    };
    if found != Label::new(array) {
        return Err(Error::internal(format!(
            "{} is labelled {found:?}, not {:?}: correct the configuration",
            root.path().display(),
            Label::new(array)
        )));
    }
    Ok(())
}

fn read_label(path: &Path) -> Result<Option<Label>> {
    match fs::read(path) {
        Ok(json) => serde_json::from_slice(&json)
            .map(Some)
            .map_err(|error| Error::internal(format!("reading {}", path.display())).source(error)),
        Err(error) if error.kind() == IoKind::NotFound => Ok(None),
        Err(error) => Err(failed("reading", path)(error)),
    }
}
