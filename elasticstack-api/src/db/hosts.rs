//! Rows of hosts and arrays, and the free room that follows from all intents.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use elasticstack_core::block::{Disks, Warning};
use elasticstack_core::prelude::*;
use elasticstack_core::scheduler::{ArrayRoom, HostRoom, Tier};
use elasticstack_core::state::{DriveState, HostState, ServerState, SnapshotState};
use elasticstack_core::wire::internal::Cursor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::dialect::{Row, Statement};
use super::row::{
    bytes, column, failed, instant, number, parsed, parsed_if_any, small, stored, word,
};
use super::{Reader, Writer, one};

/// Whether anything new may be placed somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placements {
    Open,
    Closed,
}

impl Placements {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Closed => "closed",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        [Self::Open, Self::Closed].into_iter().find(|it| it.as_str() == word)
    }
}

/// By which certificate a host is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Known {
    /// By any of the authority's that names it, as before there were others.
    ByName,
    /// By the one with this SHA-256.
    By(String),
    /// By none: it is spoken with no more.
    Revoked,
}

impl Known {
    const REVOKED: &'static str = "revoked";

    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::ByName => "",
            Self::By(hash) => hash,
            Self::Revoked => Self::REVOKED,
        }
    }

    fn from_column(text: String) -> Self {
        match text.as_str() {
            "" => Self::ByName,
            Self::REVOKED => Self::Revoked,
            _ => Self::By(text),
        }
    }
}

/// What a host last said of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ArrayHealth {
    Online,
    Failed,
    /// Nothing: it is known from before.
    Missing,
}

impl ArrayHealth {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Online => "online",
            Self::Failed => "failed",
            Self::Missing => "missing",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        [Self::Online, Self::Failed, Self::Missing].into_iter().find(|it| it.as_str() == word)
    }
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostRow {
    pub(crate) host: HostId,
    pub(crate) name: Name,
    pub(crate) address: String,
    pub(crate) state: HostState,
    /// When it entered its state.
    pub(crate) since: Timestamp,
    pub(crate) placements: Placements,
    pub(crate) known: Known,
    pub(crate) cpu: MegaHertz,
    pub(crate) memory: MebiBytes,
    /// What runs its guests, and why.
    pub(crate) accelerator: String,
    /// How processor time is limited there, or `none`.
    pub(crate) cpu_limits: String,
    /// Where it lends drives to servers on other hosts; `None` if it does not.
    pub(crate) portal: Option<SocketAddr>,
    /// Whether it runs containers.
    pub(crate) containers: bool,
    /// Up to where its reports are known to be taken in.
    pub(crate) cursor: Option<Cursor>,
}

/// An array of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArrayRow {
    pub(crate) array: ArrayId,
    pub(crate) host: HostId,
    pub(crate) name: String,
    pub(crate) health: ArrayHealth,
    pub(crate) placements: Placements,
    /// The most that drives on it may sum up to; zero while it has failed and once its host no
    /// longer tells of it.
    pub(crate) capacity: Bytes,
    /// How its disks are, if its host says.
    pub(crate) disks: Option<Disks>,
    /// What its host says an operator should look at.
    pub(crate) warnings: Vec<Warning>,
}

/// What servers hold of a host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Held {
    pub(crate) servers: u64,
    /// In MHz.
    pub(crate) cpu: u64,
    /// In MiB.
    pub(crate) memory: u64,
}

/// What an array has promised.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Promised {
    /// To drives and snapshots.
    pub(crate) bytes: Bytes,
    /// How many drives there are among them.
    pub(crate) drives: u64,
}

/// What one server holds of a host, or one drive or snapshot of an array.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Hold {
    /// `None` holds nothing.
    Server(ServerId, Option<(HostId, Held)>),
    Drive(DriveId, Option<(ArrayId, Bytes)>),
    Snapshot(SnapshotId, Option<(ArrayId, Bytes)>),
}

impl HostRow {
    /// Its free room where servers hold so much of it.
    pub(crate) fn room(&self, held: Held, arrays: Vec<ArrayRoom>) -> HostRoom {
        let left = |all: u32, held: u64| {
            u32::try_from(u64::from(all).saturating_sub(held)).unwrap_or(u32::MAX)
        };
        HostRoom {
            host: self.host,
            accepts: self.state == HostState::Active && self.placements == Placements::Open,
            lends: self.portal.is_some(),
            containers: self.containers,
            cpu: MegaHertz(left(self.cpu.0, held.cpu)),
            memory: MebiBytes(left(self.memory.0, held.memory)),
            arrays,
        }
    }
}

