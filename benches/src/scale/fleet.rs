//! The process of a fleet: many agents on simulated hardware, each at an address of its own.
//!
//! Agents, their routers, their records on the disk and their TLS are the real ones. The hardware is
//! simulated and lives as long as this process, which ends when its standard input does.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use axum::Router;
use elasticstack_core::sim::{SimHypervisor, SimStore};
use elasticstack_core::units::{Bytes, MebiBytes};
use elasticstack_host::agent::{Agent, Certificate, HostDescription};
use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::process::{TLS, ready};

/// Where agents listen without TLS.
pub(super) const PLAIN_PORT: u16 = 8444;
/// Where they listen with it, which is the address that the API server knows.
pub(super) const TLS_PORT: u16 = 8445;

/// Of one host.
const CPU_MHZ: u32 = 96_000;
const MEMORY: MebiBytes = MebiBytes(131_072);
const ARRAYS: usize = 4;

/// The file in a host's directory that has its certificate, once the API server signed it.
const BUNDLE: &str = "bundle.pem";

/// How many hosts, and where.
#[derive(clap::Args, Clone)]
pub(crate) struct Args {
    /// How many hosts
    #[arg(long)]
    pub(super) hosts: u16,
    /// Where each keeps its records
    #[arg(long)]
    pub(super) directory: PathBuf,
    /// The second number of their addresses, all in 127.0.0.0/8
    #[arg(long)]
    pub(super) net: u8,
    /// How large each of a host's arrays is
    #[arg(long)]
    pub(super) array_gib: u32,
}

/// The address of the host of this number.
pub(super) fn address(net: u8, host: u16, port: u16) -> Result<SocketAddr> {
    // The last number is neither 0 nor 255, so that no address looks like a network's.
    let (high, low) = (u8::try_from(host / 250)?, u8::try_from(host % 250 + 1)?);
    Ok(SocketAddr::from((Ipv4Addr::new(127, net, high, low), port)))
}

/// Where the certificate of the host of this number is put.
pub(super) fn bundle(directory: &Path, host: u16) -> PathBuf {
    home(directory, host).join(BUNDLE)
}

fn home(directory: &Path, host: u16) -> PathBuf {
    directory.join(format!("host{host:04}"))
}

/// Serves the fleet until standard input ends.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let mut serving = JoinSet::new();
    let mut agents = Vec::new();
    for host in 0..args.hosts {
        let agent = Arc::new(boot(args, host).await?);
        let listener = TcpListener::bind(address(args.net, host, PLAIN_PORT)?).await?;
        serving.spawn(serve_plainly(listener, agent.router()));
        agents.push((host, agent));
    }
    ready("fleet");
    let mut words = BufReader::new(tokio::io::stdin()).lines();
    while let Some(word) = words.next_line().await? {
        ensure!(word == TLS, "no such word: {word:?}");
        for (host, agent) in &agents {
            let file = bundle(&args.directory, *host);
            let text = std::fs::read_to_string(&file)
                .with_context(|| format!("reading {}", file.display()))?;
            let (agent, certificate) = (Arc::clone(agent), Certificate::parse(&text)?);
            let listener = TcpListener::bind(address(args.net, *host, TLS_PORT)?).await?;
            serving.spawn(async move {
                if let Err(error) = agent.serve(listener, &certificate).await {
                    eprintln!("an agent does not serve: {error:?}");
                }
            });
        }
        ready(TLS);
    }
    Ok(())
}

async fn boot(args: &Args, host: u16) -> Result<Agent> {
    let array = Bytes::from_gib(args.array_gib);
    let agent = Agent::builder()
        .state_dir(home(&args.directory, host).join("state"))
        .store(Arc::new(SimStore::new(u64::from(host) + 1, &[array; ARRAYS])))
        .hypervisor(Arc::new(SimHypervisor::new(MEMORY)))
        .description(HostDescription {
            cpu_mhz: CPU_MHZ,
            memory_mib: MEMORY.0,
            accelerator: "simulated".to_owned(),
            cpu_limits: "none".to_owned(),
            containers: false,
        });
    Ok(agent.build().await?)
}

async fn serve_plainly(listener: TcpListener, router: Router) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while connections.try_join_next().is_some() {}
        // As the agent's own server; one that is gone is found so.
        let _ = stream.set_nodelay(true);
        connections.spawn(serve(stream, router.clone()));
    }
}

async fn serve(stream: TcpStream, router: Router) {
    let service = TowerToHyperService::new(router);
    let mut server = http2::Builder::new(TokioExecutor::new());
    // As the agent's own server.
    server.timer(TokioTimer::new()).header_table_size(0);
    let served = server.serve_connection(TokioIo::new(stream), service);
    // Who dials sees a connection that broke, and dials again.
    let _ = served.await;
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_host_has_an_address_of_its_own() {
        let all: HashSet<_> = (0..1_250).map(|host| address(64, host, 1).unwrap()).collect();
        assert_eq!(all.len(), 1_250);
        assert!(all.iter().all(|address| address.ip().is_loopback()));
    }
}
