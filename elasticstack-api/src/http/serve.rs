//! Serves a router on a TCP listener, in clear and therefore on loopback only.
//!
//! Every connection is a task that is joined before [`serve`] returns: on shutdown each finishes
//! the request it is at, within [`LAST_WORDS`]. Invariants: there are so many connections at a time
//! and no more; none holds its place for want of words, of ears or of an end.

use std::future::Future;
use std::net::IpAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::{Extension, Router};
use elasticstack_core::error::{Error, ErrorKind, Result};
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::pace::{PACE, Pace, Paced};

/// A connection; every request on it has this as an extension.
#[derive(Debug, Clone)]
pub(super) struct Link {
    /// Whence it comes.
    pub(super) peer: IpAddr,
    /// Told when the server is to end.
    pub(super) end: CancellationToken,
    /// Told when the connection is to be cut.
    pub(super) cut: CancellationToken,
    /// How fast answers must be taken.
    pub(super) pace: Pace,
    /// What outlives its request: it is waited for.
    pub(super) tasks: TaskTracker,
}

/// How long a client may take to send a request's head.
const MAX_HEAD: Duration = Duration::from_secs(30);

/// The longest head of a request, and the most of an answer that is buffered ahead of the client.
const MAX_BUFFER: usize = 64 << 10;

/// The most headers' bytes of a request in HTTP/2, unpacked.
const MAX_HEADERS: u32 = 64 << 10;

/// The requests that may be under way on one HTTP/2 connection.
const MAX_STREAMS: u32 = 64;

/// How long a connection may last before it is asked to end, and how much longer until it is cut.
const MAX_AGE: Duration = Duration::from_secs(6 * 60 * 60);

/// How long requests under way may go on once the end is asked for; more than any use case waits.
const LAST_WORDS: Duration = Duration::from_secs(30);

/// The pause after the system had no connection to give, for want of descriptors or memory.
const BREATHER: Duration = Duration::from_millis(100);

/// Serves until `shutdown` completes, at most so many connections at a time.
///
/// # Errors
/// `InvalidValue` if the listener is not on loopback: credentials in clear stay on this machine.
///
/// # Cancel safety
/// Dropping it cuts every connection.
pub(crate) async fn serve(
    listener: TcpListener,
    router: Router,
    connections: u32,
    shutdown: impl Future<Output = ()> + Send,
) -> Result<()> {
    serve_within(listener, router, Bounds { connections, head: MAX_HEAD, pace: PACE }, shutdown)
        .await
}

/// What connections are held to.
#[derive(Debug, Clone, Copy)]
struct Bounds {
    connections: u32,
    /// How long the head of a request may take.
    head: Duration,
    pace: Pace,
}

