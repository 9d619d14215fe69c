//! What the agent's two commands do.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::Context as _;
use elasticstack_core::block::Lend;
use elasticstack_host::agent::{Agent, Certificate, HostDescription};
use elasticstack_host::array::watch;
use elasticstack_host::lend::{LioLender, ProcessConfig, ProcessLender};
use elasticstack_host::qemu::{Accelerator, Qemu, QemuConfig, Scope};
use elasticstack_host::store::DirectoryStore;
use elasticstack_host::sys;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, Lending, LentBy};

/// Takes this host's certificate from standard input and keeps it.
pub(crate) fn join(state_dir: &Path) -> anyhow::Result<()> {
    let mut bundle = String::new();
    std::io::stdin().read_to_string(&mut bundle).context("reading the certificate bundle")?;
    Certificate::parse(&bundle)?.keep(state_dir)?;
    println!("joined: start the service now, the control plane will call");
    Ok(())
}

/// Serves the control plane until told to stop; the guests go on.
pub(crate) async fn run(config: Config) -> anyhow::Result<()> {
    let certificate = Certificate::kept(&config.state_dir)?;
    let (accelerator, reason) = Accelerator::detect();
    let capacity = sys::host::capacity().context("asking this machine what it has")?;
    let scope = Scope::detect();
    let guests = scope.describe();
    tracing::info!(accelerator = reason, guests, listen = %config.listen, "serving");
    let watched: Vec<_> =
        config.arrays.iter().map(|array| (array.directory.array, array.made)).collect();
    let arrays = config.arrays.into_iter().map(|configured| configured.brought_up()).collect();
    let store = Arc::new(DirectoryStore::open(config.known, arrays)?);
    for (array, made) in watched {
        watch(&store, array, made)?;
    }
    let description = HostDescription {
        cpu_mhz: capacity.cpu.0,
        memory_mib: capacity.memory.0,
        accelerator: reason,
        cpu_limits: "none".to_owned(),
    };
    let qemu = QemuConfig {
        runtime_dir: config.state_dir.join("servers"),
        program: PathBuf::from("qemu-system-x86_64"),
        accelerator,
        scope: scope.clone(),
    };
    let mut agent = Agent::builder();
    if let Some(lending) = config.lend {
        agent = agent.lender(lender(lending, &config.state_dir, scope).await?);
    }
    let agent = agent
        .state_dir(config.state_dir.join("agent"))
        .store(store)
        .hypervisor(Arc::new(Qemu::open(qemu).await?))
        .description(description)
        .fetcher(config.fetcher)
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

/// What lends the drives of this host, as it is configured.
async fn lender(
    Lending { portal, by, user }: Lending,
    state_dir: &Path,
    scope: Scope,
) -> anyhow::Result<Arc<dyn Lend>> {
    tracing::info!(%portal, ?by, "drives are lent");
    Ok(match by {
        LentBy::Kernel => Arc::new(LioLender::open(portal).await?),
        LentBy::Process => {
            let program = std::env::current_exe()?.with_file_name("elasticstack-target");
            let dir = state_dir.join("target");
            let config = ProcessConfig { program, dir, listen: portal, user, scope };
            Arc::new(ProcessLender::open(config).await?)
        }
    })
}
