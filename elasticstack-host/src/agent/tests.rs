//! The agent from its API down to a store and a hypervisor in memory, also across its restarts.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use elasticstack_core::block::BlockStore;
use elasticstack_core::error::ErrorKind;
use elasticstack_core::generation::{Epoch, Era, Generation, Run};
use elasticstack_core::hypervisor::{EndCause, Media, Phase, ServerKind, Signal};
use elasticstack_core::id::{ArrayId, DriveId, ServerId};
use elasticstack_core::state::RunPhase;
use elasticstack_core::wire::internal::{
    Accepted, Access, ClaimedDrive, Conversion, Cursor, Document, Documents, DriveDocument,
    DriveStatus, Fault, Hardware, HostReport, IoLimits, JobDocument, JobProgress, ObjectStatus,
    Reports, ReportsAfter, ServerDocument, ServerStatus,
};
use futures_util::stream;
use http::{Request, StatusCode};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tempfile::TempDir;
use tower::ServiceExt;

use super::fakes::{FakeHypervisor, FakeLender, FakeStore, description};
use super::{Agent, locked};

pub(super) const MIB: u64 = 1 << 20;

/// No wait here ends by running out; this only keeps a broken test from hanging.
const GUARD: Duration = Duration::from_secs(120);

pub(super) fn id(n: u8) -> String {
    format!("5b0e3c52-0000-4000-8000-0000000000{n:02x}")
}

pub(super) fn array() -> ArrayId {
    id(0xaa).parse().unwrap()
}

pub(super) fn drive_id(n: u8) -> DriveId {
    id(n).parse().unwrap()
}

pub(super) fn server_id() -> ServerId {
    id(0x51).parse().unwrap()
}

pub(super) fn drive(n: u8, number: u64) -> DriveDocument {
    DriveDocument {
        drive: drive_id(n),
        generation: Generation::new(Era(1), number),
        gone: false,
        account: id(0xac).parse().unwrap(),
        array: array(),
        size: 2 * MIB,
        lends: Vec::new(),
    }
}

/// A server with drive 1 at this epoch.
pub(super) fn server(number: u64, run: u64, access: Access) -> ServerDocument {
    let claim = ClaimedDrive {
        drive: drive_id(1),
        epoch: Epoch(run),
        access,
        device: "ide:0:0".parse().unwrap(),
        media: Media::Disk,
        lender: None,
        limits: IoLimits::default(),
    };
    ServerDocument {
        server: server_id(),
        generation: Generation::new(Era(1), number),
        gone: false,
        run: Run(run),
        powered: true,
        reset: 0,
        shutdown: 0,
        hardware: Hardware {
            kind: ServerKind::Vm,
            cpu_mhz: 2000,
            vcpus: 1,
            memory_mib: 1024,
            drives: vec![claim],
            boot: Vec::new(),
            nics: Vec::new(),
            screen: None,
            seed: None,
        },
    }
}

/// A job from drive 1 to drive 2.
pub(super) fn job(number: u64, epoch: u64) -> JobDocument {
    JobDocument {
        sum: None,
        lender: None,
        job: id(0x0b).parse().unwrap(),
        generation: Generation::new(Era(1), number),
        gone: false,
        source: drive_id(1),
        source_epoch: Epoch(epoch),
        target: drive_id(2),
        target_epoch: Epoch(epoch),
        conversion: Conversion::None,
        download: None,
    }
}

/// What outlives agents.
pub(super) struct World {
    pub(super) state: TempDir,
    pub(super) store: Arc<FakeStore>,
    pub(super) hypervisor: Arc<FakeHypervisor>,
    pub(super) lender: Arc<FakeLender>,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            state: tempfile::tempdir().unwrap(),
            store: Arc::new(FakeStore::new(array())),
            hypervisor: Arc::new(FakeHypervisor::new()),
            lender: Arc::default(),
        }
    }

    pub(super) async fn agent(&self) -> Caller {
        self.agent_with(Arc::clone(&self.store) as _).await
    }

    pub(super) async fn agent_with(&self, store: Arc<dyn BlockStore>) -> Caller {
        let agent = Agent::builder()
            .fetcher(super::download_tests::fetcher())
            .state_dir(self.state.path().to_owned())
            .store(store)
            .lender(Arc::clone(&self.lender) as _)
            .hypervisor(Arc::clone(&self.hypervisor) as _)
            .description(description());
        Caller { agent: agent.build().await.unwrap(), cursor: None, known: Vec::new() }
    }

    fn records(&self, folder: &str) -> usize {
        std::fs::read_dir(self.state.path().join(folder)).unwrap().count()
    }
}

