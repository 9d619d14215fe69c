//! An agent that speaks the internal API and keeps drives in memory. Its guests do nothing but
//! run, and are said to have read and written [`COUNTS`]; they obey the power button at once.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, Path, Query, Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{connect, get, post};
use axum::{Json, Router};
use elasticstack_core::block::{ArrayState, Disks, Warning};
use elasticstack_core::hypervisor::EndCause;
use elasticstack_core::prelude::*;
use elasticstack_core::state::RunPhase;
use elasticstack_core::wire::internal::{
    Accepted, ArrayStatus, ClaimedDrive, Counts, CountsOf, Cursor, Document, Documents,
    DriveCounts, DriveHome, DriveStatus, Ended, Fault, HostReport, IoCounts, JobProgress,
    JobStatus, ObjectStatus, PROTOCOL, Plugged, Reports, ReportsAfter, ServerCounts,
    ServerDocument, ServerStatus, SnapshotDocument, SnapshotStatus, Stamp,
};
use http::StatusCode;
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use uuid::Uuid;

/// The room on the one array.
pub(crate) const CAPACITY: u64 = 160 << 20;

/// What is said of every drive of every server that runs.
pub(crate) const COUNTS: IoCounts =
    IoCounts { read_bytes: 4_096, read_requests: 1, write_bytes: 8_192, write_requests: 2 };

#[derive(Default)]
struct Host {
    drives: BTreeMap<DriveId, Vec<u8>>,
    generations: BTreeMap<String, Generation>,
    servers: BTreeMap<ServerId, ServerStatus>,
    /// The drives of each server.
    claims: BTreeMap<ServerId, Vec<ClaimedDrive>>,
    /// What each holds, and how often its drive was restored from it.
    snapshots: BTreeMap<SnapshotId, (Vec<u8>, u64)>,
    state: ArrayState,
    disks: Option<Disks>,
    warnings: Vec<Warning>,
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
            .route("/v1/counts", post(counts))
            .route("/v1/drives/{drive}/data", get(read).post(write))
            .route("/v1/servers/{server}/serial", get(async || "login: "))
            .route("/v1/servers/{server}/screen", connect(screen))
            .layer(DefaultBodyLimit::disable())
            .with_state(Arc::clone(self))
    }

    /// What a drive holds.
    pub(crate) fn bytes(&self, drive: &str) -> Vec<u8> {
        self.lock().drives[&drive.parse::<DriveId>().unwrap()].clone()
    }

    /// Has a drive of the smallest size that no document is known of, and tells of it.
    pub(crate) fn find_stray(&self, account: AccountId) -> DriveId {
        let drive = DriveId::from_uuid(Uuid::new_v4());
        let size = 4 << 20;
        let status = DriveStatus {
            drive,
            generation: Generation::new(Era(1), 7),
            gone: false,
            size,
            epoch: Epoch(3),
            fault: None,
            home: Some(DriveHome { array: self.array, account }),
        };
        let mut host = self.lock();
        host.drives.insert(drive, vec![7; usize::try_from(size).unwrap()]);
        self.changes.send_modify(|change| {
            *change += 1;
            let status = (*change, ObjectStatus::Drive(status));
            host.statuses.insert(format!("{drive:?}"), status);
        });
        drive
    }

    /// What it says of itself.
    pub(crate) fn report(&self) -> HostReport {
        let host = self.lock();
        let promised = host.drives.values().map(|bytes| bytes.len() as u64).sum();
        HostReport {
            portal: None,
            containers: false,
            protocol: PROTOCOL,
            boot: "b".to_owned(),
            cpu_mhz: 8_000,
            memory_mib: 8_192,
            accelerator: "none".to_owned(),
            cpu_limits: "none".to_owned(),
            arrays: vec![ArrayStatus {
                array: self.array,
                name: "one".to_owned(),
                capacity: CAPACITY,
                promised,
                state: host.state,
                disks: host.disks.clone(),
                warnings: host.warnings.clone(),
            }],
        }
    }

    /// From now on its array is like that.
    pub(crate) fn change_array(&self, state: ArrayState, disks: Disks) {
        let mut host = self.lock();
        (host.state, host.disks) = (state, Some(disks));
    }

    /// From now on an operator should look at this of its array.
    pub(crate) fn warn(&self, warnings: Vec<Warning>) {
        self.lock().warnings = warnings;
    }

    /// Whether it has a drive.
    pub(crate) fn has(&self, drive: DriveId) -> bool {
        self.lock().drives.contains_key(&drive)
    }

    fn lock(&self) -> MutexGuard<'_, Host> {
        self.host.lock().unwrap()
    }
}

