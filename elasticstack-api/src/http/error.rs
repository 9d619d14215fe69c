//! The one place where an error becomes an HTTP answer: the table of statuses and keywords, and
//! both forms of the body.
//!
//! What leaves here is an error's public sentence, code and field. Its context and source go to
//! the log only, and once.

use axum::body::Body;
use axum::response::Response;
use elasticstack_core::error::{Chain, Error, ErrorClass};
use http::header::{CONTENT_TYPE, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{HeaderMap, StatusCode};

use super::request::accepts;

const X_ELASTIC_ERROR: HeaderName = HeaderName::from_static("x-elastic-error");

/// The longest field name that fits the error header.
const MAX_FIELD: usize = 100;

/// The status and the keyword of a class of errors, and after how many seconds to try again.
pub(crate) const fn status(class: ErrorClass) -> (StatusCode, &'static str, Option<u16>) {
    match class {
        ErrorClass::Invalid => (StatusCode::BAD_REQUEST, "usage", None),
        ErrorClass::Unauthenticated => (StatusCode::UNAUTHORIZED, "auth", None),
        ErrorClass::NeedsPayment => (StatusCode::PAYMENT_REQUIRED, "billing", None),
        ErrorClass::Forbidden => (StatusCode::FORBIDDEN, "quota", None),
        ErrorClass::NotFound => (StatusCode::NOT_FOUND, "missing", None),
        ErrorClass::Method => (StatusCode::METHOD_NOT_ALLOWED, "method", None),
        ErrorClass::NotAcceptable => (StatusCode::NOT_ACCEPTABLE, "usage", None),
        ErrorClass::Conflict => (StatusCode::CONFLICT, "busy", None),
        ErrorClass::Outdated => (StatusCode::PRECONDITION_FAILED, "busy", None),
        ErrorClass::Throttled => (StatusCode::TOO_MANY_REQUESTS, "busy", Some(1)),
        ErrorClass::Failed => (StatusCode::INTERNAL_SERVER_ERROR, "failed", None),
        ErrorClass::Internal => (StatusCode::INTERNAL_SERVER_ERROR, "system", None),
        ErrorClass::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "busy", Some(2)),
        ErrorClass::NoCapacity => (StatusCode::INSUFFICIENT_STORAGE, "full", None),
    }
}

