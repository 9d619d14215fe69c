//! What the kernel tells of an md array (Documentation/admin-guide/md.rst), and what that means.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use elasticstack_core::block::{DiskReport, DiskState, Disks, Work, WorkKind};
use elasticstack_core::prelude::*;
use uuid::Uuid;

use super::disk::serial;
use super::looking_at;

/// An md array that is put together here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Md {
    /// Such as `/dev/md127`, until the next boot.
    pub device: PathBuf,
    /// Such as `raid1`, in the kernel's words.
    pub level: String,
    /// How many disks it is made of, spares aside.
    pub disks: u32,
    /// How many of those it lacks, or has no whole copy on.
    pub missing: u32,
    /// In the kernel's words: `clean`, `active`, `readonly`, `broken`.
    pub state: String,
    /// What the kernel does to it beside serving it, if anything.
    pub activity: Option<Activity>,
    /// Sectors of 512 bytes that the last scrub found to differ between copies, or not to fit their parity.
    /// On RAID 1 and 10 some are no fault: what was being overwritten in memory while it was written
    /// reaches the copies as it was at two instants, and nobody reads it before it is written again.
    pub mismatches: u64,
    /// How a write that a crash cut off is found again, in the kernel's words: `bitmap`, `ppl`, `resync`.
    pub consistency: String,
    /// Whether what is discarded on it is discarded on its disks.
    pub discards: bool,
    /// Its disks, by their devices.
    pub members: Vec<Member>,
}

/// Work of the kernel's on an array as a whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Activity {
    /// In the kernel's words: `resync`, `recover`, `check`, `repair`, `reshape`.
    pub kind: String,
    /// Hundredths that are done; 0 as long as it waits.
    pub percent: u8,
}

impl Activity {
    /// The same in the words of reports, if it is in them.
    fn work(&self) -> Option<Work> {
        let kind = match self.kind.as_str() {
            "recover" => WorkKind::Rebuild,
            "resync" => WorkKind::Resync,
            "check" => WorkKind::Check,
            "repair" => WorkKind::Repair,
            "reshape" => WorkKind::Reshape,
            _ => return None,
        };
        Some(Work { kind, percent: self.percent })
    }
}

/// A disk of an array.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its name below `/dev`.
    pub device: String,
    /// Its serial number, if it tells one and is still in the machine.
    pub serial: Option<String>,
    /// In the kernel's words: `in_sync`, `spare`, `faulty`, `write_mostly`, and others.
    pub state: Vec<String>,
    /// Read errors that were corrected from the other disks since it was put together.
    pub corrected: u64,
}

impl Member {
    /// Whether it has a whole copy of what it should.
    #[must_use]
    pub fn is_in_sync(&self) -> bool {
        self.state.iter().any(|word| word == "in_sync")
    }

    /// Whether it waits to take the place of another one.
    #[must_use]
    pub fn is_spare(&self) -> bool {
        self.state.iter().any(|word| word == "spare")
    }

    /// Whether the kernel has given it up.
    pub(super) fn is_faulty(&self) -> bool {
        self.state.iter().any(|word| word == "faulty")
    }

    /// Whether it is copied to another one, which then takes its place.
    pub(super) fn is_being_replaced(&self) -> bool {
        self.state.iter().any(|word| word == "want_replacement")
    }

    /// The kernel may call a disk in sync that it can write to no more, and has nothing better.
    fn disk_state(&self) -> DiskState {
        if self.is_faulty() {
            DiskState::Faulty
        } else if self.is_in_sync() {
            DiskState::InSync
        } else {
            DiskState::Spare
        }
    }
}

/// What an array is like, worst first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It has lost more disks than it can do without: its drives are gone with it.
    Failed,
    /// It lacks disks and goes on without; nothing is under way to change that.
    Degraded,
    /// It lacks disks and what they held is being written to others.
    Rebuilding,
    /// It is whole.
    Whole,
}

