//! The public API over HTTP. A call is found in the table of calls, checked for its method,
//! authenticated, parsed, handed to its use case, and the outcome written out. No SQL, no policy.
//!
//! ```text
//! path → method → credentials → body → use case → answer
//!  404     405        401        400    its own
//! ```
//! The API's own description is no call: see `documents`. Every answer carries `X-Request-Id`, which the log has too; no header or body is ever logged.

mod body;
mod dispatch;
mod documents;
mod error;
mod request;
mod response;
mod serve;

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use axum::Router;
use axum::body::Body as HttpBody;
use axum::extract::State;
use axum::response::Response;
use bytes::Bytes;
use elasticstack_core::error::{Error, ErrorKind, Result};
use elasticstack_core::wire::calls::{self, Body, Route};
use elasticstack_core::wire::record::Record;
use futures_util::FutureExt as _;
use http::header::{ALLOW, CACHE_CONTROL, HeaderName, HeaderValue};
use http::request::Parts;
use uuid::Uuid;

use self::dispatch::{Asked, dispatch};
use self::documents::Document;
use self::request::{Format, Parameters};
use self::response::Reply;
use crate::app::App;

pub(crate) use self::error::status as status_of;
pub(crate) use self::serve::serve;

const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

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
    if let Some(document) = Document::at(parts.uri.path()) {
        return finished(read(document, &parts), request_id);
    }
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
        Ok(reply) => response::render(reply, Format::accepted(&parts.headers)),
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
    // Answers hold passwords and change at any moment.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    finished(response, request_id)
}

fn read(document: Document, parts: &Parts) -> Response {
    document.answer(&parts.method).unwrap_or_else(|error| {
        let mut response = error::render(&error, &parts.headers);
        response.headers_mut().insert(ALLOW, HeaderValue::from_static(documents::METHODS));
        response
    })
}

fn finished(mut response: Response, request_id: Uuid) -> Response {
    if let Ok(id) = HeaderValue::try_from(request_id.to_string()) {
        response.headers_mut().insert(X_REQUEST_ID, id);
    }
    response
}

impl Api {
    async fn answer(
        &self,
        route: &Route,
        parameters: Parameters<'_>,
        parts: &Parts,
        body: HttpBody,
    ) -> Result<Reply> {
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
        dispatch(&self.app, &caller, route.call, asked, self.image_answer).await
    }
}

fn out_of_scope() -> Error {
    Error::new(ErrorKind::OutOfScope, "this call is for operators: use an operator's credentials")
}

fn no_such_call() -> Error {
    Error::new(ErrorKind::NotFound, "there is no such call: see the list of calls")
}
