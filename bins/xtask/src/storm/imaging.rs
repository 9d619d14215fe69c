//! Imaging under the storm: what is copied, how far a copy is, and whether one that ended is whole.
//! All of it is judged by the bytes of the drives' files.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result, ensure};
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;
use flate2::read::{GzDecoder, GzEncoder};

use super::customer::Customer;
use super::dice::Dice;
use super::guests::made;
use super::platform::Site;

const MIB: usize = 1 << 20;
/// What is copied, in bytes: random, with a hole.
const PAYLOAD: usize = 24 * MIB;
const HOLE: std::ops::Range<usize> = 8 * MIB..12 * MIB;
/// The size of every target: the payload, packed, is a little longer than it is.
pub(crate) const TARGET: u64 = 28 << 20;
/// What of the packed payload, some 20 MiB, is zeroed to spoil it.
const SPOILT: std::ops::Range<usize> = 16 * MIB..17 * MIB;
const PART: usize = 64 << 10;

/// How the bytes change on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Conversion {
    /// A clone.
    Plain,
    Gunzip,
    Gzip,
    /// What can't end well: the source is spoilt towards its end.
    GunzipSpoilt,
}

impl Conversion {
    pub(crate) const ALL: [Self; 4] = [Self::Plain, Self::Gunzip, Self::Gzip, Self::GunzipSpoilt];

    pub(crate) const fn call(self) -> Call {
        match self {
            Self::Plain => Call::DriveImage,
            Self::Gunzip | Self::GunzipSpoilt => Call::DriveImageGunzip,
            Self::Gzip => Call::DriveImageGzip,
        }
    }
}

/// The drives that are imaged from, and the bytes that they hold.
#[derive(Debug, Clone)]
pub(crate) struct Sources {
    plain: String,
    packed: String,
    spoilt: String,
    payload: Arc<Vec<u8>>,
}

impl Sources {
    /// Makes and fills them.
    pub(crate) async fn prepare(customer: &Customer, dice: &mut Dice) -> Result<Self> {
        let mut payload = dice.bytes(PAYLOAD);
        payload.get_mut(HOLE).context("the hole lies in the payload")?.fill(0);
        let mut packed = Vec::new();
        GzEncoder::new(payload.as_slice(), flate2::Compression::fast()).read_to_end(&mut packed)?;
        let plain_drive = customer.first_drive("source-plain", u64::try_from(PAYLOAD)?).await?;
        customer.write(&plain_drive, payload.clone()).await?;
        let size = u64::try_from(packed.len())?;
        let packed_drive = made(customer.create_drive("source-packed", size).await?)?;
        customer.write(&packed_drive, packed.clone()).await?;
        let spoilt_drive = made(customer.create_drive("source-spoilt", size).await?)?;
        packed.get_mut(SPOILT).context("the packed payload is that long")?.fill(0);
        customer.write(&spoilt_drive, packed).await?;
        Ok(Self {
            plain: plain_drive,
            packed: packed_drive,
            spoilt: spoilt_drive,
            payload: Arc::new(payload),
        })
    }

    /// The drive to image from.
    pub(crate) fn of(&self, conversion: Conversion) -> &str {
        match conversion {
            Conversion::Plain | Conversion::Gzip => &self.plain,
            Conversion::Gunzip => &self.packed,
            Conversion::GunzipSpoilt => &self.spoilt,
        }
    }
}

/// An image that was asked for.
#[derive(Debug, Clone)]
pub(crate) struct Copy {
    file: PathBuf,
    conversion: Conversion,
    payload: Arc<Vec<u8>>,
}

/// What became of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The target holds exactly the source's bytes.
    Whole,
    /// It failed with a reason, as it had to.
    Failed,
    /// It was never begun; only if its answer was lost.
    Untouched,
}

impl Copy {
    pub(crate) fn new(site: &Site, target: &str, conversion: Conversion, from: &Sources) -> Self {
        Self { file: site.raw(target), conversion, payload: Arc::clone(&from.payload) }
    }

    /// Whether the target has some of the bytes and not all: proof that work on it goes on, or did
    /// until a moment ago.
    pub(crate) fn is_partial(&self) -> Result<bool> {
        Ok(self.is_begun() && !self.is_whole()?)
    }

    /// Whether anything was written to the target, which began as a hole.
    pub(crate) fn is_begun(&self) -> bool {
        fs::metadata(&self.file).is_ok_and(|target| target.blocks() > 0)
    }

    fn is_whole(&self) -> Result<bool> {
        let target = match File::open(&self.file) {
            // Its host has not heard of it yet.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            target => target.context("open a target")?,
        };
        match self.conversion {
            Conversion::Plain | Conversion::Gunzip => {
                // The end first: a copy in the making is told by 64 KiB.
                let (head, tail) = self.payload.split_at(PAYLOAD - PART);
                let mut part = vec![0; PART];
                target.read_exact_at(&mut part, u64::try_from(PAYLOAD - PART)?)?;
                if part != tail {
                    return Ok(false);
                }
                let mut all = Vec::new();
                (&target).read_to_end(&mut all)?;
                Ok(all.starts_with(head) && all[PAYLOAD..].iter().all(|&byte| byte == 0))
            }
            Conversion::Gzip => {
                let mut unpacked = Vec::new();
                let read = GzDecoder::new(target).read_to_end(&mut unpacked);
                Ok(read.is_ok() && unpacked == *self.payload)
            }
            Conversion::GunzipSpoilt => Ok(false),
        }
    }

    /// Judges what became of it, once `target` says that no imaging goes on. `acknowledged` is
    /// whether the product said that it had taken it in.
    pub(crate) fn judge(&self, target: &Record, acknowledged: Acknowledged) -> Result<Outcome> {
        let file = self.file.display();
        ensure!(target.value("imaging").is_none(), "{file} is being imaged still");
        ensure!(target.value("claimed").is_none(), "{file} is claimed though its job is over");
        if let Some(reason) = target.value("failed") {
            ensure!(is_readable(reason), "the reason is no sentence: {reason:?}");
            ensure!(
                self.conversion == Conversion::GunzipSpoilt,
                "{file} ({:?}) failed for no fault of its source: {reason}",
                self.conversion
            );
            return Ok(Outcome::Failed);
        }
        if self.is_whole()? {
            return Ok(Outcome::Whole);
        }
        let begun = self.is_begun();
        ensure!(
            !begun && acknowledged == Acknowledged::No,
            "{file} ({:?}) is neither whole nor failed: begun {begun}, acknowledged {acknowledged:?}",
            self.conversion
        );
        Ok(Outcome::Untouched)
    }
}

/// Whether the product said that it had taken a wish in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Acknowledged {
    Yes,
    No,
}

/// Whether a reason is a sentence for people.
pub(crate) fn is_readable(reason: &str) -> bool {
    reason.len() > 12 && reason.contains(' ') && !reason.contains('\n')
}

/// The copy that goes on now, for whoever wants to kill in the midst of it.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<Option<Copy>>);

impl Board {
    pub(crate) fn put(&self, copy: Option<Copy>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = copy;
    }

    pub(crate) fn copy(&self) -> Option<Copy> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