fn stamp() -> Stamp {
    Stamp { wall: Timestamp::from(SystemTime::now()), monotonic_us: 1, boot: "b".to_owned() }
}

async fn host(State(agent): State<Arc<FakeAgent>>) -> Json<HostReport> {
    Json(agent.report())
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
            Document::Snapshot(document) => {
                (format!("{:?}", document.snapshot), document.generation)
            }
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
                let home = Some(DriveHome { array: document.array, account: document.account });
                ObjectStatus::Drive(DriveStatus {
                    drive,
                    generation,
                    gone,
                    size,
                    epoch,
                    fault,
                    home,
                })
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
            Document::Snapshot(document) => {
                let SnapshotDocument { snapshot, generation, gone, drive, .. } = document;
                if gone {
                    self.snapshots.remove(&snapshot);
                } else if !self.snapshots.contains_key(&snapshot) {
                    self.snapshots.insert(snapshot, (self.drives[&drive].clone(), 0));
                }
                let restored = document.restore;
                let size = self.snapshots.get_mut(&snapshot).map_or(0, |(bytes, restores)| {
                    if restored > *restores {
                        *restores = restored;
                        self.drives.get_mut(&drive).unwrap()[..bytes.len()].copy_from_slice(bytes);
                    }
                    u64::try_from(bytes.len()).unwrap()
                });
                let (refused, fault) = (None, None);
                ObjectStatus::Snapshot(SnapshotStatus {
                    snapshot,
                    generation,
                    gone,
                    size,
                    restored,
                    refused,
                    fault,
                    home: None,
                })
            }
            Document::Server(document) => {
                let status = run(&document, self.servers.get(&document.server));
                self.servers.insert(document.server, status.clone());
                self.claims.insert(document.server, document.hardware.drives);
                ObjectStatus::Server(status)
            }
        }
    }
}

async fn counts(State(agent): State<Arc<FakeAgent>>, Json(of): Json<CountsOf>) -> Json<Counts> {
    let host = agent.lock();
    let runs = |server: &ServerId| host.servers[server].phase == RunPhase::Running;
    let claims_of = |server| host.claims.get(&server).filter(|_| runs(&server)).into_iter();
    let of_server = |server| {
        let devices = claims_of(server).flatten().map(|claim| (claim.device, COUNTS)).collect();
        ServerCounts { server, devices }
    };
    let all = host.claims.keys().flat_map(|server| claims_of(*server).flatten());
    let all: Vec<&ClaimedDrive> = all.collect();
    let of_drive = |drive| {
        let its = all.iter().filter(|claim| claim.drive == drive);
        let counts = its.fold(IoCounts::default(), |sum, _| sum.saturating_add(COUNTS));
        DriveCounts { drive, counts }
    };
    Json(Counts {
        servers: of.servers.into_iter().map(of_server).collect(),
        drives: of.drives.into_iter().map(of_drive).collect(),
    })
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
        plugged: runs.then_some(Plugged::AsAsked),
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
struct Shown {
    run: Run,
}

/// A screen that says again whatever it is told, as long as its run goes on.
async fn screen(
    State(agent): State<Arc<FakeAgent>>,
    Path(server): Path<ServerId>,
    Query(Shown { run }): Query<Shown>,
    request: Request,
) -> Response {
    let runs = move |host: &Host| {
        let running = |status: &ServerStatus| status.phase == RunPhase::Running;
        host.servers.get(&server).is_some_and(|status| status.run == run && running(status))
    };
    if !runs(&agent.lock()) {
        let fault = Error::new(ErrorKind::NotFound, "the run is over");
        return (StatusCode::NOT_FOUND, Json(Fault::from(&fault))).into_response();
    }
    tokio::spawn(async move {
        let mut changes = agent.changes.subscribe();
        let stream = TokioIo::new(hyper::upgrade::on(request).await.unwrap());
        let (mut from, mut to) = tokio::io::split(stream);
        tokio::select! {
            _ = tokio::io::copy(&mut from, &mut to) => {}
            _ = changes.wait_for(|_| !runs(&agent.lock())) => {}
        }
    });
    StatusCode::OK.into_response()
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
