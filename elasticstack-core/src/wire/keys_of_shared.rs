//! The keys that several kinds of objects have. Rows of [`super::keys::KEYS`], in the order of their patterns.

use super::key::{Input, Key, Object, Takes, key};

const MADE: &[Object] = &[Object::Drive, Object::Server, Object::Snapshot];
const OWNED: &[Object] = &[Object::Drive, Object::Resource, Object::Server, Object::Snapshot];
const ALL: &[Object] = &[
    Object::Account,
    Object::Drive,
    Object::Host,
    Object::Pool,
    Object::Profile,
    Object::Resource,
    Object::Server,
    Object::Snapshot,
    Object::Token,
];
const LISTED: &[Object] = &[
    Object::Account,
    Object::Array,
    Object::Drive,
    Object::Host,
    Object::Pool,
    Object::Profile,
    Object::Resource,
    Object::Server,
    Object::Stray,
    Object::Token,
];

/// The rows.
pub(super) const ROWS: &[Key] = &[
    key(
        "claimed",
        &[Object::Drive, Object::Resource],
        Input::Never,
        Takes::Nothing,
        "The servers, jobs and snapshots that use it now; absent if none does.",
    ),
    key(
        "failed",
        MADE,
        Input::Never,
        Takes::Nothing,
        "Why the last imaging, start or restore of it failed.",
    ),
    key("name", ALL, Input::Always, Takes::Name, "What you call it; 1 to 80 characters.")
        .needed_by(&[Object::Account, Object::Host, Object::Pool, Object::Token]),
    key(
        "status",
        &[
            Object::Account,
            Object::Array,
            Object::Drive,
            Object::Host,
            Object::Server,
            Object::Snapshot,
        ],
        Input::Never,
        Takes::Nothing,
        "What it is: active, stopped, paused and so on.",
    ),
    key("tags", OWNED, Input::Always, Takes::Words(1_000), "Words of yours to find it by."),
    key("user", OWNED, Input::Never, Takes::Nothing, "The owner's UUID."),
    key("user:*", OWNED, Input::Always, Takes::Text(4_000), "Anything you want to note."),
    key("uuid", LISTED, Input::Never, Takes::Nothing, "The object's UUID, in lists."),
];
