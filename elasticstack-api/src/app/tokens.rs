//! Tokens: credentials that an account makes beside its key, for less, or for a while.
//!
//! Invariants: of a token only its hash is kept; it never opens more than its account does; only the
//! account's key makes further ones, so that what ends can't outlive itself.

use elasticstack_core::prelude::*;
use elasticstack_core::wire::calls::{Effect, Scope};
use elasticstack_core::wire::keys::{self, Moment, Object};
use elasticstack_core::wire::record::Record;
use uuid::Uuid;

use super::access::{Wish, permitted};
use super::accounts::secret_key;
use super::{App, Caller, Page, new_id};
use crate::db::{Reach, Subject, TokenRow};
use crate::key_hash::KeyHash;

/// What every token begins with.
const PREFIX: &str = "es_";

/// The most tokens of an account.
const MOST: usize = 100;

/// The id that a token says it has; `None` if it is no token.
pub(crate) fn token_id(secret: &Secret) -> Option<TokenId> {
    let id = secret.expose().strip_prefix(PREFIX)?.get(..32)?;
    Uuid::try_parse(id).ok().map(TokenId::from_uuid)
}

impl Caller {
    /// Whether its credentials are good for a call of this kind.
    ///
    /// # Errors
    /// `OutOfScope`; `AccountSuspended`.
    pub(crate) fn covers(&self, scope: Scope, effect: Effect) -> Result<()> {
        let sentence = if !self.scope.covers(scope) {
            "this call is for operators: use an operator's credentials"
        } else if self.reach == Some(Reach::Read) && effect == Effect::Changes {
            "this token is for reading only: use one whose access is full, or the account's key"
        } else if effect == Effect::Changes {
            return self.standing.check();
        } else {
            return Ok(());
        };
        Err(Error::new(ErrorKind::OutOfScope, sentence))
    }
}

impl App {
    /// The caller who has this token.
    ///
    /// # Errors
    /// `BadCredentials`, whatever is wrong with it.
    pub async fn authenticate_token(&self, secret: &Secret) -> Result<Caller> {
        let refused = || {
            Error::new(
                ErrorKind::BadCredentials,
                "the token is wrong, has ended or was taken away: send another one",
            )
        };
        let mut reader = self.db.read().await?;
        let id = token_id(secret).ok_or_else(refused)?;
        let row = reader.token(id).await?;
        let fits = KeyHash::of(secret).is(row.as_ref().map(|row| &row.hash));
        let row = row.filter(|_| fits).ok_or_else(refused)?;
        if row.expires.is_some_and(|expires| expires <= self.now()) {
            return Err(refused());
        }
        let account = reader.account(row.account).await?.ok_or_else(refused)?;
        let (reach, token) = (Some(row.reach), Some(row.token));
        Ok(Caller { reach, token, ..account.caller() })
    }

    /// The ids of the caller's tokens.
    ///
    /// # Errors
    /// `InvalidValue` for a page that can't be; `Internal`.
    pub async fn token_ids(&self, caller: &Caller, page: &Page) -> Result<Vec<TokenId>> {
        let rows = self.tokens_page(caller, page).await?;
        Ok(rows.into_iter().map(|row| row.token).collect())
    }

    /// The caller's tokens, without what they open with.
    ///
    /// # Errors
    /// `InvalidValue` for a page that can't be; `Internal`.
    pub async fn tokens_info(&self, caller: &Caller, page: &Page) -> Result<Vec<Record>> {
        Ok(self.tokens_page(caller, page).await?.iter().map(record).collect())
    }

    async fn tokens_page(&self, caller: &Caller, page: &Page) -> Result<Vec<TokenRow>> {
        let wanted = page.of_others()?;
        let rows = self.db.glance().await?.tokens_of(caller.account).await?;
        let rows = rows.into_iter().map(|row| (*row.token.as_uuid(), row));
        let page = wanted.of(rows, |row| ["", row.name.as_str(), ""]);
        Ok(page.into_iter().map(|(_, row)| row).collect())
    }

    /// One of the caller's tokens.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn token_info(&self, caller: &Caller, token: TokenId) -> Result<Record> {
        let row = self.db.glance().await?.token(token).await?;
        permitted(caller.account, row, Wish::See).map(|row| record(&row))
    }

    /// Makes a token. The answer has, this once, the token itself.
    ///
    /// # Errors
    /// `MissingKey` without a name; `InvalidValue` for an end that has passed; `OutOfScope` for a
    /// caller who is here by a token; `QuotaExceeded` past a hundred.
    pub async fn token_create(&self, caller: &Caller, wish: &Record) -> Result<Record> {
        if caller.reach.is_some() {
            return Err(Error::new(
                ErrorKind::OutOfScope,
                "a token makes no tokens: use the account's key",
            ));
        }
        keys::check(Object::Token, Moment::Create, wish)?;
        let name = wish.value("name").ok_or_else(|| keys::missing(Object::Token, "name"))?;
        let name = name.parse().map_err(|error: elasticstack_core::name::InvalidName| {
            Error::new(ErrorKind::InvalidValue, error.to_string()).field("name")
        })?;
        let now = self.now();
        let expires = wish.value("expires").and_then(|seconds| seconds.parse::<i64>().ok());
        let expires = expires.map(|seconds| Timestamp::from_micros(seconds * 1_000_000));
        if expires.is_some_and(|expires| expires <= now) {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                "expires has passed already: give a later second since 1970, or leave it out",
            )
            .field("expires"));
        }
        let id: TokenId = new_id();
        let secret = secret_key()?;
        let secret = Secret::new(format!("{PREFIX}{}{}", id.as_uuid().simple(), secret.expose()));
        let row = &TokenRow {
            token: id,
            account: caller.account,
            name,
            reach: wish.value("access").and_then(Reach::from_word).unwrap_or(Reach::Full),
            hash: KeyHash::of(&secret),
            created: now,
            expires,
        };
        let answer = record(row).with("secret", secret.expose());
        let kept = &answer;
        self.intend(caller, Subject::Token(id), |tx| {
            Box::pin(async move {
                if tx.tokens_of(caller.account).await?.len() >= MOST {
                    return Err(Error::new(
                        ErrorKind::QuotaExceeded,
                        format!("an account has at most {MOST} tokens: destroy one"),
                    ));
                }
                tx.insert_token(row).await?;
                self.answer_at_once(tx, caller, kept).await
            })
        })
        .await?;
        Ok(answer)
    }

    /// Takes a token away: it opens nothing from now on.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn token_destroy(&self, caller: &Caller, token: TokenId) -> Result<()> {
        self.intend(caller, Subject::Token(token), |tx| {
            Box::pin(async move {
                permitted(caller.account, tx.token(token).await?, Wish::Own)?;
                tx.delete_token(token).await
            })
        })
        .await
    }
}

/// A token as its owner sees it.
pub(super) fn record(row: &TokenRow) -> Record {
    let record = Record::new()
        .with("token", row.token)
        .with("name", &row.name)
        .with("access", row.reach.as_str())
        .with("created", row.created.as_seconds());
    match row.expires {
        Some(expires) => record.with("expires", expires.as_seconds()),
        None => record,
    }
}
