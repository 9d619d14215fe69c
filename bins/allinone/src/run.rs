//! The command line, and what each of its two ways of running does: serve until told to stop, or
//! prove that everything works and go.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use elasticstack_core::client::{Client, HyperTransport};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::cloud::{Cloud, DEFAULT_API, Guests, PROMISE};
use crate::{demo, port, smoke};

/// All of ElasticStack in one process.
#[derive(Debug, clap::Parser)]
#[command(version)]
pub struct Arguments {
    /// Where everything is kept; with --smoke, a directory that goes away at the end if absent.
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Where the public API listens; the next free port if that one is held.
    #[arg(long, default_value_t = DEFAULT_API)]
    api: SocketAddr,
    /// The manifest of the standard drive `tiny`.
    #[arg(long)]
    image: PathBuf,
    /// Prove that a guest boots, reads, writes and ends, then exit.
    #[arg(long)]
    smoke: bool,
    /// How long the proof may take, in seconds.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
    /// Leave the guests running at the end; the next start on this data directory adopts them.
    #[arg(long, conflicts_with = "smoke")]
    keep: bool,
}

impl Arguments {
    /// Runs as these arguments say.
    ///
    /// # Errors
    /// Whatever kept it from starting or stopping, or the proof from succeeding.
    pub async fn run(self) -> anyhow::Result<()> {
        let scratch = tempfile::Builder::new().prefix("elasticstack-").tempdir()?;
        let data_dir = match (&self.data_dir, self.smoke) {
            (Some(data_dir), _) => data_dir.clone(),
            (None, true) => scratch.path().to_owned(),
            (None, false) => demo::default_data_dir()?,
        };
        let cloud = Cloud::start(&data_dir).await?;
        let outcome = self.work_on(&cloud, &data_dir).await;
        cloud.stop(if self.keep { Guests::Keep } else { Guests::Stop }).await?;
        outcome
    }

    /// Serves the API while there is something to do.
    async fn work_on(&self, cloud: &Cloud, data_dir: &Path) -> anyhow::Result<()> {
        let listener = port::listen(self.api).await?;
        let api = listener.local_addr()?;
        let (done, stopped) = oneshot::channel::<()>();
        let serving = cloud.serve(listener, async move { drop(stopped.await) });
        let working = async {
            let outcome = match cloud.publish(&self.image).await {
                Ok(()) if self.smoke => self.prove(cloud, api).await,
                Ok(()) => wait(cloud, data_dir, api).await,
                Err(error) => Err(error),
            };
            drop(done);
            outcome
        };
        let (served, worked) = tokio::join!(serving, working);
        worked.and(served)
    }

    async fn prove(&self, cloud: &Cloud, api: SocketAddr) -> anyhow::Result<()> {
        let identity = cloud.identity();
        let transport = HyperTransport::new(&format!("http://{api}"))?;
        let client = Client::new(transport, identity.account, &identity.key)?;
        let within = Duration::from_secs(self.seconds);
        smoke::run(&client, &smoke::Plan { within, ..smoke::Plan::default() }).await
    }
}

/// Says where everything is and waits for a signal to stop.
async fn wait(cloud: &Cloud, data_dir: &Path, api: SocketAddr) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    demo::write_env(data_dir, api, cloud.identity())?;
    println!("drives may sum up to {PROMISE}, more than the disk has: this is for trying");
    println!("guests run on {}", cloud.accelerator());
    println!("{}", demo::ready(data_dir, api));
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
