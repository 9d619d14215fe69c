//! The log of a guest's first serial port: the newest of what it wrote, at most 1 MiB.
//!
//! QEMU keeps 64 KiB in a ring and forgets the oldest beyond that; whoever drains it appends here.
//! Wherever something may be missing, the log says so.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::PathBuf;

/// The most that is kept, in bytes.
pub(super) const LIMIT: usize = 1 << 20;

/// Stands where output may be missing.
const GAP: &[u8] = b"\n[elasticstack: output may be missing here]\n";

/// The log in a file.
#[derive(Debug)]
pub(super) struct SerialLog {
    path: PathBuf,
    gap_before_next: Gap,
}

/// Whether something may be missing before the next output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gap {
    /// Nothing is.
    None,
    /// The ring may have run over, or a drained piece was not written before a crash.
    Possible,
}

impl SerialLog {
    /// The log at `path`, which need not exist yet.
    pub(super) fn new(path: PathBuf, gap_before_next: Gap) -> Self {
        Self { path, gap_before_next }
    }

    /// Adds what was drained; `ring` is the size of the ring it comes from, in bytes.
    ///
    /// # Errors
    /// If the file can't be written; then a gap is marked before the next output.
    pub(super) fn append(&mut self, output: &[u8], ring: usize) -> io::Result<()> {
        if output.is_empty() {
            return Ok(());
        }
        // A ring found full may have run over, and what it lost came before what it holds.
        let gap = output.len() >= ring || self.gap_before_next == Gap::Possible;
        self.gap_before_next = Gap::Possible;
        let piece = if gap { [GAP, output].concat() } else { output.to_vec() };
        let mut file = OpenOptions::new().create(true).append(true).open(&self.path)?;
        let length = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
        if length.saturating_add(piece.len()) > LIMIT {
            self.keep_newest(&piece)?;
        } else {
            file.write_all(&piece)?;
        }
        self.gap_before_next = Gap::None;
        Ok(())
    }

    /// Drops the oldest half and adds `piece`.
    fn keep_newest(&self, piece: &[u8]) -> io::Result<()> {
        let mut log = fs::read(&self.path)?;
        log.extend_from_slice(piece);
        let kept = log.get(log.len().saturating_sub(LIMIT / 2)..).unwrap_or_default();
        let fresh = self.path.with_extension("new");
        let mut file = File::create(&fresh)?;
        file.write_all(GAP)?;
        file.write_all(kept)?;
        fs::rename(fresh, &self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gap_is_marked_where_output_may_be_missing_and_nowhere_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial.log");
        let mut log = SerialLog::new(path.clone(), Gap::None);
        log.append(b"one ", 16).unwrap();
        log.append(b"", 16).unwrap();
        log.append(b"two", 16).unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"one two");

        log.append(&[b'x'; 16], 16).unwrap();
        let mut after_crash = SerialLog::new(path.clone(), Gap::Possible);
        after_crash.append(b"", 16).unwrap();
        after_crash.append(b"three ", 16).unwrap();
        after_crash.append(b"four", 16).unwrap();
        let expected = [b"one two", GAP, &[b'x'; 16], GAP, b"three four"].concat();
        assert_eq!(fs::read(&path).unwrap(), expected);
    }

    #[test]
    fn a_full_log_loses_its_oldest_half_and_stays_within_its_limit() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("serial.log");
        let mut log = SerialLog::new(path.clone(), Gap::None);
        for number in 0_u32..40_000 {
            log.append(format!("{number:063}\n").as_bytes(), 65_536).unwrap();
            if number % 1_000 == 0 {
                assert!(fs::read(&path).unwrap().len() <= LIMIT);
            }
        }
        let kept = fs::read(&path).unwrap();
        assert!(kept.len() <= LIMIT && kept.len() >= LIMIT / 2, "{}", kept.len());
        assert!(kept.starts_with(GAP));
        assert!(kept.ends_with(b"039999\n"));
    }
}