/// The API server's side.
pub(super) struct Caller {
    pub(super) agent: Agent,
    pub(super) cursor: Option<Cursor>,
    pub(super) known: Vec<ObjectStatus>,
}

impl Caller {
    pub(super) async fn call(&self, method: &str, path: &str, body: Body) -> (StatusCode, Vec<u8>) {
        let request = Request::builder().method(method).uri(path).body(body).unwrap();
        let answer = self.agent.router().oneshot(request).await.unwrap();
        let status = answer.status();
        (status, answer.into_body().collect().await.unwrap().to_bytes().to_vec())
    }

    #[track_caller]
    pub(super) fn parsed<T: DeserializeOwned>((status, body): (StatusCode, Vec<u8>)) -> T {
        let text = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(status, StatusCode::OK, "{text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"))
    }

    pub(super) async fn push(&self, documents: impl IntoIterator<Item = Document>) -> Accepted {
        let documents = Documents { documents: documents.into_iter().collect() };
        let body = serde_json::to_vec(&documents).unwrap();
        Self::parsed(self.call("POST", "/v1/documents", body.into()).await)
    }

    /// Follows the reports until one of all that is known fits.
    pub(super) async fn until<T>(&mut self, fits: impl Fn(&ObjectStatus) -> Option<T>) -> T {
        let work = async {
            loop {
                if let Some(found) = self.known.iter().find_map(&fits) {
                    return found;
                }
                let ask = ReportsAfter { after: self.cursor.clone(), wait_ms: 60_000 };
                let body = serde_json::to_vec(&ask).unwrap();
                let reports: Reports =
                    Self::parsed(self.call("POST", "/v1/reports", body.into()).await);
                self.cursor = Some(reports.next);
                for status in reports.objects {
                    let same = |known: &ObjectStatus| key(known) == key(&status);
                    self.known.retain(|known| !same(known));
                    self.known.push(status);
                }
            }
        };
        tokio::time::timeout(GUARD, work).await.expect("the state that the test waits for")
    }

    pub(super) async fn server(&mut self, fits: impl Fn(&ServerStatus) -> bool) -> ServerStatus {
        self.until(|status| match status {
            ObjectStatus::Server(status) if fits(status) => Some(status.clone()),
            _ => None,
        })
        .await
    }

    pub(super) async fn ended(&mut self, run: u64) -> (EndCause, Option<Fault>) {
        let over = |status: &ServerStatus| {
            status.run == Run(run) && status.phase == RunPhase::Ended && status.ended.is_some()
        };
        let ended = self.server(over).await.ended.unwrap();
        (ended.cause, ended.fault)
    }

    pub(super) async fn running(&mut self, run: u64) -> ServerStatus {
        self.server(|status| status.run == Run(run) && status.phase == RunPhase::Running).await
    }

    pub(super) async fn drive(
        &mut self,
        n: u8,
        fits: impl Fn(&DriveStatus) -> bool,
    ) -> DriveStatus {
        self.until(|status| match status {
            ObjectStatus::Drive(status) if status.drive == drive_id(n) && fits(status) => {
                Some(status.clone())
            }
            _ => None,
        })
        .await
    }

    pub(super) async fn job(&mut self, fits: impl Fn(&JobProgress) -> bool) -> JobProgress {
        self.until(|status| match status {
            ObjectStatus::Job(status) if fits(&status.state) => Some(status.state.clone()),
            _ => None,
        })
        .await
    }

    pub(super) async fn write(&self, n: u8, at: u64, it: impl Into<Body>) -> (StatusCode, Vec<u8>) {
        let path = format!("/v1/drives/{}/data?offset={at}", drive_id(n));
        self.call("POST", &path, it.into()).await
    }

    pub(super) async fn read(&self, n: u8, offset: u64, length: u64) -> (StatusCode, Vec<u8>) {
        let path = format!("/v1/drives/{}/data?offset={offset}&length={length}", drive_id(n));
        self.call("GET", &path, Body::empty()).await
    }
}

fn key(status: &ObjectStatus) -> String {
    match status {
        ObjectStatus::Drive(status) => format!("{:?}", status.drive),
        ObjectStatus::Job(status) => format!("{:?}", status.job),
        ObjectStatus::Server(status) => format!("{:?}", status.server),
        ObjectStatus::Snapshot(status) => format!("{:?}", status.snapshot),
    }
}

