//! Reads requests: credentials, method, what form of answer is wanted, the parameters of a path
//! and the record in a body. Pure; the bytes are collected by [`super::body`].
//!
//! The forms of request and answer are negotiated apart from each other, and leniently, because
//! old clients send many odd types: everything that is not JSON or a form is `KEY VALUE` lines.

use std::str::FromStr;
use std::time::Duration;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use elasticstack_core::id::{DriveKind, IdKind, TypedId};
use elasticstack_core::prelude::*;
use elasticstack_core::wire::calls::{Effect, Route};
use elasticstack_core::wire::headers::MAX_IDEMPOTENCY_KEY;
use elasticstack_core::wire::keys::{self, Object};
use elasticstack_core::wire::parameters::Names;
use elasticstack_core::wire::record::Record;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderName, IF_MATCH};
use http::{HeaderMap, Method};
use uuid::Uuid;

use super::Credentials;
use crate::app::Page;
use crate::db::Subject;

/// The most lines that a record's body may have.
const MAX_LINES: usize = 10_000;

/// The longest name of a request that a client may choose.
const MAX_REQUEST_ID: usize = 128;

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// Clients pad or do not.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The form of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// JSON, if `application/json` is accepted by name.
    Json,
    /// Lines of text, for everybody else.
    Text,
}

impl Format {
    pub(super) fn accepted(headers: &HeaderMap) -> Self {
        if accepts(headers, "application/json") { Self::Json } else { Self::Text }
    }
}

/// Whether the caller names this media type.
pub(super) fn accepts(headers: &HeaderMap, media_type: &str) -> bool {
    headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .any(|range| essence(range).eq_ignore_ascii_case(media_type))
}

/// Refuses a method that this call does not have: POST always is one, GET is one for reads.
pub(super) fn check_method(route: &Route, method: &Method) -> Result<()> {
    match (route.effect, method) {
        (_, &Method::POST) | (Effect::Reads, &Method::GET) => Ok(()),
        (effect, _) => Err(Error::new(
            ErrorKind::MethodNotAllowed,
            format!("{} is called with {}", route.path, allowed(effect)),
        )),
    }
}

/// The methods of a call, as the header `Allow` lists them.
pub(super) fn allowed(effect: Effect) -> &'static str {
    match effect {
        Effect::Reads => "GET, POST",
        Effect::Changes => "POST",
    }
}

/// Who says he asks.
pub(super) fn credentials(headers: &HeaderMap) -> Result<Credentials> {
    let refused = || {
        Error::new(
            ErrorKind::BadCredentials,
            "the credentials are missing or wrong: send HTTP Basic with your account's UUID as \
             user and its secret key or a token as password, or a token as Bearer",
        )
    };
    let header = headers.get(AUTHORIZATION).ok_or_else(refused)?;
    let (scheme, encoded) =
        header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(refused)?;
    if scheme.eq_ignore_ascii_case("bearer") {
        return Ok(Credentials { account: None, key: Secret::new(encoded.trim()) });
    }
    if !scheme.eq_ignore_ascii_case("basic") {
        return Err(refused());
    }
    let decoded = BASE64.decode(encoded.trim()).map_err(|_| refused())?;
    let decoded = String::from_utf8(decoded).map_err(|_| refused())?;
    let (user, password) = decoded.split_once(':').ok_or_else(refused)?;
    let account = user.parse().map(Some).map_err(|_| refused())?;
    Ok(Credentials { account, key: Secret::new(password) })
}

/// What the request is called in the answer and in the log: as the client says, if that is a plain
/// word, or a new one.
pub(super) fn id(headers: &HeaderMap) -> String {
    let given = headers.get("x-request-id").and_then(|value| value.to_str().ok());
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    given
        .filter(|id| (1..=MAX_REQUEST_ID).contains(&id.len()) && id.bytes().all(plain))
        .map_or_else(|| Uuid::new_v4().to_string(), str::to_owned)
}

