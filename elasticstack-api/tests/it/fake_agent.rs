//! An agent that speaks the internal API and keeps drives in memory. Its guests do nothing but
//! run; they obey the power button at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use elasticstack_core::block::ArrayState;
use elasticstack_core::hypervisor::EndCause;
use elasticstack_core::prelude::*;
use elasticstack_core::state::RunPhase;
use elasticstack_core::wire::internal::{
    Accepted, ArrayStatus, Cursor, Document, Documents, DriveStatus, Ended, Fault, HostReport,
    JobProgress, JobStatus, ObjectStatus, PROTOCOL, Reports, ReportsAfter, ServerDocument,
    ServerStatus, Stamp,
};
use http::StatusCode;
use tokio::sync::watch;
use uuid::Uuid;

/// The room on the one array.
pub(crate) const CAPACITY: u64 = 120 << 20;

#[derive(Default)]
struct Host {
    drives: BTreeMap<DriveId, Vec<u8>>,
    generations: BTreeMap<String, Generation>,
    servers: BTreeMap<ServerId, ServerStatus>,
    /// The newest status of each object and the change that made it.
    statuses: BTreeMap<String, (u64, ObjectStatus)>,
}

pub(crate) struct FakeAgent {
    host: Mutex<Host>,
    changes: watch::Sender<u64>,
    array: ArrayId,
}

impl FakeAgent {
    pub(crate) fn new() -> Arc<Self> {
        let array = ArrayId::from_uuid(Uuid::new_v4());
        Arc::new(Self { host: Mutex::default(), changes: watch::Sender::new(1), array })
    }

    pub(crate) fn router(self: &Arc<Self>) -> Router {
        Router::new()
            .route("/v1/host", get(host))
            .route("/v1/documents", post(documents))
            .route("/v1/reports", post(reports))
            .route("/v1/drives/{drive}/data", get(read).post(write))
            .route("/v1/servers/{server}/serial", get(async || "login: "))
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(self))
    }

    /// What a drive holds.
    pub(crate) fn bytes(&self, drive: &str) -> Vec<u8> {
        self.lock().drives[&drive.parse::<DriveId>().unwrap()].clone()
    }

    fn lock(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap()
    }
}

fn stamp() -> Stamp {
    Stamp { wall: Timestamp::from(SystemTime::now()), monotonic_us: 1, boot: "b".to_owned() }
}

async fn host(State(agent): State<Arc<FakeAgent>>) -> Json<HostReport> {
    let promised = agent.lock().drives.values().map(|bytes| bytes.len() as u64).sum();
    let name = "one".to_owned();
    Json(HostReport {
        protocol: PROTOCOL,
        boot: "b".to_owned(),
        cpu_mhz: 8_000,
        memory_mib: 8_192,
        accelerator: "none".to_owned(),
        cpu_limits: "none".to_owned(),
        arrays: vec![ArrayStatus {
            array: agent.array,
            name,
            capacity: CAPACITY,
            promised,
            state: ArrayState::Online,
        }],
    })
}

async fn documents(
    State(agent): State<Arc<FakeAgent>>,
    Json(sent): Json<Documents>,
) -> Json<Accepted> {
    let mut ignored = 0;
    for document in sent.documents {
        let mut host = agent.lock();
        let (name, generation) = match &document {
            Document::Drive(drive) => (format!("{:?}", drive.drive), drive.generation),
            Document::Job(job) => (format!("{:?}", job.job), job.generation),
            Document::Server(server) => (format!("{:?}", server.server), server.generation),
        };
        if host.generations.get(&name).is_some_and(|known| *known > generation) {
            ignored += 1;
            continue;
        }
        host.generations.insert(name.clone(), generation);
        let status = host.carry_out(document);
        agent.changes.send_modify(|change| {
            *change += 1;
            host.statuses.insert(name, (*change, status));
        });
    }
    Json(Accepted { ignored })
}

