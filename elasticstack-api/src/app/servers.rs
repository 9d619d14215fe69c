//! Servers: listing, making and changing them. What starts and ends their runs is in `power`.

use elasticstack_core::biller::{ChangeKind, Meter};
use elasticstack_core::prelude::*;
use elasticstack_core::scheduler::{Constraint, Refusal};
use elasticstack_core::state::ServerState;
use elasticstack_core::wire::keys::{self, Moment, Object};
use elasticstack_core::wire::record::Record;

use super::access::{Wish, permitted};
use super::drive_record::bounded;
use super::nics::{Macs, fill_in, note_cards, unlike_others};
use super::plugs::{Drives, replug};
use super::power::{metered, power_on, queue};
use super::rooms::Look;
use super::server_record::{ServerConfig, info, is_active, normalised};
use super::view::{Kind, Listed};
use super::{App, Caller, OnCreate, Page, Quota, changed_meanwhile, new_id, no_room};
use crate::db::{OutboxRow, Reader, ServerRow, Subject, Writer};
use crate::usage::{self, Edge};

impl App {
    /// The ids of the caller's servers.
    ///
    /// # Errors
    /// `InvalidValue` for a page that can't be; `Internal`.
    pub async fn server_ids(&self, caller: &Caller, page: &Page) -> Result<Vec<ServerId>> {
        let ids = self.servers_info(caller, page).await?;
        Ok(ids.ids().map(ServerId::from_uuid).collect())
    }

    /// The caller's servers.
    ///
    /// # Errors
    /// As [`App::server_ids`].
    pub async fn servers_info(&self, caller: &Caller, page: &Page) -> Result<Listed> {
        let list = (caller.account, Kind::Servers);
        self.view.page(&self.db, list, &page.of_servers()?, self.now()).await
    }

    /// Makes a server and, if asked, starts it and waits until it runs.
    ///
    /// # Errors
    /// Those of a record's check and of [`App::server_start`]; `NotFound` for a drive that the
    /// caller may not plug in. If it can't be started at once, it is not made either.
    pub async fn server_create(
        &self,
        caller: &Caller,
        record: &Record,
        on_create: OnCreate,
    ) -> Result<Record> {
        keys::check(Object::Server, Moment::Create, record)?;
        let mut config = Record::new();
        config.apply(&normalised(record)?);
        fill_in(&mut config, record, &Macs::draw()?);
        bounded(&config)?;
        let parsed = &ServerConfig::parse(&config)?;
        let change = match on_create {
            OnCreate::Start => Some(self.authorize_start(caller.account, parsed).await?),
            OnCreate::LeaveStopped => None,
        };
        let now = self.now();
        let made = &ServerRow {
            server: new_id(),
            account: caller.account,
            host: None,
            state: ServerState::Stopped,
            since: now,
            generation: 0,
            run: Run(0),
            powered: false,
            reset: 0,
            shutdown: 0,
            config,
            hardware: None,
            cpu: MegaHertz(0),
            memory: MebiBytes(0),
            change: None,
            seen_generation: 0,
            seen_reset: 0,
            ended_run: Run(0),
            started: None,
            screen: None,
            failed_run: Run(0),
            failed: None,
        };
        let row = self
            .intend_placing(caller, Subject::Server(made.server), Look::Now, |tx, mut placing| {
                Box::pin(async move {
                    let mut row = made.clone();
                    usable(tx, &row, parsed).await?;
                    self.take(tx, row.account, &[(Quota::Servers, 1)]).await?;
                    tx.save_server(&row).await?;
                    note_cards(tx, &row).await?;
                    if let Some(change) = change {
                        power_on(self, &mut placing, tx, &mut row, change, now).await?;
                        tx.save_server(&row).await?;
                    }
                    Ok(row)
                })
            })
            .await?;
        let row = self.await_run(row).await?;
        Ok(info(&row))
    }