/// The key under which the caller wants its call done once.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<&str>> {
    let mut given = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(key) = given.next() else { return Ok(None) };
    key.to_str()
        .ok()
        .filter(|key| {
            given.next().is_none()
                && (1..=usize::from(MAX_IDEMPOTENCY_KEY)).contains(&key.len())
                && key.bytes().all(|byte| byte.is_ascii_graphic())
        })
        .map(Some)
        .ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidValue,
                format!(
                    "the Idempotency-Key is not one that is taken: give one of 1 to \
                     {MAX_IDEMPOTENCY_KEY} visible ASCII characters, such as a new UUID"
                ),
            )
            .field("Idempotency-Key")
        })
}

/// The parameters of a path, in the order of its capital segments.
#[derive(Debug)]
pub(super) struct Parameters<'a>(pub(super) Vec<&'a str>);

impl Parameters<'_> {
    fn at(&self, index: usize) -> &str {
        self.0.get(index).copied().unwrap_or_default()
    }

    /// The object that a parameter names. What is no id names nothing.
    pub(super) fn id<K: IdKind>(&self, index: usize) -> Result<TypedId<K>> {
        TypedId::from_str(self.at(index)).map_err(|error| {
            Error::new(ErrorKind::NotFound, format!("the {} could not be found: {error}", K::NAME))
        })
    }

    /// The whole number that a parameter is, which is at least 1.
    pub(super) fn amount(&self, index: usize, field: &'static str) -> Result<u32> {
        let given = self.at(index);
        let plain = given.bytes().all(|byte| byte.is_ascii_digit());
        given.parse().ok().filter(|amount| plain && *amount > 0).ok_or_else(|| {
            let shown: String = given.chars().take(40).collect();
            Error::new(
                ErrorKind::InvalidValue,
                format!(
                    "{field} was given {shown:?}, it takes a whole number from 1 to {}",
                    u32::MAX
                ),
            )
            .field(field)
        })
    }

    /// The size or offset that a parameter is, which may carry k, M, G or T.
    pub(super) fn size(&self, index: usize, field: &'static str) -> Result<Bytes> {
        let given = self.at(index);
        keys::parse_size(given).ok_or_else(|| {
            let shown: String = given.chars().take(40).collect();
            let limit = i64::MAX;
            Error::new(
                ErrorKind::InvalidValue,
                format!(
                    "{field} was given {shown:?}, it takes bytes: a whole number up to {limit} \
                     with an optional suffix k, M, G or T"
                ),
            )
            .field(field)
        })
    }
}

/// The part of a list that a query asks for.
///
/// # Errors
/// `UnknownKey` for a parameter that the call does not have; `InvalidValue`.
pub(super) fn page(route: &Route, query: Option<&str>) -> Result<Page> {
    let mut page = Page::default();
    for (key, value) in Record::from_form(query.unwrap_or_default().as_bytes())?.iter() {
        let query = route.query(key, value)?;
        let text = Some(value.to_owned());
        let number = value.parse::<u32>().ok();
        let instant = number.map(|seconds| Timestamp::from_micros(i64::from(seconds) * 1_000_000));
        match query.name {
            "after" => page.after = text,
            "from" => page.from = instant,
            "limit" => page.limit = number,
            "name" => page.name = text,
            "status" => page.status = text,
            "tag" => page.tag = text,
            "to" => page.to = instant,
            "wait" => page.wait = number.map(|seconds| Duration::from_secs(seconds.into())),
            // A test walks the rows.
            other => return Err(Error::internal(format!("the parameter {other} is not read"))),
        }
    }
    Ok(page)
}

/// The cursor of the last event that the caller has had of a stream.
pub(super) fn last_event_id(headers: &HeaderMap) -> Result<Option<&str>> {
    let Some(id) = headers.get(LAST_EVENT_ID) else { return Ok(None) };
    let id = id.to_str().map(str::trim).map_err(|error| {
        let sentence = "the Last-Event-ID is no cursor: give one as it was told";
        Error::new(ErrorKind::InvalidValue, sentence).field("Last-Event-ID").source(error)
    })?;
    // A client that has had none says so with nothing.
    Ok(Some(id).filter(|id| !id.is_empty()))
}

