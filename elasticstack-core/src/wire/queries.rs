//! The one table of the parameters that stand behind the `?` of a call. To add one, add its row: the
//! server reads no other, and the documentation has them all.
//!
//! Which calls take a parameter follows from what they answer with: many of an object, or their ids.

use super::keys::Object;
use super::route::{Answer, Route};
use crate::error::{Error, ErrorKind, Result};
use crate::id::DriveId;
use crate::resource::ResourceId;

/// The most that one page has.
pub const MAX_PAGE: u32 = 10_000;

/// The most seconds that an answer waits for something to happen.
pub const MAX_WAIT: u32 = 60;

/// The header of an answer with events: from where on to ask for the next ones, also where there
/// was none.
pub const EVENTS_CURSOR: &str = "events-cursor";

/// What values a parameter takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryTakes {
    /// A whole number in this range.
    Range(u32, u32),
    /// So many seconds at most.
    Seconds(u32),
    /// A whole number that is a permanent id.
    Number,
    /// An object's UUID.
    Uuid,
    /// A resource: an address, or a VLAN's UUID.
    Resource,
    /// The cursor of an event, or `now`.
    Cursor,
    /// One of these words.
    OneOf(&'static [&'static str]),
    /// Any text.
    Text,
}

impl QueryTakes {
    /// What values it takes, for people.
    #[must_use]
    pub fn in_words(self) -> String {
        match self {
            Self::Range(low, high) => format!("{low} to {high}"),
            Self::Seconds(high) => format!("0 to {high} seconds"),
            Self::Number => "a whole number".to_owned(),
            Self::Uuid => "a UUID".to_owned(),
            Self::Resource => "an address or a UUID".to_owned(),
            Self::Cursor => "a cursor, or now".to_owned(),
            Self::OneOf(words) => words.join(", "),
            Self::Text => "text without NUL".to_owned(),
        }
    }

    fn fits(self, value: &str) -> bool {
        match self {
            Self::Seconds(high) => Self::Range(0, high).fits(value),
            Self::Range(low, high) => {
                let is_plain = value.bytes().all(|byte| byte.is_ascii_digit());
                is_plain && value.parse::<u32>().is_ok_and(|number| (low..=high).contains(&number))
            }
            Self::Number => value.parse::<i64>().is_ok(),
            // Every kind of id is spelled alike.
            Self::Uuid => value.parse::<DriveId>().is_ok(),
            Self::Resource => ResourceId::find(value).is_some(),
            // What a cursor means is its maker's to say.
            Self::Cursor => !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_graphic()),
            Self::OneOf(words) => words.contains(&value),
            Self::Text => !value.contains('\0'),
        }
    }
}

/// One row of [`QUERIES`].
#[derive(Debug, Clone, Copy)]
pub struct Query {
    /// Its name.
    pub name: &'static str,
    /// Whose lists have it.
    pub objects: &'static [Object],
    /// What values it takes.
    pub takes: QueryTakes,
    /// One sentence for the documentation.
    pub doc: &'static str,
}

const fn query(
    name: &'static str,
    objects: &'static [Object],
    takes: QueryTakes,
    doc: &'static str,
) -> Query {
    Query { name, objects, takes, doc }
}

const NAMED: &[Object] = &[
    Object::Account,
    Object::Drive,
    Object::Host,
    Object::Pool,
    Object::Resource,
    Object::Server,
    Object::Snapshot,
    Object::Token,
];
const BY_ID: &[Object] = &[
    Object::Account,
    Object::Array,
    Object::Drive,
    Object::Host,
    Object::Pool,
    Object::Server,
    Object::Snapshot,
    Object::Stray,
    Object::Token,
];
const PAGED: &[Object] = &[
    Object::Account,
    Object::Array,
    Object::Drive,
    Object::Event,
    Object::Host,
    Object::Pool,
    Object::Resource,
    Object::Server,
    Object::Snapshot,
    Object::Stray,
    Object::Token,
    Object::Usage,
];
const STATUS: &str = "Only those of this status.";

