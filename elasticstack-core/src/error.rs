//! The one error that crosses crates: what a client may read, apart from what an operator needs.
//!
//! A boundary inside a crate has its own precise enum; it becomes an [`Error`] where it leaves
//! the crate. There is no `From<io::Error>` on purpose: each site says what it was doing.

use std::error::Error as StdError;
use std::fmt;

/// The result of what may fail with an [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why something asked for did not happen.
///
/// `Display` shows the client's sentence only. [`Chain`] shows everything, for logs; so does whoever
/// follows the sources, of which the context is the first.
#[expect(clippy::error_impl_error, reason = "this is the one error that crosses crates")]
pub struct Error(Box<Parts>);

struct Parts {
    kind: ErrorKind,
    public: String,
    field: Option<String>,
    cause: Cause,
}

/// What an operator is told: a source of its own if there is a context.
#[derive(Default)]
struct Cause {
    context: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error whose `public` sentence a stranger may read: what was asked, what was found or
    /// what the limit is, and what to do. Lower case, no full stop, no secret, no path.
    #[must_use]
    pub fn new(kind: ErrorKind, public: impl Into<String>) -> Self {
        Self(Box::new(Parts { kind, public: public.into(), field: None, cause: Cause::default() }))
    }

    /// Something of ours went wrong. The client is told no more than that; `context` and the
    /// source go to the log.
    #[must_use]
    pub fn internal(context: impl Into<String>) -> Self {
        Self::new(ErrorKind::Internal, "internal error, not your doing: try again later")
            .context(context)
    }

    /// Names the key or parameter of the request that is to blame.
    #[must_use]
    pub fn field(mut self, field: impl Into<String>) -> Self {
        self.0.field = Some(field.into());
        self
    }

    /// Adds what an operator needs to know and a client must not. The latest comes first.
    #[must_use]
    pub fn context(mut self, context: impl Into<String>) -> Self {
        let context = context.into();
        self.0.cause.context = Some(match self.0.cause.context.take() {
            Some(inner) => format!("{context}: {inner}"),
            None => context,
        });
        self
    }

    /// Adds the error that caused this one, for the log.
    #[must_use]
    pub fn source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.0.cause.source = Some(source.into());
        self
    }

    /// What kind of failure this is.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// The sentence for the client.
    #[must_use]
    pub fn public_message(&self) -> &str {
        &self.0.public
    }

    /// The key or parameter to blame, where there is one.
    #[must_use]
    pub fn blamed_field(&self) -> Option<&str> {
        self.0.field.as_deref()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.public)
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", Chain(self))
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        let cause = &self.0.cause;
        if cause.context.is_some() { Some(cause) } else { cause.source() }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.context.as_deref().unwrap_or_default())
    }
}

impl fmt::Debug for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl StdError for Cause {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.source.as_deref().map(|source| source as _)
    }
}

/// Prints an error with its context and every source, for logs and operators only.
pub struct Chain<'a>(pub &'a Error);

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts = &self.0.0;
        write!(f, "{}: {}", parts.kind.code(), parts.public)?;
        if let Some(context) = &parts.cause.context {
            write!(f, " [{context}]")?;
        }
        let mut source = parts.cause.source();
        while let Some(error) = source {
            write!(f, ": {error}")?;
            source = error.source();
        }
        Ok(())
    }
}

