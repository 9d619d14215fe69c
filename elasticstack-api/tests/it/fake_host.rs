//! A control plane with a clock moved by hand, and one host that the test plays: it reads
//! documents from the outbox and answers with reports, as a follower and an agent would together.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use elasticstack_api::app::{App, AppConfig, Caller, OnCreate};
use elasticstack_core::block::ArrayState;
use elasticstack_core::hypervisor::EndCause;
use elasticstack_core::prelude::*;
use elasticstack_core::scheduler::ReferenceScheduler;
use elasticstack_core::state::RunPhase;
use elasticstack_core::wire::internal::{
    ArrayStatus, Cursor, Document, DriveHome, DriveStatus, Ended, Fault, HostReport, IoLimits,
    JobProgress, JobStatus, ObjectStatus, PROTOCOL, Plugged, Reports, ServerStatus, SnapshotHome,
    SnapshotStatus, Stamp,
};
use elasticstack_core::wire::record::Record;
use tokio::task::JoinHandle;
use uuid::Uuid;

use crate::database::TestDatabase;
use crate::fake_services::{FakeBytes, Ledger};

/// How long a test waits for something that must come before it is called broken.
pub(crate) const GUARD: Duration = Duration::from_secs(120);

pub(crate) const MIB: u64 = 1 << 20;

pub(crate) fn host_id() -> HostId {
    HostId::from_uuid(Uuid::from_u128(0xA))
}

pub(crate) fn array_id() -> ArrayId {
    ArrayId::from_uuid(Uuid::from_u128(0xB))
}

/// Everything that outlives a restart of the control plane.
pub(crate) struct World {
    database: TestDatabase,
    pub(crate) clock: Arc<AtomicI64>,
    pub(crate) bytes: Arc<FakeBytes>,
    pub(crate) biller: Arc<Ledger>,
    pub(crate) host: Arc<FakeHost>,
}

/// One life of the control plane, with the host's follower at work or not.
pub(crate) struct Plane {
    pub(crate) app: Arc<App>,
    follower: Option<JoinHandle<()>>,
}

impl Drop for Plane {
    fn drop(&mut self) {
        if let Some(follower) = &self.follower {
            follower.abort();
        }
    }
}

impl World {
    pub(crate) fn new() -> Self {
        Self::on(TestDatabase::new())
    }

    pub(crate) fn on(database: TestDatabase) -> Self {
        let clock = Arc::new(AtomicI64::new(1_000_000_000));
        Self {
            database,
            bytes: Arc::default(),
            biller: Arc::default(),
            host: Arc::new(FakeHost::new(clock.clone())),
            clock,
        }
    }

    /// The same, with the host of another world.
    pub(crate) fn with_host_of(self, other: &Self) -> Self {
        Self { host: other.host.clone(), clock: other.clock.clone(), ..self }
    }

    /// Opens the control plane, answering within `answer_within`, and tells it of the host.
    pub(crate) async fn open(&self, answer_within: Duration) -> Arc<App> {
        let clock = self.clock.clone();
        let app = App::open_with(
            AppConfig { answer_within, ..AppConfig::default() },
            &self.database.url(),
            Arc::new(ReferenceScheduler),
            self.biller.clone(),
            Arc::new(move || Timestamp::from_micros(clock.load(Ordering::SeqCst))),
            self.bytes.clone(),
        )
        .await
        .unwrap();
        app.host_create(host_id(), &"h1".parse().unwrap(), "127.0.0.1:8444").await.unwrap();
        app.host_answered(host_id(), &self.host.report()).await.unwrap();
        app
    }

    /// A control plane whose host answers by itself.
    pub(crate) async fn plane(&self) -> Plane {
        let app = self.open(GUARD).await;
        let follower = tokio::spawn(follow(app.clone(), self.host.clone()));
        Plane { app, follower: Some(follower) }
    }

    /// A control plane whose host does only what the test has it do, and whose calls do not wait.
    pub(crate) async fn still(&self) -> Plane {
        Plane { app: self.open(Duration::ZERO).await, follower: None }
    }