impl ArrayRow {
    /// Its free room where drives are promised so much of it.
    pub(crate) fn room(&self, promised: Bytes) -> ArrayRoom {
        let free = self.capacity.saturating_sub(promised);
        let accepts = self.placements == Placements::Open;
        ArrayRoom { array: self.array, accepts, tier: Tier::Disk, free }
    }
}

fn server_hold(row: &Row) -> Result<Hold> {
    let holds = ServerState::HOLDS_RESOURCES.contains(&word(row, "state", ServerState::from_word)?);
    let host = parsed_if_any(row, "place")?.filter(|_| holds);
    let held = Held { servers: 1, cpu: number(row, "one")?, memory: number(row, "two")? };
    Ok(Hold::Server(parsed(row, "holder")?, host.map(|host| (host, held))))
}

/// A drive that is to shrink holds its old size until its host has made it smaller.
fn drive_hold(row: &Row) -> Result<Hold> {
    let holds = DriveState::HOLDS_ROOM.contains(&word(row, "state", DriveState::from_word)?);
    let size = bytes(row, "one")?.max(bytes(row, "two")?);
    let promised = holds.then_some((parsed(row, "place")?, size));
    Ok(Hold::Drive(parsed(row, "holder")?, promised))
}

fn snapshot_hold(row: &Row) -> Result<Hold> {
    let state = word(row, "state", SnapshotState::from_word)?;
    let holds = SnapshotState::HOLDS_ROOM.contains(&state);
    let promised = holds.then_some((parsed(row, "place")?, bytes(row, "one")?));
    Ok(Hold::Snapshot(parsed(row, "holder")?, promised))
}

fn host(row: &Row) -> Result<HostRow> {
    let life: Option<String> = column(row, "cursor_life")?;
    let cursor = match life {
        None => None,
        Some(life) => Some(Cursor { life, sequence: number(row, "cursor_sequence")? }),
    };
    Ok(HostRow {
        host: parsed(row, "host")?,
        name: parsed(row, "name")?,
        address: column(row, "address")?,
        state: word(row, "state", HostState::from_word)?,
        since: instant(row, "since_us")?,
        placements: word(row, "placements", Placements::from_word)?,
        known: Known::from_column(column(row, "certificate")?),
        cpu: MegaHertz(small(row, "cpu_mhz")?),
        memory: MebiBytes(small(row, "memory_mib")?),
        accelerator: column(row, "accelerator")?,
        cpu_limits: column(row, "cpu_limits")?,
        portal: parsed_if_any(row, "portal")?,
        containers: number(row, "containers")? != 0,
        cursor,
    })
}

fn array(row: &Row) -> Result<ArrayRow> {
    Ok(ArrayRow {
        array: parsed(row, "array_id")?,
        host: parsed(row, "host")?,
        name: column(row, "name")?,
        health: word(row, "state", ArrayHealth::from_word)?,
        placements: word(row, "placements", Placements::from_word)?,
        capacity: bytes(row, "capacity")?,
        disks: json_if_any(row, "disks")?,
        warnings: json_if_any(row, "warnings")?.unwrap_or_default(),
    })
}

/// What stands in a column as the internal wire's JSON, if anything does.
fn json_if_any<T: DeserializeOwned>(row: &Row, name: &'static str) -> Result<Option<T>> {
    let json: Option<&str> = column(row, name)?;
    json.map(serde_json::from_str)
        .transpose()
        .map_err(|error| Error::internal("reading JSON of a column").context(name).source(error))
}

fn as_json(what: &impl Serialize) -> Result<String> {
    serde_json::to_string(what)
        .map_err(|error| Error::internal("writing JSON of a column").source(error))
}

impl Reader {
    /// The hosts that were changed at the mark `since` or after it.
    pub(crate) async fn hosts_since(&mut self, since: i64) -> Result<Vec<HostRow>> {
        let rows = self
            .statement("SELECT * FROM hosts WHERE changed >= $1")
            .bind(since)
            .fetch_all()
            .await
            .map_err(failed("reading changed hosts"))?;
        rows.iter().map(host).collect()
    }

    /// The arrays that were changed at the mark `since` or after it.
    pub(crate) async fn arrays_since(&mut self, since: i64) -> Result<Vec<ArrayRow>> {
        let rows = self
            .statement("SELECT * FROM arrays WHERE changed >= $1")
            .bind(since)
            .fetch_all()
            .await
            .map_err(failed("reading changed arrays"))?;
        rows.iter().map(array).collect()
    }

