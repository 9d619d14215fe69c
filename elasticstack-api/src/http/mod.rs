//! The public API over HTTP. A call is found in the table of calls, checked for its method,
//! authenticated, parsed, handed to its use case, and the outcome written out. No SQL, no policy.
//!
//! ```text
//! path → method → credentials → body → use case → answer
//!  404     405      401, 429      400    its own
//! ```
//! The API's own description and its websockets are no calls: see `documents` and `console`. Every answer carries `X-Request-Id`, which
//! the log has too; no header or body is ever logged.

mod body;
mod console;
mod dispatch;
mod documents;
mod error;
mod feed;
mod limits;
mod pace;
mod packing;
mod places;
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
use elasticstack_core::wire::calls::{self, Answer, Body, Call, Effect, Route};
use elasticstack_core::wire::internal::MAX_WRITE;
use elasticstack_core::wire::keys::{self, Moment};
use elasticstack_core::wire::queries;
use elasticstack_core::wire::record::Record;
use futures_util::FutureExt as _;
use http::HeaderMap;
use http::header::{ALLOW, CACHE_CONTROL, ETAG, HeaderName, HeaderValue, RETRY_AFTER};
use http::request::Parts;
use serde::Deserialize;

use self::dispatch::{Asked, dispatch};
use self::documents::Document;
use self::limits::{Counters, Room};
use self::places::{Place, Places};
use self::request::{Format, Parameters};
use self::response::Reply;
use self::serve::Link;
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

impl LegacyCall {
    const fn covers(self, call: Call) -> bool {
        match self {
            Self::Image => matches!(
                call,
                Call::DriveImage
                    | Call::DriveImageGunzip
                    | Call::DriveImageGzip
                    | Call::DriveImageQcow2
                    | Call::DriveImageUrl
                    | Call::DriveImageVmdk
            ),
            Self::Start => matches!(call, Call::ServerStart),
        }
    }
}

/// Who says he asks, unless a token is to say so, and what is to prove it.
#[derive(Debug)]
struct Credentials {
    account: Option<AccountId>,
    key: Secret,
}

impl Credentials {
    /// Whose they are.
    async fn caller(&self, app: &App) -> Result<Caller> {
        match (self.account, token_id(&self.key)) {
            (Some(account), None) => app.authenticate(account, &self.key).await,
            (account, _) => app.authenticate_token(&self.key).await.and_then(|caller| {
                if account.is_none_or(|account| account == caller.account) {
                    return Ok(caller);
                }
                let sentence = "the token is not that account's: send the two that belong together";
                Err(Error::new(ErrorKind::BadCredentials, sentence))
            }),
        }
    }
}

#[derive(Clone)]
struct Api {
    app: Arc<App>,
    legacy: Arc<[LegacyCall]>,
    counters: Arc<Counters>,
    /// Who has requests under way.
    callers: Arc<Places<IpAddr>>,
    screens: Arc<Places<AccountId>>,
    limits: Arc<Limits>,
}

/// The whole public API.
pub(crate) fn router(app: Arc<App>, legacy: Vec<LegacyCall>, limits: &Limits) -> Router {
    let counters = Arc::new(Counters::new(limits));
    let screens = Arc::new(Places::new(limits.screens, limits.screens_each));
    let callers = Arc::new(Places::new(u32::MAX, limits.requests_each));
    let (legacy, limits) = (legacy.into(), Arc::new(limits.clone()));
    let api = Api { app, legacy, counters, callers, screens, limits };
    Router::new().fallback(handle).with_state(api)
}

async fn handle(State(api): State<Api>, request: http::Request<HttpBody>) -> Response {
    let (mut parts, body) = request.into_parts();
    let request_id = request::id(&parts.headers);
    let link = parts.extensions.get::<Link>().cloned();
    let place = match api.place(link.as_ref(), &parts.headers) {
        Ok(place) => place,
        Err(error) => return finished(error::render(&error, &parts.headers), &request_id),
    };
    let response = answered(&api, &mut parts, body, &request_id).await;
    match link {
        Some(link) => pace::timed(response, &link.cut, link.pace, place),
        None => response,
    }
}

