//! Disks that arrays are made of: finding the one that is meant, and what it holds.
//!
//! Invariants: a disk is found by its serial number only if no other has it; what is in use is never
//! handed out, by whatever name; nothing here writes.

use std::fmt;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt as _, FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::str::FromStr;

use elasticstack_core::prelude::*;
use rustix::fs::{OFlags, major, minor};
use serde::Deserialize;

use super::looking_at;
use super::tool::run;

/// How much of each end of a disk must be zeros for it to be taken as empty: labels of partitions,
/// file systems and arrays are there.
const END: u64 = 1 << 20;

/// How an operator names a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DiskName {
    /// By the serial number that stands on it. Nobody types another disk's by mistake, so what such a
    /// disk holds may be overwritten.
    Serial(String),
    /// By a path, such as `/dev/sdb`. What that is may change with each boot, so it must be empty.
    Path(PathBuf),
}

impl FromStr for DiskName {
    type Err = Error;

    /// A path if it begins with a slash, else a serial number.
    fn from_str(text: &str) -> Result<Self> {
        if text.is_empty() || text.chars().any(char::is_control) {
            let sentence = format!("{text:?} names no disk: give its serial number or its path");
            return Err(Error::new(ErrorKind::InvalidValue, sentence).field("disk"));
        }
        Ok(if text.starts_with('/') {
            Self::Path(text.into())
        } else {
            Self::Serial(text.to_owned())
        })
    }
}

impl fmt::Display for DiskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Serial(serial) => f.write_str(serial),
            Self::Path(path) => write!(f, "{}", path.display()),
        }
    }
}

/// A whole disk of this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// Its directory below `/sys`.
    sysfs: PathBuf,
    /// Such as `/dev/sdb`, until the next boot.
    pub device: PathBuf,
    /// Its serial number, if it tells one.
    pub serial: Option<String>,
    /// How large it is.
    pub size: Bytes,
}

/// What is on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Holding {
    /// Nothing that shows at either end of it.
    Nothing,
    /// Things of these types, in words of `wipefs`: `xfs`, `gpt`, `linux_raid_member`.
    Types(Vec<String>),
    /// Bytes that no tool here knows the meaning of.
    Bytes,
}

impl fmt::Display for Holding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("nothing"),
            Self::Types(types) => f.write_str(&types.join(", ")),
            Self::Bytes => f.write_str("bytes of no known kind"),
        }
    }
}

impl Disk {
    /// All disks of this machine that can be told apart from others: what has a size and is not made of
    /// other devices.
    ///
    /// # Errors
    /// `Internal` if `/sys` can't be read.
    pub fn all() -> Result<Vec<Self>> {
        let entries = fs::read_dir("/sys/block").map_err(looking_at(Path::new("/sys/block")))?;
        let mut disks = Vec::new();
        for entry in entries.flatten() {
            let sysfs = fs::canonicalize(entry.path()).map_err(looking_at(&entry.path()))?;
            if sysfs.starts_with("/sys/devices/virtual") {
                continue;
            }
            disks.extend(Self::at(sysfs).filter(|disk| disk.size > Bytes::ZERO));
        }
        disks.sort_by(|one, other| one.device.cmp(&other.device));
        Ok(disks)
    }

    /// The disk that is meant.
    ///
    /// # Errors
    /// `NotFound` if there is none; `InvalidValue` if several have the serial number, or the path is
    /// not that of a whole disk; `Internal` if `/sys` can't be read.
    pub fn find(name: &DiskName) -> Result<Self> {
        match name {
            DiskName::Serial(serial) => {
                let mut disks = Self::all()?;
                disks.retain(|disk| disk.serial.as_deref() == Some(serial.as_str()));
                match (disks.pop(), disks.is_empty()) {
                    (Some(disk), true) => Ok(disk),
                    (Some(_), false) => Err(refused(format!(
                        "more than one disk has the serial number {serial}: name it by its path"
                    ))),
                    (None, _) => Err(not_found(format!(
                        "no disk has the serial number {serial}: `array disks` lists them"
                    ))),
                }
            }
            DiskName::Path(path) => {
                let metadata = fs::metadata(path).map_err(|error| {
                    not_found(format!("{} is not there", path.display())).source(error)
                })?;
                let not_whole = || refused(format!("{} is not a whole disk", path.display()));
                if !metadata.file_type().is_block_device() {
                    return Err(not_whole());
                }
                let number = metadata.rdev();
                let link = format!("/sys/dev/block/{}:{}", major(number), minor(number));
                let sysfs = fs::canonicalize(&link).map_err(looking_at(Path::new(&link)))?;
                if sysfs.join("partition").exists() {
                    return Err(not_whole());
                }
                Self::at(sysfs).ok_or_else(not_whole)
            }
        }
    }

