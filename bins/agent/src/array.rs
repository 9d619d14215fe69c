//! `elasticstack-agent array`: makes arrays of this host's disks, and says how they are.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, ensure};
use clap::{Args, Subcommand};
use elasticstack_core::block::{ArrayState, BlockStore as _, Warning};
use elasticstack_core::prelude::*;
use elasticstack_host::array::{
    ArrayPlan, Disk, DiskName, Integrity, Level, MadeArray, Md, Member, Scrub, kept_warnings,
    smartctl_is_there,
};
use elasticstack_host::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays};
use uuid::Uuid;

use crate::config::{Config, ConfiguredArray, RawArray, RawConfig};

/// The directory with what there is to tell of arrays, in the state directory.
pub(crate) const WARNINGS: &str = "warnings";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// List the disks of this machine, with their serial numbers and what they hold
    Disks,
    /// Make an array of disks, with XFS on it, and add it to the configuration
    Create(Create),
    /// Say how this host's arrays are
    Status,
    /// Add a disk: for one that is missing, or as a spare
    Add {
        /// The array
        name: Name,
        /// The disk, as for `create`
        disk: DiskName,
    },
    /// Copy a disk that still works to another one, which takes its place
    Replace {
        /// The array
        name: Name,
        /// The disk that is to go
        old: DiskName,
        /// The disk that takes its place, as for `create`
        new: DiskName,
    },
    /// Take a disk out that the array can do without
    Remove {
        /// The array
        name: Name,
        /// The disk
        disk: DiskName,
    },
    /// Read all of an array in the background and compare its copies; `status` says what differs
    Scrub {
        /// The array
        name: Name,
        /// Write anew what differs
        #[arg(long)]
        repair: bool,
        /// End the scrub that runs
        #[arg(long, conflicts_with = "repair")]
        stop: bool,
    },
    /// Make an array and its file system as large as its disks allow, and wait for that
    Grow {
        /// The array
        name: Name,
        /// Disks that are added before, as for `create`
        disks: Vec<DiskName>,
    },
    /// Take an array over that came with its disks from another machine
    Import {
        /// What it is called there, and will be here
        name: Name,
        /// It was made with checksums
        #[arg(long)]
        integrity: bool,
        /// Where it is mounted
        #[arg(long)]
        path: PathBuf,
    },
    /// Put this host's arrays together and mount them, as the agent does when it starts
    Up,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// What the array is called
    name: Name,
    /// How its disks are put together: raid1, raid10, raid5 or raid6
    #[arg(long)]
    level: Level,
    /// A disk of it, by its serial number, which gives up what the disk holds, or by its path, if it is empty
    #[arg(long = "disk", value_name = "SERIAL|PATH", required = true)]
    disks: Vec<DiskName>,
    /// A disk that takes the place of one that fails
    #[arg(long = "spare", value_name = "SERIAL|PATH")]
    spares: Vec<DiskName>,
    /// Keep a checksum of every block, so that a disk that errs without saying so is found out
    #[arg(long)]
    integrity: bool,
    /// Where it is mounted
    #[arg(long)]
    path: PathBuf,
}

/// Does what is asked, with the configuration at `path`.
pub(crate) async fn run(command: Command, path: &Path) -> anyhow::Result<()> {
    match command {
        Command::Disks => disks(),
        Command::Create(wish) => create(wish, path).await,
        Command::Status => status(path),
        Command::Add { name, disk } => Ok(made(path, &name)?.0.add_disk(&disk)?),
        Command::Replace { name, old, new } => Ok(made(path, &name)?.0.replace_disk(&old, &new)?),
        Command::Remove { name, disk } => Ok(made(path, &name)?.0.remove_disk(&disk)?),
        Command::Scrub { name, repair, stop } => {
            let scrub = match (repair, stop) {
                (_, true) => Scrub::Stop,
                (true, false) => Scrub::Repair,
                (false, false) => Scrub::Check,
            };
            Ok(made(path, &name)?.0.scrub(scrub)?)
        }
        Command::Grow { name, disks } => {
            let (made, at) = made(path, &name)?;
            made.grow(&at, &disks)?;
            println!("grown: restart the agent to have the room used");
            Ok(())
        }
        Command::Import { name, integrity, path: at } => {
            import(name, wished(integrity), at, path).await
        }
        Command::Up => {
            let arrays = Config::read(path)?.arrays;
            // Each fails alone.
            let ups: Vec<_> = arrays.iter().map(ConfiguredArray::bring_up).collect();
            ups.into_iter().try_for_each(|up| up.map(drop))
        }
    }
}

impl ConfiguredArray {
    /// Its directory; as it is not there unless it can be brought up, the store finds it failed else.
    pub(crate) fn brought_up(self) -> DirectoryArray {
        let name = &self.directory.name;
        match self.bring_up() {
            Ok(None) => {}
            Ok(Some(md)) => {
                let (device, health) = (md.device.display(), md.health());
                tracing::info!(name, %device, %health, missing = md.missing, "an array is up");
            }
            Err(error) => tracing::error!(name, "{error:#}"),
        }
        self.directory
    }

    fn bring_up(&self) -> anyhow::Result<Option<Md>> {
        let up = self.made.map(|made| made.bring_up(&self.directory.path)).transpose();
        up.with_context(|| format!("array {} can't be brought up", self.directory.name))
    }
}

fn disks() -> anyhow::Result<()> {
    for disk in Disk::all()? {
        let serial = disk.serial.as_deref().unwrap_or("-");
        let state = match disk.check_unused() {
            Ok(()) => format!("holds {}", disk.holding()?),
            Err(error) if error.kind() == ErrorKind::InvalidValue => "in use".to_owned(),
            Err(error) => return Err(error.into()),
        };
        println!("{}  {}  {serial}  {state}", disk.device.display(), disk.size);
    }
    Ok(())
}

