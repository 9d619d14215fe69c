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

use super::integrity::Integrity;
use super::md::{Health, Md, from_mdadms_words, in_mdadms_words};
use super::order::ArrayName;
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
    /// What its disks' blocks are checked by, if they are.
    pub integrity: Option<Integrity>,
}

impl MadeArray {
    /// One to be made, by ids that no other has.
    #[must_use]
    pub fn new(integrity: Option<Integrity>) -> Self {
        Self { md: Uuid::new_v4(), filesystem: Uuid::new_v4(), integrity }
    }

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
        if md.health() != Health::Failed {
            md.settle()?;
        }
        self.mount(&md, path)?;
        Ok(md)
    }

    /// Makes XFS with reflinks on it. Whatever was on it is gone.
    ///
    /// # Errors
    /// `Internal` if it is not put together, is in use, or with what the tool said.
    pub fn format(self) -> Result<()> {
        let md = Md::find(self.md)?
            .ok_or_else(|| Error::internal("mdadm made an array that is not there"))?;
        let mut mkfs = Command::new("mkfs.xfs");
        mkfs.args(["-q", "-f", "-m", &format!("reflink=1,uuid={}", self.filesystem)]);
        run(mkfs.arg(&md.device)).map(drop)
    }

    /// Whether it is what is mounted at `path`.
    pub(super) fn is_at(self, path: &Path) -> Result<bool> {
        let Some(md) = Md::find(self.md)? else { return Ok(false) };
        let here = fs::metadata(path).map(|metadata| metadata.dev());
        Ok(here.ok() == Some(md.number()?))
    }

    /// The array of this name on disks that came from another machine, put together.
    ///
    /// # Errors
    /// `NotFound` if no disk has one of it, with the names that there are; `InvalidValue` if several
    /// arrays have the name; those of [`MadeArray::bring_up`].
    pub fn import(name: &ArrayName, integrity: Option<Integrity>) -> Result<Self> {
        integrity.map_or(Ok(()), Integrity::open_all)?;
        let mut mdadm = Command::new("mdadm");
        let scanned = run(mdadm.args(["--examine", "--scan", "--config=partitions"]))?;
        let found: Vec<_> = scanned.lines().filter_map(listed).collect();
        let mut named = found.iter().filter(|(_, found)| *found == name.as_str());
        let (Some((md, _)), None) = (named.next(), named.next()) else {
            let names: Vec<_> = found.iter().map(|(_, name)| *name).collect();
            let sentence = format!("of the arrays on these disks, {names:?}, not one is {name}");
            return Err(Error::new(ErrorKind::NotFound, sentence).field("name"));
        };
        // What is on it is known once it is put together.
        let array = Self { md: *md, filesystem: Uuid::nil(), integrity };
        let put_together = match Md::find(array.md)? {
            Some(md) => md,
            None => array.assemble()?,
        };
        let filesystem = filesystem(&put_together)?;
        let no_filesystem = || Error::internal(format!("array {name} has no file system"));
        Ok(Self { filesystem: filesystem.ok_or_else(no_filesystem)?, ..array })
    }

    fn assemble(self) -> Result<Md> {
        let uuid = in_mdadms_words(self.md);
        let unavailable = || {
            let sentence = format!("array {uuid} can't be put together: are all its disks in?");
            Error::new(ErrorKind::Unavailable, sentence)
        };
        self.integrity.map_or(Ok(()), Integrity::open_all)?;
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
        let found = filesystem(md)?;
        if found != Some(self.filesystem) {
            return Err(Error::internal(format!(
                "{} has the file system {found:?}, not {}: correct the configuration",
                md.device.display(),
                self.filesystem
            )));
        }
        let mut mount = Command::new("mount");
        mount.args(["-t", "xfs", "-o", MOUNT_OPTIONS]).arg(&md.device).arg(path);
        run(&mut mount).map(|_| ())
    }
}

/// The UUID of the file system on an array, if there is one.
fn filesystem(md: &Md) -> Result<Option<Uuid>> {
    let mut blkid = Command::new("blkid");
    blkid.args(["--probe", "--match-tag", "UUID", "--output", "value"]);
    Ok(Uuid::try_parse(run(blkid.arg(&md.device))?.trim()).ok())
}

/// The array in a line that `mdadm --examine --scan` prints, with its name.
fn listed(line: &str) -> Option<(Uuid, &str)> {
    let words = || line.strip_prefix("ARRAY ").unwrap_or_default().split_whitespace();
    let name = words().find_map(|word| word.strip_prefix("name="))?;
    // Before the colon stands the machine that it was made for.
    let name = name.split_once(':').map_or(name, |(_, name)| name);
    let uuid = words().find_map(|word| from_mdadms_words(word.strip_prefix("UUID=")?))?;
    Some((uuid, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrays_are_listed_as_mdadm_prints_them() {
        let uuid = Uuid::try_parse("82f688140342998a83d590c698ff154a").unwrap();
        for (line, array) in [
            (
                "ARRAY /dev/md/five  metadata=1.2 UUID=82f68814:0342998a:83d590c6:98ff154a name=any:five",
                Some((uuid, "five")),
            ),
            ("ARRAY /dev/md/6 UUID=82f68814:0342998a:83d590c6:98ff154a name=6", Some((uuid, "6"))),
            ("ARRAY metadata=imsm UUID=82f68814:0342998a:83d590c6:98ff154a", None),
            ("ARRAY /dev/md/5 metadata=1.2 UUID=82f6 name=any:five", None),
            ("   spares=1 name=x UUID=82f68814:0342998a:83d590c6:98ff154a", None),
            ("", None),
        ] {
            assert_eq!(listed(line), array, "{line}");
        }
    }
}
