//! Headers, descriptors and entries of VMDK: the kinds that are one sparse file, `monolithicSparse`
//! and `streamOptimized`, as VMware's *Virtual Disk Format 5.0* says them.
//!
//! Pure, and no bytes make it panic. A descriptor that names a parent, or any extent but the one that
//! it is in, is refused; the name of that one is not looked up, it is only looked at.

use super::layout::{Cluster, Entries, HEAD, ImageError, Kind, Layout, field};

/// How such an image begins.
pub const MAGIC: [u8; 4] = *b"KDMV";

/// How others of the format begin: descriptors of files, and a host's own sparse files.
pub(super) const OF_FILES: [&[u8]; 3] =
    [b"# Disk DescriptorFile", b"COWD", &0xcafe_babe_u64.to_le_bytes()];

/// What it is called.
pub(super) const NAME: &str = "VMDK";

/// The length of a header, and of a footer.
pub(super) const SECTOR: u64 = 512;

/// The length of what stands before a packed cluster.
pub(super) const MARKER: u64 = 12;

const PER_TABLE: u32 = 512;
const NEWLINES: [u8; 4] = *b"\n \r\n";
const IN_FOOTER: u64 = u64::MAX;

/// Flags.
const HAS_NEWLINES: u32 = 1;
const HAS_ZEROS: u32 = 1 << 2;
const PACKED: u32 = 1 << 16;
const MARKERS: u32 = 1 << 17;

const DAMAGED: fn(&'static str) -> ImageError = |what| ImageError::Damaged { format: NAME, what };
const NOT_TAKEN: fn(&'static str) -> ImageError =
    |what| ImageError::NotTaken { format: NAME, what };

/// What a header says of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Header {
    /// All.
    Whole(Layout),
    /// All but where its tables are, which [`finish`] reads from the footer.
    WithFooter,
}

/// What the header and the descriptor behind it say of an image. `head` is the beginning of a source
/// of `source` bytes, [`HEAD`] of it at most.
///
/// # Errors
/// Why it is not taken. What names another file is told first.
pub fn parse(head: &[u8], source: u64) -> Result<Header, ImageError> {
    let raw = Raw::read(head)?;
    check_descriptor(raw.descriptor(head)?, raw.capacity)?;
    if raw.directory == IN_FOOTER {
        return Ok(Header::WithFooter);
    }
    raw.layout(source).map(Header::Whole)
}

/// What the footer says of an image whose header says that it has one.
///
/// # Errors
/// Why it is not taken.
pub fn finish(head: &[u8], footer: &[u8], source: u64) -> Result<Layout, ImageError> {
    let cut_off = || DAMAGED("it does not end in a footer: upload all of it");
    let (header, footer) = (Raw::read(head)?, Raw::read(footer).map_err(|_| cut_off())?);
    let disk = |raw: &Raw| (raw.flags, raw.capacity, raw.grain);
    if footer.directory == IN_FOOTER || disk(&header) != disk(&footer) {
        return Err(cut_off());
    }
    footer.layout(source)
}

/// A header's fields.
struct Raw {
    flags: u32,
    /// In sectors, as all that follows.
    capacity: u64,
    grain: u64,
    descriptor: u64,
    descriptor_length: u64,
    directory: u64,
}

impl Raw {
    fn read(head: &[u8]) -> Result<Self, ImageError> {
        if OF_FILES.iter().any(|magic| head.starts_with(magic)) {
            let what = "its extents are files of their own";
            return Err(ImageError::NamesFile { format: NAME, what });
        }
        if !head.starts_with(&MAGIC) {
            return Err(ImageError::NotOne { format: NAME, kind: Kind::of(head) });
        }
        let short = || DAMAGED("its header is cut off");
        let u32_at = |at| field(head, at).map(u32::from_le_bytes).ok_or_else(short);
        let u64_at = |at| field(head, at).map(u64::from_le_bytes).ok_or_else(short);
        if !matches!(u32_at(4)?, 1..=3) {
            return Err(NOT_TAKEN("a version that is not from 1 to 3"));
        }
        let flags = u32_at(8)?;
        if flags & HAS_NEWLINES != 0 && field(head, 73) != Some(NEWLINES) {
            return Err(DAMAGED("its bytes were changed on the way, as if they were text"));
        }
        let packing: [u8; 2] = field(head, 77).ok_or_else(short)?;
        match (flags & (PACKED | MARKERS), u16::from_le_bytes(packing)) {
            (0, 0) => {}
            (flags, 1) if flags == PACKED | MARKERS => {}
            _ => return Err(NOT_TAKEN("a way of packing that is not known")),
        }
        if u32_at(44)? != PER_TABLE {
            return Err(DAMAGED("its tables are of no length that tables have"));
        }
        let grain = u64_at(20)?;
        if !grain.is_power_of_two() || !(8..=4096).contains(&grain) {
            return Err(DAMAGED("its grains are of no length that grains have"));
        }
        Ok(Self {
            flags,
            capacity: u64_at(12)?,
            grain,
            descriptor: u64_at(28)?,
            descriptor_length: u64_at(36)?,
            directory: u64_at(56)?,
        })
    }

    /// The descriptor, which stands behind the header.
    fn descriptor<'a>(&self, head: &'a [u8]) -> Result<&'a [u8], ImageError> {
        if self.descriptor == 0 || self.descriptor_length == 0 {
            let what = "it is one extent of several";
            return Err(ImageError::NamesFile { format: NAME, what });
        }
        let too_far = || DAMAGED("its descriptor is not behind its header");
        let place = |sectors: u64| {
            let bytes = usize::try_from(sectors.checked_mul(SECTOR)?).ok()?;
            (bytes <= HEAD).then_some(bytes)
        };
        let start = place(self.descriptor).ok_or_else(too_far)?;
        let length = place(self.descriptor_length).ok_or_else(too_far)?;
        head.get(start..start + length).ok_or_else(too_far)
    }

    fn layout(&self, source: u64) -> Result<Layout, ImageError> {
        let too_far = || DAMAGED("no disk is as large as it says");
        Layout {
            size: self.capacity.checked_mul(SECTOR).ok_or_else(too_far)?,
            cluster: self.grain.saturating_mul(SECTOR),
            top: self.directory.checked_mul(SECTOR).ok_or_else(too_far)?,
            per_table: u64::from(PER_TABLE),
            entries: Entries::Vmdk {
                zero_entry: self.flags & HAS_ZEROS != 0,
                packed: self.flags & PACKED != 0,
            },
            source,
        }
        .checked()
    }
}

