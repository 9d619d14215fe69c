//! Rows of hosts and arrays, and the free room that follows from all intents.

use std::collections::BTreeMap;

use elasticstack_core::prelude::*;
use elasticstack_core::scheduler::{ArrayRoom, HostRoom, Inventory, Tier};
use elasticstack_core::state::{DriveState, HostState, ServerState};
use elasticstack_core::wire::internal::Cursor;

use super::dialect::Row;
use super::filter::Filter;
use super::row::{bytes, column, failed, number, parsed, small, stored, word};
use super::{Reader, Writer};

/// A host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HostRow {
    pub(crate) host: HostId,
    pub(crate) name: Name,
    pub(crate) address: String,
    pub(crate) state: HostState,
    pub(crate) cpu: MegaHertz,
    pub(crate) memory: MebiBytes,
    /// What runs its guests, and why.
    pub(crate) accelerator: String,
    /// How processor time is limited there, or `none`.
    pub(crate) cpu_limits: String,
    /// Up to where its reports are taken in.
    pub(crate) cursor: Option<Cursor>,
}

/// An array of a host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArrayRow {
    pub(crate) name: String,
    /// The most that drives on it may sum up to; zero while it has failed and once its host no
    /// longer tells of it.
    pub(crate) capacity: Bytes,
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
        cpu: MegaHertz(small(row, "cpu_mhz")?),
        memory: MebiBytes(small(row, "memory_mib")?),
        accelerator: column(row, "accelerator")?,
        cpu_limits: column(row, "cpu_limits")?,
        cursor,
    })
}

impl Reader {
    /// Every host, ordered by id.
    pub(crate) async fn hosts(&mut self) -> Result<Vec<HostRow>> {
        let rows = self
            .statement("SELECT * FROM hosts ORDER BY host")
            .fetch_all()
            .await
            .map_err(failed("reading the hosts"))?;
        rows.iter().map(host).collect()
    }

    /// The hosts that are wanted, in the order of their ids.
    pub(crate) async fn hosts_page(&mut self, wanted: &Filter<HostState>) -> Result<Vec<HostRow>> {
        let states: [&str; 3] = wanted.words(|state| state.as_str());
        let statement = self.statement(
            "SELECT * FROM hosts WHERE $1 = '' AND host > $2 AND ($3 = '' OR name = $3) \
             AND $4 = '' AND state IN ($6, $7, $8) ORDER BY host LIMIT $5",
        );
        let rows = states
            .into_iter()
            .fold(wanted.bind(statement.bind("")), super::dialect::Statement::bind)
            .fetch_all()
            .await
            .map_err(failed("reading a page of hosts"))?;
        rows.iter().map(host).collect()
    }

    /// The host of this id.
    pub(crate) async fn host(&mut self, id: HostId) -> Result<Option<HostRow>> {
        let row = self
            .statement("SELECT * FROM hosts WHERE host = $1")
            .bind(id.to_string())
            .fetch_optional()
            .await
            .map_err(failed("reading a host"))?;
        row.as_ref().map(host).transpose()
    }

    /// The arrays of a host.
    pub(crate) async fn arrays_of(&mut self, host: HostId) -> Result<BTreeMap<ArrayId, ArrayRow>> {
        let rows = self
            .statement("SELECT array_id, name, capacity FROM arrays WHERE host = $1")
            .bind(host.to_string())
            .fetch_all()
            .await
            .map_err(failed("reading the arrays of a host"))?;
        rows.iter()
            .map(|row| {
                let array =
                    ArrayRow { name: column(row, "name")?, capacity: bytes(row, "capacity")? };
                Ok((parsed(row, "array_id")?, array))
            })
            .collect()
    }

    /// All free room: what the hosts have, less what intents hold of it. Nothing else reserves.
    pub(crate) async fn inventory(&mut self) -> Result<Inventory> {
        let held = self.held_by_servers().await?;
        let promised = self.promised_to_drives().await?;
        let mut inventory = Inventory::default();
        let mut arrays = self.array_rooms(&promised).await?;
        for row in self.hosts().await? {
            let (cpu, memory) = held.get(&row.host).copied().unwrap_or_default();
            inventory.hosts.push(HostRoom {
                host: row.host,
                accepts: row.state == HostState::Active,
                // No host lends yet: a server runs where its drives are.
                lends: false,
                cpu: MegaHertz(row.cpu.0.saturating_sub(cpu)),
                memory: MebiBytes(row.memory.0.saturating_sub(memory)),
                arrays: arrays.remove(&row.host).unwrap_or_default(),
            });
        }
        Ok(inventory)
    }

