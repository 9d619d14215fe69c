//! Making a server from an image: a drive is made, imaged, and a server is made of it.
//!
//! The wish stands on the drive itself, in keys of its owner's that nobody else reads
//! (`user:panel:…`), and each step takes its part away once it is done. So the work can break off
//! anywhere (the panel is stopped, a call fails) and is taken up from what the API says:
//!
//! ```text
//! image, cpu, mem ── imaged ──▶ cpu, mem ── server made ──▶ nothing: done
//! ```
//! A step done twice has one effect: imaging starts over, and a server that has the drive is not
//! made again. Here is only which drives are being worked on, and why the last attempt failed.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use elasticstack_core::error::{Chain, Error, ErrorKind, Result};
use elasticstack_core::id::{DriveId, ServerId};
use elasticstack_core::name::Name;
use elasticstack_core::units::{Bytes, MebiBytes, MegaHertz};
use elasticstack_core::wire::record::Record;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::Account;
use crate::fault;
use crate::sessions::Session;

const IMAGE: &str = "user:panel:image";
const CPU: &str = "user:panel:cpu";
const MEM: &str = "user:panel:mem";
/// The device of a server's first drive: one that every operating system has a driver for.
const BOOT: &str = "ide:0:0";
/// How often the API is asked how far imaging is.
const PERIOD: Duration = Duration::from_secs(1);

/// A server that somebody wants.
#[derive(Debug, Clone)]
pub(crate) struct Wish {
    pub(crate) name: Name,
    pub(crate) image: DriveId,
    pub(crate) size: Bytes,
    pub(crate) cpu: MegaHertz,
    pub(crate) mem: MebiBytes,
}

impl Wish {
    /// Makes the drive that carries the wish.
    pub(crate) async fn record(&self, account: &Account) -> Result<DriveId> {
        let drive = Record::new()
            .with("name", &self.name)
            .with("size", self.size.get())
            .with(IMAGE, self.image)
            .with(CPU, self.cpu.0)
            .with(MEM, self.mem.0);
        let made = account.create_drive(&drive).await?;
        made.value("drive")
            .and_then(|id| id.parse().ok())
            .ok_or_else(|| Error::internal("the API answered a drive without an id"))
    }
}

/// What is left to do for the server that a drive is meant for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Rest {
    /// The drive is to be imaged from this, and a server made of it.
    Image(DriveId),
    /// A server is to be made of it.
    Server,
    /// Nothing.
    Nothing,
}

impl Rest {
    pub(crate) fn of(drive: &Record) -> Self {
        match (drive.value(IMAGE).and_then(|id| id.parse().ok()), drive.value(CPU)) {
            (Some(image), Some(_)) => Self::Image(image),
            (None, Some(_)) => Self::Server,
            (_, None) => Self::Nothing,
        }
    }
}

/// What is going on for a drive's server here and now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Work {
    /// It is being made.
    GoesOn,
    /// The last attempt ended with this sentence.
    Failed(String),
}

/// The work that goes on behind the pages.
#[derive(Debug, Default)]
pub(crate) struct Builds {
    work: Arc<Mutex<HashMap<DriveId, Work>>>,
    tasks: TaskTracker,
    closing: CancellationToken,
}

impl Builds {
    /// Makes the drive that carries `wish`, once for each `form`, and begins with its server. Who
    /// sends a form twice hangs up on the first answer, which is no reason to make half of it.
    pub(crate) async fn order(
        &self,
        session: Arc<Session>,
        form: String,
        wish: Wish,
    ) -> Result<DriveId> {
        let account = Arc::clone(&session.account);
        let making = self
            .tasks
            .spawn(async move { session.once(form, wish.record(&session.account)).await });
        let made = making.await;
        let drive = made.map_err(|error| Error::internal("making a drive").source(error))??;
        self.begin(account, drive);
        Ok(drive)
    }

