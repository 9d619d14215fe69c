//! Lends: drives that servers on other hosts use over the network.
//!
//! What a lend is made of, and the names that both ends of it give it. Not here: who lends what to
//! whom, which the control plane decides, and when access ends, which the drive's host does.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;

use async_trait::async_trait;

use super::Volume;
use crate::error::Result;
use crate::generation::Epoch;
use crate::id::{DriveId, JobId, ServerId};
use crate::secret::Secret;

/// The naming authority of every name that this platform gives on a storage network (RFC 7143,
/// section 4.2.7.3).
const AUTHORITY: &str = "iqn.2026-01.org.elasticstack";

/// Serves drives of one host to servers on others over iSCSI (RFC 7143): one target for each lend,
/// which only the borrower that is named may log in to.
///
/// A lender knows nothing of claims: the caller holds the drive for the lend, has opened it under
/// the lend's epoch, and fences the drive only after [`Lend::withdraw`].
///
/// # Contract
/// - **LE-1** After `lend` the borrower reads what the drive holds, and what it writes is on the
///   drive. Repeating it cuts nobody off, and makes known how long the drive is by now.
/// - **LE-2** Nobody else gets in: no other name, no other secret, nobody without one.
/// - **LE-3** What the borrower was told is written is as durable as after [`Volume::flush`].
/// - **LE-4** A lend that is [`Writing::Refused`] changes nothing on the drive, and says so.
/// - **LE-5** When `withdraw` returns, the borrower can't log in again, and nothing that it asked
///   for is in flight or will be. Repeating it, or of what was never lent, changes nothing.
/// - **LE-6** Lends stand alone: withdrawing one leaves others as they are, also of the same drive.
/// - **LE-7** `lent` tells exactly what is lent, whichever life of the caller's process lent it.
#[async_trait]
pub trait Lend: Send + Sync {
    /// Where borrowers connect.
    fn portal(&self) -> SocketAddr;

    /// Lends a drive, which is open as `volume` for as long as it is lent.
    ///
    /// # Errors
    /// `NotOffered` for a volume that can't be lent; `ChangedMeanwhile` if this drive is lent under
    /// this epoch to another borrower; `Unavailable` if the target can't be reached now.
    async fn lend(&self, spec: &LendSpec, volume: Arc<dyn Volume>) -> Result<()>;

    /// Ends one lend.
    ///
    /// # Errors
    /// `Unavailable` while its I/O does not drain: nobody gets in all the same, call again.
    async fn withdraw(&self, lend: LendId) -> Result<()>;

    /// Every lend there is.
    ///
    /// # Errors
    /// `Unavailable` if the target can't be asked now.
    async fn lent(&self) -> Result<Vec<LendId>>;
}

/// One lend: a drive under one epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LendId {
    /// Which drive.
    pub drive: DriveId,
    /// The epoch of the borrower's claim.
    pub epoch: Epoch,
}

impl LendId {
    /// The name of the lend's target. The epoch is in it, so that whoever had the drive under an
    /// older one finds no target to log in to.
    #[must_use]
    pub fn target(self) -> String {
        format!("{AUTHORITY}:drive.{}.{}", self.drive, self.epoch)
    }

    /// The lend that has this target, if it is the name of one.
    #[must_use]
    pub fn of_target(name: &str) -> Option<Self> {
        let rest = name.strip_prefix(AUTHORITY)?.strip_prefix(":drive.")?;
        let (drive, epoch) = rest.split_once('.')?;
        let lend = Self { drive: drive.parse().ok()?, epoch: Epoch(epoch.parse().ok()?) };
        // Only as it is written here: no leading zeros or signs.
        (lend.target() == name).then_some(lend)
    }
}

impl fmt::Display for LendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "drive {} under epoch {}", self.drive, self.epoch)
    }
}

/// A lend as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LendSpec {
    /// Which lend.
    pub lend: LendId,
    /// Who borrows.
    pub borrower: ServerId,
    /// Whether the borrower may write.
    pub writing: Writing,
    /// What the borrower proves itself with, see [`Borrowing::secret`].
    pub secret: Secret,
}

/// Whether a borrower may write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Writing {
    /// It may.
    Allowed,
    /// It may not: what is lent is protected against it.
    Refused,
}

/// How a borrower reaches what is lent to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Borrowing {
    /// Where the target is served.
    pub portal: SocketAddr,
    /// Which target, by [`LendId::target`]; the drive is its logical unit 0.
    pub lend: LendId,
    /// Who borrows.
    pub borrower: ServerId,
    /// The secret of CHAP (RFC 7143, section 12.1), of at least 12 bytes. The name that goes with it is
    /// [`Borrowing::initiator`]'s.
    pub secret: Secret,
}

/// Whom a job borrows as: on a storage network every name is one of a server.
#[must_use]
pub fn borrower_of(job: JobId) -> ServerId {
    ServerId::from_uuid(*job.as_uuid())
}

impl Borrowing {
    /// The name that the borrower logs in with, and that CHAP knows it by.
    #[must_use]
    pub fn initiator(&self) -> String {
        initiator(self.borrower)
    }
}

impl LendSpec {
    /// The name that the borrower logs in with, and that CHAP knows it by.
    #[must_use]
    pub fn initiator(&self) -> String {
        initiator(self.borrower)
    }
}

fn initiator(borrower: ServerId) -> String {
    format!("{AUTHORITY}:server.{borrower}")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lend(epoch: u64) -> LendId {
        let drive = "5b0e3c52-0000-4000-8000-000000000001".parse().unwrap();
        LendId { drive, epoch: Epoch(epoch) }
    }

    #[test]
    fn a_target_is_named_by_its_drive_and_epoch() {
        let name = "iqn.2026-01.org.elasticstack:drive.5b0e3c52-0000-4000-8000-000000000001.7";
        assert_eq!(lend(7).target(), name);
        for other in [
            "",
            "iqn.2026-01.org.elasticstack",
            "iqn.2026-01.org.elasticstack:drive.5b0e3c52-0000-4000-8000-000000000001",
            "iqn.2026-01.org.elasticstack:drive.5b0e3c52-0000-4000-8000-000000000001.",
            "iqn.2026-01.org.elasticstack:drive.5b0e3c52-0000-4000-8000-000000000001.07",
            "iqn.2026-01.org.elasticstack:drive.5b0e3c52-0000-4000-8000-000000000001.+7",
            "iqn.2026-01.org.elasticstack:drive.5B0E3C52-0000-4000-8000-000000000001.7",
            "iqn.2026-01.org.elasticstack:drive.x.7",
            "iqn.2026-01.org.example:drive.5b0e3c52-0000-4000-8000-000000000001.7",
        ] {
            assert_eq!(LendId::of_target(other), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn a_lend_is_known_again_by_its_target(epoch in any::<u64>(), text in ".*") {
            prop_assert_eq!(LendId::of_target(&lend(epoch).target()), Some(lend(epoch)));
            prop_assert_eq!(LendId::of_target(&text), None);
        }
    }
}
