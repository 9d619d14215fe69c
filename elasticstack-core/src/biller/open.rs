//! The biller that meters and never refuses.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use async_trait::async_trait;

use super::{Ack, Biller, Change, Line, Meter, Period, Statement, Usage, UsageId, Verdict};
use crate::clock::Timestamp;
use crate::error::Result;
use crate::id::AccountId;

/// Allows everything and sums usage in memory; an installation without prices needs no more.
/// What it has taken is gone with the process: the control plane's own intervals are the record.
#[derive(Debug, Default)]
pub struct OpenBiller {
    taken: Mutex<BTreeMap<UsageId, Usage>>,
}

#[async_trait]
impl Biller for OpenBiller {
    async fn authorize(&self, _change: &Change) -> Result<Verdict> {
        Ok(Verdict::Allow { until: Timestamp::from_micros(i64::MAX) })
    }

    async fn ingest(&self, usage: &[Usage]) -> Result<Ack> {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        for item in usage {
            let known = taken.entry(item.id).or_insert_with(|| item.clone());
            if known.to.is_none() {
                known.to = item.to;
            }
        }
        Ok(Ack { taken: usage.iter().map(|item| item.id).collect() })
    }

    async fn statement(&self, account: AccountId, period: Period) -> Result<Statement> {
        let taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sums = BTreeMap::<Meter, u128>::new();
        for item in taken.values().filter(|item| item.account == account) {
            let from = item.from.max(period.from);
            let to = item.to.unwrap_or(period.to).min(period.to);
            let micros = u128::try_from(to.as_micros().saturating_sub(from.as_micros()));
            *sums.entry(item.meter).or_default() += u128::from(item.quantity) * micros.unwrap_or(0);
        }
        let lines = sums
            .into_iter()
            .map(|(meter, quantity_micros)| Line { meter, quantity_micros })
            .collect();
        Ok(Statement { account, period, lines })
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use proptest::prelude::*;
    use uuid::Uuid;

    use super::*;

    fn now<F: Future>(future: F) -> F::Output {
        match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(output) => output,
            Poll::Pending => panic!("the open biller never waits"),
        }
    }

    fn at(micros: i64) -> Timestamp {
        Timestamp::from_micros(micros)
    }

    proptest! {
        #[test]
        fn a_statement_split_anywhere_sums_to_the_whole(
            items in proptest::collection::vec((0_i64..1_000, 0_i64..1_000, 0_u64..1 << 40), 0..8),
            cut in 0_i64..1_000, deliveries in 1_usize..3,
        ) {
            let (biller, account) = (OpenBiller::default(), AccountId::from_uuid(Uuid::nil()));
            let usage: Vec<Usage> = (0..).zip(items).map(|(id, (from, length, quantity))| Usage {
                id: UsageId(id), account, resource: String::new(), meter: Meter::Cpu, quantity,
                from: at(from), to: Some(at(from + length)), change: None,
            }).collect();
            for _ in 0..deliveries {
                now(biller.ingest(&usage)).unwrap();
            }
            let sum = |from, to| -> u128 {
                let statement = now(biller.statement(account, Period { from: at(from), to: at(to) }));
                statement.unwrap().lines.iter().map(|line| line.quantity_micros).sum()
            };
            prop_assert_eq!(sum(0, cut) + sum(cut, 2_000), sum(0, 2_000));
            let whole: u128 = usage.iter().map(|item| {
                u128::from(item.quantity) * item.to.unwrap().since(item.from).as_micros()
            }).sum();
            prop_assert_eq!(sum(0, 2_000), whole);
        }
    }
}
