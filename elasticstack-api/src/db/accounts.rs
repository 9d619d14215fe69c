//! Rows of accounts.

use elasticstack_core::prelude::*;
use elasticstack_core::wire::calls::Scope;

use super::row::{column, failed, parsed, word};
use super::{Reader, Writer};

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccountRow {
    pub(crate) account: AccountId,
    pub(crate) name: Name,
    pub(crate) email: String,
    pub(crate) scope: Scope,
    /// The secret key's hash; empty where nobody may log in.
    pub(crate) key_hash: String,
}

impl Reader {
    /// The account of this id.
    pub(crate) async fn account(&mut self, account: AccountId) -> Result<Option<AccountRow>> {
        let row = self
            .statement("SELECT name, email, scope, key_hash FROM accounts WHERE account = $1")
            .bind(account.to_string())
            .fetch_optional()
            .await
            .map_err(failed("reading an account"))?;
        row.map(|row| {
            Ok(AccountRow {
                account,
                name: parsed(&row, "name")?,
                email: column(&row, "email")?,
                scope: word(&row, "scope", Scope::from_word)?,
                key_hash: column(&row, "key_hash")?,
            })
        })
        .transpose()
    }
}

impl Writer<'_> {
    /// Gives an account another name and address of mail.
    pub(crate) async fn save_profile(
        &mut self,
        account: AccountId,
        name: &Name,
        email: &str,
    ) -> Result<()> {
        self.change("UPDATE accounts SET name = $2, email = $3 WHERE account = $1")
            .bind(account.to_string())
            .bind(name.as_str())
            .bind(email)
            .execute()
            .await
            .map_err(failed("changing an account"))?;
        Ok(())
    }

    /// Adds an account.
    pub(crate) async fn insert_account(&mut self, row: &AccountRow) -> Result<()> {
        let AccountRow { account, name, email, scope, key_hash } = row;
        self.change(
            "INSERT INTO accounts (account, name, email, scope, key_hash) VALUES ($1, $2, $3, $4, $5)",
        )
        .bind(account.to_string())
        .bind(name.as_str())
        .bind(email)
        .bind(scope.as_str())
        .bind(key_hash)
        .execute()
        .await
        .map_err(failed("adding an account"))?;
        Ok(())
    }
}
