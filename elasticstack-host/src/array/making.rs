//! Arrays that are being made, in files of the agent's state: by what UUIDs each is to be known, written down
//! before the first byte on its disks. Whoever makes it again after a crash goes on with what bears them, and
//! with nothing else.

use std::fs::{self, File};
use std::io::{ErrorKind as IoKind, Write as _};
use std::path::{Path, PathBuf};

use elasticstack_core::prelude::*;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::integrity::Integrity;
use super::made::MadeArray;
use super::order::{ArrayName, Creation};

/// An array that is being made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Making {
    pub(super) array: ArrayId,
    pub(super) path: PathBuf,
    md: Uuid,
    filesystem: Uuid,
    integrity: Option<Integrity>,
    /// Its file system is whole. Before, nobody has put anything on it; afterwards somebody may have.
    pub(super) is_formatted: bool,
}

impl Making {
    /// A new one, with ids of its own.
    pub(super) fn new(creation: &Creation) -> Self {
        let MadeArray { md, filesystem, integrity } = MadeArray::new(creation.integrity);
        let (array, path) = (ArrayId::from_uuid(Uuid::now_v7()), creation.path.clone());
        Self { array, path, md, filesystem, integrity, is_formatted: false }
    }

    pub(super) const fn made(&self) -> MadeArray {
        MadeArray { md: self.md, filesystem: self.filesystem, integrity: self.integrity }
    }
}

/// The files, in a directory of their own.
#[derive(Debug)]
pub(super) struct Makings {
    directory: PathBuf,
}

impl Makings {
    /// Those below the agent's state.
    pub(super) fn of(state: &Path) -> Self {
        Self { directory: state.join("making") }
    }

    /// What was written down of the array, if anything.
    ///
    /// # Errors
    /// `Internal` if it can't be read.
    pub(super) fn find(&self, name: &ArrayName) -> Result<Option<Making>> {
        let path = self.path(name);
        let read = match fs::read(&path) {
            Err(error) if error.kind() == IoKind::NotFound => return Ok(None),
            read => read.and_then(|json| Ok(serde_json::from_slice(&json)?)),
        };
        read.map(Some).map_err(failed("reading", &path))
    }

    /// Writes it down; it survives a crash when this returns.
    ///
    /// # Errors
    /// `Internal` if it can't be written.
    pub(super) fn keep(&self, name: &ArrayName, making: &Making) -> Result<()> {
        let path = self.path(name);
        let write = || {
            fs::create_dir_all(&self.directory)?;
            let scratch = path.with_extension("json.new");
            let mut file = File::create(&scratch)?;
            file.write_all(&serde_json::to_vec(making)?)?;
            file.sync_all()?;
            fs::rename(&scratch, &path)?;
            self.sync()
        };
        write().map_err(failed("writing", &path))
    }

    /// Forgets it, as the array is in the configuration.
    ///
    /// # Errors
    /// `Internal` if it can't be removed.
    pub(super) fn forget(&self, name: &ArrayName) -> Result<()> {
        let path = self.path(name);
        match fs::remove_file(&path).and_then(|()| self.sync()) {
            Err(error) if error.kind() != IoKind::NotFound => Err(failed("removing", &path)(error)),
            _ => Ok(()),
        }
    }

    fn path(&self, name: &ArrayName) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    fn sync(&self) -> std::io::Result<()> {
        File::open(&self.directory)?.sync_all()?;
        self.directory.parent().map_or(Ok(()), |above| File::open(above)?.sync_all())
    }
}

fn failed(action: &str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
    let what = format!("{action} {}", path.display());
    move |error| Error::internal(what).source(error)
}

#[cfg(test)]
mod tests {
    use super::super::plan::Level;
    use super::*;

    #[test]
    fn what_is_being_made_is_known_until_it_is_forgotten() {
        let directory = tempfile::tempdir().unwrap();
        let makings = Makings::of(directory.path());
        let fast: ArrayName = "fast".parse().unwrap();
        let creation = Creation {
            name: fast.clone(),
            level: Level::Raid1,
            disks: Vec::new(),
            spares: Vec::new(),
            integrity: Some(Integrity::Crc32c),
            path: "/srv/fast".into(),
        };
        assert_eq!(makings.find(&fast).unwrap(), None);
        makings.forget(&fast).unwrap();
        let mut making = Making::new(&creation);
        for is_formatted in [false, true] {
            making.is_formatted = is_formatted;
            makings.keep(&fast, &making).unwrap();
            assert_eq!(makings.find(&fast).unwrap().as_ref(), Some(&making));
            assert_eq!(makings.find(&"slow".parse().unwrap()).unwrap(), None);
        }
        makings.forget(&fast).unwrap();
        assert_eq!(makings.find(&fast).unwrap(), None);
        fs::write(directory.path().join("making/fast.json"), "{").unwrap();
        makings.find(&fast).unwrap_err();
    }
}
