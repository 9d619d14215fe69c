//! Handing usage over to the biller.

use std::collections::BTreeSet;

use elasticstack_core::prelude::*;

use super::App;

/// How many items one call hands over.
const BATCH: u32 = 500;

/// Whether there is more that can be handed over at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    Nothing,
    Some,
}

impl App {
    /// Hands over usage that the biller has not taken, or not with its end. Called about once a
    /// second. What the biller does not acknowledge is delivered again, under the same id.
    ///
    /// # Errors
    /// `Unavailable` if the biller can't be reached; `Internal`.
    pub async fn forward_usage(&self) -> Result<()> {
        while self.forward_some_usage().await? == Left::Some {}
        Ok(())
    }

    async fn forward_some_usage(&self) -> Result<Left> {
        let items = &self.db.glance().await?.undelivered_usage(BATCH).await?;
        if items.is_empty() {
            return Ok(Left::Nothing);
        }
        let ack = self.biller.ingest(items).await?;
        let taken: &BTreeSet<_> = &ack.taken.into_iter().collect();
        let delivered: &Vec<_> = &items.iter().filter(|item| taken.contains(&item.id)).collect();
        self.db.note(|tx| Box::pin(tx.mark_usage_delivered(delivered))).await?;
        let is_full = items.len() >= usize::try_from(BATCH).unwrap_or(usize::MAX);
        let all_taken = items.iter().all(|item| taken.contains(&item.id));
        Ok(if is_full && all_taken { Left::Some } else { Left::Nothing })
    }
}