/// Every parameter, in the order of their names.
pub const QUERIES: &[Query] = &[
    query(
        "after",
        &[Object::Event],
        QueryTakes::Cursor,
        "Begins behind this cursor; now begins with what is still to happen, nothing at all with \
         the oldest event that is kept.",
    ),
    query(
        "after",
        BY_ID,
        QueryTakes::Uuid,
        "Begins behind this id, whether or not it is still there.",
    ),
    query(
        "after",
        &[Object::Resource],
        QueryTakes::Resource,
        "Begins behind this address or VLAN, whether or not it is still there.",
    ),
    query("after", &[Object::Usage], QueryTakes::Number, "Begins behind this interval."),
    query(
        "from",
        &[Object::Usage],
        QueryTakes::Range(0, u32::MAX),
        "Only what touches the time from then on, in seconds since 1970.",
    ),
    query("limit", PAGED, QueryTakes::Range(1, MAX_PAGE), "The most that are answered."),
    query("name", NAMED, QueryTakes::Text, "Only those of this name."),
    query("status", &[Object::Account], QueryTakes::OneOf(&["active", "suspended"]), STATUS),
    query("status", &[Object::Drive], QueryTakes::OneOf(&["active", "inactive"]), STATUS),
    query("status", &[Object::Host], QueryTakes::OneOf(&["active", "joining", "silent"]), STATUS),
    query("status", &[Object::Server], QueryTakes::OneOf(&["active", "paused", "stopped"]), STATUS),
    query(
        "status",
        &[Object::Snapshot],
        QueryTakes::OneOf(&["active", "inactive", "restoring"]),
        STATUS,
    ),
    query(
        "tag",
        &[Object::Drive, Object::Resource, Object::Server, Object::Snapshot],
        QueryTakes::Text,
        "Only those that have this word among their tags.",
    ),
    query(
        "to",
        &[Object::Usage],
        QueryTakes::Range(0, u32::MAX),
        "Only what touches the time before then, in seconds since 1970.",
    ),
    query(
        "wait",
        &[Object::Event],
        QueryTakes::Seconds(MAX_WAIT),
        "How many seconds the answer waits for something to happen if nothing has.",
    ),
];

impl Route {
    /// The parameters that may stand behind its path, in the order of their names.
    pub fn queries(&self) -> impl Iterator<Item = &'static Query> {
        let listed = match self.answer {
            Answer::Many(object) | Answer::Ids(object) => Some(object),
            Answer::One(_) | Answer::Bytes | Answer::Nothing => None,
        };
        QUERIES
            .iter()
            .filter(move |query| listed.is_some_and(|object| query.objects.contains(&object)))
    }

    /// The row of a parameter of this call, if it takes this value.
    ///
    /// # Errors
    /// `UnknownKey` for a parameter that the call does not have; `InvalidValue`.
    pub fn query(&self, name: &str, value: &str) -> Result<&'static Query> {
        let Some(query) = self.queries().find(|query| query.name == name) else {
            let shown: String = name.chars().take(40).collect();
            let known: Vec<&str> = self.queries().map(|query| query.name).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Error::new(
                ErrorKind::UnknownKey,
                format!("{shown:?} is not a parameter of this call, which has {known}"),
            )
            .field(name));
        };
        if query.takes.fits(value) {
            return Ok(query);
        }
        let shown: String = value.chars().take(40).collect();
        let takes = query.takes.in_words();
        Err(Error::new(
            ErrorKind::InvalidValue,
            format!("{name} was given {shown:?}, it takes: {takes}"),
        )
        .field(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::calls::CALLS;

    #[test]
    fn every_parameter_of_a_query_is_sorted_documented_and_used_once_by_a_call() {
        for pair in QUERIES.windows(2) {
            assert!(pair[0].name <= pair[1].name, "{} is out of order", pair[1].name);
        }
        for query in QUERIES {
            assert!(query.doc.ends_with('.'), "{}", query.name);
            let is_it = |known: &Query| (known.name, known.doc) == (query.name, query.doc);
            let has = |route: &Route| route.queries().any(is_it);
            assert!(CALLS.iter().any(has), "{}", query.name);
        }
        for route in CALLS.iter() {
            let mut names: Vec<&str> = route.queries().map(|query| query.name).collect();
            let all = names.len();
            names.dedup();
            assert_eq!(names.len(), all, "{} has one twice", route.path);
        }
    }

    #[test]
    fn a_value_that_a_parameter_does_not_take_is_refused_with_its_name() {
        let route = |path| crate::wire::calls::find(path).unwrap().0;
        for (path, name, value, kind) in [
            ("/drives/list", "limits", "1", ErrorKind::UnknownKey),
            ("/drives/list", "wait", "1", ErrorKind::UnknownKey),
            ("/profile/info", "limit", "1", ErrorKind::UnknownKey),
            ("/drives/list", "limit", "0", ErrorKind::InvalidValue),
            ("/drives/list", "limit", "10001", ErrorKind::InvalidValue),
            ("/drives/list", "after", "1", ErrorKind::InvalidValue),
            ("/resources/info", "after", "1", ErrorKind::InvalidValue),
            ("/drives/list", "status", "stopped", ErrorKind::InvalidValue),
            ("/usage/info", "after", "x", ErrorKind::InvalidValue),
            ("/usage/info", "from", "-1", ErrorKind::InvalidValue),
            ("/events/info", "wait", "61", ErrorKind::InvalidValue),
            ("/events/info", "after", "two words", ErrorKind::InvalidValue),
        ] {
            let refused = route(path).query(name, value).unwrap_err();
            assert_eq!((refused.kind(), refused.blamed_field()), (kind, Some(name)), "{value}");
        }
        for (path, name, value) in [
            ("/drives/list", "limit", "10000"),
            ("/servers/info", "status", "paused"),
            ("/resources/list", "after", "192.0.2.1"),
            ("/usage/info/all", "after", "-1"),
            ("/events/info/all", "after", "now"),
            ("/events/info", "wait", "60"),
        ] {
            assert_eq!(route(path).query(name, value).unwrap().name, name);
        }
    }
}
