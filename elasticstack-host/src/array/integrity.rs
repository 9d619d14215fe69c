//! dm-integrity below the disks of an array: a checksum of every block, so that a mirror knows which copy
//! lies. A block that does not fit its checksum can't be read, and md writes it anew from the other disks.
//!
//! Always with a journal, which keeps data and checksum together over a crash. The kernel's bitmap mode is
//! not offered: after a crash it takes what is there for right.
//!
//! Invariant: only disks that hold nothing else, or were given up, are formatted; only disks in nobody's
//! use are opened.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::Duration;

use elasticstack_core::prelude::*;
use serde::{Deserialize, Serialize};

use super::disk::{Disk, Holding, names_in};
use crate::tool::run;

/// What the opened devices are called begins with this.
const PREFIX: &str = "elasticstack-";

/// What `wipefs` calls a disk with checksums.
const SIGNATURE: &str = "DM_integrity";

/// How long after somebody looked at a device it is looked at again, and how often.
const LOOK: Duration = Duration::from_millis(200);
const LOOKS: u32 = 25;

/// By what blocks are checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Integrity {
    /// CRC-32C of each block of 4 KiB: against disks that err, not against people.
    Crc32c,
}

impl Integrity {
    const fn algorithm(self) -> &'static str {
        match self {
            Self::Crc32c => "crc32c",
        }
    }

    /// Makes the disks hold zeros with their checksums, which takes as long as writing all of them, and
    /// opens them; answers with the devices that arrays are made of.
    ///
    /// # Errors
    /// `Internal` with what the tool said.
    pub(super) fn format(self, disks: &[Disk]) -> Result<Vec<PathBuf>> {
        // Of two that load it at once, one may find it half there.
        run(Command::new("modprobe").arg("dm-integrity"))?;
        let format = |disk: &Disk| {
            let mut setup = Command::new("integritysetup");
            setup.args(["format", "--batch-mode", "--sector-size=4096", "--integrity"]);
            run(setup.arg(self.algorithm()).arg(&disk.device)).and_then(|_| self.open(disk))
        };
        thread::scope(|scope| {
            let each: Vec<_> = disks.iter().map(|disk| scope.spawn(move || format(disk))).collect();
            let ended = |_| Error::internal("a thread that formatted a disk ended");
            each.into_iter().map(|thread| thread.join().map_err(ended)?).collect()
        })
    }

    /// Opens a disk that has checksums.
    ///
    /// # Errors
    /// `Internal` if it has none, or is in use.
    fn open(self, disk: &Disk) -> Result<PathBuf> {
        let mut setup = Command::new("integritysetup");
        setup.args(["open", "--allow-discards", "--integrity", self.algorithm()]);
        run(setup.arg(&disk.device).arg(name(disk)))?;
        let device = disk.device.display();
        opened_on(disk).ok_or_else(|| Error::internal(format!("{device} was opened and is not")))
    }

    /// Opens every disk that has checksums and that nobody uses. One that can't be opened is left out.
    ///
    /// # Errors
    /// `Internal` if the disks can't be listed.
    pub(super) fn open_all(self) -> Result<()> {
        for disk in Disk::all()? {
            let device = disk.device.display();
            match disk.check_unused().and_then(|()| has_checksums(&disk)) {
                Ok(true) => {
                    if let Err(error) = self.open(&disk) {
                        tracing::error!(%device, error = %Chain(&error), "a disk can't be opened");
                    }
                }
                Ok(false) => {}
                Err(error) => {
                    tracing::debug!(%device, error = %Chain(&error), "a disk is not looked at");
                }
            }
        }
        Ok(())
    }
}

/// Whether the disk has checksums.
fn has_checksums(disk: &Disk) -> Result<bool> {
    let holding = disk.holding()?;
    Ok(matches!(holding, Holding::Types(types) if types.iter().any(|one| one == SIGNATURE)))
}

/// The device that stands for the disk as long as it is open.
pub(super) fn opened_on(disk: &Disk) -> Option<PathBuf> {
    let holder = disk.holders().into_iter().find(|holder| opened(holder).is_some())?;
    Some(Path::new("/dev").join(holder))
}

/// Closes those that no array has: their disks were pulled, or taken out.
///
/// # Errors
/// `Internal` with what the tool said.
pub(super) fn close_idle() -> Result<()> {
    for device in names_in(Path::new("/sys/block")) {
        let is_held =
            || !names_in(&Path::new("/sys/block").join(&device).join("holders")).is_empty();
        if let Some(name) = opened(&device).filter(|_| !is_held()) {
            close(&name)?;
        }
    }
    Ok(())
}

/// Closes one, with patience for whoever only looks at it: udev does so whenever an array lets go.
fn close(name: &str) -> Result<()> {
    let close = || run(Command::new("integritysetup").arg("close").arg(name)).map(|_| ());
    for _ in 0..LOOKS {
        if close().is_ok() {
            return Ok(());
        }
        thread::sleep(LOOK);
    }
    close()
}

/// What one of ours is called, by the name of its device.
fn opened(device: &str) -> Option<String> {
    let name = fs::read_to_string(Path::new("/sys/block").join(device).join("dm/name")).ok()?;
    Some(name.trim().to_owned()).filter(|name| name.starts_with(PREFIX))
}

/// What the disk is called once it is open; the device mapper takes no other letters.
fn name(disk: &Disk) -> String {
    let device = || disk.device.file_name().map(|name| name.to_string_lossy().into_owned());
    let own = disk.serial.clone().or_else(device).unwrap_or_default();
    let is_taken = |letter: &char| letter.is_ascii_alphanumeric() || ".-".contains(*letter);
    let own: String =
        own.chars().map(|letter| if is_taken(&letter) { letter } else { '_' }).take(64).collect();
    format!("{PREFIX}{own}")
}
