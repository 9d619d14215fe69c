//! What operators see of hosts, and how a new one is made known. What goes to hosts and comes from
//! them is `fleet`.

use elasticstack_core::prelude::*;
use elasticstack_core::wire::keys::{self, Moment, Object};
use elasticstack_core::wire::record::Record;

use super::fleet::{make_known, unknown};
use super::{App, Caller, Page};
use crate::db::{HostRow, Reader, Subject};

impl App {
    /// The ids of hosts.
    ///
    /// # Errors
    /// `InvalidValue` for a page that can't be; `Internal`.
    pub async fn host_ids(&self, page: &Page) -> Result<Vec<HostId>> {
        let rows = self.db.read().await?.hosts_page(&page.of_hosts()?).await?;
        Ok(rows.into_iter().map(|row| row.host).collect())
    }

    /// Hosts.
    ///
    /// # Errors
    /// As [`App::host_ids`].
    pub async fn hosts_info(&self, page: &Page) -> Result<Vec<Record>> {
        let mut reader = self.db.read().await?;
        let mut records = Vec::new();
        for row in reader.hosts_page(&page.of_hosts()?).await? {
            records.push(record(&mut reader, row).await?);
        }
        Ok(records)
    }

    /// One host.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn host_info(&self, host: HostId) -> Result<Record> {
        let mut reader = self.db.read().await?;
        let row = reader.host(host).await?.ok_or_else(|| unknown(host))?;
        record(&mut reader, row).await
    }

    /// Makes a host known under a new id. The answer has, this once, the bundle it joins with.
    ///
    /// # Errors
    /// `MissingKey` without a name or an address; `InvalidValue` for an address without a port, or
    /// a name in use; `NotOffered` where no authority signs certificates.
    pub async fn host_add(&self, caller: &Caller, wish: &Record) -> Result<Record> {
        keys::check(Object::Host, Moment::Create, wish)?;
        let wanted = |key: &'static str| {
            wish.value(key).ok_or_else(|| {
                Error::new(ErrorKind::MissingKey, format!("a host needs its {key}: give {key}"))
                    .field(key)
            })
        };
        let name: &Name =
            &wanted("name")?.parse().map_err(|error: elasticstack_core::name::InvalidName| {
                Error::new(ErrorKind::InvalidValue, error.to_string()).field("name")
            })?;
        let address = wanted("address")?;
        if !is_address(address) {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                format!("{address:?} is not where an agent listens: give NAME_OR_IP:PORT"),
            )
            .field("address"));
        }
        let authority = self.config.authority.as_ref().ok_or_else(|| {
            Error::new(
                ErrorKind::NotOffered,
                "this installation is one host in one process: others can't join it",
            )
        })?;
        let host = super::new_id();
        let bundle = &authority.host_bundle(host)?;
        self.intend(caller, Subject::Host(host), |tx| {
            Box::pin(async move {
                make_known(tx, host, name, address).await?;
                let row = tx.host(host).await?.ok_or_else(|| unknown(host))?;
                let answer = record(tx, row).await?.with("bundle", bundle.expose());
                self.answer_at_once(tx, caller, &answer).await?;
                Ok(answer)
            })
        })
        .await
    }
}

/// A name or an IP address, and a port.
fn is_address(text: &str) -> bool {
    text.rsplit_once(':').is_some_and(|(name, port)| {
        let plain =
            |character: char| character.is_ascii_alphanumeric() || "-.:[]".contains(character);
        !name.is_empty() && name.chars().all(plain) && port.parse().is_ok_and(|port: u16| port > 0)
    })
}

async fn record(reader: &mut Reader, row: HostRow) -> Result<Record> {
    let HostRow { host, name, address, state, cpu, memory, accelerator, cpu_limits, cursor: _ } =
        row;
    let mut record = Record::new()
        .with("host", host)
        .with("name", name)
        .with("address", address)
        .with("status", state)
        .with("cpu:total", cpu.0)
        .with("mem:total", memory.0);
    if !accelerator.is_empty() {
        record.set("accelerator", accelerator);
        record.set("cpu:limits", cpu_limits);
    }
    let promised = reader.promised_to_drives().await?;
    for (array, row) in reader.arrays_of(host).await? {
        let promised = promised.get(&array).copied().unwrap_or_default();
        record.set(format!("array:{}", row.name), array);
        record.set(format!("array:{}:capacity", row.name), row.capacity.get());
        record.set(format!("array:{}:promised", row.name), promised.get());
    }
    Ok(record)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_name_and_a_port() {
        for good in ["10.0.0.7:8444", "node-7.example.net:8444", "[fd00::7]:8444", "localhost:1"] {
            assert!(is_address(good), "{good}");
        }
        for bad in
            ["", "node", "node:", ":8444", "node:0", "node:70000", "a b:1", "a/b:1", "a\nb:1"]
        {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
