//! What a disk was told, in order, as the kernel's dm-log-writes keeps it, and the disk as a power cut at
//! any point of that would leave it.
//!
//! The format is that of the kernel's `drivers/md/dm-log-writes.c`: a superblock, then entries, each a
//! sector that says what it is and the data behind it. All numbers are little-endian.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const SECTOR: u64 = 512;
const ENTRY: usize = 512;

const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;
const MARK: u64 = 8;

/// One entry of the log.
#[derive(Debug)]
struct Entry {
    /// Where on the disk, and where the data is in the log, in bytes.
    at: u64,
    from: u64,
    length: u64,
    flags: u64,
    mark: Option<usize>,
}

/// A whole log.
pub(crate) struct WriteLog {
    file: File,
    entries: Vec<Entry>,
}

/// A point in a log at which the power may be cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Point {
    /// So many entries were told.
    pub(crate) told: usize,
    /// Of those, so many came before the last one that had all before it written.
    pub(crate) sure: usize,
    /// The last mark before it.
    pub(crate) mark: Option<usize>,
}

impl WriteLog {
    pub(crate) fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let mut head = [0; 28];
        file.read_exact_at(&mut head, 0)?;
        let number =
            |bytes: &[u8], at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        let sector = u64::from(u32::from_le_bytes(head[24..28].try_into().unwrap()));
        assert_eq!((number(&head, 0), number(&head, 8), sector), (MAGIC, 1, SECTOR));
        let mut entries = Vec::new();
        let mut at = SECTOR;
        for _ in 0..number(&head, 16) {
            let mut entry = [0; ENTRY];
            file.read_exact_at(&mut entry, at)?;
            let flags = number(&entry, 16);
            let text = entry[32..].split(|byte| *byte == 0).next().unwrap_or_default();
            let text = String::from_utf8_lossy(text);
            // The kernel marks the end itself, with words.
            let mark = text.trim().parse().ok().filter(|_| flags & MARK != 0);
            let length = number(&entry, 8) * SECTOR;
            let from = at + SECTOR;
            entries.push(Entry { at: number(&entry, 0) * SECTOR, from, length, flags, mark });
            // A discard has no data, a mark has its text within the entry.
            let data = if flags & (DISCARD | MARK) != 0 { 0 } else { length };
            at = from + data;
        }
        Ok(Self { file, entries })
    }

    /// The points behind each entry that had something written for sure, and in the middle between
    /// two of those.
    pub(crate) fn points(&self) -> Vec<Point> {
        let (mut points, mut sure, mut mark) = (Vec::new(), 0, None);
        for (told, entry) in (1..).zip(&self.entries) {
            mark = entry.mark.or(mark);
            let ends = entry.flags & (FLUSH | FUA) != 0;
            if ends && told > sure + 1 {
                let middle = usize::midpoint(sure, told);
                points.push(Point { told: middle, sure, mark: self.mark_before(middle) });
            }
            if entry.flags & FLUSH != 0 {
                // What is told with a flush comes after it.
                sure = told - 1;
            }
            if ends {
                points.push(Point { told, sure, mark });
            }
        }
        points
    }

    fn mark_before(&self, told: usize) -> Option<usize> {
        self.entries[..told].iter().rev().find_map(|entry| entry.mark)
    }

    /// Has `disk` hold what these entries told it, those of them that `keeps`.
    pub(crate) fn replay(
        &self,
        disk: &Path,
        entries: std::ops::Range<usize>,
        mut keeps: impl FnMut() -> bool,
    ) -> io::Result<()> {
        let disk = OpenOptions::new().write(true).open(disk)?;
        for entry in &self.entries[entries] {
            let is_sure = entry.flags & FUA != 0;
            if entry.flags & MARK != 0 || entry.length == 0 || !(is_sure || keeps()) {
                continue;
            }
            let mut data = vec![0; usize::try_from(entry.length).unwrap()];
            if entry.flags & DISCARD == 0 {
                self.file.read_exact_at(&mut data, entry.from)?;
            }
            disk.write_all_at(&data, entry.at)?;
        }
        disk.sync_all()
    }
}