    fn at(sysfs: PathBuf) -> Option<Self> {
        let name = sysfs.file_name()?.to_str()?.replace('!', "/");
        let sectors: u64 = fs::read_to_string(sysfs.join("size")).ok()?.trim().parse().ok()?;
        let size = Bytes::try_from(sectors.checked_mul(512)?).ok()?;
        Some(Self { device: Path::new("/dev").join(name), serial: serial(&sysfs), size, sysfs })
    }

    /// The devices that are made of it, by their names.
    pub(super) fn holders(&self) -> Vec<String> {
        names_in(&self.sysfs.join("holders"))
    }

    /// Refuses a disk that anything on this machine uses: a file system, an array, a partition of it
    /// in use.
    ///
    /// # Errors
    /// `InvalidValue`, with who uses it if that shows; `Internal` if it can't be opened.
    pub fn check_unused(&self) -> Result<()> {
        let mut users = self.holders();
        for part in names_in(&self.sysfs) {
            users.extend(names_in(&self.sysfs.join(part).join("holders")));
        }
        if !users.is_empty() {
            let (device, users) = (self.device.display(), users.join(", "));
            return Err(refused(format!("{device} is in use by {users}: stop that first")));
        }
        let exclusive = i32::try_from(OFlags::EXCL.bits())
            .map_err(|error| Error::internal("opening a disk alone").source(error))?;
        match OpenOptions::new().read(true).custom_flags(exclusive).open(&self.device) {
            Ok(_) => Ok(()),
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::BUSY.raw_os_error()) => {
                let device = self.device.display();
                Err(refused(format!("{device} is in use: is a file system of it mounted?")))
            }
            Err(error) => Err(looking_at(&self.device)(error)),
        }
    }

    /// What the disk holds.
    ///
    /// # Errors
    /// `Internal` if it can't be read.
    pub fn holding(&self) -> Result<Holding> {
        let listed = run(Command::new("wipefs").args(["--no-act", "--json"]).arg(&self.device))?;
        let types = signatures(&listed)?;
        if !types.is_empty() {
            return Ok(Holding::Types(types));
        }
        let file = File::open(&self.device).map_err(looking_at(&self.device))?;
        let size = self.size.get();
        for start in [0, size.saturating_sub(END)] {
            let mut bytes = vec![0; usize::try_from(END.min(size)).unwrap_or(usize::MAX)];
            file.read_exact_at(&mut bytes, start).map_err(looking_at(&self.device))?;
            if bytes.iter().any(|byte| *byte != 0) {
                return Ok(Holding::Bytes);
            }
        }
        Ok(Holding::Nothing)
    }
}

/// The serial number that a disk tells, where its kind of driver has it, or the one disk that a device
/// is made of.
pub(super) fn serial(sysfs: &Path) -> Option<String> {
    if let [disk] = &names_in(&sysfs.join("slaves"))[..] {
        return serial(&fs::canonicalize(sysfs.join("slaves").join(disk)).ok()?);
    }
    let in_text = |path: PathBuf| {
        let text = fs::read_to_string(path).ok()?;
        Some(text.trim().to_owned()).filter(|serial| !serial.is_empty())
    };
    let scsi = || serial_of_vpd(&fs::read(sysfs.join("device/vpd_pg80")).ok()?);
    // virtio; NVMe; SCSI and what speaks it.
    in_text(sysfs.join("serial")).or_else(|| in_text(sysfs.join("device/serial"))).or_else(scsi)
}

/// The serial number in a SCSI disk's Unit Serial Number page (SPC-4, VPD page 80h); `None` if there
/// is none in it, or it is no such page.
#[must_use]
pub fn serial_of_vpd(page: &[u8]) -> Option<String> {
    let [_, 0x80, high, low, rest @ ..] = page else { return None };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    let serial = std::str::from_utf8(rest.get(..length)?).ok()?;
    let serial = serial.trim_matches([' ', '\0']);
    let is_printed = !serial.is_empty() && serial.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    is_printed.then(|| serial.to_owned())
}

