//! The process that makes load: so many calls a second, whatever becomes of those before.
//!
//! A call is due at its instant and its time counts from there, so that a server that is behind is
//! seen to be, by each call that had to wait. Answers are taken whole and not looked into: what is in
//! them is checked elsewhere, where it costs nobody's time.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use http::Method;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::caller::{Caller, Credentials};
use crate::footprint::processor_time;

/// How many calls are on their way at a time, each on a connection of its own. One that finds none
/// free waits, and that counts.
const CONNECTIONS: usize = 128;

/// How many calls may wait for an answer before the load is given up: the server falls behind, and
/// what more would say is how long it was let to.
const MOST_BEHIND: usize = 3_000;

/// How long calls may take after the last one was made.
const LAST_ANSWERS: Duration = Duration::from_secs(300);

/// What is called, in turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum)]
pub(crate) enum Kind {
    /// One server
    Server,
    /// One host
    Host,
    /// The first hundred servers
    Page,
    /// A start, a stop or a reset
    Power,
}

impl Kind {
    pub(super) const ALL: [Self; 4] = [Self::Server, Self::Host, Self::Page, Self::Power];

    /// The mix: of ten calls three for a server, two for a host, three for a page and two for power.
    pub(super) const MIX: [Self; 10] = [
        Self::Server,
        Self::Page,
        Self::Host,
        Self::Power,
        Self::Server,
        Self::Page,
        Self::Host,
        Self::Server,
        Self::Page,
        Self::Power,
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Host => "host",
            Self::Page => "page",
            Self::Power => "power",
        }
    }

    /// Whether it changes nothing.
    pub(super) const fn reads(self) -> bool {
        !matches!(self, Self::Power)
    }
}

/// How much load, and on what.
#[derive(clap::Args)]
pub(crate) struct Args {
    #[arg(long)]
    api: String,
    /// Calls a second
    #[arg(long)]
    rate: u32,
    #[arg(long)]
    seconds: u32,
    /// What is called; the mix unless given
    #[arg(long)]
    only: Option<Kind>,
    /// The ids of servers, one a line
    #[arg(long)]
    servers: PathBuf,
    /// The ids of hosts
    #[arg(long)]
    hosts: PathBuf,
    #[arg(long, env = "BENCH_OPERATOR", hide_env_values = true)]
    operator: Credentials,
    #[arg(long, env = "BENCH_CUSTOMER", hide_env_values = true)]
    customer: Credentials,
}

/// Calls, and prints what came of it as one line of JSON.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let ids = |path: &PathBuf| -> Result<Vec<String>> {
        let text = std::fs::read_to_string(path);
        let text = text.with_context(|| format!("reading {}", path.display()))?;
        Ok(text.lines().map(str::to_owned).collect())
    };
    let target = Arc::new(Target {
        operator: Caller::new(&args.api, &args.operator)?,
        customer: Caller::new(&args.api, &args.customer)?,
        hosts: ids(&args.hosts)?,
        servers: ids(&args.servers)?,
        connections: Semaphore::new(CONNECTIONS),
        power: Mutex::new(Power { running: ids(&args.servers)?.into(), ..Power::default() }),
    });
    let mix = args.only.map_or_else(|| Kind::MIX.to_vec(), |kind| vec![kind]);
    let notes = Arc::new(Mutex::new(Notes::default()));
    let (rate, calls) = (args.rate, args.rate * args.seconds);
    let tasks = TaskTracker::new();
    let cpu = processor_time(std::process::id())?;
    let pace = {
        let (target, notes, tasks) = (Arc::clone(&target), Arc::clone(&notes), tasks.clone());
        let runtime = Handle::current();
        // A thread of its own: a timer of the runtime is as coarse as a millisecond.
        move || {
            let began = Instant::now();
            for (number, kind) in (0..calls).zip(mix.iter().cycle()) {
                let due = began + Duration::from_secs(1) * number / rate;
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if tasks.len() > MOST_BEHIND {
                    return (began, calls - number);
                }
                let (target, notes, kind) = (Arc::clone(&target), Arc::clone(&notes), *kind);
                tasks.spawn_on(
                    async move {
                        let answer = target.call(kind, number).await;
                        locked(&notes).note(kind, due, answer);
                    },
                    &runtime,
                );
            }
            (began, 0)
        }
    };
    let (began, unmade) = tokio::task::spawn_blocking(pace).await?;
    tasks.close();
    tokio::time::timeout(LAST_ANSWERS, tasks.wait()).await.context("calls without an answer")?;
    let took = began.elapsed();
    let cpu = processor_time(std::process::id())?.saturating_sub(cpu);
    // So that the next load finds every server as this one did.
    target.start_all().await?;
    println!("{}", locked(&notes).result(took, cpu, unmade));
    Ok(())
}

