//! A guest's drives, open, as its process keeps them whatever becomes of the machine; and what QMP hears of
//! them.

use std::fs::{self, File};
use std::os::fd::BorrowedFd;
use std::sync::Arc;

use elasticstack_core::block::Volume;
use elasticstack_core::error::{Error, Result};
use elasticstack_core::hypervisor::IoLimits;
use elasticstack_core::secret::Secret;
use elasticstack_core::units::Bytes;
use serde_json::{Value, json};

use super::ask::{Ask, Refusal};
use super::borrowed::Borrowed;
use super::machine::Drive;
use super::meter::Meter;
use super::order::{OrderedDrive, Source};
use crate::iscsi::Credentials;
use crate::iscsi::initiator::Address;
use crate::lend::FileVolume;

/// All of them.
#[derive(Debug)]
pub(super) struct Drives(Vec<Open>);

#[derive(Debug)]
struct Open {
    order: OrderedDrive,
    drive: Drive,
}

impl Drives {
    /// Opens what is ordered. Of a process that is killed `lock` stays open until its last write has ended.
    ///
    /// # Errors
    /// If one can't be opened.
    pub(super) async fn open(orders: Vec<OrderedDrive>, lock: BorrowedFd<'_>) -> Result<Self> {
        let mut drives = Vec::new();
        for order in orders {
            let volume = open(&order, lock).await;
            let volume = volume
                .map_err(|error| error.context(format!("opening a drive, {}", order.node)))?;
            let meter = Arc::new(Meter::new(order.limits));
            let (writing, name) = (order.writing(), order.node.clone());
            drives.push(Open { order, drive: Drive { volume, writing, name, meter } });
        }
        Ok(Self(drives))
    }

    /// As a machine has them.
    pub(super) fn of_machine(&self) -> Vec<Drive> {
        self.0.iter().map(|open| open.drive.clone()).collect()
    }

    /// Carries out what is about drives; nothing else is asked of them.
    pub(super) fn carry_out(&self, ask: &Ask) -> Result<Value, Refusal> {
        Ok(match ask {
            Ask::Nodes => self.tell(|open| {
                let file = match &open.order.source {
                    Source::File(path) => path.display().to_string(),
                    Source::Lent { target, .. } => target.clone(),
                };
                json!({ "node-name": open.drive.name, "file": file })
            }),
            Ask::Devices => self.tell(|open| {
                let IoLimits { requests, bytes } = open.drive.meter.limits();
                let inserted = json!({
                    "node-name": open.drive.name,
                    "iops": requests.unwrap_or(0),
                    "bps": bytes.map_or(0, Bytes::get),
                });
                json!({ "device": "", "qdev": open.drive.name, "inserted": inserted })
            }),
            Ask::Counts => self.tell(|open| {
                let counts = open.drive.meter.counts();
                let stats = json!({
                    "rd_bytes": counts.read_bytes,
                    "rd_operations": counts.read_requests,
                    "wr_bytes": counts.write_bytes,
                    "wr_operations": counts.write_requests,
                });
                json!({ "device": "", "node-name": open.drive.name, "stats": stats })
            }),
            Ask::Limit(path, limits) => {
                let open = self.0.iter().find(|open| open.drive.name == *path);
                let unknown = || Refusal(format!("there is no drive {path:?}"));
                open.ok_or_else(unknown)?.drive.meter.limit(*limits);
                json!({})
            }
            _ => return Err(Refusal("this is about no drive".to_owned())),
        })
    }

    fn tell(&self, of: impl Fn(&Open) -> Value) -> Value {
        self.0.iter().map(of).collect()
    }
}

async fn open(order: &OrderedDrive, lock: BorrowedFd<'_>) -> Result<Arc<dyn Volume>> {
    match &order.source {
        Source::File(path) => {
            let failed =
                |error| Error::internal(format!("opening {}", path.display())).source(error);
            let file = File::options().read(true).write(!order.is_read_only).open(path);
            Ok(Arc::new(FileVolume::new(file.map_err(failed)?, None, lock)?))
        }
        Source::Lent { portal, target, initiator, secret } => {
            let failed = |error| Error::internal(format!("reading {secret}")).source(error);
            let secret = Secret::new(fs::read_to_string(secret).map_err(failed)?);
            let own = Credentials { user: initiator.clone(), secret };
            let address = Address { portal: *portal, target: target.clone(), lun: 0, own };
            Ok(Arc::new(Borrowed::log_in(address).await?))
        }
    }
}
