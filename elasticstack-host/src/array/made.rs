//! An array that was made before: put together and mounted, whatever its disks are called now.
//!
//! Invariants: it is told by two UUIDs, that of the array and that of the file system on it; no array
//! is forced together of disks that do not agree; nothing is mounted over what is mounted.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::process::Command;

use elasticstack_core::prelude::*;
use uuid::Uuid;

use super::md::{Md, in_mdadms_words};
use super::tool::run;

/// What nobody but drives' bytes needs of a file system, and what is freed in it told to the disks.
const MOUNT_OPTIONS: &str = "nodev,nosuid,noexec,noatime,discard";

/// Which array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MadeArray {
    /// Of the md array.
    pub md: Uuid,
    /// Of the XFS on it.
    pub filesystem: Uuid,
}

impl MadeArray {
    /// Puts the array together of as many of its disks as are there, if it is not yet, and mounts it at
    /// `path`, if it is not yet. A disk that comes late is added by hand.
    ///
    /// # Errors
    /// `Unavailable` if too few disks are there, or their parity may be wrong after a crash, which a
    /// degraded RAID 5 or 6 without PPL can't tell: it is never forced. `Internal` if there is another
    /// file system on it, or something else is mounted there.
    pub fn bring_up(self, path: &Path) -> Result<Md> {
        let md = match Md::find(self.md)? {
            Some(md) => md,
            None => self.assemble()?,
        };
        self.mount(&md, path)?;
        Ok(md)
    }

    fn assemble(self) -> Result<Md> {
        let uuid = in_mdadms_words(self.md);
        let unavailable = || {
            let sentence = format!("array {uuid} can't be put together: are all its disks in?");
            Error::new(ErrorKind::Unavailable, sentence)
        };
        // Whatever this machine's mdadm.conf says, and with fewer disks than last time.
        let mut mdadm = Command::new("mdadm");
        mdadm.args(["--assemble", "--scan", "--run", "--config=partitions", "--homehost=any"]);
        mdadm.arg(format!("--uuid={uuid}"));
        run(&mut mdadm).map_err(|error| unavailable().source(error))?;
        Md::find(self.md)?.ok_or_else(unavailable)
    }

    fn mount(self, md: &Md, path: &Path) -> Result<()> {
        let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
        let looking = |error| Error::internal(format!("making {}", path.display())).source(error);
        made.map_err(looking)?;
        let device_at = |path: &Path| fs::metadata(path).map(|metadata| metadata.dev());
        let here = device_at(path).map_err(looking)?;
        if here == md.number()? {
            return Ok(());
        }
        let above = path.parent().unwrap_or(path);
        if here != device_at(above).map_err(looking)? {
            return Err(Error::internal(format!(
                "something else is mounted at {}: unmount it, or mount the array elsewhere",
                path.display()
            )));
        }
        let mut blkid = Command::new("blkid");
        blkid.args(["--probe", "--match-tag", "UUID", "--output", "value"]);
        let found = run(blkid.arg(&md.device))?;
        if Uuid::try_parse(found.trim()).ok() != Some(self.filesystem) {
            return Err(Error::internal(format!(
                "{} has the file system {:?}, not {}: correct the configuration",
                md.device.display(),
                found.trim(),
                self.filesystem
            )));
        }
        let mut mount = Command::new("mount");
        mount.args(["-t", "xfs", "-o", MOUNT_OPTIONS]).arg(&md.device).arg(path);
        run(&mut mount).map(|_| ())
    }
}
