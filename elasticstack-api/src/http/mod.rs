//! The public API over HTTP. A call is found in the table of calls, checked for its method,
//! authenticated, parsed, handed to its use case, and the outcome written out. No SQL, no policy.
//!
//! ```text
//! path → method → credentials → body → use case → answer
//!  404     405      401, 429      400    its own
//! ```
//! The API's own description is no call: see `documents`. Every answer carries `X-Request-Id`, which
//! the log has too; no header or body is ever logged.

mod body;
mod dispatch;
mod documents;
mod error;
mod limits;
mod request;
mod response;
mod serve;

use std::iter;
use std::net::IpAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::response::Response;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::calls::{self, Answer, Body, Effect, Route};
use elasticstack_core::wire::record::Record;
use futures_util::FutureExt as _;
use http::HeaderMap;
use http::header::{ALLOW, CACHE_CONTROL, ETAG, HeaderName, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use serde::Deserialize;
use uuid::Uuid;

use self::dispatch::{Asked, dispatch};
use self::documents::Document;
use self::limits::{Counters, Room};
use self::request::{Format, Parameters};
use self::response::Reply;
use self::serve::Peer;
use crate::app::{App, Caller, Origin, token_id};
use crate::db::Subject;

pub(crate) use self::error::status as status_of;
pub use self::limits::Limits;
pub(crate) use self::serve::serve;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const RATELIMIT_LIMIT: HeaderName = HeaderName::from_static("ratelimit-limit");
const RATELIMIT_REMAINING: HeaderName = HeaderName::from_static("ratelimit-remaining");
const RATELIMIT_RESET: HeaderName = HeaderName::from_static("ratelimit-reset");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The longest body that holds a record, packed and unpacked.
const MAX_RECORD: usize = 1 << 20;

/// The longest body that holds a drive's bytes, packed and unpacked.
const MAX_WRITE: usize = 64 << 20;

/// A call that answers 204 and nothing where clients of some older clouds insist on it, instead of
/// 200 and the object's info.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LegacyCall {
    /// `image`, with and without a conversion, as clouds did before 2013.
    Image,
    /// `start`, as one cloud's pages said. Other clients break on it.
    Start,
}

#[derive(Clone)]
struct Api {
    app: Arc<App>,
    legacy: Arc<[LegacyCall]>,
    counters: Arc<Counters>,
    proxies: Arc<[IpAddr]>,
}

/// The whole public API.
pub(crate) fn router(app: Arc<App>, legacy: Vec<LegacyCall>, limits: &Limits) -> Router {
    let counters = Arc::new(Counters::new(limits));
    let proxies = limits.proxies.as_slice().into();
    Router::new().fallback(handle).with_state(Api { app, legacy: legacy.into(), counters, proxies })
}

async fn handle(State(api): State<Api>, request: http::Request<HttpBody>) -> Response {
    let (parts, body) = request.into_parts();
    let request_id = request::id(&parts.headers);
    if let Some(document) = Document::at(parts.uri.path()) {
        return finished(read(document, &parts), &request_id);
    }
    let mut notes = Notes::default();
    let found = calls::find(parts.uri.path());
    let route = found.as_ref().map(|(route, _)| *route);
    let answered = match found {
        Some((route, parameters)) => {
            let answer = api.answer(route, Parameters(parameters), &parts, body, &mut notes);
            let caught = AssertUnwindSafe(answer).catch_unwind().await;
            caught.unwrap_or_else(|_| Err(Error::internal("the handler of this call panicked")))
        }
        None => Err(no_such_call(parts.uri.path())),
    };
    let mut response = match answered {
        Ok(reply) => response::render(reply, Format::accepted(&parts.headers)),
        Err(error) => {
            error::log(&error, &request_id, route.map_or("none", |route| route.path));
            error::render(&error, &parts.headers)
        }
    };
    let headers = response.headers_mut();
    if let Some(route) = route
        && request::check_method(route, &parts.method).is_err()
    {
        headers.insert(ALLOW, HeaderValue::from_static(request::allowed(route.effect)));
    }
    notes.write(headers);
    // Answers hold passwords and change at any moment.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    finished(response, &request_id)
}

fn read(document: Document, parts: &Parts) -> Response {
    document.answer(&parts.method).unwrap_or_else(|error| {
        let mut response = error::render(&error, &parts.headers);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(documents::METHODS));
        response
    })
}

fn finished(mut response: Response, request_id: &str) -> Response {
    if let Ok(id) = HeaderValue::try_from(request_id) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    response
}

/// What is said of an answer in its headers, whatever became of the call.
#[derive(Default)]
struct Notes {
    /// What is left of the caller's calls.
    room: Option<Room>,
    /// When to try again, where it is known better than the error's kind says.
    wait: Option<Duration>,
    /// The version of the object that it tells about.
    version: Option<String>,
    /// Whether it was given before.
    origin: Option<Origin>,
}