    /// Makes the server that `drive` is meant for, unless that goes on already.
    pub(crate) fn begin(&self, account: Arc<Account>, drive: DriveId) {
        if self.locked().insert(drive, Work::GoesOn) == Some(Work::GoesOn) {
            return;
        }
        let (work, closing) = (Arc::clone(&self.work), self.closing.clone());
        self.tasks.spawn(async move {
            let outcome = closing.run_until_cancelled(build(&account, drive)).await;
            let mut work = work.lock().unwrap_or_else(PoisonError::into_inner);
            match outcome {
                Some(Err(error)) => {
                    tracing::info!(%drive, error = %Chain(&error), "a server was not made");
                    work.insert(drive, Work::Failed(fault::sentence(&error)));
                }
                Some(Ok(())) | None => {
                    work.remove(&drive);
                }
            }
        });
    }

    /// What goes on for a drive.
    pub(crate) fn work(&self, drive: DriveId) -> Option<Work> {
        self.locked().get(&drive).cloned()
    }

    /// Forgets why a drive's last attempt failed.
    pub(crate) fn forget(&self, drive: DriveId) {
        let mut work = self.locked();
        if work.get(&drive) != Some(&Work::GoesOn) {
            work.remove(&drive);
        }
    }

    /// Breaks off what goes on and waits until it has ended.
    pub(crate) async fn close(&self) {
        self.closing.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }

    fn locked(&self) -> MutexGuard<'_, HashMap<DriveId, Work>> {
        self.work.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Does what is left to do. Cancelled at any await, it can be begun again.
async fn build(account: &Account, drive: DriveId) -> Result<()> {
    let mut record = account.drive(drive).await?;
    if let Rest::Image(image) = Rest::of(&record) {
        if record.value("imaging").is_none() {
            account.image_drive(drive, image).await?;
        }
        imaged(account, drive).await?;
        record = account.set_drive(drive, &Record::new().with(IMAGE, "")).await?;
    }
    if Rest::of(&record) == Rest::Server {
        if server_of(account, drive).await?.is_none() {
            account.create_server(&server(drive, &record)).await?;
        }
        account.set_drive(drive, &Record::new().with(CPU, "").with(MEM, "")).await?;
    }
    Ok(())
}

async fn imaged(account: &Account, drive: DriveId) -> Result<()> {
    loop {
        let record = account.drive(drive).await?;
        match (record.value("imaging"), record.value("failed")) {
            (Some(_), _) => tokio::time::sleep(PERIOD).await,
            (None, Some(reason)) => return Err(Error::new(ErrorKind::JobFailed, reason)),
            (None, None) => return Ok(()),
        }
    }
}

fn server(drive: DriveId, record: &Record) -> Record {
    let mut server = Record::new()
        .with(BOOT, drive)
        .with("boot", BOOT)
        .with("persistent", true)
        .with("nic:0:model", "e1000")
        .with("nic:0:dhcp", "auto");
    for (key, from) in [("name", "name"), ("cpu", CPU), ("mem", MEM)] {
        server.set(key, record.value(from).unwrap_or_default());
    }
    server
}

/// The server that has `drive`, if one does.
pub(crate) async fn server_of(account: &Account, drive: DriveId) -> Result<Option<ServerId>> {
    let id = drive.to_string();
    let servers = account.servers().await?;
    let owner = servers.iter().find(|server| server.value(BOOT) == Some(&id));
    Ok(owner.and_then(|server| server.value("server")?.parse().ok()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_read_off_the_drive() {
        let image = "5b0e3c52-0000-4000-8000-00000000a001";
        let wish = Record::new().with(CPU, 2000).with(MEM, 512);
        let with_image = wish.clone().with(IMAGE, image);
        for (drive, rest) in [
            (with_image, Rest::Image(image.parse().unwrap())),
            (wish, Rest::Server),
            (Record::new().with("name", "x"), Rest::Nothing),
            (Record::new().with(IMAGE, image), Rest::Nothing),
        ] {
            assert_eq!(Rest::of(&drive), rest, "{drive:?}");
        }
    }
}
