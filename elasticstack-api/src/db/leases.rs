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
        self.change(
            "INSERT INTO lease_owners (owner, until_us) VALUES ($1, $2) \
             ON CONFLICT (owner) DO UPDATE SET until_us = excluded.until_us",
        )
        .bind(owner)
        .bind(until.as_micros())
        .execute()
        .await
        .map_err(failed("renewing leases"))?;
        self.change(
            "INSERT INTO host_leases (host, owner) SELECT host, $1 FROM hosts \
             WHERE NOT EXISTS (SELECT 1 FROM host_leases JOIN lease_owners USING (owner) \
             WHERE host_leases.host = hosts.host AND (owner = $1 OR until_us > $2)) \
             ON CONFLICT (host) DO UPDATE SET owner = excluded.owner",
        )
        .bind(owner)
        .bind(now.as_micros())
        .execute()
        .await
        .map_err(failed("leasing hosts"))?;
        self.change("DELETE FROM lease_owners WHERE owner <> $1 AND until_us <= $2")
            .bind(owner)
            .bind(now.as_micros())
            .execute()
            .await
            .map_err(failed("forgetting leases that have ended"))?;
        let rows = self
            .statement("SELECT host FROM host_leases WHERE owner = $1")
            .bind(owner)
            .fetch_all()
            .await
            .map_err(failed("reading our leases"))?;
        rows.iter().map(|row| parsed(row, "host")).collect()
    }

    /// Gives every host of `owner` free.
    pub(crate) async fn release_hosts(&mut self, owner: &str) -> Result<()> {
        for all_of_it in [
            "DELETE FROM host_leases WHERE owner = $1",
            "DELETE FROM lease_owners WHERE owner = $1",
        ] {
            let done = self.change(all_of_it).bind(owner).execute().await;
            done.map_err(failed("releasing hosts"))?;
        }
        Ok(())
    }
}
