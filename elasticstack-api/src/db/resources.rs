//! Rows of static IPs and VLANs, of the pools that addresses come from, and of the claims that
//! running servers have on them.

use std::net::Ipv4Addr;

use elasticstack_core::prelude::*;
use elasticstack_core::resource::{ResourceId, ResourceKind};
use elasticstack_core::wire::record::Record;

use super::dialect::Row;
use super::row::{
    column, failed, from_record, number, parsed, parsed_if_any, record, small, stored, word,
};
use super::{Holder, Reader, Subject, Writer};

/// A range of addresses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PoolRow {
    pub(crate) pool: PoolId,
    pub(crate) name: Name,
    pub(crate) first: Ipv4Addr,
    pub(crate) last: Ipv4Addr,
    pub(crate) netmask: Ipv4Addr,
    pub(crate) gateway: Ipv4Addr,
    /// Addresses parted by spaces; empty for none.
    pub(crate) nameserver: String,
}

/// A static IP or a VLAN.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResourceRow {
    pub(crate) resource: ResourceId,
    pub(crate) account: AccountId,
    /// Where a static IP was taken from.
    pub(crate) pool: Option<PoolId>,
    /// The keys that its owner set.
    pub(crate) config: Record,
}

fn pool(row: &Row) -> Result<PoolRow> {
    let address = |name| small(row, name).map(Ipv4Addr::from_bits);
    Ok(PoolRow {
        pool: parsed(row, "pool")?,
        name: parsed(row, "name")?,
        first: address("first_address")?,
        last: address("last_address")?,
        netmask: address("netmask")?,
        gateway: address("gateway")?,
        nameserver: column(row, "nameserver")?,
    })
}

fn resource_id(row: &Row) -> Result<ResourceId> {
    Ok(match word(row, "kind", ResourceKind::from_word)? {
        ResourceKind::Ip => ResourceId::Ip(parsed(row, "resource")?),
        ResourceKind::Vlan => ResourceId::Vlan(parsed(row, "resource")?),
    })
}

fn resource(row: &Row) -> Result<ResourceRow> {
    Ok(ResourceRow {
        resource: resource_id(row)?,
        account: parsed(row, "account")?,
        pool: parsed_if_any(row, "pool")?,
        config: record(row, "config")?,
    })
}

impl Reader {
    /// All pools, lowest address first.
    pub(crate) async fn pools(&mut self) -> Result<Vec<PoolRow>> {
        let rows = self
            .statement("SELECT * FROM pools ORDER BY first_address")
            .fetch_all()
            .await
            .map_err(failed("reading the pools"))?;
        rows.iter().map(pool).collect()
    }

    /// How many addresses of a pool are taken.
    pub(crate) async fn taken_of(&mut self, pool: PoolId) -> Result<u64> {
        let row = self
            .statement("SELECT COUNT(*) AS taken FROM resources WHERE pool = $1")
            .bind(pool.to_string())
            .fetch_one()
            .await
            .map_err(failed("counting the addresses taken of a pool"))?;
        number(&row, "taken")
    }

    /// The lowest address of a pool that nobody has.
    pub(crate) async fn lowest_free(&mut self, pool: &PoolRow) -> Result<Option<Ipv4Addr>> {
        let first = pool.first.to_bits();
        let row = self
            .statement(
                "SELECT CAST(MIN(next) AS BIGINT) AS lowest FROM (\
                 SELECT CAST($2 AS BIGINT) AS next \
                 UNION ALL SELECT address + 1 FROM resources WHERE pool = $1) AS candidates \
                 WHERE NOT EXISTS \
                 (SELECT 1 FROM resources WHERE pool = $1 AND address = candidates.next)",
            )
            .bind(pool.pool.to_string())
            .bind(i64::from(first))
            .fetch_one()
            .await
            .map_err(failed("looking for a free address"))?;
        let lowest = small(&row, "lowest").map(Ipv4Addr::from_bits)?;
        Ok(Some(lowest).filter(|lowest| *lowest <= pool.last))
    }

    /// The resource of this name.
    pub(crate) async fn resource(&mut self, id: ResourceId) -> Result<Option<ResourceRow>> {
        let row = self
            .statement("SELECT * FROM resources WHERE resource = $1 AND kind = $2")
            .bind(id.to_string())
            .bind(id.kind().as_str())
            .fetch_optional()
            .await
            .map_err(failed("reading a resource"))?;
        row.as_ref().map(resource).transpose()
    }

