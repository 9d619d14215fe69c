//! Pools: the addresses that an operator has for static IPs.
//!
//! Invariant: no two pools share an address, so that an address names one resource.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use elasticstack_core::prelude::*;
use elasticstack_core::wire::keys::{self, Moment, Object};
use elasticstack_core::wire::record::Record;
use uuid::Uuid;

use super::page::Page;
use super::{App, Caller};
use crate::db::{PoolRow, Reader, Subject};

impl App {
    /// The ids of pools.
    ///
    /// # Errors
    /// `InvalidValue` for a page that can't be; `Internal`.
    pub async fn pool_ids(&self, page: &Page) -> Result<Vec<PoolId>> {
        let rows = pools_page(&mut self.db.read().await?, page).await?;
        Ok(rows.into_iter().map(|row| row.pool).collect())
    }

    /// What operators see of pools.
    ///
    /// # Errors
    /// `InvalidValue` for a page that can't be; `Internal`.
    pub async fn pools_info(&self, page: &Page) -> Result<Vec<Record>> {
        let mut reader = self.db.read().await?;
        let mut records = Vec::new();
        for row in pools_page(&mut reader, page).await? {
            records.push(info(&mut reader, &row).await?);
        }
        Ok(records)
    }

    /// One pool.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn pool_info(&self, pool: PoolId) -> Result<Record> {
        let mut reader = self.db.read().await?;
        let row = reader.pools().await?.into_iter().find(|row| row.pool == pool);
        let row = row.ok_or_else(|| {
            Error::new(ErrorKind::NotFound, "the pool could not be found: see the list of pools")
        })?;
        info(&mut reader, &row).await
    }

    /// Adds a pool of addresses.
    ///
    /// # Errors
    /// Those of a record's check; `MissingKey`; `InvalidValue` for addresses that make no subnet
    /// or that another pool has.
    pub async fn pool_create(&self, caller: &Caller, wish: &Record) -> Result<Record> {
        keys::check(Object::Pool, Moment::Create, wish)?;
        let row = &parse(super::new_id(), wish)?;
        self.intend(caller, Subject::Pool(row.pool), |tx| {
            Box::pin(async move {
                let overlaps = |pool: &&PoolRow| pool.first <= row.last && row.first <= pool.last;
                if let Some(other) = tx.pools().await?.iter().find(overlaps) {
                    return Err(refused(
                        "first",
                        format!("pool {} has some of these addresses already", other.name),
                    ));
                }
                tx.insert_pool(row).await
            })
        })
        .await?;
        self.pool_info(row.pool).await
    }
}

/// In the order of their ids; addresses are taken in another one, the lowest first.
async fn pools_page(reader: &mut Reader, page: &Page) -> Result<Vec<PoolRow>> {
    let wanted = page.of_others()?;
    let rows = reader.pools().await?.into_iter();
    let in_order: BTreeMap<Uuid, PoolRow> = rows.map(|row| (*row.pool.as_uuid(), row)).collect();
    let page = wanted.of(in_order, |row| ["", row.name.as_str(), ""]);
    Ok(page.into_iter().map(|(_, row)| row).collect())
}

/// The pool that a record asks for.
fn parse(pool: PoolId, wish: &Record) -> Result<PoolRow> {
    let wanted =
        |key: &'static str| wish.value(key).ok_or_else(|| keys::missing(Object::Pool, key));
    let address = |key: &'static str| -> Result<Ipv4Addr> {
        wanted(key)?.parse().map_err(|_| refused(key, format!("{key} is not an IPv4 address")))
    };
    let name = wanted("name")?.parse().map_err(|error: elasticstack_core::name::InvalidName| {
        refused("name", error.to_string())
    })?;
    let (first, last) = (address("first")?, address("last")?);
    let (netmask, gateway) = (address("netmask")?, address("gateway")?);
    let mask = netmask.to_bits();
    if mask.leading_ones() + mask.trailing_zeros() != u32::BITS || mask.leading_ones() > 30 {
        return Err(refused(
            "netmask",
            format!("{netmask} is not the mask of a subnet: give one such as 255.255.255.0"),
        ));
    }
    if last < first {
        return Err(refused("last", format!("{last} lies below the first address, {first}")));
    }
    for (key, address) in [("last", last), ("gateway", gateway)] {
        if (address.to_bits() ^ first.to_bits()) & mask != 0 {
            return Err(refused(
                key,
                format!("{address} is not in the subnet of {first} with the mask {netmask}"),
            ));
        }
    }
    for (key, address) in [("first", first), ("last", last)] {
        let host = address.to_bits() & !mask;
        if host == 0 || host == !mask {
            return Err(refused(key, format!("{address} stands for its whole subnet")));
        }
    }
    if (first..=last).contains(&gateway) {
        return Err(refused("gateway", format!("{gateway} is one of the pool's own addresses")));
    }
    let nameserver = wish.value("nameserver").unwrap_or_default().to_owned();
    Ok(PoolRow { pool, name, first, last, netmask, gateway, nameserver })
}

fn refused(key: &'static str, sentence: String) -> Error {
    Error::new(ErrorKind::InvalidValue, sentence).field(key)
}

async fn info(reader: &mut Reader, row: &PoolRow) -> Result<Record> {
    let PoolRow { pool, name, first, last, netmask, gateway, nameserver } = row;
    let addresses = u64::from(last.to_bits().saturating_sub(first.to_bits())) + 1;
    let free = addresses.saturating_sub(reader.taken_of(*pool).await?);
    let mut record = Record::new()
        .with("pool", pool)
        .with("name", name)
        .with("first", first)
        .with("last", last)
        .with("netmask", netmask)
        .with("gateway", gateway)
        .with("addresses", addresses)
        .with("addresses:free", free);
    if !nameserver.is_empty() {
        record.set("nameserver", nameserver);
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wish() -> Record {
        Record::new()
            .with("name", "public")
            .with("first", "198.51.100.7")
            .with("last", "198.51.100.9")
            .with("netmask", "255.255.255.0")
            .with("gateway", "198.51.100.1")
    }

    #[test]
    fn a_pool_is_a_range_within_one_subnet_without_its_gateway() {
        assert!(parse(crate::app::new_id(), &wish()).is_ok());
        for (key, value) in [
            ("last", "198.51.100.6"),
            ("last", "198.51.101.9"),
            ("last", "198.51.100.255"),
            ("first", "198.51.100.0"),
            ("netmask", "255.0.255.0"),
            ("netmask", "0.0.0.255"),
            ("netmask", "255.255.255.255"),
            ("gateway", "198.51.100.8"),
            ("gateway", "198.51.99.1"),
        ] {
            let refused = parse(crate::app::new_id(), &wish().with(key, value)).unwrap_err();
            assert_eq!(
                (refused.kind(), refused.blamed_field()),
                (ErrorKind::InvalidValue, Some(key))
            );
        }
        for key in ["name", "first", "last", "netmask", "gateway"] {
            let refused = parse(crate::app::new_id(), &wish().with(key, "")).unwrap_err();
            assert_eq!(
                (refused.kind(), refused.blamed_field()),
                (ErrorKind::MissingKey, Some(key))
            );
        }
    }
}
