//! What the headers of disk images of two levels of tables come to: where the tables lie, and what
//! one entry of them means. And what images are: [`Kind`].
//!
//! Pure, and no bytes make it panic. A [`Layout`] is made by [`super::qcow2`] and [`super::vmdk`] of
//! an image that is whole in itself: one that names another file is refused there, before anything
//! else of it is looked at. Offsets that come out of here lie inside of the source.

use std::fmt;

use super::{qcow2, vmdk};

/// The most bytes of an image's beginning that its header may take: qcow2's largest cluster.
pub const HEAD: usize = 2 << 20;

/// The longest first-level table, as in QEMU.
pub(super) const TOP_LIMIT: u64 = 32 << 20;

/// A kind of disk image, as its first bytes tell it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// None that is known here: the bytes of a disk, or anything else.
    Raw,
    /// Packed by gzip.
    Gzip,
    /// QEMU's format, of any version.
    Qcow2,
    /// One sparse file of VMware's format.
    Vmdk,
    /// VMware's format too, of a kind that is more than one file or a host's own.
    VmdkOfFiles,
}

impl Kind {
    /// What begins with these bytes. Nothing is promised of what follows them.
    #[must_use]
    pub fn of(head: &[u8]) -> Self {
        let begins = |magic: &[u8]| head.starts_with(magic);
        if begins(&super::gunzip::MAGIC) {
            Self::Gzip
        } else if begins(&qcow2::MAGIC) {
            Self::Qcow2
        } else if begins(&vmdk::MAGIC) {
            Self::Vmdk
        } else if vmdk::OF_FILES.iter().any(|magic| begins(magic)) {
            Self::VmdkOfFiles
        } else {
            Self::Raw
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Raw => "no image that is known here",
            Self::Gzip => "gzip",
            Self::Qcow2 => qcow2::NAME,
            Self::Vmdk => vmdk::NAME,
            Self::VmdkOfFiles => "VMDK of several files",
        })
    }
}

/// Why an image is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// It begins otherwise.
    #[error("the source is not {format}: it begins as {kind}")]
    NotOne {
        /// What it should be.
        format: &'static str,
        /// What it is.
        kind: Kind,
    },
    /// Its bytes are partly in another file, or so it says.
    #[error(
        "the {format} image names another file ({what}), and only one that is whole in itself is \
         taken: flatten it with qemu-img convert and upload that"
    )]
    NamesFile {
        /// What it is.
        format: &'static str,
        /// As what it names one.
        what: &'static str,
    },
    /// Nobody here has its key.
    #[error("the {0} image is encrypted: convert it to one that is not and upload that")]
    Encrypted(&'static str),
    /// It is good perhaps, and not taken here.
    #[error(
        "the {format} image has {what}, which is not taken here: convert it with qemu-img convert \
         and upload that"
    )]
    NotTaken {
        /// What it is.
        format: &'static str,
        /// What it has.
        what: &'static str,
    },
    /// It says what can't be.
    #[error("the {format} image is damaged: {what}")]
    Damaged {
        /// What it is.
        format: &'static str,
        /// What is wrong.
        what: &'static str,
    },
    /// It points past the end of the source.
    #[error(
        "the {format} image is damaged or cut off: {what} at byte {at} lies outside of the source, \
         which has {size} bytes"
    )]
    Outside {
        /// What it is.
        format: &'static str,
        /// What should be there.
        what: &'static str,
        /// Where.
        at: u64,
        /// How much there is.
        size: u64,
    },
}

/// Where the parts of an image are: a table of tables of clusters, each as long as the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// The length of the disk that it is of, in bytes.
    pub size: u64,
    /// The length of a cluster in bytes: a power of two from 512 to 2 MiB.
    pub cluster: u64,
    /// Where the table of tables is; it holds [`Layout::tables`] entries.
    pub top: u64,
    /// How many clusters a table of clusters is about.
    pub per_table: u64,
    /// How entries are written.
    pub entries: Entries,
    /// How long the source is.
    pub source: u64,
}

/// How the entries of tables are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Entries {
    /// 64 bits, the highest byte first.
    Qcow2 {
        /// Clusters are of 2 to the power of this many bytes.
        cluster_bits: u32,
        /// Whether a bit says that a cluster is of zeros.
        zero_bit: bool,
    },
    /// 32 bits, the lowest byte first, in sectors of 512 bytes.
    Vmdk {
        /// Whether 1 says that a cluster is of zeros.
        zero_entry: bool,
        /// Whether clusters are packed.
        packed: bool,
    },
}

