//! Drives that come and go while a server runs.
//!
//! ```text
//!  attach ──▶ claim under a new epoch + the run's hardware ──▶ host plugs it in
//!  detach ──▶ the run's hardware alone ──▶ host: the guest let go ──▶ claim released
//! ```
//! Invariant: a drive stays claimed from before it is plugged in until its host says that what the
//! run's document does not name is open no more; where it is cut off, the document is pushed again.

use elasticstack_core::hypervisor::{Bus, Device, ServerKind};
use elasticstack_core::prelude::*;
use elasticstack_core::state::ServerState;
use elasticstack_core::wire::internal::{ClaimedDrive, Hardware, IoLimits, Plugged};

use super::power::{borrow, plug_in, queue};
use super::server_record::{Plug, ServerConfig};
use super::stock::heard;
use crate::db::{Holder, ServerRow, Writer};

/// What a change means for the drives of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Drives {
    /// They stay as they are.
    Stay,
    /// Some come, or go.
    ComeOrGo,
}

/// Gives the newest run of a server the drives that its record names by now. The caller raises the
/// generation if any come or go, and saves the row.
///
/// # Errors
/// `ServerBusy` for what waits for a stop; `NotOffered` for a drive on another host that does not lend; `Unavailable`
/// while its host has not told what it has; those of claiming a drive.
pub(super) async fn replug(
    tx: &mut Writer<'_>,
    row: &mut ServerRow,
    parsed: &ServerConfig,
) -> Result<Drives> {
    let Some(before) = row.hardware.clone() else { return Ok(Drives::Stay) };
    let is_of = |claim: &ClaimedDrive, plug: &Plug| {
        (claim.device, claim.drive) == (plug.device, plug.drive)
    };
    let (mut drives, mut added) = (Vec::new(), Vec::new());
    for plug in &parsed.plugs {
        match before.drives.iter().find(|claim| is_of(claim, plug)) {
            Some(claim) if claim.media == plug.media => drives.push(claim.clone()),
            Some(_) => {
                return Err(waits(plug.device, "what is plugged in can't become another media"));
            }
            None => added.push(*plug),
        }
    }
    let gone = before.drives.iter().find(|claim| !drives.contains(claim));
    let changed = added.first().map(|plug| plug.device).or(gone.map(|claim| claim.device));
    let Some(changed) = changed else { return Ok(Drives::Stay) };
    if before.kind == ServerKind::Container {
        return Err(waits(changed, "a container's drives neither come nor go"));
    }
    if let Some(host) = row.host {
        heard(tx, host).await?;
    }
    if row.state == ServerState::Stopping {
        return Err(Error::new(
            ErrorKind::ServerBusy,
            "the server is just being stopped: change its drives after that",
        ));
    }
    for plug in added {
        let has_scsi = before.drives.iter().any(|claim| claim.device.bus() == Bus::Scsi);
        if plug.device.bus() == Bus::Scsi && !has_scsi {
            return Err(waits(plug.device, "a run without a scsi drive has no place for one"));
        }
        let blame = |error: Error| error.field(plug.device.to_string());
        let (mut claim, host) = plug_in(tx, row, plug).await.map_err(blame)?;
        if row.host != Some(host) {
            borrow(tx, row.server, &mut claim, host).await?;
        }
        drives.push(claim);
    }
    drives.sort_by_key(|claim| claim.device);
    row.hardware = Some(Hardware { drives, ..before });
    Ok(Drives::ComeOrGo)
}

/// Has the servers that use a drive now be held to these limits.
pub(super) async fn limit(tx: &mut Writer<'_>, drive: DriveId, limits: IoLimits) -> Result<()> {
    for claim in tx.claims_on(drive).await? {
        let Holder::Server(server) = claim.holder else { continue };
        let Some(mut row) = tx.server(server).await? else { continue };
        let drives = row.hardware.as_mut().map(|hardware| &mut hardware.drives);
        for claimed in drives.into_iter().flatten().filter(|claimed| claimed.drive == drive) {
            claimed.limits = limits;
        }
        row.generation += 1;
        queue(tx, &row).await?;
        tx.save_server(&row).await?;
    }
    Ok(())
}

fn waits(device: Device, why: &str) -> Error {
    let message = format!("{device}: {why} while the server runs: stop it first");
    Error::new(ErrorKind::ServerBusy, message).field(device.to_string())
}

/// Takes in what a host says of the drives of the server's newest run, the first time that it does
/// so of this version.
pub(super) async fn reported(
    tx: &mut Writer<'_>,
    row: &mut ServerRow,
    plugged: Option<&Plugged>,
) -> Result<()> {
    let has_failed = row.failed_run >= row.run;
    match plugged {
        Some(Plugged::NotYet(fault)) if !has_failed => row.failed = Some(fault.message.clone()),
        Some(Plugged::AsAsked) => {
            if !has_failed {
                row.failed = None;
            }
            let drives = row.hardware.as_ref().map_or(&[][..], |hardware| &hardware.drives);
            let holder = Holder::Server(row.server);
            for claim in tx.claims_of(holder).await? {
                if !drives.iter().any(|kept| kept.drive == claim.drive) {
                    tx.delete_claim(claim.drive, holder).await?;
                }
            }
        }
        Some(Plugged::NotYet(_)) | None => {}
    }
    Ok(())
}
