//! Fills a cloud through its public API: every drive is made by its host, every server runs.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::Value;

use super::rig::{Rig, WIDTH};

/// Far longer than handing over what a whole cloud uses takes.
const GUARD: Duration = Duration::from_secs(600);

/// In GiB.
const DRIVE_SIZE: u32 = 1;
const DRIVES_OF_A_SERVER: u32 = 2;

/// How large an array is so that the drives of so many servers fill four fifths of the fleet.
pub(super) fn array_gib(hosts: u16, servers: u32) -> u32 {
    let arrays = u32::from(hosts) * 4;
    (servers * DRIVES_OF_A_SERVER * DRIVE_SIZE * 5).div_ceil(arrays * 4)
}

/// Adds drives and running servers until there are so many servers; answers the ids of all.
pub(super) async fn fill(rig: &Rig, servers: u32) -> Result<Vec<String>> {
    let before = ids(rig, SERVERS, "server")?;
    let missing = servers.saturating_sub(u32::try_from(before.len())?);
    let began = Instant::now();
    make_drives(rig, missing * DRIVES_OF_A_SERVER).await?;
    let drives = began.elapsed();
    let mut pairs = pairs(rig)?;
    // Each host may have one drive too many or too few.
    while pairs.len() < usize::try_from(missing)? {
        make_drives(rig, DRIVES_OF_A_SERVER).await?;
        pairs = self::pairs(rig)?;
    }
    pairs.truncate(usize::try_from(missing)?);
    let customer = &rig.customer()?;
    let number = before.len();
    stream::iter(pairs.into_iter().enumerate())
        .map(|(at, pair)| async move {
            let made =
                customer.client.one(Call::ServerCreate, &[], &server(number + at, &pair)).await?;
            let status = made.value("status").unwrap_or_default();
            ensure!(status == "active", "a server that was started is {status}: {made:?}");
            Ok(())
        })
        .buffer_unordered(WIDTH)
        .try_collect::<()>()
        .await?;
    println!(
        "  {missing} servers and their drives made: {:.0} s of drives, {:.0} s of servers",
        drives.as_secs_f64(),
        (began.elapsed() - drives).as_secs_f64(),
    );
    // What was made is still being handed to the biller, which is no part of what is measured.
    let begun = Instant::now();
    while !rig.database.ask(USAGE)?.is_empty() {
        ensure!(begun.elapsed() < GUARD, "usage is not handed over");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let all = ids(rig, SERVERS, "server")?;
    ensure!(all.len() == usize::try_from(servers)?, "{} servers run, not {servers}", all.len());
    rig.write_ids("servers", &all)?;
    Ok(all)
}

/// Those that run.
const SERVERS: &str = "SELECT server FROM servers WHERE state = 'running' ORDER BY server";

/// Those that no server has.
const DRIVES: &str = "SELECT drive, host FROM drives WHERE state = 'ready' \
    AND drive NOT IN (SELECT drive FROM claims)";

/// What the biller has not taken, or not with its end.
const USAGE: &str = "SELECT id FROM usage_intervals \
    WHERE delivered = 0 OR (delivered = 1 AND to_us IS NOT NULL) LIMIT 1";

async fn make_drives(rig: &Rig, drives: u32) -> Result<()> {
    let customer = &rig.customer()?;
    let record = &Record::new().with("name", "disk").with("size", format!("{DRIVE_SIZE}G"));
    stream::iter(0..drives)
        .map(|_| async move {
            let made = customer.client.one(Call::DriveCreate, &[], record).await?;
            let status = made.value("status").unwrap_or_default();
            ensure!(status == "active", "a drive that was made is {status}: {made:?}");
            Ok(())
        })
        .buffer_unordered(WIDTH)
        .try_collect()
        .await
}

/// Free drives, two by two on the same host: no host lends any.
fn pairs(rig: &Rig) -> Result<Vec<[String; 2]>> {
    let mut single = BTreeMap::new();
    let mut pairs = Vec::new();
    for row in rig.database.ask(DRIVES)? {
        let (drive, host) = (text(&row, "drive")?, text(&row, "host")?);
        match single.remove(&host) {
            Some(other) => pairs.push([other, drive]),
            None => {
                single.insert(host, drive);
            }
        }
    }
    Ok(pairs)
}

/// A server with as many keys as one that somebody uses.
fn server(number: usize, [system, data]: &[String; 2]) -> Record {
    Record::new()
        .with("name", format!("server{number}"))
        .with("cpu", 1_000)
        .with("mem", 512)
        .with("persistent", true)
        .with("ide:0:0", system)
        .with("block:0", data)
        .with("boot", "ide:0:0")
        .with("nic:0:model", "virtio")
        .with("nic:0:dhcp", "auto")
        .with("vnc", "auto")
        .with("password", "unguessd")
        .with("tags", format!("web rack{}", number % 40))
        .with("user:role", "front end")
        .with("user:round", 0)
}

fn ids(rig: &Rig, question: &str, column: &str) -> Result<Vec<String>> {
    rig.database.ask(question)?.iter().map(|row| text(row, column)).collect()
}

pub(super) fn text(row: &Value, column: &str) -> Result<String> {
    let value = row.get(column).and_then(Value::as_str);
    Ok(value.with_context(|| format!("a row without {column}: {row}"))?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_drives_of_all_servers_fill_four_fifths_of_the_fleet() {
        assert_eq!(array_gib(1_250, 20_000), 10);
        assert_eq!(array_gib(125, 2_000), 10);
    }
}