impl Notes {
    fn write(&self, headers: &mut HeaderMap) {
        let seconds = |time: Duration| HeaderValue::from(whole_seconds(time));
        if let Some(room) = self.room {
            headers.insert(RATELIMIT_LIMIT, HeaderValue::from(room.limit));
            headers.insert(RATELIMIT_REMAINING, HeaderValue::from(room.remaining));
            headers.insert(RATELIMIT_RESET, seconds(room.reset));
        }
        if let Some(wait) = self.wait {
            headers.insert(RETRY_AFTER, seconds(wait));
        }
        if let Some(version) = &self.version
            && let Ok(tag) = HeaderValue::try_from(format!("\"{version}\""))
        {
            headers.insert(ETAG, tag);
        }
        if self.origin == Some(Origin::Earlier) {
            headers.insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
    }
}

impl Api {
    async fn answer(
        &self,
        route: &Route,
        parameters: Parameters<'_>,
        parts: &Parts,
        body: HttpBody,
        notes: &mut Notes,
    ) -> Result<Reply> {
        let headers = &parts.headers;
        request::check_method(route, &parts.method)?;
        let (account, key) = request::credentials(headers)?;
        let caller = self.authenticated(account, &key, parts, notes).await?;
        caller.covers(route.scope, route.effect)?;
        let page = request::page(route, parts.uri.query())?;
        let subject = request::subject(route, &parameters);
        let mut asked =
            Asked { parameters, record: Record::new(), data: bytes::Bytes::new(), page };
        match route.body {
            Body::Ignored => body::ignore(body).await?,
            Body::Record(object) => {
                let packed = body::collect(body, MAX_RECORD).await?;
                let plain = body::decode(headers, packed, MAX_RECORD).await?;
                asked.record = request::record(object, headers, &plain)?;
            }
            Body::Bytes => {
                let packed = body::collect(body, MAX_WRITE).await?;
                asked.data = body::decode(headers, packed, MAX_WRITE).await?;
            }
        }
        if let (Effect::Reads, Answer::One(_), Some(subject)) =
            (route.effect, route.answer, subject)
        {
            // It is as old as the answer or older, so that nobody takes old news for new.
            notes.version = self.app.version(&caller, subject).await?;
        }
        let caller = Self::conditional(caller, route, subject, headers)?;
        let Some(once) = request::idempotency_key(headers)?.filter(|_| is_remembered(route)) else {
            if let Some(subject) = subject {
                self.app.expect_version(&caller, subject).await?;
            }
            return dispatch(&self.app, &caller, route.call, asked, &self.legacy).await;
        };
        let asks = asked.record.to_text();
        let asks = iter::once(route.path).chain(asked.parameters.0.iter().copied()).chain([&*asks]);
        let caller = caller.once(once, &key, asks)?;
        let work = async {
            if let Some(subject) = subject {
                self.app.expect_version(&caller, subject).await?;
            }
            let reply = dispatch(&self.app, &caller, route.call, asked, &self.legacy).await?;
            Ok(match reply {
                Reply::One(_, record) => Some(record),
                _ => None,
            })
        };
        let (answer, origin) = self.app.once(&caller, route.answer, work).await;
        notes.origin = Some(origin);
        Ok(match (route.answer, answer?) {
            (Answer::One(object), Some(record)) => Reply::One(object, record),
            _ => Reply::Nothing,
        })
    }

    /// The caller with what it says it has seen of the object.
    fn conditional(
        caller: Caller,
        route: &Route,
        subject: Option<Subject>,
        headers: &HeaderMap,
    ) -> Result<Caller> {
        match request::seen_versions(headers).filter(|_| route.effect == Effect::Changes) {
            None => Ok(caller),
            Some(versions) if subject.is_some() && is_remembered(route) => {
                Ok(caller.matching(versions))
            }
            Some(_) => Err(Error::new(
                ErrorKind::PreconditionFailed,
                "this call is about nothing that has a version: leave If-Match out",
            )
            .field("If-Match")),
        }
    }

    /// The caller, unless there were too many wrong ones before, or too many calls of this one.
    async fn authenticated(
        &self,
        account: Option<AccountId>,
        key: &Secret,
        parts: &Parts,
        notes: &mut Notes,
    ) -> Result<Caller> {
        let mut waits = |(error, wait)| -> Error {
            notes.wait = Some(wait);
            error
        };
        let peer = parts.extensions.get().map(|Peer(address)| *address);
        let address = limits::client(peer, &parts.headers, &self.proxies);
        let now = self.app.now();
        let token = token_id(key);
        // A token is guessed at by its id: whose it is, it does not say.
        let guessed = account
            .or_else(|| token.map(|token| AccountId::from_uuid(*token.as_uuid())))
            .unwrap_or(AccountId::from_uuid(Uuid::nil()));
        self.counters.may_try(address, guessed, now).map_err(&mut waits)?;
        let tried = match (account, token) {
            (Some(account), None) => self.app.authenticate(account, key).await,
            (account, _) => self.app.authenticate_token(key).await.and_then(|caller| {
                if account.is_none_or(|account| account == caller.account) {
                    return Ok(caller);
                }
                let sentence = "the token is not that account's: send the two that belong together";
                Err(Error::new(ErrorKind::BadCredentials, sentence))
            }),
        };
        let caller = tried.inspect_err(|error| {
            if error.kind() == ErrorKind::BadCredentials {
                self.counters.was_wrong(address, guessed, now);
            }
        })?;
        let room = self.counters.call(caller.account, now).map_err(waits)?;
        notes.room = Some(room);
        Ok(caller)
    }
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// Whether the call is done once for each idempotency key. The bytes of a write are not kept, and
/// writing them twice is writing them once.
fn is_remembered(route: &Route) -> bool {
    route.effect == Effect::Changes && route.body != Body::Bytes
}

/// What the installation offers, with the limits of this API.
fn capabilities(app: &App) -> Record {
    app.capabilities()
        .with("limit:record_bytes", MAX_RECORD)
        .with("limit:write_bytes", MAX_WRITE)
        .with("limit:page", request::MAX_PAGE)
}

fn no_such_call(path: &str) -> Error {
    match calls::not_offered(path) {
        Some(why) => Error::new(ErrorKind::NotOffered, why),
        None => Error::new(ErrorKind::NotFound, "there is no such call: see the list of calls"),
    }
}
