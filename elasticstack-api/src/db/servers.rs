//! Rows of servers.

use std::net::SocketAddr;

use elasticstack_core::prelude::*;
use elasticstack_core::state::ServerState;
use elasticstack_core::wire::internal::Hardware;
use elasticstack_core::wire::record::Record;

use super::dialect::Row;
use super::row::{
    column, failed, from_json_if_any, from_record, instant, number, parsed, parsed_if_any, record,
    small, stored, to_json_if_any, word,
};
use super::{Reader, Writer, one};

/// A server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServerRow {
    pub(crate) server: ServerId,
    pub(crate) account: AccountId,
    /// Where its newest run is or was; `None` if it never ran.
    pub(crate) host: Option<HostId>,
    pub(crate) state: ServerState,
    /// When it entered its state, or its host was last reminded of it.
    pub(crate) since: Timestamp,
    pub(crate) generation: u64,
    pub(crate) run: Run,
    /// Whether its newest run should go on.
    pub(crate) powered: bool,
    pub(crate) reset: u64,
    pub(crate) shutdown: u64,
    /// The keys that its owner set.
    pub(crate) config: Record,
    /// What its newest run is to look like; `None` if it never ran.
    pub(crate) hardware: Option<Hardware>,
    /// What it takes of its host while it holds resources.
    pub(crate) cpu: MegaHertz,
    pub(crate) memory: MebiBytes,
    /// The change that its biller allowed for the newest run.
    pub(crate) change: Option<ChangeId>,
    /// The newest generation that its host has made true; 0 for none.
    pub(crate) seen_generation: u64,
    pub(crate) seen_reset: u64,
    /// The newest run that is known to be over; 0 for none.
    pub(crate) ended_run: Run,
    /// When its processors began to run, while they do.
    pub(crate) started: Option<Timestamp>,
    pub(crate) screen: Option<SocketAddr>,
    /// The run that `failed` is about; 0 for none.
    pub(crate) failed_run: Run,
    pub(crate) failed: Option<String>,
}

pub(super) fn server(row: &Row) -> Result<ServerRow> {
    let started: Option<i64> = column(row, "started_us")?;
    Ok(ServerRow {
        server: parsed(row, "server")?,
        account: parsed(row, "account")?,
        host: parsed_if_any(row, "host")?,
        state: word(row, "state", ServerState::from_word)?,
        since: instant(row, "since_us")?,
        generation: number(row, "generation")?,
        run: Run(number(row, "run")?),
        powered: number(row, "powered")? != 0,
        reset: number(row, "reset")?,
        shutdown: number(row, "shutdown")?,
        config: record(row, "config")?,
        hardware: from_json_if_any(row, "hardware")?,
        cpu: MegaHertz(small(row, "cpu_mhz")?),
        memory: MebiBytes(small(row, "memory_mib")?),
        change: parsed_if_any(row, "change_id")?,
        seen_generation: number(row, "seen_generation")?,
        seen_reset: number(row, "seen_reset")?,
        ended_run: Run(number(row, "ended_run")?),
        started: started.map(Timestamp::from_micros),
        screen: parsed_if_any(row, "screen")?,
        failed_run: Run(number(row, "failed_run")?),
        failed: column(row, "failed")?,
    })
}

impl Reader {
    /// The server of this id, in whatever state.
    pub(crate) async fn server(&mut self, id: ServerId) -> Result<Option<ServerRow>> {
        let row = self
            .one(one!("SELECT * FROM servers WHERE server = $1"))
            .bind(id.to_string())
            .fetch_optional()
            .await
            .map_err(failed("reading a server"))?;
        row.as_ref().map(server).transpose()
    }

    /// Hands over the servers of an account that were changed at the mark `since` or after it. From
    /// the first mark on, what is gone is left out.
    pub(crate) async fn servers_since(
        &mut self,
        account: AccountId,
        since: i64,
        mut take: impl FnMut(ServerRow),
    ) -> Result<()> {
        self.statement(
            "SELECT * FROM servers WHERE account = $1 AND changed >= $2 \
             AND ($2 > 0 OR state <> $3)",
        )
        .bind(account.to_string())
        .bind(since)
        .bind(ServerState::Gone.as_str())
        .each("reading the servers of an account", |row| {
            take(server(row)?);
            Ok(())
        })
        .await
    }

