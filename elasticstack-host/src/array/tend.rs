//! What becomes of an array in its life: disks come, are replaced and go, copies are compared, room is
//! added. Each returns once the kernel has begun; [`Md`] tells how far it is.
//!
//! Invariant: nothing here takes a disk out that the array can't do without.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use elasticstack_core::prelude::*;

use super::disk::{Disk, DiskName};
use super::integrity::{close_idle, opened_on};
use super::made::MadeArray;
use super::md::{Activity, Md, Member};
use super::plan::{emptied, usable, usable_each};
use super::tool::run;

/// As many as the kernel counts.
const MAX_READ_ERRORS: &str = "2147483647";

/// How often it is looked whether what the kernel does is done.
const LOOK: Duration = Duration::from_millis(500);

/// What a scrub does where copies differ, or parity does not fit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scrub {
    /// Count it. What can't be read is written anew from the other disks in any case.
    Check,
    /// Write it anew. Without checksums nobody knows which copy was right: the first one is taken.
    Repair,
    /// It ends, and no scrub runs.
    Stop,
}

impl MadeArray {
    /// Adds a disk, which gets all that it should hold: for one that is missing, or as a spare if none is.
    /// What failed is taken out. One that is in it already stays as it is.
    ///
    /// One that was in the array before is written anew like any other. `mdadm --re-add` would write only
    /// what the bitmap says changed since; but the kernel takes for that any disk that left after the
    /// bitmap's "events cleared", which move only by a write to a whole array: if another disk was rebuilt
    /// in between, the bits are gone, and the mirror serves what is stale.
    ///
    /// # Errors
    /// Those of [`super::ArrayPlan::new`] for one disk; `Internal` if mdadm fails.
    pub fn add_disk(self, name: &DiskName) -> Result<()> {
        let md = self.here()?;
        if md.has(name)? {
            return Ok(());
        }
        self.forget_failed(&md)?;
        self.take_in(&md, &usable(name)?).map(drop)
    }

    /// Copies a disk to another one and puts that in its place, while it still serves: the array
    /// lacks nothing meanwhile. Afterwards the old one counts as failed. Cut off, it is finished by doing the
    /// same again.
    ///
    /// # Errors
    /// `NotFound` if the old one is not of the array; those of [`MadeArray::add_disk`] for the new one.
    pub fn replace_disk(self, old: &DiskName, new: &DiskName) -> Result<()> {
        let md = self.here()?;
        let (is_in, old) = (md.has(new)?, md.device_of(old)?);
        let is_on_its_way = |member: &Member| member.is_being_replaced() || member.is_faulty();
        if is_in && md.member(&old).is_some_and(is_on_its_way) {
            return Ok(());
        }
        let new = match md.device_of(new) {
            Ok(spare) if md.member(&spare).is_some_and(Member::is_spare) && is_in => spare,
            _ => {
                let new = usable(new)?;
                self.forget_failed(&md)?;
                self.take_in(&md, &new)?
            }
        };
        let (old, new) = (old.as_os_str(), new.as_os_str());
        run(manage(&md).args(["--replace".as_ref(), old, "--with".as_ref(), new])).map(drop)
    }

    /// Takes a disk out. A spare takes its place, if there is one.
    ///
    /// # Errors
    /// `InvalidValue` if the array can't do without it; `NotFound` if it is not of the array.
    pub fn remove_disk(self, name: &DiskName) -> Result<()> {
        let md = self.here()?;
        let device = md.device_of(name)?;
        let is_needed = md.member(&device).is_some_and(Member::is_in_sync);
        if is_needed && !md.can_lose_one() {
            let sentence = format!(
                "the array can't do without disk {name}: add another one, and wait until it is whole"
            );
            return Err(Error::new(ErrorKind::InvalidValue, sentence).field("disk"));
        }
        run(manage(&md).arg("--fail").arg(&device).arg("--remove").arg(&device))?;
        self.close_idle()
    }

    /// Reads all of it and compares, in the background; [`Md::mismatches`] says what was found.
    ///
    /// # Errors
    /// `ResourceInUse` if the kernel does something else to it, as while it rebuilds.
    pub fn scrub(self, scrub: Scrub) -> Result<()> {
        let word = match scrub {
            Scrub::Check => "check",
            Scrub::Repair => "repair",
            Scrub::Stop => "idle",
        };
        let md = self.here()?;
        match &md.activity {
            Some(Activity { kind, .. }) if kind == word => Ok(()),
            Some(Activity { kind, percent }) if scrub != Scrub::Stop => {
                let sentence = format!(
                    "the array can't be read through beside {kind}, of which {percent} % are done: \
                     wait for its end"
                );
                Err(Error::new(ErrorKind::ResourceInUse, sentence))
            }
            _ => md.order("sync_action", word),
        }
    }