#[track_caller]
fn assert_fault((status, body): (StatusCode, Vec<u8>), expected: StatusCode, kind: ErrorKind) {
    let fault: Fault = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, fault.code.as_str()), (expected, kind.code()), "{}", fault.message);
}

#[tokio::test]
async fn a_server_lives_from_its_drive_to_its_tombstone() {
    let world = World::new();
    let mut caller = world.agent().await;
    let start = server(1, 1, Access::Exclusive);
    caller.push([Document::Server(start.clone()), Document::Drive(drive(1, 1))]).await;
    let status = caller.running(1).await;
    assert!(status.started.is_some() && status.screen.is_some(), "{status:?}");
    caller.drive(1, |drive| drive.epoch == Epoch(1) && drive.fault.is_none()).await;
    let serial = format!("/v1/servers/{}/serial", server_id());
    assert_eq!(caller.call("GET", &serial, Body::empty()).await.1, b"login:");

    let signals = ServerDocument {
        generation: Generation::new(Era(1), 2),
        reset: 3,
        shutdown: 1,
        ..start.clone()
    };
    caller.push([Document::Server(signals.clone())]).await;
    assert_eq!(caller.ended(1).await, (EndCause::Guest, None));
    assert_eq!(*locked(&world.hypervisor.signals), [Signal::Reset, Signal::PowerButton]);
    caller.server(|status| (status.reset, status.shutdown) == (3, 1)).await;

    let again = ServerDocument { reset: 3, shutdown: 1, ..server(3, 2, Access::Exclusive) };
    caller.push([Document::Server(again.clone())]).await;
    caller.running(2).await;
    let stop = ServerDocument { generation: Generation::new(Era(1), 4), powered: false, ..again };
    caller.push([Document::Server(stop.clone())]).await;
    assert_eq!(caller.ended(2).await, (EndCause::Stopped, None));
    assert_eq!(*locked(&world.hypervisor.started), [Run(1), Run(2)]);

    let gone = ServerDocument { generation: Generation::new(Era(1), 5), gone: true, ..stop };
    let drive_gone = DriveDocument { gone: true, ..drive(1, 2) };
    let tombstones = [Document::Server(gone), Document::Drive(drive_gone)];
    caller.push(tombstones.clone()).await;
    caller.server(|status| status.gone).await;
    caller.drive(1, |drive| drive.gone).await;
    assert_eq!(world.store.content(drive_id(1)), None);

    // The next call for reports says that all of this is durable there, and so it is forgotten;
    // asked again, the agent still knows the answer.
    caller.known.clear();
    caller.push([Document::Drive(drive(2, 1))]).await;
    caller.drive(2, |drive| !drive.gone).await;
    assert_eq!((world.records("servers"), world.records("drives")), (0, 1));
    caller.push(tombstones).await;
    caller.server(|status| status.gone).await;
    caller.drive(1, |drive| drive.gone).await;
    caller.agent.close().await;
}

#[tokio::test]
async fn a_new_agent_adopts_what_runs_and_starts_nothing_again() {
    let world = World::new();
    let mut caller = world.agent().await;
    let documents =
        [Document::Server(server(1, 1, Access::Exclusive)), Document::Drive(drive(1, 1))];
    caller.push(documents.clone()).await;
    let first = caller.running(1).await;
    caller.agent.close().await;
    assert_eq!(world.hypervisor.phase(server_id()), Some(Phase::Running), "closing stops no guest");

    let mut caller = world.agent().await;
    assert_fault(caller.write(1, 0, "x").await, StatusCode::CONFLICT, ErrorKind::DriveInUse);
    assert_eq!(caller.running(1).await, first);
    caller.push(documents.clone()).await;
    caller.agent.close().await;
    world.hypervisor.come_to(server_id(), Phase::Ended(EndCause::Guest));

    let mut caller = world.agent().await;
    assert_eq!(caller.ended(1).await.0, EndCause::Guest);
    caller.push(documents).await;
    caller.agent.close().await;

    let mut caller = world.agent().await;
    assert_eq!(caller.ended(1).await.0, EndCause::Guest);
    assert_eq!(caller.write(1, 0, "x").await.0, StatusCode::NO_CONTENT, "the claim is gone");
    caller.push([Document::Server(server(2, 2, Access::Exclusive))]).await;
    caller.running(2).await;
    caller.agent.close().await;
    world.hypervisor.vanish(server_id());

    let mut caller = world.agent().await;
    assert_eq!(caller.ended(2).await.0, EndCause::Lost);
    assert_eq!(*locked(&world.hypervisor.started), [Run(1), Run(2)]);
    caller.agent.close().await;
}

