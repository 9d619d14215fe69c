//! What lies on a directory array: the names of its files, the record beside each drive, and what
//! every set of files that a crash can leave means.
//!
//! ```text
//! lock            held by the store that has the array open
//! array.json      which array this is
//! drives/ID.raw   the bytes, sparse, exactly as long as the drive
//! drives/ID.json  the record; a drive exists from its appearance to its disappearance
//! ```
//! Only names ending in `.new` or `.gone` are ever removed unasked: the bytes under them were
//! never a drive's, or no longer are.

use std::collections::BTreeSet;

use elasticstack_core::block::{DriveReport, DriveSpec};
use elasticstack_core::prelude::*;
use serde::{Deserialize, Serialize};

/// The version of [`Record`] and [`Label`].
const VERSION: u32 = 1;

/// `array.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Label {
    version: u32,
    pub(super) array: ArrayId,
}

impl Label {
    pub(super) fn new(array: ArrayId) -> Self {
        Self { version: VERSION, array }
    }
}

/// `ID.json`: all that is known of a drive except its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Record {
    version: u32,
    pub(super) drive: DriveId,
    pub(super) array: ArrayId,
    pub(super) account: AccountId,
    pub(super) size: Bytes,
    pub(super) generation: Generation,
    /// The highest epoch seen.
    pub(super) epoch: Epoch,
    /// The lowest epoch that still has access.
    pub(super) fence: Epoch,
}

impl Record {
    /// The record of a drive that nobody opened yet.
    pub(super) fn new(spec: &DriveSpec) -> Self {
        let DriveSpec { drive, array, account, size, generation } = *spec;
        let epoch = Epoch::default();
        Self { version: VERSION, drive, array, account, size, generation, epoch, fence: epoch }
    }

    /// The record in these bytes, if it is of this drive on this array.
    pub(super) fn read(json: &[u8], drive: DriveId, array: ArrayId) -> Result<Self, Damage> {
        let record: Self = serde_json::from_slice(json).map_err(Damage::Unreadable)?;
        if record.version != VERSION {
            Err(Damage::Version(record.version))
        } else if record.drive != drive || record.array != array {
            Err(Damage::Foreign { drive: record.drive, array: record.array })
        } else {
            Ok(record)
        }
    }

    pub(super) fn report(&self) -> DriveReport {
        let Self { version: _, drive, array, account, size, generation, epoch, fence: _ } = *self;
        DriveReport { spec: DriveSpec { drive, array, account, size, generation }, epoch }
    }
}

/// Why the files of a drive can't be used. They are left as they are, for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    #[error("the record cannot be read")]
    Unreadable(#[source] serde_json::Error),
    #[error("the record has version {0}, this program knows {VERSION}")]
    Version(u32),
    #[error("the record is of drive {drive} on array {array}")]
    Foreign { drive: DriveId, array: ArrayId },
    #[error("there are {found} bytes, the record says {recorded}")]
    Short { found: u64, recorded: u64 },
    #[error("there are bytes without a record, or a record without bytes")]
    Half,
    #[error("another array has a drive of this id too")]
    Twice,
}

/// One of the files of a drive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The bytes.
    Raw,
    /// Zeros that are to become the bytes.
    RawNew,
    /// The record.
    Record,
    /// What is to become the record.
    RecordNew,
    /// The record of a drive that was destroyed and whose bytes are to go.
    RecordGone,
}

impl Part {
    const ALL: [Self; 5] =
        [Self::Raw, Self::RawNew, Self::Record, Self::RecordNew, Self::RecordGone];

    const fn suffix(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::RawNew => "raw.new",
            Self::Record => "json",
            Self::RecordNew => "json.new",
            Self::RecordGone => "json.gone",
        }
    }

    /// The file's name for this drive.
    pub(super) fn of(self, drive: DriveId) -> String {
        format!("{drive}.{}", self.suffix())
    }

    /// Whose and which part this name is, if it is one.
    pub(super) fn parse(name: &str) -> Option<(DriveId, Self)> {
        let (id, suffix) = name.split_once('.')?;
        let part = Self::ALL.into_iter().find(|part| part.suffix() == suffix)?;
        Some((id.parse().ok()?, part))
    }
}

/// What is to be done about the files of a drive before it can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Recovery {
    /// It exists; only scratch files may have to go.
    Keep,
    /// It was created but for one rename.
    FinishCreate,
    /// It was destroyed but for its bytes.
    FinishDestroy,
    /// It never came to exist.
    ForgetCreate,
    /// No crash leaves this: it stays as it is.
    SetAside,
}

impl Recovery {
    /// The recovery from these files.
    pub(super) fn from(parts: &BTreeSet<Part>) -> Self {
        let has = |part| parts.contains(&part);
        match (has(Part::Record), has(Part::Raw)) {
            (true, true) => Self::Keep,
            (true, false) if has(Part::RawNew) => Self::FinishCreate,
            (false, _) if has(Part::RecordGone) => Self::FinishDestroy,
            (false, false) => Self::ForgetCreate,
            (true, false) | (false, true) => Self::SetAside,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_names_of_drives_are_parts() {
        let id = "5b0e3c52-0000-4000-8000-00000000d001";
        for part in Part::ALL {
            let drive = id.parse().unwrap();
            assert_eq!(Part::parse(&part.of(drive)), Some((drive, part)));
        }
        for other in [
            "",
            id,
            "notes.raw",
            &format!("{id}."),
            &format!("{id}.raw.old"),
            &format!("{}.raw", id.to_uppercase()),
            &format!("../{id}.raw"),
        ] {
            assert_eq!(Part::parse(other), None, "{other:?}");
        }
    }

    #[test]
    fn bytes_that_were_a_drives_are_never_thrown_away_without_a_tombstone() {
        for bits in 0..32_u8 {
            let parts: BTreeSet<_> = (0..)
                .zip(Part::ALL)
                .filter(|(bit, _)| bits >> bit & 1 == 1)
                .map(|(_, p)| p)
                .collect();
            let recovery = Recovery::from(&parts);
            if parts.contains(&Part::Raw) && !parts.contains(&Part::RecordGone) {
                assert!(matches!(recovery, Recovery::Keep | Recovery::SetAside), "{parts:?}");
            }
            let exists = matches!(recovery, Recovery::Keep | Recovery::FinishCreate);
            assert!(!exists || parts.contains(&Part::Record), "{parts:?}");
        }
    }
}