    pub(crate) fn pass(&self, time: Duration) {
        let micros = i64::try_from(time.as_micros()).unwrap();
        self.clock.fetch_add(micros, Ordering::SeqCst);
    }
}

/// A customer with an account of its own.
pub(crate) async fn customer(app: &App, number: u128) -> Caller {
    let account = AccountId::from_uuid(Uuid::from_u128(0xC000 + number));
    let key = Secret::new(format!("key-of-{number}"));
    app.account_create(account, &"customer".parse().unwrap(), "a@b.c", &key).await.unwrap();
    app.authenticate(account, &key).await.unwrap()
}

/// An operator.
pub(crate) async fn operator(app: &App) -> Caller {
    let account = AccountId::from_uuid(Uuid::from_u128(0x0F));
    let key = Secret::new("key-of-the-operator");
    app.operator_create(account, &"operator".parse().unwrap(), &key).await.unwrap();
    app.authenticate(account, &key).await.unwrap()
}

pub(crate) fn sized(mib: u64) -> Record {
    Record::new().with("name", "d").with("size", mib * MIB)
}

pub(crate) fn id<T: std::str::FromStr>(record: &Record, key: &str) -> T {
    record.value(key).unwrap().parse().ok().unwrap()
}

impl Plane {
    pub(crate) async fn drive(&self, caller: &Caller, mib: u64) -> DriveId {
        id(&self.app.drive_create(caller, &sized(mib)).await.unwrap(), "drive")
    }

    /// A small persistent server with these drives on `block:0` and up.
    pub(crate) async fn server(
        &self,
        caller: &Caller,
        drives: &[DriveId],
        make: OnCreate,
    ) -> ServerId {
        let record = small_server(drives).with("persistent", true);
        id(&self.app.server_create(caller, &record, make).await.unwrap(), "server")
    }

    pub(crate) async fn value(
        &self,
        caller: &Caller,
        server: ServerId,
        key: &str,
    ) -> Option<String> {
        let record = self.app.server_info(caller, server).await.unwrap();
        record.value(key).map(str::to_owned)
    }

    /// Waits until `look` says yes, looking again at each change.
    pub(crate) async fn until(&self, mut look: impl AsyncFnMut() -> bool) {
        let mut changes = self.app.changes();
        let wait = async {
            loop {
                changes.mark_unchanged();
                if look().await {
                    return;
                }
                changes.changed().await.unwrap();
            }
        };
        tokio::time::timeout(GUARD, wait).await.expect("it never came");
    }
}

pub(crate) fn small_server(drives: &[DriveId]) -> Record {
    let mut record = Record::new().with("name", "s").with("cpu", 1000).with("mem", 512);
    for (index, drive) in drives.iter().enumerate() {
        record.set(format!("block:{index}"), drive);
    }
    record
}

async fn follow(app: Arc<App>, host: Arc<FakeHost>) {
    let mut changes = app.changes();
    loop {
        changes.mark_unchanged();
        host.exchange(&app).await;
        if changes.changed().await.is_err() {
            return;
        }
    }
}

fn held() -> Fault {
    let (code, message) = ("unavailable".to_owned(), "the guest does not let go".to_owned());
    Fault { code, message, field: None }
}

/// What the host does with the next thing of a kind that it is asked for.
#[derive(Debug, Clone)]
pub(crate) enum Mishap {
    /// It can't make the drive this way.
    Drive(Fault),
    /// It can't start the server.
    Start(Fault),
    /// It can't take the snapshot.
    Take(Fault),
    /// It can't restore the snapshot.
    Restore(Fault),
}

/// A host that does at once what documents say, one exchange at a time.
pub(crate) struct FakeHost {
    clock: Arc<AtomicI64>,
    inner: Mutex<Inner>,
    /// Held while something is sent, so that who comes after finds it taken in.
    sending: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct Inner {
    sequence: u64,
    statuses: BTreeMap<String, ObjectStatus>,
    dirty: BTreeMap<String, ObjectStatus>,
    mishaps: Vec<Mishap>,
    leave_jobs: bool,
    /// Its guests let go of no drive, and take none.
    holds_drives: bool,
    runs_begun: Vec<(ServerId, Run)>,
    limits: BTreeMap<DriveId, IoLimits>,
    time_run: Duration,
}

impl FakeHost {
    fn new(clock: Arc<AtomicI64>) -> Self {
        Self { clock, inner: Mutex::default(), sending: tokio::sync::Mutex::default() }
    }

