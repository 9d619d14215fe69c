//! What array is to be made of which disks: everything that can be refused is, before the first
//! byte is written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use elasticstack_core::prelude::*;

use super::disk::{Disk, DiskName, Holding};
use super::integrity::Integrity;
use super::made::MadeArray;
use super::md::in_mdadms_words;
use super::order::ArrayName;
use super::tool::run;

/// How disks are put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Level {
    /// Each disk is a copy of the others.
    Raid1,
    /// Each block is on two disks.
    Raid10,
    /// Any one disk may be lost.
    Raid5,
    /// Any two disks may be lost.
    Raid6,
}

impl Level {
    const ALL: [Self; 4] = [Self::Raid1, Self::Raid10, Self::Raid5, Self::Raid6];

    /// In mdadm's words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Raid1 => "raid1",
            Self::Raid10 => "raid10",
            Self::Raid5 => "raid5",
            Self::Raid6 => "raid6",
        }
    }

    /// The fewest disks that it makes sense with.
    const fn fewest(self) -> usize {
        match self {
            Self::Raid1 => 2,
            Self::Raid5 => 3,
            Self::Raid10 | Self::Raid6 => 4,
        }
    }

    /// How a write that a crash cut off is found again, so that the copies, or the parity, agree
    /// without reading all of the array. RAID 5 closes its write hole by it; RAID 6 can't, and needs
    /// a journal device for that, which is not offered.
    const fn consistency(self) -> &'static str {
        match self {
            Self::Raid5 => "--consistency-policy=ppl",
            Self::Raid1 | Self::Raid10 | Self::Raid6 => "--bitmap=internal",
        }
    }
}

impl FromStr for Level {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text).ok_or_else(|| {
            let levels = Self::ALL.map(Self::as_str).join(", ");
            let sentence = format!("{text:?} is no level of an array: it is one of {levels}");
            Error::new(ErrorKind::InvalidValue, sentence).field("level")
        })
    }
}

/// An array to be made. That there is one means that its disks are there, differ, are in use by
/// nobody, and hold nothing that was not given up by naming its disk's serial number.
#[derive(Debug)]
pub struct ArrayPlan {
    name: ArrayName,
    level: Level,
    /// Spares last.
    disks: Vec<Disk>,
    /// How many of them are no spares.
    active: usize,
}

impl ArrayPlan {
    /// Looks at the disks, and writes nothing.
    ///
    /// # Errors
    /// `InvalidValue` for too few disks, one that is named twice, is in use, or holds something and is
    /// named by its path; `NotFound` for one that is not there; `Internal` if one can't be read.
    pub fn new(
        name: ArrayName,
        level: Level,
        disks: &[DiskName],
        spares: &[DiskName],
    ) -> Result<Self> {
        if disks.len() < level.fewest() {
            let (level, fewest) = (level.as_str(), level.fewest());
            let sentence = format!("{level} takes {fewest} disks or more, not {}", disks.len());
            return Err(Error::new(ErrorKind::InvalidValue, sentence).field("disk"));
        }
        let all = usable_each(disks.iter().chain(spares))?;
        Ok(Self { name, level, disks: all, active: disks.len() })
    }

    /// Makes the array, under the UUID that it is to have and without a file system. What its disks held is gone from then on. It can be
    /// used at once; its copies are made to agree meanwhile. With checksums all is written before, and agrees.
    ///
    /// # Errors
    /// `Internal` with what the tool said that failed. A disk may be wiped, or in use by a part of an
    /// array then: `mdadm --stop` it, and make it again with its disks named by their serial numbers.
    pub fn make(&self, made: MadeArray) -> Result<()> {
        let devices = emptied(&self.disks, made.integrity)?;
        let mut mdadm = Command::new("mdadm");
        mdadm
            .arg("--create")
            .arg(Path::new("/dev/md").join(self.name.as_str()))
            .args(["--run", "--metadata=1.2", "--homehost=any", self.level.consistency()])
            .arg(format!("--name={}", self.name))
            .arg(format!("--uuid={}", in_mdadms_words(made.md)))
            .arg(format!("--level={}", self.level.as_str()))
            .arg(format!("--raid-devices={}", self.active))
            .arg(format!("--spare-devices={}", self.disks.len().saturating_sub(self.active)));
        if made.integrity.is_some() {
            mdadm.arg("--assume-clean");
        }
        run(mdadm.args(devices)).map(drop)
    }
}

/// Makes the disks ready for an array; answers with the devices that it is made of.
pub(super) fn emptied(disks: &[Disk], integrity: Option<Integrity>) -> Result<Vec<PathBuf>> {
    for disk in disks {
        run(Command::new("wipefs").arg("--all").arg(&disk.device))?;
    }
    match integrity {
        Some(integrity) => integrity.format(disks),
        None => Ok(disks.iter().map(|disk| disk.device.clone()).collect()),
    }
}

/// The disks, if each of them may be taken.
pub(super) fn usable_each<'a>(names: impl IntoIterator<Item = &'a DiskName>) -> Result<Vec<Disk>> {
    let mut taken = BTreeSet::new();
    let take = |name| {
        let disk = usable(name)?;
        if taken.insert(disk.device.clone()) {
            return Ok(disk);
        }
        let sentence = format!("disk {name} is named twice: each can be in it once");
        Err(Error::new(ErrorKind::InvalidValue, sentence).field("disk"))
    };
    names.into_iter().map(take).collect()
}

/// The disk, if it may be taken.
pub(super) fn usable(name: &DiskName) -> Result<Disk> {
    let disk = Disk::find(name)?;
    disk.check_unused()?;
    match (name, disk.holding()?) {
        (_, Holding::Nothing) | (DiskName::Serial(_), _) => Ok(disk),
        (DiskName::Path(path), holding) => {
            let serial = match &disk.serial {
                Some(serial) => {
                    format!("name it by its serial number, {serial}, to overwrite that")
                }
                None => "it tells no serial number: `wipefs --all` it to give that up".to_owned(),
            };
            let sentence = format!("{} holds {holding}: {serial}", path.display());
            Err(Error::new(ErrorKind::InvalidValue, sentence).field("disk"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_is_said_in_mdadms_words() {
        for level in Level::ALL {
            assert_eq!(level.as_str().parse::<Level>().unwrap(), level);
        }
        for other in ["", "1", "raid0", "RAID1", "raid50"] {
            let error = other.parse::<Level>().unwrap_err();
            assert!(error.to_string().ends_with("raid1, raid10, raid5, raid6"), "{error}");
        }
    }

    #[test]
    fn too_few_disks_are_refused_before_any_is_looked_at() {
        let disks = vec![DiskName::Serial("no such disk".to_owned()); 3];
        for (level, few) in [(Level::Raid1, 1), (Level::Raid10, 3), (Level::Raid5, 2)] {
            let name = "fast".parse().unwrap();
            let error = ArrayPlan::new(name, level, &disks[..few], &[]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidValue, "{error}");
        }
    }
}
