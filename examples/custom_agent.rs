//! An agent of your own composition, at work under an ordinary control plane: a block store that
//! the project does not know, a simulated hypervisor, and the shipped rest.
//!
//! `cargo run -p elasticstack-examples --bin custom_agent`; it needs no privileges. The store here
//! keeps an audit log of every drive and leaves the bytes to another store. Yours may talk to any
//! hardware: pass the kit as in `implement_block_store.rs`, and hand it to the builder as here.

mod control_plane;

use std::sync::{Arc, Mutex, PoisonError};

use anyhow::ensure;
use async_trait::async_trait;
use elasticstack_core::block::{
    ArrayReport, BlockStore, CloneDrive, DriveReport, DriveSpec, Resize, Volume,
};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::{SimHypervisor, SimRng, SimStore};
use elasticstack_core::wire::calls::Call;
use elasticstack_host::agent::{Agent, HostDescription};

use control_plane::{ControlPlane, until};

/// Writes down what becomes of drives. Clones share the log.
#[derive(Clone)]
struct Audited<S> {
    store: S,
    log: Arc<Mutex<Vec<String>>>,
}

impl<S> Audited<S> {
    fn new(store: S) -> Self {
        Self { store, log: Arc::default() }
    }

    fn note(&self, line: String) {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).push(line);
    }

    fn log(&self) -> Vec<String> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

#[async_trait]
impl<S: BlockStore> BlockStore for Audited<S> {
    async fn create(&self, spec: &DriveSpec) -> Result<()> {
        self.store.create(spec).await?;
        self.note(format!("{} created with {} for {}", spec.drive, spec.size, spec.account));
        Ok(())
    }

    async fn open(&self, drive: DriveId, epoch: Epoch) -> Result<Arc<dyn Volume>> {
        let volume = self.store.open(drive, epoch).await?;
        self.note(format!("{drive} opened under epoch {epoch}"));
        Ok(volume)
    }

    async fn fence(&self, drive: DriveId, epoch: Epoch) -> Result<()> {
        self.store.fence(drive, epoch).await
    }

    async fn list(&self) -> Result<Vec<DriveReport>> {
        self.store.list().await
    }

    async fn destroy(&self, drive: DriveId, generation: Generation) -> Result<()> {
        self.store.destroy(drive, generation).await?;
        self.note(format!("{drive} destroyed"));
        Ok(())
    }

    async fn capacity(&self) -> Result<Vec<ArrayReport>> {
        self.store.capacity().await
    }

    // What the store beneath can do, this one can. One that it could not audit it would leave out.
    fn resizer(&self) -> Option<&dyn Resize> {
        self.store.resizer()
    }

    fn cloner(&self) -> Option<&dyn CloneDrive> {
        self.store.cloner()
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    for line in custom_agent().await? {
        println!("audit: {line}");
    }
    Ok(())
}

/// Runs a customer's server on the composed host. What it returns is the store's audit log.
async fn custom_agent() -> anyhow::Result<Vec<String>> {
    let directory = tempfile::tempdir()?;
    let mut rng = SimRng::new(1);

    // The agent takes anything that keeps the contracts.
    let store = Audited::new(SimStore::new(1, &[Bytes::from_gib(100)]));
    let hypervisor = SimHypervisor::new(MebiBytes(4096));
    let agent = Agent::builder()
        .state_dir(directory.path().join("agent"))
        .store(Arc::new(store.clone()))
        .hypervisor(Arc::new(hypervisor.clone()))
        .description(HostDescription {
            cpu_mhz: 8_000,
            memory_mib: 4_096,
            accelerator: "simulated".to_owned(),
            cpu_limits: "none".to_owned(),
            containers: false,
        })
        .build()
        .await?;

    // It dials nobody. Here its router is served over a stream in memory; on a real host, over TLS.
    let cloud = ControlPlane::open(directory.path(), &mut rng).await?;
    cloud.join(rng.id(), "custom", agent.router()).await?;

    // From here on, a customer at the public API.
    let drive = cloud.create_drive("system", Bytes::from_gib(10)).await?;
    let sector = bytes::Bytes::from_static(b"a boot sector");
    cloud.customer.write(Call::DriveWrite, &[&drive], sector.clone()).await?;
    let read = cloud.customer.read(Call::DriveRead, &[&drive, "0", "13"]).await?;
    ensure!(read == sector, "wrote {sector:?} and read {read:?}");

    let server = cloud.create_server("first", &drive).await?;
    until(async || Ok(cloud.status(&server).await? == "active")).await?;
    let serial = cloud.customer.read(Call::ServerSerial, &[&server]).await?;
    ensure!(serial == SimHypervisor::GREETING, "the guest wrote {serial:?}");

    cloud.customer.act(Call::ServerShutdown, &[&server]).await?;
    until(async || Ok(cloud.status(&server).await? == "stopped")).await?;
    cloud.customer.act(Call::ServerDestroy, &[&server]).await?;
    cloud.customer.act(Call::DriveDestroy, &[&drive]).await?;
    until(async || Ok(store.list().await?.is_empty())).await?;

    cloud.server.close().await;
    agent.close().await;
    Ok(store.log())
}

#[cfg(test)]
mod tests {
    use elasticstack_core::conformance::BlockStoreFixture;

    use super::*;

    #[tokio::test]
    async fn a_foreign_store_serves_a_customers_drive_from_create_to_destroy() {
        let log = custom_agent().await.unwrap();
        let told = |word| log.iter().filter(|line| line.contains(word)).count();
        assert_eq!((told(" created with 10 GiB"), told(" destroyed")), (1, 1), "{log:#?}");
        assert!(told(" opened under epoch") > 0, "{log:#?}");
        assert!(log.last().is_some_and(|line| line.ends_with("destroyed")), "{log:#?}");
    }

    #[async_trait]
    impl BlockStoreFixture for Audited<SimStore> {
        async fn start(&self) -> Result<Arc<dyn BlockStore>> {
            Ok(Arc::new(self.clone()))
        }

        async fn crash(&self, _store: Arc<dyn BlockStore>) -> Result<()> {
            self.store.crash();
            Ok(())
        }
    }

    fn audited() -> Audited<SimStore> {
        Audited::new(SimStore::new(1, &[Bytes::from_mib(64), Bytes::from_mib(64)]))
    }

    elasticstack_core::blockstore_conformance! { audited_store, audited }
}