/// What is called.
struct Target {
    operator: Caller,
    customer: Caller,
    hosts: Vec<String>,
    servers: Vec<String>,
    connections: Semaphore,
    power: Mutex<Power>,
}

/// Servers that no call is at work on.
#[derive(Default)]
struct Power {
    running: VecDeque<String>,
    stopped: VecDeque<String>,
    turn: usize,
}

impl Target {
    async fn call(&self, kind: Kind, number: u32) -> Result<()> {
        let _connection = self.connections.acquire().await?;
        // Far apart, so that no two calls near in time are about neighbours.
        let at = |ids: &[String]| -> Result<String> {
            let place = (u64::from(number) * 7_919) % u64::try_from(ids.len())?.max(1);
            Ok(ids.get(usize::try_from(place)?).context("nothing to call about")?.clone())
        };
        match kind {
            Kind::Server => {
                let path = format!("/servers/{}/info", at(&self.servers)?);
                self.customer.bytes(Method::GET, &path).await.map(|_| ())
            }
            Kind::Host => {
                let path = format!("/hosts/{}/info", at(&self.hosts)?);
                self.operator.bytes(Method::GET, &path).await.map(|_| ())
            }
            Kind::Page => {
                self.customer.bytes(Method::GET, "/servers/info?limit=100").await.map(|_| ())
            }
            Kind::Power => self.power().await,
        }
    }

    /// Resets a server, stops one and starts one, in turns.
    async fn power(&self) -> Result<()> {
        let (server, action) = {
            let mut power = locked(&self.power);
            power.turn += 1;
            let (turn, stopped) = (power.turn % 3, power.stopped.pop_front());
            match (turn, stopped) {
                (2, Some(server)) => (server, "start"),
                (turn, stopped) => {
                    power.stopped.extend(stopped);
                    let server = power.running.pop_front().context("every server is at work")?;
                    (server, if turn == 1 { "stop" } else { "reset" })
                }
            }
        };
        let path = format!("/servers/{server}/{action}");
        let answer = self.customer.bytes(Method::POST, &path).await;
        let mut power = locked(&self.power);
        if action == "stop" {
            power.stopped.push_back(server);
        } else {
            power.running.push_back(server);
        }
        answer.map(|_| ())
    }

    async fn start_all(&self) -> Result<()> {
        let stopped = std::mem::take(&mut locked(&self.power).stopped);
        for server in stopped {
            self.customer.bytes(Method::POST, &format!("/servers/{server}/start")).await?;
        }
        Ok(())
    }
}

/// What came of the calls.
#[derive(Default)]
struct Notes {
    times: BTreeMap<Kind, Vec<Duration>>,
    failed: u32,
    /// The first refusal.
    why: Option<String>,
}

impl Notes {
    fn note(&mut self, kind: Kind, due: Instant, answer: Result<()>) {
        self.times.entry(kind).or_default().push(due.elapsed());
        if let Err(error) = answer {
            self.failed += 1;
            self.why.get_or_insert_with(|| format!("{error:#}"));
        }
    }

    fn result(&mut self, took: Duration, cpu: Duration, unmade: u32) -> Value {
        let mut kinds = serde_json::Map::new();
        for (kind, times) in &mut self.times {
            times.sort_unstable();
            let micros: Vec<u64> = times
                .iter()
                .map(|time| u64::try_from(time.as_micros()).unwrap_or(u64::MAX))
                .collect();
            kinds.insert(kind.as_str().to_owned(), json!(micros));
        }
        json!({
            "kinds": kinds,
            "failed": self.failed,
            "why": self.why,
            "unmade": unmade,
            "took_us": u64::try_from(took.as_micros()).unwrap_or(u64::MAX),
            "cpu_us": u64::try_from(cpu.as_micros()).unwrap_or(u64::MAX),
        })
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_ten_calls_three_are_for_a_server_two_for_a_host_three_for_a_page_and_two_for_power() {
        let shares = Kind::ALL.map(|kind| Kind::MIX.iter().filter(|of| **of == kind).count());
        assert_eq!(shares, [3, 2, 3, 2]);
    }

    #[test]
    fn the_time_of_a_call_counts_from_when_it_was_due() {
        let mut notes = Notes::default();
        let due = Instant::now().checked_sub(Duration::from_secs(2)).unwrap();
        notes.note(Kind::Page, due, Ok(()));
        assert!(notes.times[&Kind::Page][0] >= Duration::from_secs(2));
        assert_eq!(notes.failed, 0);
    }
}
