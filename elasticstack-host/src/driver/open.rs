//! Opening a drive under a claim, for a run or a job, and how long to wait for one that is not
//! there yet.

use std::sync::Arc;
use std::time::Duration;

use elasticstack_core::block::Volume;
use elasticstack_core::error::{Error, ErrorKind, Result};
use elasticstack_core::generation::Epoch;
use elasticstack_core::id::DriveId;
use elasticstack_core::wire::internal::Access;
use tokio::time::Instant;

use super::lends;
use crate::agent::{Host, Key};

/// How long a drive that is claimed may take to appear: its document may come after the claim's.
const PATIENCE: Duration = Duration::from_secs(30);

/// Opens a drive under a claim. An exclusive claim first ends all access below its epoch. The
/// caller holds the grant, so that no guest here still uses the drive.
///
/// # Errors
/// As `BlockStore::open` and `BlockStore::fence`.
pub(crate) async fn open(
    host: &Host,
    drive: DriveId,
    epoch: Epoch,
    access: Access,
) -> Result<Arc<dyn Volume>> {
    let opened = async {
        if access == Access::Exclusive {
            lends::end_below(host, drive, epoch).await?;
            host.store.fence(drive, epoch).await?;
        }
        host.store.open(drive, epoch).await
    };
    let opened = opened.await;
    // Its status tells the epoch.
    host.wake(Key::Drive(drive));
    opened
}

/// Tells failures that pass from those that don't.
#[derive(Debug, Default)]
pub(crate) struct Patience {
    since: Option<Instant>,
}

/// What to make of a drive that could not be opened.
pub(crate) enum Verdict {
    /// Try again.
    Wait,
    /// There is no point in it, for this reason.
    GiveUp(Error),
}

impl Patience {
    /// Judges a failure to open `drive`.
    pub(crate) fn judge(&mut self, host: &Host, drive: DriveId, error: Error) -> Verdict {
        match error.kind() {
            ErrorKind::Unavailable => Verdict::Wait,
            ErrorKind::NotFound => {
                if let Some(fault) = host.board.drive(drive).and_then(|status| status.fault) {
                    return Verdict::GiveUp(fault.into());
                }
                let since = *self.since.get_or_insert_with(Instant::now);
                if since.elapsed() < PATIENCE { Verdict::Wait } else { Verdict::GiveUp(error) }
            }
            _ => Verdict::GiveUp(error),
        }
    }
}
