//! Composition: which implementation stands behind which trait, and the order of start and stop.

use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, bail};
use elasticstack_api::app::{App, StandardImage};
use elasticstack_api::hosts::MemoryDial;
use elasticstack_core::biller::{Biller, OpenBiller};
use elasticstack_core::block::{ArrayState, BlockStore as _};
use elasticstack_core::prelude::*;
use elasticstack_host::agent::{Agent, HostDescription};
use elasticstack_host::guests::{self, GuestsConfig, Scope};
use elasticstack_host::qemu::{Accelerator, Qemu};
use elasticstack_host::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays};
use elasticstack_host::sys;
use serde::Deserialize;
use tokio::net::TcpListener;

use crate::identity::{Identity, Operator};
use crate::smoke::Prover;

/// What drives may sum up to: more than any disk here, so that large drives can be tried. `up`
/// says so.
pub const PROMISE: Bytes = Bytes::from_gib(64 << 10);

/// How long the host may take to tell what it has, in the same process and on a busy machine.
const JOIN: Duration = Duration::from_secs(30);

/// A running all-in-one.
#[derive(Debug)]
pub struct Cloud {
    server: elasticstack_api::Server,
    agent: Agent,
    identity: Identity,
    operator: Operator,
    accelerator: String,
    _lock: File,
}

/// What becomes of the guests when the rest stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guests {
    /// They are stopped too.
    Stop,
    /// They go on, and the next start on this data directory adopts them.
    Keep,
}

/// What a start leaves to whoever starts it.
pub struct Options {
    /// What drives may sum up to.
    pub capacity: ArrayCapacity,
    /// Who takes usage, and may refuse what costs something.
    pub biller: Arc<dyn Biller>,
}

impl Default for Options {
    /// [`PROMISE`], and a biller that never refuses.
    fn default() -> Self {
        Self { capacity: ArrayCapacity::Fixed(PROMISE), biller: Arc::new(OpenBiller::default()) }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options").field("capacity", &self.capacity).finish_non_exhaustive()
    }
}

impl Cloud {
    /// Starts everything on `data_dir` with the default [`Options`].
    ///
    /// # Errors
    /// As [`Cloud::start_with`].
    pub async fn start(data_dir: &Path) -> anyhow::Result<Self> {
        Self::start_with(data_dir, Options::default()).await
    }

    /// Starts everything on `data_dir`, adopting what an earlier start left there.
    ///
    /// # Errors
    /// If another all-in-one uses `data_dir`, or a part can't start.
    pub async fn start_with(data_dir: &Path, options: Options) -> anyhow::Result<Self> {
        let lock = lock(data_dir)?;
        let (identity, operator) = (Identity::of(data_dir)?, Operator::of(data_dir)?);
        let (accelerator, accelerator_text) = Accelerator::detect();
        let capacity = sys::host::capacity().context("asking this machine what it has")?;
        let array = DirectoryArray {
            array: identity.array,
            name: "local".to_owned(),
            path: data_dir.join("array"),
            capacity: options.capacity,
        };
        let store = DirectoryStore::open(KnownArrays::read(data_dir)?, vec![array])?;
        if store.capacity().await?.iter().any(|report| report.state == ArrayState::Failed) {
            bail!(
                "{} can't be used, and there is no other array: the log says why",
                data_dir.join("array").display()
            );
        }
        let config = GuestsConfig {
            runtime_dir: data_dir.join("servers"),
            // This is no service: there is no unit of it that a guest could be outside of.
            scope: Scope::Session,
        };
        let qemu = Qemu { program: PathBuf::from("qemu-system-x86_64"), accelerator };
        let guests = guests::Guests::open(config, qemu).await?;
        let agent = Agent::builder()
            .state_dir(data_dir.join("agent"))
            .store(Arc::new(store))
            .hypervisor(Arc::new(guests))
            .description(HostDescription {
                cpu_mhz: capacity.cpu.0,
                memory_mib: capacity.memory.0,
                accelerator: accelerator_text.clone(),
                cpu_limits: "none".to_owned(),
                containers: false,
            })
            .build()
            .await?;

        let dial = MemoryDial::new();
        dial.insert(identity.host, agent.router());
        let database = format!("sqlite:{}", data_dir.join("api.db").display());
        let server = elasticstack_api::Server::builder()
            .database(database)
            .dial(Arc::new(dial))
            .biller(options.biller)
            .build()
            .await?;
        let app = server.app();
        app.host_create(identity.host, &"local".parse()?, "memory").await?;
        app.account_create(identity.account, &"demo".parse()?, "demo@localhost", &identity.key)
            .await?;
        app.operator_create(operator.account, &"operator".parse()?, &operator.key).await?;
        joined(app, identity.host).await?;
        Ok(Self { server, agent, identity, operator, accelerator: accelerator_text, _lock: lock })
    }

