//! Which of many rows are wanted, and what rows are searched by.

use elasticstack_core::prelude::*;
use elasticstack_core::wire::record::Record;

use super::dialect::Statement;
use super::row::{failed, parsed};
use super::{Database, Writer};

/// Which of an account's rows are wanted. What is empty asks for nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter<State> {
    /// The id after which to begin.
    pub(crate) after: String,
    /// The name that is shown.
    pub(crate) name: String,
    /// One of its tags.
    pub(crate) tag: String,
    /// The most rows.
    pub(crate) limit: i64,
    /// In one of these states.
    pub(crate) states: Vec<State>,
}

impl<State> Filter<State> {
    /// Binds `$2` to `$5`: after, name, tag between spaces, limit.
    pub(super) fn bind<'c>(&self, statement: Statement<'c>) -> Statement<'c> {
        let tag = if self.tag.is_empty() { String::new() } else { format!(" {} ", self.tag) };
        statement.bind(self.after.clone()).bind(self.name.clone()).bind(tag).bind(self.limit)
    }

    /// The words of the states, as often as it takes to make `COUNT`; none of a state at all is
    /// a word that no row has.
    pub(super) fn words<const COUNT: usize>(
        &self,
        word: impl Fn(&State) -> &'static str,
    ) -> [&'static str; COUNT] {
        let mut words = [self.states.first().map_or("", &word); COUNT];
        for (place, state) in words.iter_mut().zip(&self.states) {
            *place = word(state);
        }
        words
    }
}

/// The name and the tags of a row, as its columns have them.
pub(super) fn searched(config: &Record, id: &str) -> (String, String) {
    let name = config.value("name").unwrap_or(id).to_owned();
    let words = config.value("tags").unwrap_or_default().split_whitespace();
    (name, words.fold(" ".to_owned(), |tags, word| tags + word + " "))
}

impl Database {
    /// Makes rows found that an older program saved.
    pub(super) async fn index(&self) -> Result<()> {
        let mut reader = self.read().await?;
        let none = "SELECT drive AS id FROM drives WHERE tags IS NULL \
             UNION ALL SELECT server AS id FROM servers WHERE tags IS NULL LIMIT 1";
        let row = reader.statement(none).fetch_optional().await;
        let is_indexed = row.map_err(failed("looking for rows of an older program"))?.is_none();
        drop(reader);
        if is_indexed {
            return Ok(());
        }
        self.write(|tx| Box::pin(index(tx))).await
    }
}

async fn index(tx: &mut Writer<'_>) -> Result<()> {
    let reading = "reading rows of an older program";
    let drives = tx.statement("SELECT drive FROM drives WHERE tags IS NULL").fetch_all().await;
    for row in drives.map_err(failed(reading))? {
        if let Some(row) = tx.drive(parsed(&row, "drive")?).await? {
            tx.save_drive(&row).await?;
        }
    }
    let servers = tx.statement("SELECT server FROM servers WHERE tags IS NULL").fetch_all().await;
    for row in servers.map_err(failed(reading))? {
        if let Some(row) = tx.server(parsed(&row, "server")?).await? {
            tx.save_server(&row).await?;
        }
    }
    Ok(())
}
