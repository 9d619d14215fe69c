//! Does what is ordered of this host's arrays: for the program on it and for the agent, which are two ways in
//! to the same.
//!
//! Invariants: one order at a time on a host, whoever gives it; an array is in the configuration before anything
//! can be put on it; an order that was cut off anywhere goes on when it is given again, or says what is there.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use elasticstack_core::block::ArrayState;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::arrays::{HostArray, MadeOf};

use super::disk::DiskName;
use super::integrity::{Integrity, close_idle};
use super::made::MadeArray;
use super::making::{Making, Makings};
use super::md::Md;
use super::order::{ArrayName, Creation, Order};
use super::plan::ArrayPlan;
use super::signs::kept_warnings;
use super::watch::watch;
use super::{looking_at, place};
use crate::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays, OpenedArray};

/// The directory with what there is to tell of arrays, in the agent's state.
pub const WARNINGS: &str = "warnings";

/// Held by whoever carries an order out, in the agent's state.
const LOCK: &str = "arrays.lock";

/// The arrays of this host as its operator has them written down.
pub trait ArrayConfig: Send + Sync {
    /// All of them, as they are written down now.
    ///
    /// # Errors
    /// `Internal` if that can't be read.
    fn arrays(&self) -> Result<Vec<ConfiguredArray>>;

    /// Adds one, durably.
    ///
    /// # Errors
    /// `Internal` if it can't be written.
    fn add(&self, array: &ConfiguredArray) -> Result<()>;
}

/// An array as it is written down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredArray {
    /// Which; a directory that was never opened has no id yet.
    pub array: Option<ArrayId>,
    /// What the operator calls it.
    pub name: String,
    /// Where it is, or is mounted.
    pub path: PathBuf,
    /// How much may be promised on it.
    pub capacity: ArrayCapacity,
    /// What is put together and mounted there, unless it is a directory.
    pub made: Option<MadeArray>,
}

/// Whoever does what is ordered of this host's arrays.
pub struct Keeper {
    config: Box<dyn ArrayConfig>,
    /// The agent's state.
    state: PathBuf,
    makings: Makings,
    serving: Option<Serving>,
}

/// The agent that the arrays are for, as it runs.
struct Serving {
    store: Arc<DirectoryStore>,
    root: PathBuf,
}

impl std::fmt::Debug for Keeper {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keeper").field("state", &self.state).finish_non_exhaustive()
    }
}

impl Keeper {
    /// For a program beside the agent, whose state is here.
    pub fn new(config: impl ArrayConfig + 'static, state: PathBuf) -> Self {
        let makings = Makings::of(&state);
        Self { config: Box::new(config), state, makings, serving: None }
    }

    /// For the agent itself: its store takes in what is made, and nothing is mounted elsewhere than below `root`.
    #[must_use]
    pub fn serving(self, store: Arc<DirectoryStore>, root: PathBuf) -> Self {
        Self { serving: Some(Serving { store, root }), ..self }
    }

    /// How the arrays are. Blocks on their disks.
    ///
    /// # Errors
    /// `Internal` if the configuration or the kernel can't be asked.
    pub fn arrays(&self) -> Result<Vec<HostArray>> {
        let known = KnownArrays::read(&self.state)?;
        let directory = self.state.join(WARNINGS);
        let show = |entry: ConfiguredArray| {
            let array =
                entry.array.map_or_else(|| known.identify(&entry.path), |id| Ok(Some(id)))?;
            let made_of = match entry.made {
                None => MadeOf::Directory,
                Some(made) => {
                    Md::find(made.md)?.map_or(MadeOf::NotPutTogether, |md| MadeOf::Raid(md.into()))
                }
            };
            let warnings = array.map(|array| kept_warnings(&directory, array)).transpose()?;
            Ok(HostArray {
                array,
                name: entry.name,
                path: entry.path.display().to_string(),
                made_of,
                warnings: warnings.unwrap_or_default(),
            })
        };
        self.config.arrays()?.into_iter().map(show).collect()
    }

    /// Carries an order out, to its end: hours where disks are written in whole.
    ///
    /// # Errors
    /// `ResourceInUse` while another one is carried out, or if another array has the name; `InvalidValue` and
    /// `NotFound` with the key to blame, and then nothing was done; those of [`MadeArray`]'s methods.
    pub fn carry_out(&self, order: &Order) -> Result<()> {
        let _alone = self.alone()?;
        match order {
            Order::Create(creation) => self.create(creation),
            Order::Import { name, integrity, path } => self.import(name, *integrity, path),
            Order::Add { name, disk } => self.made(name)?.0.add_disk(disk),
            Order::Replace { name, old, new } => self.made(name)?.0.replace_disk(old, new),
            Order::Remove { name, disk } => self.made(name)?.0.remove_disk(disk),
            Order::Scrub { name, scrub } => self.made(name)?.0.scrub(*scrub),
            Order::Grow { name, disks } => self.grow(name, disks),
        }
    }

