//! Serving the internal API over mTLS.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use elasticstack_core::prelude::*;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::TaskTracker;

use super::certificate::Certificate;

/// How long a client may take to prove who it is.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Serves `router` to the control plane alone, until dropped; connections end with it.
pub(super) async fn serve(
    router: Router,
    listener: TcpListener,
    certificate: &Certificate,
) -> Result<()> {
    let acceptor = TlsAcceptor::from(Arc::new(certificate.server_config()?));
    let connections = TaskTracker::new();
    let stop = tokio_util::sync::CancellationToken::new();
    let _stop_on_drop = stop.clone().drop_guard();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Too many open files, or a client that went away: neither is a reason to end.
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        // An answer is a few small frames: none waits until the other end has acknowledged the last.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::warn!(%error, "a connection was gone at once");
            continue;
        }
        let connection = connection(acceptor.clone(), stream, router.clone());
        let stop = stop.clone();
        connections.spawn(async move {
            tokio::select! {
                () = connection => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, router: Router) {
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::warn!(%error, "a client was refused"),
        Err(_) => return tracing::warn!("a client did not prove who it is in time"),
    };
    speak(stream, router).await;
}

/// Answers one client until it hangs up.
pub(super) async fn speak(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    router: Router,
) {
    let service = TowerToHyperService::new(router);
    let served = hyper::server::conn::http2::Builder::new(TokioExecutor::new())
        .enable_connect_protocol()
        // Whoever calls has thousands of hosts to keep tables for.
        .header_table_size(0)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection broke");
    }
}
