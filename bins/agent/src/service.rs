//! What the agent's commands do, those about arrays aside.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail};
use elasticstack_core::block::Lend;
use elasticstack_host::agent::{Agent, Certificate, HostDescription};
use elasticstack_host::array::{Keeper, WARNINGS, watch};
use elasticstack_host::guests::{ByKind, Guests, GuestsConfig, Scope};
use elasticstack_host::kvm::Kvm;
use elasticstack_host::lend::{LioLender, ProcessConfig, ProcessLender};
use elasticstack_host::qemu::{Accelerator, Qemu};
use elasticstack_host::store::DirectoryStore;
use elasticstack_host::sys;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};

use crate::config::{Config, ConfigFile, Containers, Lending, LentBy};

/// Takes this host's certificate from standard input and keeps it.
pub(crate) fn join(state_dir: &Path) -> anyhow::Result<()> {
    let mut bundle = String::new();
    std::io::stdin().read_to_string(&mut bundle).context("reading the certificate bundle")?;
    Certificate::parse(&bundle)?.keep(state_dir)?;
    println!("joined: start the service now, the control plane will call");
    Ok(())
}

/// Serves the control plane as the configuration at `path` says, until told to stop; the guests go on.
pub(crate) async fn run(path: &Path) -> anyhow::Result<()> {
    let config = Config::read(path)?;
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
        watch(&store, array, made, config.state_dir.join(WARNINGS))?;
    }
    let qemu = Qemu { program: PathBuf::from("qemu-system-x86_64"), accelerator };
    let container =
        config.containers.map(|containers| kvm(containers, accelerator, &reason)).transpose()?;
    let description = HostDescription {
        cpu_mhz: capacity.cpu.0,
        memory_mib: capacity.memory.0,
        accelerator: reason,
        cpu_limits: "none".to_owned(),
        containers: container.is_some(),
    };
    let guests =
        GuestsConfig { runtime_dir: config.state_dir.join("servers"), scope: scope.clone() };
    let vmm = ByKind { vm: Box::new(qemu), container: container.map(|kvm| Box::new(kvm) as _) };
    let keeper = Keeper::new(ConfigFile(path.to_owned()), config.state_dir.clone())
        .serving(Arc::clone(&store), config.array_root);
    let mut agent = Agent::builder();
    if let Some(lending) = config.lend {
        agent = agent.lender(lender(lending, &config.state_dir, scope).await?);
    }
    let agent = agent
        .state_dir(config.state_dir.join("agent"))
        .store(store)
        .hypervisor(Arc::new(Guests::open(guests, vmm).await?))
        .description(description)
        .fetcher(config.fetcher)
        .keeper(keeper)
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

/// What runs containers, as it is configured.
fn kvm(containers: Containers, accelerator: Accelerator, reason: &str) -> anyhow::Result<Kvm> {
    let Containers { kernel, initial_disk, bridge } = containers;
    if accelerator != Accelerator::Kvm {
        bail!("[containers] needs KVM, and this machine has {reason}");
    }
    for file in [&kernel, &initial_disk] {
        File::open(file).with_context(|| format!("[containers]: opening {}", file.display()))?;
    }
    tracing::info!(kernel = %kernel.display(), bridge, "containers are run");
    let program = std::env::current_exe()?.with_file_name("elasticstack-vmm");
    Ok(Kvm { program, kernel, initial_disk: Some(initial_disk), bridge })
}

/// What lends the drives of this host, as it is configured.
async fn lender(lending: Lending, state_dir: &Path, scope: Scope) -> anyhow::Result<Arc<dyn Lend>> {
    let Lending { portal, by, .. } = lending;
    tracing::info!(%portal, ?by, "drives are lent");
    Ok(match by {
        LentBy::Kernel => Arc::new(LioLender::open(portal).await?),
        LentBy::Process => {
            Arc::new(ProcessLender::open(target_of(lending, state_dir, scope)?).await?)
        }
    })
}

/// The process that lends the drives of this host.
fn target_of(
    Lending { portal, by: _, user }: Lending,
    state_dir: &Path,
    scope: Scope,
) -> anyhow::Result<ProcessConfig> {
    let program = std::env::current_exe()?.with_file_name("elasticstack-target");
    Ok(ProcessConfig { program, dir: state_dir.join("target"), listen: portal, user, scope })
}

/// Becomes the process that lends; returns only if that fails.
pub(crate) fn become_target(config: Config) -> anyhow::Error {
    let lending = config.lend.filter(|lending| lending.by == LentBy::Process);
    let Some(lending) = lending else {
        return anyhow!(
            "no process lends here: say by = \"process\" under [lend], or disable elasticstack-target.service"
        );
    };
    match target_of(lending, &config.state_dir, Scope::Session) {
        Ok(target) => target.become_process().into(),
        Err(error) => error,
    }
}