    pub(crate) fn report(&self) -> HostReport {
        HostReport {
            portal: None,
            containers: false,
            protocol: PROTOCOL,
            boot: "boot-1".to_owned(),
            cpu_mhz: 20_000,
            memory_mib: 8_192,
            accelerator: "software cpu".to_owned(),
            cpu_limits: "none".to_owned(),
            arrays: vec![ArrayStatus {
                array: array_id(),
                name: "a1".to_owned(),
                capacity: 1_024 * MIB,
                promised: 0,
                state: ArrayState::Online,
                disks: None,
                warnings: Vec::new(),
            }],
        }
    }

    /// Has the next drive or start that it is asked for fail.
    pub(crate) fn expect(&self, mishap: Mishap) {
        self.inner.lock().unwrap().mishaps.push(mishap);
    }

    /// From now on leaves jobs queued, for the test to move on.
    pub(crate) fn leave_jobs(&self) {
        self.inner.lock().unwrap().leave_jobs = true;
    }

    /// From now on its guests change no drives, or do so again.
    pub(crate) fn hold_drives(&self, hold: bool) {
        self.inner.lock().unwrap().holds_drives = hold;
    }

    /// Every run that was ever begun, in order.
    pub(crate) fn runs_begun(&self) -> Vec<(ServerId, Run)> {
        self.inner.lock().unwrap().runs_begun.clone()
    }

    /// For how long guests ran, by its own stamps.
    pub(crate) fn time_run(&self) -> Duration {
        self.inner.lock().unwrap().time_run
    }

    /// What a drive was limited to in the newest document of a server that has it.
    pub(crate) fn limits(&self, drive: DriveId) -> Option<IoLimits> {
        self.inner.lock().unwrap().limits.get(&drive).copied()
    }

    pub(crate) fn knows(&self, server: ServerId) -> bool {
        self.inner.lock().unwrap().statuses.contains_key(&server.to_string())
    }

    /// The newest status of everything.
    pub(crate) fn statuses(&self) -> Vec<ObjectStatus> {
        self.inner.lock().unwrap().statuses.values().cloned().collect()
    }

    /// Takes all documents and sends all statuses that changed.
    pub(crate) async fn exchange(&self, app: &App) {
        let documents = app.outbox(host_id(), 100).await.unwrap();
        for document in &documents {
            self.take(document);
        }
        app.delivered(host_id(), &documents).await.unwrap();
        self.send(app).await;
    }

    /// Sends all statuses that changed, and keeps them for the next life of the control plane.
    pub(crate) async fn send(&self, app: &App) {
        let _sending = self.sending.lock().await;
        let reports = {
            let mut inner = self.inner.lock().unwrap();
            let dirty = std::mem::take(&mut inner.dirty);
            inner.sequence += u64::from(!dirty.is_empty());
            let next = Cursor { life: "life-1".to_owned(), sequence: inner.sequence };
            Reports { next, objects: dirty.into_values().collect() }
        };
        app.ingest(host_id(), &reports).await.unwrap();
    }

    /// Sends one status, whatever documents say.
    pub(crate) async fn tell(&self, app: &App, status: ObjectStatus) {
        self.inner.lock().unwrap().dirty.insert("told".to_owned(), status);
        self.send(app).await;
    }

    /// Sends every status again, as a host does that was asked from the beginning.
    pub(crate) async fn send_all(&self, app: &App) {
        {
            let mut inner = self.inner.lock().unwrap();
            inner.dirty = inner.statuses.clone();
        }
        self.send(app).await;
    }

