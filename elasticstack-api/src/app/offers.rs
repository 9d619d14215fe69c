//! What this installation offers, and what was used of it.

use elasticstack_core::biller::Usage;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::record::Record;

use super::{App, Caller, Page, REMEMBERED};

impl App {
    /// What this installation offers, but for the limits that its public API has.
    #[must_use]
    pub fn capabilities(&self) -> Record {
        let hosts = if self.config.authority.is_some() { "yes" } else { "no" };
        Record::new()
            .with("version", env!("CARGO_PKG_VERSION"))
            .with("offer:hosts", hosts)
            .with("limit:answer_seconds", self.config.answer_within.as_secs())
            .with("limit:idempotency_seconds", REMEMBERED.as_secs())
    }

    /// The caller's usage that touches a period, in the order in which it began to be written.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn usage_info(&self, caller: &Caller, page: &Page) -> Result<Vec<Record>> {
        self.usage(&caller.account.to_string(), page).await
    }

    /// Everybody's usage that touches a period.
    ///
    /// # Errors
    /// `Internal`.
    pub async fn usage_of_all(&self, page: &Page) -> Result<Vec<Record>> {
        self.usage("", page).await
    }

    async fn usage(&self, account: &str, page: &Page) -> Result<Vec<Record>> {
        let after = page.after.as_deref().and_then(|after| after.parse().ok()).unwrap_or(-1);
        let limit = page.limit.map_or(i64::MAX, i64::from);
        let mut reader = self.db.read().await?;
        let items = reader.usage_in(account, page.from, page.to, after, limit).await?;
        Ok(items.iter().map(record).collect())
    }
}

fn record(item: &Usage) -> Record {
    let record = Record::new()
        .with("interval", item.id.0)
        .with("account", item.account)
        .with("resource", &item.resource)
        .with("meter", item.meter.as_str())
        .with("quantity", item.quantity)
        .with("from", item.from.as_micros());
    match item.to {
        Some(to) => record.with("to", to.as_micros()),
        None => record,
    }
}
