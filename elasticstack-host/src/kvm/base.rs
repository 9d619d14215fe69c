//! What all machines of one kernel begin from: opened once, so that a machine can be made anew by a process
//! that may open nothing.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use elasticstack_core::error::{Error, Result};
use kvm_ioctls::Kvm;

/// KVM, a kernel and its initial RAM disk.
#[derive(Debug)]
pub struct Base {
    pub(super) kvm: Kvm,
    pub(super) kernel: Opened,
    pub(super) initial_disk: Option<Opened>,
}

/// A file and its name.
#[derive(Debug)]
pub(super) struct Opened {
    pub file: File,
    pub path: PathBuf,
}

impl Base {
    /// Opens `/dev/kvm`, the kernel (a bzImage, or an ELF file with an entry for PVH) and its initial RAM disk.
    ///
    /// # Errors
    /// `Internal` if one can't be opened.
    pub fn open(kernel: &Path, initial_disk: Option<&Path>) -> Result<Self> {
        let kvm = Kvm::new()
            .map_err(|error| Error::internal("opening /dev/kvm").source(io::Error::from(error)))?;
        let initial_disk = initial_disk.map(Opened::open).transpose()?;
        Ok(Self { kvm, kernel: Opened::open(kernel)?, initial_disk })
    }
}

impl Opened {
    fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        match File::open(&path) {
            Ok(file) => Ok(Self { file, path }),
            Err(error) => Err(Error::internal(format!("opening {}", path.display())).source(error)),
        }
    }

    /// The same file, to be read from its begin.
    pub(super) fn again(&self) -> Result<File> {
        self.file.try_clone().map_err(self.failed("reading"))
    }

    pub(super) fn failed(&self, action: &str) -> impl FnOnce(io::Error) -> Error {
        let sentence = format!("{action} {}", self.path.display());
        move |error| Error::internal(sentence).source(error)
    }
}
