//! Trails: what a guest with the task `append` leaves on its drive (`docs/tiny.md`), read from the
//! drive's file. Owns the layout and what a sound trail is; who may have left how many is judged
//! by `guests`.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

/// The size of a record, and of the task before them.
const BLOCK: usize = 512;
const MAGIC: &[u8] = b"ES-TINY-APPEND-1";

/// The first block of a trail: append, and power off after `records` of them; 0 is never.
pub(crate) fn task(records: u64) -> Vec<u8> {
    let mut block = MAGIC.to_vec();
    block.extend_from_slice(format!("{records:04}").as_bytes());
    block.resize(BLOCK, 0);
    block
}

/// What one boot left.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    /// Which boot.
    pub(crate) boot: String,
    /// How many records.
    pub(crate) records: u64,
}

/// How many records lie on the drive at `path`, sound or not.
pub(crate) fn length(path: &Path) -> Result<u64> {
    let drive = fs::read(path).with_context(|| format!("read the trail {}", path.display()))?;
    let records = drive.chunks(BLOCK).skip(1).take_while(|block| block.iter().any(|&b| b != 0));
    Ok(u64::try_from(records.count())?)
}

/// Reads a whole trail that began with `task`.
///
/// # Errors
/// The trail can't be the work of one guest at a time, none of whose flushed writes was lost.
pub(crate) fn read(drive: &[u8], task: &[u8]) -> Result<Vec<Segment>> {
    let mut blocks = drive.chunks(BLOCK);
    ensure!(blocks.next() == Some(task), "the guest changed the block that it was given");
    let mut segments: Vec<Segment> = Vec::new();
    let mut records = 0;
    for (at, block) in blocks.by_ref().enumerate() {
        if block.iter().all(|&byte| byte == 0) {
            records = at;
            break;
        }
        let (boot, counter) =
            parse(block).with_context(|| format!("block {} is no record", at + 1))?;
        match segments.last_mut() {
            Some(last) if last.boot == boot => {
                last.records += 1;
                ensure!(
                    counter == last.records,
                    "block {}: boot {boot} counts {counter} where {} comes next",
                    at + 1,
                    last.records
                );
            }
            _ => {
                ensure!(counter == 1, "block {}: boot {boot} begins at {counter}", at + 1);
                if segments.iter().any(|segment| segment.boot == boot) {
                    bail!("block {}: boot {boot} is back after another: two writers", at + 1);
                }
                segments.push(Segment { boot, records: 1 });
            }
        }
    }
    if blocks.any(|block| block.iter().any(|&byte| byte != 0)) {
        bail!("after {records} records there is a gap, and then more");
    }
    Ok(segments)
}

/// The boot and the counter of a record.
fn parse(block: &[u8]) -> Result<(String, u64)> {
    let text = std::str::from_utf8(block).context("it is not ASCII")?;
    let (boot, rest) = text.split_once(' ').context("it has no space")?;
    ensure!(boot.len() == 36, "{boot:?} is no boot id");
    let counter = rest.strip_suffix('\n').context("it has no newline at its end")?;
    ensure!(rest.len() == BLOCK - 37, "it is {} bytes", text.len());
    Ok((boot.to_owned(), counter.trim_end().parse().context("its counter is no number")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: &str = "aaaaaaaa-aaaa-aaaa-aaaa-aaaaaaaaaaaa";
    const B: &str = "bbbbbbbb-bbbb-bbbb-bbbb-bbbbbbbbbbbb";

    fn drive(records: &[(&str, u64)]) -> Vec<u8> {
        let mut drive = task(0);
        for (boot, counter) in records {
            drive.extend_from_slice(format!("{boot} {counter:010}{:464}\n", "").as_bytes());
        }
        drive.resize(BLOCK * 12, 0);
        drive
    }

    #[test]
    fn boots_one_after_the_other_are_a_sound_trail() {
        let trail = read(&drive(&[(A, 1), (A, 2), (B, 1)]), &task(0)).unwrap();
        let segment = |boot: &str, records| Segment { boot: boot.to_owned(), records };
        assert_eq!(trail, [segment(A, 2), segment(B, 1)]);
        assert_eq!(read(&drive(&[]), &task(0)).unwrap(), []);
    }

    #[test]
    fn two_writers_and_lost_writes_are_found() {
        for (what, records) in [
            ("lost in the middle", &[(A, 1), (A, 3)][..]),
            ("lost at the start", &[(A, 2)]),
            ("written twice", &[(A, 1), (A, 1)]),
            ("two writers", &[(A, 1), (B, 1), (A, 2)]),
            ("a boot that is back", &[(A, 1), (B, 1), (A, 1)]),
        ] {
            assert!(read(&drive(records), &task(0)).is_err(), "{what}");
        }
        let mut gap = drive(&[(A, 1)]);
        gap[BLOCK * 5] = 1;
        assert!(read(&gap, &task(0)).is_err(), "a gap");
        let mut torn = drive(&[(A, 1)]);
        torn[BLOCK * 2 - 1] = 0;
        assert!(read(&torn, &task(0)).is_err(), "a torn record");
        assert!(read(&drive(&[]), &task(5)).is_err(), "another task");
    }
}
