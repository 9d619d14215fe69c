//! A small disk that a BIOS boots: a master boot record, perhaps a mark, and one FAT partition with
//! syslinux and what it loads.
//!
//! Owns the layout. A mark stands in block 1, which no partition covers.

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use super::workshop::{MBR, Workshop, output};
use super::{hex, size_of};

const BLOCK: u64 = 512;
const MIB: u64 = 1 << 20;
const PARTITION_START: u64 = MIB;
/// Every drive's size is a multiple of this.
const GRAIN: u64 = 4 * MIB;
const LARGEST: u64 = 64 * MIB;

/// What is on a disk.
pub(super) struct Content<'a> {
    /// Four letters: the disk's signature and its volume serial number. Fixed, or every build would
    /// differ.
    pub(super) signature: [u8; 4],
    /// What block 1 begins with.
    pub(super) mark: &'a [u8],
    /// What syslinux loads, with the names of the files on the disk.
    pub(super) files: &'a [(&'a Path, &'a str)],
    /// What syslinux does.
    pub(super) config: &'a str,
}

/// Makes the disk and returns its path.
pub(super) fn make(workshop: &Workshop, name: &str, content: &Content<'_>) -> Result<PathBuf> {
    let Content { signature, mark, files, config } = content;
    let mut needed = 0;
    for (file, _) in *files {
        needed += size_of(file)?;
    }
    let size = disk_size(needed);
    ensure!(size <= LARGEST, "{name} would be {size} bytes: the limit is {LARGEST}, drop a file");

    let config = workshop.write("syslinux.cfg", config.as_bytes())?;
    let raw = workshop.write(name, &boot_record(size, *signature, mark)?)?;
    File::options()
        .write(true)
        .open(&raw)
        .and_then(|file| file.set_len(size))
        .with_context(|| format!("lengthen {}", raw.display()))?;

    let partition = format!("{}@@{PARTITION_START}", raw.display());
    let (hidden, total) = (PARTITION_START / BLOCK, (size - PARTITION_START) / BLOCK);
    let (serial, label) = (hex(signature), String::from_utf8_lossy(signature).to_uppercase());
    let mut format = workshop.command("mformat")?;
    format.args(["-i", &partition, "-v", &label, "-N", &serial, "-h", "255", "-s", "63"]);
    output(format.args(["-H", &hidden.to_string(), "-T", &total.to_string(), "::"]))?;
    let offset = PARTITION_START.to_string();
    output(workshop.command("syslinux")?.args(["--install", "--offset", &offset]).arg(&raw))?;
    for (file, name) in files.iter().chain([&(&*config, "syslinux.cfg")]) {
        output(
            workshop.command("mcopy")?.args(["-i", &partition]).arg(file).arg(format!("::{name}")),
        )?;
    }
    Ok(raw)
}

/// Room for the files, for the FAT and the loader, and up to the next whole grain.
fn disk_size(files: u64) -> u64 {
    (PARTITION_START + files + MIB).next_multiple_of(GRAIN)
}

/// The first two blocks: syslinux's loader with a table of one bootable partition, then the mark.
fn boot_record(size: u64, signature: [u8; 4], mark: &[u8]) -> Result<Vec<u8>> {
    const FAT16_LBA: u8 = 0x0e;
    /// Cylinder, head and sector of a place that is past what they can say: use the block number.
    const FAR: [u8; 3] = [0xfe, 0xff, 0xff];

    let mut record = fs::read(MBR).with_context(|| format!("read {MBR}"))?;
    ensure!(record.len() <= 440, "{MBR} is {} bytes: want at most 440", record.len());
    record.resize(440, 0);
    record.extend_from_slice(&signature);
    record.extend_from_slice(&[0, 0]);
    let start = u32::try_from(PARTITION_START / BLOCK)?;
    let blocks = u32::try_from((size - PARTITION_START) / BLOCK)?;
    record.push(0x80);
    record.extend_from_slice(&FAR);
    record.push(FAT16_LBA);
    record.extend_from_slice(&FAR);
    record.extend_from_slice(&start.to_le_bytes());
    record.extend_from_slice(&blocks.to_le_bytes());
    record.resize(510, 0);
    record.extend_from_slice(&[0x55, 0xaa]);
    record.extend_from_slice(mark);
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_has_room_for_its_files_and_is_a_multiple_of_four_mebibytes() {
        for files in [0, 1, 2 * MIB, 2 * MIB + 1, 11 * MIB, 40 * MIB] {
            let size = disk_size(files);
            assert_eq!(size % GRAIN, 0, "{files} bytes of files");
            assert!(size - PARTITION_START >= files + MIB, "{size} bytes for {files}");
            assert!(size < files + PARTITION_START + MIB + GRAIN, "{size} bytes for {files}");
        }
    }
}
