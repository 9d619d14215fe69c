//! `elasticstack-agent array`: makes arrays of this host's disks, and says how they are.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use clap::{Args, Subcommand};
use elasticstack_core::block::Warning;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::arrays::{
    DiskContent, HostArray, HostDisk, MadeOf, RaidDisk, RaidStatus, RaidWork,
};
use elasticstack_host::array::{
    ArrayName, Creation, DiskName, Integrity, Keeper, Level, Md, Order, Scrub, disks,
    smartctl_is_there,
};
use elasticstack_host::store::DirectoryArray;

use crate::config::{Config, ConfigFile, LocalArray, RawConfig};

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
        name: ArrayName,
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
    name: ArrayName,
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
pub(crate) fn run(command: Command, path: &Path) -> anyhow::Result<()> {
    let order = match command {
        Command::Disks => return show_disks(),
        Command::Status => return show_arrays(path),
        Command::Up => return up(path),
        Command::Create(Create { name, level, disks, spares, integrity, path }) => {
            let integrity = wished(integrity);
            Order::Create(Creation { name, level, disks, spares, integrity, path })
        }
        Command::Import { name, integrity, path } => {
            Order::Import { name, integrity: wished(integrity), path }
        }
        Command::Add { name, disk } => Order::Add { name, disk },
        Command::Replace { name, old, new } => Order::Replace { name, old, new },
        Command::Remove { name, disk } => Order::Remove { name, disk },
        Command::Scrub { name, repair, stop } => {
            let scrub = match (repair, stop) {
                (_, true) => Scrub::Stop,
                (true, false) => Scrub::Repair,
                (false, false) => Scrub::Check,
            };
            Order::Scrub { name, scrub }
        }
        Command::Grow { name, disks } => Order::Grow { name, disks },
    };
    keeper(path)?.carry_out(&order)?;
    if let Order::Create(Creation { name, path: at, .. }) | Order::Import { name, path: at, .. } =
        &order
    {
        let (at, path) = (at.display(), path.display());
        println!("{name} is mounted at {at} and in {path}: restart the agent to have it used");
    }
    Ok(())
}

fn keeper(path: &Path) -> anyhow::Result<Keeper> {
    let state = RawConfig::read(path)?.state_dir;
    Ok(Keeper::new(ConfigFile(path.to_owned()), state))
}

/// The only checksums there are, if any are wished.
const fn wished(integrity: bool) -> Option<Integrity> {
    if integrity { Some(Integrity::Crc32c) } else { None }
}

fn up(path: &Path) -> anyhow::Result<()> {
    let arrays = Config::read(path)?.arrays;
    // Each fails alone.
    let ups: Vec<_> = arrays.iter().map(LocalArray::bring_up).collect();
    ups.into_iter().try_for_each(|up| up.map(drop))
}

impl LocalArray {
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

fn show_disks() -> anyhow::Result<()> {
    for HostDisk { device, serial, size, holds } in disks()?.disks {
        let (serial, size) = (serial.as_deref().unwrap_or("-"), Bytes::try_from(size)?);
        let holds = match holds {
            DiskContent::InUse => "in use".to_owned(),
            DiskContent::Nothing => "holds nothing".to_owned(),
            DiskContent::Types(types) => format!("holds {}", types.join(", ")),
            DiskContent::Bytes => "holds bytes of no known kind".to_owned(),
            DiskContent::Unreadable => "can't be read".to_owned(),
        };
        println!("{device}  {size}  {serial}  {holds}");
    }
    Ok(())
}

fn show_arrays(path: &Path) -> anyhow::Result<()> {
    let arrays = keeper(path)?.arrays()?;
    let has_disks = arrays.iter().any(|array| matches!(array.made_of, MadeOf::Raid(_)));
    for HostArray { name, path: at, made_of, warnings, .. } in arrays {
        match made_of {
            MadeOf::Directory => println!("{name}  {at}  a directory"),
            MadeOf::NotPutTogether => println!("{name}  {at}  not put together"),
            MadeOf::Raid(raid) => show_raid(&name, &at, raid),
        }
        for Warning { kind, sentence, .. } in warnings {
            println!("  {}: {sentence}", kind.as_str());
        }
    }
    if has_disks && !smartctl_is_there() {
        println!("disks are not asked how they are (SMART): install smartmontools");
    }
    Ok(())
}

fn show_raid(name: &str, at: &str, raid: RaidStatus) {
    println!("{name}  {at}  {}  {}  {}", raid.device, raid.level, raid.health);
    if raid.missing > 0 {
        println!("  lacks {} of {} disks", raid.missing, raid.count);
    }
    if let Some(RaidWork { kind, percent }) = raid.work {
        println!("  {kind}: {percent} %");
    }
    if raid.mismatches > 0 {
        println!("  mismatches: {} sectors at the last scrub", raid.mismatches);
    }
    if !raid.discards {
        println!("  what is freed is not discarded on the disks");
    }
    for RaidDisk { device, serial, state, corrected } in raid.disks {
        let (serial, state) = (serial.as_deref().unwrap_or("-"), state.join(" "));
        println!("  {device}  {serial}  {state}  {corrected} read errors corrected");
    }
}
