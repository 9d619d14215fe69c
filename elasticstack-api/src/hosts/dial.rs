//! How a byte stream to a host comes about.

use std::collections::HashMap;
use std::fmt;
use std::io;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;
use axum::Router;
use elasticstack_core::id::HostId;
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::task::JoinSet;

use super::client::WINDOW;
use crate::app::HostRecord;

/// A stream of bytes both ways.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// Opens streams to hosts.
///
/// # Contract
/// - **DI-1** The other end of a stream is the agent of exactly the host asked for, proven by the
///   way of dialling itself, and it speaks HTTP/2 with prior knowledge.
/// - **DI-2** Dropping the future or the stream leaves nothing open.
#[async_trait]
pub trait Dial: Send + Sync {
    /// Opens one stream to `host`. The caller limits the time.
    ///
    /// # Errors
    /// Any [`io::Error`]: the host counts as out of reach, and is dialled again later.
    async fn dial(&self, host: &HostRecord) -> io::Result<Box<dyn Stream>>;
}

/// Reaches agents in the same process: each dial serves the host's router on the other end of an
/// in-memory stream. Only TLS is left out.
///
/// Dropping it cuts every stream.
#[derive(Default)]
pub struct MemoryDial {
    hosts: Mutex<Hosts>,
}

#[derive(Default)]
struct Hosts {
    routers: HashMap<HostId, Router>,
    streams: JoinSet<()>,
}

/// How many bytes a stream holds before its writer waits.
const BUFFER: usize = 256 << 10;

impl MemoryDial {
    /// Knows no host.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From now on, `host` is reached by serving `router`.
    pub fn insert(&self, host: HostId, router: Router) {
        self.lock().routers.insert(host, router);
    }

    /// From now on, `host` is out of reach; streams that are open stay so.
    pub fn remove(&self, host: HostId) {
        self.lock().routers.remove(&host);
    }

    /// Cuts every stream that is open now.
    pub fn cut(&self) {
        self.lock().streams.abort_all();
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Hosts> {
        // No code that could panic runs under this lock.
        self.hosts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for MemoryDial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemoryDial").finish_non_exhaustive()
    }
}

#[async_trait]
impl Dial for MemoryDial {
    async fn dial(&self, host: &HostRecord) -> io::Result<Box<dyn Stream>> {
        let mut hosts = self.lock();
        while hosts.streams.try_join_next().is_some() {}
        let router = hosts.routers.get(&host.host).cloned().ok_or_else(|| {
            io::Error::new(io::ErrorKind::ConnectionRefused, "this process has no such host")
        })?;
        let (ours, theirs) = tokio::io::duplex(BUFFER);
        hosts.streams.spawn(serve(theirs, router));
        Ok(Box::new(ours))
    }
}

async fn serve(stream: DuplexStream, router: Router) {
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .enable_connect_protocol()
        .initial_stream_window_size(WINDOW)
        .initial_connection_window_size(WINDOW);
    let service = TowerToHyperService::new(router);
    if let Err(error) = server.serve_connection(TokioIo::new(stream), service).await {
        tracing::debug!(%error, "an in-memory stream ended badly");
    }
}