    /// Makes the array as large as its disks allow, with these added to them, and its file system as
    /// large as the array; blocks until all is done, which takes as long as its disks take to be written.
    /// Cut off, it is finished by doing the same again.
    ///
    /// # Errors
    /// `InvalidValue` for disks to a level that gains no room by them; those of [`MadeArray::add_disk`];
    /// `Internal` if mdadm refuses, as while the array lacks a disk.
    pub fn grow(self, path: &Path, disks: &[DiskName]) -> Result<()> {
        let md = self.here()?;
        if !disks.is_empty() && md.level == "raid1" {
            let sentence = "a RAID 1 gains no room by more disks: replace each by a larger one";
            return Err(Error::new(ErrorKind::InvalidValue, sentence).field("disk"));
        }
        let ours = |name: &&DiskName| md.device_of(name).is_ok();
        let (ours, others): (Vec<_>, Vec<_>) = disks.iter().partition(ours);
        let others = usable_each(others)?;
        // While there is a partial parity log, so that each keeps a place for its part of it.
        for disk in &others {
            self.take_in(&md, disk)?;
        }
        // It is laid out for the array as it is: it is taken away, and made anew.
        if md.consistency == "ppl" {
            run(grow(&md).arg("--consistency-policy=resync"))?;
        }
        // What was cut off goes on by itself.
        self.wait()?;
        let mut spares = 0;
        for name in ours {
            spares += usize::from(md.member(&md.device_of(name)?).is_some_and(Member::is_spare));
        }
        match u32::try_from(spares.saturating_add(others.len())) {
            Ok(more @ 1..) => {
                let devices = md.disks.saturating_add(more);
                run(grow(&md).arg(format!("--raid-devices={devices}")))?;
            }
            _ => drop(run(grow(&md).arg("--size=max"))?),
        }
        self.wait()?;
        self.here()?.settle()?;
        run(Command::new("xfs_growfs").arg(path)).map(drop)
    }

    /// Takes a disk in that was found usable: for one that is missing, or as a spare. Answers with its device.
    fn take_in(self, md: &Md, disk: &Disk) -> Result<PathBuf> {
        let devices = emptied(std::slice::from_ref(disk), self.integrity)?;
        run(manage(md).arg("--add").args(&devices))?;
        devices.into_iter().next().ok_or_else(|| Error::internal("a disk without a device"))
    }

    /// Takes out what failed, and what is no longer in the machine.
    fn forget_failed(self, md: &Md) -> Result<()> {
        run(manage(md).args(["--remove", "failed", "--remove", "detached"]))?;
        self.close_idle()
    }

    fn close_idle(self) -> Result<()> {
        self.integrity.map_or(Ok(()), |_| close_idle())
    }

    /// Waits until the kernel does nothing to the array beside serving it.
    fn wait(self) -> Result<()> {
        while self.here()?.activity.is_some() {
            thread::sleep(LOOK);
        }
        Ok(())
    }

    fn here(self) -> Result<Md> {
        Md::find(self.md)?.ok_or_else(|| {
            let sentence = "the array is not put together: `array up` does that";
            Error::new(ErrorKind::Unavailable, sentence)
        })
    }
}

impl Md {
    /// Has the kernel do with it what its defaults would not.
    ///
    /// # Errors
    /// `Internal` if it refuses.
    pub(super) fn settle(&self) -> Result<()> {
        // A disk that corrects read errors is still worth more than none: whoever counts them decides.
        self.order("max_read_errors", MAX_READ_ERRORS)?;
        // Growth, cut off, leaves a RAID 5 without its log.
        if self.level == "raid5" && self.consistency == "resync" && self.activity.is_none() {
            run(grow(self).arg("--consistency-policy=ppl"))?;
        }
        Ok(())
    }

    fn order(&self, file: &str, word: &str) -> Result<()> {
        let path = self.sysfs().join(file);
        fs::write(&path, word).map_err(|error| {
            Error::internal(format!("writing {word} to {}", path.display())).source(error)
        })
    }

    fn member(&self, device: &Path) -> Option<&Member> {
        self.members.iter().find(|member| Path::new("/dev").join(&member.device) == device)
    }

    /// Whether the disk is one of its own and has not failed. One that was pulled and is back is not, even if the
    /// array has not missed it yet.
    fn has(&self, name: &DiskName) -> Result<bool> {
        let disk = Disk::find(name)?;
        let device = opened_on(&disk).unwrap_or_else(|| disk.device.clone());
        let is_whole = self.member(&device).is_some_and(|member| !member.is_faulty());
        Ok(is_whole && !disk.holders().is_empty())
    }

    /// The device of a disk of its own.
    pub(super) fn device_of(&self, name: &DiskName) -> Result<PathBuf> {
        let disk = Disk::find(name)?;
        let device = opened_on(&disk).unwrap_or(disk.device);
        if self.member(&device).is_some() {
            return Ok(device);
        }
        let sentence = format!("disk {name} is not of this array: `array status` lists them");
        Err(Error::new(ErrorKind::NotFound, sentence).field("disk"))
    }
}

fn manage(md: &Md) -> Command {
    let mut mdadm = Command::new("mdadm");
    mdadm.arg("--manage").arg(&md.device);
    mdadm
}

fn grow(md: &Md) -> Command {
    let mut mdadm = Command::new("mdadm");
    mdadm.arg("--grow").arg(&md.device);
    mdadm
}
