//! `bench start`: what it costs to start a server through the public API instead of by hand, and on a
//! drive that is lent instead of a local one; whether a drive's size costs anything; and what the
//! product takes while nobody uses it.
//!
//! Each figure is a median of pairs taken in turns, for the machine may have other things to do.
//! The guest's one drive is blank: what is measured ends where the guest's first instruction begins.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use elasticstack_core::units::Bytes;

use crate::by_hand::ByHand;
use crate::customer::Customer;
use crate::footprint::{self, Footprint};
use crate::lent;
use crate::qmp::Qmp;
use crate::table::{Pairs, Row, Table, Verdict};

/// How many pairs a median is of.
const PAIRS: usize = 20;

const BOOT_DRIVE: Bytes = Bytes::from_mib(64);
const SMALL_DRIVE: Bytes = Bytes::from_gib(1);
const LARGE_DRIVE: Bytes = Bytes::from_gib(1 << 10);

/// How long the idle product is watched.
const IDLE: Duration = Duration::from_secs(60);

/// What a start may cost more than by hand, in milliseconds.
const START_GOAL: f64 = 150.0;
/// What a start on a lent drive may cost more than on a local one, in milliseconds.
const LENT_GOAL: f64 = 300.0;
/// A thousand times the size may look like this many times the work, which noise can make of one.
const SIZE_GOAL: f64 = 1.5;
const PSS_GOAL_MIB: f64 = 80.0;
/// In percent of a core.
const CPU_GOAL: f64 = 1.0;

/// The product as it runs. Its address and account come from what `demo.env` sets.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The product's process
    #[arg(long)]
    pid: u32,
    /// The product's data directory
    #[arg(long)]
    data_dir: PathBuf,
    #[arg(long, env = "EHURI")]
    api: String,
    #[arg(long, env = "EHAUTH", hide_env_values = true)]
    account: String,
}

/// Measures, prints, and fails if a goal is missed.
pub(crate) async fn run(args: &Args) -> Result<()> {
    let customer = Customer::new(&args.api, &args.account)?;
    println!("starting {PAIRS} servers, each beside the same QEMU by hand");
    let starts = starts(&customer, &args.data_dir.join("servers")).await?;
    println!("  {starts}");
    println!("starting {PAIRS} servers on a lent drive, each beside one on a local drive");
    let lent = lent::starts(PAIRS).await?;
    println!("  {lent}");
    println!("creating {PAIRS} drives of 1 TiB, each beside one of 1 GiB");
    let drives = drives(&customer).await?;
    println!("  {drives}");
    println!("watching the product for {} s without guests", IDLE.as_secs());
    ensure!(customer.servers().await? == 0, "the product still has servers");
    let idle = footprint::watch(args.pid, IDLE).await?;

    let table = report(&starts, &lent, &drives, &idle);
    table.judge()
}

async fn starts(customer: &Customer, runtime: &Path) -> Result<Pairs> {
    let (drive, _) = customer.create_drive(BOOT_DRIVE).await?;
    // Not counted: whatever is done once is done now, and the command line is read.
    let (server, _) = start(customer, &drive, runtime).await?;
    let by_hand = ByHand::of_guest(&server)?;
    customer.destroy_server(&server).await?;
    by_hand.time_to_running()?;

    let mut pairs = Pairs::default();
    for _ in 0..PAIRS {
        let (server, ours) = start(customer, &drive, runtime).await?;
        customer.destroy_server(&server).await?;
        pairs.push(ours, by_hand.time_to_running()?);
    }
    customer.destroy_drive(&drive).await?;
    Ok(pairs)
}

/// Starts a server, and asks its QEMU whether it runs indeed.
async fn start(customer: &Customer, drive: &str, runtime: &Path) -> Result<(String, Duration)> {
    let (server, took) = customer.create_server(drive).await?;
    let socket = runtime.join(&server).join("operator.qmp");
    let mut qmp = Qmp::connect(&socket)?.context("the guest has no socket for an operator")?;
    ensure!(qmp.is_running()?, "server {server} is said to be active, its processors do not run");
    Ok((server, took))
}

async fn drives(customer: &Customer) -> Result<Pairs> {
    let mut pairs = Pairs::default();
    for pair in 0..PAIRS {
        // In turns: who comes first has the end of the last pair's drives to wait for.
        let ((large, ours), (small, peers)) = if pair % 2 == 0 {
            let large = customer.create_drive(LARGE_DRIVE).await?;
            (large, customer.create_drive(SMALL_DRIVE).await?)
        } else {
            let small = customer.create_drive(SMALL_DRIVE).await?;
            (customer.create_drive(LARGE_DRIVE).await?, small)
        };
        pairs.push(ours, peers);
        customer.destroy_drive(&large).await?;
        customer.destroy_drive(&small).await?;
    }
    Ok(pairs)
}

fn report(starts: &Pairs, lent: &Pairs, drives: &Pairs, idle: &Footprint) -> Table {
    let (pss_mib, percent) = (f64::from(idle.pss_kib) / 1024.0, idle.share * 100.0);
    let (difference, ratio) = (starts.difference(), drives.ratio());
    let dearer = lent.difference();
    Table(vec![
        Row {
            what: "a server runs, beside QEMU by hand".to_owned(),
            ours: format!("{:.1} ms", starts.ours()),
            peers: format!("{:.1} ms", starts.peers()),
            compared: format!("{difference:+.1} ms"),
            goal: format!("at most +{START_GOAL} ms"),
            verdict: Verdict::at_most(difference, START_GOAL),
        },
        Row {
            what: "a server on a lent drive, beside a local one".to_owned(),
            ours: format!("{:.1} ms", lent.ours()),
            peers: format!("{:.1} ms", lent.peers()),
            compared: format!("{dearer:+.1} ms"),
            goal: format!("at most +{LENT_GOAL} ms"),
            verdict: Verdict::at_most(dearer, LENT_GOAL),
        },
        Row {
            what: "a 1 TiB drive is made, beside a 1 GiB one".to_owned(),
            ours: format!("{:.1} ms", drives.ours()),
            peers: format!("{:.1} ms", drives.peers()),
            compared: format!("x{ratio:.2}"),
            goal: format!("at most x{SIZE_GOAL}"),
            verdict: Verdict::at_most(ratio, SIZE_GOAL),
        },
        Row::alone(
            "memory (PSS) without guests",
            format!("{pss_mib:.1} MiB"),
            format!("at most {PSS_GOAL_MIB} MiB"),
            Verdict::at_most(pss_mib, PSS_GOAL_MIB),
        ),
        Row::alone(
            "processor without guests, of one core",
            format!("{percent:.2} %"),
            format!("under {CPU_GOAL} %"),
            if percent < CPU_GOAL { Verdict::Met } else { Verdict::Missed },
        ),
    ])
}
