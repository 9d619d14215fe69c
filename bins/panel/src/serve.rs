//! The panel on a socket: who may be served in clear, and how serving ends.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{Panel, Scheme};

/// How long requests under way may take to finish once serving is to end: longer than the API lets
/// any call wait.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// Why the panel is not served.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Unserved {
    /// Keys would cross a network readably.
    #[error(
        "{address} is not a loopback address, and the panel speaks no TLS: keys would be sent in \
         clear; listen on 127.0.0.1, or put a proxy in front and set https = true"
    )]
    InClear {
        /// Where it was to listen.
        address: SocketAddr,
    },
    /// The socket failed.
    #[error("the panel's socket failed")]
    Socket(#[source] io::Error),
}

impl Panel {
    /// Serves the pages until `stop` completes, then ends as [`Panel::close`] does. Requests under
    /// way may finish; one that takes too long is cut off.
    ///
    /// # Errors
    /// [`Unserved`].
    ///
    /// # Cancel safety
    /// Dropping it cuts what is under way; every page may be cut off anywhere.
    pub async fn serve(
        &self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Result<(), Unserved> {
        let address = listener.local_addr().map_err(Unserved::Socket)?;
        if self.app.scheme == Scheme::Http && !address.ip().to_canonical().is_loopback() {
            return Err(Unserved::InClear { address });
        }
        let end = CancellationToken::new();
        let pages = self.router().into_make_service_with_connect_info::<SocketAddr>();
        let serving =
            axum::serve(listener, pages).with_graceful_shutdown(end.clone().cancelled_owned());
        let late = async {
            stop.await;
            end.cancel();
            tokio::time::sleep(LAST_WORDS).await;
        };
        let served = tokio::select! {
            served = serving.into_future() => served.map_err(Unserved::Socket),
            () = late => Ok(()),
        };
        self.close().await;
        served
    }
}