async fn answered(api: &Api, parts: &mut Parts, body: HttpBody, request_id: &str) -> Response {
    if let Some(ticket) = console::ticket(parts.uri.path()) {
        return finished(opened(api, &ticket, parts, request_id).await, request_id);
    }
    if let Some(document) = Document::at(parts.uri.path()) {
        return finished(read(document, parts), request_id);
    }
    let mut notes = Notes::default();
    let found = calls::find(parts.uri.path());
    let route = found.as_ref().map(|(route, _)| *route);
    let answered = match found {
        Some((route, parameters)) => {
            let answer = api.answer(route, Parameters(parameters), parts, body, &mut notes);
            let caught = AssertUnwindSafe(answer).catch_unwind().await;
            caught.unwrap_or_else(|_| Err(Error::internal("the handler of this call panicked")))
        }
        None => Err(no_such_call(parts.uri.path())),
    };
    let rendered =
        answered.and_then(|reply| response::render(reply, Format::accepted(&parts.headers)));
    let mut response = match rendered {
        Ok(response) => response,
        Err(error) => {
            error::log(&error, request_id, route.map_or("none", |route| route.path));
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
    finished(response, request_id)
}

async fn opened(api: &Api, ticket: &Secret, parts: &mut Parts, request_id: &str) -> Response {
    let mut notes = Notes::default();
    let opened = console::open(api, ticket, parts, &mut notes).await;
    let mut response = opened.unwrap_or_else(|error| {
        error::log(&error, request_id, console::PATH);
        let mut response = error::render(&error, &parts.headers);
        if error.kind() == ErrorKind::MethodNotAllowed {
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(console::METHODS));
        }
        response
    });
    notes.write(response.headers_mut());
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
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
    /// The error, and how long to wait before it is worth while to ask again.
    fn waits(&mut self, error: Error, wait: Duration) -> Error {
        self.wait = Some(wait);
        error
    }

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
    /// A place for a request of whoever is on this link, if it is known where that is.
    fn place(&self, link: Option<&Link>, headers: &HeaderMap) -> Result<Option<Place<IpAddr>>> {
        let address =
            link.and_then(|link| limits::client(Some(link.peer), headers, &self.limits.proxies));
        let place = address.map(|address| self.callers.take(limits::network(address)));
        place.transpose().map_err(|_| {
            let most = self.callers.most_each();
            let sentence = format!(
                "too many requests at a time: {most} may be under way from one address: wait for \
                 answers"
            );
            Error::new(ErrorKind::Throttled, sentence)
        })
    }

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
        let credentials = request::credentials(headers)?;
        let caller = self.authenticated(&credentials, parts, notes).await?;
        caller.covers(route.scope, route.effect)?;
        let page = request::page(route, parts.uri.query())?;
        let end = parts.extensions.get().map(|link: &Link| link.end.clone()).unwrap_or_default();
        let (record, data) = (Record::new(), bytes::Bytes::new());
        let mut asked = Asked { parameters, record, data, page, end };
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
        if let Some(whose) = dispatch::whose(route.call, &caller)
            && request::accepts(headers, feed::MEDIA_TYPE)
        {
            let after = request::last_event_id(headers)?.or(asked.page.after.as_deref());
            let stream = feed::open(&self.app, route, whose, after, credentials, asked.end);
            return stream.await.map(Reply::Stream);
        }
        let subject = request::subject(route, &asked.parameters)?;
        let caller = Self::conditional(caller, route, subject, headers, &asked.record)?;
        let Some(once) = request::idempotency_key(headers)?.filter(|_| route.is_remembered())
        else {
            if let Some(subject) = subject {
                self.app.expect_version(&caller, subject).await?;
            }
            let reply = dispatch(&self.app, &caller, route.call, asked, &self.limits).await?;
            if let Reply::Seen(_, _, version) = &reply {
                notes.version = Some(version.clone());
            }
            return packing::packed(self.unless_legacy(route.call, reply), headers).await;
        };
        let asks = asked.record.to_text();
        let asks = iter::once(route.path).chain(asked.parameters.0.iter().copied()).chain([&*asks]);
        let caller = caller.once(once, &credentials.key, asks)?;
        let work = async {
            if let Some(subject) = subject {
                self.app.expect_version(&caller, subject).await?;
            }
            let reply = dispatch(&self.app, &caller, route.call, asked, &self.limits).await?;
            Ok(match reply {
                Reply::One(_, record) => Some(record),
                _ => None,
            })
        };
        let (answer, origin) = self.app.once(&caller, route.answer, work).await;
        notes.origin = Some(origin);
        Ok(match (route.answer, answer?) {
            (Answer::One(object), Some(record)) => {
                self.unless_legacy(route.call, Reply::One(object, record))
            }
            _ => Reply::Nothing,
        })
    }

    /// The answer of a call, or none where the operator wants the older code.
    fn unless_legacy(&self, call: Call, reply: Reply) -> Reply {
        let is_quiet = self.legacy.iter().any(|legacy| legacy.covers(call));
        if is_quiet { Reply::Nothing } else { reply }
    }

    /// The caller with what it says it has seen of the object. What is wrong with the record itself,
    /// whatever the version, comes first.
    fn conditional(
        caller: Caller,
        route: &Route,
        subject: Option<Subject>,
        headers: &HeaderMap,
        record: &Record,
    ) -> Result<Caller> {
        match request::seen_versions(headers).filter(|_| route.effect == Effect::Changes) {
            None => Ok(caller),
            Some(versions) if subject.is_some() && route.is_remembered() => {
                if let Body::Record(object) = route.body {
                    let moment = if route.is_set() { Moment::SetStopped } else { Moment::Create };
                    keys::check(object, moment, record)?;
                }
                Ok(caller.matching(versions))
            }
            Some(_) => Err(Error::new(
                ErrorKind::PreconditionFailed,
                "this call is about nothing that has a version: leave If-Match out",
            )
            .field("If-Match")),
        }
    }

    /// A try at what opens `guessed`, unless there were too many wrong ones before.
    fn may_try(
        &self,
        guessed: Option<AccountId>,
        parts: &Parts,
        notes: &mut Notes,
    ) -> Result<Guess> {
        let peer = parts.extensions.get().map(|link: &Link| link.peer);
        let address = limits::client(peer, &parts.headers, &self.limits.proxies);
        let now = self.app.now();
        let tried = self.counters.may_try(address, guessed, now);
        tried.map_err(|(error, wait)| notes.waits(error, wait))?;
        Ok(Guess { address, guessed, now })
    }

    fn was_wrong(&self, Guess { address, guessed, now }: Guess) {
        self.counters.was_wrong(address, guessed, now);
    }

    /// The caller, unless there were too many wrong ones before, or too many calls of this one.
    async fn authenticated(
        &self,
        credentials: &Credentials,
        parts: &Parts,
        notes: &mut Notes,
    ) -> Result<Caller> {
        let account = credentials.account;
        let token = token_id(&credentials.key);
        // A token is guessed at by its id: whose it is, it does not say.
        let guessed = account.or(token.map(|token| AccountId::from_uuid(*token.as_uuid())));
        let guess = self.may_try(guessed, parts, notes)?;
        let caller = credentials.caller(&self.app).await.inspect_err(|error| {
            if error.kind() == ErrorKind::BadCredentials {
                self.was_wrong(guess);
            }
        })?;
        let counted = self.counters.call(caller.account, guess.now);
        let room = counted.map_err(|(error, wait)| notes.waits(error, wait))?;
        notes.room = Some(room);
        Ok(caller)
    }
}

/// A try at credentials.
#[derive(Debug, Clone, Copy)]
struct Guess {
    address: Option<IpAddr>,
    guessed: Option<AccountId>,
    now: Timestamp,
}

fn whole_seconds(time: Duration) -> u64 {
    time.as_secs() + u64::from(time.subsec_nanos() > 0)
}

/// What the installation offers, with the limits of this API.
fn capabilities(app: &App, limits: &Limits) -> Record {
    app.capabilities()
        .with("limit:record_bytes", MAX_RECORD)
        .with("limit:write_bytes", MAX_WRITE)
        .with("limit:page", queries::MAX_PAGE)
        .with("limit:calls_in_a_row", limits.burst)
        .with("limit:calls_per_second", limits.per_second)
}

fn no_such_call(path: &str) -> Error {
    match calls::not_offered(path) {
        Some(why) => Error::new(ErrorKind::NotOffered, why),
        None => Error::new(ErrorKind::NotFound, "there is no such call: see the list of calls"),
    }
}
