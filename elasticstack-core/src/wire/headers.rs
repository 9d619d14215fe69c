//! The one table of the headers that calls, answers and refusals carry, but for those that HTTP
//! itself needs. To add one, add its row; the documentation has them all.

use super::calls::Call;
use super::keys::Object;
use super::queries::EVENTS_CURSOR;
use super::route::{Answer, Effect, Route};

/// What carries a header.
#[derive(Debug, Clone, Copy)]
pub enum Carrier {
    /// These calls may.
    Call(fn(&Route) -> bool),
    /// An answer of these calls does.
    Answer(fn(&Route) -> bool),
    /// An answer of these calls may.
    AnswerAtTimes(fn(&Route) -> bool),
    /// A refusal with one of these statuses does, without any every one.
    Refusal(&'static [u16]),
    /// A refusal may.
    RefusalAtTimes,
}

impl Carrier {
    /// What carries it, for people.
    #[must_use]
    pub fn in_words(self) -> String {
        match self {
            Self::Call(_) => "calls".to_owned(),
            Self::Answer(_) => "answers".to_owned(),
            Self::AnswerAtTimes(_) => "answers, at times".to_owned(),
            Self::Refusal([]) => "refusals".to_owned(),
            Self::Refusal(statuses) => {
                let statuses: Vec<String> = statuses.iter().map(u16::to_string).collect();
                format!("refusals: {}", statuses.join(", "))
            }
            Self::RefusalAtTimes => "refusals, once it is known who asks".to_owned(),
        }
    }
}

/// What values a header takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderTakes {
    /// Any text.
    Text,
    /// 1 to so many visible ASCII characters.
    Visible(u16),
    /// A whole number.
    Whole,
}

/// The longest idempotency key.
pub const MAX_IDEMPOTENCY_KEY: u16 = 255;

/// One row of [`HEADERS`].
#[derive(Debug, Clone, Copy)]
pub struct Header {
    /// Its name.
    pub name: &'static str,
    /// What carries it.
    pub carrier: Carrier,
    /// What values it takes.
    pub takes: HeaderTakes,
    /// One sentence for the documentation.
    pub doc: &'static str,
}

const fn text(name: &'static str, carrier: Carrier, doc: &'static str) -> Header {
    Header { name, carrier, takes: HeaderTakes::Text, doc }
}

const fn whole(name: &'static str, carrier: Carrier, doc: &'static str) -> Header {
    Header { name, carrier, takes: HeaderTakes::Whole, doc }
}

const LIMIT: &str = "How many calls the account may make in a row.";
const REMAINING: &str = "How many of them are left.";
const RESET: &str = "In how many seconds all of them are there again.";
const REQUEST_ID: &str = "Names the request in the operator's log.";

/// Every header, in the order of their names.
pub const HEADERS: &[Header] = &[
    text(
        "Accept-Encoding",
        Carrier::Call(may_be_packed),
        "Where it names gzip, a drive's bytes are packed on their way.",
    ),
    text("Allow", Carrier::Refusal(&[405]), "The methods that the path has."),
    text(
        "Content-Encoding",
        Carrier::AnswerAtTimes(may_be_packed),
        "gzip where a drive's bytes are packed.",
    ),
    text(
        "ETag",
        Carrier::Answer(tells_version),
        "The version of the object, in quotes, for If-Match.",
    ),
    text(
        EVENTS_CURSOR,
        Carrier::Answer(tells_events),
        "Where the events go on: give it as after, also if there was none.",
    ),
    Header {
        name: "Idempotency-Key",
        carrier: Carrier::Call(Route::is_remembered),
        takes: HeaderTakes::Visible(MAX_IDEMPOTENCY_KEY),
        doc: "The call is done once for each key within 24 hours.",
    },
    text(
        "Idempotent-Replayed",
        Carrier::AnswerAtTimes(Route::is_remembered),
        "true where the answer is that of an earlier call under the same key.",
    ),
    text(
        "If-Match",
        Carrier::Call(takes_version),
        "The call is done if the object is at one of these versions, or, for *, at any.",
    ),
    text(
        "Last-Event-ID",
        Carrier::Call(tells_events),
        "Of a stream of events: begin behind this cursor, whatever after says.",
    ),
    whole("RateLimit-Limit", Carrier::Answer(every), LIMIT),
    whole("RateLimit-Limit", Carrier::RefusalAtTimes, LIMIT),
    whole("RateLimit-Remaining", Carrier::Answer(every), REMAINING),
    whole("RateLimit-Remaining", Carrier::RefusalAtTimes, REMAINING),
    whole("RateLimit-Reset", Carrier::Answer(every), RESET),
    whole("RateLimit-Reset", Carrier::RefusalAtTimes, RESET),
    whole(
        "Retry-After",
        Carrier::Refusal(&[429, 503]),
        "After how many seconds to repeat the call.",
    ),
    text(
        "Vary",
        Carrier::Answer(may_be_packed),
        "Accept-Encoding: it says whether a drive's bytes are packed.",
    ),
    text(
        "WWW-Authenticate",
        Carrier::Refusal(&[401]),
        "The scheme of credentials that every client has; a token goes by Bearer too.",
    ),
    text(
        "X-Elastic-Error",
        Carrier::Refusal(&[]),
        "The keyword, the code, and the key or parameter to blame if there is one.",
    ),
    text("X-Request-Id", Carrier::Answer(every), REQUEST_ID),
    text(
        "X-Request-Id",
        Carrier::Call(every),
        "Names the request in the answer and in the operator's log, if it is 1 to 128 letters, \
         digits, -, _ and .; else it is given a name.",
    ),
    text("X-Request-Id", Carrier::Refusal(&[]), REQUEST_ID),
];

