//! The public API's client: what to send and how to read the answer, over any [`Transport`].
//!
//! ```text
//! let client = Client::new(transport, account, &key);
//! let drive = client.one(Call::DriveCreate, &[], &Record::new().with("size", "10G")).await?;
//! ```

#[cfg(feature = "client-hyper")]
mod hyper;

use std::sync::Arc;

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderValue};
use http::{Method, Request, Response, StatusCode};

use crate::error::{Error, ErrorKind, Result};
use crate::id::AccountId;
use crate::secret::Secret;
use crate::wire::calls::{self, Answer, Body, Call, Effect};
use crate::wire::keys::Object;
use crate::wire::queries::EVENTS_CURSOR;
use crate::wire::record::Record;

#[cfg(feature = "client-hyper")]
pub use hyper::HyperTransport;

/// Carries one request to the API server and its answer back.
#[async_trait]
pub trait Transport: Send + Sync {
    /// Sends a request whose URI is a path, and reads the whole answer.
    ///
    /// # Errors
    /// `Unavailable` if the server can't be reached or breaks off.
    async fn send(&self, request: Request<bytes::Bytes>) -> Result<Response<bytes::Bytes>>;
}

#[async_trait]
impl<T: Transport + ?Sized> Transport for Arc<T> {
    async fn send(&self, request: Request<bytes::Bytes>) -> Result<Response<bytes::Bytes>> {
        (**self).send(request).await
    }
}

/// Speaks the public API as one account.
#[derive(Debug)]
pub struct Client<T> {
    transport: T,
    authorization: HeaderValue,
}

impl<T: Transport> Client<T> {
    /// A client for `account`, whose secret key is `key`.
    ///
    /// # Errors
    /// `InvalidValue` if the key has characters that no header can carry.
    pub fn new(transport: T, account: AccountId, key: &Secret) -> Result<Self> {
        let basic = STANDARD.encode(format!("{account}:{}", key.expose()));
        let mut authorization =
            HeaderValue::try_from(format!("Basic {basic}")).map_err(|error| {
                Error::new(ErrorKind::InvalidValue, "the secret key can't be sent: check it")
                    .source(error)
            })?;
        authorization.set_sensitive(true);
        Ok(Self { transport, authorization })
    }

    /// Calls what answers with one record.
    ///
    /// # Errors
    /// What the server says, or `Unavailable`.
    pub async fn one(&self, call: Call, parameters: &[&str], record: &Record) -> Result<Record> {
        let body = self.send(call, parameters, record_body(call, record)).await?;
        Record::from_json(&body)
    }

    /// Calls what answers with all records.
    ///
    /// # Errors
    /// What the server says, or `Unavailable`.
    pub async fn many(&self, call: Call) -> Result<Vec<Record>> {
        let body = self.send(call, &[], bytes::Bytes::new()).await?;
        Record::list_from_json(&body)
    }

    /// Calls what tells events, with these parameters behind its path. Answers those that there
    /// are, and the cursor to go on with.
    ///
    /// # Errors
    /// What the server says, or `Unavailable`.
    pub async fn events(
        &self,
        call: Call,
        queries: &[(&str, &str)],
    ) -> Result<(Vec<Record>, String)> {
        let answer = self.answer(call, &[], queries, bytes::Bytes::new()).await?;
        let cursor = answer.headers().get(EVENTS_CURSOR).and_then(|value| value.to_str().ok());
        let cursor = cursor.map(str::to_owned).ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "the server did not say where its events end")
        })?;
        Ok((Record::list_from_json(answer.body())?, cursor))
    }

    /// Calls what answers with nothing.
    ///
    /// # Errors
    /// What the server says, or `Unavailable`.
    pub async fn act(&self, call: Call, parameters: &[&str]) -> Result<()> {
        self.send(call, parameters, bytes::Bytes::new()).await.map(|_| ())
    }

    /// Reads `length` bytes of a drive, at most 4 MiB, or a server's serial log.
    ///
    /// # Errors
    /// What the server says, or `Unavailable`.
    pub async fn read(&self, call: Call, parameters: &[&str]) -> Result<bytes::Bytes> {
        self.send(call, parameters, bytes::Bytes::new()).await
    }

    /// Sends bytes to a drive.
    ///
    /// # Errors
    /// What the server says, or `Unavailable`.
    pub async fn write(&self, call: Call, parameters: &[&str], data: bytes::Bytes) -> Result<()> {
        self.send(call, parameters, data).await.map(|_| ())
    }

    async fn send(
        &self,
        call: Call,
        parameters: &[&str],
        body: bytes::Bytes,
    ) -> Result<bytes::Bytes> {
        self.answer(call, parameters, &[], body).await.map(Response::into_body)
    }

    async fn answer(
        &self,
        call: Call,
        parameters: &[&str],
        queries: &[(&str, &str)],
        body: bytes::Bytes,
    ) -> Result<Response<bytes::Bytes>> {
        let route = calls::route(call);
        let method = match route.effect {
            Effect::Reads => Method::GET,
            Effect::Changes => Method::POST,
        };
        let content_type = match route.body {
            Body::Bytes => "application/octet-stream",
            Body::Record(_) | Body::Ignored => "application/json",
        };
        let accept = match route.answer {
            Answer::Bytes => "application/octet-stream",
            _ => "application/json",
        };
        let request = Request::builder()
            .method(method)
            .uri(calls::path(call, parameters) + &query(queries))
            .header(ACCEPT, accept)
            .header(CONTENT_TYPE, content_type)
            .header(AUTHORIZATION, self.authorization.clone())
            .body(body)
            .map_err(|error| {
                Error::new(ErrorKind::InvalidValue, "a parameter can't stand in a path")
                    .source(error)
            })?;
        let response = self.transport.send(request).await?;
        if response.status().is_success() { Ok(response) } else { Err(failure(&response)) }
    }
}