#[tokio::test]
async fn stopping_the_guests_of_a_host_is_recorded_as_that() {
    let world = World::new();
    let mut caller = world.agent().await;
    caller
        .push([Document::Server(server(1, 1, Access::Exclusive)), Document::Drive(drive(1, 1))])
        .await;
    caller.running(1).await;
    caller.agent.stop_guests().await.unwrap();
    assert_eq!(world.hypervisor.phase(server_id()), None);
    let mut caller = world.agent().await;
    assert_eq!(caller.ended(1).await, (EndCause::Stopped, None));
    assert_eq!(*locked(&world.hypervisor.started), [Run(1)]);
    caller.agent.close().await;
}

#[tokio::test]
async fn each_document_stands_alone_and_tells_its_own_fault() {
    let world = World::new();
    let mut caller = world.agent().await;
    let elsewhere = DriveDocument { array: id(0xee).parse().unwrap(), ..drive(1, 1) };
    let huge = DriveDocument { size: u64::MAX, ..drive(2, 1) };
    let large = DriveDocument { size: 63 * MIB, ..drive(3, 1) };
    let documents = [elsewhere, huge, drive(4, 1), large].map(Document::Drive);
    let accepted = caller.push(documents.clone()).await;
    assert_eq!(accepted.ignored, 0);
    let code = |drive: &DriveStatus| drive.fault.clone().map(|fault| fault.code);
    let mut fault = async |n| code(&caller.drive(n, |drive| drive.fault.is_some()).await).unwrap();
    assert_eq!(fault(1).await, ErrorKind::NotFound.code());
    assert_eq!(fault(2).await, ErrorKind::InvalidValue.code());
    // Whichever of the last two came second has no room until the other is gone.
    let full = caller
        .until(|status| match status {
            ObjectStatus::Drive(status) if status.drive >= drive_id(3) => {
                code(status).map(|code| (status.drive, code))
            }
            _ => None,
        })
        .await;
    assert_eq!(full.1, ErrorKind::NoCapacity.code());
    let other = if full.0 == drive_id(3) { 4 } else { 3 };
    let gone = DriveDocument { gone: true, ..drive(other, 2) };
    let older = Document::Drive(drive(other, 1));
    let accepted = caller.push([Document::Drive(gone), older, documents[0].clone()]).await;
    assert_eq!(accepted.ignored, 1, "the same again is not old");
    let n = if other == 3 { 4 } else { 3 };
    caller.drive(n, |drive| drive.fault.is_none()).await;

    let start = server(1, 1, Access::Exclusive);
    caller.push([Document::Server(start)]).await;
    let (cause, fault) = caller.ended(1).await;
    assert_eq!((cause, fault.unwrap().code.as_str()), (EndCause::Lost, "not_found"));
    caller.agent.close().await;
}

#[tokio::test]
async fn a_start_that_fails_ends_its_run_and_frees_its_drives() {
    let world = World::new();
    let mut caller = world.agent().await;
    *locked(&world.hypervisor.broken) = true;
    caller
        .push([Document::Drive(drive(1, 1)), Document::Server(server(1, 1, Access::Exclusive))])
        .await;
    let (cause, fault) = caller.ended(1).await;
    assert_eq!((cause, fault.unwrap().code.as_str()), (EndCause::Lost, "job_failed"));
    assert_eq!(caller.write(1, 0, "x").await.0, StatusCode::NO_CONTENT);
    *locked(&world.hypervisor.broken) = false;
    caller.push([Document::Server(server(2, 2, Access::Exclusive))]).await;
    caller.running(2).await;
    assert_eq!(*locked(&world.hypervisor.started), [Run(2)]);
    caller.agent.close().await;
}

