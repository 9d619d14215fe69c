//! A control plane in this process, with one customer, for the examples that serve simulated hosts
//! to it. Nothing here is simulated: it is the API server, its database and its public API, only
//! without sockets.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use elasticstack_api::Server;
use elasticstack_api::app::AppConfig;
use elasticstack_api::hosts::MemoryDial;
use elasticstack_core::client::{Client, Transport};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::SimRng;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;
use http::{Request, Response};
use http_body_util::BodyExt as _;
use tower::ServiceExt as _;

/// Longer than anything here takes on the slowest machine.
const GUARD: Duration = Duration::from_secs(120);

pub(crate) struct ControlPlane {
    pub(crate) server: Server,
    /// The way to hosts: each is served by its agent's router over a stream in memory.
    pub(crate) hosts: Arc<MemoryDial>,
    /// The customer.
    pub(crate) customer: Client<InProcess>,
}

impl ControlPlane {
    /// Opens one with its database in `directory`.
    pub(crate) async fn open(directory: &Path, rng: &mut SimRng) -> anyhow::Result<Self> {
        let hosts = Arc::new(MemoryDial::new());
        let server = Server::builder()
            .database(format!("sqlite:{}", directory.join("cloud.db").display()))
            .dial(hosts.clone())
            // A call waits so long for its host; then it answers with how things are.
            .config(AppConfig { answer_within: Duration::from_secs(5), ..AppConfig::default() })
            .build()
            .await?;
        // Never take a key from a simulation's seed where the customer is real.
        let (account, key) = (rng.id(), Secret::new(rng.id::<()>().to_string()));
        let name = "customer".parse()?;
        server.app().account_create(account, &name, "customer@example.org", &key).await?;
        let customer = Client::new(InProcess(server.router()), account, &key)?;
        Ok(Self { server, hosts, customer })
    }

    /// Makes a host known and reaches it by `agent` from now on.
    pub(crate) async fn join(&self, host: HostId, name: &str, agent: Router) -> anyhow::Result<()> {
        self.hosts.insert(host, agent);
        Ok(self.server.app().host_create(host, &name.parse()?, "memory").await?)
    }

    /// Makes a drive as soon as there is room: a host has some once it has answered.
    pub(crate) async fn create_drive(&self, name: &str, size: Bytes) -> anyhow::Result<String> {
        let record = Record::new().with("name", name).with("size", size.get());
        let mut made = None;
        until(async || {
            match self.customer.one(Call::DriveCreate, &[], &record).await {
                Err(full) if full.kind() == ErrorKind::NoCapacity => {}
                answer => made = Some(answer?),
            }
            Ok(made.is_some())
        })
        .await?;
        id(&made.context("no drive was made")?, "drive")
    }

    /// Makes a server that boots from `drive` and starts it.
    pub(crate) async fn create_server(&self, name: &str, drive: &str) -> anyhow::Result<String> {
        let record = Record::new()
            .with("name", name)
            .with("cpu", 500)
            .with("mem", 256)
            .with("persistent", true)
            .with("ide:0:0", drive)
            .with("boot", "ide:0:0");
        id(&self.customer.one(Call::ServerCreate, &[], &record).await?, "server")
    }

    /// The `status` of a server, as its owner sees it.
    pub(crate) async fn status(&self, server: &str) -> anyhow::Result<String> {
        let info = self.customer.one(Call::ServerInfo, &[server], &Record::new()).await?;
        Ok(info.value("status").context("a server without a status")?.to_owned())
    }
}

fn id(info: &Record, key: &str) -> anyhow::Result<String> {
    Ok(info.value(key).with_context(|| format!("an answer without {key}"))?.to_owned())
}

/// Asks again and again until it holds.
pub(crate) async fn until(
    mut holds: impl AsyncFnMut() -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let holding = async {
        while !holds().await? {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    };
    tokio::time::timeout(GUARD, holding).await.context("waited for two minutes")?
}

/// Carries the client's requests to the router, as a socket would.
pub(crate) struct InProcess(Router);

#[async_trait]
impl Transport for InProcess {
    async fn send(&self, request: Request<bytes::Bytes>) -> Result<Response<bytes::Bytes>> {
        let Ok(response) = self.0.clone().oneshot(request.map(Body::from)).await;
        let (parts, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| Error::internal("reading an answer").source(error))?;
        Ok(Response::from_parts(parts, body.to_bytes()))
    }
}
