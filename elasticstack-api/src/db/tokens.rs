//! Rows of tokens.

use elasticstack_core::prelude::*;

use super::dialect::Row;
use super::row::{column, failed, instant, parsed, word};
use super::{Reader, Writer};
use crate::key_hash::KeyHash;

/// What a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// Calls that change nothing.
    Read,
    /// All that its account may.
    Full,
}

impl Reach {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Full => "full",
        }
    }

    pub(crate) fn from_word(word: &str) -> Option<Self> {
        [Self::Read, Self::Full].into_iter().find(|reach| reach.as_str() == word)
    }
}

/// A token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TokenRow {
    pub(crate) token: TokenId,
    pub(crate) account: AccountId,
    pub(crate) name: Name,
    pub(crate) reach: Reach,
    /// Of the whole token.
    pub(crate) hash: KeyHash,
    pub(crate) created: Timestamp,
    /// When it is good no more; `None` for never.
    pub(crate) expires: Option<Timestamp>,
}

fn token(row: &Row) -> Result<TokenRow> {
    let expires: Option<i64> = column(row, "expires_us")?;
    Ok(TokenRow {
        token: parsed(row, "token")?,
        account: parsed(row, "account")?,
        name: parsed(row, "name")?,
        reach: word(row, "access", Reach::from_word)?,
        hash: KeyHash::kept(column(row, "hash")?),
        created: instant(row, "created_us")?,
        expires: expires.map(Timestamp::from_micros),
    })
}

impl Reader {
    /// The token of this id.
    pub(crate) async fn token(&mut self, id: TokenId) -> Result<Option<TokenRow>> {
        let row = self
            .statement("SELECT * FROM tokens WHERE token = $1")
            .bind(id.to_string())
            .fetch_optional()
            .await
            .map_err(failed("reading a token"))?;
        row.as_ref().map(token).transpose()
    }

    /// The tokens of an account, in the order of their ids.
    pub(crate) async fn tokens_of(&mut self, account: AccountId) -> Result<Vec<TokenRow>> {
        let rows = self
            .statement("SELECT * FROM tokens WHERE account = $1 ORDER BY token")
            .bind(account.to_string())
            .fetch_all()
            .await
            .map_err(failed("reading the tokens of an account"))?;
        rows.iter().map(token).collect()
    }
}

impl Writer<'_> {
    /// Adds a token.
    pub(crate) async fn insert_token(&mut self, row: &TokenRow) -> Result<()> {
        let TokenRow { token, account, name, reach, hash, created, expires } = row;
        self.note(None, row);
        self.change(
            "INSERT INTO tokens (token, account, name, access, hash, created_us, expires_us) \
             VALUES ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(token.to_string())
        .bind(account.to_string())
        .bind(name.as_str())
        .bind(reach.as_str())
        .bind(hash.as_str())
        .bind(created.as_micros())
        .bind(expires.map(Timestamp::as_micros))
        .execute()
        .await
        .map_err(failed("adding a token"))?;
        Ok(())
    }

    /// Takes a token away.
    pub(crate) async fn delete_token(&mut self, token: TokenId) -> Result<()> {
        let before = self.token(token).await?;
        self.note_gone(before.as_ref());
        self.change("DELETE FROM tokens WHERE token = $1")
            .bind(token.to_string())
            .execute()
            .await
            .map_err(failed("taking a token away"))?;
        Ok(())
    }
}