/// What an entry says of a cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cluster {
    /// It is of zeros.
    Zeros,
    /// Its bytes are here.
    At(u64),
    /// Its bytes are packed by deflate (RFC 1951), here, in at most `length` bytes.
    Deflate {
        /// Where they begin.
        at: u64,
        /// How many they are at most.
        length: u64,
    },
    /// A marker is here, and behind it the cluster, packed by zlib (RFC 1950).
    Grain(u64),
}

impl Layout {
    /// What it is called.
    #[must_use]
    pub const fn format(&self) -> &'static str {
        match self.entries {
            Entries::Qcow2 { .. } => qcow2::NAME,
            Entries::Vmdk { .. } => vmdk::NAME,
        }
    }

    /// How many bytes of the disk one table of clusters is about.
    #[must_use]
    pub const fn span(&self) -> u64 {
        self.cluster.saturating_mul(self.per_table)
    }

    /// How many tables of clusters there are.
    #[must_use]
    pub fn tables(&self) -> u64 {
        self.size.div_ceil(self.span().max(1))
    }

    /// The length of an entry in bytes.
    #[must_use]
    pub const fn entry(&self) -> u64 {
        match self.entries {
            Entries::Qcow2 { .. } => 8,
            Entries::Vmdk { .. } => 4,
        }
    }

    /// Where the table of clusters is that an entry of the table of tables says; `None` if all of
    /// them are zeros.
    ///
    /// # Errors
    /// `Damaged`, `Outside`.
    pub fn table(&self, entry: &[u8]) -> Result<Option<u64>, ImageError> {
        let at = match self.entries {
            Entries::Qcow2 { cluster_bits, .. } => qcow2::table(be(entry), cluster_bits)?,
            Entries::Vmdk { .. } => vmdk::at(le(entry)),
        };
        match at {
            0 => Ok(None),
            at => self.inside("a table", at, self.per_table * self.entry()).map(Some),
        }
    }

    /// What an entry says of a cluster, of which `length` bytes are of the disk.
    ///
    /// # Errors
    /// `Damaged`, `Outside`.
    pub fn cluster(&self, entry: &[u8], length: u64) -> Result<Cluster, ImageError> {
        let cluster = match self.entries {
            Entries::Qcow2 { cluster_bits, zero_bit } => {
                qcow2::cluster(be(entry), cluster_bits, zero_bit)?
            }
            Entries::Vmdk { zero_entry, packed } => vmdk::cluster(le(entry), zero_entry, packed),
        };
        match cluster {
            Cluster::Zeros => {}
            Cluster::At(at) => _ = self.inside("a cluster", at, length)?,
            Cluster::Grain(at) => _ = self.inside("a cluster", at, vmdk::MARKER)?,
            Cluster::Deflate { at, length } => {
                // It is rounded up to sectors, which the last one need not fill.
                self.inside("a cluster", at, 1)?;
                let length = length.min(self.source.saturating_sub(at));
                return Ok(Cluster::Deflate { at, length });
            }
        }
        Ok(cluster)
    }

    /// `at`, if as much as that lies in the source from there on.
    pub(super) fn inside(
        &self,
        what: &'static str,
        at: u64,
        length: u64,
    ) -> Result<u64, ImageError> {
        match at.checked_add(length) {
            Some(end) if end <= self.source => Ok(at),
            _ => Err(ImageError::Outside { format: self.format(), what, at, size: self.source }),
        }
    }

    /// This layout, if it can be one at all.
    pub(super) fn checked(self) -> Result<Self, ImageError> {
        let format = self.format();
        if i64::try_from(self.size).is_err() {
            return Err(ImageError::Damaged { format, what: "no disk is as large as it says" });
        }
        let length = self.tables().saturating_mul(self.entry());
        if length > TOP_LIMIT {
            return Err(ImageError::Damaged { format, what: "its table of tables is too long" });
        }
        self.inside("the table of tables", self.top, length)?;
        Ok(self)
    }
}

/// The bytes from `at` on, of which there are so many.
pub(super) fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

fn be(entry: &[u8]) -> u64 {
    entry.first_chunk().map_or(0, |entry| u64::from_be_bytes(*entry))
}

fn le(entry: &[u8]) -> u32 {
    entry.first_chunk().map_or(0, |entry| u32::from_le_bytes(*entry))
}
