//! The control plane put together from its traits.

use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::time::SystemTime;

use axum::Router;
use elasticstack_core::biller::{Biller, OpenBiller};
use elasticstack_core::prelude::*;
use elasticstack_core::scheduler::{ReferenceScheduler, Scheduler};
use tokio::net::TcpListener;

use crate::app::{App, AppConfig, DataPath};
use crate::hosts::{Dial, Fleet, Patience};
use crate::http::{self, LegacyCall, Limits};

/// A control plane at work: its use cases, its public API and its tasks for hosts.
///
/// [`Server::close`] ends the tasks and waits for them; a drop ends them without waiting. Guests
/// and drives go on either way.
pub struct Server {
    app: Arc<App>,
    fleet: Arc<Fleet>,
    router: Router,
    connections: u32,
}

impl Server {
    /// A control plane to be put together.
    pub fn builder() -> ServerBuilder {
        ServerBuilder::default()
    }

    /// The use cases, for whoever embeds them without HTTP.
    #[must_use]
    pub fn app(&self) -> &Arc<App> {
        &self.app
    }

    /// The public API.
    pub fn router(&self) -> Router {
        self.router.clone()
    }

    /// Serves the public API in clear until `shutdown` completes; requests under way then finish.
    ///
    /// # Errors
    /// `InvalidValue` if the listener is not on loopback, where clear text would cross a network.
    ///
    /// # Cancel safety
    /// Dropping it cuts every connection; every use case may be cut off anywhere.
    pub async fn serve(
        &self,
        listener: TcpListener,
        shutdown: impl Future<Output = ()> + Send,
    ) -> Result<()> {
        http::serve(listener, self.router(), self.connections, shutdown).await
    }

    /// Ends the tasks for hosts, waits until they have ended, and gives the hosts free for other
    /// servers on the same database.
    pub async fn close(self) {
        self.fleet.close().await;
        if let Err(error) = self.app.release_hosts().await {
            tracing::warn!(error = %Chain(&error), "others wait for the leases of hosts to end");
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.fleet.stop();
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("fleet", &self.fleet).finish_non_exhaustive()
    }
}

/// What a [`Server`] is made of. A database and a way to dial hosts have no default.
#[derive(Default)]
#[must_use]
pub struct ServerBuilder {
    database: Option<String>,
    dial: Option<Arc<dyn Dial>>,
    scheduler: Option<Arc<dyn Scheduler>>,
    biller: Option<Arc<dyn Biller>>,
    clock: Option<Arc<dyn Clock>>,
    config: AppConfig,
    patience: Patience,
    legacy: Vec<LegacyCall>,
    limits: Limits,
}

impl ServerBuilder {
    /// Where all state is: `sqlite:PATH`, which is made if there is none and is for one server at
    /// a time, or `postgres://USER:PASSWORD@HOST/DATABASE`, which must exist and is for any number
    /// of servers. Any other URL is refused when the server is built. The URL is never shown.
    ///
    /// PostgreSQL 15 is what the tests run on. What else speaks its protocol, such as CockroachDB,
    /// is untested.
    pub fn database(mut self, url: impl Into<String>) -> Self {
        self.database = Some(url.into());
        self
    }

    /// How hosts are reached.
    pub fn dial(mut self, dial: Arc<dyn Dial>) -> Self {
        self.dial = Some(dial);
        self
    }

    /// Where new things go; the [`ReferenceScheduler`] by default.
    pub fn scheduler(mut self, scheduler: Arc<dyn Scheduler>) -> Self {
        self.scheduler = Some(scheduler);
        self
    }

    /// Who bills; the [`OpenBiller`] by default, which meters and never refuses.
    pub fn biller(mut self, biller: Arc<dyn Biller>) -> Self {
        self.biller = Some(biller);
        self
    }

    /// Who tells the time; the system's clock by default.
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// What the use cases leave to the operator.
    pub fn config(mut self, config: AppConfig) -> Self {
        self.config = config;
        self
    }

    /// How long to wait for hosts.
    pub fn patience(mut self, patience: Patience) -> Self {
        self.patience = patience;
        self
    }

    /// The calls that answer 204 as in older clouds; none by default.
    pub fn legacy(mut self, calls: impl IntoIterator<Item = LegacyCall>) -> Self {
        self.legacy = calls.into_iter().collect();
        self
    }

    /// How often callers may call, and which proxies are believed; generous and none by default.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }

    /// Opens the database, takes up its hosts and begins to serve them.
    ///
    /// # Errors
    /// `MissingKey` without a database or a dial; what [`App::open_with`] fails with.
    pub async fn build(self) -> Result<Server> {
        let Self { database, dial, scheduler, biller, clock, config, patience, legacy, limits } =
            self;
        let database = database.ok_or_else(|| missing("database"))?;
        let dial = dial.ok_or_else(|| missing("dial"))?;
        let scheduler = scheduler.unwrap_or_else(|| Arc::new(ReferenceScheduler));
        let biller = biller.unwrap_or_else(|| Arc::new(OpenBiller::default()));
        let clock = clock.unwrap_or_else(|| Arc::new(|| Timestamp::from(SystemTime::now())));
        let fleet = Arc::new(Fleet::new(dial, patience));
        let data: Arc<dyn DataPath> = fleet.clone();
        let app = App::open_with(config, &database, scheduler, biller, clock, data).await?;
        let router = http::router(Arc::clone(&app), legacy, &limits);
        fleet.spawn(&app).await?;
        Ok(Server { app, fleet, router, connections: limits.connections })
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A database's URL may hold a password.
        f.debug_struct("ServerBuilder").finish_non_exhaustive()
    }
}

fn missing(what: &'static str) -> Error {
    Error::new(
        ErrorKind::MissingKey,
        format!("a server cannot be built without a {what}: call the builder's {what}(…)"),
    )
    .field(what)
}