    /// Who this is.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Who may command its host.
    #[must_use]
    pub fn operator(&self) -> &Operator {
        &self.operator
    }

    /// The control plane's use cases, for what the public API has no call for: more accounts.
    #[must_use]
    pub fn app(&self) -> &App {
        self.server.app()
    }

    /// What runs the guests, and why.
    #[must_use]
    pub fn accelerator(&self) -> &str {
        &self.accelerator
    }

    /// Publishes the image whose manifest is at `manifest` as a standard drive, if it is not yet,
    /// and tells how a guest that boots it can prove that it runs.
    ///
    /// # Errors
    /// If the manifest or the image can't be read, or the drive not be written.
    pub async fn publish(&self, manifest: &Path) -> anyhow::Result<Prover> {
        let text = fs::read(manifest).with_context(|| format!("reading {}", manifest.display()))?;
        let image: Manifest = serde_json::from_slice(&text)
            .with_context(|| format!("{} is no image's manifest", manifest.display()))?;
        let prover = match image.cloud_init {
            true => Prover::CloudInit(image.drive.to_string()),
            false => Prover::Tiny,
        };
        let extension = if image.format.is_some() { "gz" } else { "iso" };
        let image = StandardImage {
            drive: image.drive,
            name: image.name,
            media: image.media,
            format: image.format,
            rawsize: image.rawsize,
            sha256: image.sha256,
            path: manifest.with_extension(extension),
        };
        self.server.app().publish_standard(&image).await?;
        Ok(prover)
    }

    /// Serves the public API until `stop` comes.
    ///
    /// # Errors
    /// If the listener fails, or is not on loopback: this program has no TLS.
    pub async fn serve(
        &self,
        listener: TcpListener,
        stop: impl Future<Output = ()> + Send + 'static,
    ) -> anyhow::Result<()> {
        Ok(self.server.serve(listener, stop).await?)
    }

    /// Ends everything, the guests as told.
    ///
    /// # Errors
    /// If a guest can't be seen to have ended.
    pub async fn stop(self, guests: Guests) -> anyhow::Result<()> {
        self.server.close().await;
        if guests == Guests::Stop {
            self.agent.stop_guests().await?;
        }
        self.agent.close().await;
        Ok(())
    }
}

/// What `cargo xtask image` writes beside an image.
#[derive(Debug, Deserialize)]
struct Manifest {
    drive: DriveId,
    name: Name,
    media: String,
    format: Option<String>,
    rawsize: Option<Bytes>,
    sha256: String,
    /// Whether a guest that boots it listens to cloud-init's keys.
    #[serde(default)]
    cloud_init: bool,
}

/// Waits until the host has told what it has: nothing can be placed on it before.
async fn joined(app: &App, host: HostId) -> anyhow::Result<()> {
    let told = async {
        let mut changes = app.changes();
        while app.host_info(host).await?.value("status") != Some("active") {
            changes.changed().await?;
        }
        anyhow::Ok(())
    };
    let told = tokio::time::timeout(JOIN, told).await;
    told.unwrap_or_else(|_| bail!("the host did not tell what it has within {JOIN:?}"))
}

fn lock(data_dir: &Path) -> anyhow::Result<File> {
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(data_dir)
        .with_context(|| format!("making {}", data_dir.display()))?;
    let path = data_dir.join("lock");
    let file = File::options().write(true).create(true).truncate(false).open(&path)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => {
            bail!(
                "{} is in use by another all-in-one: stop it, or give another --data-dir",
                data_dir.display()
            )
        }
        Err(fs::TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("locking {}", path.display()))
        }
    }
}
