//! After the storm: everything comes to rest as the ledger says, and at the end nothing is left.
//! Both are judged from outside: by the public API, the processes and the files.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;

use anyhow::{Context as _, Result, bail, ensure};
use elasticstack_core::error::ErrorKind;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;

use super::customer::Customer;
use super::imaging::is_readable;
use super::ledger::{Answer, Fate, Kind, Ledger, Ran};
use super::platform::{Platform, Site};
use super::sight;
use super::wait::until;

/// Waits until every object is found as it may be: servers with exactly the guests that they
/// should have, drives with files of their size, no imaging, no claim without a running server.
pub(crate) async fn settle(platform: &mut Platform, customer: &Customer) -> Result<()> {
    until("everything comes to rest", async || {
        platform.check()?;
        let (servers, drives) =
            (customer.list(Call::ServersInfo).await?, customer.list(Call::DrivesInfo).await?);
        let (Answer::Done(servers), Answer::Done(drives)) = (servers, drives) else {
            return Ok(Some("no answer".to_owned()));
        };
        let mut ledger = customer.ledger();
        compare(&mut ledger, &platform.site, &servers, &drives)
    })
    .await
}

/// What stands in the way of rest.
fn compare(
    ledger: &mut Ledger,
    site: &Site,
    servers: &[Record],
    drives: &[Record],
) -> Result<Option<String>> {
    let mut found = BTreeMap::new();
    for (records, key) in [(servers, "server"), (drives, "drive")] {
        for record in records {
            let name = record.value("name").context("an object has no name")?;
            let id = record.value(key).context("an object has no id")?;
            ensure!(found.insert(name, (id, record)).is_none(), "{name} is there twice");
            ensure!(ledger.entries.contains_key(name), "{name} was never asked for");
        }
    }
    let guests = sight::processes_under(&site.servers)?;
    let active: Vec<&Record> =
        servers.iter().filter(|server| server.value("status") == Some("active")).collect();
    if guests.len() != active.len() {
        return Ok(Some(format!("{} servers run, and {} guests", active.len(), guests.len())));
    }
    let in_use: BTreeSet<&str> = active
        .iter()
        .flat_map(|server| server.iter())
        .filter(|(key, _)| key.starts_with("ide:"))
        .map(|(_, value)| value)
        .collect();
    for (name, entry) in &mut ledger.entries {
        let Some((id, record)) = found.get(name.as_str()) else {
            if let Some(complaint) = entry.complaint(Fate::Absent) {
                return Ok(Some(format!("{name}: {complaint}")));
            }
            continue;
        };
        ensure!(entry.id.get_or_insert_with(|| (*id).to_owned()) == id, "{name} has two ids");
        let obstacle = match &mut entry.kind {
            Kind::Server { ran, .. } => {
                let fate = match record.value("status") {
                    Some("active") => Fate::Active,
                    Some("stopped") => Fate::Stopped,
                    other => return Ok(Some(format!("{name} is {other:?}"))),
                };
                let of_it = guests.iter().filter(|guest| guest.directory.ends_with(id)).count();
                let wanted = usize::from(fate == Fate::Active);
                if of_it == 1 {
                    *ran = Ran::Seen;
                }
                entry.complaint(fate).or_else(|| {
                    (of_it != wanted).then(|| format!("it is {fate:?} with {of_it} processes"))
                })
            }
            Kind::Drive { sizes } => wrong_size(record, site, id, sizes)
                .or_else(|| unrest(record, in_use.contains(id)))
                .or_else(|| entry.complaint(Fate::Present)),
        };
        if let Some(obstacle) = obstacle {
            return Ok(Some(format!("{name} ({id}): {obstacle}")));
        }
        if let Some(reason) = record.value("failed") {
            ensure!(is_readable(reason), "{name} failed without a sentence: {reason:?}");
        }
    }
    Ok(None)
}

/// What a drive still waits for.
fn unrest(drive: &Record, in_use: bool) -> Option<String> {
    if let Some(imaging) = drive.value("imaging") {
        return Some(format!("imaging {imaging}"));
    }
    if drive.value("status") != Some("active") {
        return Some(format!("status {:?}", drive.value("status")));
    }
    let claimed = drive.value("claimed");
    (claimed.is_some() != in_use).then(|| format!("claimed {claimed:?}, in use {in_use}"))
}

fn wrong_size(drive: &Record, site: &Site, id: &str, sizes: &BTreeSet<u64>) -> Option<String> {
    const GRANULE: u64 = 4 << 20;
    let said: Option<u64> = drive.value("size").and_then(|size| size.parse().ok());
    let file = fs::metadata(site.raw(id)).map(|file| file.len()).ok();
    let may = said.is_some_and(|said| sizes.iter().any(|s| s.next_multiple_of(GRANULE) == said));
    (said != file || !may)
        .then(|| format!("it says {said:?} bytes, its file has {file:?}, it may have {sizes:?}"))
}

/// Destroys every server; their drives stay.
pub(crate) async fn destroy_servers(customer: &Customer) -> Result<()> {
    destroy(customer, |kind| matches!(kind, Kind::Server { .. })).await
}

/// Destroys every drive.
pub(crate) async fn destroy_drives(customer: &Customer) -> Result<()> {
    destroy(customer, |kind| matches!(kind, Kind::Drive { .. })).await
}

async fn destroy(customer: &Customer, which: impl Fn(&Kind) -> bool) -> Result<()> {
    let names: Vec<String> = customer
        .ledger()
        .entries
        .iter()
        .filter(|(_, entry)| which(&entry.kind) && entry.id.is_some() && !entry.is_gone())
        .map(|(name, _)| name.clone())
        .collect();
    for name in names {
        until(&format!("{name} is destroyed"), async || match customer.destroy(&name).await? {
            Answer::Done(()) | Answer::Refused(ErrorKind::NotFound) => Ok(None),
            answer => Ok(answer.obstacle()),
        })
        .await?;
    }
    Ok(())
}

/// Waits until no guest and no file of a drive or server is left, but of the drive `standard`,
/// which is not the customer's.
pub(crate) async fn until_nothing_is_left(
    platform: &mut Platform,
    customer: &Customer,
    standard: &str,
) -> Result<()> {
    until("nothing is left", async || {
        platform.check()?;
        for call in [Call::ServersInfo, Call::DrivesInfo] {
            match customer.list(call).await? {
                Answer::Done(left) if left.is_empty() => {}
                Answer::Done(left) => bail!("the customer still has {left:?}"),
                answer => return Ok(answer.obstacle()),
            }
        }
        let site = &platform.site;
        let guests = sight::processes_under(&site.root)?;
        if !guests.is_empty() {
            return Ok(Some(format!("guests {guests:?}")));
        }
        let mut left = sight::entries_of(&site.drives)?;
        let is_standard = |name: &str| name.starts_with(standard);
        left.retain(|file| {
            !file.file_name().is_some_and(|name| name.to_str().is_some_and(is_standard))
        });
        // A server is a directory; the lock beside them is the agent's own.
        let servers = sight::entries_of(&site.servers)?;
        left.extend(servers.into_iter().filter(|entry| entry.is_dir()));
        left.extend(sight::entries_of(&site.scratch)?);
        Ok((!left.is_empty()).then(|| format!("{left:?}")))
    })
    .await
}
