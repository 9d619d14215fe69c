//! Rows of accounts.

use elasticstack_core::prelude::*;

use super::row::{column, failed, parsed};
use super::{Reader, Writer};

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccountRow {
    pub(crate) account: AccountId,
    pub(crate) name: Name,
    pub(crate) email: String,
    /// The secret key's hash; empty where nobody may log in.
    pub(crate) key_hash: String,
}

impl Reader {
    /// The account of this id.
    pub(crate) async fn account(&mut self, account: AccountId) -> Result<Option<AccountRow>> {
        let row = sqlx::query("SELECT name, email, key_hash FROM accounts WHERE account = $1")
            .bind(account.to_string())
            .fetch_optional(self.connection())
            .await
            .map_err(failed("reading an account"))?;
        row.map(|row| {
            Ok(AccountRow {
                account,
                name: parsed(&row, "name")?,
                email: column(&row, "email")?,
                key_hash: column(&row, "key_hash")?,
            })
        })
        .transpose()
    }
}

impl Writer<'_> {
    /// Adds an account.
    pub(crate) async fn insert_account(&mut self, row: &AccountRow) -> Result<()> {
        let AccountRow { account, name, email, key_hash } = row;
        sqlx::query(
            "INSERT INTO accounts (account, name, email, key_hash) VALUES ($1, $2, $3, $4)",
        )
        .bind(account.to_string())
        .bind(name.as_str())
        .bind(email)
        .bind(key_hash)
        .execute(self.changing())
        .await
        .map_err(failed("adding an account"))?;
        Ok(())
    }
}
