//! One directory array: opening it, and the steps that make and resize a drive on it.
//!
//! Every sequence has one step that decides, so that a crash anywhere leaves the old state or the
//! new one. Whoever calls sees to it that one sequence at a time runs on a drive.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::ErrorKind as IoKind;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use elasticstack_core::prelude::*;
use rustix::fs::StatVfs;

use super::directory::{Directory, failed};
use super::drive::lock as lock_of;
use super::extents::lay_out;
use super::known::KnownArrays;
use super::layout::{Label, Part, Record, SnapshotRecord};
use super::shelf::{Found, Shelf};

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
    /// What its file system has for it when the store is opened, and whenever that has grown, less a
    /// reserve: no promise here can fail. The file system must not hold a second such array.
    Disk {
        /// What is kept back for the file system's own needs.
        reserve: Bytes,
    },
    /// What the operator says. More than the disks have is over-commitment: writes may then fail
    /// for want of space.
    Fixed(Bytes),
}

/// The room of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// The most that drives and snapshots may sum up to.
    pub capacity: Bytes,
    /// What they sum up to.
    pub promised: Bytes,
    /// What its file system has free; less than is left to promise where more is promised than there is.
    pub free_on_disk: Bytes,
}

/// How large an array is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Measure {
    capacity: Bytes,
    /// Of how many blocks its file system was then.
    blocks: u64,
}

/// An array that was opened, with what was found on it; nothing uses it before it is in a store.
#[derive(Debug)]
pub struct OpenedArray {
    pub(super) array: Array,
    pub(super) drives: Found<Record>,
    pub(super) snapshots: Found<SnapshotRecord>,
}

impl OpenedArray {
    /// Locks the array, labels a new one, finishes what a crash cut short on it, and remembers that it was here.
    /// Blocks while it reads one small file for each drive.
    ///
    /// # Errors
    /// `Internal` with the reasons for which an array fails in [`super::DirectoryStore::open`], or if `known`
    /// can't be kept.
    pub fn open(known: &mut KnownArrays, config: DirectoryArray) -> Result<Self> {
        let DirectoryArray { array, path, .. } = config.clone();
        let opened = Array::open(config, known)?;
        known.remember(&path, array)?;
        Ok(opened)
    }
}

/// An open array, locked against every other store.
#[derive(Debug)]
pub(super) struct Array {
    pub(super) id: ArrayId,
    pub(super) name: String,
    limit: ArrayCapacity,
    measure: Mutex<Measure>,
    /// The file system's number, if its room is what the capacity was computed from.
    pub(super) device: Option<u64>,
    pub(super) drives: Shelf<Record>,
    pub(super) snapshots: Shelf<SnapshotRecord>,
    lock: File,
    has_failed: AtomicBool,
}

impl Array {
    /// Locks the array, checks that it is the one meant, and brings every drive and snapshot to a
    /// clean state.
    pub(super) fn open(config: DirectoryArray, known: &KnownArrays) -> Result<OpenedArray> {
        let DirectoryArray { array: id, name, path, capacity: limit } = config;
        // Before anything is made in what may be the mount point of a disk that is not there.
        if known.contains(id) && DirectoryArray::label(&path)?.is_none() {
            return Err(Error::internal(format!(
                "array {name} was at {} before, and now nothing there is labelled as an array: \
                 mount its file system",
                path.display()
            )));
        }
        let root = Directory::open(&path)?;
        let lock = lock(root.path(), &name)?;
        check_label(&root, id)?;
        let drives = Shelf::open(id, &root.path().join("drives"))?;
        let snapshots = Shelf::open(id, &root.path().join("snapshots"))?;
        root.sync()?;
        let (found, kept) = (drives.recover()?, snapshots.recover()?);
        let device = match limit {
            ArrayCapacity::Fixed(_) => None,
            ArrayCapacity::Disk { .. } => {
                Some(fs::metadata(root.path()).map_err(failed("looking at", root.path()))?.dev())
            }
        };
        let array = Self {
            id,
            name,
            limit,
            measure: Mutex::new(Measure { capacity: Bytes::ZERO, blocks: 0 }),
            device,
            drives,
            snapshots,
            lock,
            has_failed: AtomicBool::new(false),
        };
        array.measure()?;
        Ok(OpenedArray { array, drives: found, snapshots: kept })
    }

    /// The most that its drives and snapshots may sum up to.
    pub(super) fn capacity(&self) -> Bytes {
        lock_of(&self.measure).capacity
    }

    /// Finds out how much that is, if its file system is of another size than it was. Blocks.
    pub(super) fn measure(&self) -> Result<()> {
        let blocks = self.file_system()?.f_blocks;
        if lock_of(&self.measure).blocks == blocks {
            return Ok(());
        }
        let capacity = match self.limit {
            ArrayCapacity::Fixed(capacity) => capacity,
            ArrayCapacity::Disk { reserve } => self.room_on_disk()?.saturating_sub(reserve),
        };
        *lock_of(&self.measure) = Measure { capacity, blocks };
        Ok(())
    }

    /// Asks the file system whether it still works: one that lost its disks shuts itself down. Blocks.
    pub(super) fn probe(&self) -> Result<()> {
        let path = self.drives.files.path();
        self.lock.metadata().map(drop).map_err(failed("looking at the array of", path))
    }

    /// Whether it has failed since it was opened.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Notes that it has failed, for good; answers whether that is news.
    pub(super) fn fail(&self) -> bool {
        !self.has_failed.swap(true, Ordering::Relaxed)
    }

    /// Where a drive's bytes lie.
    pub(super) fn raw(&self, drive: DriveId) -> PathBuf {
        self.drives.raw(drive)
    }

    /// Makes a drive of zeros that occupy no space.
    pub(super) fn create(&self, record: &Record) -> Result<()> {
        self.drives.put(record, |file| {
            lay_out(file)?;
            file.set_len(record.size.get())
        })
    }

    /// Gives a drive of `old` size the record's. Decided by the record's rename: until then the
    /// bytes are at least as long as the drive, and after it anything longer is cut off.
    pub(super) fn resize(&self, old: Bytes, record: &Record) -> Result<()> {
        let raw = Part::Raw.of(record.drive);
        if record.size > old {
            self.drives.files.resize(&raw, record.size)?;
        }
        self.drives.save(record)?;
        if record.size < old {
            self.drives.files.resize(&raw, record.size)?;
        }
        Ok(())
    }

    /// What the file system has for drives and snapshots: what is free and what they occupy.
    fn room_on_disk(&self) -> Result<Bytes> {
        let occupied = || -> Result<_> {
            Ok(self.drives.occupied()?.saturating_add(self.snapshots.occupied()?))
        };
        let before = occupied()?;
        let disk = self.file_system()?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        // What is written or freed meanwhile is not counted twice.
        let room = free.saturating_add(before.min(occupied()?));
        // Those that share blocks count them more than once above.
        let room = room.min(disk.f_blocks.saturating_mul(disk.f_frsize));
        let path = self.drives.files.path();
        Bytes::try_from(room)
            .map_err(|error| Error::internal(format!("{}", path.display())).source(error))
    }

    /// What its file system has free. Blocks.
    pub(super) fn free_on_disk(&self) -> Result<Bytes> {
        let disk = self.file_system()?;
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        Bytes::try_from(free).map_err(|error| Error::internal("a file system's room").source(error))
    }

    fn file_system(&self) -> Result<StatVfs> {
        let path = self.drives.files.path();
        rustix::fs::statvfs(path)
            .map_err(|error| failed("asking for the room at", path)(error.into()))
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
