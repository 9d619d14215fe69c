//! Taking stock: all that this host has, from its records, its arrays and its hypervisor, whether
//! they agree or not.
//!
//! It changes nothing. What each object does is told as its status would tell it, so that whoever
//! reads it has one way to read both.

use std::collections::BTreeSet;
use std::sync::Arc;

use elasticstack_core::error::Result;
use elasticstack_core::generation::{Era, Generation};
use elasticstack_core::hypervisor::{Observed, Phase};
use elasticstack_core::state::RunPhase;
use elasticstack_core::wire::internal::{
    Document, ObjectStatus, ServerDocument, ServerStatus, Stock,
};

use super::host::Host;
use super::records::Record;
use crate::driver::drive::found;
use crate::driver::server::plugged;
use crate::driver::snapshot;

/// What the host has now.
///
/// # Errors
/// What the store or the hypervisor says: half a stock is none.
pub(crate) async fn take(host: &Arc<Host>) -> Result<Stock> {
    let observed = host.hypervisor.observe().await?;
    let (drives, jobs, servers) = (host.drives.all(), host.jobs.all(), host.servers.all());
    let snapshots = host.snapshots.all();
    let known: BTreeSet<_> = servers.iter().map(|record| record.document.server).collect();
    let strangers = observed.iter().filter(|run| !known.contains(&run.server));
    let mut objects: Vec<_> = strangers.map(|run| ObjectStatus::Server(stranger(run))).collect();
    objects.extend(servers.iter().map(|record| {
        let seen = observed.iter().find(|run| run.server == record.document.server);
        ObjectStatus::Server(status(record, seen))
    }));
    objects
        .extend(host.store.list().await?.iter().map(|report| ObjectStatus::Drive(found(report))));
    let taken = match host.store.snapshots() {
        Some(store) => store.list_snapshots().await?,
        None => Vec::new(),
    };
    objects.extend(taken.iter().map(|report| {
        let known = snapshots.iter().find(|record| record.document.snapshot == report.snapshot);
        let unknown = || snapshot::found(report);
        ObjectStatus::Snapshot(
            known.map_or_else(unknown, |record| snapshot::status(record, Some(report), None)),
        )
    }));
    let documents = (drives.into_iter().map(|record| Document::Drive(record.document)))
        .chain(jobs.into_iter().map(|record| Document::Job(record.document)))
        .chain(servers.into_iter().map(|record| Document::Server(record.document)))
        .chain(snapshots.into_iter().map(|record| Document::Snapshot(record.document)))
        .collect();
    Ok(Stock { documents, objects })
}

fn status(record: &Record<ServerDocument>, seen: Option<&Observed>) -> ServerStatus {
    let Record { document, facts: past } = record;
    ServerStatus {
        server: document.server,
        generation: document.generation,
        gone: false,
        run: seen.map_or(past.run, |seen| seen.run),
        phase: match seen {
            Some(seen) => phase(seen.phase),
            None if past.is_open() => RunPhase::Starting,
            None => RunPhase::Ended,
        },
        started: past.started.clone(),
        ended: past.ended.clone(),
        reset: past.reset,
        shutdown: past.shutdown,
        screen: None,
        plugged: seen.map(|_| plugged(document, past)),
    }
}

fn stranger(seen: &Observed) -> ServerStatus {
    ServerStatus {
        server: seen.server,
        generation: Generation::new(Era(0), 0),
        gone: false,
        run: seen.run,
        phase: phase(seen.phase),
        started: None,
        ended: None,
        reset: 0,
        shutdown: 0,
        screen: None,
        plugged: None,
    }
}

const fn phase(seen: Phase) -> RunPhase {
    match seen {
        Phase::Running => RunPhase::Running,
        Phase::Paused => RunPhase::Paused,
        Phase::Unresponsive => RunPhase::Unresponsive,
        Phase::Ended(_) => RunPhase::Ended,
    }
}
