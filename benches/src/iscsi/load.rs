//! A load on one target: so many commands of a kind in flight for some time, and what they took.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use elasticstack_core::block::Volume;
use elasticstack_core::sim::SimRng;
use elasticstack_core::units::Bytes;
use elasticstack_host::iscsi::initiator::Initiator;

use super::served::Served;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Of blocks anywhere.
    Read,
    Write,
    /// Of blocks in a row.
    SequentialRead,
    SequentialWrite,
}

pub(super) struct Load {
    pub(super) kind: Kind,
    pub(super) depth: u64,
    pub(super) block: u64,
    pub(super) time: Duration,
}

/// What came of it.
pub(super) struct Measured {
    /// Commands a second.
    pub(super) rate: f64,
    /// Commands a second of the target's processor time.
    pub(super) per_cpu_second: f64,
    /// Where the initiator tells them.
    pub(super) latencies: Option<Latencies>,
}

/// How long commands took, in microseconds.
pub(super) struct Latencies {
    /// What every other one took longer than.
    pub(super) p50_us: f64,
    /// What one in a hundred took longer than.
    pub(super) p99_us: f64,
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (kind, kib) = (self.kind, self.block / 1024);
        let kind = match kind {
            Kind::Read => "read",
            Kind::Write => "write",
            Kind::SequentialRead => "read in a row",
            Kind::SequentialWrite => "write in a row",
        };
        write!(f, "{kind} {kib} KiB x {}", self.depth)
    }
}

impl Load {
    /// Puts the load on a target.
    pub(super) async fn on(&self, served: &Served) -> Result<Measured> {
        let volume = Arc::new(Initiator::login_to(&served.address).await.context(served.name)?);
        let next = Arc::new(AtomicU64::new(0));
        let (cpu, began) = (served.cpu()?, Instant::now());
        let until = began + self.time;
        let mut lanes = tokio::task::JoinSet::new();
        for lane in 0..self.depth {
            let (volume, next) = (Arc::clone(&volume), Arc::clone(&next));
            let (kind, block) = (self.kind, self.block);
            lanes.spawn(async move { lane_of(lane, kind, block, &volume, &next, until).await });
        }
        let mut took = Vec::new();
        while let Some(lane) = lanes.join_next().await {
            took.extend(lane?.context(served.name)?);
        }
        let (cpu, elapsed) = (served.cpu()?.since(&cpu), began.elapsed());
        took.sort_unstable();
        let count = f64::from(u32::try_from(took.len())?);
        let percentile = |percent: usize| {
            took.get(took.len() * percent / 100).copied().unwrap_or_default().as_secs_f64() * 1e6
        };
        let latencies = Latencies { p50_us: percentile(50), p99_us: percentile(99) };
        Ok(Measured {
            rate: count / elapsed.as_secs_f64(),
            per_cpu_second: count / cpu.as_secs_f64(),
            latencies: Some(latencies),
        })
    }
}

/// One command after the other, and how long each took.
async fn lane_of(
    lane: u64,
    kind: Kind,
    block: u64,
    volume: &Initiator,
    next: &AtomicU64,
    until: Instant,
) -> Result<Vec<Duration>> {
    let mut rng = SimRng::new(lane + 1);
    let blocks = volume.size().get() / block;
    let length = usize::try_from(block)?;
    let (mut buffer, data) = (vec![0; length], bytes::Bytes::from(vec![7; length]));
    let mut took = Vec::new();
    loop {
        let began = Instant::now();
        if began >= until {
            return Ok(took);
        }
        let at = match kind {
            Kind::Read | Kind::Write => rng.below(blocks),
            Kind::SequentialRead | Kind::SequentialWrite => {
                next.fetch_add(1, Ordering::Relaxed) % blocks
            }
        };
        let offset = Bytes::try_from(at * block)?;
        match kind {
            Kind::Read | Kind::SequentialRead => volume.read_at(offset, &mut buffer).await?,
            Kind::Write | Kind::SequentialWrite => volume.write_at(offset, data.clone()).await?,
        }
        took.push(began.elapsed());
    }
}
