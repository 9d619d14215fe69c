//! What operators see of hosts, and how a new one is made known. What goes to hosts and comes from
//! them is `fleet`.

use std::collections::BTreeMap;

use elasticstack_core::prelude::*;
use elasticstack_core::state::HostEvent;
use elasticstack_core::wire::keys::{self, Moment, Object};
use elasticstack_core::wire::record::Record;
use uuid::Uuid;

use super::fleet::{make_known, unknown};
use super::{App, Caller, Page};
use crate::authority::Authority;
use crate::db::{ArrayRow, Held, HostRow, Known, Placements, Promised, Reader, Subject};

impl App {
    /// The ids of hosts.
    ///
    /// # Errors
    /// `InvalidValue` for a page that can't be; `Internal`.
    pub async fn host_ids(&self, page: &Page) -> Result<Vec<HostId>> {
        let hosts = self.hosts_page(page).await?;
        Ok(hosts.into_iter().map(|(id, _)| HostId::from_uuid(id)).collect())
    }

    /// Hosts.
    ///
    /// # Errors
    /// As [`App::host_ids`].
    pub async fn hosts_info(&self, page: &Page) -> Result<Vec<Record>> {
        Ok(self.hosts_page(page).await?.into_iter().map(|(_, record)| record).collect())
    }

    async fn hosts_page(&self, page: &Page) -> Result<Vec<(Uuid, Record)>> {
        let wanted = page.of_hosts()?;
        let mut reader = self.db.read().await?;
        let mut arrays = BTreeMap::<HostId, Vec<ArrayRow>>::new();
        for row in reader.arrays().await? {
            arrays.entry(row.host).or_default().push(row);
        }
        let promised = reader.promised().await?;
        let held = reader.held_by_servers().await?;
        let hosts = reader.hosts().await?.into_iter().map(|row| (*row.host.as_uuid(), row));
        let hosts = wanted.of(hosts, |row| [row.state.as_str(), row.name.as_str(), ""]);
        let record = |(id, row): (Uuid, HostRow)| {
            let arrays = arrays.remove(&row.host).unwrap_or_default();
            let arrays = arrays.into_iter().map(|array| {
                let promised = promised.get(&array.array).copied().unwrap_or_default();
                (array, promised)
            });
            let held = held.get(&row.host).copied().unwrap_or_default();
            (id, record(row, held, arrays))
        };
        Ok(hosts.into_iter().map(record).collect())
    }

    /// One host.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn host_info(&self, host: HostId) -> Result<Record> {
        let mut reader = self.db.glance().await?;
        read(&mut reader, host).await
    }

    /// Makes a host known under a new id. The answer has, this once, the bundle it joins with.
    ///
    /// # Errors
    /// `MissingKey` without a name or an address; `InvalidValue` for a name in use; those of a
    /// record's check; `NotFound` where no authority signs certificates.
    pub async fn host_add(&self, caller: &Caller, wish: &Record) -> Result<Record> {
        let authority = self.authority()?;
        keys::check(Object::Host, Moment::Create, wish)?;
        let wanted =
            |key: &'static str| wish.value(key).ok_or_else(|| keys::missing(Object::Host, key));
        let name: &Name =
            &wanted("name")?.parse().map_err(|error: elasticstack_core::name::InvalidName| {
                Error::new(ErrorKind::InvalidValue, error.to_string()).field("name")
            })?;
        let address = wanted("address")?;
        let host = super::new_id();
        let bundle = &authority.host_bundle(host)?;
        let now = self.now();
        self.intend(caller, Subject::Host(host), |tx| {
            Box::pin(async move {
                make_known(tx, host, name, address, now).await?;
                let mut row = tx.host(host).await?.ok_or_else(|| unknown(host))?;
                row.placements = placements_in(wish).unwrap_or(row.placements);
                row.known = Known::By(bundle.certificate.clone());
                tx.save_host(&row).await?;
                let answer = read(tx, host).await?.with("bundle", bundle.pem.expose());
                self.answer_at_once(tx, caller, &answer).await?;
                Ok(answer)
            })
        })
        .await
    }
}

