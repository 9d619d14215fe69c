//! The block store kit on real directories: where the tests run, and on an XFS of its own.

use elasticstack_core::conformance::{BlockStoreFixture, Outcome, Violation};
use futures_core::future::BoxFuture;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use super::tests::{Mounted, open_store, scratch};
use super::*;

/// Two arrays of 16 MiB each. The fields are dropped in this order.
struct Directories {
    runtime: Runtime,
    _mounted: Option<Mounted>,
    root: TempDir,
    _image: Option<TempDir>,
}

impl Directories {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, _mounted: None, root: scratch(), _image: None }
    }

    fn on_xfs() -> Self {
        let (on, image) = (Self::new(), scratch());
        let mounted = Mounted::xfs(&image.path().join("xfs"), on.root.path());
        Self { _mounted: Some(mounted), _image: Some(image), ..on }
    }
}

#[async_trait]
impl BlockStoreFixture for Directories {
    async fn start(&self) -> Result<Arc<dyn BlockStore>> {
        Ok(Arc::new(open_store(self.root.path())))
    }

    // What the kernel has taken it keeps: no nearer to a power cut without a machine to cut it off.
    async fn crash(&self, store: Arc<dyn BlockStore>) -> Result<()> {
        drop(store);
        Ok(())
    }

    fn block_on(
        &self,
        check: BoxFuture<'_, Result<Outcome, Violation>>,
    ) -> Result<Outcome, Violation> {
        self.runtime.block_on(check)
    }
}

elasticstack_core::blockstore_conformance! { directory_store, Directories::new }
elasticstack_core::blockstore_conformance! {
    #[ignore = "needs root and loop devices: cargo xtask test"]
    directory_store_on_xfs, Directories::on_xfs
}
