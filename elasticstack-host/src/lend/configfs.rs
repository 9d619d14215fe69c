//! Steps of a plan, done in configfs. All of it blocks, some for as long as a disk does not answer.
//!
//! A step that is done already is passed over. Errors name the step, and so no secret.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, ErrorKind as IoKind, Write as _};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use elasticstack_core::prelude::*;

use super::plan::{Step, TARGETS};
use crate::tool;

/// Where configfs is mounted.
const MOUNT: &str = "/sys/kernel/config";

/// LIO and the parts of it that lends are made of.
const MODULES: [&str; 3] = ["target_core_mod", "target_core_file", "iscsi_target_mod"];

/// The directory `target` of configfs.
#[derive(Debug, Clone)]
pub(super) struct Configfs(PathBuf);

impl Configfs {
    /// Loads what is not loaded, mounts configfs if it is not mounted, and lets nobody find
    /// targets who does not prove himself; nobody can.
    pub(super) fn open() -> Result<Self> {
        let target = Path::new(MOUNT).join("target");
        if !target.join(TARGETS).exists() {
            let mut modprobe = Command::new("modprobe");
            tool::run(modprobe.arg("--all").args(MODULES)).map_err(|error| {
                Error::new(ErrorKind::NotOffered, "this host's kernel has no target of iSCSI")
                    .context(format!("loading {MODULES:?}"))
                    .source(error)
            })?;
            if !target.exists() {
                tool::run(Command::new("mount").args(["-t", "configfs", "configfs", MOUNT]))?;
            }
        }
        let configfs = Self(target);
        configfs.make(&Step::Directory(TARGETS.into()))?;
        let discovery = Path::new(TARGETS).join("discovery_auth/enforce_discovery_auth");
        configfs.make(&Step::Value(discovery, "1".to_owned()))?;
        Ok(configfs)
    }

    /// Makes it so.
    pub(super) fn make(&self, step: &Step) -> Result<()> {
        self.attempt(step).map_err(|error| {
            Error::internal(format!("{step}, in {}", self.0.display())).source(error)
        })
    }

    fn attempt(&self, step: &Step) -> io::Result<()> {
        let at = |path: &Path| self.0.join(path);
        match step {
            Step::Directory(path) => but(IoKind::AlreadyExists, fs::create_dir(at(path))),
            Step::Value(path, value) => set(&at(path), value),
            Step::Secret(path, secret) => write(&at(path), secret.expose()),
            Step::Backing { backstore, file, size } => serve(&at(backstore), file, *size),
            Step::Link { at: link, to } => but(IoKind::AlreadyExists, symlink(at(to), at(link))),
            Step::Off(path) => but(IoKind::NotFound, set(&at(path), "0")),
            Step::NoLink(path) => but(IoKind::NotFound, fs::remove_file(at(path))),
            Step::NoDirectory(path) => but(IoKind::NotFound, fs::remove_dir(at(path))),
        }
    }

    /// The names of the directories in a directory; none of one that is not there.
    pub(super) fn list(&self, path: &Path) -> Result<Vec<String>> {
        let path = self.0.join(path);
        let listed = || -> io::Result<Vec<OsString>> {
            let mut names = Vec::new();
            for entry in fs::read_dir(&path)? {
                let entry = entry?;
                if entry.file_type()?.is_dir() {
                    names.push(entry.file_name());
                }
            }
            Ok(names)
        };
        match listed() {
            Ok(names) => Ok(names.into_iter().filter_map(|name| name.into_string().ok()).collect()),
            Err(error) if error.kind() == IoKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(Error::internal(format!("listing {}", path.display())).source(error)),
        }
    }
}

/// The result, in which this kind of failure is none.
fn but(fine: IoKind, result: io::Result<()>) -> io::Result<()> {
    result.or_else(|error| if error.kind() == fine { Ok(()) } else { Err(error) })
}