impl fmt::Display for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Failed => "failed",
            Self::Degraded => "degraded",
            Self::Rebuilding => "rebuilding",
            Self::Whole => "whole",
        })
    }
}

impl Md {
    /// The array with this UUID, if it is put together here.
    ///
    /// # Errors
    /// `Internal` if `/sys` can't be read.
    pub fn find(uuid: Uuid) -> Result<Option<Self>> {
        for name in names("/sys/block".as_ref())?.iter().filter(|name| name.starts_with("md")) {
            let directory = Path::new("/sys/block").join(name);
            // A device that is no array, or one being taken apart, tells none.
            let told = fs::read_to_string(directory.join("md/uuid")).unwrap_or_default();
            if Uuid::try_parse(told.trim()) == Ok(uuid) {
                return Self::read(&directory, Path::new("/dev").join(name)).map(Some);
            }
        }
        Ok(None)
    }

    fn read(directory: &Path, device: PathBuf) -> Result<Self> {
        let md = directory.join("md");
        let text = |file: &Path| {
            let text = fs::read_to_string(file).map_err(looking_at(file))?;
            Ok::<_, Error>(text.trim().to_owned())
        };
        let number = |file: PathBuf| {
            let text = text(&file)?;
            // While it is laid out anew, what there was before stands behind: `4 (3)`.
            let word = text.split_whitespace().next().unwrap_or_default();
            word.parse().map_err(|error| {
                let what = format!("{} tells {text:?}, no number", file.display());
                Error::internal(what).source(error)
            })
        };
        let mut members = Vec::new();
        for name in names(&md)? {
            let Some(device) = name.strip_prefix("dev-") else { continue };
            let at = md.join(&name);
            // A disk may be taken out between the list and the look.
            let Ok(state) = text(&at.join("state")) else { continue };
            let state = state.split(',').map(str::to_owned).collect();
            let corrected = number(at.join("errors")).unwrap_or_default();
            let serial = fs::canonicalize(at.join("block")).ok().and_then(|disk| serial(&disk));
            members.push(Member { device: device.to_owned(), serial, state, corrected });
        }
        members.sort_by(|one, other| one.device.cmp(&other.device));
        let kind = text(&md.join("sync_action"))?;
        let completed = text(&md.join("sync_completed"))?;
        Ok(Self {
            device,
            level: text(&md.join("level"))?,
            disks: count(number(md.join("raid_disks"))?),
            missing: count(number(md.join("degraded"))?),
            state: text(&md.join("array_state"))?,
            activity: activity(&kind, &completed),
            mismatches: number(md.join("mismatch_cnt"))?,
            consistency: text(&md.join("consistency_policy"))?,
            discards: number(directory.join("queue/discard_max_bytes"))? > 0,
            members,
        })
    }

    /// What it is like.
    #[must_use]
    pub fn health(&self) -> Health {
        let most = match self.level.as_str() {
            // It may live with more than one, as long as no two of them are of one pair: the kernel says.
            "raid10" => self.disks,
            _ => self.can_lose(),
        };
        let is_recovering = || self.activity.as_ref().is_some_and(|is| is.kind == "recover");
        if self.missing > most || matches!(self.state.as_str(), "broken" | "inactive" | "clear") {
            Health::Failed
        } else if self.missing == 0 {
            Health::Whole
        } else if is_recovering() {
            Health::Rebuilding
        } else {
            Health::Degraded
        }
    }

    /// How its disks are, each by its serial number if it tells one.
    #[must_use]
    pub fn disks(&self) -> Disks {
        let report = |member: &Member| DiskReport {
            name: member.serial.as_ref().unwrap_or(&member.device).clone(),
            state: member.disk_state(),
            corrected: member.corrected,
        };
        Disks {
            count: self.disks,
            missing: self.missing,
            work: self.activity.as_ref().and_then(Activity::work),
            mismatches: self.mismatches,
            each: self.members.iter().map(report).collect(),
        }
    }