impl Host {
    fn carry_out(&mut self, document: Document) -> ObjectStatus {
        match document {
            Document::Drive(document) => {
                let (drive, generation, gone) =
                    (document.drive, document.generation, document.gone);
                if gone {
                    self.drives.remove(&drive);
                } else {
                    let length = usize::try_from(document.size).unwrap();
                    self.drives.entry(drive).or_default().resize(length, 0);
                }
                let (size, epoch, fault) = (document.size, Epoch::default(), None);
                ObjectStatus::Drive(DriveStatus { drive, generation, gone, size, epoch, fault })
            }
            Document::Job(job) => {
                if !job.gone {
                    let source = self.drives[&job.source].clone();
                    self.drives.get_mut(&job.target).unwrap()[..source.len()]
                        .copy_from_slice(&source);
                }
                let (generation, state) = (job.generation, JobProgress::Done);
                ObjectStatus::Job(JobStatus { job: job.job, generation, gone: job.gone, state })
            }
            Document::Server(document) => {
                let status = run(&document, self.servers.get(&document.server));
                self.servers.insert(document.server, status.clone());
                ObjectStatus::Server(status)
            }
        }
    }
}

fn run(document: &ServerDocument, before: Option<&ServerStatus>) -> ServerStatus {
    let same_run = before.filter(|before| before.run == document.run);
    let over = same_run.is_some_and(|before| before.phase == RunPhase::Ended);
    let pressed = document.shutdown > before.map_or(0, |before| before.shutdown);
    let started = document.run > Run::default();
    let runs = started && document.powered && !document.gone && !over && !pressed;
    let cause = if pressed { EndCause::Guest } else { EndCause::Stopped };
    let ended = Ended { at: stamp(), cause, fault: None };
    let kept = same_run.and_then(|before| before.ended.clone());
    ServerStatus {
        server: document.server,
        generation: document.generation,
        gone: document.gone,
        run: document.run,
        phase: if runs { RunPhase::Running } else { RunPhase::Ended },
        started: same_run.and_then(|before| before.started.clone()).or(started.then(stamp)),
        ended: (started && !runs).then(|| kept.unwrap_or(ended)),
        reset: document.reset,
        shutdown: document.shutdown,
        screen: None,
    }
}

async fn reports(
    State(agent): State<Arc<FakeAgent>>,
    Json(asked): Json<ReportsAfter>,
) -> Json<Reports> {
    let after = asked.after.map_or(0, |cursor| cursor.sequence);
    let mut changes = agent.changes.subscribe();
    let wait = Duration::from_millis(asked.wait_ms.into());
    let news = changes.wait_for(|change| *change > after);
    let _ = tokio::time::timeout(wait, news).await;
    let host = agent.lock();
    let newer = host.statuses.values().filter(|(change, _)| *change > after);
    let objects = newer.map(|(_, status)| status.clone()).collect();
    let sequence = *agent.changes.borrow();
    Json(Reports { next: Cursor { life: "l".to_owned(), sequence }, objects })
}

#[derive(serde::Deserialize)]
struct Range {
    offset: usize,
    #[serde(default)]
    length: usize,
}

fn past_the_end() -> Response {
    let fault = Error::new(ErrorKind::InvalidValue, "past the end of the drive").field("offset");
    (StatusCode::BAD_REQUEST, Json(Fault::from(&fault))).into_response()
}

async fn read(
    State(agent): State<Arc<FakeAgent>>,
    Path(drive): Path<DriveId>,
    Query(Range { offset, length }): Query<Range>,
) -> Response {
    match agent.lock().drives[&drive].get(offset..offset + length) {
        Some(bytes) => bytes.to_vec().into_response(),
        None => past_the_end(),
    }
}

async fn write(
    State(agent): State<Arc<FakeAgent>>,
    Path(drive): Path<DriveId>,
    Query(Range { offset, .. }): Query<Range>,
    body: Bytes,
) -> Response {
    match agent.lock().drives.get_mut(&drive).unwrap().get_mut(offset..offset + body.len()) {
        Some(bytes) => {
            bytes.copy_from_slice(&body);
            StatusCode::NO_CONTENT.into_response()
        }
        None => past_the_end(),
    }
}