#[tokio::test]
async fn a_drive_grows_when_nobody_holds_it_and_a_lost_one_is_not_replaced() {
    let world = World::new();
    let mut caller = world.agent().await;
    caller.push([Document::Drive(drive(1, 1))]).await;
    caller.drive(1, |drive| drive.size == 2 * MIB).await;
    caller.push([Document::Server(server(1, 1, Access::Exclusive))]).await;
    caller.running(1).await;
    let grown = DriveDocument { size: 3 * MIB, ..drive(1, 2) };
    caller.push([Document::Drive(grown.clone())]).await;
    world.hypervisor.come_to(server_id(), Phase::Ended(EndCause::Panicked));
    assert_eq!(caller.ended(1).await.0, EndCause::Panicked);
    let status = caller.drive(1, |drive| drive.size == 3 * MIB).await;
    assert_eq!(status.generation, grown.generation);
    caller.agent.close().await;

    world.store.lose(drive_id(1));
    let mut caller = world.agent().await;
    let fault = caller.drive(1, |drive| drive.fault.is_some()).await.fault.unwrap();
    assert_eq!(fault.code, ErrorKind::Unavailable.code());
    assert_eq!(world.store.content(drive_id(1)), None);
    caller.agent.close().await;
}

#[tokio::test]
async fn a_job_waits_for_its_drives_copies_and_is_forgotten() {
    let world = World::new();
    let mut caller = world.agent().await;
    caller.push([Document::Drive(drive(1, 1)), Document::Drive(drive(2, 1))]).await;
    caller.drive(1, |_| true).await;
    caller.drive(2, |_| true).await;
    assert_eq!(caller.write(1, MIB, "payload").await.0, StatusCode::NO_CONTENT);
    caller.push([Document::Server(server(1, 1, Access::Exclusive))]).await;
    caller.running(1).await;
    caller.push([Document::Job(job(1, 2))]).await;
    caller.job(|state| *state == JobProgress::Queued).await;
    let stop = ServerDocument { powered: false, ..server(2, 1, Access::Exclusive) };
    caller.push([Document::Server(stop)]).await;
    caller.job(|state| *state == JobProgress::Done).await;
    assert_eq!(world.store.content(drive_id(2)), world.store.content(drive_id(1)));
    assert_eq!(caller.read(2, MIB, 7).await.1, b"payload");
    assert_eq!(caller.write(2, 0, "free again").await.0, StatusCode::NO_CONTENT);
    caller.push([Document::Job(JobDocument { gone: true, ..job(2, 2) })]).await;
    caller
        .until(|status| matches!(status, ObjectStatus::Job(status) if status.gone).then_some(()))
        .await;
    caller.agent.close().await;
}

#[tokio::test]
async fn a_job_that_is_taken_back_lets_go_of_its_drives() {
    let world = World::new();
    let mut caller = world.agent().await;
    let long = |n| Document::Drive(DriveDocument { size: 32 * MIB, ..drive(n, 1) });
    caller.push([long(1), long(2)]).await;
    caller.drive(2, |_| true).await;
    world.store.gate.forget_permits(usize::MAX);
    caller.push([Document::Job(job(1, 2))]).await;
    caller.job(|state| *state == JobProgress::Running(0)).await;
    assert_fault(caller.write(2, 0, "x").await, StatusCode::CONFLICT, ErrorKind::DriveInUse);
    caller.push([Document::Job(JobDocument { gone: true, ..job(2, 2) })]).await;
    // It goes on by a piece at a time until it notices.
    let gone = |status: &ObjectStatus| {
        world.store.gate.add_permits(1);
        match status {
            ObjectStatus::Job(status) if status.gone => Some(status.state.clone()),
            _ => None,
        }
    };
    let state = caller.until(gone).await;
    assert!(matches!(state, JobProgress::Failed(_)), "{state:?}");
    assert_eq!(caller.write(2, 0, "x").await.0, StatusCode::NO_CONTENT);
    caller.agent.close().await;
}

/// Begun, and held up by the gate before it could end.
fn is_at_work(state: &JobProgress) -> bool {
    matches!(state, JobProgress::Running(_))
}

#[test]
fn a_job_cut_off_by_a_crash_begins_again_and_holds_its_drives_meanwhile() {
    let world = World::new();
    // Dropping a runtime drops every task wherever it stands, as killing the process does.
    let killed = tokio::runtime::Runtime::new().unwrap();
    killed.block_on(async {
        let mut caller = world.agent().await;
        caller.push([Document::Drive(drive(1, 1)), Document::Drive(drive(2, 1))]).await;
        caller.drive(1, |_| true).await;
        assert_eq!(caller.write(1, 0, vec![7; 1 << 20]).await.0, StatusCode::NO_CONTENT);
        world.store.gate.forget_permits(usize::MAX);
        world.store.gate.add_permits(1);
        caller.push([Document::Job(job(1, 2))]).await;
        caller.job(is_at_work).await;
    });
    killed.shutdown_background();

    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let mut caller = world.agent().await;
        assert_fault(caller.write(2, 0, "x").await, StatusCode::CONFLICT, ErrorKind::DriveInUse);
        caller.job(is_at_work).await;
        world.store.gate.add_permits(1_000);
        caller.job(|state| *state == JobProgress::Done).await;
        caller.agent.close().await;
        let mut caller = world.agent().await;
        caller.job(|state| *state == JobProgress::Done).await;
        caller.agent.close().await;
    });
    assert_eq!(world.store.content(drive_id(2)), world.store.content(drive_id(1)));
}

