//! The command line, and what each of its two ways of running does: serve until told to stop, or
//! prove that everything works and go.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use elasticstack_core::client::{Client, HyperTransport};
use elasticstack_panel::{Brand, Panel};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::cloud::{Cloud, Guests};
use crate::demo::Demo;
use crate::port::{DEFAULT_API, DEFAULT_PANEL};
use crate::smoke::Prover;
use crate::{demo, port, smoke};

/// All of ElasticStack in one process.
#[derive(Debug, clap::Parser)]
#[command(version)]
pub struct Arguments {
    /// Where everything is kept [default: with --smoke a directory that goes away at the end, else
    /// elasticstack in $XDG_DATA_HOME or ~/.local/share]
    #[arg(long)]
    data_dir: Option<PathBuf>,
    /// Where the public API listens; the next free port if that one is held.
    #[arg(long, default_value_t = DEFAULT_API)]
    api: SocketAddr,
    /// Where the panel listens; the next free port if that one is held. Not with --smoke.
    #[arg(long, default_value_t = DEFAULT_PANEL)]
    panel: SocketAddr,
    /// The manifest of a standard drive; may be given again for another one.
    #[arg(long, required = true)]
    image: Vec<PathBuf>,
    /// Prove that a guest of the first image boots, reads, writes and ends, then exit.
    #[arg(long)]
    smoke: bool,
    /// How long the proof may take from the program's start on, in seconds.
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..))]
    seconds: u32,
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
        // From the first moment: whoever stops this program early finds nothing left behind.
        let mut stop = Stop::listen(self.smoke.then(|| Duration::from_secs(self.seconds.into())))?;
        let scratch;
        let data_dir = match (&self.data_dir, self.smoke) {
            (Some(data_dir), _) => data_dir.clone(),
            (None, true) => {
                scratch = tempfile::Builder::new().prefix("elasticstack-").tempdir()?;
                scratch.path().to_owned()
            }
            (None, false) => demo::default_data_dir()?,
        };
        // Never cut off: what it has begun could not be ended in order.
        let cloud = Cloud::start(&data_dir).await?;
        let outcome = self.serve(&cloud, &data_dir, &mut stop).await;
        let stopped = cloud.stop(if self.keep { Guests::Keep } else { Guests::Stop }).await;
        outcome.and(stopped)
    }

    /// Serves the API while there is something to do; if it can't be served, there is nothing. The
    /// panel is a client of it, and ends before it.
    async fn serve(&self, cloud: &Cloud, data_dir: &Path, stop: &mut Stop) -> anyhow::Result<()> {
        let listener = port::listen(self.api, "--api").await?;
        let api = listener.local_addr()?;
        let (working, worked) = oneshot::channel::<()>();
        let serving = cloud.serve(listener, async move { drop(worked.await) });
        let work = async move {
            let _working = working;
            self.work(cloud, data_dir, api, stop).await
        };
        tokio::try_join!(serving, work).map(|((), ())| ())
    }

    async fn work(
        &self,
        cloud: &Cloud,
        data_dir: &Path,
        api: SocketAddr,
        stop: &mut Stop,
    ) -> anyhow::Result<()> {
        let prover = tokio::select! {
            published = self.publish(cloud) => published?,
            early = stop.told() => return if self.smoke { Err(early.into()) } else { Ok(()) },
        };
        let transport = HyperTransport::new(&format!("http://{api}"))?;
        if self.smoke {
            let identity = cloud.identity();
            let client = Client::new(transport, identity.account, &identity.key)?;
            return smoke::run(&client, &prover, stop.told()).await;
        }
        let panel = Panel::builder(Arc::new(transport)).brand(Brand::embedded()).build()?;
        let listener = port::listen(self.panel, "--panel").await?;
        let demo = Demo { cloud, data_dir, api, panel: listener.local_addr()? };
        demo.write_env()?;
        demo::say(demo.ready());
        let told = async {
            stop.told().await;
        };
        Ok(panel.serve(listener, told).await?)
    }

    /// Publishes every image, and tells how a guest of the first one proves itself.
    async fn publish(&self, cloud: &Cloud) -> anyhow::Result<Prover> {
        let mut first = None;
        for manifest in &self.image {
            let prover = cloud.publish(manifest).await?;
            first.get_or_insert(prover);
        }
        first.context("no image was given: give the manifest of one with --image")
    }
}

/// What ends this program before its work does.
#[derive(Debug)]
struct Stop {
    terminate: Signal,
    interrupt: Signal,
    limit: Option<(Duration, Instant)>,
}

/// Why the work was not finished.
#[derive(Debug, thiserror::Error)]
enum Early {
    #[error("told to stop before the proof was finished")]
    Signal,
    #[error("the proof was not finished within {} s: give it more with --seconds", .0.as_secs())]
    Late(Duration),
}

impl Stop {
    /// Signals are heard from now on, and so is the end of `within`.
    fn listen(within: Option<Duration>) -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            limit: within.map(|within| (within, Instant::now() + within)),
        })
    }

    /// Completes with the reason to stop. Cancel safe.
    async fn told(&mut self) -> Early {
        let late = async {
            match self.limit {
                Some((within, at)) => {
                    tokio::time::sleep_until(at).await;
                    within
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminate.recv() => Early::Signal,
            _ = self.interrupt.recv() => Early::Signal,
            within = late => Early::Late(within),
        }
    }
}
