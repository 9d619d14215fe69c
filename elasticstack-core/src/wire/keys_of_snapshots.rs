//! The keys of snapshots. Rows of [`super::keys::KEYS`], in the order of their patterns.

use super::key::{Input, Key, Object, Takes, key};

const SNAPSHOT: &[Object] = &[Object::Snapshot];
const OF_A_DRIVE: &[Object] = &[Object::Snapshot, Object::Stray];

/// The rows.
pub(super) const ROWS: &[Key] = &[
    key(
        "created",
        SNAPSHOT,
        Input::Never,
        Takes::Nothing,
        "When it was asked for, in seconds since 1970.",
    )
    .number_of("seconds since 1970"),
    key("drive", OF_A_DRIVE, Input::Never, Takes::Nothing, "The UUID of the drive that it is of."),
    key(
        "size",
        SNAPSHOT,
        Input::Never,
        Takes::Nothing,
        "The size of its drive when it was taken, in bytes.",
    )
    .number_of("bytes"),
    key("snapshot", SNAPSHOT, Input::Never, Takes::Nothing, "The snapshot's UUID."),
];
