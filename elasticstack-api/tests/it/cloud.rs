//! A whole control plane with one host and one customer, called without a socket.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use elasticstack_api::app::AppConfig;
use elasticstack_api::authority::Authority;
use elasticstack_api::hosts::MemoryDial;
use elasticstack_api::http::LegacyCall;
use elasticstack_api::{Server, ServerBuilder};
use elasticstack_core::prelude::*;
use elasticstack_core::wire::calls::{self, CALLS, Route, Scope};
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tower::ServiceExt as _;
use uuid::Uuid;

use super::database::TestDatabase;
use super::fake_agent::FakeAgent;

/// Longer than anything here takes on the slowest machine.
pub(crate) const GUARD: Duration = Duration::from_secs(120);

/// One drive of the size that everything is rounded up to.
pub(crate) const SMALL: &str = "name small\nsize 4M\n";

pub(crate) struct Cloud {
    pub(crate) server: Server,
    pub(crate) agent: Arc<FakeAgent>,
    pub(crate) dial: Arc<MemoryDial>,
    pub(crate) host: HostId,
    pub(crate) basic: String,
    pub(crate) operator: String,
    directory: tempfile::TempDir,
    database: TestDatabase,
}

/// What came back.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) headers: http::HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) async fn of(response: Response<Body>) -> Self {
        let (parts, body) = response.into_parts();
        let body = body.collect().await.unwrap().to_bytes().to_vec();
        Self { status: parts.status.as_u16(), headers: parts.headers, body }
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The value of a key in an answer of text.
    pub(crate) fn value(&self, key: &str) -> Option<&str> {
        self.text().lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
    }

    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    #[track_caller]
    pub(crate) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{:?} {}", self.headers, self.text());
        self
    }
}

impl Cloud {
    /// A cloud whose host answers and has room.
    pub(crate) async fn new() -> Self {
        Self::on(TestDatabase::new()).await
    }

    /// A cloud in which these calls answer as old ones did.
    pub(crate) async fn legacy(calls: &[LegacyCall]) -> Self {
        let choose = |builder: ServerBuilder| builder.legacy(calls.iter().copied());
        Self::with(TestDatabase::new(), choose).await
    }

    /// A cloud that keeps its state there.
    pub(crate) async fn on(database: TestDatabase) -> Self {
        Self::with(database, |builder| builder).await
    }

    pub(crate) async fn with(
        database: TestDatabase,
        choose: impl FnOnce(ServerBuilder) -> ServerBuilder,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (dial, agent) = (Arc::new(MemoryDial::new()), FakeAgent::new());
        let authority = Authority::open(directory.path()).unwrap();
        let config = AppConfig { authority: Some(Arc::new(authority)), ..AppConfig::default() };
        let builder = Server::builder().database(database.url()).dial(dial.clone()).config(config);
        let server = choose(builder).build().await.unwrap();
        let host = HostId::from_uuid(Uuid::new_v4());
        dial.insert(host, agent.router());
        server.app().host_create(host, &"h1".parse().unwrap(), "memory").await.unwrap();
        let basic = account(&server, "customer").await;
        let operator = operator(&server).await;
        let cloud = Self { server, agent, dial, host, basic, operator, directory, database };
        // The first host is known to have room once it has answered.
        let drive = cloud.drive_once_there_is_room(SMALL).await;
        cloud.post(&format!("/drives/{drive}/destroy"), "").await.expect(204);
        cloud
    }

    /// Another server on the same database, with the same hosts.
    pub(crate) async fn another_server(&self) -> Server {
        let builder = Server::builder().database(self.database.url()).dial(self.dial.clone());
        builder.build().await.unwrap()
    }

    /// Another customer's credentials.
    pub(crate) async fn stranger(&self) -> String {
        account(&self.server, "stranger").await
    }

    /// The ids of all that there is, list by list, as the customer and the operator see them.
    pub(crate) async fn ids(&self) -> Vec<String> {
        let is_whole = |route: &&Route| {
            matches!(route.answer, calls::Answer::Ids(_)) && route.parameters().next().is_none()
        };
        let mut ids = Vec::new();
        for Route { path, scope, .. } in CALLS.iter().filter(is_whole) {
            let askers = match scope {
                Scope::Customer => &[&self.basic, &self.operator][..],
                Scope::Operator => &[&self.operator],
            };
            for basic in askers {
                let request = Request::get(*path).header("Authorization", *basic);
                let list = self.send(request.body(Body::empty()).unwrap()).await.expect(200);
                ids.push(format!("{path}: {}", list.text()));
            }
        }
        ids
    }

    /// Where its state is.
    pub(crate) fn database_url(&self) -> String {
        self.database.url()
    }

    /// Where a test may put files.
    pub(crate) fn directory(&self) -> &std::path::Path {
        self.directory.path()
    }

