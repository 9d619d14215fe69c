//! Starting and ending servers: what a customer's wish does to the rows, and how long its call
//! waits for the host's report.
//!
//! Invariants: a start claims every drive under a new epoch, takes its room on the host and raises
//! the run number in one transaction, or does nothing; a run ends once, by a report; until then
//! its claims and its room are held.

use std::collections::BTreeSet;

use elasticstack_core::biller::{ChangeKind, Meter};
use elasticstack_core::hypervisor::Media;
use elasticstack_core::prelude::*;
use elasticstack_core::scheduler::{Request, ServerDemand};
use elasticstack_core::state::{DriveEvent, ServerEvent, ServerState, Step};
use elasticstack_core::wire::internal::{Access, ClaimedDrive, Hardware, Lender, LentDrive};
use elasticstack_core::wire::record::Record;

use super::access::{Wish, permitted};
use super::accounts::secret_key;
use super::drive_record::limits;
use super::drives::in_use;
use super::imaging::tolerated;
use super::resources::connect;
use super::rooms::{Look, Placing, Within};
use super::server_record::{Plug, ServerConfig, info};
use super::stock::heard;
use super::{App, Caller, Quota, changed_meanwhile};
use crate::db::{ClaimRow, DriveRow, Holder, OutboxRow, ServerRow, Subject, Writer};
use crate::usage::Metered;

/// Whether a host's report came within the time to answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    InTime,
    NotYet,
}

fn still(doing: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("the server is still {doing}: repeat the call"))
}

impl Plug {
    /// What plugging it in amounts to.
    pub(super) const fn wish(self) -> Wish {
        match self.media {
            Media::Disk => Wish::Own,
            Media::Cdrom => Wish::Insert,
        }
    }

    const fn access(self, drive: &DriveRow) -> Access {
        match self.media {
            Media::Disk => drive.access,
            Media::Cdrom => Access::Shared,
        }
    }
}

impl App {
    /// Starts a server and waits until it runs. One that runs already is left as it is.
    ///
    /// # Errors
    /// `NotFound` for it or a drive of it; `ServerBusy`, `DriveInUse`, `NoCapacity`,
    /// `PaymentRequired`, and then nothing has changed; `JobFailed` if its host could not start it.
    pub async fn server_start(&self, caller: &Caller, server: ServerId) -> Result<Record> {
        let seen = self.db.glance().await?.server(server).await?;
        let seen = permitted(caller.account, seen, Wish::Own)?;
        let row = if seen.state.step(ServerEvent::Start)? == Step::Unchanged {
            seen
        } else {
            let parsed = ServerConfig::parse(&seen.config)?;
            let change = self.authorize_start(caller.account, &parsed).await?;
            let (now, config) = (self.now(), &seen.config);
            let look = if parsed.plugs.is_empty() { Look::Now } else { Look::Recent };
            self.intend_placing(caller, Subject::Server(server), look, |tx, mut placing| {
                Box::pin(async move {
                    let mut row = permitted(caller.account, tx.server(server).await?, Wish::Own)?;
                    if row.config != *config {
                        return Err(changed_meanwhile("server"));
                    }
                    power_on(self, &mut placing, tx, &mut row, change, now).await?;
                    tx.save_server(&row).await?;
                    Ok(row)
                })
            })
            .await?
        };
        Ok(info(&self.await_run(row).await?))
    }

    /// Asks the biller whether the account may run a server of this size.
    pub(super) async fn authorize_start(
        &self,
        account: AccountId,
        parsed: &ServerConfig,
    ) -> Result<ChangeId> {
        let start = ChangeKind::StartServer { mhz: parsed.cpu.0, mib: parsed.memory.0 };
        self.authorize(account, start).await
    }