/// Gives an attribute a value, unless it has it: much can't be changed while it is in use.
fn set(path: &Path, value: &str) -> io::Result<()> {
    let told = fs::read_to_string(path)?;
    // Some attributes are told with their names.
    let told = told.trim_end();
    if told.rsplit_once(": ").map_or(told, |(_, told)| told) == value {
        Ok(())
    } else {
        write(path, value)
    }
}

fn write(path: &Path, value: &str) -> io::Result<()> {
    // The kernel takes one call to write for one value.
    File::options().write(true).open(path)?.write_all(value.as_bytes())
}

/// Has a backstore serve a file. Its size may change while it does, its file may not.
fn serve(backstore: &Path, file: &str, size: Bytes) -> io::Result<()> {
    let control = backstore.join("control");
    let told = fs::read_to_string(backstore.join("info"))?;
    let is_on = fs::read_to_string(backstore.join("enable"))?.trim_end() == "1";
    match served(&told) {
        Some((served, length)) if served == file => {
            if length == size.get() {
                Ok(())
            } else {
                write(&control, &format!("fd_dev_size={}", size.get()))
            }
        }
        Some((served, _)) if is_on => {
            Err(io::Error::other(format!("it serves {served}, which is to be withdrawn first")))
        }
        _ => write(&control, &format!("fd_dev_name={file},fd_dev_size={}", size.get())),
    }
}

/// The file that a backstore serves, and its length in bytes, from what it tells of itself.
fn served(info: &str) -> Option<(&str, u64)> {
    let (_, rest) = info.split_once("File: ")?;
    let (file, rest) = rest.split_once("  Size: ")?;
    let (size, _) = rest.split_once("  Mode: ")?;
    Some((file, size.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_backstore_serves_is_read_as_the_kernel_tells_it() {
        let told = "Status: ACTIVATED  Max Queue Depth: 0  SectorSize: 512  HwMaxSectors: 16384\n        \
                    TCM FILEIO ID: 0        File: /srv/a b.raw  Size: 134217728  Mode: O_DSYNC Async: 0\n";
        assert_eq!(served(told), Some(("/srv/a b.raw", 134_217_728)));
        let nothing = "Status: DEACTIVATED  Max Queue Depth: 0  SectorSize: 0  HwMaxSectors: 0\n        \
                       TCM FILEIO ID: 0        File:   Size: 0  Mode: O_DSYNC Async: 0\n";
        assert_eq!(served(nothing), Some(("", 0)));
        assert_eq!(served(""), None);
    }

    #[test]
    fn a_value_that_is_there_is_not_written_again_and_another_is() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("attribute");
        for (told, value, left) in [
            ("1\n", "1", "1\n"),
            ("T10 VPD Unit Serial Number: a\n", "a", "T10 VPD Unit Serial Number: a\n"),
            ("0\n", "1", "1\n"),
        ] {
            fs::write(&path, told).unwrap();
            set(&path, value).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), left);
        }
        set(&directory.path().join("none"), "1").unwrap_err();
    }

    #[test]
    fn a_step_that_is_done_is_done_again_and_one_that_fails_says_which_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let configfs = Configfs(directory.path().to_owned());
        let of = |name: &str| PathBuf::from(name);
        let steps = [
            Step::Directory(of("a")),
            Step::Link { at: of("link"), to: of("a") },
            Step::Off(of("a/enable")),
            Step::NoLink(of("link")),
            Step::NoDirectory(of("a")),
        ];
        for step in &steps {
            configfs.make(step).unwrap();
            configfs.make(step).unwrap();
        }
        assert_eq!(configfs.list(&of("")).unwrap(), Vec::<String>::new());
        assert_eq!(configfs.list(&of("none")).unwrap(), Vec::<String>::new());
        let secret = elasticstack_core::secret::Secret::new("hunter2hunter2");
        let error = configfs.make(&Step::Secret(of("none/password"), secret)).unwrap_err();
        let said = Chain(&error).to_string();
        assert!(said.contains("none/password = ***") && !said.contains("hunter2"), "{said}");
    }
}
