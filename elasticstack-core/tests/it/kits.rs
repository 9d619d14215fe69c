//! The simulated backends keep their contracts, bare and wrapped in a [`Faulty`] with no faults, and
//! the reference scheduler its own.

use std::sync::Arc;

use async_trait::async_trait;
use elasticstack_core::block::{BlockStore, Borrowing, Lend, Volume};
use elasticstack_core::conformance::{
    BlockStoreFixture, GuestAct, HypervisorFixture, LendFixture, MachineView,
};
use elasticstack_core::error::Result;
use elasticstack_core::hypervisor::{Device, DriveSlot, Hypervisor, ServerSpec};
use elasticstack_core::id::ServerId;
use elasticstack_core::scheduler::ReferenceScheduler;
use elasticstack_core::sim::{Faulty, Plan, SimHypervisor, SimLend, SimStore};
use elasticstack_core::units::{Bytes, MebiBytes};

pub(crate) fn store() -> SimStore {
    SimStore::new(1, &[Bytes::from_mib(64), Bytes::from_mib(64)])
}

pub(crate) fn hypervisor() -> SimHypervisor {
    SimHypervisor::new(MebiBytes(1024))
}

struct Wrapped<F>(F);

#[async_trait]
impl BlockStoreFixture for Wrapped<SimStore> {
    async fn start(&self) -> Result<Arc<dyn BlockStore>> {
        Ok(Arc::new(Faulty::new(self.0.start().await?, Plan::default())))
    }

    async fn crash(&self, store: Arc<dyn BlockStore>) -> Result<()> {
        BlockStoreFixture::crash(&self.0, store).await
    }
}

/// A simulated lender beside a simulated store.
struct Lending(SimStore, SimLend);

#[async_trait]
impl BlockStoreFixture for Lending {
    async fn start(&self) -> Result<Arc<dyn BlockStore>> {
        BlockStoreFixture::start(&self.0).await
    }

    async fn crash(&self, store: Arc<dyn BlockStore>) -> Result<()> {
        BlockStoreFixture::crash(&self.0, store).await
    }
}

#[async_trait]
impl LendFixture for Lending {
    async fn lender(&self) -> Result<Arc<dyn Lend>> {
        Ok(Arc::new(self.1.clone()))
    }

    async fn restart(&self, lender: Arc<dyn Lend>) -> Result<Arc<dyn Lend>> {
        Ok(lender)
    }

    async fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>> {
        self.1.borrow(borrowing)
    }
}

#[async_trait]
impl MachineView for Wrapped<SimHypervisor> {
    async fn traces(&self, server: ServerId) -> Result<Vec<String>> {
        MachineView::traces(&self.0, server).await
    }

    async fn plugged(&self, server: ServerId) -> Result<Vec<Device>> {
        MachineView::plugged(&self.0, server).await
    }
}

#[async_trait]
impl HypervisorFixture for Wrapped<SimHypervisor> {
    async fn start(&self) -> Result<Arc<dyn Hypervisor>> {
        Ok(Arc::new(Faulty::new(self.0.start().await?, Plan::default())))
    }

    async fn crash(&self, hypervisor: Arc<dyn Hypervisor>) -> Result<()> {
        self.0.crash(hypervisor).await
    }

    fn server(&self, number: u8) -> ServerSpec {
        self.0.server(number)
    }

    fn broken(&self) -> ServerSpec {
        self.0.broken()
    }

    fn spare(&self) -> Option<DriveSlot> {
        self.0.spare()
    }

    fn greeting(&self) -> &str {
        self.0.greeting()
    }

    async fn act(&self, server: ServerId, act: GuestAct) -> Result<()> {
        self.0.act(server, act).await
    }
}

/// Lets what runs beside this go on.
pub(crate) async fn give_way() {
    let mut given = false;
    std::future::poll_fn(|context| {
        if std::mem::replace(&mut given, true) {
            return std::task::Poll::Ready(());
        }
        context.waker().wake_by_ref();
        std::task::Poll::Pending
    })
    .await;
}

elasticstack_core::blockstore_conformance! { sim_store, store }
elasticstack_core::blockstore_conformance! { faulty_sim_store, || Wrapped(store()) }
elasticstack_core::hypervisor_conformance! { sim_hypervisor, hypervisor }
elasticstack_core::hypervisor_conformance! { faulty_sim_hypervisor, || Wrapped(hypervisor()) }
elasticstack_core::lend_conformance! { sim_lend, || Lending(store(), SimLend::default()) }
elasticstack_core::scheduler_conformance! { reference_scheduler, || ReferenceScheduler }