    /// Waits until the run that `asked` is starting runs, or the time to answer is up.
    ///
    /// # Errors
    /// `JobFailed` with the host's sentence if that run could not be started.
    pub(super) async fn await_run(&self, asked: ServerRow) -> Result<ServerRow> {
        if asked.state != ServerState::Starting {
            return Ok(asked);
        }
        let mut patience = self.patience_after_writing(asked.server);
        while let Some(mut reader) = patience.look().await? {
            let Some(row) = reader.server(asked.server).await? else { continue };
            if row.failed_run == asked.run {
                return Err(Error::new(ErrorKind::JobFailed, row.failed.unwrap_or_default()));
            }
            if row.state != ServerState::Starting || row.run > asked.run {
                return Ok(row);
            }
        }
        Ok(asked)
    }

    /// Cuts a server's power and waits until it is stopped. A stopped one is left as it is.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` if its host has not confirmed it in time: the wish stands.
    pub async fn server_stop(&self, caller: &Caller, server: ServerId) -> Result<()> {
        let now = self.now();
        let asked = self
            .intend_alone(caller, server, |tx| {
                Box::pin(async move {
                    let before = permitted(caller.account, tx.server(server).await?, Wish::Own)?;
                    let mut row = before.clone();
                    power_off(tx, &mut row, now).await?;
                    if row != before {
                        tx.save_server(&row).await?;
                    }
                    Ok(row)
                })
            })
            .await?;
        match self.await_end(&asked).await? {
            Told::InTime => Ok(()),
            Told::NotYet => Err(still("stopping")),
        }
    }

    /// Waits until the newest run of `asked` is over, or the time to answer is up.
    async fn await_end(&self, asked: &ServerRow) -> Result<Told> {
        if asked.ended_run >= asked.run {
            return Ok(Told::InTime);
        }
        let mut patience = self.patience_after_writing(asked.server);
        while let Some(mut reader) = patience.look().await? {
            let row = reader.server(asked.server).await?;
            if row.is_none_or(|row| row.ended_run >= asked.run) {
                return Ok(Told::InTime);
            }
        }
        Ok(Told::NotYet)
    }

    /// Presses a server's power button; what the guest makes of it shows in its info.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn server_shutdown(&self, caller: &Caller, server: ServerId) -> Result<()> {
        self.intend_alone(caller, server, |tx| {
            Box::pin(async move {
                let mut row = permitted(caller.account, tx.server(server).await?, Wish::Own)?;
                row.state.step(ServerEvent::Shutdown)?;
                if matches!(row.state, ServerState::Stopped | ServerState::Stopping) {
                    return Ok(());
                }
                row.shutdown += 1;
                row.generation += 1;
                queue(tx, &row).await?;
                tx.save_server(&row).await
            })
        })
        .await
    }

    /// Presses a server's reset button and waits until that is done. A call while another waits
    /// joins it.
    ///
    /// # Errors
    /// `NotFound`; `ServerBusy` if it does not run; `Unavailable` if its host has not confirmed it
    /// in time: the wish stands.
    pub async fn server_reset(&self, caller: &Caller, server: ServerId) -> Result<()> {
        let asked = self
            .intend_alone(caller, server, |tx| {
                Box::pin(async move {
                    let mut row = permitted(caller.account, tx.server(server).await?, Wish::Own)?;
                    row.state.step(ServerEvent::Reset)?;
                    if row.reset <= row.seen_reset {
                        row.reset = row.seen_reset + 1;
                        row.generation += 1;
                        queue(tx, &row).await?;
                        tx.save_server(&row).await?;
                    }
                    Ok(row)
                })
            })
            .await?;
        if asked.seen_reset >= asked.reset {
            return Ok(());
        }
        let mut patience = self.patience_after_writing(server);
        while let Some(mut reader) = patience.look().await? {
            let row = permitted(caller.account, reader.server(server).await?, Wish::Own)?;
            if row.seen_reset >= asked.reset {
                return Ok(());
            }
            row.state.step(ServerEvent::Reset)?;
        }
        Err(still("resetting"))
    }

    /// Destroys a server, running or not; its drives stay. It is gone for its owner at once, and
    /// the call waits until its drives are free, as long as the time to answer allows.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn server_destroy(&self, caller: &Caller, server: ServerId) -> Result<()> {
        let now = self.now();
        let asked = self
            .intend(caller, Subject::Server(server), |tx| {
                Box::pin(async move {
                    let mut row = permitted(caller.account, tx.server(server).await?, Wish::Own)?;
                    doom(tx, &mut row, now).await?;
                    tx.save_server(&row).await?;
                    Ok(row)
                })
            })
            .await?;
        self.await_end(&asked).await.map(|_| ())
    }
}