    /// The resources of an account, by kind and name.
    pub(crate) async fn resources_of(&mut self, account: AccountId) -> Result<Vec<ResourceRow>> {
        let rows = self
            .statement("SELECT * FROM resources WHERE account = $1 ORDER BY kind, resource")
            .bind(account.to_string())
            .fetch_all()
            .await
            .map_err(failed("reading the resources of an account"))?;
        rows.iter().map(resource).collect()
    }

    /// The servers whose runs use a resource.
    pub(crate) async fn users_of(&mut self, id: ResourceId) -> Result<Vec<ServerId>> {
        let rows = self
            .statement("SELECT server FROM resource_claims WHERE resource = $1 ORDER BY server")
            .bind(id.to_string())
            .fetch_all()
            .await
            .map_err(failed("reading who uses a resource"))?;
        rows.iter().map(|row| parsed(row, "server")).collect()
    }
}

impl Writer<'_> {
    /// Adds a pool.
    pub(crate) async fn insert_pool(&mut self, row: &PoolRow) -> Result<()> {
        let PoolRow { pool, name, first, last, netmask, gateway, nameserver } = row;
        self.change(
            "INSERT INTO pools (pool, name, first_address, last_address, netmask, gateway, \
             nameserver) VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(pool.to_string())
        .bind(name.as_str())
        .bind(i64::from(first.to_bits()))
        .bind(i64::from(last.to_bits()))
        .bind(i64::from(netmask.to_bits()))
        .bind(i64::from(gateway.to_bits()))
        .bind(nameserver)
        .execute()
        .await
        .map_err(failed("adding a pool"))?;
        Ok(())
    }

    /// Adds the resource or changes what its owner set.
    pub(crate) async fn save_resource(&mut self, row: &ResourceRow) -> Result<()> {
        let ResourceRow { resource, account, pool, config } = row;
        let before = self.resource(*resource).await?;
        self.note(before.as_ref(), row);
        let address = match resource {
            ResourceId::Ip(address) => Some(stored(address.to_bits().into())),
            ResourceId::Vlan(_) => None,
        };
        self.change(
            "INSERT INTO resources (resource, kind, account, pool, address, config) \
             VALUES ($1, $2, $3, $4, $5, $6) \
             ON CONFLICT (resource) DO UPDATE SET config = excluded.config",
        )
        .bind(resource.to_string())
        .bind(resource.kind().as_str())
        .bind(account.to_string())
        .bind(pool.map(|pool| pool.to_string()))
        .bind(address)
        .bind(from_record(config)?)
        .execute()
        .await
        .map_err(failed("saving a resource"))?;
        Ok(())
    }

    /// Takes away a resource that no server uses.
    pub(crate) async fn delete_resource(&mut self, id: ResourceId) -> Result<()> {
        let before = self.resource(id).await?;
        self.note_gone(before.as_ref());
        self.change("DELETE FROM resources WHERE resource = $1")
            .bind(id.to_string())
            .execute()
            .await
            .map_err(failed("giving back a resource"))?;
        Ok(())
    }

    /// Adds a claim, once. A second server's claim on one static IP fails.
    pub(crate) async fn claim_resource(&mut self, id: ResourceId, server: ServerId) -> Result<()> {
        let claimed = self
            .change(
                "INSERT INTO resource_claims (resource, kind, server) VALUES ($1, $2, $3) \
                 ON CONFLICT (resource, server) DO NOTHING",
            )
            .bind(id.to_string())
            .bind(id.kind().as_str())
            .bind(server.to_string())
            .execute()
            .await
            .map_err(failed("claiming a resource"))?;
        if claimed > 0 {
            self.note_claim(Subject::Resource(id), Holder::Server(server));
        }
        Ok(())
    }

    /// Takes all claims of a server on resources away.
    pub(super) async fn delete_resource_claims_of(&mut self, server: ServerId) -> Result<()> {
        let rows = self
            .change("DELETE FROM resource_claims WHERE server = $1 RETURNING resource, kind")
            .bind(server.to_string())
            .fetch_all()
            .await
            .map_err(failed("releasing resources"))?;
        for row in &rows {
            self.note_release(Subject::Resource(resource_id(row)?), Holder::Server(server));
        }
        Ok(())
    }
}