/// Refuses a descriptor of anything but the file that it is in, with so many sectors of a disk.
fn check_descriptor(bytes: &[u8], capacity: u64) -> Result<(), ImageError> {
    let names_file = |what| Err(ImageError::NamesFile { format: NAME, what });
    let text = bytes.split(|byte| *byte == 0).next().unwrap_or_default();
    let mut extents = 0_u32;
    let mut kind = None;
    for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
        // A name may be in any of the many codes of a Windows: only ASCII matters here.
        let line = String::from_utf8_lossy(line);
        let line = line.trim();
        if line.starts_with('#') {
            continue;
        }
        let mut words = line.split_ascii_whitespace();
        if matches!(words.next(), Some("RW" | "RDONLY" | "NOACCESS")) {
            extents = extents.saturating_add(1);
            let (sectors, sparse) = (words.next(), words.next() == Some("SPARSE"));
            let name = line.splitn(4, char::is_whitespace).nth(3).unwrap_or_default();
            if extents > 1 || !sparse || name.contains(['/', '\\']) {
                return names_file("an extent that is another file");
            }
            if sectors.and_then(|sectors| sectors.parse().ok()) != Some(capacity) {
                return Err(DAMAGED("its header and its descriptor tell two sizes"));
            }
            continue;
        }
        let Some((key, value)) = line.split_once('=') else { continue };
        let value = value.trim().trim_matches('"');
        let key = key.trim().to_ascii_lowercase();
        match key.as_str() {
            "parentfilenamehint" => return names_file("its parent"),
            "parentcid" if !value.eq_ignore_ascii_case("ffffffff") => {
                return names_file("its parent");
            }
            "createtype" => kind = Some(value.to_ascii_lowercase()),
            _ => {}
        }
    }
    match kind.as_deref() {
        Some("monolithicsparse" | "streamoptimized") if extents == 1 => Ok(()),
        Some("monolithicsparse" | "streamoptimized") => {
            Err(DAMAGED("its descriptor tells of no extent"))
        }
        Some(_) => names_file("its extents are files of their own"),
        None => Err(DAMAGED("its descriptor does not tell what it is of")),
    }
}

/// Where an entry points.
pub(super) fn at(sector: u32) -> u64 {
    u64::from(sector) * SECTOR
}

/// What an entry of the second level says.
pub(super) fn cluster(entry: u32, zero_entry: bool, packed: bool) -> Cluster {
    match entry {
        0 => Cluster::Zeros,
        1 if zero_entry => Cluster::Zeros,
        _ if packed => Cluster::Grain(at(entry)),
        _ => Cluster::At(at(entry)),
    }
}

/// How long the packed cluster behind a marker is, if it is the one that begins at this byte of the
/// disk and can be that long.
pub(super) fn marked(marker: [u8; 12], position: u64, cluster: u64) -> Result<u64, ImageError> {
    let sector = field(&marker, 0).map_or(0, u64::from_le_bytes);
    let length = u64::from(field(&marker, 8).map_or(0, u32::from_le_bytes));
    if sector.checked_mul(SECTOR) != Some(position) {
        return Err(DAMAGED("a grain is of another place than its entry"));
    }
    if length == 0 || length > cluster.saturating_mul(2) {
        return Err(DAMAGED("a grain is of no length that grains have"));
    }
    Ok(length)
}