/// What stands behind a path, or nothing.
fn query(queries: &[(&str, &str)]) -> String {
    let encoded = |text: &str| -> String {
        let one = |byte: u8| match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' => {
                char::from(byte).to_string()
            }
            other => format!("%{other:02X}"),
        };
        text.bytes().map(one).collect()
    };
    let mut text = String::new();
    for (name, value) in queries {
        text.push(if text.is_empty() { '?' } else { '&' });
        text += &format!("{name}={}", encoded(value));
    }
    text
}

fn record_body(call: Call, record: &Record) -> bytes::Bytes {
    let object = match calls::route(call).body {
        Body::Record(object) => object,
        Body::Bytes | Body::Ignored => Object::Profile,
    };
    let mut json = String::new();
    record.json_into(object, &mut json);
    json.into()
}

/// Makes an [`Error`] of an answer that says no: `X-Elastic-Error: KEYWORD code=… field=…`.
fn failure(response: &Response<bytes::Bytes>) -> Error {
    let header = response.headers().get("x-elastic-error").and_then(|value| value.to_str().ok());
    let part =
        |name: &str| header?.split(' ').find_map(|word| word.strip_prefix(name)?.strip_prefix('='));
    let sentence = String::from_utf8_lossy(response.body());
    let sentence = sentence.trim();
    let sentence = if sentence.is_empty() { "the server gave no reason" } else { sentence };
    let kind = part("code").and_then(ErrorKind::from_code).unwrap_or(match response.status() {
        StatusCode::UNAUTHORIZED => ErrorKind::BadCredentials,
        StatusCode::NOT_FOUND => ErrorKind::NotFound,
        StatusCode::SERVICE_UNAVAILABLE | StatusCode::BAD_GATEWAY => ErrorKind::Unavailable,
        _ => ErrorKind::Internal,
    });
    let error = Error::new(kind, sentence).context(format!("HTTP {}", response.status()));
    match part("field") {
        Some(field) => error.field(field),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_code_field_and_sentence() {
        let response = Response::builder()
            .status(400)
            .header("X-Elastic-Error", "usage code=unknown_key field=sise")
            .body(bytes::Bytes::from_static(b"no such key\n"))
            .unwrap();
        let error = failure(&response);
        assert_eq!(error.kind(), ErrorKind::UnknownKey);
        assert_eq!(error.blamed_field(), Some("sise"));
        assert_eq!(error.public_message(), "no such key");
        let bare = Response::builder().status(503).body(bytes::Bytes::new()).unwrap();
        assert_eq!(failure(&bare).kind(), ErrorKind::Unavailable);
    }

    #[test]
    fn what_stands_behind_a_path_is_read_as_it_was_meant() {
        assert_eq!(query(&[]), "");
        let given = [("after", "1.2f.0"), ("name", "a&b=c d\u{e4}?#%")];
        let read = Record::from_form(&query(&given).as_bytes()[1..]).unwrap();
        assert_eq!(read.iter().collect::<Vec<_>>(), given);
    }
}
