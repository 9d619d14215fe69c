//! The process around [`elasticstack_panel`]: flags, log, socket, signals.

use std::sync::Arc;

use anyhow::{Context as _, Result};
use clap::Parser as _;
use elasticstack_core::client::HyperTransport;
use elasticstack_panel::config::{Config, Flags};
use elasticstack_panel::{Brand, Panel};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

#[tokio::main]
async fn main() -> Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();

    let config = Config::load(Flags::parse())?;
    let brand = match &config.brand {
        Some(directory) => Brand::load(directory)?,
        None => Brand::embedded(),
    };
    let panel = Panel::builder(Arc::new(HyperTransport::new(&config.api)?))
        .brand(brand)
        .scheme(config.scheme)
        .proxies(config.proxies)
        .build()?;

    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listening on {}", config.listen))?;
    let mut terminate = signal(SignalKind::terminate()).context("watching for SIGTERM")?;
    println!("READY http://{}", listener.local_addr().context("reading our address")?);
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    Ok(panel.serve(listener, stop).await?)
}