impl fmt::Debug for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// What went wrong, in words stable enough to program against ([`ErrorKind::code`]).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// An operator suspended the account: it changes nothing.
    AccountSuspended,
    /// The credentials are missing or wrong.
    BadCredentials,
    /// The object changed since the caller looked.
    ChangedMeanwhile,
    /// What comes after a cursor is no longer known whole.
    CursorLost,
    /// A drive is claimed by a server or a job.
    DriveInUse,
    /// The drive was taken over by a newer epoch.
    Fenced,
    /// Something of ours failed.
    Internal,
    /// A value is outside what its key allows.
    InvalidValue,
    /// The work was begun and ended without success.
    JobFailed,
    /// An idempotency key was used for another request before.
    KeyReused,
    /// The request's body cannot be read as what it says it is.
    MalformedBody,
    /// A read was asked for a call that changes something.
    MethodNotAllowed,
    /// A key that the call needs is absent.
    MissingKey,
    /// No host or array has room.
    NoCapacity,
    /// The answer has no form that the caller accepts.
    NotAcceptable,
    /// There is no such object or call, or it belongs to somebody else.
    NotFound,
    /// A key that promises something which this installation does not honour.
    NotOffered,
    /// The caller's credentials do not cover this.
    OutOfScope,
    /// The biller refused.
    PaymentRequired,
    /// The object is not at the version that the caller has seen.
    PreconditionFailed,
    /// The account's limit is reached.
    QuotaExceeded,
    /// A static IP or a VLAN is used by a server.
    ResourceInUse,
    /// A server is in a state in which this cannot be done.
    ServerBusy,
    /// The change carries an older generation than the object has.
    Stale,
    /// Too many requests.
    Throttled,
    /// A host or service did not answer in time.
    Unavailable,
    /// A key that no table knows.
    UnknownKey,
}

impl ErrorKind {
    /// Every kind, for tables and tests.
    pub const ALL: [Self; 27] = [
        Self::AccountSuspended,
        Self::BadCredentials,
        Self::ChangedMeanwhile,
        Self::CursorLost,
        Self::DriveInUse,
        Self::Fenced,
        Self::Internal,
        Self::InvalidValue,
        Self::JobFailed,
        Self::KeyReused,
        Self::MalformedBody,
        Self::MethodNotAllowed,
        Self::MissingKey,
        Self::NoCapacity,
        Self::NotAcceptable,
        Self::NotFound,
        Self::NotOffered,
        Self::OutOfScope,
        Self::PaymentRequired,
        Self::PreconditionFailed,
        Self::QuotaExceeded,
        Self::ResourceInUse,
        Self::ServerBusy,
        Self::Stale,
        Self::Throttled,
        Self::Unavailable,
        Self::UnknownKey,
    ];