impl App {
    /// Changes what an operator calls a host, and whether anything new is placed there.
    ///
    /// # Errors
    /// `NotFound`; those of a record's check; `InvalidValue` for a name in use.
    pub async fn host_set(&self, caller: &Caller, host: HostId, change: &Record) -> Result<Record> {
        keys::check(Object::Host, Moment::SetStopped, change)?;
        let name: Option<Name> = change.value("name").map(str::parse).transpose().map_err(
            |error: elasticstack_core::name::InvalidName| {
                Error::new(ErrorKind::InvalidValue, error.to_string()).field("name")
            },
        )?;
        let (name, now) = (name.as_ref(), self.now());
        self.intend(caller, Subject::Host(host), |tx| {
            Box::pin(async move {
                let known = tx.host(host).await?.ok_or_else(|| unknown(host))?;
                make_known(tx, host, name.unwrap_or(&known.name), &known.address, now).await?;
                let before = tx.host(host).await?.ok_or_else(|| unknown(host))?;
                let mut row = before.clone();
                row.placements = placements_in(change).unwrap_or(row.placements);
                if row != before {
                    tx.save_host(&row).await?;
                }
                read(tx, host).await
            })
        })
        .await
    }

    /// Takes a host's certificate away: it is spoken with no more, and takes nothing new. What it
    /// has goes on there as it was, and is out of reach.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn host_revoke(&self, caller: &Caller, host: HostId) -> Result<Record> {
        let now = self.now();
        self.intend(caller, Subject::Host(host), |tx| {
            Box::pin(async move {
                let before = tx.host(host).await?.ok_or_else(|| unknown(host))?;
                let mut row = HostRow { known: Known::Revoked, ..before.clone() };
                row.enter(HostEvent::FellSilent, now);
                if row != before {
                    tx.save_host(&row).await?;
                }
                read(tx, host).await
            })
        })
        .await
    }

    /// Gives a host another certificate: no other one of it is good any more. The answer has, this
    /// once, the bundle it joins with.
    ///
    /// # Errors
    /// `NotFound`, also where no authority signs certificates.
    pub async fn host_join(&self, caller: &Caller, host: HostId) -> Result<Record> {
        let bundle = &self.authority()?.host_bundle(host)?;
        self.intend(caller, Subject::Host(host), |tx| {
            Box::pin(async move {
                let mut row = tx.host(host).await?.ok_or_else(|| unknown(host))?;
                row.known = Known::By(bundle.certificate.clone());
                tx.save_host(&row).await?;
                let answer = read(tx, host).await?.with("bundle", bundle.pem.expose());
                self.answer_at_once(tx, caller, &answer).await?;
                Ok(answer)
            })
        })
        .await
    }

    fn authority(&self) -> Result<&Authority> {
        self.config.authority.as_deref().ok_or_else(|| {
            Error::new(
                ErrorKind::NotFound,
                "no host could be found to join: this installation is one host in one process",
            )
        })
    }
}

/// Whether a checked record says that anything new may be placed somewhere.
pub(super) fn placements_in(record: &Record) -> Option<Placements> {
    let unset = || record.iter().any(|(key, _)| key == "placements").then_some(Placements::Open);
    record.value("placements").and_then(Placements::from_word).or_else(unset)
}

async fn read(reader: &mut Reader, host: HostId) -> Result<Record> {
    let (row, held) = reader.host_with_held(host).await?.ok_or_else(|| unknown(host))?;
    let arrays = reader.arrays_with_promised(host).await?;
    Ok(record(row, held, arrays.into_values()))
}

/// The record of a host, with what it and its arrays promised.
fn record(
    row: HostRow,
    held: Held,
    arrays: impl IntoIterator<Item = (ArrayRow, Promised)>,
) -> Record {
    let HostRow { host, name, address, state, since, placements, known, .. } = row;
    let HostRow { cpu, memory, accelerator, cpu_limits, portal, containers, .. } = row;
    let mut record = Record::new()
        .with("host", host)
        .with("name", name)
        .with("address", address)
        .with("status", state)
        .with("since", since.as_seconds())
        .with("placements", placements.as_str())
        .with("cpu:total", cpu.0)
        .with("mem:total", memory.0);
    if !accelerator.is_empty() {
        record.set("accelerator", accelerator);
        record.set("cpu:limits", cpu_limits);
        record.set("containers", containers);
    }
    if let Some(portal) = portal {
        record.set("portal", portal);
    }
    if known != Known::ByName {
        record.set("certificate", known.as_str());
    }
    record.set("cpu:free", u64::from(cpu.0).saturating_sub(held.cpu));
    record.set("mem:free", u64::from(memory.0).saturating_sub(held.memory));
    record.set("servers", held.servers);
    let mut drives = 0;
    for (row, promised) in arrays {
        let array = row.array;
        record.set(format!("array:{}", row.name), array);
        record.set(format!("array:{}:capacity", row.name), row.capacity.get());
        record.set(format!("array:{}:promised", row.name), promised.bytes.get());
        drives += promised.drives;
    }
    record.set("drives", drives);
    record
}
