//! The lend kit on our lenders, with our initiator as the borrower.

use std::sync::Arc;

use async_trait::async_trait;
use elasticstack_core::block::{BlockStore, Borrowing, Lend, Volume};
use elasticstack_core::conformance::{BlockStoreFixture, LendFixture, Outcome, Violation};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::SimStore;
use elasticstack_host::iscsi::initiator::Initiator;
use elasticstack_host::lend::InProcessLender;
use futures_core::future::BoxFuture;
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

/// The lender in this process, over a simulated store, whose power can be cut.
struct InProcess {
    runtime: Runtime,
    store: SimStore,
}

impl InProcess {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, store: SimStore::new(1, &[Bytes::from_mib(64), Bytes::from_mib(64)]) }
    }
}

#[async_trait]
impl BlockStoreFixture for InProcess {
    async fn start(&self) -> Result<Arc<dyn BlockStore>> {
        BlockStoreFixture::start(&self.store).await
    }

    async fn crash(&self, store: Arc<dyn BlockStore>) -> Result<()> {
        BlockStoreFixture::crash(&self.store, store).await
    }

    fn block_on(
        &self,
        check: BoxFuture<'_, Result<Outcome, Violation>>,
    ) -> Result<Outcome, Violation> {
        self.runtime.block_on(check)
    }
}

#[async_trait]
impl LendFixture for InProcess {
    async fn lender(&self) -> Result<Arc<dyn Lend>> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        Ok(Arc::new(InProcessLender::new(listener)?))
    }

    async fn restart(&self, lender: Arc<dyn Lend>) -> Result<Arc<dyn Lend>> {
        drop(lender);
        self.lender().await
    }

    async fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>> {
        Ok(Arc::new(Initiator::login(borrowing).await?))
    }
}

elasticstack_core::lend_conformance! { in_process_lender, InProcess::new }
