//! What a played host's bytes and a biller are to a control plane.

use std::collections::BTreeMap;
use std::sync::Mutex;

use async_trait::async_trait;
use elasticstack_api::app::{DataPath, Export, Screen};
use elasticstack_core::biller::{
    Ack, Biller, Change, ChangeKind, OpenBiller, Period, Statement, Usage, UsageId, Verdict,
};
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::{Counts, CountsOf};
use futures_util::StreamExt as _;

/// The bytes of drives, as the data path sees them.
#[derive(Default)]
pub(crate) struct FakeBytes {
    pub(crate) drives: Mutex<BTreeMap<DriveId, BTreeMap<u64, bytes::Bytes>>>,
}

#[async_trait]
impl DataPath for FakeBytes {
    async fn read(
        &self,
        _host: HostId,
        _drive: DriveId,
        _offset: Bytes,
        length: Bytes,
    ) -> Result<bytes::Bytes> {
        Ok(vec![0; usize::try_from(length.get()).unwrap()].into())
    }

    async fn export(&self, _host: HostId, _drive: DriveId) -> Result<Export> {
        Ok(Export { length: 0, pieces: futures_util::stream::empty().boxed() })
    }

    async fn write(
        &self,
        _host: HostId,
        drive: DriveId,
        offset: Bytes,
        data: bytes::Bytes,
    ) -> Result<()> {
        self.drives.lock().unwrap().entry(drive).or_default().insert(offset.get(), data);
        Ok(())
    }

    async fn serial(&self, _host: HostId, _server: ServerId) -> Result<bytes::Bytes> {
        Ok(bytes::Bytes::from_static(b"login:"))
    }

    async fn counts(&self, _host: HostId, _of: CountsOf) -> Result<Counts> {
        Ok(Counts::default())
    }

    async fn screen(&self, _host: HostId, _server: ServerId, _run: Run) -> Result<Box<dyn Screen>> {
        Ok(Box::new(tokio::io::empty()))
    }
}

/// A biller that keeps what it is given and refuses when told to.
#[derive(Default)]
pub(crate) struct Ledger {
    open: OpenBiller,
    pub(crate) taken: Mutex<BTreeMap<UsageId, Usage>>,
    pub(crate) refuses: Mutex<bool>,
    pub(crate) asked: Mutex<Vec<ChangeKind>>,
}

#[async_trait]
impl Biller for Ledger {
    async fn authorize(&self, change: &Change) -> Result<Verdict> {
        self.asked.lock().unwrap().push(change.kind);
        if *self.refuses.lock().unwrap() {
            return Ok(Verdict::Refuse { reason: "the balance is used up".to_owned() });
        }
        self.open.authorize(change).await
    }

    async fn ingest(&self, usage: &[Usage]) -> Result<Ack> {
        let mut taken = self.taken.lock().unwrap();
        for item in usage {
            if let Some(known) = taken.insert(item.id, item.clone()) {
                assert_eq!(known.to, None, "usage was delivered again after its end");
                assert_eq!((known.from, known.quantity), (item.from, item.quantity));
            }
        }
        Ok(Ack { taken: usage.iter().map(|item| item.id).collect() })
    }

    async fn statement(&self, account: AccountId, period: Period) -> Result<Statement> {
        self.open.statement(account, period).await
    }
}