/// The versions that the caller has seen of the object, if it says so; `*` is any.
pub(super) fn seen_versions(headers: &HeaderMap) -> Option<Vec<String>> {
    let mut versions = Vec::new();
    for value in headers.get_all(IF_MATCH) {
        for tag in value.to_str().unwrap_or_default().split(',').map(str::trim) {
            if tag == "*" {
                return None;
            }
            // A weak tag, or none at all, is no version: it matches nothing.
            let tag = tag.strip_prefix('"').and_then(|tag| tag.strip_suffix('"'));
            versions.push(tag.unwrap_or_default().to_owned());
        }
    }
    (!versions.is_empty()).then_some(versions)
}

/// The object that a path is about, if it is one that has versions. What a path names wrongly is
/// refused here, before a version is asked for (RFC 9110 §13.2.1).
pub(super) fn subject(route: &Route, parameters: &Parameters<'_>) -> Result<Option<Subject>> {
    for (index, parameter) in route.parameters().enumerate() {
        if parameter.names == Names::Object(Object::Drive) {
            parameters.id::<DriveKind>(index)?;
        }
    }
    Ok(match route.versioned() {
        Some(Object::Drive) => Some(Subject::Drive(parameters.id(0)?)),
        Some(Object::Snapshot) => Some(Subject::Snapshot(parameters.id(0)?)),
        Some(Object::Server) => Some(Subject::Server(parameters.id(0)?)),
        _ => None,
    })
}

/// The record that a body holds, in whatever form its type and its first line say.
pub(super) fn record(object: Object, headers: &HeaderMap, body: &[u8]) -> Result<Record> {
    let lines = body.split(|&byte| byte == b'\n').count();
    if lines > MAX_LINES {
        return Err(Error::new(
            ErrorKind::MalformedBody,
            format!("the body has {lines} lines: at most {MAX_LINES} are taken"),
        ));
    }
    let content_type =
        headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let content_type = essence(content_type);
    if content_type.eq_ignore_ascii_case("application/json") {
        Record::given_in_json(object, body)
    } else if content_type.eq_ignore_ascii_case("application/x-www-form-urlencoded")
        && is_form(body)
    {
        Record::from_form(body)
    } else {
        Record::from_text(body)
    }
}

/// Whether a body that says it is a form is one: curl and others give that type to any text.
fn is_form(body: &[u8]) -> bool {
    body.iter().find(|byte| matches!(byte, b'=' | b' ' | b'\n')) == Some(&b'=')
}

fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

#[cfg(test)]
mod tests {
    use elasticstack_core::id::DriveKind;
    use elasticstack_core::wire::calls::{self, CALLS, Call};
    use elasticstack_core::wire::queries::QueryTakes;
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;

    const ACCOUNT: &str = "7f000001-0000-4000-8000-000000000001";

