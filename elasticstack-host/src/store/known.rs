//! The arrays that this host has ever opened, by their directories, in a file of the agent's state.
//!
//! So a directory that lost its label, such as a mount point without its disk, is known to be an
//! array that is not there, and is not taken for a new one. The label on the array says which array
//! it is; what stands here only says that one was there.

use std::collections::BTreeMap;
use std::io::ErrorKind as IoKind;
use std::path::{Path, PathBuf};

use elasticstack_core::prelude::*;

use super::array::DirectoryArray;
use super::directory::{Directory, failed};

/// The file's name in the agent's state.
const FILE: &str = "arrays.json";

/// Which arrays this host has had, and where.
#[derive(Debug)]
pub struct KnownArrays {
    state: Directory,
    arrays: BTreeMap<PathBuf, ArrayId>,
}

impl KnownArrays {
    /// What is remembered in the directory `state`, which is made if it is absent.
    ///
    /// # Errors
    /// `Internal` if it can't be read: to guess could make a new array of an old one's mount point.
    pub fn read(state: &Path) -> Result<Self> {
        let state = Directory::open(state)?;
        let path = state.path().join(FILE);
        let arrays = match std::fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|error| {
                Error::internal(format!("reading {}", path.display())).source(error)
            })?,
            Err(error) if error.kind() == IoKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(failed("reading", &path)(error)),
        };
        Ok(Self { state, arrays })
    }

    /// The array that the directory at `path` is labelled as, or, if its label is not there or
    /// can't be read, the one it last was; `None` for a new directory.
    ///
    /// # Errors
    /// `Internal` if there is a label that can't be read and no array is known to have been there.
    pub fn identify(&self, path: &Path) -> Result<Option<ArrayId>> {
        match DirectoryArray::label(path) {
            Ok(Some(array)) => Ok(Some(array)),
            Ok(None) => Ok(self.arrays.get(path).copied()),
            Err(error) => self.arrays.get(path).copied().map(Some).ok_or(error),
        }
    }

    /// Whether this array was ever opened here.
    pub(super) fn contains(&self, array: ArrayId) -> bool {
        self.arrays.values().any(|known| *known == array)
    }

    /// Remembers, durably, that the directory is this array.
    ///
    /// # Errors
    /// `Internal` if it can't be written.
    pub fn remember(&mut self, path: &Path, array: ArrayId) -> Result<()> {
        if self.arrays.insert(path.to_owned(), array) == Some(array) {
            return Ok(());
        }
        let json = serde_json::to_vec(&self.arrays)
            .map_err(|error| Error::internal("writing the known arrays").source(error))?;
        self.state.replace(FILE, &format!("{FILE}.new"), &json)
    }
}
