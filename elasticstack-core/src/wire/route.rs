//! What a row of the table of calls says. The rows themselves are in [`super::calls`].

use super::calls::Call;
use super::keys::Object;
use super::parameters::{self, Parameter};

/// Whether a call changes anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It reads: GET and POST both do.
    Reads,
    /// It changes: POST only.
    Changes,
}

/// Whose credentials a call needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// Any account's.
    Customer,
    /// An operator's.
    Operator,
}

impl Scope {
    /// The word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Operator => "operator",
        }
    }

    /// The scope of this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<Self> {
        [Self::Customer, Self::Operator].into_iter().find(|scope| scope.as_str() == word)
    }

    /// Whether credentials of this scope cover a call that needs `needed`.
    #[must_use]
    pub const fn covers(self, needed: Self) -> bool {
        matches!((self, needed), (Self::Operator, _) | (Self::Customer, Self::Customer))
    }
}

/// What a call's body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// None; whatever is sent is ignored.
    Ignored,
    /// A record of this object's keys.
    Record(Object),
    /// Raw bytes, or gzip of them by `Content-Encoding`.
    Bytes,
}

/// What a call answers when it succeeds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// 200 and one record.
    One(Object),
    /// 200 and all records.
    Many(Object),
    /// 200 and all ids.
    Ids(Object),
    /// 200 and raw bytes.
    Bytes,
    /// 204 and nothing.
    Nothing,
}

/// One row of [`CALLS`](super::calls::CALLS).
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// Which call.
    pub call: Call,
    /// Its path; a segment in capitals is a parameter.
    pub path: &'static str,
    /// Whether it changes anything.
    pub effect: Effect,
    /// Whose credentials it needs.
    pub scope: Scope,
    /// What it is sent.
    pub body: Body,
    /// What it answers.
    pub answer: Answer,
    /// One sentence for the documentation.
    pub doc: &'static str,
    /// The first version of the API that has it.
    pub since: &'static str,
}

const FIRST: &str = "0.1.0";

/// A call that reads.
pub(super) const fn read(
    call: Call,
    path: &'static str,
    answer: Answer,
    doc: &'static str,
) -> Route {
    Route {
        call,
        path,
        effect: Effect::Reads,
        scope: Scope::Customer,
        body: Body::Ignored,
        answer,
        doc,
        since: FIRST,
    }
}

/// A call that changes something.
pub(super) const fn change(
    call: Call,
    path: &'static str,
    body: Body,
    answer: Answer,
    doc: &'static str,
) -> Route {
    Route {
        call,
        path,
        effect: Effect::Changes,
        scope: Scope::Customer,
        body,
        answer,
        doc,
        since: FIRST,
    }
}

impl Route {
    pub(super) const fn for_operators(mut self) -> Self {
        self.scope = Scope::Operator;
        self
    }

    /// The parameters of its path, in order.
    pub fn parameters(&self) -> impl Iterator<Item = &'static Parameter> {
        let names = self.path.split('/').filter(|segment| is_parameter(segment));
        // Every name has a row: a test walks them.
        names.filter_map(parameters::find)
    }

    /// Whether the call is done once for each idempotency key. The bytes of a write are not kept,
    /// and writing them twice is writing them once.
    #[must_use]
    pub fn is_remembered(&self) -> bool {
        self.effect == Effect::Changes && self.body != Body::Bytes
    }

    /// The kind of the object that its path is about, if that has versions.
    #[must_use]
    pub fn versioned(&self) -> Option<Object> {
        match self.path.split('/').nth(2) {
            Some("DRIVE") => Some(Object::Drive),
            Some("SNAPSHOT") => Some(Object::Snapshot),
            Some("SERVER") => Some(Object::Server),
            _ => None,
        }
    }

    /// Whether a record that it takes changes an object, rather than makes one.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.path.ends_with("/set")
    }
}

/// Whether a segment of a path is a parameter: it begins with a capital.
pub(super) fn is_parameter(segment: &str) -> bool {
    segment.bytes().next().is_some_and(|byte| byte.is_ascii_uppercase())
}