    fn header(name: HeaderName, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(name, HeaderValue::from_bytes(value.as_bytes()).unwrap())])
    }

    fn basic(text: &str) -> HeaderMap {
        header(AUTHORIZATION, &format!("Basic {}", BASE64.encode(text)))
    }

    #[test]
    fn json_is_answered_to_whoever_names_it_and_text_to_the_rest() {
        for (accept, format) in [
            ("application/json", Format::Json),
            ("text/html, Application/JSON; q=0.5", Format::Json),
            ("*/*", Format::Text),
            ("text/plain", Format::Text),
            ("application/problem+json", Format::Text),
            ("", Format::Text),
        ] {
            assert_eq!(Format::accepted(&header(ACCEPT, accept)), format, "{accept}");
        }
        assert_eq!(Format::accepted(&HeaderMap::new()), Format::Text);
    }

    #[test]
    fn post_calls_everything_and_get_calls_reads_only() {
        for route in CALLS.iter() {
            let reads = route.effect == Effect::Reads;
            assert!(check_method(route, &Method::POST).is_ok(), "{}", route.path);
            assert_eq!(check_method(route, &Method::GET).is_ok(), reads, "{}", route.path);
            for method in [Method::HEAD, Method::PUT, Method::DELETE, Method::OPTIONS] {
                let refused = check_method(route, &method).unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::MethodNotAllowed, "{}", route.path);
            }
        }
    }

    #[test]
    fn credentials_are_an_account_and_a_key_that_may_have_colons() {
        let Credentials { account, key } =
            credentials(&basic(&format!("{ACCOUNT}:a:b c"))).unwrap();
        assert_eq!((account.unwrap().to_string().as_str(), key.expose()), (ACCOUNT, "a:b c"));
        let Credentials { account, key } =
            credentials(&header(AUTHORIZATION, "bEarer es_x")).unwrap();
        assert_eq!((account, key.expose()), (None, "es_x"));
        let unpadded = basic(&format!("{ACCOUNT}:k"))[AUTHORIZATION].to_str().unwrap().to_owned();
        let unpadded = unpadded.trim_end_matches('=').replace("Basic", "bAsIc");
        assert!(credentials(&header(AUTHORIZATION, &unpadded)).is_ok());
        for headers in [
            HeaderMap::new(),
            header(AUTHORIZATION, "Basic"),
            header(AUTHORIZATION, "Basic !!!"),
            header(AUTHORIZATION, &format!("Digest {}", BASE64.encode(format!("{ACCOUNT}:k")))),
            header(AUTHORIZATION, &format!("Basic {}", BASE64.encode(b"\xff:\xff"))),
            basic(ACCOUNT),
            basic("somebody:key"),
            basic(&format!("{}:key", ACCOUNT.to_uppercase())),
        ] {
            let refused = credentials(&headers).unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::BadCredentials, "{headers:?}");
        }
    }

    #[test]
    fn a_request_is_called_what_its_client_calls_it_if_that_is_a_plain_word() {
        let named = |value: &str| id(&header(HeaderName::from_static("x-request-id"), value));
        for good in ["a", "7-b_c.D", &"x".repeat(128)] {
            assert_eq!(named(good), good);
        }
        for bad in ["", "a b", "a\u{e4}", "a\tb", "a=b", "a\"b", &"x".repeat(129)] {
            assert!(named(bad).parse::<Uuid>().is_ok(), "{bad:?}");
        }
        assert_ne!(id(&HeaderMap::new()), id(&HeaderMap::new()));
    }

    #[test]
    fn every_parameter_of_a_query_that_the_table_has_is_read() {
        for route in CALLS.iter() {
            for query in route.queries() {
                let value = match query.takes {
                    QueryTakes::Range(low, _) => low.to_string(),
                    QueryTakes::Number | QueryTakes::Seconds(_) => "7".to_owned(),
                    QueryTakes::Uuid | QueryTakes::Resource => ACCOUNT.to_owned(),
                    QueryTakes::Cursor => "now".to_owned(),
                    QueryTakes::OneOf(words) => words[0].to_owned(),
                    QueryTakes::Text => "x".to_owned(),
                };
                let read = page(route, Some(&format!("{}={value}", query.name))).unwrap();
                assert_ne!(read, Page::default(), "{}?{}", route.path, query.name);
            }
        }
    }

    #[test]
    fn a_version_is_named_in_quotes_and_a_star_is_any() {
        let seen = |value: &str| seen_versions(&header(IF_MATCH, value));
        assert_eq!(seen_versions(&HeaderMap::new()), None);
        assert_eq!(seen("*"), None);
        assert_eq!(seen("\"a\", \"b\"").unwrap(), ["a", "b"]);
        for none in ["W/\"a\"", "a", "\"", ""] {
            assert_eq!(seen(none).unwrap(), [""], "{none:?}");
        }
    }

    #[test]
    fn an_idempotency_key_is_one_visible_word() {
        let key = |value: &str| {
            let headers = header(IDEMPOTENCY_KEY, value);
            idempotency_key(&headers).map(|key| key.map(str::to_owned))
        };
        assert_eq!(idempotency_key(&HeaderMap::new()).unwrap(), None);
        for good in ["a", "\"quoted\"", "5b0e3c52-0000-4000-8000-00000000d001", &"x".repeat(255)] {
            assert_eq!(key(good).unwrap().as_deref(), Some(good));
        }
        for bad in ["", "a b", "\u{e4}", &"x".repeat(256)] {
            assert_eq!(key(bad).unwrap_err().kind(), ErrorKind::InvalidValue, "{bad:?}");
        }
        let mut two = header(IDEMPOTENCY_KEY, "a");
        two.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        assert!(idempotency_key(&two).is_err());
    }

    #[test]
    fn every_type_that_old_clients_send_is_read_as_they_mean_it() {
        let expected = Record::new().with("name", "my web").with("size", "10G");
        let lines = "name my web\nsize 10G";
        let json = r#"{"name": "my web", "size": "10G"}"#;
        for (content_type, body) in [
            ("text/plain", lines),
            ("text/plain; charset=UTF-8", lines),
            ("application/octet-stream", lines),
            ("application/x-www-form-urlencoded", lines),
            ("application/x-www-form-urlencoded", "name=my+web&size=10G"),
            ("header", lines),
            ("", lines),
            ("application/json", json),
            ("Application/JSON;charset=utf-8", json),
        ] {
            let record =
                record(Object::Drive, &header(CONTENT_TYPE, content_type), body.as_bytes())
                    .unwrap();
            assert_eq!(record, expected, "{content_type}: {body}");
        }
        assert_eq!(record(Object::Drive, &HeaderMap::new(), lines.as_bytes()).unwrap(), expected);
        let text = record(
            Object::Drive,
            &header(CONTENT_TYPE, "application/x-www-form-urlencoded"),
            b"name a\nuser:note x=y",
        );
        assert_eq!(text.unwrap().value("user:note"), Some("x=y"));
        for content_type in ["application/json", "text/plain", "application/x-www-form-urlencoded"]
        {
            assert!(
                record(Object::Drive, &header(CONTENT_TYPE, content_type), b"").unwrap().is_empty()
            );
        }
    }

    #[test]
    fn a_body_of_too_many_lines_is_refused_even_if_they_name_one_key() {
        let body = "name x\n".repeat(MAX_LINES);
        let refused = record(Object::Drive, &HeaderMap::new(), body.as_bytes()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::MalformedBody);
        assert!(refused.public_message().contains("at most 10000"), "{refused}");
        assert!(record(Object::Drive, &HeaderMap::new(), &body.as_bytes()[7..]).is_ok());
    }

    #[test]
    fn a_path_names_an_object_or_none_and_sizes_carry_suffixes() {
        let path = "/drives/5b0e3c52-0000-4000-8000-00000000d001/read/4M/4096k";
        let (route, parameters) = calls::find(path).unwrap();
        assert_eq!(route.call, Call::DriveRead);
        let parameters = Parameters(parameters);
        assert!(parameters.id::<DriveKind>(0).is_ok());
        assert_eq!(parameters.size(1, "offset").unwrap(), Bytes::from_mib(4));
        assert_eq!(parameters.size(2, "size").unwrap(), Bytes::from_mib(4));
        let bad = Parameters(vec!["..%2f..%2fetc%2fpasswd", "-1"]);
        assert_eq!(bad.id::<DriveKind>(0).unwrap_err().kind(), ErrorKind::NotFound);
        let refused = bad.size(1, "offset").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::InvalidValue);
        assert_eq!(refused.blamed_field(), Some("offset"));
        assert_eq!(bad.size(7, "size").unwrap_err().kind(), ErrorKind::InvalidValue);
    }

    proptest! {
        #[test]
        fn no_headers_and_no_body_panic_a_reader(
            value in proptest::collection::vec(32_u8..=255, 0..40),
            body: Vec<u8>,
            text in ".{0,20}",
        ) {
            if let Ok(value) = HeaderValue::from_bytes(&value) {
                for name in [ACCEPT, CONTENT_TYPE, AUTHORIZATION] {
                    let headers = HeaderMap::from_iter([(name, value.clone())]);
                    let _ = (Format::accepted(&headers), credentials(&headers), record(Object::Drive, &headers, &body));
                }
            }
            for content_type in ["application/json", "application/x-www-form-urlencoded"] {
                let _ = record(Object::Drive, &header(CONTENT_TYPE, content_type), &body);
            }
            let _ = credentials(&basic(&text));
            let parameters = Parameters(vec![&text]);
            let _ = (parameters.id::<DriveKind>(0), parameters.size(0, "size"));
        }
    }
}
