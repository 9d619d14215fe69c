//! Billing, as three questions that the control plane asks.

mod open;
mod types;

use async_trait::async_trait;

pub use open::OpenBiller;
pub use types::{Ack, Change, ChangeKind, Line, Meter, Period, Statement, Usage, UsageId, Verdict};

use crate::error::Result;
use crate::id::AccountId;

/// Says whether a change is paid for, takes usage, and states what was used.
///
/// # Contract
/// - **BI-1** `authorize` is idempotent by [`Change::change`]: asking twice gives one answer and
///   holds money once.
/// - **BI-2** A hold lapses at its `until`, unless usage that carries its change arrives.
/// - **BI-3** `ingest` takes each item once, however often it is delivered, by its id; a later
///   delivery with a later end replaces an open item.
/// - **BI-4** `statement` over a period that is split anywhere sums to the statement of the whole.
#[async_trait]
pub trait Biller: Send + Sync {
    /// Asked before a change that costs something, outside any transaction.
    ///
    /// # Errors
    /// `Unavailable` if the biller can't be reached. A refusal is no error but a [`Verdict`].
    async fn authorize(&self, change: &Change) -> Result<Verdict>;

    /// Takes usage. What the answer acknowledges is not delivered again.
    ///
    /// # Errors
    /// `Unavailable` if the biller can't be reached: deliver again.
    async fn ingest(&self, usage: &[Usage]) -> Result<Ack>;

    /// What an account used in a period.
    ///
    /// # Errors
    /// `Unavailable` if the biller can't be reached.
    async fn statement(&self, account: AccountId, period: Period) -> Result<Statement>;
}