    fn create(&self, creation: &Creation) -> Result<()> {
        let Creation { name, level, disks, spares, integrity, path } = creation;
        if let Some(there) = self.entry(name.as_str())? {
            let made =
                there.made.filter(|made| made.integrity == *integrity && there.path == *path);
            let md = made.map(|made| made.bring_up(path)).transpose()?;
            if !md.is_some_and(|md| is_as_asked(&md, creation)) {
                return Err(other_there(&there));
            }
            self.makings.forget(name)?;
            return self.use_again(&there);
        }
        self.check_new(path)?;
        let begun = match self.makings.find(name)? {
            Some(begun) => Md::find(begun.made().md)?.map(|md| (begun, md)),
            None => None,
        };
        let mut making = match begun {
            Some((begun, md)) => {
                let is_same = begun.path == *path && begun.made().integrity == *integrity;
                if !is_same || !is_as_asked(&md, creation) {
                    return Err(begun_otherwise(name, &md));
                }
                begun
            }
            None => {
                place::check_empty(path)?;
                // What a format left open that was cut off.
                integrity.map_or(Ok(()), |_| close_idle())?;
                let plan = ArrayPlan::new(name.clone(), *level, disks, spares)?;
                let making = Making::new(creation);
                self.makings.keep(name, &making)?;
                plan.make(making.made())?;
                making
            }
        };
        let made = making.made();
        if !making.is_formatted {
            made.format()?;
            making.is_formatted = true;
            self.makings.keep(name, &making)?;
        }
        if !made.is_at(path)? {
            place::check_empty(path)?;
        }
        made.bring_up(path)?;
        self.keep(name, making.array, path, made)?;
        self.makings.forget(name)
    }

    fn import(&self, name: &ArrayName, integrity: Option<Integrity>, path: &Path) -> Result<()> {
        if let Some(there) = self.entry(name.as_str())? {
            let made = there.made.filter(|made| made.integrity == integrity && there.path == path);
            made.ok_or_else(|| other_there(&there))?.bring_up(path)?;
            return self.use_again(&there);
        }
        self.check_new(path)?;
        let made = MadeArray::import(name, integrity)?;
        if !made.is_at(path)? {
            place::check_empty(path)?;
        }
        made.bring_up(path)?;
        let array = DirectoryArray::label(path)?.ok_or_else(|| {
            let sentence = format!(
                "array {name} is put together and mounted at {}, and holds no drives: it is not one of \
                 ours; unmount it",
                path.display()
            );
            Error::new(ErrorKind::InvalidValue, sentence).field("name")
        })?;
        self.keep(name, array, path, made)
    }

    fn grow(&self, name: &Name, disks: &[DiskName]) -> Result<()> {
        let (made, there) = self.made(name)?;
        made.grow(&there.path, disks)?;
        if let (Some(Serving { store, .. }), Some(array)) = (&self.serving, there.array) {
            store.check(array);
        }
        Ok(())
    }

    /// Refuses a path at which an array can't be.
    fn check_new(&self, path: &Path) -> Result<()> {
        place::check(path, self.serving.as_ref().map(|serving| &*serving.root))?;
        match self.config.arrays()?.into_iter().find(|there| there.path == path) {
            None => Ok(()),
            Some(there) => {
                let sentence = format!(
                    "array {} is at {} already: give another path",
                    there.name,
                    path.display()
                );
                Err(Error::new(ErrorKind::ResourceInUse, sentence).field("path"))
            }
        }
    }

    /// Opens an array that is mounted, which labels and remembers it, writes it down, and has it used.
    fn keep(&self, name: &ArrayName, array: ArrayId, path: &Path, made: MadeArray) -> Result<()> {
        let entry = ConfiguredArray {
            array: Some(array),
            name: name.to_string(),
            path: path.to_owned(),
            capacity: ArrayCapacity::Disk { reserve: Bytes::ZERO },
            made: Some(made),
        };
        let opened = self.open(&entry, array)?;
        if let Some(Serving { store, .. }) = &self.serving {
            store.check_joins(&opened)?;
        }
        self.config.add(&entry)?;
        self.take_in(&entry, array, opened)
    }

    /// Has an array used that is written down, if it is not yet.
    fn use_again(&self, entry: &ConfiguredArray) -> Result<()> {
        let (Some(Serving { store, .. }), Some(array)) = (&self.serving, entry.array) else {
            return Ok(());
        };
        match store.state(array) {
            Some(ArrayState::Online) => Ok(()),
            Some(ArrayState::Failed) => {
                let sentence = format!(
                    "array {} had failed when the agent started, or since: start the agent again",
                    entry.name
                );
                Err(Error::new(ErrorKind::Unavailable, sentence).field("name"))
            }
            None => {
                let opened = self.open(entry, array)?;
                self.take_in(entry, array, opened)
            }
        }
    }