    fn stamp(&self) -> Stamp {
        let wall = Timestamp::from_micros(self.clock.load(Ordering::SeqCst));
        Stamp { wall, monotonic_us: 1, boot: "boot-1".to_owned() }
    }

    fn put(&self, key: &str, status: ObjectStatus) {
        let mut inner = self.inner.lock().unwrap();
        if let ObjectStatus::Server(ServerStatus { started: Some(from), ended: Some(to), .. }) =
            &status
            && let Some(ObjectStatus::Server(before)) = inner.statuses.get(key)
            && before.phase != RunPhase::Ended
        {
            inner.time_run += to.at.wall.since(from.wall);
        }
        if inner.statuses.get(key) != Some(&status) {
            inner.statuses.insert(key.to_owned(), status.clone());
            inner.dirty.insert(key.to_owned(), status);
        }
    }

    fn mishap(&self, fits: impl Fn(&Mishap) -> Option<Fault>) -> Option<Fault> {
        let mut inner = self.inner.lock().unwrap();
        let index = inner.mishaps.iter().position(|mishap| fits(mishap).is_some())?;
        fits(&inner.mishaps.remove(index))
    }

    /// Stores a document and makes it true.
    pub(crate) fn take(&self, document: &Document) {
        match document {
            Document::Drive(document) => {
                let fault = self
                    .mishap(|mishap| match mishap {
                        Mishap::Drive(fault) => Some(fault.clone()),
                        _ => None,
                    })
                    .filter(|_| !document.gone);
                let status = DriveStatus {
                    drive: document.drive,
                    generation: document.generation,
                    gone: document.gone,
                    size: document.size,
                    epoch: Epoch(0),
                    fault,
                    home: Some(DriveHome { array: document.array, account: document.account }),
                };
                self.put(&document.drive.to_string(), ObjectStatus::Drive(status));
            }
            Document::Job(document) => {
                let inner = self.inner.lock().unwrap();
                let state = match inner.statuses.get(&document.job.to_string()) {
                    // Told of it twice, it does not begin anew.
                    Some(ObjectStatus::Job(before)) => before.state.clone(),
                    _ if inner.leave_jobs => JobProgress::Queued,
                    _ => JobProgress::Done,
                };
                drop(inner);
                let status = JobStatus {
                    job: document.job,
                    generation: document.generation,
                    gone: document.gone,
                    state,
                };
                self.put(&document.job.to_string(), ObjectStatus::Job(status));
            }
            Document::Snapshot(document) => {
                let known = |key: String| self.inner.lock().unwrap().statuses.get(&key).cloned();
                let before = match known(document.snapshot.to_string()) {
                    Some(ObjectStatus::Snapshot(status)) => Some(status),
                    _ => None,
                };
                let size = match (&before, known(document.drive.to_string())) {
                    (Some(before), _) => before.size,
                    (None, Some(ObjectStatus::Drive(drive))) => drive.size,
                    (None, _) => panic!("no such drive"),
                };
                let restores = before.as_ref().map_or(0, |before| before.restored);
                let mut refused = before.as_ref().and_then(|before| before.refused.clone());
                if document.restore > restores {
                    refused = self.mishap(|mishap| match mishap {
                        Mishap::Restore(fault) => Some(fault.clone()),
                        _ => None,
                    });
                }
                let fault = self
                    .mishap(|mishap| match mishap {
                        Mishap::Take(fault) => Some(fault.clone()),
                        _ => None,
                    })
                    .filter(|_| !document.gone);
                let status = SnapshotStatus {
                    snapshot: document.snapshot,
                    generation: document.generation,
                    gone: document.gone,
                    size: if fault.is_some() { 0 } else { size },
                    restored: document.restore,
                    refused,
                    fault,
                    home: Some(SnapshotHome {
                        drive: document.drive,
                        array: document.array,
                        account: AccountId::from_uuid(Uuid::nil()),
                    }),
                };
                self.put(&document.snapshot.to_string(), ObjectStatus::Snapshot(status));
            }
            Document::Server(document) => {
                let key = document.server.to_string();
                let known = self.inner.lock().unwrap().statuses.get(&key).cloned();
                let mut status = match &known {
                    Some(ObjectStatus::Server(status)) => status.clone(),
                    _ => ServerStatus {
                        server: document.server,
                        generation: document.generation,
                        gone: false,
                        run: Run(0),
                        phase: RunPhase::Ended,
                        started: None,
                        ended: None,
                        reset: 0,
                        shutdown: 0,
                        screen: None,
                        plugged: None,
                    },
                };
                if document.generation < status.generation {
                    return;
                }
                let claimed = document.hardware.drives.iter();
                let limits = claimed.map(|claimed| (claimed.drive, claimed.limits));
                self.inner.lock().unwrap().limits.extend(limits);
                let on = document.powered && !document.gone;
                status.generation = document.generation;
                status.reset = document.reset;
                status.shutdown = document.shutdown;
                if on && document.run > status.run {
                    let fault = self.mishap(|mishap| match mishap {
                        Mishap::Start(fault) => Some(fault.clone()),
                        _ => None,
                    });
                    status.run = document.run;
                    self.inner.lock().unwrap().runs_begun.push((document.server, document.run));
                    if let Some(fault) = fault {
                        status.phase = RunPhase::Ended;
                        status.started = None;
                        status.ended = Some(self.ended(EndCause::Lost, Some(fault)));
                    } else {
                        status.phase = RunPhase::Running;
                        status.started = Some(self.stamp());
                        status.ended = None;
                        status.screen = document
                            .hardware
                            .screen
                            .as_ref()
                            .map(|_| "127.0.0.1:5900".parse().unwrap());
                    }
                } else if !on && status.phase != RunPhase::Ended {
                    status.phase = RunPhase::Ended;
                    status.ended = Some(self.ended(EndCause::Stopped, None));
                }
                status.gone = document.gone;
                let begins =
                    !matches!(known, Some(ObjectStatus::Server(known)) if known.run == status.run);
                let holds = self.inner.lock().unwrap().holds_drives && !begins;
                status.plugged = (status.phase != RunPhase::Ended)
                    .then(|| if holds { Plugged::NotYet(held()) } else { Plugged::AsAsked });
                self.put(&key, ObjectStatus::Server(status));
            }
        }
    }

