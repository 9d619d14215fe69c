//! Which of several servers works for a host: sends it its documents and follows its reports.
//!
//! Invariants: at most one server's lease of a host is good at a time, by their clocks; one that
//! is not renewed ends by itself. Nothing relies on that but economy: two that work for one host
//! send it the same documents, and generations and epochs make the second of anything harmless.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use elasticstack_core::prelude::*;

use super::App;

/// How long a lease is good for. It is to be renewed when a third of that has passed.
pub const LEASE: Duration = Duration::from_secs(10);

impl App {
    /// Takes the lease of every host that no other server holds, renews our own, and says of
    /// which hosts we have it now.
    ///
    /// # Errors
    /// `Unavailable`; `Internal`.
    pub async fn lease_hosts(&self) -> Result<BTreeSet<HostId>> {
        let now = self.now();
        let until = now.plus(LEASE);
        let held =
            self.db.write(|tx| Box::pin(tx.lease_hosts(self.db.owner(), now, until))).await?;
        let inactive = self.db.glance().await?.hosts_but_active().await?;
        // Whoever took them for silent, their next sign of life is to say otherwise.
        let mut heard = self.heard();
        for host in inactive {
            if let Some(heard) = heard.get_mut(&host) {
                heard.report = None;
            }
        }
        drop(heard);
        let before = {
            let mut known = self.held.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut *known, held.clone())
        };
        // It was another server that heard of these: our patience with them begins now.
        held.difference(&before).for_each(|host| self.hear(*host));
        Ok(held)
    }

    /// Gives all our leases up, so that others need not wait for their end.
    ///
    /// # Errors
    /// `Unavailable`; `Internal`.
    pub async fn release_hosts(&self) -> Result<()> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.db.write(|tx| Box::pin(tx.release_hosts(self.db.owner()))).await
    }
}
