//! `elasticstack-target`: lends the drives of one host over iSCSI, as its agent asks. The agent starts
//! it, and it goes on while the agent does not run.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;
use elasticstack_host::lend::Service;
use tracing_subscriber::EnvFilter;

/// The target of iSCSI of one host. The agent starts it.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The agent's socket, in a directory that is the agent's alone.
    #[arg(long)]
    socket: PathBuf,
    /// Where other hosts connect.
    #[arg(long)]
    listen: SocketAddr,
    /// Who to be once it listens, if it is started by root.
    #[arg(long)]
    user: Option<String>,
}

fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let Arguments { socket, listen, user } = Arguments::parse();
    Ok(Service { socket, listen, user }.run()?)
}
