//! The calls that place, from end to end: what they cost with many hosts beside what they cost with
//! few, on both databases.
//!
//! All rigs run at once and are asked in turns, so that whatever else the machine does weighs on
//! all. A call's processor time is that of the API server and its database, less what they take
//! when nobody asks.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;

use crate::scale::database::Kind;
use crate::scale::rig::{Rig, Spent};
use crate::table::{Pairs, Row, Verdict};

const FEW: u16 = 10;
const MANY: u16 = 1_000;
/// How often each rig has its turn, and how many calls of each kind it then gets.
const ROUNDS: u32 = 15;
const TURN: u32 = 48;
const IDLE: Duration = Duration::from_secs(10);
/// What each array holds, of drives of 1 GiB: all that are made here, on the few hosts too.
const ARRAY_GIB: u32 = 100;

const RATIO_GOAL: f64 = 1.5;

/// What is called. Each in its turn makes what the next one needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Placed {
    Drive,
    Stopped,
    Started,
}

impl Placed {
    const ALL: [Self; 3] = [Self::Drive, Self::Stopped, Self::Started];

    const fn path(self) -> &'static str {
        match self {
            Self::Drive => "/drives/create",
            Self::Stopped => "/servers/create/stopped",
            Self::Started => "/servers/create",
        }
    }
}

/// The rows of calls.
pub(super) async fn rows() -> Result<Vec<Row>> {
    let mut rows = Vec::new();
    println!(
        "{ROUNDS} turns of {TURN} calls each with {FEW} and with {MANY} hosts, both databases"
    );
    let mut pairs = Vec::new();
    for kind in Kind::ALL {
        pairs.push((kind, [Measured::start(kind, FEW).await?, Measured::start(kind, MANY).await?]));
    }
    for _ in 0..ROUNDS {
        for (_, pair) in &mut pairs {
            for measured in pair {
                measured.turn().await?;
            }
        }
    }
    for (kind, [few, many]) in pairs {
        for placed in Placed::ALL {
            rows.extend(compared(kind, placed, &few, &many)?);
        }
        few.rig.end()?;
        many.rig.end()?;
    }
    Ok(rows)
}

fn compared(kind: Kind, placed: Placed, few: &Measured, many: &Measured) -> Result<[Row; 2]> {
    let of = |measured: &Measured| -> Result<(Vec<Duration>, f64)> {
        let noted = measured.noted.get(&placed).context("a call that was never made")?;
        let calls = f64::from(u32::try_from(noted.times.len())?);
        Ok((noted.times.clone(), noted.cpu_ms / calls))
    };
    let ((few_times, few_cpu), (many_times, many_cpu)) = (of(few)?, of(many)?);
    let mut times = Pairs::default();
    many_times.into_iter().zip(few_times).for_each(|(many, few)| times.push(many, few));
    let row = |what: &str, many: f64, few: f64, ratio: f64| Row {
        what: format!("{} {what}, {}", placed.path(), kind.as_str()),
        ours: format!("{many:.1} ms"),
        peers: format!("{few:.1} ms"),
        compared: format!("{ratio:.2} times"),
        goal: format!("{RATIO_GOAL} times at most"),
        verdict: Verdict::at_most(ratio, RATIO_GOAL),
    };
    Ok([
        row("takes", times.ours(), times.peers(), times.ours() / times.peers()),
        row("CPU", many_cpu, few_cpu, many_cpu / few_cpu),
    ])
}

/// A rig and what its calls took.
struct Measured {
    rig: Rig,
    idle: Spent,
    noted: BTreeMap<Placed, Noted>,
}

#[derive(Default)]
struct Noted {
    times: Vec<Duration>,
    /// Of all of them, beyond what the idle rig takes.
    cpu_ms: f64,
}

impl Measured {
    async fn start(kind: Kind, hosts: u16) -> Result<Self> {
        let rig = Rig::start(kind, hosts, ARRAY_GIB).await?;
        let idle = rig.idle(IDLE).await?;
        Ok(Self { rig, idle, noted: BTreeMap::new() })
    }

    /// Makes drives, servers that are left stopped, and servers that are started.
    async fn turn(&mut self) -> Result<()> {
        let customer = self.rig.customer()?;
        let mut drives = Vec::new();
        for placed in Placed::ALL {
            let meter = self.rig.meter()?;
            let mut times = Vec::new();
            for number in 0..TURN {
                let drive = drives.get(usize::try_from(number)?);
                let (call, record) = wish(placed, drive)?;
                let began = Instant::now();
                let made = customer.client.one(call, &[], &record).await?;
                times.push(began.elapsed());
                if placed == Placed::Drive {
                    drives.push(made.value("drive").context("a drive without an id")?.to_owned());
                }
            }
            let spent = meter.read()?.beyond(&self.idle) * 1e3;
            let noted = self.noted.entry(placed).or_default();
            noted.times.extend(times);
            noted.cpu_ms += spent;
        }
        Ok(())
    }
}

fn wish(placed: Placed, drive: Option<&String>) -> Result<(Call, Record)> {
    let server = || -> Result<Record> {
        Ok(Record::new()
            .with("name", "bench")
            .with("cpu", 500)
            .with("mem", 128)
            .with("persistent", true)
            .with("ide:0:0", drive.context("a server without a drive")?)
            .with("boot", "ide:0:0"))
    };
    Ok(match placed {
        Placed::Drive => {
            (Call::DriveCreate, Record::new().with("name", "bench").with("size", "1G"))
        }
        Placed::Stopped => (Call::ServerCreateStopped, server()?),
        Placed::Started => (Call::ServerCreate, server()?),
    })
}
