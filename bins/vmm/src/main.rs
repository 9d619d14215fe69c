//! `elasticstack-vmm`: runs one small Linux guest by KVM, as its host's agent asks. The agent starts it, in
//! the directory of the server, and it goes on while the agent does not run.

use clap::Parser;
use tracing_subscriber::EnvFilter;

/// The process of one guest. The agent starts it.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The server and its run, by which the agent knows the process.
    _name: String,
}

fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let Arguments { _name: _ } = Arguments::parse();
    elasticstack_host::kvm::serve().map_err(|error| anyhow::anyhow!("{error:?}"))
}