    /// How many disks it can lose, whichever they are, when it is whole.
    const fn can_lose(&self) -> u32 {
        match self.level.as_bytes() {
            b"raid1" => self.disks.saturating_sub(1),
            b"raid6" => 2,
            b"raid4" | b"raid5" | b"raid10" => 1,
            _ => 0,
        }
    }

    /// Whether it can lose another disk, whichever that is.
    pub(super) const fn can_lose_one(&self) -> bool {
        self.missing < self.can_lose()
    }

    /// Where the kernel has what it tells of it, and takes orders.
    pub(super) fn sysfs(&self) -> PathBuf {
        Path::new("/sys/block").join(self.device.file_name().unwrap_or_default()).join("md")
    }

    /// The number of its device.
    ///
    /// # Errors
    /// `Internal` if it is gone.
    pub(super) fn number(&self) -> Result<u64> {
        let metadata = fs::metadata(&self.device).map_err(looking_at(&self.device))?;
        Ok(metadata.rdev())
    }
}

/// A UUID as mdadm writes it.
pub(super) fn in_mdadms_words(uuid: Uuid) -> String {
    let hex = uuid.simple().to_string();
    let words: Vec<_> = (0..4).map(|word| &hex[word * 8..][..8]).collect();
    words.join(":")
}

/// A UUID that mdadm has written.
pub(super) fn from_mdadms_words(words: &str) -> Option<Uuid> {
    Uuid::try_parse(&words.replace(':', "")).ok()
}

/// What `sync_action` and `sync_completed` tell together.
fn activity(kind: &str, completed: &str) -> Option<Activity> {
    if matches!(kind, "idle" | "frozen") {
        return None;
    }
    let (done, total) = completed.split_once('/').unwrap_or_default();
    let numbers = (done.trim().parse::<u64>(), total.trim().parse::<u64>());
    let percent = match numbers {
        (Ok(done), Ok(total)) if total > 0 => done.min(total).saturating_mul(100) / total,
        _ => 0,
    };
    let percent = u8::try_from(percent).unwrap_or(100);
    Some(Activity { kind: kind.to_owned(), percent })
}