    /// The word that programs match on, on both APIs.
    #[must_use]
    pub const fn code(self) -> &'static str {
        match self {
            Self::AccountSuspended => "account_suspended",
            Self::BadCredentials => "bad_credentials",
            Self::ChangedMeanwhile => "changed_meanwhile",
            Self::CursorLost => "cursor_lost",
            Self::DriveInUse => "drive_in_use",
            Self::Fenced => "fenced",
            Self::Internal => "internal",
            Self::InvalidValue => "invalid_value",
            Self::JobFailed => "job_failed",
            Self::KeyReused => "key_reused",
            Self::MalformedBody => "malformed_body",
            Self::MethodNotAllowed => "method_not_allowed",
            Self::MissingKey => "missing_key",
            Self::NoCapacity => "no_capacity",
            Self::NotAcceptable => "not_acceptable",
            Self::NotFound => "not_found",
            Self::NotOffered => "not_offered",
            Self::OutOfScope => "out_of_scope",
            Self::PaymentRequired => "payment_required",
            Self::PreconditionFailed => "precondition_failed",
            Self::QuotaExceeded => "quota_exceeded",
            Self::ResourceInUse => "resource_in_use",
            Self::ServerBusy => "server_busy",
            Self::Stale => "stale",
            Self::Throttled => "throttled",
            Self::Unavailable => "unavailable",
            Self::UnknownKey => "unknown_key",
        }
    }

    /// The kind with this [`ErrorKind::code`].
    #[must_use]
    pub fn from_code(code: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.code() == code)
    }

    /// Whose turn it is now: the coarse class that decides a protocol's status.
    #[must_use]
    pub const fn class(self) -> ErrorClass {
        match self {
            Self::CursorLost
            | Self::InvalidValue
            | Self::MalformedBody
            | Self::MissingKey
            | Self::NotOffered
            | Self::UnknownKey => ErrorClass::Invalid,
            Self::BadCredentials => ErrorClass::Unauthenticated,
            Self::PaymentRequired => ErrorClass::NeedsPayment,
            Self::AccountSuspended | Self::OutOfScope | Self::QuotaExceeded => {
                ErrorClass::Forbidden
            }
            Self::NotFound => ErrorClass::NotFound,
            Self::MethodNotAllowed => ErrorClass::Method,
            Self::NotAcceptable => ErrorClass::NotAcceptable,
            Self::ChangedMeanwhile
            | Self::DriveInUse
            | Self::Fenced
            | Self::ResourceInUse
            | Self::KeyReused
            | Self::ServerBusy
            | Self::Stale => ErrorClass::Conflict,
            Self::PreconditionFailed => ErrorClass::Outdated,
            Self::Throttled => ErrorClass::Throttled,
            Self::JobFailed => ErrorClass::Failed,
            Self::Internal => ErrorClass::Internal,
            Self::Unavailable => ErrorClass::Unavailable,
            Self::NoCapacity => ErrorClass::NoCapacity,
        }
    }

    /// Whether the same request may succeed later without a change of the caller's.
    #[must_use]
    pub const fn retryable(self) -> bool {
        if matches!(self, Self::KeyReused) {
            return false;
        }
        match self.class() {
            ErrorClass::Conflict
            | ErrorClass::Throttled
            | ErrorClass::Unavailable
            | ErrorClass::Internal
            | ErrorClass::NoCapacity => true,
            ErrorClass::Invalid
            | ErrorClass::Unauthenticated
            | ErrorClass::NeedsPayment
            | ErrorClass::Forbidden
            | ErrorClass::NotFound
            | ErrorClass::Method
            | ErrorClass::NotAcceptable
            | ErrorClass::Outdated
            | ErrorClass::Failed => false,
        }
    }
}

/// The class of an error. Exhaustive on purpose: a protocol's table of statuses has no default.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The request is wrong.
    Invalid,
    /// Nobody known asks.
    Unauthenticated,
    /// Money is missing.
    NeedsPayment,
    /// Known, but not allowed: scope, quota or suspension.
    Forbidden,
    /// Nothing there that the caller may see.
    NotFound,
    /// The wrong method for the call.
    Method,
    /// No acceptable form of the answer.
    NotAcceptable,
    /// In use, or changed meanwhile.
    Conflict,
    /// The caller has seen another version.
    Outdated,
    /// Too fast.
    Throttled,
    /// Tried, and ended without success.
    Failed,
    /// Our fault.
    Internal,
    /// Out of reach at the moment.
    Unavailable,
    /// No room.
    NoCapacity,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_client_sees_its_sentence_and_the_log_sees_the_chain() {
        let error = Error::internal("inner")
            .context("writing /srv/canary")
            .source(std::io::Error::other("disk canary"));
        assert!(!error.to_string().contains("canary"));
        let chain = Chain(&error).to_string();
        assert_eq!(
            chain,
            "internal: internal error, not your doing: try again later \
             [writing /srv/canary: inner]: disk canary"
        );
        let first = StdError::source(&error);
        let sources = std::iter::successors(first, |&source| source.source());
        let told: Vec<_> = sources.map(ToString::to_string).collect();
        assert_eq!(told, ["writing /srv/canary: inner", "disk canary"]);
        let bare = Error::new(ErrorKind::Stale, "older").source(std::io::Error::other("disk"));
        assert_eq!(StdError::source(&bare).map(ToString::to_string).as_deref(), Some("disk"));
    }

    #[test]
    fn every_code_names_one_kind() {
        for kind in ErrorKind::ALL {
            assert_eq!(ErrorKind::from_code(kind.code()), Some(kind));
        }
    }
}