    /// One server of the caller's.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn server_info(&self, caller: &Caller, server: ServerId) -> Result<Record> {
        self.server_seen(caller, server).await.map(|(record, _)| record)
    }

    /// One server of the caller's, and the version that it is at.
    ///
    /// # Errors
    /// `NotFound`.
    pub(crate) async fn server_seen(
        &self,
        caller: &Caller,
        server: ServerId,
    ) -> Result<(Record, String)> {
        let row = self.db.glance().await?.server(server).await?;
        let row = permitted(caller.account, row, Wish::See)?;
        Ok((info(&row), row.version()))
    }

    /// Changes a server: any key while it is stopped, some while it runs. A password or a screen
    /// that is set while it runs is there from its next start on.
    ///
    /// # Errors
    /// `NotFound`; those of a record's check; for more processor time of a running server
    /// `NoCapacity` and `PaymentRequired`; for its drives `DriveInUse`, and `Unavailable` if the
    /// guest has not let them come and go in time: the wish stands.
    pub async fn server_set(
        &self,
        caller: &Caller,
        server: ServerId,
        record: &Record,
    ) -> Result<Record> {
        let account = caller.account;
        let seen = permitted(account, self.db.glance().await?.server(server).await?, Wish::Own)?;
        let macs = &Macs::draw()?;
        let (_, parsed) = changed_config(&seen, record, macs)?;
        let change = if is_active(seen.state) && parsed.cpu > seen.cpu {
            let more = ChangeKind::StartServer { mhz: parsed.cpu.0, mib: seen.memory.0 };
            Some(self.authorize(account, more).await?)
        } else {
            None
        };
        let (row, changed) = self
            .intend(caller, Subject::Server(server), |tx| {
                Box::pin(async move {
                    let before = permitted(account, tx.server(server).await?, Wish::Own)?;
                    if (is_active(before.state), before.cpu) != (is_active(seen.state), seen.cpu) {
                        return Err(changed_meanwhile("server"));
                    }
                    let (config, parsed) = changed_config(&before, record, macs)?;
                    let mut row = before.clone();
                    row.config = config;
                    let mut changed = Drives::Stay;
                    if is_active(row.state) {
                        changed = self.change_running(tx, &mut row, &parsed, change).await?;
                    } else {
                        usable(tx, &row, &parsed).await?;
                    }
                    if row.config != before.config {
                        note_cards(tx, &row).await?;
                    }
                    if row != before {
                        tx.save_server(&row).await?;
                    }
                    Ok((row, changed))
                })
            })
            .await?;
        if row.generation == seen.generation {
            return Ok(info(&row));
        }
        let mut patience = self.patience_for(server);
        while let Some(mut reader) = patience.look().await? {
            let now = permitted(account, reader.server(server).await?, Wish::Own)?;
            if now.seen_generation >= row.generation {
                return Ok(info(&now));
            }
        }
        match changed {
            Drives::Stay => Ok(info(&row)),
            Drives::ComeOrGo => Err(Error::new(
                ErrorKind::Unavailable,
                "the guest has not let its drives come and go yet, and it is tried on: see failed in \
                 the server's info",
            )),
        }
    }

    /// Gives a running server other drives and another amount of processor time.
    async fn change_running(
        &self,
        tx: &mut Writer<'_>,
        row: &mut ServerRow,
        parsed: &ServerConfig,
        change: Option<ChangeId>,
    ) -> Result<Drives> {
        let drives = replug(tx, row, parsed).await?;
        if drives == Drives::ComeOrGo {
            row.generation += 1;
            queue(tx, row).await?;
        }
        let Some(hardware) = row.hardware.as_mut().filter(|_| parsed.cpu != row.cpu) else {
            return Ok(drives);
        };
        let host = row.host.ok_or_else(|| Error::internal("a server runs on no host"))?;
        let growth = parsed.cpu.0.saturating_sub(row.cpu.0);
        self.take(tx, row.account, &[(Quota::Cpu, growth.into())]).await?;
        let free = tx.room_of(host).await?.map_or(0, |room| room.cpu.0);
        if growth > free {
            let (wanted, available) = (growth.into(), free.into());
            return Err(no_room(Refusal { constraint: Constraint::Cpu, wanted, available }));
        }
        hardware.cpu_mhz = parsed.cpu.0;
        row.cpu = parsed.cpu;
        row.generation += 1;
        tx.queue(host, OutboxRow::Server(row.server), row.generation).await?;
        if row.started.is_some() {
            let edge = Edge::Ours(self.now());
            let quantity = parsed.cpu.0.into();
            usage::change_quantity(tx, &metered(row, Meter::Cpu), quantity, edge, change).await?;
        } else {
            row.change = change.or(row.change);
        }
        Ok(drives)
    }

    /// What a server wrote to its serial port; nothing if it never ran.
    ///
    /// # Errors
    /// `NotFound`; `Unavailable` if its host does not answer.
    pub async fn server_serial(&self, caller: &Caller, server: ServerId) -> Result<bytes::Bytes> {
        let row = self.db.glance().await?.server(server).await?;
        match permitted(caller.account, row, Wish::See)?.host {
            Some(host) => self.data.serial(host, server).await,
            None => Ok(bytes::Bytes::new()),
        }
    }
}

/// The server's keys and what they mean after `record` is laid over them. What sets a key to the
/// value that it has is no change.
fn changed_config(row: &ServerRow, record: &Record, macs: &Macs) -> Result<(Record, ServerConfig)> {
    keys::check(Object::Server, Moment::SetStopped, record)?;
    let wished = normalised(record)?;
    let mut change = Record::new();
    for (key, value) in wished.iter() {
        if row.config.value(key).unwrap_or_default() != value {
            change.set(key, value);
        }
    }
    if is_active(row.state) {
        keys::check(Object::Server, Moment::SetRunning, &change)?;
    }
    let mut config = row.config.clone();
    config.apply(&change);
    if !is_active(row.state) {
        fill_in(&mut config, &change, macs);
    }
    bounded(&config)?;
    let parsed = ServerConfig::parse(&config)?;
    Ok((config, parsed))
}

/// Refuses drives and resources that the server's owner may not use, and hardware addresses that
/// are taken.
async fn usable(reader: &mut Reader, row: &ServerRow, parsed: &ServerConfig) -> Result<()> {
    for plug in &parsed.plugs {
        permitted(row.account, reader.drive(plug.drive).await?, plug.wish())
            .map_err(|error| error.field(plug.device.to_string()))?;
    }
    for wire in &parsed.wires {
        permitted(row.account, reader.resource(wire.resource).await?, Wish::Own)
            .map_err(|error| error.field(&wire.key))?;
    }
    unlike_others(reader, row).await
}
