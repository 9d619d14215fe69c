//! `elasticstack-api`: the control plane, with its public API.

mod config;
mod service;

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use tracing_subscriber::EnvFilter;

use config::{Config, DEFAULT_PATH};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The control plane.
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
    /// Make the database and the certificate authority if they are missing, and an operator, whose
    /// credentials are printed this once. Repeating it makes another operator.
    Init,
    /// Serve; what is done without a command too.
    Run,
    /// Copy the database to a file, while it is served or not. PostgreSQL has pg_dump for that.
    Backup {
        /// The file to make; one that exists is not written over.
        file: PathBuf,
    },
    /// Make a backup the database, or, without a file, begin on a PostgreSQL database that
    /// pg_restore has brought back. Hosts tell what they have before they are told anything.
    Restore {
        /// The backup.
        file: Option<PathBuf>,
    },
}

fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let Arguments { config, command } = Arguments::parse();
    let config = Config::read(&config)?;
    elasticstack_api::runtime(&config.database())?.block_on(run(&config, command))
}

async fn run(config: &Config, command: Option<Command>) -> anyhow::Result<()> {
    match command {
        Some(Command::Init) => service::init(config).await,
        Some(Command::Run) | None => service::run(config).await,
        Some(Command::Backup { file }) => service::backup(config, &file).await,
        Some(Command::Restore { file }) => service::restore(config, file.as_deref()).await,
    }
}