    /// Waits until there is room for what this body asks for, and takes it.
    pub(crate) async fn drive_once_there_is_room(&self, body: &str) -> String {
        let made = async {
            loop {
                let made = self.post("/drives/create", body).await;
                if made.status == 200 {
                    return made.value("drive").unwrap().to_owned();
                }
                made.expect(507);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(GUARD, made).await.expect("there never was room")
    }

    /// Sends a request as it is.
    pub(crate) async fn send(&self, request: Request<Body>) -> Answer {
        send(&self.server, request).await
    }

    /// A request by the customer.
    pub(crate) fn request(&self, method: &str, path: &str) -> http::request::Builder {
        Request::builder().method(method).uri(path).header("Authorization", &self.basic)
    }

    /// Sends text and is answered in text.
    pub(crate) async fn post(&self, path: &str, body: &str) -> Answer {
        self.send(self.request("POST", path).body(Body::from(body.to_owned())).unwrap()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send(self.request("GET", path).body(Body::empty()).unwrap()).await
    }

    /// The operator sends text and is answered in text.
    pub(crate) async fn operate(&self, path: &str, body: &str) -> Answer {
        let request = Request::post(path).header("Authorization", &self.operator);
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    /// A new customer's account that nothing is known of.
    pub(crate) async fn account(&self) -> String {
        let made = self.operate("/accounts/create", "name a").await.expect(200);
        made.value("account").unwrap().to_owned()
    }

    /// A drive that its host tells of and no intent knows: its place in the quarantine, and itself.
    pub(crate) async fn stray(&self) -> (String, DriveId) {
        let owner = self.own_account().await.parse().unwrap();
        let drive = self.agent.find_stray(owner);
        let found = async {
            loop {
                let strays = self.operate("/quarantine/info", "").await.expect(200);
                let records = strays.text().split("\n\n");
                let mut its = records.filter(|record| record.contains(&drive.to_string()));
                if let Some(record) = its.next() {
                    let id = record.lines().find_map(|line| line.strip_prefix("stray "));
                    return id.unwrap().to_owned();
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        (tokio::time::timeout(GUARD, found).await.expect("nobody told of it"), drive)
    }

    /// The customer's account.
    pub(crate) async fn own_account(&self) -> String {
        self.get("/profile/info").await.expect(200).value("uuid").unwrap().to_owned()
    }

    /// Sends JSON and is answered in JSON.
    pub(crate) async fn post_json(&self, path: &str, body: &str) -> Answer {
        let request = self
            .request("POST", path)
            .header("Content-Type", "application/json")
            .header("Accept", "application/json");
        self.send(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    /// A new small drive.
    pub(crate) async fn drive(&self) -> String {
        let made = self.post("/drives/create", SMALL).await.expect(200);
        made.value("drive").unwrap().to_owned()
    }

    /// A new snapshot of a drive.
    pub(crate) async fn snapshot(&self, drive: &str) -> String {
        let made = self.post(&format!("/drives/{drive}/snapshot"), "").await.expect(200);
        made.value("snapshot").unwrap().to_owned()
    }

    /// Waits until a drive is imaged and released.
    pub(crate) async fn finished_imaging(&self, drive: &str) {
        let finished = async {
            loop {
                let info = self.get(&format!("/drives/{drive}/info")).await.expect(200);
                let (imaging, claimed) = (info.value("imaging"), info.value("claimed"));
                assert_eq!(imaging.is_some(), claimed.is_some(), "both at once: {}", info.text());
                if imaging.is_none() {
                    assert_eq!(info.value("failed"), None);
                    return;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(GUARD, finished).await.expect("imaging never ended");
    }

    /// A new stopped server that keeps itself, booting from a new drive.
    pub(crate) async fn stopped_server(&self) -> String {
        let drive = self.drive().await;
        let body = format!(
            "name demo\ncpu 1000\nsmp auto\nmem 512\npersistent true\nboot ide:0:0\nide:0:0 {drive}\n\
             ide:0:0:media disk\nnic:0:model e1000\nnic:0:dhcp auto\nvnc auto\npassword abcd1234\n\
             tags group1\nuser:role web"
        );
        let made = self.post("/servers/create/stopped", &body).await.expect(200);
        made.value("server").unwrap().to_owned()
    }
}

/// Sends a request to a server as it is.
pub(crate) async fn send(server: &Server, request: Request<Body>) -> Answer {
    let response = server.router().oneshot(request);
    let response = tokio::time::timeout(GUARD, response).await.expect("no answer").unwrap();
    Answer::of(response).await
}

/// Does `work` while a server serves at an address, and ends it afterwards.
pub(crate) async fn served<T>(server: &Server, work: impl AsyncFnOnce(SocketAddr) -> T) -> T {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let serving = server.serve(listener, async {
        let _ = stopped.await;
    });
    let work = async {
        let done = work(address).await;
        stop.send(()).unwrap();
        done
    };
    let both = async { tokio::join!(serving, work) };
    let (served, done) = tokio::time::timeout(GUARD, both).await.expect("it hangs");
    served.unwrap();
    done
}

async fn operator(server: &Server) -> String {
    let account = AccountId::from_uuid(Uuid::new_v4());
    let key = Uuid::new_v4().to_string();
    let secret = Secret::new(key.as_str());
    server.app().operator_create(account, &"operator".parse().unwrap(), &secret).await.unwrap();
    format!("Basic {}", STANDARD.encode(format!("{account}:{key}")))
}

async fn account(server: &Server, name: &str) -> String {
    let account = AccountId::from_uuid(Uuid::new_v4());
    let key = Uuid::new_v4().to_string();
    let name = name.parse().unwrap();
    let secret = Secret::new(key.as_str());
    server.app().account_create(account, &name, "c@example.org", &secret).await.unwrap();
    format!("Basic {}", STANDARD.encode(format!("{account}:{key}")))
}
