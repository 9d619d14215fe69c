//! `bench scale`: the control plane with a large fleet behind it and many servers on it.
//!
//! Agents, wires, databases and the public API are the real ones, in processes of their own; only
//! the hardware of hosts is simulated. Everything in the cloud is made by calls of the public API.
//! All processes share two cores, and each one's part of them is printed.

mod caller;
pub(crate) mod control;
pub(crate) mod database;
pub(crate) mod fleet;
mod lists;
pub(crate) mod load;
mod offered;
mod prepare;
mod process;
pub(crate) mod rig;

use std::time::Duration;

use anyhow::Result;

use self::database::Kind as DatabaseKind;
use self::lists::Lists;
use self::load::Kind;
use self::offered::Offered;
use self::rig::{Rig, Spent};
use crate::table::{Row, Table, Verdict};

/// The mix is offered at this rate, in calls a second, and if that is too much at those.
const RATE: u32 = 1_000;
const LESSER_RATES: [u32; 5] = [700, 500, 300, 200, 100];
/// How long, in seconds.
const LOAD: u32 = 30;
const LESSER_LOAD: u32 = 10;
/// A rate at which the cost of single calls is measured, so low that no call waits for another.
const SINGLE_RATE: u32 = 100;
const SINGLE_LOAD: u32 = 4;
const SINGLE_ROUNDS: u32 = 5;
const IDLE: Duration = Duration::from_secs(15);
/// How many lists of everything are asked for.
const LISTS: u32 = 20;
/// How many times as many servers there are in the end as in the beginning.
const GROWTH: u32 = 10;

/// In milliseconds.
const P99_GOAL: f64 = 10.0;
const LIST_GOAL: f64 = 150.0;
const MEMORY_GOAL_MIB: f64 = 200.0;
/// Ten times as many servers may look like this many times the work, which noise can make of one.
const FLAT_GOAL: f64 = 1.5;

/// OpenNebula's published averages, in milliseconds, at 10, 20 and the 30 calls a second that it says
/// not to exceed, with 1,250 hosts and 20,000 servers.
const OPENNEBULA_SERVER: [u32; 3] = [60, 260, 330];
const OPENNEBULA_HOST: [u32; 3] = [40, 240, 310];
const OPENNEBULA_ALL: [u32; 3] = [2_390, 4_680, 6_360];
/// The best, the mean and the worst that `CloudStack` publishes for all of 25,000 servers, in
/// milliseconds.
const CLOUDSTACK_ALL: [u32; 3] = [9_750, 11_790, 17_280];

/// How large a cloud, on what.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// A tenth of everything, for those who work on it
    #[arg(long)]
    small: bool,
    /// One database alone
    #[arg(long)]
    database: Option<DatabaseKind>,
}

/// Measures, prints, and fails if a goal is missed.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let (hosts, servers) = if args.small { (125, 2_000) } else { (1_250, 20_000) };
    let mut rows = Vec::new();
    for kind in DatabaseKind::ALL {
        if args.database.is_none_or(|only| only == kind) {
            println!("{hosts} hosts on {}", kind.as_str());
            rows.extend(on(kind, hosts, servers).await?);
        }
    }
    println!(
        "\nThe peers are OpenNebula (averages at 10/20/30 calls/s, 1,250 hosts, 20,000 servers) and \
         CloudStack (best/mean/worst,\n25,000 servers, no other load), as they publish them, on other \
         machines. The rows of the mix are compared with 30 calls/s;\nall servers, listed once a \
         second and nothing else, with 10 calls/s and with the mean."
    );
    Table(rows).judge()
}