/// Starts a stopped server: places it, claims its drives, raises its run. The caller saves the
/// row. A server that is started already is left as it is.
pub(super) async fn power_on(
    app: &App,
    placing: &mut Placing<'_>,
    tx: &mut Writer<'_>,
    row: &mut ServerRow,
    change: ChangeId,
    now: Timestamp,
) -> Result<()> {
    let Step::To(state) = row.state.step(ServerEvent::Start)? else { return Ok(()) };
    if let Some(host) = row.host {
        heard(tx, host).await?;
    }
    let parsed = ServerConfig::parse(&row.config)?;
    parsed.startable()?;
    let wanted = [(Quota::Cpu, parsed.cpu.0.into()), (Quota::Mem, parsed.memory.0.into())];
    app.take(tx, row.account, &wanted).await?;
    let mut hosts = Vec::new();
    let mut drives = Vec::new();
    for plug in &parsed.plugs {
        let (claimed, host) =
            plug_in(tx, row, *plug).await.map_err(|error| error.field(plug.device.to_string()))?;
        hosts.push(host);
        drives.push(claimed);
    }
    for wire in &parsed.wires {
        connect(tx, row, wire).await.map_err(|error| error.field(&wire.key))?;
    }
    let demand = ServerDemand {
        kind: parsed.kind,
        cpu: parsed.cpu,
        memory: parsed.memory,
        drives_on: hosts.clone(),
        avoid: hosts_to_avoid(tx, row).await?,
    };
    let placement = placing.place(tx, &Request::Server(demand), Within::Fleet).await?;
    for (claimed, &host) in drives.iter_mut().zip(&hosts) {
        if host != placement.host {
            borrow(tx, row.server, claimed, host).await?;
        }
    }
    let left = row.host.filter(|host| *host != placement.host);
    row.host = Some(placement.host);
    row.state = state;
    row.since = now;
    row.generation += 1;
    row.run = row.run.next();
    row.powered = true;
    row.cpu = parsed.cpu;
    row.memory = parsed.memory;
    row.change = Some(change);
    row.failed = None;
    row.failed_run = Run(0);
    row.hardware = Some(Hardware {
        kind: parsed.kind,
        cpu_mhz: parsed.cpu.0,
        vcpus: parsed.vcpus.0.get(),
        memory_mib: parsed.memory.0,
        drives,
        boot: parsed.boot,
        nics: parsed.nics,
        screen: parsed.screen,
        seed: parsed.seed,
    });
    if let Some(left) = left {
        tx.queue(left, OutboxRow::Server(row.server), row.generation).await?;
    }
    queue(tx, row).await
}

/// The hosts of what the server is to share no host with. What is gone, or another's, avoids
/// nothing.
async fn hosts_to_avoid(tx: &mut Writer<'_>, row: &ServerRow) -> Result<Vec<HostId>> {
    let words = |key: &str| -> Vec<String> {
        let words = row.config.value(key).unwrap_or_default().split_whitespace();
        words.map(str::to_owned).collect()
    };
    let mut hosts = BTreeSet::new();
    for id in words("avoid:servers").iter().filter_map(|word| word.parse().ok()) {
        let other = permitted(row.account, tx.server(id).await?, Wish::Own).ok();
        let running = other.filter(|other| ServerState::HOLDS_RESOURCES.contains(&other.state));
        hosts.extend(running.and_then(|other| other.host));
    }
    for id in words("avoid:drives").iter().filter_map(|word| word.parse().ok()) {
        if let Ok(drive) = permitted(row.account, tx.drive(id).await?, Wish::Own) {
            hosts.insert(drive.host);
        }
    }
    Ok(hosts.into_iter().collect())
}