async fn create(wish: Create, path: &Path) -> anyhow::Result<()> {
    let Create { name, level, disks, spares, integrity, path: at } = wish;
    let config = RawConfig::read(path)?;
    check_new(&config, &name, &at)?;
    let plan = ArrayPlan::new(name.clone(), level, &disks, &spares)?;
    let plan = plan.with_integrity(wished(integrity));
    let made = plan.make().with_context(|| format!("making array {name}"))?;
    made.bring_up(&at).with_context(|| format!("mounting array {name}"))?;
    let array = ArrayId::from_uuid(Uuid::now_v7());
    keep(config, path, (array, &name, at, made)).await?;
    println!("made, mounted and added to {}: restart the agent to have it used", path.display());
    Ok(())
}

async fn import(
    name: Name,
    integrity: Option<Integrity>,
    at: PathBuf,
    path: &Path,
) -> anyhow::Result<()> {
    let config = RawConfig::read(path)?;
    check_new(&config, &name, &at)?;
    let made = MadeArray::import(&name, integrity)?;
    made.bring_up(&at).with_context(|| format!("mounting array {name}"))?;
    let label = DirectoryArray::label(&at)?;
    let array = label.with_context(|| format!("array {name} is mounted and holds no drives"))?;
    keep(config, path, (array, &name, at, made)).await?;
    println!("mounted and added to {}: restart the agent to have it used", path.display());
    Ok(())
}

/// The only checksums there are, if any are wished.
const fn wished(integrity: bool) -> Option<Integrity> {
    if integrity { Some(Integrity::Crc32c) } else { None }
}

/// Refuses what would hide something, or be in the configuration twice.
fn check_new(config: &RawConfig, name: &Name, at: &Path) -> anyhow::Result<()> {
    ensure!(at.is_absolute(), "{} is not an absolute path", at.display());
    let is_empty = std::fs::read_dir(at).map_or(true, |mut entries| entries.next().is_none());
    ensure!(is_empty, "{} is not empty: what is in it would be hidden", at.display());
    for RawArray { name: other, path: there, .. } in &config.array {
        let is_new = *other != name.as_str() && there != at;
        ensure!(is_new, "the configuration has array {other} at {} already", there.display());
    }
    Ok(())
}

/// Opens an array that is mounted, which labels and remembers it, and adds it to the configuration.
async fn keep(
    mut config: RawConfig,
    path: &Path,
    (array, name, at, made): (ArrayId, &Name, PathBuf, MadeArray),
) -> anyhow::Result<()> {
    let capacity = ArrayCapacity::Disk { reserve: Bytes::ZERO };
    let name = name.to_string();
    let directory = DirectoryArray { array, name: name.clone(), path: at.clone(), capacity };
    let store = DirectoryStore::open(KnownArrays::read(&config.state_dir)?, vec![directory])?;
    let opened = store.capacity().await?;
    ensure!(opened.iter().all(|array| array.state == ArrayState::Online), "it can't be used");
    config.array.push(RawArray::made(array, name, at, made));
    config.keep_last(path)
}

/// An array of the configuration that is made of disks, and where it is mounted.
fn made(path: &Path, name: &Name) -> anyhow::Result<(MadeArray, PathBuf)> {
    let arrays = RawConfig::read(path)?.array;
    let array = arrays.into_iter().find(|array| array.name == name.as_str());
    let array = array.with_context(|| format!("{} has no array {name}", path.display()))?;
    let made = array.made_of()?;
    let made = made.with_context(|| format!("array {name} is a directory, and has no disks"))?;
    Ok((made, array.path))
}

fn status(path: &Path) -> anyhow::Result<()> {
    let config = RawConfig::read(path)?;
    let known = KnownArrays::read(&config.state_dir)?;
    let directory = config.state_dir.join(WARNINGS);
    let warn = |array: Option<ArrayId>| -> anyhow::Result<()> {
        let warnings = array.map(|array| kept_warnings(&directory, array)).transpose()?;
        for Warning { kind, sentence, .. } in warnings.into_iter().flatten() {
            println!("  {}: {sentence}", kind.as_str());
        }
        Ok(())
    };
    let mut has_disks = false;
    for array in config.array {
        let (name, at) = (&array.name, array.path.display());
        let Some(made) = array.made_of()? else {
            println!("{name}  {at}  a directory");
            warn(known.identify(&array.path)?)?;
            continue;
        };
        match Md::find(made.md).with_context(|| format!("looking for array {name}"))? {
            None => println!("{name}  {at}  not put together"),
            Some(md) => {
                show(name, &at.to_string(), &md);
                has_disks = true;
            }
        }
        warn(array.array)?;
    }
    if has_disks && !smartctl_is_there() {
        println!("disks are not asked how they are (SMART): install smartmontools");
    }
    Ok(())
}

fn show(name: &str, at: &str, md: &Md) {
    println!("{name}  {at}  {}  {}  {}", md.device.display(), md.level, md.health());
    if md.missing > 0 {
        println!("  lacks {} of {} disks", md.missing, md.disks);
    }
    if let Some(activity) = &md.activity {
        println!("  {}: {} %", activity.kind, activity.percent);
    }
    if md.mismatches > 0 {
        println!("  mismatches: {} sectors at the last scrub", md.mismatches);
    }
    if !md.discards {
        println!("  what is freed is not discarded on the disks");
    }
    for member in &md.members {
        let Member { device, serial, state, corrected } = member;
        let (serial, state) = (serial.as_deref().unwrap_or("-"), state.join(" "));
        println!("  {device}  {serial}  {state}  {corrected} read errors corrected");
    }
}
