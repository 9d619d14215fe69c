//! Lists of everything, and whether what is in them is what is in the database.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;
use http::Method;
use serde_json::Value;

use super::prepare::text;
use super::rig::{Rig, Spent};

/// How often a list is asked for.
const EVERY: Duration = Duration::from_secs(1);

/// What lists of all servers take.
pub(super) struct Lists {
    /// Processor time of the API server for one. The kernel counts it in ticks of 10 ms.
    pub(super) server: Times,
    /// That of the database.
    pub(super) database: Times,
    /// From the request to the last byte.
    pub(super) wall: Times,
    pub(super) bytes: usize,
    /// The most memory of the API server that was seen.
    pub(super) memory_mib: f64,
}

/// In milliseconds.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) best: f64,
    pub(super) mean: f64,
    pub(super) worst: f64,
}

impl Times {
    fn of(times: impl Iterator<Item = Duration> + Clone) -> Self {
        let ms = times.map(|time| time.as_secs_f64() * 1e3);
        let (sum, count) =
            ms.clone().fold((0.0, 0.0), |(sum, count), time| (sum + time, count + 1.0));
        Self {
            best: ms.clone().fold(f64::INFINITY, f64::min),
            mean: sum / count,
            worst: ms.fold(0.0, f64::max),
        }
    }
}

/// Asks for all servers once a second, each time after a change to one of them, and compares every
/// answer with the database.
pub(super) async fn measure(rig: &Rig, servers: &[String], rounds: u32) -> Result<Lists> {
    let customer = rig.customer()?;
    let mut spent = Vec::new();
    let (mut bytes, mut memory_mib) = (0, 0.0_f64);
    for (round, changed) in (1..=rounds).zip(servers.iter().cycle()) {
        let began = Instant::now();
        let change = Record::new().with("user:round", round);
        customer.client.one(Call::ServerSet, &[changed], &change).await?;
        let meter = rig.meter()?;
        let answer = customer.bytes(Method::GET, "/servers/info").await?;
        spent.push(meter.read()?);
        bytes = answer.len();
        memory_mib = memory_mib.max(rig.memory_mib()?);
        let shown = Record::list_from_json(&answer)?;
        compare(&shown, &rig.database.ask(QUESTION)?)?;
        let round = round.to_string();
        let seen = shown.iter().find(|record| record.value("server") == Some(changed));
        ensure!(
            seen.and_then(|record| record.value("user:round")) == Some(&round),
            "the list does not have the change before it"
        );
        tokio::time::sleep(EVERY.saturating_sub(began.elapsed())).await;
    }
    let of = |part: fn(&Spent) -> Duration| Times::of(spent.iter().map(part));
    let (server, database) = (of(|spent| spent.server), of(|spent| spent.database));
    Ok(Lists { server, database, wall: of(|spent| spent.wall), bytes, memory_mib })
}

const QUESTION: &str = "SELECT server, account, state, config, hardware, started_us, screen, failed \
    FROM servers WHERE state NOT IN ('destroying', 'gone')";

/// Whether each row is shown, with each of its keys and no other, and no other server is.
fn compare(shown: &[Record], rows: &[Value]) -> Result<()> {
    let shown: BTreeMap<_, _> =
        shown.iter().map(|record| (record.value("server").unwrap_or_default(), record)).collect();
    ensure!(
        shown.len() == rows.len(),
        "{} servers are shown, there are {}",
        shown.len(),
        rows.len()
    );
    for row in rows {
        let server = text(row, "server")?;
        let record =
            shown.get(server.as_str()).with_context(|| format!("{server} is not shown"))?;
        let expected = expected(row)?;
        for (key, value) in &expected {
            let found = record.value(key);
            ensure!(
                found == Some(value),
                "{key} of {server} is shown as {found:?}, the database has {value:?}"
            );
        }
        if let Some((key, value)) = record.iter().find(|(key, _)| !expected.contains_key(*key)) {
            bail!("{key} of {server} is shown as {value:?}, the database has none");
        }
    }
    Ok(())
}

/// The keys of a server by its row: those that its owner set, and those that follow.
fn expected(row: &Value) -> Result<BTreeMap<String, String>> {
    let config: BTreeMap<String, Value> = serde_json::from_str(&text(row, "config")?)?;
    let mut keys: BTreeMap<String, String> =
        config.into_iter().map(|(key, value)| (key, plain(&value))).collect();
    let (status, is_active) = match text(row, "state")?.as_str() {
        "starting" | "running" | "unresponsive" | "stopping" => ("active", true),
        "paused" => ("paused", true),
        "stopped" => ("stopped", false),
        state => bail!("a server is {state}"),
    };
    let server = text(row, "server")?;
    keys.entry("name".to_owned()).or_insert_with(|| server.clone());
    keys.entry("smp".to_owned()).or_insert_with(|| "auto".to_owned());
    keys.insert("server".to_owned(), server);
    keys.insert("user".to_owned(), text(row, "account")?);
    keys.insert("type".to_owned(), "vm".to_owned());
    keys.insert("status".to_owned(), status.to_owned());
    if let Some(failed) = row.get("failed").and_then(Value::as_str) {
        keys.insert("failed".to_owned(), failed.to_owned());
    }
    if is_active && let Some(started) = row.get("started_us").and_then(Value::as_i64) {
        keys.insert("started".to_owned(), started.div_euclid(1_000_000).to_string());
    }
    if is_active && let Some(hardware) = row.get("hardware").and_then(Value::as_str) {
        let hardware: Value = serde_json::from_str(hardware)?;
        let vcpus = hardware.get("vcpus").context("hardware without processors")?;
        keys.insert("smp:cores".to_owned(), plain(vcpus));
    }
    if is_active && let Some(screen) = row.get("screen").and_then(Value::as_str) {
        let screen: SocketAddr = screen.parse().context("a screen without an address")?;
        keys.insert("vnc:ip".to_owned(), screen.ip().to_string());
    }
    Ok(keys)
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row() -> Value {
        json!({
            "server": "s1", "account": "a1", "state": "running", "config": r#"{"name":"web","cpu":"500"}"#,
            "hardware": r#"{"vcpus":2}"#, "started_us": 7_999_999, "screen": "127.0.0.1:5900",
            "failed": "no",
        })
    }

    fn record() -> Record {
        Record::new()
            .with("server", "s1")
            .with("user", "a1")
            .with("type", "vm")
            .with("status", "active")
            .with("name", "web")
            .with("cpu", 500)
            .with("smp", "auto")
            .with("vnc:ip", "127.0.0.1")
            .with("started", 7)
            .with("failed", "no")
            .with("smp:cores", 2)
    }

    #[test]
    fn an_answer_that_differs_from_the_database_in_one_key_is_refused() {
        compare(&[record()], &[row()]).unwrap();
        for (key, _) in record().iter().filter(|(key, _)| *key != "server") {
            let wrong = record().with(key, "another");
            assert!(compare(&[wrong], &[row()]).is_err(), "{key}");
            let mut without = record();
            without.remove(key);
            assert!(compare(&[without], &[row()]).is_err(), "{key}");
        }
        let more = record().with("boot", "ide:0:0");
        assert!(compare(&[more], &[row()]).is_err(), "a key that the database does not have");
    }

    #[test]
    fn an_answer_with_a_server_too_many_or_too_few_is_refused() {
        assert!(compare(&[], &[row()]).is_err());
        assert!(compare(&[record(), record().with("server", "s2")], &[row()]).is_err());
    }
}
