//! What servers and drives have read and written: asked of the hypervisor when somebody wants to
//! know, and kept nowhere.
//!
//! Invariant: what is told is whole. A server that does not answer in time is left out, and so is a
//! drive that it has; nobody waits longer for them. So is a drive that is lent: what its borrower does
//! is counted where that runs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use elasticstack_core::error::{Chain, Error, ErrorKind, Result};
use elasticstack_core::hypervisor::{Counters, Device};
use elasticstack_core::id::{DriveId, ServerId};
use elasticstack_core::wire::internal::{Counts, CountsOf, DriveCounts, IoCounts, ServerCounts};
use futures_util::future::join_all;

use super::host::Host;

/// How long a guest may take to be counted.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was counted of each server, by where its drives are plugged in.
struct Counted(BTreeMap<ServerId, BTreeMap<Device, IoCounts>>);

/// What can be told of these servers and drives.
///
/// # Errors
/// `NotOffered` if the hypervisor counts nothing.
pub(super) async fn tell(host: &Arc<Host>, of: CountsOf) -> Result<Counts> {
    let counters = host.hypervisor.counters().ok_or_else(|| {
        Error::new(ErrorKind::NotOffered, "the hypervisor of this host counts nothing")
    })?;
    let CountsOf { servers, mut drives } = of;
    let lent: BTreeSet<DriveId> = host.lends().into_iter().map(|lend| lend.drive).collect();
    drives.retain(|drive| !lent.contains(drive));
    let users = |drive| (drive, host.servers_with(drive));
    let drives: Vec<(DriveId, Vec<ServerId>)> = drives.into_iter().map(users).collect();
    let users = drives.iter().flat_map(|(_, users)| users);
    let wanted: BTreeSet<ServerId> = servers.iter().chain(users).copied().collect();
    let looks = wanted.into_iter().map(|server| look(counters, server));
    let counted = Counted(join_all(looks).await.into_iter().flatten().collect());
    let of_server = |server| {
        let devices = counted.0.get(&server)?.clone();
        Some(ServerCounts { server, devices })
    };
    let of_drive = |(drive, users): (DriveId, Vec<ServerId>)| {
        let counts = counted.of_drive(host, drive, &users)?;
        Some(DriveCounts { drive, counts })
    };
    Ok(Counts {
        servers: servers.into_iter().filter_map(of_server).collect(),
        drives: drives.into_iter().filter_map(of_drive).collect(),
    })
}

/// A server and what is counted of it, which is nothing if it does not run; `None` if that can't be
/// said in time.
async fn look(
    counters: &dyn Counters,
    server: ServerId,
) -> Option<(ServerId, BTreeMap<Device, IoCounts>)> {
    match tokio::time::timeout(PATIENCE, counters.counts(server)).await.ok()? {
        Ok(devices) => Some((server, devices)),
        Err(error) if error.kind() == ErrorKind::NotFound => Some((server, BTreeMap::new())),
        Err(error) => {
            tracing::debug!(%server, error = %Chain(&error), "a server's counts are not known");
            None
        }
    }
}

impl Counted {
    /// The sum over the servers that have the drive; `None` if one of them is not known, or gets
    /// another drive in its place right now.
    fn of_drive(&self, host: &Host, drive: DriveId, users: &[ServerId]) -> Option<IoCounts> {
        let mut sum = IoCounts::default();
        for user in users {
            let (devices, record) = (self.0.get(user)?, host.servers.get(*user)?);
            let claims = record.facts.claims;
            for claim in claims.iter().filter(|claim| claim.drive == drive) {
                let mut there = claims.iter().filter(|other| other.device == claim.device);
                if there.any(|other| other.drive != drive) {
                    return None;
                }
                let counts = devices.get(&claim.device).copied().unwrap_or_default();
                sum = sum.saturating_add(counts);
            }
        }
        Some(sum)
    }
}
