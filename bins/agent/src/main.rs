//! `elasticstack-agent`: runs the servers and keeps the drives of one host.

mod config;

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use elasticstack_host::agent::{Agent, Certificate, HostDescription};
use elasticstack_host::qemu::{Qemu, QemuConfig};
use elasticstack_host::store::DirectoryStore;
use elasticstack_host::sys;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

use config::{Config, DEFAULT_PATH};

/// The agent of one host.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The configuration file.
    #[arg(long, global = true, default_value = DEFAULT_PATH)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Take this host's certificate from standard input, as `elasticstack host add` printed it.
    Join,
    /// Serve the control plane; what is done without a command too.
    Run,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let config = Config::read(&arguments.config)?;
    match arguments.command {
        Some(Command::Join) => join(&config.state_dir),
        Some(Command::Run) | None => run(config).await,
    }
}

fn join(state_dir: &Path) -> anyhow::Result<()> {
    let mut bundle = String::new();
    std::io::stdin().read_to_string(&mut bundle).context("reading the certificate bundle")?;
    Certificate::parse(&bundle)?.keep(state_dir)?;
    println!("joined: start the service now, the control plane will call");
    Ok(())
}

async fn run(config: Config) -> anyhow::Result<()> {
    let certificate = Certificate::kept(&config.state_dir)?;
    let accelerator = sys::kvm::detect();
    let resources = sys::host::resources().context("asking this machine what it has")?;
    tracing::info!(%accelerator, listen = %config.listen, "serving");
    let store = DirectoryStore::open(config.arrays).await?;
    let description = HostDescription {
        cpu_mhz: resources.cpu,
        memory_mib: resources.memory,
        accelerator: accelerator.to_string(),
        cpu_limits: "none".to_owned(),
    };
    let qemu = QemuConfig {
        runtime_dir: config.state_dir.join("servers"),
        program: PathBuf::from("qemu-system-x86_64"),
        accelerator: accelerator.kind,
    };
    let agent = Agent::builder()
        .state_dir(config.state_dir.join("agent"))
        .store(Arc::new(store))
        .hypervisor(Arc::new(Qemu::open(qemu).await?))
        .description(description)
        .build()
        .await?;
    let listener = TcpListener::bind(config.listen).await.context("listening")?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        served = agent.serve(listener, &certificate) => served?,
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    agent.close().await;
    Ok(())
}
