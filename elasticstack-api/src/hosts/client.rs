//! Calls to one host's agent over one HTTP/2 connection, which is opened when it is needed and
//! again when it broke.
//!
//! What takes as long as somebody takes what it brings has a connection of its own: see [`super::long`].
//!
//! Every call has a timeout. A request is sent a second time only if it certainly was not sent
//! the first time: a write that is repeated later could overtake a newer one.

use std::fmt;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes as Data;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::{
    Accepted, Counts, CountsOf, Cursor, Document, Documents, Fault, HostReport, PROTOCOL, Reports,
    ReportsAfter, Stock,
};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::dial::Dial;
use super::tasks::Tasks;
use crate::app::HostRecord;

/// How many bytes may be under way before they are acknowledged, for either side.
pub(super) const WINDOW: u32 = 4 << 20;

/// The longest answer that is a document.
pub(super) const MAX_ANSWER: usize = 64 << 20;

/// The longest serial log.
const MAX_SERIAL: usize = 2 << 20;

/// How long a connection may be silent before it is asked for a sign of life, and how long that
/// may take.
const PING: Duration = Duration::from_secs(10);

/// How long to wait for a host before it counts as out of reach.
#[derive(Debug, Clone, Copy)]
pub struct Patience {
    /// For a stream to it.
    pub dial: Duration,
    /// For the answer to a call.
    pub call: Duration,
    /// For bytes of a drive to be read or made durable.
    pub data: Duration,
    /// How long a long poll asks it to wait for news.
    pub news: Duration,
    /// For counters, without which an answer is given all the same.
    pub counts: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            dial: Duration::from_secs(10),
            call: Duration::from_secs(30),
            data: Duration::from_secs(60),
            news: Duration::from_secs(5),
            counts: Duration::from_secs(2),
        }
    }
}

/// One host's agent.
pub(super) struct HostClient {
    pub(super) host: HostRecord,
    dial: Arc<dyn Dial>,
    tasks: Tasks,
    pub(super) patience: Patience,
    /// The connection in use.
    link: Mutex<Option<SendRequest<Full<Data>>>>,
}

