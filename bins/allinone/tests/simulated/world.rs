//! One cloud: a control plane, one host's agent, and what outlives both of them.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use elasticstack_api::Server;
use elasticstack_api::app::AppConfig;
use elasticstack_api::authority::Authority;
use elasticstack_api::hosts::MemoryDial;
use elasticstack_core::block::{Borrowing, Volume};
use elasticstack_core::clock::Clock;
use elasticstack_core::prelude::*;
use elasticstack_core::sim::{SimHypervisor, SimLend, SimNetwork, SimStore};
use elasticstack_host::agent::{Agent, HostDescription};
use elasticstack_host::lend::Borrow;
use http::Request;
use http_body_util::BodyExt as _;
use tempfile::TempDir;
use tokio::runtime::{self, Runtime};
use tokio::sync::{Mutex, OnceCell};
use tower::ServiceExt as _;
use uuid::Uuid;

use crate::database::TestDatabase;
use crate::tap::Tap;

/// Longer than anything here takes on the slowest machine.
pub(crate) const GUARD: Duration = Duration::from_secs(120);

/// The one customer.
pub(crate) const CUSTOMER: AccountId = AccountId::from_uuid(Uuid::from_u128(0xC1));
const OPERATOR: AccountId = AccountId::from_uuid(Uuid::from_u128(0xC2));
const KEY: &str = "a-key-that-only-tests-know";

/// Where every guest's screen is said to be; nobody looks at one.
const SCREENS: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 5900);

/// What outlives every life of the control plane and of its hosts' agents.
pub(crate) struct World {
    directory: TempDir,
    database: TestDatabase,
    /// How far the clock is ahead of this machine's, in microseconds.
    ahead: Arc<AtomicU64>,
    pub(crate) machines: Vec<Machine>,
    pub(crate) tap: Arc<Tap>,
    dial: Arc<MemoryDial>,
    /// What the hosts lend each other drives over.
    pub(crate) network: SimNetwork,
}

/// The hardware of one host, and where its agent keeps its records.
pub(crate) struct Machine {
    pub(crate) host: HostId,
    pub(crate) store: SimStore,
    pub(crate) hypervisor: SimHypervisor,
    pub(crate) lender: SimLend,
    pub(crate) state_dir: PathBuf,
    agent: Mutex<Option<Life>>,
}

/// An agent in a runtime of its own, with which it dies.
struct Life {
    runtime: Option<Runtime>,
    _agent: Agent,
}

impl Drop for Life {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Who {
    Customer,
    Operator,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    /// It is about what was done for an earlier request under the same key.
    pub(crate) is_replayed: bool,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}", String::from_utf8_lossy(&self.body));
        self
    }

    /// The value of a key in an answer of JSON.
    pub(crate) fn value(&self, key: &str) -> String {
        let record: serde_json::Value = serde_json::from_slice(&self.body).unwrap();
        record[key].as_str().unwrap().to_owned()
    }
}

/// A world as it begins, made once: its database and its certificate authority.
static BEGINNING: OnceCell<TempDir> = OnceCell::const_new();

const DATABASE: &str = "control.db";
const AUTHORITY: [&str; 2] = ["authority.key", "authority.pem"];

async fn beginning() -> TempDir {
    let (world, server) = World::of(TestDatabase::new(), 1).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join(DATABASE);
    elasticstack_api::backup::backup(&world.database.url(), &file).await.unwrap();
    for name in AUTHORITY {
        fs::copy(world.directory.path().join(name), directory.path().join(name)).unwrap();
    }
    server.close().await;
    directory
}

impl World {
    /// A cloud of one host that has answered, with one customer and one operator.
    pub(crate) async fn new() -> (Self, Server) {
        let world = Self::blank(TestDatabase::new(), 1);
        if let Some(path) = world.database.url().strip_prefix("sqlite:") {
            let beginning = BEGINNING.get_or_init(beginning).await.path();
            fs::copy(beginning.join(DATABASE), path).unwrap();
            for name in AUTHORITY {
                fs::copy(beginning.join(name), world.directory.path().join(name)).unwrap();
            }
        }
        world.begin().await
    }

