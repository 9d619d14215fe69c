//! Marks of transactions: what was changed since one looked last, with nothing passed over.
//!
//! A row that carries the mark of the transaction that wrote it is found again by it. Marks are
//! given out in the order in which transactions begin to write, which is not the order in which
//! they commit. So a reader goes by the horizon of its snapshot: every transaction whose mark lies
//! below it is over, and what it wrote is in the snapshot. What is marked at or above the horizon
//! may be seen now, or later, or both times.

use elasticstack_core::prelude::*;

use super::row::{column, failed};
use super::{Reader, Writer};

impl Reader {
    /// Every transaction with a mark below this is over, and this snapshot has what it wrote.
    pub(crate) async fn horizon(&mut self) -> Result<i64> {
        let row = self.transaction.horizon().fetch_one().await;
        column(&row.map_err(failed("reading the horizon"))?, "mark")
    }

    /// Where the next look for changed rows begins: what this snapshot does not have of them is
    /// going to be marked there or above, and so is what a later one has. Asked for before the rows. A database that crashed may give out marks again, but
    /// none that a committed row has.
    pub(crate) async fn next_look(&mut self) -> Result<i64> {
        let row = self.transaction.horizon_and_latest().fetch_one().await;
        let row = row.map_err(failed("reading the latest mark"))?;
        let (horizon, latest): (i64, i64) = (column(&row, "mark")?, column(&row, "latest")?);
        Ok(horizon.min(latest.saturating_add(1)))
    }
}

impl Writer<'_> {
    /// The mark of this transaction.
    pub(crate) async fn mark(&mut self) -> Result<i64> {
        if let Some(mark) = self.mark {
            return Ok(mark);
        }
        self.changed = true;
        let row = self.reader.transaction.mark().fetch_one().await;
        let mark = column(&row.map_err(failed("marking a transaction"))?, "mark")?;
        self.mark = Some(mark);
        Ok(mark)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Database;

    #[tokio::test]
    async fn a_mark_is_below_the_horizon_of_whoever_sees_its_transaction() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("control.db").display());
        let database = Database::open(&url).await.unwrap();
        let mut last = 0;
        for _ in 0..3 {
            let before = database.read().await.unwrap().horizon().await.unwrap();
            let marks = database
                .write(|tx| Box::pin(async move { Ok([tx.mark().await?, tx.mark().await?]) }))
                .await
                .unwrap();
            let after = database.read().await.unwrap().horizon().await.unwrap();
            assert_eq!(marks[0], marks[1]);
            assert!(before <= marks[0] && marks[0] < after && last < marks[0], "{marks:?}");
            last = marks[0];
        }
    }
}