#[tokio::test]
async fn the_data_path_writes_all_or_nothing_and_only_what_nobody_uses() {
    let world = World::new();
    let mut caller = world.agent().await;
    caller.push([Document::Drive(drive(1, 1))]).await;
    caller.drive(1, |_| true).await;
    assert_eq!(caller.write(1, 5, "hello").await.0, StatusCode::NO_CONTENT);
    assert_eq!(caller.read(1, 4, 7).await, (StatusCode::OK, b"\0hello\0".to_vec()));

    let before = world.store.content(drive_id(1));
    let (bad, invalid) = (StatusCode::BAD_REQUEST, ErrorKind::InvalidValue);
    assert_fault(caller.write(1, 2 * MIB - 1, "ab").await, bad, invalid);
    assert_fault(caller.write(1, u64::MAX, "ab").await, bad, invalid);
    assert_fault(caller.read(1, 2 * MIB, 1).await, bad, invalid);
    assert_fault(caller.read(1, 0, 4 * MIB + 1).await, bad, invalid);
    let broken: [std::io::Result<&str>; 2] =
        [Ok("half of it"), Err(std::io::ErrorKind::UnexpectedEof.into())];
    let body = Body::from_stream(stream::iter(broken));
    assert_fault(caller.write(1, 0, body).await, bad, ErrorKind::MalformedBody);
    assert_eq!(world.store.content(drive_id(1)), before);
    assert_fault(caller.read(9, 0, 1).await, StatusCode::NOT_FOUND, ErrorKind::NotFound);

    caller.push([Document::Server(server(1, 1, Access::Shared))]).await;
    caller.running(1).await;
    assert_eq!(caller.read(1, 5, 5).await.1, b"hello", "a shared drive may be read");
    let (busy, in_use) = (StatusCode::CONFLICT, ErrorKind::DriveInUse);
    assert_fault(caller.write(1, 0, "x").await, busy, in_use);
    caller.push([Document::Server(server(2, 2, Access::Exclusive))]).await;
    caller.running(2).await;
    assert_fault(caller.read(1, 5, 5).await, busy, in_use);
    caller.agent.close().await;
}

#[tokio::test]
async fn every_refusal_is_a_fault_in_json() {
    let world = World::new();
    let caller = world.agent().await;
    let host: HostReport = Caller::parsed(caller.call("GET", "/v1/host", Body::empty()).await);
    assert_eq!((host.memory_mib, host.arrays.len()), (8192, 1));
    let server = server_id();
    let (bad, missing) = (StatusCode::BAD_REQUEST, StatusCode::NOT_FOUND);
    for (method, path, body, status, kind) in [
        ("GET", "/v1/nothing".to_owned(), "", missing, ErrorKind::NotFound),
        (
            "GET",
            "/v1/documents".to_owned(),
            "",
            StatusCode::METHOD_NOT_ALLOWED,
            ErrorKind::MethodNotAllowed,
        ),
        ("POST", "/v1/documents".to_owned(), "{\"documents\":", bad, ErrorKind::MalformedBody),
        ("POST", "/v1/reports".to_owned(), "[]", bad, ErrorKind::MalformedBody),
        ("GET", "/v1/drives/x/data?offset=0&length=1".to_owned(), "", bad, ErrorKind::InvalidValue),
        ("GET", format!("/v1/drives/{}/data?offset=-1", id(1)), "", bad, ErrorKind::InvalidValue),
        ("GET", format!("/v1/servers/{server}/serial"), "", missing, ErrorKind::NotFound),
    ] {
        assert_fault(caller.call(method, &path, body.into()).await, status, kind);
    }
    caller.agent.close().await;
    let refused = caller.call("POST", "/v1/documents", r#"{"documents":[]}"#.into()).await;
    assert_fault(refused, StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unavailable);
}
