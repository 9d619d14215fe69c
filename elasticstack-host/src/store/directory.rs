//! Durable steps in one directory: each is one call to the kernel, and after [`Directory::sync`]
//! all earlier ones survive a crash.
//!
//! Does not know what the files mean. In tests a fuse cuts the work off before any chosen step,
//! so that every state a crash can leave is reached.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, ErrorKind as IoKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
#[cfg(test)]
use std::sync::atomic::{AtomicUsize, Ordering};

use elasticstack_core::prelude::*;

/// An open directory that only its owner may look into.
#[derive(Debug)]
pub(super) struct Directory {
    path: PathBuf,
    handle: File,
    #[cfg(test)]
    pub(super) fuse: Fuse,
}

impl Directory {
    /// Opens the directory, making it and its parents where they are missing.
    pub(super) fn open(path: &Path) -> Result<Self> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(path)
            .map_err(failed("making the directory", path))?;
        let path = fs::canonicalize(path).map_err(failed("resolving", path))?;
        let handle = File::open(&path).map_err(failed("opening the directory", &path))?;
        Ok(Self {
            path,
            handle,
            #[cfg(test)]
            fuse: Fuse::default(),
        })
    }

    /// The absolute path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// What lies here, by name. A name that is not UTF-8 comes with replacement characters.
    pub(super) fn names(&self) -> Result<Vec<String>> {
        fs::read_dir(&self.path)
            .and_then(|entries| {
                entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
            })
            .map_err(failed("listing", &self.path))
    }

    /// Makes a file of what `fill` makes of an empty one, in place of any other.
    pub(super) fn make(
        &self,
        name: &str,
        fill: impl FnOnce(&File) -> io::Result<()>,
    ) -> Result<()> {
        let path = self.path.join(name);
        self.step()
            .and_then(|()| private().truncate(true).open(&path))
            .and_then(|file| {
                self.step()?;
                fill(&file)?;
                self.step()?;
                file.sync_all()
            })
            .map_err(failed("making", &path))
    }

    /// Durably puts a file of these bytes in the place of another: at any instant either the old
    /// or the new one is there. `scratch` is the new one's name meanwhile.
    pub(super) fn replace(&self, name: &str, scratch: &str, bytes: &[u8]) -> Result<()> {
        self.make(scratch, |mut file| file.write_all(bytes))?;
        self.rename(scratch, name)?;
        self.sync()
    }

    /// Makes a file `size` long, durably.
    pub(super) fn resize(&self, name: &str, size: Bytes) -> Result<()> {
        let path = self.path.join(name);
        self.step()
            .and_then(|()| OpenOptions::new().write(true).open(&path))
            .and_then(|file| {
                self.step()?;
                file.set_len(size.get())?;
                self.step()?;
                file.sync_all()
            })
            .map_err(failed("resizing", &path))
    }

    /// Renames, over any other file of the new name.
    pub(super) fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (from, to) = (self.path.join(from), self.path.join(to));
        self.step().and_then(|()| fs::rename(&from, to)).map_err(failed("renaming", &from))
    }

    /// Renames what may be gone already.
    pub(super) fn rename_if_there(&self, from: &str, to: &str) -> Result<()> {
        if self.length(from)?.is_some() { self.rename(from, to) } else { Ok(()) }
    }

    /// Removes what may be gone already. Its space is freed even while somebody has it open.
    pub(super) fn remove(&self, name: &str) -> Result<()> {
        if self.length(name)?.is_none() {
            return Ok(());
        }
        let path = self.path.join(name);
        self.step()
            .and_then(|()| OpenOptions::new().write(true).open(&path)?.set_len(0))
            .and_then(|()| self.step())
            .and_then(|()| fs::remove_file(&path))
            .map_err(failed("removing", &path))
    }

    /// The length of a file, if it is there.
    pub(super) fn length(&self, name: &str) -> Result<Option<u64>> {
        let path = self.path.join(name);
        match fs::symlink_metadata(&path) {
            Ok(metadata) => Ok(Some(metadata.len())),
            Err(error) if error.kind() == IoKind::NotFound => Ok(None),
            Err(error) => Err(failed("looking at", &path)(error)),
        }
    }

    /// Makes every earlier creation, rename and removal durable.
    pub(super) fn sync(&self) -> Result<()> {
        self.step()
            .and_then(|()| self.handle.sync_all())
            .map_err(failed("syncing the directory", &self.path))
    }

    #[cfg(not(test))]
    fn step(&self) -> io::Result<()> {
        Ok(())
    }

    #[cfg(test)]
    fn step(&self) -> io::Result<()> {
        self.fuse.burn()
    }
}

/// Lets a number of steps pass and none after them, as a crash does.
#[cfg(test)]
#[derive(Debug)]
pub(super) struct Fuse(AtomicUsize);

#[cfg(test)]
impl Default for Fuse {
    fn default() -> Self {
        Self(AtomicUsize::new(usize::MAX))
    }
}

#[cfg(test)]
impl Fuse {
    pub(super) fn set(&self, steps: usize) {
        self.0.store(steps, Ordering::SeqCst);
    }

    fn burn(&self) -> io::Result<()> {
        self.0
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1))
            .map(drop)
            .map_err(|_| io::Error::other("crashed here, says the test"))
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true).create(true).mode(0o600);
    options
}

/// Tells what was being done to which file when the kernel said no.
pub(super) fn failed(action: &str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let context = format!("{action} {}", path.display());
    move |error| {
        let said = match error.kind() {
            IoKind::StorageFull | IoKind::QuotaExceeded => Error::new(
                ErrorKind::NoCapacity,
                "the array that holds the drive is full: try again after its operator made room",
            )
            .context(context),
            _ => Error::internal(context),
        };
        said.source(error)
    }
}