async fn on(kind: DatabaseKind, hosts: u16, servers: u32) -> Result<Vec<Row>> {
    let name = kind.as_str();
    let mut rig = Rig::start(kind, hosts, prepare::array_gib(hosts, servers)).await?;
    prepare::fill(&rig, servers / GROWTH).await?;
    let few = Costs::measure(&rig).await?;
    let all = prepare::fill(&rig, servers).await?;
    let idle_memory = rig.memory_mib()?;
    let many = Costs::measure(&rig).await?;
    let idle = many.idle;
    let percent = |time: Duration| time.as_secs_f64() / idle.wall.as_secs_f64() * 100.0;
    println!(
        "  idle, in percent of a core: server {:.1}, database {:.1}, fleet {:.1}",
        percent(idle.server),
        percent(idle.database),
        percent(idle.fleet)
    );

    let load = Offered::to(&rig, RATE, LOAD, None).await?;
    load.tell();
    let mut rows = load_rows(name, &load, &idle);
    if !is_sustained(&load) {
        rows.push(sustained(&rig, name).await?);
    }
    let lists = lists::measure(&rig, &all, LISTS).await?;
    println!(
        "  all {servers} servers: {:.1} MB, {:.0}/{:.0}/{:.0} ms; each key of each compared with the \
         database",
        f64::from(u32::try_from(lists.bytes)?) / 1e6,
        lists.wall.best,
        lists.wall.mean,
        lists.wall.worst
    );
    rows.extend(list_rows(name, &lists));
    rows.extend(few.rows(&many, name));
    if kind == DatabaseKind::Sqlite {
        let most = idle_memory.max(load.memory_mib).max(lists.memory_mib);
        rows.push(Row::alone(
            format!("memory, {hosts} live agents, {name}"),
            format!("{most:.0} MiB"),
            format!("{MEMORY_GOAL_MIB:.0} MiB at most"),
            Verdict::at_most(most, MEMORY_GOAL_MIB),
        ));
        rows.extend(tls_rows(&mut rig, hosts).await?);
    }
    rig.end()?;
    Ok(rows)
}

/// What single calls cost.
struct Costs {
    idle: Spent,
    /// Processor time of the API server and its database for one call, in milliseconds: of all
    /// rounds the middle one, as what a database does by itself falls into one or two.
    each: [(Kind, f64); Kind::ALL.len()],
}

impl Costs {
    async fn measure(rig: &Rig) -> Result<Self> {
        let idle = rig.idle(IDLE).await?;
        let mut rounds = Kind::ALL.map(|kind| (kind, Vec::new()));
        for kind in Kind::ALL {
            // An account's first page has all of it read, once.
            Offered::to(rig, 1, 1, Some(kind)).await?;
        }
        for _ in 0..SINGLE_ROUNDS {
            for (kind, costs) in &mut rounds {
                let load = Offered::to(rig, SINGLE_RATE, SINGLE_LOAD, Some(*kind)).await?;
                costs.push(load.spent.beyond(&idle) * 1e3 / load.calls());
            }
        }
        let each = rounds.map(|(kind, mut costs)| {
            costs.sort_by(f64::total_cmp);
            let all: Vec<String> = costs.iter().map(|cost| format!("{cost:.2}")).collect();
            println!("  CPU of {} alone: {} ms", kind.as_str(), all.join(", "));
            (kind, costs[costs.len() / 2])
        });
        Ok(Self { idle, each })
    }

    /// How much more they cost with many servers than with few.
    fn rows(&self, many: &Self, database: &str) -> Vec<Row> {
        let row = |((kind, few), (_, many)): (&(Kind, f64), &(Kind, f64))| Row {
            what: format!("CPU of a call, {GROWTH}× servers: {}, {database}", kind.as_str()),
            ours: format!("{many:.2} ms"),
            peers: format!("{few:.2} ms"),
            compared: format!("{:.2} times", many / few),
            goal: format!("{FLAT_GOAL} times at most"),
            verdict: Verdict::at_most(many / few, FLAT_GOAL),
        };
        self.each.iter().zip(&many.each).map(row).collect()
    }
}

