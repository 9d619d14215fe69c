//! Why a request got no page, and the page it gets instead. The wording for every refusal of ours
//! stands here; an API's refusal comes with its own sentence.
//!
//! A handler only returns a [`Fault`]; [`crate::guard`] makes a page of it, because that needs the
//! brand.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use elasticstack_core::error::{Chain, Error, ErrorClass, ErrorKind};
use http::StatusCode;

/// Why there is no page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// Nobody is logged in.
    LoggedOut,
    /// The form does not come from one of our own pages.
    Forged,
    /// There is nothing under this address.
    Missing,
    /// Too many logins.
    Throttled(Duration),
    /// The API said no, in this sentence.
    Refused { status: StatusCode, sentence: String },
    /// Ours.
    Broken,
}

impl Fault {
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::LoggedOut => StatusCode::SEE_OTHER,
            Self::Forged => StatusCode::FORBIDDEN,
            Self::Missing => StatusCode::NOT_FOUND,
            Self::Throttled(_) => StatusCode::TOO_MANY_REQUESTS,
            Self::Refused { status, .. } => *status,
            Self::Broken => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }

    pub(crate) fn title(&self) -> &'static str {
        match self {
            Self::LoggedOut => "Please log in",
            Self::Forged => "This form was not sent from here",
            Self::Missing => "There is nothing here",
            Self::Throttled(_) => "Too many attempts",
            Self::Refused { .. } => "That did not work",
            Self::Broken => "Something of ours failed",
        }
    }

    pub(crate) fn sentence(&self) -> String {
        match self {
            Self::LoggedOut => "You are logged out.".to_owned(),
            Self::Forged => {
                "Go back, reload the page and send the form again. If you did not send one, \
                 nothing was changed."
                    .to_owned()
            }
            Self::Missing => "It may have been destroyed, or it was never yours.".to_owned(),
            Self::Throttled(wait) => {
                let minutes = wait.as_secs().div_ceil(60);
                format!("Logging in was tried too often. Wait {minutes} min and try again.")
            }
            Self::Refused { sentence, .. } => sentence.clone(),
            Self::Broken => "It is not your doing. Try again later.".to_owned(),
        }
    }

    pub(crate) fn template(error: &tera::Error) -> Self {
        tracing::error!(error = error.to_string(), "a template can't be filled");
        Self::Broken
    }
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        if error.kind() == ErrorKind::BadCredentials {
            // The key was changed since: the session is worth nothing.
            return Self::LoggedOut;
        }
        let status = match error.kind().class() {
            ErrorClass::NotFound => return Self::Missing,
            ErrorClass::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            ErrorClass::Internal => StatusCode::BAD_GATEWAY,
            ErrorClass::Throttled => StatusCode::TOO_MANY_REQUESTS,
            ErrorClass::NoCapacity => StatusCode::INSUFFICIENT_STORAGE,
            ErrorClass::Conflict | ErrorClass::Outdated | ErrorClass::Failed => {
                StatusCode::CONFLICT
            }
            ErrorClass::NeedsPayment => StatusCode::PAYMENT_REQUIRED,
            ErrorClass::Forbidden => StatusCode::FORBIDDEN,
            ErrorClass::Invalid
            | ErrorClass::Unauthenticated
            | ErrorClass::Method
            | ErrorClass::NotAcceptable => StatusCode::BAD_REQUEST,
        };
        if status.is_server_error() {
            tracing::warn!(error = %Chain(&error), "the API refused");
        }
        Self::Refused { status, sentence: sentence(&error) }
    }
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let mut response = self.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}

/// The API's words for a person: a capital first, a full stop last.
pub(crate) fn sentence(error: &Error) -> String {
    let text = error.public_message().trim();
    let mut characters = text.chars();
    let first: String = characters.next().into_iter().flat_map(char::to_uppercase).collect();
    let end = if text.ends_with(['.', '!', '?']) { "" } else { "." };
    format!("{first}{}{end}", characters.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_apis_words_become_a_sentence_and_its_insides_stay_inside() {
        let error = Error::new(ErrorKind::DriveInUse, "it is in use: stop the server first")
            .context("canary");
        let Fault::Refused { status, sentence } = Fault::from(error) else { panic!() };
        assert_eq!(sentence, "It is in use: stop the server first.");
        assert_eq!(status, StatusCode::CONFLICT);
        assert_eq!(Fault::from(Error::new(ErrorKind::BadCredentials, "x")), Fault::LoggedOut);
        assert_eq!(Fault::from(Error::new(ErrorKind::NotFound, "x")), Fault::Missing);
    }
}