    /// The servers that have been in `state` since before `before`.
    pub(crate) async fn servers_overdue(
        &mut self,
        state: ServerState,
        before: Timestamp,
    ) -> Result<Vec<ServerRow>> {
        let rows = self
            .statement("SELECT * FROM servers WHERE state = $1 AND since_us <= $2")
            .bind(state.as_str())
            .bind(before.as_micros())
            .fetch_all()
            .await
            .map_err(failed("reading overdue servers"))?;
        rows.iter().map(server).collect()
    }
}

impl Writer<'_> {
    /// As [`Reader::server`].
    pub(crate) async fn server(&mut self, id: ServerId) -> Result<Option<ServerRow>> {
        let row = self.reader.server(id).await?;
        self.read.server.clone_from(&row);
        Ok(row)
    }

    /// Adds the server or replaces its row.
    pub(crate) async fn save_server(&mut self, row: &ServerRow) -> Result<()> {
        self.tidings.saved(row.server.as_uuid());
        let ServerRow {
            server,
            account,
            host,
            state,
            since,
            generation,
            run,
            powered,
            reset,
            shutdown,
            config,
            hardware,
            cpu,
            memory,
            change,
            seen_generation,
            seen_reset,
            ended_run,
            started,
            screen,
            failed_run,
            failed: failure,
        } = row;
        let before = match self.read.server.take_if(|row| row.server == *server) {
            Some(before) => Some(before),
            None => self.reader.server(*server).await?,
        };
        self.note(before.as_ref(), row);
        let mark = self.mark().await?;
        let hardware = to_json_if_any(hardware.as_ref(), "hardware")?;
        self.change(
            "INSERT INTO servers (server, account, host, state, since_us, generation, run, \
             powered, reset, shutdown, config, hardware, cpu_mhz, memory_mib, change_id, \
             seen_generation, seen_reset, ended_run, started_us, screen, failed_run, failed, \
             changed) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, \
             $18, $19, $20, $21, $22, $23) \
             ON CONFLICT (server) DO UPDATE SET host = excluded.host, state = excluded.state, \
             since_us = excluded.since_us, generation = excluded.generation, run = excluded.run, \
             powered = excluded.powered, reset = excluded.reset, shutdown = excluded.shutdown, \
             config = excluded.config, hardware = excluded.hardware, \
             cpu_mhz = excluded.cpu_mhz, memory_mib = excluded.memory_mib, \
             change_id = excluded.change_id, seen_generation = excluded.seen_generation, \
             seen_reset = excluded.seen_reset, ended_run = excluded.ended_run, \
             started_us = excluded.started_us, \
             screen = excluded.screen, failed_run = excluded.failed_run, \
             failed = excluded.failed, changed = excluded.changed",
        )
        .bind(server.to_string())
        .bind(account.to_string())
        .bind(host.map(|host| host.to_string()))
        .bind(state.as_str())
        .bind(since.as_micros())
        .bind(stored(*generation))
        .bind(stored(run.0))
        .bind(i64::from(*powered))
        .bind(stored(*reset))
        .bind(stored(*shutdown))
        .bind(from_record(config)?)
        .bind(hardware)
        .bind(i64::from(cpu.0))
        .bind(i64::from(memory.0))
        .bind(change.map(|change| change.to_string()))
        .bind(stored(*seen_generation))
        .bind(stored(*seen_reset))
        .bind(stored(ended_run.0))
        .bind(started.map(Timestamp::as_micros))
        .bind(screen.map(|screen| screen.to_string()))
        .bind(stored(failed_run.0))
        .bind(failure)
        .bind(mark)
        .execute()
        .await
        .map_err(failed("saving a server"))?;
        Ok(())
    }
}
