//! Headers and entries of qcow2, versions 2 and 3, as QEMU's `docs/interop/qcow2.txt` says them.
//!
//! Pure, and no bytes make it panic. Snapshots inside of an image are passed over: what is read is
//! the disk's present state. Reference counts are not looked at, as reading needs none.

use super::layout::{Cluster, Entries, ImageError, Kind, Layout, field};

/// How such an image begins.
pub const MAGIC: [u8; 4] = *b"QFI\xfb";

/// What it is called.
pub(super) const NAME: &str = "qcow2";

/// The length of a header of version 2, and where one of version 3 goes on.
const SHORT: usize = 72;

/// The shortest header of version 3.
const LONG: usize = 104;

/// Features that a reader must know. A dirty one only has reference counts that are not true.
const DIRTY: u64 = 1;
const CORRUPT: u64 = 1 << 1;
const DATA_FILE: u64 = 1 << 2;
const COMPRESSION: u64 = 1 << 3;
const SUBCLUSTERS: u64 = 1 << 4;

/// Extensions of the header.
const END: u32 = 0;
const CRYPTO: u32 = 0x0537_be77;
const DATA_FILE_NAME: u32 = 0x4441_5441;

/// The bits of an entry that are an offset.
const OFFSET: u64 = 0x00ff_ffff_ffff_fe00;
const COPIED: u64 = 1 << 63;
const PACKED: u64 = 1 << 62;
const ZERO: u64 = 1;

const DAMAGED: fn(&'static str) -> ImageError = |what| ImageError::Damaged { format: NAME, what };
const NOT_TAKEN: fn(&'static str) -> ImageError =
    |what| ImageError::NotTaken { format: NAME, what };

/// What the header says of an image. `head` is the beginning of a source of `source` bytes, at most
/// [`HEAD`](super::layout::HEAD) of it.
///
/// # Errors
/// Why it is not taken. What names another file is told first.
pub fn parse(head: &[u8], source: u64) -> Result<Layout, ImageError> {
    if !head.starts_with(&MAGIC) {
        return Err(ImageError::NotOne { format: NAME, kind: Kind::of(head) });
    }
    let short = || DAMAGED("its header is cut off");
    let u32_at = |at| field(head, at).map(u32::from_be_bytes).ok_or_else(short);
    let u64_at = |at| field(head, at).map(u64::from_be_bytes).ok_or_else(short);
    let version = u32_at(4)?;
    if !matches!(version, 2 | 3) {
        return Err(NOT_TAKEN("a version that is neither 2 nor 3"));
    }
    let names_file = |what| Err(ImageError::NamesFile { format: NAME, what });
    if u64_at(8)? != 0 || u32_at(16)? != 0 {
        return names_file("its backing file");
    }
    let features = if version == 3 { u64_at(SHORT)? } else { 0 };
    if features & DATA_FILE != 0 {
        return names_file("its data file");
    }
    let cluster_bits = u32_at(20)?;
    if !(9..=21).contains(&cluster_bits) {
        return Err(DAMAGED("its clusters are of no length that clusters have"));
    }
    let length = if version == 3 { size(u32_at(100)?) } else { SHORT };
    let cluster = 1_usize << cluster_bits;
    if (version == 3 && length < LONG) || length > cluster || length % 8 != 0 {
        return Err(DAMAGED("its header is of no length that headers have"));
    }
    let first = head.get(..cluster.min(head.len())).unwrap_or(head);
    let extensions = Extensions { rest: first.get(length..).ok_or_else(short)? };
    for kind in extensions {
        match kind? {
            DATA_FILE_NAME => return names_file("its data file"),
            CRYPTO => return Err(ImageError::Encrypted(NAME)),
            _ => {}
        }
    }
    if u32_at(32)? != 0 {
        return Err(ImageError::Encrypted(NAME));
    }
    if features & CORRUPT != 0 {
        return Err(DAMAGED("it is marked as such"));
    }
    if features & SUBCLUSTERS != 0 {
        return Err(NOT_TAKEN("extended L2 entries"));
    }
    if features & COMPRESSION != 0 {
        return Err(NOT_TAKEN("another compression than deflate"));
    }
    if features & !DIRTY != 0 {
        return Err(NOT_TAKEN("a feature that is not known"));
    }
    let per_table = 1 << (cluster_bits - 3);
    let layout = Layout {
        size: u64_at(24)?,
        cluster: 1 << cluster_bits,
        top: u64_at(40)?,
        per_table,
        entries: Entries::Qcow2 { cluster_bits, zero_bit: version == 3 },
        source,
    }
    .checked()?;
    if u64::from(u32_at(36)?) < layout.tables() {
        return Err(DAMAGED("its table of tables is shorter than the disk needs"));
    }
    if layout.top % layout.cluster != 0 {
        return Err(DAMAGED("its table of tables does not begin where a cluster does"));
    }
    Ok(layout)
}

/// The kinds of the header's extensions.
struct Extensions<'a> {
    rest: &'a [u8],
}

impl Iterator for Extensions<'_> {
    type Item = Result<u32, ImageError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (kind, rest) = self.rest.split_first_chunk()?;
        let kind = u32::from_be_bytes(*kind);
        if kind == END {
            return None;
        }
        let after = rest.split_first_chunk().and_then(|(length, rest)| {
            rest.get(size(u32::from_be_bytes(*length)).checked_next_multiple_of(8)?..)
        });
        self.rest = after.unwrap_or_default();
        Some(match after {
            Some(_) => Ok(kind),
            None => Err(DAMAGED("an extension of its header is longer than its first cluster")),
        })
    }
}

/// Where the table is that an entry of the first level says; 0 for none.
pub(super) fn table(entry: u64, cluster_bits: u32) -> Result<u64, ImageError> {
    if entry & !(OFFSET | COPIED) != 0 {
        return Err(DAMAGED("an entry has bits that none has"));
    }
    aligned(entry & OFFSET, cluster_bits)
}

/// What an entry of the second level says.
pub(super) fn cluster(
    entry: u64,
    cluster_bits: u32,
    zero_bit: bool,
) -> Result<Cluster, ImageError> {
    if entry & PACKED != 0 {
        // Cluster sizes have 9 to 21 bits, so none of this leaves its range.
        let split = 62_u32.saturating_sub(cluster_bits.saturating_sub(8)).min(61);
        let at = entry & ((1 << split) - 1);
        let more = (entry & (PACKED - 1)) >> split;
        let length = (more + 1) * 512 - at % 512;
        return Ok(Cluster::Deflate { at, length });
    }
    let flags = if zero_bit { COPIED | ZERO } else { COPIED };
    if entry & !(OFFSET | flags) != 0 {
        return Err(DAMAGED("an entry has bits that none has"));
    }
    if zero_bit && entry & ZERO != 0 {
        return Ok(Cluster::Zeros);
    }
    match aligned(entry & OFFSET, cluster_bits)? {
        0 => Ok(Cluster::Zeros),
        at => Ok(Cluster::At(at)),
    }
}

fn aligned(at: u64, cluster_bits: u32) -> Result<u64, ImageError> {
    if at.trailing_zeros() < cluster_bits {
        return Err(DAMAGED("an entry points into the middle of a cluster"));
    }
    Ok(at)
}

fn size(length: u32) -> usize {
    usize::try_from(length).unwrap_or(usize::MAX)
}