    fn open(&self, entry: &ConfiguredArray, array: ArrayId) -> Result<OpenedArray> {
        // The program beside the agent may have added to them.
        let mut known = KnownArrays::read(&self.state)?;
        let ConfiguredArray { name, path, capacity, .. } = entry.clone();
        OpenedArray::open(&mut known, DirectoryArray { array, name, path, capacity })
    }

    fn take_in(&self, entry: &ConfiguredArray, array: ArrayId, opened: OpenedArray) -> Result<()> {
        let Some(Serving { store, .. }) = &self.serving else { return Ok(()) };
        store.take_in(opened)?;
        tracing::info!(%array, name = entry.name, "an array is used from now on");
        watch(store, array, entry.made, self.state.join(WARNINGS))
    }

    fn entry(&self, name: &str) -> Result<Option<ConfiguredArray>> {
        Ok(self.config.arrays()?.into_iter().find(|array| array.name == name))
    }

    /// An array that is made of disks.
    fn made(&self, name: &Name) -> Result<(MadeArray, ConfiguredArray)> {
        let refused = |kind, what| {
            Error::new(kind, format!("{what}: `array status` lists what there is")).field("name")
        };
        let there = self.entry(name.as_str())?.ok_or_else(|| {
            refused(ErrorKind::NotFound, format!("this host's configuration has no array {name}"))
        })?;
        let made = there.made.ok_or_else(|| {
            refused(ErrorKind::InvalidValue, format!("array {name} is a directory, without disks"))
        })?;
        Ok((made, there))
    }

    /// Keeps every other order away for as long as the answer lives, and no longer than the process.
    fn alone(&self) -> Result<File> {
        fs::create_dir_all(&self.state).map_err(looking_at(&self.state))?;
        let path = self.state.join(LOCK);
        let mut options = OpenOptions::new();
        let file = options.write(true).create(true).truncate(false).open(&path);
        let file = file.map_err(looking_at(&path))?;
        match file.try_lock() {
            Ok(()) => Ok(file),
            Err(TryLockError::Error(error)) => Err(looking_at(&path)(error)),
            Err(TryLockError::WouldBlock) => {
                let sentence = "something else is being done to this host's arrays, by its agent or by \
                                `elasticstack-agent array`: wait for its end";
                Err(Error::new(ErrorKind::ResourceInUse, sentence))
            }
        }
    }
}

/// Whether the array is what is to be created.
fn is_as_asked(md: &Md, Creation { level, disks, spares, .. }: &Creation) -> bool {
    let mut all = disks.iter().chain(spares);
    md.level == level.as_str() && all.all(|name| md.device_of(name).is_ok())
}

fn other_there(there: &ConfiguredArray) -> Error {
    let (name, path) = (&there.name, there.path.display());
    let sentence = format!(
        "there is an array {name} already, at {path}, and it is not what was asked for: `array status` \
         shows it; give another name"
    );
    Error::new(ErrorKind::ResourceInUse, sentence).field("name")
}

