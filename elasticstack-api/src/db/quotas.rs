//! What accounts use, summed up from intents.

use elasticstack_core::prelude::*;
use elasticstack_core::resource::ResourceKind;
use elasticstack_core::state::{DriveState, ServerState, SnapshotState};

use super::Reader;
use super::row::{failed, number};

/// What an account uses now.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Used {
    /// Processor time of servers that hold it, in MHz.
    pub(crate) cpu: u64,
    /// Memory of servers that hold it, in MiB.
    pub(crate) memory: u64,
    /// Bytes of drives and of snapshots.
    pub(crate) disk: u64,
    pub(crate) servers: u64,
    pub(crate) drives: u64,
    pub(crate) ips: u64,
    pub(crate) vlans: u64,
}

impl Reader {
    /// What `account` uses. What is being destroyed counts no more, but for the processor time and
    /// the memory of a server that may still run.
    pub(crate) async fn used_by(&mut self, account: AccountId) -> Result<Used> {
        let statement = self.statement(
            "SELECT \
             (SELECT CAST(COALESCE(SUM(cpu_mhz), 0) AS BIGINT) FROM servers \
              WHERE account = $1 AND state NOT IN ($2, $3)) AS cpu, \
             (SELECT CAST(COALESCE(SUM(memory_mib), 0) AS BIGINT) FROM servers \
              WHERE account = $1 AND state NOT IN ($2, $3)) AS memory, \
             (SELECT COUNT(*) FROM servers \
              WHERE account = $1 AND state NOT IN ($3, $4)) AS servers, \
             (SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM drives \
              WHERE account = $1 AND state IN ($5, $6)) AS disk, \
             (SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM snapshots \
              WHERE account = $1 AND state NOT IN ($9, $10)) AS kept, \
             (SELECT COUNT(*) FROM drives \
              WHERE account = $1 AND state IN ($5, $6)) AS drives, \
             (SELECT COUNT(*) FROM resources WHERE account = $1 AND kind = $7) AS ips, \
             (SELECT COUNT(*) FROM resources WHERE account = $1 AND kind = $8) AS vlans",
        );
        let row = statement
            .bind(account.to_string())
            .bind(ServerState::Stopped.as_str())
            .bind(ServerState::Gone.as_str())
            .bind(ServerState::Destroying.as_str())
            .bind(DriveState::Creating.as_str())
            .bind(DriveState::Ready.as_str())
            .bind(ResourceKind::Ip.as_str())
            .bind(ResourceKind::Vlan.as_str())
            .bind(SnapshotState::Destroying.as_str())
            .bind(SnapshotState::Gone.as_str())
            .fetch_one()
            .await
            .map_err(failed("summing what an account uses"))?;
        Ok(Used {
            cpu: number(&row, "cpu")?,
            memory: number(&row, "memory")?,
            disk: number(&row, "disk")?.saturating_add(number(&row, "kept")?),
            servers: number(&row, "servers")?,
            drives: number(&row, "drives")?,
            ips: number(&row, "ips")?,
            vlans: number(&row, "vlans")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_holds_processors_and_memory_is_all_but_what_the_sum_leaves_out() {
        for state in ServerState::ALL {
            let left_out = matches!(state, ServerState::Stopped | ServerState::Gone);
            assert_eq!(ServerState::HOLDS_RESOURCES.contains(state), !left_out, "{state}");
        }
    }
}
