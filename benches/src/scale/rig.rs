//! A cloud under measurement: a database, a fleet and an API server, each in processes of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use elasticstack_core::sim::SimRng;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tempfile::TempDir;

use super::caller::{Caller, Credentials};
use super::database::{Database, Kind};
use super::fleet::{TLS_PORT, address, bundle};
use super::process::{Process, TLS, role};
use crate::footprint::{processor_time, pss_kib};

/// Longer than a fleet takes to be there on the slowest machine.
const GUARD: Duration = Duration::from_secs(600);

/// How many calls wait for an answer at a time while a cloud is prepared.
pub(super) const WIDTH: usize = 16;

/// How many rigs of this process have a network of addresses.
static RIGS: AtomicU8 = AtomicU8::new(0);

/// What is under measurement.
pub(crate) struct Rig {
    pub(super) hosts: Vec<String>,
    pub(super) database: Database,
    control: Option<Process>,
    fleet: Process,
    api: String,
    operator: Credentials,
    customer: Credentials,
    directory: TempDir,
}

/// Processor time of a rig's processes up to an instant, or between two.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spent {
    pub(super) wall: Duration,
    pub(super) server: Duration,
    pub(super) database: Duration,
    pub(super) fleet: Duration,
}

impl Spent {
    /// What the API server and its database took.
    pub(super) fn both(&self) -> Duration {
        self.server + self.database
    }

    /// The same less what the idle rig takes in that time.
    pub(crate) fn beyond(&self, idle: &Self) -> f64 {
        let share = idle.both().as_secs_f64() / idle.wall.as_secs_f64();
        (self.both().as_secs_f64() - share * self.wall.as_secs_f64()).max(0.0)
    }
}

/// An instant from which what is spent counts.
pub(crate) struct Meter<'a> {
    rig: &'a Rig,
    began: Instant,
    before: Spent,
}

impl Meter<'_> {
    pub(crate) fn read(&self) -> Result<Spent> {
        let (now, before) = (self.rig.spent()?, self.before);
        Ok(Spent {
            wall: self.began.elapsed(),
            server: now.server.saturating_sub(before.server),
            database: now.database.saturating_sub(before.database),
            fleet: now.fleet.saturating_sub(before.fleet),
        })
    }
}

