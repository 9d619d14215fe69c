//! The description of the API, for machines at `/openapi.json` and for people at `/docs`: without
//! credentials, made once.

use std::sync::LazyLock;

use axum::body::Body;
use axum::response::Response;
use elasticstack_core::error::{Error, ErrorKind, Result};
use http::Method;
use http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS};

use crate::openapi;

/// The methods of a document, as the header `Allow` lists them.
pub(super) const METHODS: &str = "GET, HEAD";

static MACHINES: LazyLock<String> = LazyLock::new(|| openapi::document().to_string());
static PEOPLE: LazyLock<String> = LazyLock::new(openapi::html);

/// What is read at a path that is no call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Document {
    /// OpenAPI.
    Machines,
    /// HTML.
    People,
}

impl Document {
    /// The document at `path`.
    pub(super) fn at(path: &str) -> Option<Self> {
        // Slashes are tolerated as in the paths of calls.
        match path.trim_matches('/') {
            "openapi.json" => Some(Self::Machines),
            "docs" => Some(Self::People),
            _ => None,
        }
    }

    /// Answers with it.
    ///
    /// # Errors
    /// `MethodNotAllowed` for all but [`METHODS`].
    pub(super) fn answer(self, method: &Method) -> Result<Response> {
        if !matches!(*method, Method::GET | Method::HEAD) {
            let refused = format!("a document is read with {METHODS}");
            return Err(Error::new(ErrorKind::MethodNotAllowed, refused));
        }
        let (text, content_type) = match self {
            Self::Machines => (&*MACHINES, "application/json"),
            Self::People => (&*PEOPLE, "text/html; charset=utf-8"),
        };
        let mut response = Response::new(Body::from(text.as_str()));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        let policy = format!(
            "default-src 'none'; style-src '{}'; base-uri 'none'; form-action 'none'; \
             frame-ancestors 'none'",
            openapi::style_hash()
        );
        let policy = HeaderValue::try_from(policy)
            .map_err(|error| Error::internal("writing a policy").source(error))?;
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        Ok(response)
    }
}
