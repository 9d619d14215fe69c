//! Lists of everything, and whether what is in them is what is in the database.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;
use http::Method;
use serde_json::Value;

use super::prepare::text;
use super::rig::Rig;

/// How often a list is asked for.
const EVERY: Duration = Duration::from_secs(1);

/// What lists of all servers take.
pub(super) struct Lists {
    /// Processor time of the API server for one, in milliseconds: the mean.
    pub(super) server_ms: f64,
    /// That of the database.
    pub(super) database_ms: f64,
    /// From the request to the last byte, in milliseconds: the mean.
    pub(super) wall_ms: f64,
    pub(super) bytes: usize,
    /// The most memory of the API server that was seen.
    pub(super) memory_mib: f64,
}

/// Asks for all servers once a second, each time after a change to one of them, and compares every
/// answer with the database.
pub(super) async fn measure(rig: &Rig, servers: &[String], rounds: u32) -> Result<Lists> {
    let customer = rig.customer()?;
    let (mut server, mut database, mut wall) = Default::default();
    let (mut bytes, mut memory_mib) = (0, 0.0_f64);
    for (round, changed) in (1..=rounds).zip(servers.iter().cycle()) {
        let began = Instant::now();
        let change = Record::new().with("user:round", round);
        customer.client.one(Call::ServerSet, &[changed], &change).await?;
        let meter = rig.meter()?;
        let answer = customer.bytes(Method::GET, "/servers/info").await?;
        let spent = meter.read()?;
        server += spent.server;
        database += spent.database;
        wall += spent.wall;
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
    let mean = |all: Duration| all.as_secs_f64() * 1e3 / f64::from(rounds);
    let (server_ms, database_ms, wall_ms) = (mean(server), mean(database), mean(wall));
    Ok(Lists { server_ms, database_ms, wall_ms, bytes, memory_mib })
}

const QUESTION: &str = "SELECT server, account, state, config, hardware, started_us, failed \
    FROM servers WHERE state NOT IN ('destroying', 'gone')";

/// Whether each row is shown, with each of its keys, and nothing else is.
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
        for (key, value) in expected(row)? {
            let found = record.value(&key);
            ensure!(
                found == Some(&value),
                "{key} of {server} is shown as {found:?}, the database has {value:?}"
            );
        }
    }
    Ok(())
}

/// The keys of a server as its row has them.
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
    keys.insert("server".to_owned(), text(row, "server")?);
    keys.insert("user".to_owned(), text(row, "account")?);
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
            "hardware": r#"{"vcpus":2}"#, "started_us": 7_999_999, "failed": "no",
        })
    }

    fn record() -> Record {
        Record::new()
            .with("server", "s1")
            .with("user", "a1")
            .with("status", "active")
            .with("name", "web")
            .with("cpu", 500)
            .with("started", 7)
            .with("failed", "no")
            .with("smp:cores", 2)
    }

    #[test]
    fn an_answer_that_differs_from_the_database_in_one_key_is_refused() {
        compare(&[record()], &[row()]).unwrap();
        for key in ["user", "status", "name", "cpu", "failed", "started", "smp:cores"] {
            let wrong = record().with(key, "another");
            assert!(compare(&[wrong], &[row()]).is_err(), "{key}");
            let mut without = record();
            without.remove(key);
            assert!(compare(&[without], &[row()]).is_err(), "{key}");
        }
    }

    #[test]
    fn an_answer_with_a_server_too_many_or_too_few_is_refused() {
        assert!(compare(&[], &[row()]).is_err());
        assert!(compare(&[record(), record().with("server", "s2")], &[row()]).is_err());
    }
}
