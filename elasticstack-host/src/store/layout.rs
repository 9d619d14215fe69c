//! What lies on a directory array: the names of its files, the record beside each drive and each
//! snapshot, and what every set of files that a crash can leave means.
//!
//! ```text
//! lock            held by the store that has the array open
//! array.json      which array this is
//! drives/ID.raw   the bytes, sparse, exactly as long as the drive
//! drives/ID.json  the record; a drive exists from its appearance to its disappearance
//! snapshots/…     the same of snapshots, as long as their drives were
//! ```
//! Only names ending in `.new` or `.gone` are ever removed unasked: the bytes under them were
//! never a drive's or a snapshot's, or no longer are.

use std::collections::BTreeSet;

use elasticstack_core::block::{DriveReport, DriveSpec, SnapshotReport};
use elasticstack_core::id::{DriveKind, IdKind, SnapshotKind, TypedId};
use elasticstack_core::prelude::*;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The version of [`Record`], [`SnapshotRecord`] and [`Label`].
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

    pub(super) fn report(&self) -> DriveReport {
        let Self { version: _, drive, array, account, size, generation, epoch, fence: _ } = *self;
        DriveReport { spec: DriveSpec { drive, array, account, size, generation }, epoch }
    }
}

/// `ID.json` of a snapshot: all that is known of it except its bytes. It never changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SnapshotRecord {
    version: u32,
    pub(super) snapshot: SnapshotId,
    pub(super) drive: DriveId,
    pub(super) array: ArrayId,
    pub(super) account: AccountId,
    pub(super) size: Bytes,
}

impl SnapshotRecord {
    /// The record of a snapshot of this drive as it is now.
    pub(super) fn new(snapshot: SnapshotId, of: &Record) -> Self {
        let Record { drive, array, account, size, .. } = *of;
        Self { version: VERSION, snapshot, drive, array, account, size }
    }

    pub(super) fn report(&self) -> SnapshotReport {
        let Self { version: _, snapshot, drive, array, account, size } = *self;
        SnapshotReport { snapshot, drive, array, account, size }
    }
}

/// What lies on an array as bytes with a record beside them.
pub(super) trait Kept: Serialize + DeserializeOwned {
    /// What kind of thing it is.
    type Kind: IdKind;

    fn version(&self) -> u32;
    fn id(&self) -> TypedId<Self::Kind>;
    fn array(&self) -> ArrayId;
    fn size(&self) -> Bytes;
}

impl Kept for Record {
    type Kind = DriveKind;

    fn version(&self) -> u32 {
        self.version
    }

    fn id(&self) -> DriveId {
        self.drive
    }

    fn array(&self) -> ArrayId {
        self.array
    }

    fn size(&self) -> Bytes {
        self.size
    }
}

impl Kept for SnapshotRecord {
    type Kind = SnapshotKind;

    fn version(&self) -> u32 {
        self.version
    }

    fn id(&self) -> SnapshotId {
        self.snapshot
    }

    fn array(&self) -> ArrayId {
        self.array
    }

    fn size(&self) -> Bytes {
        self.size
    }
}

/// The record in these bytes, if it is of this id on this array.
pub(super) fn read<R: Kept>(
    json: &[u8],
    id: TypedId<R::Kind>,
    array: ArrayId,
) -> Result<R, Damage> {
    let record: R = serde_json::from_slice(json).map_err(Damage::Unreadable)?;
    if record.version() != VERSION {
        Err(Damage::Version(record.version()))
    } else if record.id() != id || record.array() != array {
        Err(Damage::Foreign { id: record.id().to_string(), array: record.array() })
    } else {
        Ok(record)
    }
}

/// Why the files of a drive or snapshot can't be used. They are left as they are, for the operator.
#[derive(Debug, thiserror::Error)]
pub(super) enum Damage {
    #[error("the record cannot be read")]
    Unreadable(#[source] serde_json::Error),
    #[error("the record has version {0}, this program knows {VERSION}")]
    Version(u32),
    #[error("the record is of {id} on array {array}")]
    Foreign { id: String, array: ArrayId },
    #[error("there are {found} bytes, the record says {recorded}")]
    Short { found: u64, recorded: u64 },
    #[error("there are bytes without a record, or a record without bytes")]
    Half,
    #[error("another array has one of this id too")]
    Twice,
}

/// One of the files of a drive or snapshot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Part {
    /// The bytes.
    Raw,
    /// What is to become the bytes.
    RawNew,
    /// The record.
    Record,
    /// What is to become the record.
    RecordNew,
    /// The record of one that was destroyed and whose bytes are to go.
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

    /// The file's name for this id.
    pub(super) fn of<K>(self, id: TypedId<K>) -> String {
        format!("{id}.{}", self.suffix())
    }

    /// Whose and which part this name is, if it is one.
    pub(super) fn parse<K: IdKind>(name: &str) -> Option<(TypedId<K>, Self)> {
        let (id, suffix) = name.split_once('.')?;
        let part = Self::ALL.into_iter().find(|part| part.suffix() == suffix)?;
        Some((id.parse().ok()?, part))
    }
}

/// What is to be done about the files of a drive or snapshot before it can be used.
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
            let drive: DriveId = id.parse().unwrap();
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
            assert_eq!(Part::parse::<DriveKind>(other), None, "{other:?}");
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