fn begun_otherwise(name: &ArrayName, md: &Md) -> Error {
    let (device, level) = (md.device.display(), &md.level);
    let sentence = format!(
        "array {name} was begun otherwise, as the {level} {device}, and not ended: ask for the same again, \
         or give that up with `mdadm --stop {device}`"
    );
    Error::new(ErrorKind::ResourceInUse, sentence).field("name")
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use uuid::Uuid;

    use super::super::plan::Level;
    use super::*;

    /// A configuration in memory.
    #[derive(Default)]
    struct Written(Mutex<Vec<ConfiguredArray>>);

    impl ArrayConfig for Written {
        fn arrays(&self) -> Result<Vec<ConfiguredArray>> {
            Ok(self.0.lock().unwrap().clone())
        }

        fn add(&self, array: &ConfiguredArray) -> Result<()> {
            self.0.lock().unwrap().push(array.clone());
            Ok(())
        }
    }

    fn entry(name: &str, path: &str, made: Option<MadeArray>) -> ConfiguredArray {
        let array = made.map(|_| ArrayId::from_uuid(Uuid::from_u128(1)));
        let capacity = ArrayCapacity::Disk { reserve: Bytes::ZERO };
        ConfiguredArray { array, name: name.to_owned(), path: path.into(), capacity, made }
    }

    /// Of arrays that are not there.
    fn keeper(state: &Path) -> Keeper {
        let made =
            MadeArray { md: Uuid::from_u128(7), filesystem: Uuid::from_u128(8), integrity: None };
        let arrays = vec![entry("old", "/srv/old", None), entry("gone", "/srv/gone", Some(made))];
        let config = Written(Mutex::new(arrays));
        let known = KnownArrays::read(state).unwrap();
        let store = Arc::new(DirectoryStore::open(known, Vec::new()).unwrap());
        Keeper::new(config, state.to_owned()).serving(store, "/srv".into())
    }

    fn create(name: &str, path: &str) -> Order {
        let disk = |serial: &str| DiskName::Serial(serial.to_owned());
        Order::Create(Creation {
            name: name.parse().unwrap(),
            level: Level::Raid1,
            disks: vec![disk("no such disk"), disk("nor this")],
            spares: Vec::new(),
            integrity: None,
            path: path.into(),
        })
    }

    #[test]
    fn what_can_not_be_done_to_arrays_is_refused_with_the_key_to_blame() {
        let state = tempfile::tempdir().unwrap();
        let keeper = keeper(state.path());
        let name = |name: &str| name.parse::<Name>().unwrap();
        let disk = || DiskName::Serial("no such disk".to_owned());
        let (taken, invalid) = (ErrorKind::ResourceInUse, ErrorKind::InvalidValue);
        for (order, kind, field, why) in [
            (
                create("old", "/srv/old"),
                taken,
                "name",
                "there is an array old already, at /srv/old",
            ),
            (create("gone", "/srv/other"), taken, "name", "there is an array gone already"),
            (create("new", "/srv/old"), taken, "path", "array old is at /srv/old already"),
            (create("new", "/etc/new"), invalid, "path", "is not below /srv"),
            (create("new", "/srv/../etc"), invalid, "path", "is not an absolute path"),
            (create("new", "new"), invalid, "path", "is not an absolute path"),
            (
                create("new", "/srv/no-such-array"),
                ErrorKind::NotFound,
                "disk",
                "no disk has the serial number no such disk",
            ),
            (
                Order::Import {
                    name: "old".parse().unwrap(),
                    integrity: None,
                    path: "/srv/old".into(),
                },
                taken,
                "name",
                "there is an array old already",
            ),
            (
                Order::Add { name: name("other"), disk: disk() },
                ErrorKind::NotFound,
                "name",
                "has no array other",
            ),
            (
                Order::Remove { name: name("old"), disk: disk() },
                invalid,
                "name",
                "array old is a directory",
            ),
        ] {
            let error = keeper.carry_out(&order).unwrap_err();
            assert_eq!((error.kind(), error.blamed_field()), (kind, Some(field)), "{error}");
            assert!(error.public_message().contains(why), "{error}");
        }
        assert_eq!(fs::read_dir(state.path().join("making")).map_or(0, Iterator::count), 0);
    }

    #[test]
    fn of_two_orders_at_once_the_second_is_refused_whoever_gives_it() {
        let state = tempfile::tempdir().unwrap();
        let (agent, program) = (keeper(state.path()), keeper(state.path()));
        let order =
            Order::Scrub { name: "other".parse().unwrap(), scrub: super::super::Scrub::Stop };
        let alone = agent.alone().unwrap();
        let refused = program.carry_out(&order).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::ResourceInUse, "{refused}");
        drop(alone);
        assert_eq!(program.carry_out(&order).unwrap_err().kind(), ErrorKind::NotFound);
    }

    #[test]
    fn an_array_that_is_kept_is_written_down_and_used_at_once_and_one_that_is_there_again() {
        let state = tempfile::tempdir().unwrap();
        let keeper = keeper(&state.path().join("state"));
        let store = &keeper.serving.as_ref().unwrap().store;
        let array = ArrayId::from_uuid(Uuid::from_u128(5));
        let made =
            MadeArray { md: Uuid::from_u128(9), filesystem: Uuid::from_u128(8), integrity: None };
        let path = state.path().join("fast");
        assert_eq!(store.state(array), None);
        keeper.keep(&"fast".parse().unwrap(), array, &path, made).unwrap();
        assert_eq!(store.state(array), Some(ArrayState::Online));
        let there = keeper.entry("fast").unwrap().unwrap();
        assert_eq!((there.array, &there.path, there.made), (Some(array), &path, Some(made)));
        keeper.use_again(&there).unwrap();
        store.give_up(array, "of a test");
        assert_eq!(keeper.use_again(&there).unwrap_err().kind(), ErrorKind::Unavailable);
        // The program beside the agent made one, and the agent is told of it.
        let other = ConfiguredArray {
            array: Some(ArrayId::from_uuid(Uuid::from_u128(6))),
            capacity: ArrayCapacity::Fixed(Bytes::from_mib(1)),
            path: state.path().join("other"),
            ..entry("other", "", None)
        };
        keeper.use_again(&other).unwrap();
        assert_eq!(store.state(other.array.unwrap()), Some(ArrayState::Online));
    }
}
