//! Rows of accounts.

use elasticstack_core::prelude::*;
use elasticstack_core::wire::calls::Scope;
use elasticstack_core::wire::record::Record;

use super::dialect::Row;
use super::row::{column, failed, from_record, parsed, record, word};
use super::{Reader, Writer};
use crate::key_hash::KeyHash;

/// Whether an account may change things.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    Active,
    /// It only reads.
    Suspended,
}

impl Standing {
    pub(crate) const ALL: [Self; 2] = [Self::Active, Self::Suspended];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Suspended => "suspended",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|standing| standing.as_str() == word)
    }
}

/// An account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct AccountRow {
    pub(crate) account: AccountId,
    pub(crate) name: Name,
    pub(crate) email: String,
    pub(crate) scope: Scope,
    /// The secret key's hash; empty where nobody may log in.
    pub(crate) key_hash: KeyHash,
    pub(crate) standing: Standing,
    /// The limits that an operator set, by key.
    pub(crate) quotas: Record,
}

fn account(row: &Row) -> Result<AccountRow> {
    Ok(AccountRow {
        account: parsed(row, "account")?,
        name: parsed(row, "name")?,
        email: column(row, "email")?,
        scope: word(row, "scope", Scope::from_word)?,
        key_hash: KeyHash::kept(column(row, "key_hash")?),
        standing: word(row, "standing", Standing::from_word)?,
        quotas: record(row, "quotas")?,
    })
}

impl Reader {
    /// The account of this id.
    pub(crate) async fn account(&mut self, id: AccountId) -> Result<Option<AccountRow>> {
        let row = self
            .statement("SELECT * FROM accounts WHERE account = $1")
            .bind(id.to_string())
            .fetch_optional()
            .await
            .map_err(failed("reading an account"))?;
        row.as_ref().map(account).transpose()
    }

    /// The accounts after an id, in the order of their ids: all, or those of a name or a standing
    /// where that is not empty.
    pub(crate) async fn accounts_page(
        &mut self,
        after: &str,
        name: &str,
        standing: &str,
        limit: usize,
    ) -> Result<Vec<AccountRow>> {
        let rows = self
            .statement(
                "SELECT * FROM accounts WHERE account > $1 AND ($2 = '' OR name = $2) \
                 AND ($3 = '' OR standing = $3) ORDER BY account LIMIT $4",
            )
            .bind(after)
            .bind(name)
            .bind(standing)
            .bind(i64::try_from(limit).unwrap_or(i64::MAX))
            .fetch_all()
            .await
            .map_err(failed("reading a page of accounts"))?;
        rows.iter().map(account).collect()
    }
}

impl Writer<'_> {
    /// As [`Reader::account`].
    pub(crate) async fn account(&mut self, id: AccountId) -> Result<Option<AccountRow>> {
        if let Some(row) = self.read.account.as_ref().filter(|row| row.account == id) {
            return Ok(Some(row.clone()));
        }
        let row = self.reader.account(id).await?;
        self.read.account.clone_from(&row);
        Ok(row)
    }

    /// Adds the account or replaces its row. What an account is for never changes.
    pub(crate) async fn save_account(&mut self, row: &AccountRow) -> Result<()> {
        let AccountRow { account, name, email, scope, key_hash, standing, quotas } = row;
        let before = self.account(*account).await?;
        self.read.account = None;
        self.note(before.as_ref(), row);
        self.change(
            "INSERT INTO accounts (account, name, email, scope, key_hash, standing, quotas) \
             VALUES ($1, $2, $3, $4, $5, $6, $7) \
             ON CONFLICT (account) DO UPDATE SET name = excluded.name, email = excluded.email, \
             key_hash = excluded.key_hash, standing = excluded.standing, \
             quotas = excluded.quotas",
        )
        .bind(account.to_string())
        .bind(name.as_str())
        .bind(email)
        .bind(scope.as_str())
        .bind(key_hash.as_str())
        .bind(standing.as_str())
        .bind(from_record(quotas)?)
        .execute()
        .await
        .map_err(failed("saving an account"))?;
        Ok(())
    }
}
