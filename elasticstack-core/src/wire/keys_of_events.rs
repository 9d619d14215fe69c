//! The keys that tell what happened to an object. Rows of [`super::keys::KEYS`], in the order of
//! their patterns.

use super::key::{Input, Key, Object, Takes, key};

const EVENT: &[Object] = &[Object::Event];

const fn told(pattern: &'static str, doc: &'static str) -> Key {
    key(pattern, EVENT, Input::Never, Takes::Nothing, doc)
}

/// The rows.
pub(super) const ROWS: &[Key] = &[
    told("at", "When it happened, in microseconds since 1970.")
        .number_of("microseconds since 1970"),
    told("cursor", "Its place among all events: give it as after, and the next one follows."),
    told("event", "created, changed or destroyed."),
    told("id", "The UUID of the object, or the address that a static IP is."),
    told(
        "object",
        "What it happened to: drive, snapshot, server, ip, vlan, token or account; array, which operators see.",
    ),
    told("status", "The status that the object has since; absent where it has none."),
    told("user", "The owner's UUID."),
];