/// Claims one drive for a run of the server.
pub(super) async fn plug_in(
    tx: &mut Writer<'_>,
    row: &ServerRow,
    plug: Plug,
) -> Result<(ClaimedDrive, HostId)> {
    let mut drive = permitted(row.account, tx.drive(plug.drive).await?, plug.wish())?;
    drive.state.step(DriveEvent::Use)?;
    let access = plug.access(&drive);
    let claims = tx.claims_on(drive.drive).await?;
    if !tolerated(&claims, access) {
        let wish = format!("plugged in at {}", plug.device);
        return Err(in_use(&claims, &wish));
    }
    drive.epoch = drive.epoch.next();
    if plug.media == Media::Disk {
        drive.summed = None;
    }
    tx.save_drive(&drive).await?;
    let epoch = drive.epoch;
    let holder = Holder::Server(row.server);
    let claim = ClaimRow { drive: drive.drive, holder, epoch, access, lent: None };
    tx.insert_claim(&claim).await?;
    let Plug { device, drive: id, media } = plug;
    let limits = limits(&drive.config);
    let claimed = ClaimedDrive { drive: id, epoch, access, device, media, lender: None, limits };
    Ok((claimed, drive.host))
}

/// Has a drive that a server has claimed lent to it by `lender`, the host that the drive lies on.
pub(super) async fn borrow(
    tx: &mut Writer<'_>,
    server: ServerId,
    claimed: &mut ClaimedDrive,
    lender: HostId,
) -> Result<()> {
    heard(tx, lender).await?;
    let portal = tx.host(lender).await?.and_then(|host| host.portal).ok_or_else(|| {
        let why = "the drive lies on another host than the server runs on, and is not lent";
        Error::new(ErrorKind::NotOffered, why).field(claimed.device.to_string())
    })?;
    let secret = secret_key()?;
    claimed.lender = Some(Lender { portal, secret: secret.clone() });
    if let Some(lent) = lent_to(server, claimed) {
        tx.lend_for_claim(claimed.drive, Holder::Server(server), &lent).await?;
    }
    Ok(())
}

/// How a drive is lent to the server that has claimed it, if it is.
pub(super) fn lent_to(server: ServerId, claimed: &ClaimedDrive) -> Option<LentDrive> {
    let &ClaimedDrive { epoch, access, media, .. } = claimed;
    let secret = claimed.lender.as_ref()?.secret.clone();
    Some(LentDrive { server, epoch, access, media, secret })
}

/// Asks for the end of a server's run. The caller saves the row.
pub(super) async fn power_off(
    tx: &mut Writer<'_>,
    row: &mut ServerRow,
    now: Timestamp,
) -> Result<()> {
    let Step::To(state) = row.state.step(ServerEvent::Stop)? else { return Ok(()) };
    row.state = state;
    row.since = now;
    row.powered = false;
    row.generation += 1;
    queue(tx, row).await
}

/// Marks a server for destruction. The caller saves the row. One that no host knows is gone.
pub(super) async fn doom(tx: &mut Writer<'_>, row: &mut ServerRow, now: Timestamp) -> Result<()> {
    let Step::To(state) = row.state.step(ServerEvent::Destroy)? else { return Ok(()) };
    row.state = if row.host.is_some() { state } else { ServerState::Gone };
    row.since = now;
    row.powered = false;
    row.generation += 1;
    queue(tx, row).await
}

/// Has the server's host told of it.
pub(super) async fn queue(tx: &mut Writer<'_>, row: &ServerRow) -> Result<()> {
    match row.host {
        Some(host) => tx.queue(host, OutboxRow::Server(row.server), row.generation).await,
        None => Ok(()),
    }
}

/// What is metered of a running server.
pub(super) fn metered(row: &ServerRow, meter: Meter) -> Metered {
    Metered { account: row.account, resource: row.server.to_string(), meter }
}