fn count(number: u64) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn names(directory: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).map_err(looking_at(directory))?;
    Ok(entries.flatten().filter_map(|entry| entry.file_name().into_string().ok()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Files as Linux 6.1 has them of a mirror with a spare, one disk of which failed.
    fn mirror(directory: &Path) {
        for (file, text) in [
            ("md/level", "raid1\n"),
            ("md/raid_disks", "2\n"),
            ("md/degraded", "1\n"),
            ("md/array_state", "clean\n"),
            ("md/sync_action", "recover\n"),
            ("md/sync_completed", "524288 / 2093056\n"),
            ("md/mismatch_cnt", "128\n"),
            ("md/consistency_policy", "bitmap\n"),
            ("md/dev-sda/state", "in_sync\n"),
            ("md/dev-sda/errors", "3\n"),
            ("md/dev-sdb/state", "faulty,write_error\n"),
            ("md/dev-sdb/errors", "0\n"),
            ("md/dev-sdc/state", "spare\n"),
            ("md/dev-sdc/errors", "0\n"),
            ("queue/discard_max_bytes", "0\n"),
        ] {
            let file = directory.join(file);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
    }

    #[test]
    fn an_array_is_read_as_the_kernel_tells_it() {
        let directory = tempfile::tempdir().unwrap();
        mirror(directory.path());
        let read = || Md::read(directory.path(), "/dev/md0".into()).unwrap();
        let md = read();
        assert_eq!((md.level.as_str(), md.disks, md.missing), ("raid1", 2, 1));
        assert_eq!(md.activity, Some(Activity { kind: "recover".to_owned(), percent: 25 }));
        assert_eq!((md.mismatches, md.discards), (128, false));
        let member = |device: &str, state: &[&str], corrected| Member {
            device: device.to_owned(),
            serial: None,
            state: state.iter().map(|&word| word.to_owned()).collect(),
            corrected,
        };
        let members = [
            member("sda", &["in_sync"], 3),
            member("sdb", &["faulty", "write_error"], 0),
            member("sdc", &["spare"], 0),
        ];
        assert_eq!(md.members, members);
        assert_eq!(md.health(), Health::Rebuilding);
        let disks = md.disks();
        assert_eq!((disks.count, disks.missing, disks.mismatches), (2, 1, 128));
        assert_eq!(disks.work, Some(Work { kind: WorkKind::Rebuild, percent: 25 }));
        let each: Vec<_> =
            disks.each.iter().map(|disk| (&*disk.name, disk.state, disk.corrected)).collect();
        let expected = [
            ("sda", DiskState::InSync, 3),
            ("sdb", DiskState::Faulty, 0),
            ("sdc", DiskState::Spare, 0),
        ];
        assert_eq!(each, expected);
        fs::remove_dir_all(directory.path().join("md/dev-sdb")).unwrap();
        fs::write(directory.path().join("md/sync_action"), "idle\n").unwrap();
        assert_eq!(read().members.len(), 2);
        assert_eq!(read().health(), Health::Degraded);
        fs::write(directory.path().join("md/raid_disks"), "3 (2)\n").unwrap();
        assert_eq!(read().disks, 3);
        fs::write(directory.path().join("md/degraded"), "many\n").unwrap();
        let error = Md::read(directory.path(), "/dev/md0".into()).unwrap_err();
        let chain = Chain(&error).to_string();
        assert!(chain.contains("no number"), "{chain}");
    }

    #[test]
    fn an_array_fails_with_one_disk_more_than_it_can_lose() {
        let directory = tempfile::tempdir().unwrap();
        mirror(directory.path());
        let mut md = Md::read(directory.path(), "/dev/md0".into()).unwrap();
        md.activity = None;
        for (level, disks, most) in
            [("raid1", 3, 2), ("raid5", 4, 1), ("raid6", 6, 2), ("raid10", 4, 4), ("raid0", 2, 0)]
        {
            (md.level, md.disks) = (level.to_owned(), disks);
            for missing in 0..=most + 1 {
                md.missing = missing;
                let health = match missing {
                    0 => Health::Whole,
                    _ if missing > most => Health::Failed,
                    _ => Health::Degraded,
                };
                assert_eq!(md.health(), health, "{level} without {missing}");
            }
        }
        md.missing = 0;
        for state in ["broken", "inactive", "clear"] {
            md.state = state.to_owned();
            assert_eq!(md.health(), Health::Failed, "{state}");
        }
    }

    #[test]
    fn progress_is_hundredths_and_nothing_while_it_waits() {
        for (kind, completed, percent) in [
            ("idle", "none", None),
            ("frozen", "none", None),
            ("check", "none", Some(0)),
            ("resync", "delayed", Some(0)),
            ("resync", "0 / 0", Some(0)),
            ("resync", "1 / 3", Some(33)),
            ("reshape", "3 / 3", Some(100)),
            ("repair", "9 / 3", Some(100)),
        ] {
            let found = activity(kind, completed).map(|activity| activity.percent);
            assert_eq!(found, percent, "{kind} {completed}");
        }
    }

    #[test]
    fn a_uuid_is_written_and_read_as_mdadm_does() {
        let uuid = Uuid::from_u128(0x5b1f_4d3c_0000_4000_8000_0000_0000_0007);
        assert_eq!(in_mdadms_words(uuid), "5b1f4d3c:00004000:80000000:00000007");
        assert_eq!(from_mdadms_words(&in_mdadms_words(uuid)), Some(uuid));
        for other in ["", "5b1f", "5b1f4d3c:00004000:80000000"] {
            assert_eq!(from_mdadms_words(other), None, "{other:?}");
        }
    }
}
