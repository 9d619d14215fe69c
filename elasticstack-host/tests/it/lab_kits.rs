//! The kits on what only a full kernel has, on a machine of the lab: that of lenders on the kernel's
//! target, with drives of a real store and our own initiator; that of stores on RAID.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use async_trait::async_trait;
use elasticstack_core::block::{Attachment, BlockStore, Borrowing, Lend, Volume};
use elasticstack_core::conformance::{
    BlockStoreFixture, LendFixture, Outcome, Verdict, Violation, blockstore_verdicts, lend_verdicts,
};
use elasticstack_core::prelude::*;
use elasticstack_host::iscsi::initiator::Initiator;
use elasticstack_host::lend::LioLender;
use elasticstack_host::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays};
use elasticstack_lab::{Lab, stage};
use futures_core::future::BoxFuture;
use tokio::runtime::{Builder, Runtime};

use crate::other_initiators::bash;

const KIT: &str = "lab_kits::on_a_lab_machine_lio_keeps_what_lenders_promise";

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_lio_keeps_what_lenders_promise() {
    if stage().is_none() {
        let lab = Lab::new().unwrap();
        // With the verdicts, which the report of all kits reads.
        println!("{}", lab.boot(1).unwrap().run_stage(KIT, "kit").unwrap());
        return;
    }
    let verdicts = lend_verdicts(|| Fixture::under("/data/kit"));
    tell("lio", &verdicts);
}

const ON_MD: &str = "lab_kits::on_a_lab_machine_a_store_on_md_keeps_what_stores_promise";

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_a_store_on_md_keeps_what_stores_promise() {
    if stage().is_none() {
        let lab = Lab::new().unwrap().with_disks_of(512);
        println!("{}", lab.boot(1).unwrap().run_stage(ON_MD, "kit").unwrap());
        return;
    }
    bash(
        "of() { for disk in /sys/block/sd*; do \
         grep -aq \"LAB-DISK-$1\\$\" $disk/device/vpd_pg80 && echo /dev/${disk##*/}; done; true; }
         mdadm --create /dev/md/kit --quiet --run --level 1 --bitmap internal --raid-devices 2 $(of 1) $(of 2)
         mkfs.xfs -q /dev/md/kit; mkdir /srv/kit; mount /dev/md/kit /srv/kit",
    );
    tell("directory_store_on_md", &blockstore_verdicts(|| Fixture::under("/srv/kit")));
}

fn tell(of: &str, verdicts: &[Verdict]) {
    for verdict in verdicts {
        println!("\n{}", verdict.told_of(of));
    }
    assert!(verdicts.iter().all(|verdict| verdict.outcome == Ok(Outcome::Kept)));
}

/// A directory of its own, and the kernel's target, which all share one after the other.
struct Fixture {
    runtime: Runtime,
    root: PathBuf,
}

static FIXTURES: AtomicU32 = AtomicU32::new(0);

impl Fixture {
    fn under(root: &str) -> Self {
        let number = FIXTURES.fetch_add(1, Ordering::Relaxed);
        let runtime = Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        Self { runtime, root: format!("{root}/{number}").into() }
    }
}

impl Drop for Fixture {
    fn drop(&mut self) {
        self.runtime.block_on(async {
            let lender = self.lender().await.unwrap();
            for lend in lender.lent().await.unwrap() {
                lender.withdraw(lend).await.unwrap();
            }
        });
    }
}

#[async_trait]
impl BlockStoreFixture for Fixture {
    async fn start(&self) -> Result<Arc<dyn BlockStore>> {
        let array = |number: u8| DirectoryArray {
            array: format!("a77a0000-0000-4000-8000-0000000000{number:02x}").parse().unwrap(),
            name: format!("md{number}"),
            path: self.root.join(number.to_string()),
            capacity: ArrayCapacity::Fixed(Bytes::from_mib(16)),
        };
        std::fs::create_dir_all(&self.root).unwrap();
        let known = KnownArrays::read(&self.root)?;
        Ok(Arc::new(DirectoryStore::open(known, vec![array(1), array(2)])?))
    }

    // What LIO has written is held against a power cut by a test of its own.
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

#[async_trait]
impl LendFixture for Fixture {
    async fn lender(&self) -> Result<Arc<dyn Lend>> {
        Ok(Arc::new(LioLender::open("10.77.0.1:3260".parse().unwrap()).await?))
    }

    async fn restart(&self, lender: Arc<dyn Lend>) -> Result<Arc<dyn Lend>> {
        drop(lender);
        self.lender().await
    }

    async fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>> {
        Ok(Arc::new(Asking(Initiator::login(borrowing).await?)))
    }
}

/// A borrower that asks now and then how long its drive is, which LIO does not tell by itself.
struct Asking(Initiator);

#[async_trait]
impl Volume for Asking {
    fn size(&self) -> Bytes {
        self.0.size()
    }

    fn block_size(&self) -> Bytes {
        self.0.block_size()
    }

    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()> {
        // Asked for what is past the end, it looks whether that is still where it was.
        let _ = self.0.read_at(self.0.size(), &mut [0]).await;
        self.0.read_at(offset, buffer).await
    }

    async fn write_at(&self, offset: Bytes, data: bytes::Bytes) -> Result<()> {
        self.0.write_at(offset, data).await
    }

    async fn flush(&self) -> Result<()> {
        self.0.flush().await
    }

    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()> {
        self.0.discard(offset, length).await
    }

    fn attachment(&self) -> Option<Attachment> {
        None
    }
}
