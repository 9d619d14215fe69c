//! What holds for every request and every answer: a change comes from one of our own pages, an
//! answer tells the browser to run nothing and to be framed by nobody, and a [`Fault`] becomes a
//! page.
//!
//! A change is believed if the browser says `Sec-Fetch-Site: same-origin`, or else if its `Origin`
//! is the host it asks. A request with neither is refused: every browser that we support sends
//! one. Forms of a session carry its token besides ([`crate::request`]).

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use http::Method;
use http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::Scheme;
use crate::app::App;
use crate::fault::Fault;
use crate::request::ended_cookie;

const POLICY: &str = "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

/// Sent with every answer. `same-origin` rather than no referrer: without any, browsers would hide
/// the `Origin` of our own forms.
const HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// The middleware around all pages.
pub(crate) async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let reads = matches!(*request.method(), Method::GET | Method::HEAD);
    let response = if reads || is_from_our_page(request.headers()) {
        next.run(request).await
    } else {
        Fault::Forged.into_response()
    };
    let mut response = match response.extensions().get::<Fault>() {
        Some(fault) => shown(&app, &fault.clone()),
        None => response,
    };
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    if app.scheme == Scheme::Https {
        let year = HeaderValue::from_static("max-age=31536000");
        headers.insert(header::STRICT_TRANSPORT_SECURITY, year);
    }
    response
}

fn shown(app: &App, fault: &Fault) -> Response {
    match fault {
        Fault::LoggedOut => {
            let cookie = (header::SET_COOKIE, ended_cookie(app.scheme));
            (fault.status(), [(header::LOCATION, "/login".to_owned()), cookie]).into_response()
        }
        fault => (fault.status(), app.view.fault(fault)).into_response(),
    }
}

fn is_from_our_page(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value: &HeaderValue| value.to_str().ok());
    match text(HeaderName::from_static("sec-fetch-site")) {
        Some(site) => site == "same-origin",
        None => {
            let from = text(header::ORIGIN).and_then(|origin| origin.split_once("://"));
            from.is_some_and(|(_, host)| Some(host) == text(header::HOST))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_is_believed_from_our_own_pages_only() {
        let table: [(&[(&str, &str)], bool); 8] = [
            (&[("sec-fetch-site", "same-origin")], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://h:1"), ("host", "h:1")], false),
            (&[("sec-fetch-site", "same-site")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("origin", "http://h:1"), ("host", "h:1")], true),
            (&[("origin", "http://evil:1"), ("host", "h:1")], false),
            (&[("origin", "null"), ("host", "null")], false),
            (&[("host", "h:1")], false),
        ];
        for (lines, believed) in table {
            let mut headers = HeaderMap::new();
            for (name, value) in lines {
                headers.insert(*name, value.parse().unwrap());
            }
            assert_eq!(is_from_our_page(&headers), believed, "{lines:?}");
        }
    }
}
