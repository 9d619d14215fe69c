//! Resources: static IPs and VLANs. Taking and giving them back, and their use by servers.
//!
//! Invariants: an address has one owner; usage opens and ends in the transaction that takes the
//! resource or gives it back, whether a server uses it or not. As with drives, a server that names
//! a resource claims it while it runs: a static IP alone, a VLAN beside others; what is claimed is
//! not given back.

use std::collections::BTreeMap;

use elasticstack_core::prelude::*;
use elasticstack_core::resource::{ResourceId, ResourceKind};
use elasticstack_core::wire::keys::{self, Moment, Object};
use elasticstack_core::wire::record::Record;

use super::access::{Wish, permitted};
use super::drive_record::bounded;
use super::page::Page;
use super::server_record::Wire;
use super::{App, Caller, Quota, new_id};
use crate::db::{PoolRow, Reader, ResourceRow, ServerRow, Subject, Writer};
use crate::usage::{self, Edge, Metered};

impl App {
    /// The caller's resources, of one kind or of all, in the order of their kinds and names.
    ///
    /// # Errors
    /// `InvalidValue` for a page that can't be; `Internal`.
    pub async fn resource_ids(
        &self,
        caller: &Caller,
        kind: Option<ResourceKind>,
        page: &Page,
    ) -> Result<Vec<ResourceId>> {
        let mut reader = self.db.read().await?;
        let rows = resources_page(&mut reader, caller.account, kind, page).await?;
        Ok(rows.into_iter().map(|row| row.resource).collect())
    }

    /// All that is to be said of the caller's resources, of one kind or of all.
    ///
    /// # Errors
    /// `InvalidValue` for a page that can't be; `Internal`.
    pub async fn resources_info(
        &self,
        caller: &Caller,
        kind: Option<ResourceKind>,
        page: &Page,
    ) -> Result<Vec<Record>> {
        let mut reader = self.db.read().await?;
        let rows = resources_page(&mut reader, caller.account, kind, page).await?;
        let pools = pools_by_id(&mut reader).await?;
        let mut records = Vec::new();
        for row in rows {
            records.push(info(&mut reader, &pools, &row).await?);
        }
        Ok(records)
    }

    /// One resource of the caller's.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn resource_info(&self, caller: &Caller, id: ResourceId) -> Result<Record> {
        let mut reader = self.db.read().await?;
        let row = permitted(caller.account, reader.resource(id).await?, Wish::See)?;
        let pools = pools_by_id(&mut reader).await?;
        info(&mut reader, &pools, &row).await
    }

    /// Takes the lowest free address, or makes a VLAN.
    ///
    /// # Errors
    /// Those of a record's check; `PaymentRequired`; `NoCapacity` if no address is free.
    pub async fn resource_create(
        &self,
        caller: &Caller,
        kind: ResourceKind,
        wish: &Record,
    ) -> Result<Record> {
        keys::check(Object::Resource, Moment::Create, wish)?;
        let account = caller.account;
        let change = self.authorize(account, kind.making()).await?;
        let (now, vlan) = (self.now(), new_id());
        let quota = match kind {
            ResourceKind::Ip => Quota::Ip,
            ResourceKind::Vlan => Quota::Vlan,
        };
        let mut config = Record::new();
        config.apply(wish);
        let config = &config;
        self.intend(caller, Subject::Account(account), |tx| {
            Box::pin(async move {
                self.take(tx, account, &[(quota, 1)]).await?;
                let (resource, pool) = match kind {
                    ResourceKind::Ip => lowest_free(tx).await?,
                    ResourceKind::Vlan => (ResourceId::Vlan(vlan), None),
                };
                let row = ResourceRow { resource, account, pool, config: config.clone() };
                tx.save_resource(&row).await?;
                usage::begin(tx, &metered(&row), 1, Edge::Ours(now), Some(change)).await?;
                let pools = pools_by_id(tx).await?;
                let made = info(tx, &pools, &row).await?;
                // Which one it is, is known from here on only.
                self.answer_at_once(tx, caller, &made).await?;
                Ok(made)
            })
        })
        .await
    }

    /// Changes what the caller has set of a resource.
    ///
    /// # Errors
    /// `NotFound`; those of a record's check.
    pub async fn resource_set(
        &self,
        caller: &Caller,
        id: ResourceId,
        change: &Record,
    ) -> Result<Record> {
        let account = caller.account;
        permitted(account, self.db.glance().await?.resource(id).await?, Wish::Own)?;
        keys::check(Object::Resource, Moment::SetStopped, change)?;
        self.intend(caller, Subject::Resource(id), |tx| {
            Box::pin(async move {
                let before = permitted(account, tx.resource(id).await?, Wish::Own)?;
                let mut row = before.clone();
                row.config.apply(change);
                bounded(&row.config)?;
                if row != before {
                    tx.save_resource(&row).await?;
                }
                Ok(())
            })
        })
        .await?;
        self.resource_info(caller, id).await
    }

    /// Gives a resource back. The next one to take an address may get it.
    ///
    /// # Errors
    /// `NotFound`; `ResourceInUse`.
    pub async fn resource_destroy(&self, caller: &Caller, id: ResourceId) -> Result<()> {
        let (account, now) = (caller.account, self.now());
        self.intend(caller, Subject::Resource(id), |tx| {
            Box::pin(async move {
                let row = permitted(account, tx.resource(id).await?, Wish::Own)?;
                let users = tx.users_of(id).await?;
                if !users.is_empty() {
                    return Err(in_use(id, &users));
                }
                tx.delete_resource(id).await?;
                usage::end(tx, &metered(&row), Edge::Ours(now)).await
            })
        })
        .await
    }
}