    /// Hands over what is held by what was changed at the mark `since` or after it. From the first
    /// mark on, what holds nothing and will not again is left out.
    pub(crate) async fn holds_since(
        &mut self,
        since: i64,
        mut take: impl FnMut(Hold),
    ) -> Result<()> {
        self.statement(
            "SELECT 'server' AS kind, server AS holder, host AS place, state, cpu_mhz AS one, \
             memory_mib AS two FROM servers WHERE changed >= $1 AND ($1 > 0 OR state <> $2) \
             UNION ALL SELECT 'drive', drive, array_id, state, size, seen_size FROM drives \
             WHERE changed >= $1 AND ($1 > 0 OR state <> $3) \
             UNION ALL SELECT 'snapshot', snapshot, array_id, state, size, size FROM snapshots \
             WHERE changed >= $1 AND ($1 > 0 OR state <> $4)",
        )
        .bind(since)
        .bind(ServerState::Gone.as_str())
        .bind(DriveState::Gone.as_str())
        .bind(SnapshotState::Gone.as_str())
        .each("reading what holds room", |row| {
            let hold: fn(&Row) -> Result<Hold> = match column(row, "kind")? {
                "server" => server_hold,
                "drive" => drive_hold,
                _ => snapshot_hold,
            };
            take(hold(row)?);
            Ok(())
        })
        .await
    }

    /// Every host, ordered by id.
    pub(crate) async fn hosts(&mut self) -> Result<Vec<HostRow>> {
        let rows = self
            .statement("SELECT * FROM hosts ORDER BY host")
            .fetch_all()
            .await
            .map_err(failed("reading the hosts"))?;
        rows.iter().map(host).collect()
    }

    /// How many hosts there are.
    pub(crate) async fn host_count(&mut self) -> Result<u64> {
        let row = self
            .statement("SELECT COUNT(*) AS hosts FROM hosts")
            .fetch_one()
            .await
            .map_err(failed("counting the hosts"))?;
        number(&row, "hosts")
    }

    /// How many hosts have a certificate that is good.
    pub(crate) async fn host_count_but_revoked(&mut self) -> Result<u64> {
        let row = self
            .statement("SELECT COUNT(*) AS hosts FROM hosts WHERE certificate <> $1")
            .bind(Known::REVOKED)
            .fetch_one()
            .await
            .map_err(failed("counting the hosts that may be spoken with"))?;
        number(&row, "hosts")
    }

    /// The hosts that are in another state than active.
    pub(crate) async fn hosts_but_active(&mut self) -> Result<Vec<HostId>> {
        let rows = self
            .statement("SELECT host FROM hosts WHERE state <> $1")
            .bind(HostState::Active.as_str())
            .fetch_all()
            .await
            .map_err(failed("reading the hosts that are not active"))?;
        rows.iter().map(|row| parsed(row, "host")).collect()
    }

    /// The host of this id.
    pub(crate) async fn host(&mut self, id: HostId) -> Result<Option<HostRow>> {
        let row = self
            .one(one!("SELECT * FROM hosts WHERE host = $1"))
            .bind(id.to_string())
            .fetch_optional()
            .await
            .map_err(failed("reading a host"))?;
        row.as_ref().map(host).transpose()
    }

    /// The arrays of a host.
    pub(crate) async fn arrays_of(&mut self, host: HostId) -> Result<BTreeMap<ArrayId, ArrayRow>> {
        let rows = self
            .statement("SELECT * FROM arrays WHERE host = $1")
            .bind(host.to_string())
            .fetch_all()
            .await
            .map_err(failed("reading the arrays of a host"))?;
        rows.iter().map(|row| array(row).map(|array| (array.array, array))).collect()
    }

    /// The array of this id.
    pub(crate) async fn array(&mut self, id: ArrayId) -> Result<Option<ArrayRow>> {
        let row = self
            .statement("SELECT * FROM arrays WHERE array_id = $1")
            .bind(id.to_string())
            .fetch_optional()
            .await
            .map_err(failed("reading an array"))?;
        row.as_ref().map(array).transpose()
    }

    /// Every array, in the order of their ids.
    pub(crate) async fn arrays(&mut self) -> Result<Vec<ArrayRow>> {
        let rows = self
            .statement("SELECT * FROM arrays ORDER BY array_id")
            .fetch_all()
            .await
            .map_err(failed("reading all arrays"))?;
        rows.iter().map(array).collect()
    }

    /// The free room of one host, as if it had no array: what it has, less what intents hold of
    /// it. Nothing else reserves.
    pub(crate) async fn room_of(&mut self, host: HostId) -> Result<Option<HostRoom>> {
        let held = self.host_with_held(host).await?;
        Ok(held.map(|(row, held)| row.room(held, Vec::new())))
    }