impl Rig {
    /// Starts one whose hosts are all known and active, and hold nothing.
    pub(crate) async fn start(kind: Kind, hosts: u16, array_gib: u32) -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let net = net(RIGS.fetch_add(1, Ordering::Relaxed));
        let homes = directory.path().join("hosts");
        let mut command = role("fleet")?;
        command.args(["--hosts", &hosts.to_string(), "--net", &net.to_string()]);
        command.args(["--array-gib", &array_gib.to_string(), "--directory"]).arg(&homes);
        let (fleet, _) = Process::start(&mut command)?;
        // Keys of a simulation's making are good enough for simulated hosts.
        let mut rng = SimRng::new(std::process::id().into());
        let (operator, customer) = (Credentials::drawn(&mut rng), Credentials::drawn(&mut rng));
        let database = Database::start(kind)?;
        let (control, api) = (None, String::new());
        let hosts_ids = Vec::new();
        let mut rig =
            Self { hosts: hosts_ids, database, control, fleet, api, operator, customer, directory };
        rig.start_control(&[])?;
        rig.hosts = rig.make_hosts(hosts, net, &homes).await?;
        rig.active(hosts).await?;
        rig.write_ids("hosts", &rig.hosts)?;
        Ok(rig)
    }

    /// Ends the API server and starts it again, to dial over TLS from then on; answers what its
    /// process had taken once every host was there.
    pub(super) async fn restart_with_tls(&mut self) -> Result<Duration> {
        self.fleet.tell(TLS)?;
        if let Some(control) = self.control.take() {
            control.end()?;
        }
        self.start_control(&["--tls"])?;
        let hosts = u16::try_from(self.hosts.len())?;
        self.connected(hosts).await?;
        processor_time(self.control()?.pid())
    }

    fn start_control(&mut self, options: &[&str]) -> Result<()> {
        let mut command = role("control")?;
        command.arg("--directory").arg(self.directory.path().join("authority"));
        command.args(["--database", &self.database.url()]).args(options);
        let (control, api) = Process::start(self.with_accounts(&mut command))?;
        (self.control, self.api) = (Some(control), api);
        Ok(())
    }

    /// Has `command` know the accounts of this rig.
    fn with_accounts<'c>(
        &self,
        command: &'c mut std::process::Command,
    ) -> &'c mut std::process::Command {
        command
            .env("BENCH_OPERATOR", self.operator.to_string())
            .env("BENCH_CUSTOMER", self.customer.to_string())
    }

    /// A process that makes load on this rig.
    pub(super) fn load(&self) -> Result<std::process::Command> {
        let mut command = role("load")?;
        command.args(["--api", &self.api]);
        command.arg("--servers").arg(self.ids("servers")).arg("--hosts").arg(self.ids("hosts"));
        self.with_accounts(&mut command);
        Ok(command)
    }

    fn ids(&self, of: &str) -> PathBuf {
        self.directory.path().join(of).with_extension("txt")
    }

    /// Keeps ids for processes that make load.
    pub(super) fn write_ids(&self, of: &str, ids: &[String]) -> Result<()> {
        std::fs::write(self.ids(of), ids.join("\n")).context("writing ids")
    }

    pub(crate) fn customer(&self) -> Result<Caller> {
        Caller::new(&self.api, &self.customer)
    }

    fn operator(&self) -> Result<Caller> {
        Caller::new(&self.api, &self.operator)
    }

    fn control(&self) -> Result<&Process> {
        self.control.as_ref().context("the API server does not run")
    }

    /// How much memory the API server has.
    pub(super) fn memory_mib(&self) -> Result<f64> {
        Ok(f64::from(pss_kib(self.control()?.pid())?) / 1_024.0)
    }

    fn spent(&self) -> Result<Spent> {
        Ok(Spent {
            wall: Duration::ZERO,
            server: processor_time(self.control()?.pid())?,
            database: self.database.processor_time()?,
            fleet: processor_time(self.fleet.pid())?,
        })
    }

    /// Counts what is spent from now on.
    pub(crate) fn meter(&self) -> Result<Meter<'_>> {
        Ok(Meter { rig: self, began: Instant::now(), before: self.spent()? })
    }

    /// What the rig takes in that time when nobody asks it for anything.
    pub(crate) async fn idle(&self, during: Duration) -> Result<Spent> {
        let meter = self.meter()?;
        tokio::time::sleep(during).await;
        meter.read()
    }

    /// Ends its processes in order.
    pub(crate) fn end(mut self) -> Result<()> {
        if let Some(control) = self.control.take() {
            control.end()?;
        }
        self.fleet.end()
    }

    /// Makes the hosts known, as an operator does, and gives each its certificate.
    async fn make_hosts(&self, hosts: u16, net: u8, homes: &Path) -> Result<Vec<String>> {
        let operator = &self.operator()?;
        stream::iter(0..hosts)
            .map(|host| async move {
                let address = address(net, host, TLS_PORT)?;
                let record =
                    Record::new().with("name", format!("host{host}")).with("address", address);
                let made = operator.client.one(Call::HostCreate, &[], &record).await?;
                let text = made.value("bundle").context("a new host has no certificate")?;
                std::fs::write(bundle(homes, host), text).context("keeping a certificate")?;
                Ok(made.value("host").context("a new host has no id")?.to_owned())
            })
            .buffered(WIDTH)
            .try_collect()
            .await
    }

    /// Waits until every host is active.
    async fn active(&self, hosts: u16) -> Result<()> {
        let question = "SELECT COUNT(*) AS n FROM hosts WHERE state = 'active'";
        self.until_hosts(hosts, question).await
    }

    /// Waits until the API server that has just been started has the lease of every host, and has
    /// had time to reach them.
    async fn connected(&self, hosts: u16) -> Result<()> {
        let question = "SELECT COUNT(*) AS n FROM host_leases";
        self.until_hosts(hosts, question).await?;
        tokio::time::sleep(Duration::from_secs(15)).await;
        self.active(hosts).await
    }

    async fn until_hosts(&self, hosts: u16, question: &str) -> Result<()> {
        let began = Instant::now();
        loop {
            let rows = self.database.ask(question)?;
            let count = rows.first().and_then(|row| row.get("n")?.as_u64());
            if count == Some(hosts.into()) {
                return Ok(());
            }
            if began.elapsed() > GUARD {
                bail!("of {hosts} hosts {count:?} are there after {GUARD:?}");
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
    }
}

/// The network of this process's rig of that number; those of another process are far from it.
fn net(rig: u8) -> u8 {
    let process = u8::try_from(std::process::id() % 16).unwrap_or_default();
    64 + process * 4 + rig % 4
}