/// Claims a resource for the server's next run.
pub(super) async fn connect(tx: &mut Writer<'_>, row: &ServerRow, wire: &Wire) -> Result<()> {
    let id = wire.resource;
    permitted(row.account, tx.resource(id).await?, Wish::Own)?;
    if id.kind() == ResourceKind::Ip {
        let users = tx.users_of(id).await?;
        if users.iter().any(|user| *user != row.server) {
            return Err(in_use(id, &users));
        }
    }
    tx.claim_resource(id, row.server).await
}

async fn resources_page(
    reader: &mut Reader,
    account: AccountId,
    kind: Option<ResourceKind>,
    page: &Page,
) -> Result<Vec<ResourceRow>> {
    let wanted = page.of_resources()?;
    let rows = reader.resources_of(account).await?.into_iter();
    let of_kind = rows.filter(|row| kind.is_none_or(|kind| kind == row.resource.kind()));
    // An address comes before the next one, however they are spelled.
    let in_order: BTreeMap<ResourceId, (String, ResourceRow)> =
        of_kind.map(|row| (row.resource, (name(&row), row))).collect();
    let page =
        wanted.of(in_order, |(name, row)| ["", name, row.config.value("tags").unwrap_or_default()]);
    Ok(page.into_iter().map(|(_, (_, row))| row).collect())
}

async fn lowest_free(tx: &mut Writer<'_>) -> Result<(ResourceId, Option<PoolId>)> {
    for pool in tx.pools().await? {
        if let Some(address) = tx.lowest_free(&pool).await? {
            return Ok((ResourceId::Ip(address), Some(pool.pool)));
        }
    }
    Err(Error::new(
        ErrorKind::NoCapacity,
        "a static IP was asked for, no address is free: give one back, or ask your operator",
    ))
}

async fn pools_by_id(reader: &mut Reader) -> Result<BTreeMap<PoolId, PoolRow>> {
    Ok(reader.pools().await?.into_iter().map(|pool| (pool.pool, pool)).collect())
}

/// What the row of a resource says of it.
pub(super) fn record(row: &ResourceRow) -> Record {
    let mut record = row.config.clone();
    record.set("name", name(row));
    record.set("resource", row.resource);
    record.set("type", row.resource.kind().as_str());
    record.set("user", row.account);
    record
}

fn name(row: &ResourceRow) -> String {
    row.config.value("name").map_or_else(|| row.resource.to_string(), str::to_owned)
}

async fn info(
    reader: &mut Reader,
    pools: &BTreeMap<PoolId, PoolRow>,
    row: &ResourceRow,
) -> Result<Record> {
    let mut record = record(row);
    if let Some(pool) = row.pool.and_then(|pool| pools.get(&pool)) {
        record.set("netmask", pool.netmask);
        record.set("gateway", pool.gateway);
        if !pool.nameserver.is_empty() {
            record.set("nameserver", &pool.nameserver);
        }
    }
    let users = reader.users_of(row.resource).await?;
    if !users.is_empty() {
        record.set("claimed", spaced(&users));
    }
    Ok(record)
}

fn in_use(id: ResourceId, users: &[ServerId]) -> Error {
    Error::new(
        ErrorKind::ResourceInUse,
        format!(
            "{} {id} is in use by server {}: stop that first",
            id.kind().as_str(),
            spaced(users)
        ),
    )
}

fn spaced(users: &[ServerId]) -> String {
    users.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
}

/// What is metered of a resource.
fn metered(row: &ResourceRow) -> Metered {
    let meter = row.resource.kind().meter();
    Metered { account: row.account, resource: row.resource.to_string(), meter }
}