fn load_rows(database: &str, load: &Offered, idle: &Spent) -> Vec<Row> {
    let rate = load.achieved();
    let mut rows = vec![Row::alone(
        format!("calls/s answered of {RATE}, {database}"),
        format!("{rate:.0}"),
        format!("{:.0} at least", f64::from(RATE) * 0.99),
        if load.is_whole() {
            Verdict::at_least(rate, f64::from(RATE) * 0.99)
        } else {
            Verdict::Missed
        },
    )];
    for kind in Kind::ALL {
        let peer = match kind {
            Kind::Server => Some(OPENNEBULA_SERVER),
            Kind::Host => Some(OPENNEBULA_HOST),
            // Of these we know no figure of a peer.
            Kind::Page | Kind::Power => None,
        };
        let p99 = load.percentile(99, |of| of == kind);
        let what = format!("p99 of {}, {database}", kind.as_str());
        let ours = format!("{p99:.1} ms");
        let peers = peer.map(three).unwrap_or_default();
        let compared = peer.map(|[_, _, most]| beside(p99, most)).unwrap_or_default();
        let (goal, verdict) = if kind.reads() {
            (format!("{P99_GOAL} ms at most"), Verdict::at_most(p99, P99_GOAL))
        } else {
            (String::new(), Verdict::None)
        };
        rows.push(Row { what, ours, peers, compared, goal, verdict });
    }
    let each = load.spent.beyond(idle) * 1e3 / load.calls();
    rows.push(Row::told(format!("CPU of a call of the mix, {database}"), format!("{each:.2} ms")));
    rows
}

/// Three figures of a peer.
fn three([one, two, three]: [u32; 3]) -> String {
    format!("{one}/{two}/{three} ms")
}

/// What part of the peer's time ours is, or how many times it.
fn beside(ours: f64, peers: u32) -> String {
    let peers = f64::from(peers);
    if ours <= peers {
        format!("1/{:.0}", peers / ours)
    } else {
        format!("{:.1} times", ours / peers)
    }
}

/// Whether each call was answered and reads were as quick as they are to be.
fn is_sustained(load: &Offered) -> bool {
    load.is_whole() && load.percentile(99, Kind::reads) <= P99_GOAL
}

/// The highest of the lesser rates at which reads are as quick as they are to be.
async fn sustained(rig: &Rig, database: &str) -> Result<Row> {
    let what = format!("calls/s with reads in their goal, {database}");
    for rate in LESSER_RATES {
        let load = Offered::to(rig, rate, LESSER_LOAD, None).await?;
        load.tell();
        if is_sustained(&load) {
            let p99 = load.percentile(99, Kind::reads);
            return Ok(Row::told(what, format!("{rate}, {p99:.1} ms")));
        }
    }
    Ok(Row::told(what, "none".to_owned()))
}

fn list_rows(database: &str, lists: &Lists) -> [Row; 5] {
    let Lists { server, database: databases, wall, .. } = lists;
    let judged = |which: &str, ms: f64| {
        Row::alone(
            format!("CPU of all servers, {which}, {database}"),
            format!("{ms:.0} ms"),
            format!("{LIST_GOAL:.0} ms at most"),
            Verdict::at_most(ms, LIST_GOAL),
        )
    };
    let mean = wall.mean;
    let compared = |peer: &str, peers: [u32; 3], with: u32| Row {
        peers: three(peers),
        compared: beside(mean, with),
        ..Row::told(format!("all servers take, {database}, {peer}"), format!("{mean:.0} ms"))
    };
    let ([at_10, _, _], [_, their_mean, _]) = (OPENNEBULA_ALL, CLOUDSTACK_ALL);
    [
        judged("mean", server.mean),
        judged("worst", server.worst),
        Row::told(
            format!("the database's for that, mean, {database}"),
            format!("{:.0} ms", databases.mean),
        ),
        compared("OpenNebula", OPENNEBULA_ALL, at_10),
        compared("CloudStack", CLOUDSTACK_ALL, their_mean),
    ]
}

/// What TLS to the hosts takes.
async fn tls_rows(rig: &mut Rig, hosts: u16) -> Result<[Row; 3]> {
    let connecting = rig.restart_with_tls().await?;
    let idle = rig.idle(IDLE).await?;
    let share = idle.server.as_secs_f64() / idle.wall.as_secs_f64() * 100.0;
    let memory = rig.memory_mib()?;
    Ok([
        Row::told(format!("mTLS: memory, {hosts} live agents"), format!("{memory:.0} MiB")),
        Row::told(
            format!("mTLS: CPU to reach {hosts} agents"),
            format!("{:.1} s", connecting.as_secs_f64()),
        ),
        Row::told("mTLS: idle, of a core".to_owned(), format!("{share:.1} %")),
    ])
}
