//! The calls about snapshots. Rows of [`super::calls::CALLS`]: of two whose paths could match, the one
//! with fewer parameters comes first.

use super::calls::Call;
use super::keys::Object::Snapshot;
use super::route::Answer::{Ids, Many, Nothing, One};
use super::route::Body::{Ignored, Record};
use super::route::{Route, change, read};

/// The rows.
pub(super) const ROWS: &[Route] = &[
    read(Call::SnapshotsList, "/snapshots/list", Ids(Snapshot), "The ids of your snapshots."),
    read(Call::SnapshotsInfo, "/snapshots/info", Many(Snapshot), "All your snapshots."),
    change(
        Call::DriveSnapshot,
        "/drives/DRIVE/snapshot",
        Record(Snapshot),
        One(Snapshot),
        "Takes a snapshot of the drive, also while a server writes it; what a power cut would leave.",
    ),
    read(Call::SnapshotInfo, "/snapshots/SNAPSHOT/info", One(Snapshot), "One snapshot."),
    change(
        Call::SnapshotSet,
        "/snapshots/SNAPSHOT/set",
        Record(Snapshot),
        One(Snapshot),
        "Changes what you call it and note on it.",
    ),
    change(
        Call::SnapshotRestore,
        "/snapshots/SNAPSHOT/restore",
        Ignored,
        One(Snapshot),
        "Makes its drive hold what it does, while nothing uses the drive; what is on it is lost.",
    ),
    change(
        Call::SnapshotDestroy,
        "/snapshots/SNAPSHOT/destroy",
        Ignored,
        Nothing,
        "Destroys it; its drive stays.",
    ),
];