/// Why there is no answer; for the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum NoAnswer {
    #[error("dialling failed")]
    Dial(#[source] io::Error),
    #[error("dialling took longer than {0:?}")]
    DialTimeout(Duration),
    #[error("the HTTP/2 connection failed")]
    Http(#[source] hyper::Error),
    #[error("the answer broke off")]
    Body(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

impl HostClient {
    pub(super) fn new(
        host: HostRecord,
        dial: Arc<dyn Dial>,
        tasks: Tasks,
        patience: Patience,
    ) -> Self {
        Self { host, dial, tasks, patience, link: Mutex::default() }
    }

    pub(super) fn record(&self) -> &HostRecord {
        &self.host
    }

    pub(super) fn id(&self) -> HostId {
        self.host.host
    }

    /// What the host is, from an agent whose wire we speak.
    pub(super) async fn host(&self) -> Result<HostReport> {
        let report: HostReport =
            self.document(Method::GET, "/v1/host", Data::new(), self.patience.call).await?;
        if (PROTOCOL.saturating_sub(1)..=PROTOCOL).contains(&report.protocol) {
            return Ok(report);
        }
        let theirs = report.protocol;
        Err(self
            .unavailable()
            .context(format!("its agent speaks protocol {theirs}, we {PROTOCOL}")))
    }

    /// All that the host has.
    pub(super) async fn stock(&self) -> Result<Stock> {
        self.document(Method::GET, "/v1/stock", Data::new(), self.patience.call).await
    }

    /// Hands documents over; they are durable there once this returns.
    pub(super) async fn documents(&self, documents: Vec<Document>) -> Result<Accepted> {
        let body = json(&Documents { documents })?;
        self.document(Method::POST, "/v1/documents", body, self.patience.call).await
    }

    /// What changed after `after`, as soon as there is something.
    pub(super) async fn reports(&self, after: Option<Cursor>) -> Result<Reports> {
        let wait_ms = u32::try_from(self.patience.news.as_millis()).unwrap_or(u32::MAX);
        let body = json(&ReportsAfter { after, wait_ms })?;
        let within = self.patience.news + self.patience.call;
        self.document(Method::POST, "/v1/reports", body, within).await
    }

    /// What servers and drives have read and written.
    pub(super) async fn counts(&self, of: &CountsOf) -> Result<Counts> {
        self.document(Method::POST, "/v1/counts", json(of)?, self.patience.counts).await
    }

    /// `length` bytes of a drive from `offset` on.
    pub(super) async fn read(&self, drive: DriveId, offset: Bytes, length: Bytes) -> Result<Data> {
        let (offset, length) = (offset.get(), length.get());
        let limit = usize::try_from(length).unwrap_or(usize::MAX);
        let path = format!("/v1/drives/{drive}/data?offset={offset}&length={length}");
        let request = self.request(Method::GET, &path, Data::new())?;
        let data = self.call(request, limit, self.patience.data).await?;
        if data.len() == limit {
            return Ok(data);
        }
        let found = data.len();
        Err(Error::internal(format!("{} sent {found} bytes, not {length}", self.host.name)))
    }

    /// Writes bytes to a drive; they are durable once this returns.
    pub(super) async fn write(&self, drive: DriveId, offset: Bytes, data: Data) -> Result<()> {
        let path = format!("/v1/drives/{drive}/data?offset={}", offset.get());
        let request = self.request(Method::POST, &path, data)?;
        self.call(request, MAX_ANSWER, self.patience.data).await.map(|_| ())
    }

    /// What a server wrote to its serial port.
    pub(super) async fn serial(&self, server: ServerId) -> Result<Data> {
        let path = format!("/v1/servers/{server}/serial");
        let request = self.request(Method::GET, &path, Data::new())?;
        self.call(request, MAX_SERIAL, self.patience.call).await
    }

    async fn document<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Data,
        within: Duration,
    ) -> Result<T> {
        let request = self.request(method, path, body)?;
        let answer = self.call(request, MAX_ANSWER, within).await?;
        serde_json::from_slice(&answer).map_err(|error| {
            Error::internal(format!("reading what {} answers to {path}", self.host.name))
                .source(error)
        })
    }

    pub(super) fn request(
        &self,
        method: Method,
        path: &str,
        body: Data,
    ) -> Result<Request<Full<Data>>> {
        Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.host.host))
            .header(http::header::CONTENT_TYPE, "application/json")
            .body(Full::new(body))
            .map_err(|error| Error::internal(format!("putting {path} together")).source(error))
    }

    /// Sends a request and takes its whole answer.
    ///
    /// # Errors
    /// What the host says, or `Unavailable` if it says nothing within this time.
    ///
    /// # Cancel safety
    /// The host may or may not have done what was asked.
    async fn call(
        &self,
        request: Request<Full<Data>>,
        limit: usize,
        within: Duration,
    ) -> Result<Data> {
        let exchange = self.exchange(request, limit);
        let answer = match tokio::time::timeout(within, exchange).await {
            Ok(answer) => answer,
            Err(_) => {
                // Whoever asks next shall not wait on a connection that leads nowhere.
                *self.lock() = None;
                Err(NoAnswer::Timeout(within))
            }
        };
        let (parts, body) = answer.map_err(|why| self.unavailable().source(why))?.into_parts();
        if parts.status.is_success() {
            return Ok(body);
        }
        Err(self.refusal(parts.status, &body))
    }

    pub(super) fn refusal(&self, status: StatusCode, body: &[u8]) -> Error {
        let name = &self.host.name;
        match serde_json::from_slice::<Fault>(body) {
            Ok(fault) => Error::from(fault).context(format!("{name} refused")),
            Err(_) => Error::internal(format!("{name} answered {status} without a reason")),
        }
    }

    async fn exchange(
        &self,
        request: Request<Full<Data>>,
        limit: usize,
    ) -> Result<Response<Data>, NoAnswer> {
        let mut sender = self.sender().await?;
        let sent = match sender.try_send_request(request).await {
            Err(mut failed) => match failed.take_message() {
                Some(unsent) => {
                    drop(sender);
                    self.connect().await?.send_request(unsent).await
                }
                None => Err(failed.into_error()),
            },
            Ok(response) => Ok(response),
        };
        let (parts, body) = sent.map_err(NoAnswer::Http)?.into_parts();
        // A refusal may be longer than the few bytes that were asked for.
        let limit = if parts.status.is_success() { limit } else { MAX_ANSWER };
        let body = Limited::new(body, limit).collect().await.map_err(NoAnswer::Body)?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }

    /// The connection in use if it lives, else a new one.
    async fn sender(&self) -> Result<SendRequest<Full<Data>>, NoAnswer> {
        let living = self.lock().clone().filter(|sender| !sender.is_closed());
        match living {
            Some(sender) => Ok(sender),
            None => self.connect().await,
        }
    }

    /// Opens a connection. Two calls that find none at a time open two, of which one is kept;
    /// the other serves its call and closes.
    async fn connect(&self) -> Result<SendRequest<Full<Data>>, NoAnswer> {
        let sender = self.open(WINDOW).await?;
        *self.lock() = Some(sender.clone());
        Ok(sender)
    }

    /// Opens a connection on which so many bytes may be under way.
    pub(super) async fn open(&self, window: u32) -> Result<SendRequest<Full<Data>>, NoAnswer> {
        let within = self.patience.dial;
        let opened = async {
            let stream = self.dial.dial(&self.host).await.map_err(NoAnswer::Dial)?;
            http2::Builder::new(self.tasks.clone())
                .timer(TokioTimer::new())
                .initial_stream_window_size(window)
                .initial_connection_window_size(window)
                // Nothing comes twice that is worth keeping for thousands of hosts.
                .header_table_size(0)
                .keep_alive_interval(PING)
                .keep_alive_timeout(PING)
                .keep_alive_while_idle(true)
                .handshake(TokioIo::new(stream))
                .await
                .map_err(NoAnswer::Http)
        };
        let (sender, connection) = tokio::time::timeout(within, opened)
            .await
            .map_err(|_| NoAnswer::DialTimeout(within))??;
        let host_id = self.host.host;
        self.tasks.spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%host_id, %error, "the connection to a host broke");
            }
        });
        tracing::debug!(%host_id, "connected to a host");
        Ok(sender)
    }

    pub(super) fn unavailable(&self) -> Error {
        Error::new(
            ErrorKind::Unavailable,
            "the host of this object does not answer: try again, nothing is lost",
        )
        .context(format!("host {} at {}", self.host.name, self.host.address))
    }

    fn lock(&self) -> MutexGuard<'_, Option<SendRequest<Full<Data>>>> {
        // No code that could panic runs under this lock.
        self.link.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for HostClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostClient").field("host", &self.host).finish_non_exhaustive()
    }
}