/// Answers with `error`: one sentence of text, or the form of RFC 9457 to whoever names it.
pub(super) fn render(error: &Error, headers: &HeaderMap) -> Response {
    let (status, keyword, retry_after) = status(error.kind().class());
    let (content_type, body) = if accepts(headers, "application/problem+json") {
        ("application/problem+json", problem(error, status))
    } else {
        ("text/plain; charset=utf-8", format!("{}\n", error.public_message()))
    };
    let mut response = Response::new(Body::from(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(X_ELASTIC_ERROR, elastic_error(error, keyword));
    if let Some(seconds) = retry_after {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if status == StatusCode::UNAUTHORIZED {
        let challenge = HeaderValue::from_static("Basic realm=\"ElasticStack\"");
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
    response
}

/// Writes to the log what an operator can do something about. A client's own mistakes are told
/// to the client alone: their sentences quote what was sent, which may be a secret.
pub(super) fn log(error: &Error, request_id: &str, call: &'static str) {
    let chain = Chain(error);
    match error.kind().class() {
        ErrorClass::Internal => tracing::error!(%request_id, call, error = %chain, "call broke"),
        ErrorClass::Unavailable | ErrorClass::Failed => {
            tracing::warn!(%request_id, call, error = %chain, "call could not be served");
        }
        ErrorClass::Invalid
        | ErrorClass::Unauthenticated
        | ErrorClass::NeedsPayment
        | ErrorClass::Forbidden
        | ErrorClass::NotFound
        | ErrorClass::Method
        | ErrorClass::NotAcceptable
        | ErrorClass::Conflict
        | ErrorClass::Outdated
        | ErrorClass::Throttled
        | ErrorClass::NoCapacity => {
            tracing::debug!(%request_id, call, code = error.kind().code(), "call refused");
        }
    }
}

fn problem(error: &Error, status: StatusCode) -> String {
    let mut problem = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or_default(),
        "status": status.as_u16(),
        "detail": error.public_message(),
        "code": error.kind().code(),
    });
    if let Some(field) = error.blamed_field() {
        problem["field"] = field.into();
    }
    problem.to_string()
}

/// `KEYWORD code=CODE field=FIELD`. A field may be whatever a client sent as a key: one that is
/// not a plain word is left out.
fn elastic_error(error: &Error, keyword: &'static str) -> HeaderValue {
    let mut text = format!("{keyword} code={}", error.kind().code());
    if let Some(field) = error.blamed_field()
        && !field.is_empty()
        && field.len() <= MAX_FIELD
        && field.bytes().all(|byte| byte.is_ascii_graphic())
    {
        text.push_str(" field=");
        text.push_str(field);
    }
    HeaderValue::try_from(text).unwrap_or(HeaderValue::from_static(keyword))
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use elasticstack_core::error::ErrorKind;
    use http::header::ACCEPT;
    use http_body_util::BodyExt as _;
    use proptest::prelude::*;

    use super::*;

    fn accepting(accept: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))])
    }

    async fn body(response: Response) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    #[test]
    fn the_table_of_codes_is_golden() {
        let mut table = String::from("# code status keyword retryable retry-after\n");
        for kind in ErrorKind::ALL {
            let (status, keyword, retry_after) = status(kind.class());
            let retryable = if kind.retryable() { "retryable" } else { "final" };
            let after = retry_after.map_or("-".to_owned(), |seconds| seconds.to_string());
            let (code, status) = (kind.code(), status.as_u16());
            writeln!(table, "{code} {status} {keyword} {retryable} {after}").unwrap();
        }
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/error_codes.txt");
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            std::fs::write(path, &table).unwrap();
        }
        let golden = std::fs::read_to_string(path).unwrap_or_default();
        assert_eq!(table, golden, "refresh {path} with UPDATE_GOLDENS=1 if this is meant");
    }

    #[test]
    fn the_page_of_errors_has_every_code_with_its_status_and_keyword() {
        let page = include_str!("../../../docs/errors.md");
        let rows = page.lines().filter(|line| line.contains(" | `")).count();
        assert_eq!(rows, ErrorKind::ALL.len());
        for kind in ErrorKind::ALL {
            let (status, keyword, _) = status(kind.class());
            let row = format!("\n| {} | {keyword} | `{}` | ", status.as_u16(), kind.code());
            assert!(page.contains(&row), "no row like {row}");
        }
    }

    #[tokio::test]
    async fn no_internal_word_leaks_from_any_kind_of_error() {
        for kind in ErrorKind::ALL {
            for accept in ["text/plain", "application/json", "application/problem+json"] {
                let error = Error::new(kind, "what a stranger may read")
                    .context("writing /srv/canary")
                    .source(std::io::Error::other("disk canary"));
                let response = render(&error, &accepting(accept));
                let head = format!("{:?}", response.headers());
                let answer = head + &body(response).await;
                assert!(!answer.contains("canary"), "{kind:?}: {answer}");
                assert!(answer.contains("what a stranger may read"), "{kind:?}: {answer}");
            }
        }
    }

    #[tokio::test]
    async fn the_structured_form_is_for_whoever_names_it() {
        let error = Error::new(ErrorKind::MissingKey, "size is missing").field("size");
        let response = render(&error, &accepting("application/json, application/problem+json"));
        assert_eq!(response.headers()[CONTENT_TYPE], "application/problem+json");
        let problem: serde_json::Value = serde_json::from_str(&body(response).await).unwrap();
        assert_eq!(
            problem,
            serde_json::json!({
                "type": "about:blank", "title": "Bad Request", "status": 400,
                "detail": "size is missing", "code": "missing_key", "field": "size",
            })
        );
        let response = render(&error, &accepting("application/json"));
        assert_eq!(response.headers()[X_ELASTIC_ERROR], "usage code=missing_key field=size");
        assert_eq!(body(response).await, "size is missing\n");
    }

    proptest! {
        #[test]
        fn no_field_breaks_the_header(field in any::<String>(), kind in 0..ErrorKind::ALL.len()) {
            let error = Error::new(ErrorKind::ALL[kind], "no").field(field);
            let response = render(&error, &HeaderMap::new());
            let header = response.headers()[X_ELASTIC_ERROR].to_str().unwrap();
            prop_assert!(header.split(' ').count() <= 3, "{}", header);
        }
    }
}
