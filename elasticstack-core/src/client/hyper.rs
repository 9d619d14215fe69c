//! The socket under the client: HTTP/1.1 over TCP, connections kept.

use async_trait::async_trait;
use http::uri::Authority;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;

use super::Transport;
use crate::error::{Error, ErrorKind, Result};

/// The largest answer taken.
const MAX_ANSWER: usize = 256 << 20;

/// Sends to one API server in clear, which that server accepts on loopback only.
#[derive(Debug, Clone)]
pub struct HyperTransport {
    client: Client<HttpConnector, Full<bytes::Bytes>>,
    authority: Authority,
}

impl HyperTransport {
    /// A transport to `http://HOST:PORT`.
    ///
    /// # Errors
    /// `InvalidValue` if `base` is not such an address.
    pub fn new(base: &str) -> Result<Self> {
        let invalid = || {
            Error::new(
                ErrorKind::InvalidValue,
                format!("{base:?} is no address of an API server: give http://HOST:PORT"),
            )
        };
        let uri: Uri = base.parse().map_err(|error| invalid().source(error))?;
        if uri.scheme_str() != Some("http") {
            return Err(invalid());
        }
        let authority = uri.authority().cloned().ok_or_else(invalid)?;
        Ok(Self { client: Client::builder(TokioExecutor::new()).build_http(), authority })
    }
}

#[async_trait]
impl Transport for HyperTransport {
    async fn send(&self, request: Request<bytes::Bytes>) -> Result<Response<bytes::Bytes>> {
        let unreachable = |what: &str| {
            Error::new(
                ErrorKind::Unavailable,
                format!("the API server at {} {what}", self.authority),
            )
        };
        let (mut parts, body) = request.into_parts();
        let mut uri = parts.uri.into_parts();
        uri.scheme = Some(http::uri::Scheme::HTTP);
        uri.authority = Some(self.authority.clone());
        parts.uri = Uri::from_parts(uri).map_err(|error| {
            Error::internal("putting a request's address together").source(error)
        })?;
        let request = Request::from_parts(parts, Full::new(body));
        let response = self
            .client
            .request(request)
            .await
            .map_err(|error| unreachable("can't be reached").source(error))?;
        let (parts, body) = response.into_parts();
        let body = Limited::new(body, MAX_ANSWER)
            .collect()
            .await
            .map_err(|error| unreachable("broke off its answer").source(error))?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}