    /// The free room of one host's arrays, by the same rule.
    pub(crate) async fn array_rooms_of(&mut self, host: HostId) -> Result<Vec<ArrayRoom>> {
        let arrays = self.arrays_with_promised(host).await?;
        Ok(arrays.values().map(|(row, promised)| row.room(promised.bytes)).collect())
    }

    /// The host of this id, and what servers hold of it.
    pub(crate) async fn host_with_held(&mut self, id: HostId) -> Result<Option<(HostRow, Held)>> {
        let statement = self.statement(
            "SELECT hosts.*, held.servers, COALESCE(held.cpu, 0) AS cpu, \
             COALESCE(held.memory, 0) AS memory FROM hosts LEFT JOIN \
              (SELECT COUNT(*) AS servers, CAST(SUM(cpu_mhz) AS BIGINT) AS cpu, \
               CAST(SUM(memory_mib) AS BIGINT) AS memory FROM servers \
               WHERE state IN ($1, $2, $3, $4, $5, $6) AND host = $7) AS held ON 1 = 1 \
             WHERE hosts.host = $7",
        );
        let row = holding_resources(statement).bind(id.to_string()).fetch_optional().await;
        let row = row.map_err(failed("reading a host and what servers hold of it"))?;
        row.as_ref().map(|row| Ok((host(row)?, held(row)?))).transpose()
    }

    /// The arrays of a host, and what each has promised.
    pub(crate) async fn arrays_with_promised(
        &mut self,
        host: HostId,
    ) -> Result<BTreeMap<ArrayId, (ArrayRow, Promised)>> {
        let statement = self.statement(
            "SELECT arrays.*, (SELECT CAST(COALESCE(SUM(CASE WHEN seen_size > size \
               THEN seen_size ELSE size END), 0) AS BIGINT) FROM drives \
               WHERE drives.array_id = arrays.array_id AND state IN ($1, $2, $3)) + \
             (SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM snapshots \
               WHERE snapshots.array_id = arrays.array_id AND state IN ($4, $5, $6, $7)) \
             AS promised, \
             (SELECT COUNT(*) FROM drives \
               WHERE drives.array_id = arrays.array_id AND state IN ($1, $2, $3)) AS drives \
             FROM arrays WHERE arrays.host = $8",
        );
        let rows = holding_room(statement).bind(host.to_string()).fetch_all().await;
        let rows = rows.map_err(failed("reading arrays and what they have promised"))?;
        let with_promised = |row| {
            let array = array(row)?;
            Ok((array.array, (array, promised(row)?)))
        };
        rows.iter().map(with_promised).collect()
    }

    /// What servers hold of every host.
    pub(crate) async fn held_by_servers(&mut self) -> Result<BTreeMap<HostId, Held>> {
        let statement = self.statement(
            "SELECT host, COUNT(*) AS servers, CAST(SUM(cpu_mhz) AS BIGINT) AS cpu, \
             CAST(SUM(memory_mib) AS BIGINT) AS memory FROM servers \
             WHERE host IS NOT NULL AND state IN ($1, $2, $3, $4, $5, $6) GROUP BY host",
        );
        let rows = holding_resources(statement).fetch_all().await;
        let rows = rows.map_err(failed("summing what servers hold"))?;
        rows.iter().map(|row| Ok((parsed(row, "host")?, held(row)?))).collect()
    }

    /// What every array has promised to drives and snapshots. A drive that is to shrink holds its
    /// old size until its host has made it smaller.
    pub(crate) async fn promised(&mut self) -> Result<BTreeMap<ArrayId, Promised>> {
        let statement = self.statement(
            "SELECT array_id, CAST(SUM(bytes) AS BIGINT) AS promised, \
             CAST(SUM(drives) AS BIGINT) AS drives FROM \
              (SELECT array_id, CASE WHEN seen_size > size THEN seen_size ELSE size END AS bytes, \
               1 AS drives FROM drives WHERE state IN ($1, $2, $3) UNION ALL \
               SELECT array_id, size AS bytes, 0 AS drives FROM snapshots \
               WHERE state IN ($4, $5, $6, $7)) \
              AS held GROUP BY array_id",
        );
        let rows = holding_room(statement).fetch_all().await;
        let rows = rows.map_err(failed("summing what arrays have promised"))?;
        rows.iter().map(|row| Ok((parsed(row, "array_id")?, promised(row)?))).collect()
    }
}