    /// The same with so many hosts.
    pub(crate) async fn of(database: TestDatabase, hosts: u64) -> (Self, Server) {
        Self::blank(database, hosts).begin().await
    }

    fn blank(database: TestDatabase, hosts: u64) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let network = SimNetwork::default();
        let machine = |number: u64| Machine {
            host: HostId::from_uuid(Uuid::from_u128(0xA0 + u128::from(number))),
            store: SimStore::new(number, &[Bytes::from_gib(4), Bytes::from_gib(4)]),
            hypervisor: SimHypervisor::new(MebiBytes(65_536)).with_screens_at(SCREENS).on(&network),
            lender: network.lender(portal(number)),
            state_dir: directory.path().join(format!("agent{number}")),
            agent: Mutex::default(),
        };
        Self {
            database,
            ahead: Arc::default(),
            machines: (1..=hosts).map(machine).collect(),
            tap: Tap::new(),
            dial: Arc::new(MemoryDial::new()),
            network,
            directory,
        }
    }

    async fn begin(self) -> (Self, Server) {
        for machine in &self.machines {
            self.boot_agent(machine).await;
        }
        let server = self.serve().await;
        let app = server.app();
        let key = Secret::new(KEY);
        let mail = "c@example.org";
        app.account_create(CUSTOMER, &"customer".parse().unwrap(), mail, &key).await.unwrap();
        app.operator_create(OPERATOR, &"operator".parse().unwrap(), &key).await.unwrap();
        for (number, machine) in self.machines.iter().enumerate() {
            let name = format!("host{number}").parse().unwrap();
            app.host_create(machine.host, &name, "memory").await.unwrap();
        }
        self.until_hosts_answered(&server).await;
        (self, server)
    }

    /// Waits until every host is known with all that it is.
    pub(crate) async fn until_hosts_answered(&self, server: &Server) {
        let app = server.app();
        let mut changes = app.changes();
        let known = async {
            for machine in &self.machines {
                loop {
                    changes.mark_unchanged();
                    let info = app.host_info(machine.host).await.unwrap();
                    let described = info.value("accelerator").is_some();
                    if info.value("status") == Some("active") && described {
                        break;
                    }
                    changes.changed().await.unwrap();
                }
            }
        };
        tokio::time::timeout(GUARD, known).await.expect("a host never answered");
    }

    /// A life of the control plane.
    pub(crate) async fn serve(&self) -> Server {
        self.serve_on(&self.database).await
    }

    /// A life of the control plane on another database.
    pub(crate) async fn serve_on(&self, database: &TestDatabase) -> Server {
        self.serve_as(database, AppConfig::default()).await
    }

    /// A life of the control plane that has nobody wait for long: neither for a host nor for the
    /// answer that a dead server owes.
    pub(crate) async fn serve_impatiently(&self) -> Server {
        let answer_within = Duration::from_secs(2);
        self.serve_as(&self.database, AppConfig { answer_within, ..AppConfig::default() }).await
    }

    async fn serve_as(&self, database: &TestDatabase, config: AppConfig) -> Server {
        let authority = Authority::open(self.directory.path()).unwrap();
        Server::builder()
            .database(database.url())
            .dial(self.dial.clone())
            .clock(self.clock())
            .config(AppConfig { authority: Some(Arc::new(authority)), ..config })
            .build()
            .await
            .unwrap()
    }

    pub(crate) fn database(&self) -> &TestDatabase {
        &self.database
    }

    /// Where a test may put files.
    pub(crate) fn directory(&self) -> &Path {
        self.directory.path()
    }

    /// Begins a life of an agent.
    pub(crate) async fn boot_agent(&self, machine: &Machine) {
        let runtime = runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.unwrap();
        let agent = Agent::builder()
            .state_dir(machine.state_dir.clone())
            .store(Arc::new(machine.store.clone()))
            .hypervisor(Arc::new(machine.hypervisor.clone()))
            .lender(Arc::new(machine.lender.clone()))
            .borrower(Arc::new(Borrower(self.network.clone())))
            .description(HostDescription {
                cpu_mhz: 200_000,
                memory_mib: 65_536,
                accelerator: "simulated".to_owned(),
                cpu_limits: "none".to_owned(),
                containers: false,
            })
            .clock(self.clock());
        let agent = runtime.spawn(agent.build()).await.unwrap().unwrap();
        self.dial.insert(machine.host, self.tap.on(agent.router()));
        *machine.agent.lock().await = Some(Life { runtime: Some(runtime), _agent: agent });
    }

    /// Cuts every connection to an agent.
    pub(crate) fn cut(&self) {
        self.dial.cut();
    }

    /// Kills an agent, wherever its tasks are. Its guests do not notice.
    pub(crate) async fn kill_agent(&self, machine: &Machine) {
        self.dial.remove(machine.host);
        self.cut();
        machine.hypervisor.restart();
        let mut life = machine.agent.lock().await.take().unwrap();
        // What a thread is at on the disk comes to its end there, before another life begins.
        let dies = move || life.runtime.take().unwrap().shutdown_timeout(GUARD);
        tokio::task::spawn_blocking(dies).await.unwrap();
    }

    /// Moves every clock on.
    pub(crate) fn pass(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap();
        self.ahead.fetch_add(micros, Ordering::SeqCst);
    }

    fn clock(&self) -> Arc<dyn Clock> {
        let ahead = Arc::clone(&self.ahead);
        Arc::new(move || {
            let ahead = Duration::from_micros(ahead.load(Ordering::SeqCst));
            Timestamp::from(SystemTime::now()).plus(ahead)
        })
    }
}

