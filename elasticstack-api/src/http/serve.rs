//! Serves a router on a TCP listener, in clear and therefore on loopback only.
//!
//! Every connection is a task that is joined before [`serve`] returns: on shutdown each finishes
//! the request it is at, within [`LAST_WORDS`].

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::time::Duration;

use axum::{Extension, Router};
use elasticstack_core::error::{Error, ErrorKind, Result};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Whence a connection comes; every request on it has this as an extension.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// How long a client may take to send a request's head.
const MAX_HEAD: Duration = Duration::from_secs(30);

/// How long requests under way may go on once the end is asked for; more than any use case waits.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// The pause after the system had no connection to give, for want of descriptors or memory.
const BREATHER: Duration = Duration::from_millis(100);

/// Serves until `shutdown` completes.
///
/// # Errors
/// `InvalidValue` if the listener is not on loopback: credentials in clear stay on this machine.
///
/// # Cancel safety
/// Dropping it cuts every connection.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    let address = listener
        .local_addr()
        .map_err(|error| Error::internal("asking a listener for its address").source(error))?;
    if !address.ip().to_canonical().is_loopback() {
        return Err(Error::new(
            ErrorKind::InvalidValue,
            format!(
                "the public API can't be served in clear on {address}, because keys would cross \
                 the network readably: listen on 127.0.0.1 or [::1], behind a TLS proxy"
            ),
        ));
    }
    let mut shutdown = pin!(shutdown);
    let end = CancellationToken::new();
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => match accepted {
                Ok((stream, peer)) => {
                    let router = router.clone().layer(Extension(Peer(peer.ip())));
                    connections.spawn(connection(stream, router, end.clone()));
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    tokio::time::sleep(BREATHER).await;
                }
            },
        }
    }
    drop(listener);
    end.cancel();
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(LAST_WORDS, drained).await.is_err() {
        tracing::warn!(cut = connections.len(), "requests were cut off by the shutdown");
        connections.shutdown().await;
    }
    Ok(())
}

async fn connection(stream: TcpStream, router: Router, end: CancellationToken) {
    // Without this, small answers wait for the client's acknowledgement of the last one.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let mut builder = Builder::new(TokioExecutor::new());
    // Whoever says that no more will come is still told what became of it.
    builder.http1().timer(TokioTimer::new()).header_read_timeout(MAX_HEAD).half_close(true);
    builder.http2().timer(TokioTimer::new()).keep_alive_interval(MAX_HEAD);
    let service = TowerToHyperService::new(router);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = end.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(error = %error, "a connection ended badly");
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Bytes;
    use axum::routing::{get, post};
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::oneshot;

    use super::*;

    fn echo() -> Router {
        let whence = async |Extension(Peer(address)): Extension<Peer>| address.to_string();
        Router::new().route("/", post(async |body: Bytes| body)).route("/whence", get(whence))
    }

    /// Sends one request as bytes and reads until the server closes.
    async fn exchange(request: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, echo(), async {
            let _ = stopped.await;
        }));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
        answer
    }

    #[tokio::test]
    async fn no_expectation_is_ever_refused() {
        for expect in ["https://example.org/x", "100-continue", "nonsense", ""] {
            let request = format!(
                "POST / HTTP/1.1\r\nHost: x\r\nExpect: {expect}\r\nConnection: close\r\n\
                 Content-Length: 4\r\n\r\nbody"
            );
            let answer = exchange(request.as_bytes()).await;
            assert!(answer.contains("HTTP/1.1 200 OK\r\n"), "{expect}: {answer}");
            assert!(answer.ends_with("\r\n\r\nbody"), "{expect}: {answer}");
        }
    }

    #[tokio::test]
    async fn a_request_knows_whence_it_comes() {
        let answer =
            exchange(b"GET /whence HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
        assert!(answer.ends_with("\r\n\r\n127.0.0.1"), "{answer}");
    }

    #[tokio::test]
    async fn a_shutdown_lets_an_idle_connection_go_and_returns() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, echo(), async {
            let _ = stopped.await;
        }));
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n").await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        assert_eq!(&first, b"HTTP/1.1 200");
        stop.send(()).unwrap();
        server.await.unwrap().unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
    }

    #[tokio::test]
    async fn clear_text_is_not_served_beyond_loopback() {
        let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
        let refused = serve(listener, echo(), std::future::ready(())).await.unwrap_err();
        assert!(refused.public_message().contains("listen on 127.0.0.1"), "{refused}");
    }
}
