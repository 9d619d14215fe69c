//! How disks and arrays are, in the words of the internal API's documents.

use elasticstack_core::prelude::*;
use elasticstack_core::wire::arrays::{
    DiskContent, HostDisk, HostDisks, RaidDisk, RaidStatus, RaidWork,
};

use super::disk::{Disk, Holding};
use super::md::{Activity, Md, Member};

/// The disks of this machine, and what each holds. Blocks while it reads the ends of each.
///
/// # Errors
/// `Internal` if they can't be listed.
pub fn disks() -> Result<HostDisks> {
    let mut disks = Vec::new();
    for disk in Disk::all()? {
        let holds = content(&disk).unwrap_or_else(|error| {
            let (device, error) = (disk.device.display(), Chain(&error));
            tracing::warn!(%device, %error, "a disk can't be read");
            DiskContent::Unreadable
        });
        disks.push(HostDisk {
            device: disk.device.display().to_string(),
            serial: disk.serial,
            size: disk.size.get(),
            holds,
        });
    }
    Ok(HostDisks { disks })
}

fn content(disk: &Disk) -> Result<DiskContent> {
    match disk.check_unused() {
        Ok(()) => Ok(match disk.holding()? {
            Holding::Nothing => DiskContent::Nothing,
            Holding::Types(types) => DiskContent::Types(types),
            Holding::Bytes => DiskContent::Bytes,
        }),
        Err(error) if error.kind() == ErrorKind::InvalidValue => Ok(DiskContent::InUse),
        Err(error) => Err(error),
    }
}

impl From<Md> for RaidStatus {
    fn from(md: Md) -> Self {
        let work = |Activity { kind, percent }| RaidWork { kind, percent };
        let disk = |Member { device, serial, state, corrected }| RaidDisk {
            device,
            serial,
            state,
            corrected,
        };
        Self {
            device: md.device.display().to_string(),
            health: md.health().to_string(),
            level: md.level,
            count: md.disks,
            missing: md.missing,
            work: md.activity.map(work),
            mismatches: md.mismatches,
            discards: md.discards,
            disks: md.members.into_iter().map(disk).collect(),
        }
    }
}
