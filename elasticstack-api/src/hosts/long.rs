//! Calls to a host that last as long as somebody takes what they bring: a guest's screen, a drive that is
//! exported. Each has a connection of its own: who takes it slowly shall hold up nothing else of this host.

use bytes::Bytes as Data;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::SCREEN_PROTOCOL;
use futures_util::{StreamExt as _, TryStreamExt as _};
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response};
use http_body_util::{BodyDataStream, BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper_util::rt::TokioIo;

use super::client::{HostClient, MAX_ANSWER, NoAnswer};
use crate::app::{Export, Screen};

/// How many bytes may be under way before they are taken, for either side.
const WINDOW: u32 = 256 << 10;

impl HostClient {
    /// The screen of a run of a server.
    pub(super) async fn screen(&self, server: ServerId, run: Run) -> Result<Box<dyn Screen>> {
        let path = format!("/v1/servers/{server}/screen?run={}", run.0);
        let mut request = self.request(Method::CONNECT, &path, Data::new())?;
        request.extensions_mut().insert(Protocol::from_static(SCREEN_PROTOCOL));
        let response = self.begin(request).await?;
        let upgraded = hyper::upgrade::on(response).await;
        let upgraded = upgraded.map_err(|why| self.unavailable().source(NoAnswer::Http(why)))?;
        Ok(Box::new(TokioIo::new(upgraded)))
    }

    /// A drive as a qcow2 image.
    pub(super) async fn export(&self, drive: DriveId) -> Result<Export> {
        let path = format!("/v1/drives/{drive}/qcow2");
        let response = self.begin(self.request(Method::GET, &path, Data::new())?).await?;
        let length = response.headers().get(CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        let name = self.host.name.clone();
        let length = length.ok_or_else(|| {
            Error::internal(format!("{name} does not tell how long a drive's image is"))
        })?;
        let lost = move |error| {
            Error::new(ErrorKind::Unavailable, "the export broke off: begin again")
                .context(name.to_string())
                .source(error)
        };
        let pieces = BodyDataStream::new(response.into_body()).map_err(lost).boxed();
        Ok(Export { length, pieces })
    }

    /// Sends a request on a connection of its own, and answers what begins to come of it.
    async fn begin(&self, request: Request<Full<Data>>) -> Result<Response<Incoming>> {
        let begun = async {
            let mut sender = self.open(WINDOW).await?;
            let response = sender.send_request(request).await.map_err(NoAnswer::Http)?;
            if response.status().is_success() {
                return Ok(Ok(response));
            }
            let (parts, body) = response.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(NoAnswer::Body)?;
            Ok(Err(self.refusal(parts.status, &body.to_bytes())))
        };
        let within = self.patience.call;
        tokio::time::timeout(within, begun)
            .await
            .unwrap_or(Err(NoAnswer::Timeout(within)))
            .map_err(|why| self.unavailable().source(why))?
    }
}
