//! Where an image is built: a directory for drafts, the lock on it, and the programs that work there.
//!
//! Owns finding and running those programs; what they are asked to do stands where it is needed.
//!
//! Invariant: nobody writes to the directory but the holder of the lock and the programs that it
//! started. Each of them holds the lock too, as its standard input, so that a killed build is over
//! only when the last of them has ended.

use std::env;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The syslinux master boot record.
pub(super) const MBR: &str = "/usr/lib/syslinux/mbr/mbr.bin";

/// Programs, by name, and files, by path, each with the package that has it.
pub(super) type Tools = &'static [(&'static str, &'static str)];

/// Says which packages are missing, all at once, before any work is done.
pub(super) fn check(image: &str, tools: Tools) -> Result<()> {
    let is_there = |tool: &str| match tool.starts_with('/') {
        true => Path::new(tool).exists(),
        false => locate(tool).is_some(),
    };
    let missing: Vec<_> = tools.iter().filter(|(tool, _)| !is_there(tool)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(tool, _)| *tool).collect();
    let mut packages: Vec<_> = missing.iter().map(|(_, package)| *package).collect();
    packages.dedup();
    bail!(
        "cannot build {image} without {}: run `sudo apt-get install {}`",
        names.join(", "),
        packages.join(" ")
    )
}

/// A locked directory for drafts, empty when it is opened.
#[derive(Debug)]
pub(super) struct Workshop {
    directory: PathBuf,
    lock: File,
}

impl Workshop {
    /// Takes the lock in `cache`, waiting for who holds it, and clears what a killed build left.
    pub(super) fn open(cache: &Path) -> Result<Self> {
        let (directory, path) = (cache.join("build"), cache.join("image.lock"));
        fs::create_dir_all(cache).with_context(|| format!("create {}", cache.display()))?;
        let lock = File::create(&path)
            .and_then(|file| file.lock().map(|()| file))
            .with_context(|| format!("lock {}", path.display()))?;
        discard(&directory)?;
        fs::create_dir(&directory).with_context(|| format!("create {}", directory.display()))?;
        Ok(Self { directory, lock })
    }

    /// Removes the drafts and frees the lock.
    pub(super) fn close(self) -> Result<()> {
        discard(&self.directory)
    }

    /// The place of a draft.
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Writes a draft, and returns its place.
    pub(super) fn write(&self, name: &str, content: &[u8]) -> Result<PathBuf> {
        let path = self.path(name);
        fs::write(&path, content).with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// The variables that make output and files depend on neither the user's locale nor the time.
    pub(super) const ENVIRONMENT: [(&str, &str); 3] =
        [("LC_ALL", "C"), ("TZ", "UTC0"), ("SOURCE_DATE_EPOCH", "1700000000")];

    /// A command whose output and files depend on neither the user's locale nor the time.
    pub(super) fn command(&self, tool: &str) -> Result<Command> {
        let mut command = Command::new(locate(tool).unwrap_or_else(|| tool.into()));
        command.envs(Self::ENVIRONMENT);
        command.stdin(self.lock.try_clone().context("share the lock with a program")?);
        Ok(command)
    }
}

/// Removes a file or a directory with all in it; that nothing was there is fine.
pub(super) fn discard(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    };
    removed.with_context(|| format!("remove {}", path.display()))
}

/// Runs a command to its end and returns what it printed.
///
/// # Errors
/// It cannot be started, or it fails: then with what it said on standard error.
pub(super) fn output(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{command:?} ended with {}: {}", output.status, said.trim());
    }
    String::from_utf8(output.stdout).with_context(|| format!("read the output of {command:?}"))
}

/// Searches PATH and then the administrator's directories, which an ordinary user's PATH lacks.
pub(super) fn locate(tool: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(tool))
        .find(|candidate| candidate.is_file())
}