/// Logs in over the simulated network.
struct Borrower(SimNetwork);

#[async_trait]
impl Borrow for Borrower {
    async fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>> {
        self.0.borrow(borrowing)
    }
}

/// Where the host of this number lends its drives.
fn portal(number: u64) -> SocketAddr {
    let address = Ipv4Addr::from_bits(0x7f00_0000 + u32::try_from(number).unwrap());
    SocketAddr::from((address, 3260))
}

/// A request to the public API, answered in JSON.
pub(crate) fn request(who: Who, path: &str, once: Option<&str>, body: &[u8]) -> Request<Body> {
    let account = match who {
        Who::Customer => CUSTOMER,
        Who::Operator => OPERATOR,
    };
    let mut request = Request::post(path)
        .header("Authorization", format!("Basic {}", STANDARD.encode(format!("{account}:{KEY}"))))
        .header("Accept", "application/json");
    if let Some(key) = once {
        request = request.header("Idempotency-Key", key);
    }
    request.body(Body::from(body.to_vec())).unwrap()
}

/// Asks a server.
pub(crate) async fn send(server: &Server, request: Request<Body>) -> Answer {
    pass_to(server.router(), request).await
}

/// Asks whatever server this is the router of.
pub(crate) async fn pass_to(server: Router, request: Request<Body>) -> Answer {
    let response = server.oneshot(request);
    let response = tokio::time::timeout(GUARD, response).await.expect("no answer").unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes().to_vec();
    let is_replayed = parts.headers.contains_key("Idempotent-Replayed");
    Answer { status: parts.status.as_u16(), is_replayed, body }
}

/// The customer asks, and it is done.
pub(crate) async fn post(server: &Server, path: &str, body: &str) -> Answer {
    asked(server, Who::Customer, path, body).await
}

/// The operator asks, and it is done.
pub(crate) async fn operate(server: &Server, path: &str, body: &str) -> Answer {
    asked(server, Who::Operator, path, body).await
}

async fn asked(server: &Server, who: Who, path: &str, body: &str) -> Answer {
    let answer = send(server, request(who, path, None, body.as_bytes())).await;
    assert!(matches!(answer.status, 200 | 204), "{path}: {answer:?}");
    answer
}