/// The types in what `wipefs --json` lists, each once.
fn signatures(json: &str) -> Result<Vec<String>> {
    #[derive(Deserialize)]
    struct Listed {
        signatures: Vec<Signature>,
    }
    #[derive(Deserialize)]
    struct Signature {
        r#type: String,
    }
    // Some versions print nothing of a disk that has none.
    if json.trim().is_empty() {
        return Ok(Vec::new());
    }
    let listed: Listed = serde_json::from_str(json)
        .map_err(|error| Error::internal("reading what wipefs printed").source(error))?;
    let mut types: Vec<_> = listed.signatures.into_iter().map(|one| one.r#type).collect();
    types.sort();
    types.dedup();
    Ok(types)
}

pub(super) fn names_in(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.filter_map(|entry| entry.file_name().into_string().ok()).collect()
}

fn refused(sentence: String) -> Error {
    Error::new(ErrorKind::InvalidValue, sentence).field("disk")
}

fn not_found(sentence: String) -> Error {
    Error::new(ErrorKind::NotFound, sentence).field("disk")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_serial_number_is_read_as_disks_pad_it() {
        for (page, serial) in [
            (&b"\x00\x80\x00\x0aLAB-DISK-1"[..], Some("LAB-DISK-1")),
            (b"\x00\x80\x00\x0c    WD-WX11  ", Some("WD-WX11")),
            (b"\x00\x80\x00\x04AB\x00\x00", Some("AB")),
            (b"\x00\x80\x00\x02ABCD", Some("AB")),
            (b"\x00\x80\x00\x03   ", None),
            (b"\x00\x80\x00\x00", None),
            (b"\x00\x80\x00\x0aSHORT", None),
            (b"\x00\x83\x00\x02AB", None),
            (b"\x00\x80\x00\x03A\nB", None),
            (b"\x00\x80\x00\x02\xff\xfe", None),
            (b"\x00\x80", None),
            (b"", None),
        ] {
            assert_eq!(serial_of_vpd(page).as_deref(), serial, "{page:?}");
        }
    }

    #[test]
    fn signatures_are_read_as_wipefs_prints_them() {
        assert_eq!(signatures("").unwrap(), [""; 0]);
        assert_eq!(signatures("{\n   \"signatures\": [\n\n   ]\n}\n").unwrap(), [""; 0]);
        let gpt = r#"{"signatures": [
            {"device":"sdb", "offset":"0x200", "type":"gpt", "uuid":null, "label":null},
            {"device":"sdb", "offset":"0x1ffe00", "type":"gpt", "uuid":null, "label":null},
            {"device":"sdb", "offset":"0x1fe", "type":"PMBR", "uuid":null, "label":null}]}"#;
        assert_eq!(signatures(gpt).unwrap(), ["PMBR", "gpt"]);
        assert!(signatures("{").is_err());
    }

    #[test]
    fn a_name_with_a_slash_first_is_a_path_and_any_other_a_serial_number() {
        let path = DiskName::Path("/dev/sdb".into());
        assert_eq!("/dev/sdb".parse::<DiskName>().unwrap(), path);
        let serial = DiskName::Serial("WD-1/2".into());
        assert_eq!("WD-1/2".parse::<DiskName>().unwrap(), serial);
        for nothing in ["", "a\nb"] {
            assert_eq!(nothing.parse::<DiskName>().unwrap_err().kind(), ErrorKind::InvalidValue);
        }
    }

    #[test]
    fn what_is_no_disk_is_not_taken_for_one() {
        let find = |path: &str| Disk::find(&DiskName::Path(path.into())).unwrap_err().kind();
        assert_eq!(find("/dev/no-such-disk"), ErrorKind::NotFound);
        assert_eq!(find("/dev/null"), ErrorKind::InvalidValue);
        assert_eq!(find("/"), ErrorKind::InvalidValue);
        let missing = Disk::find(&DiskName::Serial("no such serial".into())).unwrap_err();
        assert_eq!(missing.kind(), ErrorKind::NotFound);
    }

    proptest! {
        #[test]
        fn no_page_makes_the_reader_fail(page in prop::collection::vec(any::<u8>(), 0..300)) {
            if let Some(serial) = serial_of_vpd(&page) {
                prop_assert!(!serial.is_empty() && serial.len() <= page.len());
            }
        }

        #[test]
        fn a_printed_serial_number_comes_back(serial in "[!-~]([ -~]{0,40}[!-~])?") {
            let length = u16::try_from(serial.len()).unwrap().to_be_bytes();
            let page = [&[0, 0x80], &length[..], serial.as_bytes()].concat();
            prop_assert_eq!(serial_of_vpd(&page), Some(serial));
        }
    }
}