/// Binds the states in which a drive and a snapshot hold room.
fn holding_room(statement: Statement<'_>) -> Statement<'_> {
    let drives = DriveState::HOLDS_ROOM.iter().map(|state| state.as_str());
    let snapshots = SnapshotState::HOLDS_ROOM.iter().map(|state| state.as_str());
    drives.chain(snapshots).fold(statement, Statement::bind)
}

fn promised(row: &Row) -> Result<Promised> {
    Ok(Promised { bytes: bytes(row, "promised")?, drives: number(row, "drives")? })
}

/// Binds the states in which a server holds resources.
fn holding_resources(statement: Statement<'_>) -> Statement<'_> {
    let states = ServerState::HOLDS_RESOURCES.iter().map(|state| state.as_str());
    states.fold(statement, Statement::bind)
}

fn held(row: &Row) -> Result<Held> {
    Ok(Held {
        servers: number(row, "servers")?,
        cpu: number(row, "cpu")?,
        memory: number(row, "memory")?,
    })
}

impl Writer<'_> {
    /// Adds the host or replaces its row.
    pub(crate) async fn save_host(&mut self, row: &HostRow) -> Result<()> {
        let HostRow { host, name, address, state, cpu, memory, accelerator, cpu_limits, .. } = row;
        let HostRow { cursor, since, placements, known, portal, containers, .. } = row;
        let mark = self.mark().await?;
        self.change(
            "INSERT INTO hosts (host, name, address, state, cpu_mhz, memory_mib, cursor_life, \
             cursor_sequence, accelerator, cpu_limits, since_us, placements, certificate, portal, \
             changed, containers) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16) \
             ON CONFLICT (host) DO UPDATE SET name = excluded.name, address = excluded.address, \
             state = excluded.state, cpu_mhz = excluded.cpu_mhz, \
             memory_mib = excluded.memory_mib, cursor_life = excluded.cursor_life, \
             cursor_sequence = excluded.cursor_sequence, accelerator = excluded.accelerator, \
             cpu_limits = excluded.cpu_limits, since_us = excluded.since_us, \
             placements = excluded.placements, certificate = excluded.certificate, \
             portal = excluded.portal, changed = excluded.changed, \
             containers = excluded.containers",
        )
        .bind(host.to_string())
        .bind(name.as_str())
        .bind(address)
        .bind(state.as_str())
        .bind(i64::from(cpu.0))
        .bind(i64::from(memory.0))
        .bind(cursor.as_ref().map(|cursor| cursor.life.as_str()))
        .bind(cursor.as_ref().map(|cursor| stored(cursor.sequence)))
        .bind(accelerator)
        .bind(cpu_limits)
        .bind(since.as_micros())
        .bind(placements.as_str())
        .bind(known.as_str())
        .bind(portal.map(|portal| portal.to_string()))
        .bind(mark)
        .bind(i64::from(*containers))
        .execute()
        .await
        .map_err(failed("saving a host"))?;
        Ok(())
    }

    /// Notes up to where a host's reports are taken in.
    pub(crate) async fn move_cursor(&mut self, host: HostId, cursor: &Cursor) -> Result<()> {
        self.change("UPDATE hosts SET cursor_life = $2, cursor_sequence = $3 WHERE host = $1")
            .bind(host.to_string())
            .bind(cursor.life.as_str())
            .bind(stored(cursor.sequence))
            .execute()
            .await
            .map_err(failed("noting how far a host's reports are taken in"))?;
        Ok(())
    }

    /// Notes an array. One that is known to be another host's is left.
    pub(crate) async fn save_array(&mut self, row: &ArrayRow) -> Result<()> {
        let ArrayRow { array, host, name, health, placements, capacity, disks, warnings } = row;
        let before = self.reader.array(*array).await?;
        if before.as_ref().is_some_and(|before| before.host != *host) {
            return Ok(());
        }
        self.note(before.as_ref(), row);
        let mark = self.mark().await?;
        let disks = disks.as_ref().map(as_json).transpose()?;
        let warnings = Some(warnings).filter(|some| !some.is_empty()).map(as_json).transpose()?;
        self.change(
            "INSERT INTO arrays (array_id, host, name, capacity, state, placements, disks, warnings, \
             changed) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9) \
             ON CONFLICT (array_id) DO UPDATE SET name = excluded.name, \
             capacity = excluded.capacity, state = excluded.state, \
             placements = excluded.placements, disks = excluded.disks, \
             warnings = excluded.warnings, changed = excluded.changed",
        )
        .bind(array.to_string())
        .bind(host.to_string())
        .bind(name)
        .bind(capacity.to_i64())
        .bind(health.as_str())
        .bind(placements.as_str())
        .bind(disks)
        .bind(warnings)
        .bind(mark)
        .execute()
        .await
        .map_err(failed("saving an array"))?;
        Ok(())
    }
}
