//! The public API over HTTP. A call is found in the table of calls, checked for its method,
//! authenticated, parsed, handed to its use case, and the outcome written out. No SQL, no policy.
//!
//! ```text
//! path → method → credentials → body → use case → answer
//!  404     405        401        400    its own
//! ```
//! Every answer carries `X-Request-Id`, which the log has too; no header or body is ever logged.

mod body;
mod dispatch;
mod error;
mod request;
mod response;
mod serve;

use std::iter;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use elasticstack_core::error::{Error, ErrorKind, Result};
use elasticstack_core::wire::calls::{self, Answer, Body, Effect, Route};
use elasticstack_core::wire::record::Record;
use futures_util::FutureExt as _;
use http::header::{ALLOW, CACHE_CONTROL, HeaderName, HeaderValue};
use http::request::Parts;
use uuid::Uuid;

use self::dispatch::{Asked, dispatch};
use self::request::{Format, Parameters};
use self::response::Reply;
use crate::app::{App, Origin};

pub(crate) use self::serve::serve;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
const IDEMPOTENT_REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// The longest body that holds a record, packed and unpacked.
const MAX_RECORD: usize = 1 << 20;

/// The longest body that holds a drive's bytes, packed and unpacked.
const MAX_WRITE: usize = 64 << 20;

/// What the call `image` answers. Clients of different clouds insist on one or the other.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ImageAnswer {
    /// 200 and the drive's info.
    #[default]
    Info,
    /// 204 and nothing, as clouds did before 2013.
    Nothing,
}

#[derive(Clone)]
struct Api {
    app: Arc<App>,
    image_answer: ImageAnswer,
}

/// The whole public API.
pub(crate) fn router(app: Arc<App>, image_answer: ImageAnswer) -> Router {
    Router::new().fallback(handle).with_state(Api { app, image_answer })
}

async fn handle(State(api): State<Api>, request: http::Request<HttpBody>) -> Response {
    let request_id = Uuid::new_v4();
    let (parts, body) = request.into_parts();
    let found = calls::find(parts.uri.path());
    let route = found.as_ref().map(|(route, _)| *route);
    let answered = match found {
        Some((route, parameters)) => {
            let answer = api.answer(route, Parameters(parameters), &parts, body);
            let caught = AssertUnwindSafe(answer).catch_unwind().await;
            caught.unwrap_or_else(|_| Err(Error::internal("the handler of this call panicked")))
        }
        None => Err(no_such_call()),
    };
    let mut response = match answered {
        Ok(answered) => answered.render(Format::accepted(&parts.headers)),
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
    if let Ok(id) = HeaderValue::try_from(request_id.to_string()) {
        headers.insert(X_REQUEST_ID, id);
    }
    // Answers hold passwords and change at any moment.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// An answer, and whether it was given before.
struct Answered {
    reply: Reply,
    origin: Origin,
}

impl Answered {
    fn render(self, format: Format) -> Response {
        let mut response = response::render(self.reply, format);
        if self.origin == Origin::Earlier {
            response.headers_mut().insert(IDEMPOTENT_REPLAYED, HeaderValue::from_static("true"));
        }
        response
    }
}

impl Api {
    async fn answer(
        &self,
        route: &Route,
        parameters: Parameters<'_>,
        parts: &Parts,
        body: HttpBody,
    ) -> Result<Answered> {
        let headers = &parts.headers;
        request::check_method(route, &parts.method)?;
        let (account, key) = request::credentials(headers)?;
        let caller = self.app.authenticate(account, &key).await?;
        if !caller.scope.covers(route.scope) {
            return Err(out_of_scope());
        }
        let mut asked = Asked { parameters, record: Record::new(), data: Bytes::new() };
        match route.body {
            Body::Ignored => body::ignore(body).await?,
            Body::Record(_) => {
                let packed = body::collect(body, MAX_RECORD).await?;
                let plain = body::decode(headers, packed, MAX_RECORD).await?;
                asked.record = request::record(headers, &plain)?;
            }
            Body::Bytes => {
                let packed = body::collect(body, MAX_WRITE).await?;
                asked.data = body::decode(headers, packed, MAX_WRITE).await?;
            }
        }
        let Some(once) = request::idempotency_key(headers)?.filter(|_| is_remembered(route)) else {
            let reply = dispatch(&self.app, &caller, route.call, asked, self.image_answer).await?;
            return Ok(Answered { reply, origin: Origin::Now });
        };
        let asks = asked.record.to_text();
        let asks = iter::once(route.path).chain(asked.parameters.0.iter().copied()).chain([&*asks]);
        let caller = caller.once(once, &key, asks)?;
        let work = async {
            let reply = dispatch(&self.app, &caller, route.call, asked, self.image_answer).await?;
            Ok(match reply {
                Reply::One(_, record) => Some(record),
                _ => None,
            })
        };
        let (answer, origin) = self.app.once(&caller, route.answer, work).await;
        let reply = match (route.answer, answer?) {
            (Answer::One(object), Some(record)) => Reply::One(object, record),
            _ => Reply::Nothing,
        };
        Ok(Answered { reply, origin })
    }
}

/// Whether the call is done once for each idempotency key. The bytes of a write are not kept, and
/// writing them twice is writing them once.
fn is_remembered(route: &Route) -> bool {
    route.effect == Effect::Changes && route.body != Body::Bytes
}

fn out_of_scope() -> Error {
    Error::new(ErrorKind::OutOfScope, "this call is for operators: use an operator's credentials")
}

fn no_such_call() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such call: see the list of calls")
}
