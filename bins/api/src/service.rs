//! What the control plane's commands do.

use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context as _;
use elasticstack_api::Server;
use elasticstack_api::app::{AppConfig, secret_key};
use elasticstack_api::authority::Authority;
use elasticstack_api::backup;
use elasticstack_api::hosts::TlsDial;
use elasticstack_core::prelude::*;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use uuid::Uuid;

use crate::config::Config;

/// Makes what is missing, and an operator, whose credentials are printed this once.
pub(crate) async fn init(config: &Config) -> anyhow::Result<()> {
    // The database holds the passwords of screens, the directory the authority's key.
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&config.state_dir)
        .context("making the state directory")?;
    let server = open(config).await?;
    let (operator, key) = (AccountId::from_uuid(Uuid::now_v7()), secret_key()?);
    server.app().operator_create(operator, &"operator".parse()?, &key).await?;
    server.close().await;
    println!("EHAUTH={operator}:{}", key.expose());
    Ok(())
}

/// Serves until told to stop.
pub(crate) async fn run(config: &Config) -> anyhow::Result<()> {
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

/// Copies the database to a file.
pub(crate) async fn backup(config: &Config, file: &Path) -> anyhow::Result<()> {
    Ok(backup::backup(&config.database(), file).await?)
}

/// Makes a backup the database and says what is to be known about it.
pub(crate) async fn restore(config: &Config, file: Option<&Path>) -> anyhow::Result<()> {
    let era = backup::restore(&config.database(), file).await?;
    println!(
        "era {} has begun: start the control plane; what hosts tell that differs from the backup \
         is in its log",
        era.0
    );
    Ok(())
}

async fn open(config: &Config) -> anyhow::Result<Server> {
    let authority = Authority::open(&config.state_dir)?;
    let dial = TlsDial::new(authority.client_config()?);
    Ok(Server::builder()
        .database(config.database())
        .legacy(config.legacy.iter().copied())
        .dial(Arc::new(dial))
        .limits(config.limits())
        .config(AppConfig {
            authority: Some(Arc::new(authority)),
            quotas: config.quotas.clone(),
            ..AppConfig::default()
        })
        .build()
        .await?)
}