    /// The arrays of every host, each in the order of their ids.
    async fn array_rooms(
        &mut self,
        promised: &BTreeMap<ArrayId, Bytes>,
    ) -> Result<BTreeMap<HostId, Vec<ArrayRoom>>> {
        let rows = self
            .statement("SELECT host, array_id, capacity FROM arrays ORDER BY array_id")
            .fetch_all()
            .await
            .map_err(failed("reading all arrays"))?;
        let mut rooms = BTreeMap::<HostId, Vec<ArrayRoom>>::new();
        for row in &rows {
            let array = parsed(row, "array_id")?;
            let promised = promised.get(&array).copied().unwrap_or_default();
            let free = bytes(row, "capacity")?.saturating_sub(promised);
            let room = ArrayRoom { array, accepts: true, tier: Tier::Disk, free };
            rooms.entry(parsed(row, "host")?).or_default().push(room);
        }
        Ok(rooms)
    }

    async fn held_by_servers(&mut self) -> Result<BTreeMap<HostId, (u32, u32)>> {
        let rows = self
            .statement(
                "SELECT host, state, CAST(SUM(cpu_mhz) AS BIGINT) AS cpu, \
             CAST(SUM(memory_mib) AS BIGINT) AS memory FROM servers \
             WHERE host IS NOT NULL AND state <> $1 GROUP BY host, state",
            )
            .bind(ServerState::Gone.as_str())
            .fetch_all()
            .await
            .map_err(failed("summing what servers hold"))?;
        let mut held = BTreeMap::<HostId, (u32, u32)>::new();
        for row in &rows {
            let state = word(row, "state", ServerState::from_word)?;
            if ServerState::HOLDS_RESOURCES.contains(&state) {
                let (cpu, memory) = held.entry(parsed(row, "host")?).or_default();
                *cpu = cpu.saturating_add(small(row, "cpu")?);
                *memory = memory.saturating_add(small(row, "memory")?);
            }
        }
        Ok(held)
    }

    /// A drive that is to shrink holds its old size until its host has made it smaller.
    pub(crate) async fn promised_to_drives(&mut self) -> Result<BTreeMap<ArrayId, Bytes>> {
        let rows = self
            .statement(
                "SELECT array_id, state, CAST(SUM(CASE WHEN seen_size > size THEN seen_size \
             ELSE size END) AS BIGINT) AS promised FROM drives \
             WHERE state <> $1 GROUP BY array_id, state",
            )
            .bind(DriveState::Gone.as_str())
            .fetch_all()
            .await
            .map_err(failed("summing what drives are promised"))?;
        let mut promised = BTreeMap::<ArrayId, Bytes>::new();
        for row in &rows {
            let state = word(row, "state", DriveState::from_word)?;
            if DriveState::HOLDS_ROOM.contains(&state) {
                let sum = promised.entry(parsed(row, "array_id")?).or_default();
                *sum = sum.checked_add(bytes(row, "promised")?).ok_or_else(|| {
                    Error::internal("the drives of one array sum up to more than any size")
                })?;
            }
        }
        Ok(promised)
    }
}

impl Writer<'_> {
    /// Adds the host or replaces its row.
    pub(crate) async fn save_host(&mut self, row: &HostRow) -> Result<()> {
        let HostRow { host, name, address, state, cpu, memory, accelerator, cpu_limits, cursor } =
            row;
        self.change(
            "INSERT INTO hosts (host, name, address, state, cpu_mhz, memory_mib, cursor_life, \
             cursor_sequence, accelerator, cpu_limits) \
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10) \
             ON CONFLICT (host) DO UPDATE SET name = excluded.name, address = excluded.address, \
             state = excluded.state, cpu_mhz = excluded.cpu_mhz, \
             memory_mib = excluded.memory_mib, cursor_life = excluded.cursor_life, \
             cursor_sequence = excluded.cursor_sequence, accelerator = excluded.accelerator, \
             cpu_limits = excluded.cpu_limits",
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
        .execute()
        .await
        .map_err(failed("saving a host"))?;
        Ok(())
    }

    /// Notes an array of `host`. One that is known to be another host's is left.
    pub(crate) async fn save_array(
        &mut self,
        host: HostId,
        array: ArrayId,
        ArrayRow { name, capacity }: &ArrayRow,
    ) -> Result<()> {
        self.change(
            "INSERT INTO arrays (array_id, host, name, capacity) VALUES ($1, $2, $3, $4) \
             ON CONFLICT (array_id) DO UPDATE SET name = excluded.name, \
             capacity = excluded.capacity \
             WHERE arrays.host = excluded.host",
        )
        .bind(array.to_string())
        .bind(host.to_string())
        .bind(name)
        .bind(capacity.to_i64())
        .execute()
        .await
        .map_err(failed("saving an array"))?;
        Ok(())
    }
}
