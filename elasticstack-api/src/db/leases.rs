//! Rows of leases: which server sends a host its documents and follows its reports.

use std::collections::BTreeSet;

use elasticstack_core::prelude::*;

use super::row::{failed, parsed};
use super::{Reader, Writer};

impl Reader {
    /// The hosts that another than `owner` worked for last. A lease that has ended is its still:
    /// nobody has begun to follow that host since.
    pub(crate) async fn hosts_of_others(&mut self, owner: &str) -> Result<BTreeSet<HostId>> {
        let rows = self
            .statement("SELECT host FROM host_leases WHERE owner <> $1")
            .bind(owner)
            .fetch_all()
            .await
            .map_err(failed("reading the leases of others"))?;
        rows.iter().map(|row| parsed(row, "host")).collect()
    }
}

impl Writer<'_> {
    /// Has `owner` hold every host until `until` that no other holds at `now`, and says which.
    pub(crate) async fn lease_hosts(
        &mut self,
        owner: &str,
        now: Timestamp,
        until: Timestamp,
    ) -> Result<BTreeSet<HostId>> {
        let rows = self
            .change(
                "INSERT INTO host_leases (host, owner, until_us) \
                 SELECT host, $1, $2 FROM hosts WHERE TRUE \
                 ON CONFLICT (host) DO UPDATE SET owner = excluded.owner, \
                 until_us = excluded.until_us \
                 WHERE host_leases.owner = excluded.owner OR host_leases.until_us <= $3 \
                 RETURNING host",
            )
            .bind(owner)
            .bind(until.as_micros())
            .bind(now.as_micros())
            .fetch_all()
            .await
            .map_err(failed("leasing hosts"))?;
        rows.iter().map(|row| parsed(row, "host")).collect()
    }

    /// Gives every host of `owner` free.
    pub(crate) async fn release_hosts(&mut self, owner: &str) -> Result<()> {
        self.change("DELETE FROM host_leases WHERE owner = $1")
            .bind(owner)
            .execute()
            .await
            .map_err(failed("releasing hosts"))?;
        Ok(())
    }
}
