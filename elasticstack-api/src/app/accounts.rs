//! Accounts: making them, authenticating.
//!
//! Invariants: of a secret key only its hash is kept; an unknown account and a wrong key cost the same
//! and look the same.

use elasticstack_core::name::InvalidName;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::calls::Scope;
use elasticstack_core::wire::record::Record;
use uuid::Uuid;

use super::{App, Caller};
use crate::db::{AccountRow, Standing, Writer};
use crate::key_hash::{KeyHash, hex};

/// The account that owns standard drives. It has no key: nobody logs in as it.
pub const OPERATOR: AccountId =
    AccountId::from_uuid(Uuid::from_u128(0x0000_0000_0000_4000_8000_0000_0000_0001));

impl App {
    /// Makes an account of a customer. `key` is its secret key and must be random, at least 128 bits. Repeating
    /// it with the same key changes nothing.
    ///
    /// # Errors
    /// `ChangedMeanwhile` if the account exists with another key.
    pub async fn account_create(
        &self,
        account: AccountId,
        name: &Name,
        email: &str,
        key: &Secret,
    ) -> Result<()> {
        let hash = KeyHash::of(key);
        self.add_account(&new_account(account, name, email, Scope::Customer, hash)).await
    }

    /// Makes an account of an operator, who may do all that a customer may, and commands hosts.
    /// `key` as for [`App::account_create`].
    ///
    /// # Errors
    /// `ChangedMeanwhile` if the account exists with another key.
    pub async fn operator_create(
        &self,
        account: AccountId,
        name: &Name,
        key: &Secret,
    ) -> Result<()> {
        let hash = KeyHash::of(key);
        self.add_account(&new_account(account, name, "", Scope::Operator, hash)).await
    }

    async fn add_account(&self, row: &AccountRow) -> Result<()> {
        let account = row.account;
        self.db
            .write(|tx| {
                Box::pin(async move {
                    match tx.account(account).await? {
                        None => tx.save_account(row).await,
                        Some(known) if known.key_hash == row.key_hash => Ok(()),
                        Some(_) => Err(Error::new(
                            ErrorKind::ChangedMeanwhile,
                            "the account exists with another key: use another id",
                        )),
                    }
                })
            })
            .await
    }

    /// The caller of this id and secret key.
    ///
    /// # Errors
    /// `BadCredentials`, whichever of the two is wrong.
    pub async fn authenticate(&self, account: AccountId, key: &Secret) -> Result<Caller> {
        let known = self.db.glance().await?.account(account).await?;
        let fits = KeyHash::of(key).is(known.as_ref().map(|row| &row.key_hash));
        match known {
            Some(row) if fits => Ok(row.caller()),
            Some(_) | None => Err(Error::new(
                ErrorKind::BadCredentials,
                "the account's id or its secret key is wrong: send both as HTTP Basic credentials",
            )),
        }
    }

    /// As [`ensure_operator`], in a transaction of its own.
    pub(super) async fn ensure_operator(&self) -> Result<()> {
        if self.db.glance().await?.account(OPERATOR).await?.is_some() {
            return Ok(());
        }
        self.db.write(|tx| Box::pin(ensure_operator(tx))).await
    }
}

/// The operator's account, made when it is first needed.
pub(super) async fn ensure_operator(tx: &mut Writer<'_>) -> Result<()> {
    if tx.account(OPERATOR).await?.is_some() {
        return Ok(());
    }
    let name = "operator".parse().map_err(|error: InvalidName| {
        Error::internal("naming the operator's account").source(error)
    })?;
    tx.save_account(&new_account(OPERATOR, &name, "", Scope::Operator, KeyHash::NONE)).await
}

impl AccountRow {
    /// Whoever proved that it is his.
    pub(super) fn caller(&self) -> Caller {
        Caller::new(self.account, self.scope, self.standing)
    }
}

impl Standing {
    /// Whether the account may change things.
    ///
    /// # Errors
    /// `AccountSuspended`.
    pub(super) fn check(self) -> Result<()> {
        match self {
            Self::Active => Ok(()),
            Self::Suspended => Err(Error::new(
                ErrorKind::AccountSuspended,
                "the account is suspended and changes nothing, what runs goes on: ask your operator",
            )),
        }
    }
}

/// An account without limits of its own.
pub(super) fn new_account(
    account: AccountId,
    name: &Name,
    email: &str,
    scope: Scope,
    key_hash: KeyHash,
) -> AccountRow {
    AccountRow {
        account,
        name: name.clone(),
        email: email.to_owned(),
        scope,
        key_hash,
        standing: Standing::Active,
        quotas: Record::new(),
    }
}

/// A new secret key: 256 random bits, in hex.
///
/// # Errors
/// `Internal` if the system gives no random bits.
pub fn secret_key() -> Result<Secret> {
    let mut bits = [0; 32];
    getrandom::fill(&mut bits)
        .map_err(|error| Error::internal(format!("drawing a secret key: {error}")))?;
    Ok(Secret::new(hex(&bits)))
}