    fn ended(&self, cause: EndCause, fault: Option<Fault>) -> Ended {
        Ended { at: self.stamp(), cause, fault }
    }

    /// The guest powers itself off.
    pub(crate) fn power_off_guest(&self, server: ServerId) {
        self.change_server(server, |status| status.phase = RunPhase::Ended);
    }

    /// Something happens to the server's run; an ending is stamped.
    pub(crate) fn change_server(&self, server: ServerId, change: impl FnOnce(&mut ServerStatus)) {
        let key = server.to_string();
        let known = self.inner.lock().unwrap().statuses.get(&key).cloned();
        let Some(ObjectStatus::Server(mut status)) = known else { panic!("no such server") };
        let was = status.phase;
        change(&mut status);
        if was != RunPhase::Ended && status.phase == RunPhase::Ended {
            status.ended = Some(self.ended(EndCause::Guest, None));
        }
        self.put(&key, ObjectStatus::Server(status));
    }

    /// The one job there is gets on.
    pub(crate) fn change_job(&self, progress: JobProgress) {
        let jobs = self.jobs();
        let [job] = jobs.as_slice() else { panic!("there are {} jobs", jobs.len()) };
        self.change_that_job(job, progress);
    }

    /// This job gets on.
    pub(crate) fn change_that_job(&self, job: &JobStatus, progress: JobProgress) {
        let status = JobStatus { state: progress, ..job.clone() };
        self.put(&job.job.to_string(), ObjectStatus::Job(status));
    }

    /// The jobs that it was not told to forget.
    pub(crate) fn jobs(&self) -> Vec<JobStatus> {
        let statuses = self.inner.lock().unwrap().statuses.clone();
        let jobs = statuses.into_values().filter_map(|status| match status {
            ObjectStatus::Job(status) if !status.gone => Some(status),
            _ => None,
        });
        jobs.collect()
    }
}