async fn serve_within(
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
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
    let _ended = end.clone().drop_guard();
    let (mut connections, tasks) = (JoinSet::new(), TaskTracker::new());
    let places = Arc::new(Semaphore::new(usize::try_from(bounds.connections.max(1)).unwrap_or(1)));
    loop {
        let accepted = async {
            // Who finds no place waits where the system keeps those that nobody has accepted.
            let place = Arc::clone(&places).acquire_owned().await;
            (listener.accept().await, place)
        };
        tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => {}
            (accepted, place) = accepted => match accepted {
                Ok((stream, peer)) => {
                    let link = Link {
                        peer: peer.ip(),
                        end: end.clone(),
                        cut: CancellationToken::new(),
                        pace: bounds.pace,
                        tasks: tasks.clone(),
                    };
                    let connection = connection(stream, router.clone(), link, bounds.head);
                    connections.spawn(async move {
                        connection.await;
                        drop(place);
                    });
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
    tasks.close();
    let drained = async {
        while connections.join_next().await.is_some() {}
        tasks.wait().await;
    };
    if tokio::time::timeout(LAST_WORDS, drained).await.is_err() {
        tracing::warn!(cut = connections.len(), "requests were cut off by the shutdown");
        connections.shutdown().await;
    }
    Ok(())
}

async fn connection(stream: TcpStream, router: Router, link: Link, head: Duration) {
    // Without this, small answers wait for the client's acknowledgement of the last one.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "no TCP_NODELAY");
    }
    let mut builder = Builder::new(TokioExecutor::new());
    // Whoever says that no more will come is still told what became of it.
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(head)
        .half_close(true)
        .max_buf_size(MAX_BUFFER);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(MAX_HEAD)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADERS)
        .max_send_buf_size(MAX_BUFFER);
    let (end, cut) = (link.end.clone(), link.cut.clone());
    let stream = TokioIo::new(Paced::new(stream, link.pace));
    let begun = CancellationToken::new();
    let (first, router) = (begun.clone(), TowerToHyperService::new(router.layer(Extension(link))));
    let service = service_fn(move |request| {
        first.cancel();
        router.call(request)
    });
    let mut connection = pin!(builder.serve_connection_with_upgrades(stream, service));
    let serving = async {
        let age = async {
            tokio::select! {
                () = end.cancelled() => {}
                () = sleep(MAX_AGE) => {}
            }
        };
        tokio::select! {
            outcome = connection.as_mut() => return outcome,
            () = age => {}
        }
        connection.as_mut().graceful_shutdown();
        tokio::select! {
            outcome = connection.as_mut() => outcome,
            () = sleep(MAX_AGE) => Ok(()),
        }
    };
    // Until its first words say which HTTP it speaks, nothing else counts the time.
    let late = async {
        if timeout(head, begun.cancelled()).await.is_ok() {
            std::future::pending::<()>().await;
        }
    };
    let outcome = tokio::select! {
        outcome = serving => outcome,
        () = late => return tracing::debug!("a connection is cut: no request came in time"),
        () = cut.cancelled() => {
            return tracing::debug!("a connection is cut: its client does not take an answer");
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
        let whence = async |Extension(link): Extension<Link>| link.peer.to_string();
        Router::new().route("/", post(async |body: Bytes| body)).route("/whence", get(whence))
    }

    /// Sends one request as bytes and reads until the server closes.
    async fn exchange(request: &[u8]) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(serve(listener, echo(), 8, async {
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
        let server = tokio::spawn(serve(listener, echo(), 8, async {
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
        let refused = serve(listener, echo(), 8, std::future::ready(())).await.unwrap_err();
        assert!(refused.public_message().contains("listen on 127.0.0.1"), "{refused}");
    }

    /// How large an answer is that no buffer of the system takes whole.
    const LARGE: usize = 32 << 20;

    /// One connection at a time, and little patience with it.
    const STRICT: Bounds = Bounds {
        connections: 1,
        head: Duration::from_millis(300),
        pace: Pace { pause: Duration::from_millis(300), slowest: 64 << 20 },
    };

    /// Does `work` with the address of a server within these bounds.
    async fn within<T>(bounds: Bounds, work: impl AsyncFnOnce(std::net::SocketAddr) -> T) -> T {
        let large = async |Extension(link): Extension<Link>| {
            let response = axum::response::Response::new(vec![7_u8; LARGE].into());
            super::super::pace::timed(response, &link.cut, link.pace, ())
        };
        let router = echo().route("/large", get(large));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let serving = serve_within(listener, router, bounds, async {
            let _ = stopped.await;
        });
        let working = async {
            let done = work(address).await;
            stop.send(()).unwrap();
            done
        };
        let both = async { tokio::join!(serving, working) };
        let (served, done) =
            tokio::time::timeout(Duration::from_secs(60), both).await.expect("it hangs");
        served.unwrap();
        done
    }

    /// What a new client is answered, once there is a place for it.
    async fn whence(address: std::net::SocketAddr) -> String {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = b"GET /whence HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
        stream.write_all(request).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_client_that_does_not_take_its_answer_loses_its_place_to_another() {
        within(STRICT, async |address| {
            let mut deaf = TcpStream::connect(address).await.unwrap();
            deaf.write_all(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
            let mut first = [0; 12];
            deaf.read_exact(&mut first).await.unwrap();
            assert!(whence(address).await.contains("200 OK"));
            let mut rest = Vec::new();
            let cut = deaf.read_to_end(&mut rest).await;
            assert!(cut.is_err() || rest.len() < LARGE, "it got all of it");
        })
        .await;
    }

    #[tokio::test]
    async fn a_client_that_takes_one_answer_of_many_too_slowly_is_cut_in_http_2_too() {
        within(STRICT, async |address| {
            let stream = TcpStream::connect(address).await.unwrap();
            let client = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
            let (mut sender, connection) =
                client.handshake::<_, axum::body::Body>(TokioIo::new(stream)).await.unwrap();
            let connection = tokio::spawn(connection);
            let ask = |path| {
                let uri = format!("http://x{path}");
                http::Request::get(uri).body(axum::body::Body::empty()).unwrap()
            };
            let deaf = sender.send_request(ask("/large")).await.unwrap();
            let other = sender.send_request(ask("/whence")).await.unwrap();
            assert_eq!(other.status(), 200, "the connection itself is well");
            assert!(whence(address).await.contains("200 OK"));
            let _ = connection.await.unwrap();
            drop(deaf);
        })
        .await;
    }

    #[tokio::test]
    async fn a_client_whose_head_does_not_come_loses_its_place_to_another() {
        within(STRICT, async |address| {
            for begun in ["", "PRI * HTTP/2.0", "GET /whence HTTP/1.1\r\nHost:"] {
                let mut slow = TcpStream::connect(address).await.unwrap();
                slow.write_all(begun.as_bytes()).await.unwrap();
                assert!(whence(address).await.contains("200 OK"), "{begun:?}");
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_connection_past_the_most_waits_until_another_ends() {
        let bounds = Bounds { connections: 2, head: MAX_HEAD, pace: PACE };
        within(bounds, async |address| {
            let idle = [
                TcpStream::connect(address).await.unwrap(),
                TcpStream::connect(address).await.unwrap(),
            ];
            let mut third = Box::pin(whence(address));
            let early = tokio::time::timeout(Duration::from_millis(300), &mut third).await;
            assert!(early.is_err(), "there were three: {early:?}");
            drop(idle);
            assert!(third.await.contains("200 OK"));
        })
        .await;
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let head =
            format!("GET /whence HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "x".repeat(MAX_BUFFER));
        let answer = exchange(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
        let many = "X: x\r\n".repeat(1_000);
        let head = format!("GET /whence HTTP/1.1\r\nHost: x\r\n{many}\r\n");
        let answer = exchange(head.as_bytes()).await;
        assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
    }
}