fn json<T: Serialize>(document: &T) -> Result<Data> {
    serde_json::to_vec(document)
        .map(Data::from)
        .map_err(|error| Error::internal("writing a document as JSON").source(error))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use async_trait::async_trait;
    use axum::extract::{Query, State};
    use axum::routing::{get, post};
    use axum::{Json, Router};
    use tokio::sync::{Barrier, watch};
    use uuid::Uuid;

    use super::super::dial::{MemoryDial, Stream};
    use super::*;

    const HOST: HostId = HostId::from_uuid(Uuid::from_u128(7));
    const DRIVE: DriveId = DriveId::from_uuid(Uuid::from_u128(8));
    const SERVER: ServerId = ServerId::from_uuid(Uuid::from_u128(9));
    const DATA: &str = "/v1/drives/{id}/data";
    const SERIAL: &str = "/v1/servers/{id}/serial";

    /// Counts how often it is dialled.
    #[derive(Default)]
    struct Counting {
        memory: MemoryDial,
        dials: AtomicUsize,
    }

    #[async_trait]
    impl Dial for Counting {
        async fn dial(&self, host: &HostRecord) -> io::Result<Box<dyn Stream>> {
            self.dials.fetch_add(1, Ordering::Relaxed);
            self.memory.dial(host).await
        }
    }

    fn client_of(agent: Router, patience: Patience) -> (HostClient, Arc<Counting>) {
        let dial = Arc::new(Counting::default());
        dial.memory.insert(HOST, agent);
        let name = "h1".parse().unwrap();
        let host =
            HostRecord { host: HOST, name, address: "canary:8444".to_owned(), certificate: None };
        (HostClient::new(host, dial.clone(), Tasks::default(), patience), dial)
    }

    fn report(protocol: u32) -> HostReport {
        HostReport {
            portal: None,
            containers: false,
            protocol,
            boot: "b".to_owned(),
            cpu_mhz: 4000,
            memory_mib: 4096,
            accelerator: "software cpu".to_owned(),
            cpu_limits: "none".to_owned(),
            arrays: Vec::new(),
        }
    }

    fn host_of(protocol: u32) -> Router {
        Router::new().route("/v1/host", get(async move || Json(report(protocol))))
    }

    #[tokio::test]
    async fn a_connection_that_died_is_dialled_again_without_a_failed_call() {
        let (client, dial) = client_of(host_of(PROTOCOL), Patience::default());
        assert_eq!(client.host().await.unwrap(), report(PROTOCOL));
        client.host().await.unwrap();
        assert_eq!(dial.dials.load(Ordering::Relaxed), 1);
        dial.memory.cut();
        let died = async {
            while !client.lock().as_ref().is_some_and(SendRequest::is_closed) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), died).await.unwrap();
        client.host().await.unwrap();
        assert_eq!(dial.dials.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn a_host_out_of_reach_is_unavailable_and_its_address_is_nobodys_business() {
        let (client, dial) = client_of(host_of(PROTOCOL), Patience::default());
        dial.memory.remove(HOST);
        let error = client.host().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable);
        assert!(!error.to_string().contains("canary"), "{error}");
        assert!(format!("{error:?}").contains("canary:8444"), "{error:?}");
    }

    #[tokio::test]
    async fn an_agent_of_another_protocol_is_not_talked_to() {
        for (protocol, spoken) in [(PROTOCOL - 1, true), (PROTOCOL, true), (PROTOCOL + 1, false)] {
            let (client, _dial) = client_of(host_of(protocol), Patience::default());
            let answer = client.host().await;
            assert_eq!(answer.is_ok(), spoken, "{protocol}: {answer:?}");
        }
    }

    #[tokio::test]
    async fn a_call_without_an_answer_ends_and_the_next_takes_a_new_connection() {
        let agent = Router::new()
            .route(SERIAL, get(async || std::future::pending::<String>().await))
            .route(DATA, get(async || "x"));
        let patience = Patience { call: Duration::from_millis(20), ..Patience::default() };
        let (client, dial) = client_of(agent, patience);
        let error = client.serial(SERVER).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        let one = Bytes::try_from(1).unwrap();
        assert_eq!(client.read(DRIVE, Bytes::ZERO, one).await.unwrap(), "x");
        assert_eq!(dial.dials.load(Ordering::Relaxed), 2);
    }

    #[tokio::test]
    async fn what_a_host_refuses_keeps_its_kind_sentence_and_field() {
        let fault = |code: &str| Fault {
            code: code.to_owned(),
            message: "the drive is in use".to_owned(),
            field: Some("offset".to_owned()),
        };
        let (known, unknown) = (fault("drive_in_use"), fault("hyperspace"));
        let agent = Router::new()
            .route(DATA, post(async || (StatusCode::CONFLICT, Json(known))))
            .route(SERIAL, get(async || (StatusCode::IM_A_TEAPOT, Json(unknown))));
        let (client, _dial) = client_of(agent, Patience::default());
        let error = client.write(DRIVE, Bytes::ZERO, Data::from("x")).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::DriveInUse);
        assert_eq!(error.public_message(), "the drive is in use");
        assert_eq!(error.blamed_field(), Some("offset"));
        assert_eq!(client.serial(SERVER).await.unwrap_err().kind(), ErrorKind::Internal);
        let nowhere = client.host().await.unwrap_err();
        assert_eq!(nowhere.kind(), ErrorKind::Internal);
        assert!(format!("{nowhere:?}").contains("404"), "{nowhere:?}");
    }

    #[tokio::test]
    async fn many_calls_share_one_connection_at_a_time() {
        let together = Arc::new(Barrier::new(8));
        let agent = host_of(PROTOCOL).route(
            DATA,
            get(async move || {
                together.wait().await;
                "12345678"
            }),
        );
        let (client, dial) = client_of(agent, Patience::default());
        client.host().await.unwrap();
        let length = Bytes::try_from(8).unwrap();
        let reads = (0..8).map(|_| client.read(DRIVE, Bytes::ZERO, length));
        for read in futures_util::future::join_all(reads).await {
            assert_eq!(read.unwrap(), "12345678");
        }
        assert_eq!(dial.dials.load(Ordering::Relaxed), 1);
    }

    #[derive(serde::Deserialize)]
    struct Range {
        offset: u64,
        length: Option<u64>,
    }

    #[tokio::test]
    async fn bytes_arrive_as_they_were_sent_and_a_short_answer_is_no_answer() {
        let disk = Arc::new(Mutex::new(vec![0_u8; 16 << 20]));
        let read = async |State(disk): State<Arc<Mutex<Vec<u8>>>>, Query(range): Query<Range>| {
            let disk = disk.lock().unwrap();
            let start = usize::try_from(range.offset).unwrap().min(disk.len());
            let length = usize::try_from(range.length.unwrap()).unwrap();
            disk[start..].iter().copied().take(length).collect::<Vec<u8>>()
        };
        let write = async |State(disk): State<Arc<Mutex<Vec<u8>>>>,
                           Query(range): Query<Range>,
                           body: Data| {
            let start = usize::try_from(range.offset).unwrap();
            disk.lock().unwrap()[start..start + body.len()].copy_from_slice(&body);
        };
        let agent = Router::new()
            .route(DATA, get(read).post(write))
            .layer(axum::extract::DefaultBodyLimit::disable())
            .with_state(disk);
        let (client, _dial) = client_of(agent, Patience::default());
        // Several times the window, so that it must be moved on.
        let data: Data = (0..12 << 20).map(|n: u32| n.to_le_bytes()[1]).collect();
        let offset = Bytes::try_from(513).unwrap();
        client.write(DRIVE, offset, data.clone()).await.unwrap();
        let length = Bytes::from_mib(12);
        assert_eq!(client.read(DRIVE, offset, length).await.unwrap(), data);
        let short = client.read(DRIVE, length, length).await.unwrap_err();
        assert_eq!(short.kind(), ErrorKind::Internal, "{short:?}");
    }

    #[tokio::test]
    async fn a_long_poll_waits_for_news_and_goes_on_from_its_cursor() {
        let (news, _) = watch::channel(1_u64);
        let agent = Router::new()
            .route(
                "/v1/reports",
                post(
                    async |State(news): State<watch::Sender<u64>>,
                           Json(asked): Json<ReportsAfter>| {
                        assert_eq!(asked.wait_ms, 5_000);
                        let after = asked.after.map_or(0, |cursor| cursor.sequence);
                        let mut news = news.subscribe();
                        let sequence = *news.wait_for(|sequence| *sequence > after).await.unwrap();
                        let next = Cursor { life: "l".to_owned(), sequence };
                        Json(Reports { next, objects: Vec::new() })
                    },
                ),
            )
            .with_state(news.clone());
        let (client, _dial) = client_of(agent, Patience::default());
        let first = client.reports(None).await.unwrap();
        assert_eq!(first.next.sequence, 1);
        let (second, ()) = tokio::join!(client.reports(Some(first.next)), async {
            // The poll is there and waits before the news comes.
            let waits = async {
                while news.receiver_count() == 0 {
                    tokio::task::yield_now().await;
                }
            };
            tokio::time::timeout(Duration::from_secs(60), waits).await.unwrap();
            news.send(2).unwrap();
        });
        assert_eq!(second.unwrap().next.sequence, 2);
    }
}
