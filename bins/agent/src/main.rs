//! `elasticstack-agent`: runs the servers and keeps the drives of one host.

mod array;
mod config;
mod service;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use config::{Config, DEFAULT_PATH, RawConfig};

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
    /// Become the process that lends drives, as its unit of systemd starts it.
    Target,
    /// The arrays of this host.
    #[command(subcommand)]
    Array(array::Command),
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let path = &arguments.config;
    match arguments.command {
        Some(Command::Array(command)) => array::run(command, path),
        Some(Command::Join) => service::join(&RawConfig::read(path)?.state_dir),
        Some(Command::Target) => Err(service::become_target(Config::read(path)?)),
        Some(Command::Run) | None => service::run(path).await,
    }
}
