//! Usage (metering): when an interval opens, changes and ends.
//!
//! Owns where an instant is clamped to; the rows are `db`'s, and what is metered when is decided
//! by the use case that calls this in the transaction of the change itself.
//!
//! Invariants: the intervals of one resource and meter never overlap; one is open at most; a
//! change of quantity leaves no gap.

use elasticstack_core::biller::Meter;
use elasticstack_core::prelude::*;

use crate::db::{Breakpoint, Writer};

/// What is metered: a meter of one drive or server, on the account that pays.
#[derive(Debug, Clone)]
pub(crate) struct Metered {
    pub(crate) account: AccountId,
    pub(crate) resource: String,
    pub(crate) meter: Meter,
}

/// An instant that decides money, and who says so.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Edge {
    /// We decided it, now.
    Ours(Timestamp),
    /// A host stamped it; we read that at `receipt`.
    Stamped { stamp: Timestamp, receipt: Timestamp },
}

impl Edge {
    /// Clamps into [floor, receipt]. Where that is empty because our clock was set back, the
    /// floor counts: time that is metered is metered once. An end has its floor, the beginning of
    /// its interval, in the database.
    fn breakpoint(self, floor: Option<Timestamp>) -> Breakpoint {
        let (at, stamped) = match self {
            Self::Ours(now) => (now, None),
            Self::Stamped { stamp, receipt } => (stamp.min(receipt), Some(stamp)),
        };
        Breakpoint { at: floor.map_or(at, |floor| at.max(floor)), stamped }
    }
}

/// Opens an interval of `quantity`; one that is open already goes on as it is.
pub(crate) async fn begin(
    tx: &mut Writer<'_>,
    metered: &Metered,
    quantity: u64,
    edge: Edge,
    change: Option<ChangeId>,
) -> Result<()> {
    let Metered { account, resource, meter } = metered;
    let so_far = tx.usage_so_far(resource, *meter).await?;
    if so_far.goes_on {
        return Ok(());
    }
    let from = edge.breakpoint(so_far.last_end);
    tx.insert_usage(*account, (resource, *meter), quantity, from, change).await
}

/// Ends the open interval; without one nothing happens.
pub(crate) async fn end(tx: &mut Writer<'_>, metered: &Metered, edge: Edge) -> Result<()> {
    let Metered { account: _, resource, meter } = metered;
    tx.end_usage(resource, *meter, edge.breakpoint(None)).await
}

/// Ends the open interval and opens one of another quantity at the same instant.
pub(crate) async fn change_quantity(
    tx: &mut Writer<'_>,
    metered: &Metered,
    quantity: u64,
    edge: Edge,
    change: Option<ChangeId>,
) -> Result<()> {
    end(tx, metered, edge).await?;
    begin(tx, metered, quantity, edge, change).await
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn an_edge_never_lies_before_its_floor_nor_after_its_receipt(
            stamp: i64, receipt in 0..i64::MAX, floor in 0..i64::MAX,
        ) {
            let [stamp, receipt, floor] = [stamp, receipt, floor].map(Timestamp::from_micros);
            let breakpoint = Edge::Stamped { stamp, receipt }.breakpoint(Some(floor));
            prop_assert!(breakpoint.at >= floor);
            prop_assert!(breakpoint.at <= receipt.max(floor));
            prop_assert_eq!(breakpoint.stamped, Some(stamp), "the raw value is kept");
            if (floor..=receipt).contains(&stamp) {
                prop_assert_eq!(breakpoint.at, stamp);
            }
        }
    }
}
