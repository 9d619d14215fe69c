//! `elasticstack-api`: the control plane, with its public API.

mod config;

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::{Parser, Subcommand};
use elasticstack_api::Server;
use elasticstack_api::authority::Authority;
use elasticstack_api::hosts::TlsDial;
use elasticstack_core::prelude::*;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;
use uuid::Uuid;

use config::{Config, DEFAULT_PATH};

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
    /// Make the database, the certificate authority and an operator, whose key is printed once.
    Init,
    /// Serve; what is done without a command too.
    Run,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let arguments = Arguments::parse();
    let config = Config::read(&arguments.config)?;
    match arguments.command {
        Some(Command::Init) => init(&config).await,
        Some(Command::Run) | None => run(&config).await,
    }
}

async fn init(config: &Config) -> anyhow::Result<()> {
    std::fs::create_dir_all(&config.state_dir).context("making the state directory")?;
    let server = open(config).await?;
    let (operator, key) = (AccountId::from_uuid(Uuid::now_v7()), Secret::random()?);
    server.app().operator_create(operator, &"operator".parse()?, &key).await?;
    server.close().await;
    println!("EHAUTH={operator}:{}", key.expose());
    Ok(())
}

async fn run(config: &Config) -> anyhow::Result<()> {
    let server = open(config).await?;
    let listener = TcpListener::bind(config.listen).await.context("listening")?;
    let mut terminate = signal(SignalKind::terminate())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    server.serve(listener, stop).await?;
    server.close().await;
    Ok(())
}

async fn open(config: &Config) -> anyhow::Result<Server> {
    let authority = Authority::open(&config.state_dir)?;
    let dial = TlsDial::new(authority.client_config()?);
    Ok(Server::builder()
        .database(config.database())
        .dial(Arc::new(dial))
        .authority(authority)
        .build()
        .await?)
}