const fn every(_: &Route) -> bool {
    true
}

fn may_be_packed(route: &Route) -> bool {
    route.call == Call::DriveRead
}

fn tells_events(route: &Route) -> bool {
    route.answer == Answer::Many(Object::Event)
}

fn tells_version(route: &Route) -> bool {
    let is_info = route.effect == Effect::Reads && matches!(route.answer, Answer::One(_));
    is_info && route.versioned().is_some()
}

fn takes_version(route: &Route) -> bool {
    route.is_remembered() && route.versioned().is_some()
}

impl Route {
    /// The headers that a call of this may carry.
    pub fn headers(&self) -> impl Iterator<Item = &'static Header> {
        HEADERS.iter().filter(|header| match header.carrier {
            Carrier::Call(of) => of(self),
            Carrier::Answer(_)
            | Carrier::AnswerAtTimes(_)
            | Carrier::Refusal(_)
            | Carrier::RefusalAtTimes => false,
        })
    }

    /// The headers that an answer of this carries, and whether it always does.
    pub fn answer_headers(&self) -> impl Iterator<Item = (&'static Header, bool)> {
        HEADERS.iter().filter_map(|header| match header.carrier {
            Carrier::Answer(of) => of(self).then_some((header, true)),
            Carrier::AnswerAtTimes(of) => of(self).then_some((header, false)),
            Carrier::Call(_) | Carrier::Refusal(_) | Carrier::RefusalAtTimes => None,
        })
    }
}

/// The headers that a refusal with this status carries, and whether it always does.
pub fn refusal_headers(status: u16) -> impl Iterator<Item = (&'static Header, bool)> {
    HEADERS.iter().filter_map(move |header| match header.carrier {
        Carrier::Refusal(statuses) => {
            (statuses.is_empty() || statuses.contains(&status)).then_some((header, true))
        }
        Carrier::RefusalAtTimes => Some((header, false)),
        Carrier::Call(_) | Carrier::Answer(_) | Carrier::AnswerAtTimes(_) => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::calls::CALLS;

    #[test]
    fn every_header_is_sorted_documented_and_carried() {
        for pair in HEADERS.windows(2) {
            let [one, next] = [pair[0].name, pair[1].name].map(str::to_ascii_lowercase);
            assert!(one <= next, "{next} is out of order");
        }
        for header in HEADERS {
            assert!(header.doc.ends_with('.'), "{}", header.name);
            let is_carried = match header.carrier {
                Carrier::Call(of) | Carrier::Answer(of) | Carrier::AnswerAtTimes(of) => {
                    CALLS.iter().any(of)
                }
                Carrier::Refusal(_) | Carrier::RefusalAtTimes => true,
            };
            assert!(is_carried, "{}", header.name);
        }
    }
}
