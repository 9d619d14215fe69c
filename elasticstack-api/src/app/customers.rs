//! What operators see of accounts and say of them: their limits, and whether they may change things.
//!
//! Invariants: of a secret key only its hash is kept, so that it is told once; a suspended account
//! reads and changes nothing, and its intents as they were go on.

use elasticstack_core::name::InvalidName;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::calls::Scope;
use elasticstack_core::wire::keys::{self, Moment, Object};
use elasticstack_core::wire::record::Record;

use super::access::Guarded as _;
use super::accounts::{new_account, secret_key};
use super::power::power_off;
use super::quotas::wanted;
use super::{App, Caller, Page, new_id};
use crate::db::{AccountRow, Reader, Standing, Subject, Writer};
use crate::key_hash::KeyHash;

/// What becomes of the servers of an account that is suspended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnSuspend {
    /// They go on as they are.
    GoOn,
    /// Their power is cut.
    Stop,
}

impl App {
    /// The ids of accounts.
    ///
    /// # Errors
    /// `InvalidValue` for a page that can't be; `Internal`.
    pub async fn account_ids(&self, page: &Page) -> Result<Vec<AccountId>> {
        let rows = accounts_page(&mut self.db.read().await?, page).await?;
        Ok(rows.into_iter().map(|row| row.account).collect())
    }

    /// Accounts.
    ///
    /// # Errors
    /// As [`App::account_ids`].
    pub async fn accounts_info(&self, page: &Page) -> Result<Vec<Record>> {
        let mut reader = self.db.read().await?;
        let mut records = Vec::new();
        for row in accounts_page(&mut reader, page).await? {
            records.push(self.account_record(&mut reader, &row).await?);
        }
        Ok(records)
    }

    /// One account.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn account_info(&self, account: AccountId) -> Result<Record> {
        let mut reader = self.db.read().await?;
        let row = known(&mut reader, account).await?;
        self.account_record(&mut reader, &row).await
    }

    /// Makes a customer's account. The answer has, this once, its secret key.
    ///
    /// # Errors
    /// Those of a record's check; `MissingKey` without a name.
    pub async fn account_add(&self, caller: &Caller, wish: &Record) -> Result<Record> {
        keys::check(Object::Account, Moment::Create, wish)?;
        let name = name_in(wish)?.ok_or_else(|| keys::missing(Object::Account, "name"))?;
        let email = wish.value("email").unwrap_or_default();
        let key = &secret_key()?;
        let account = new_id();
        let mut row = new_account(account, &name, email, Scope::Customer, KeyHash::of(key));
        row.quotas.apply(&wanted(wish));
        let row = &row;
        self.intend(caller, Subject::Account(account), |tx| {
            Box::pin(async move {
                tx.save_account(row).await?;
                self.answer_with_key(tx, caller, row, key).await
            })
        })
        .await
    }

    /// Changes the name, the address of mail or the limits of an account.
    ///
    /// # Errors
    /// `NotFound`; those of a record's check.
    pub async fn account_set(
        &self,
        caller: &Caller,
        account: AccountId,
        change: &Record,
    ) -> Result<Record> {
        keys::check(Object::Account, Moment::SetStopped, change)?;
        let name = &name_in(change)?;
        let email = change.iter().find(|(key, _)| *key == "email").map(|(_, value)| value);
        let quotas = &wanted(change);
        self.change_account(caller, account, |row| {
            row.name = name.clone().unwrap_or_else(|| row.name.clone());
            row.email = email.unwrap_or(&row.email).to_owned();
            row.quotas.apply(quotas);
        })
        .await
    }

    /// Has an account change nothing any more, and if asked cuts the power of its servers, without
    /// waiting for their hosts.
    ///
    /// # Errors
    /// `NotFound`; `InvalidValue` for the caller's own account, who could not take it back.
    pub async fn account_suspend(
        &self,
        caller: &Caller,
        account: AccountId,
        servers: OnSuspend,
    ) -> Result<Record> {
        if account == caller.account {
            return Err(Error::new(
                ErrorKind::InvalidValue,
                "an operator cannot suspend its own account: have another one do it",
            ));
        }
        let now = self.now();
        self.intend(caller, Subject::Account(account), |tx| {
            Box::pin(async move {
                let before = known(tx, account).await?;
                let row = AccountRow { standing: Standing::Suspended, ..before.clone() };
                if row != before {
                    tx.save_account(&row).await?;
                }
                if servers == OnSuspend::Stop {
                    let mut shown = Vec::new();
                    tx.servers_since(account, 0, |row| shown.push(row)).await?;
                    shown.retain(|row| !row.is_hidden());
                    for before in shown {
                        let mut row = before.clone();
                        power_off(tx, &mut row, now).await?;
                        if row != before {
                            tx.save_server(&row).await?;
                        }
                    }
                }
                self.account_record(tx, &row).await
            })
        })
        .await
    }

    /// Lets a suspended account change things again. What was stopped stays stopped.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn account_resume(&self, caller: &Caller, account: AccountId) -> Result<Record> {
        self.change_account(caller, account, |row| row.standing = Standing::Active).await
    }

    /// Gives an account another secret key: the old one opens nothing any more, tokens stay. The
    /// answer has, this once, the new one.
    ///
    /// # Errors
    /// `NotFound`.
    pub async fn account_key(&self, caller: &Caller, account: AccountId) -> Result<Record> {
        let key = &secret_key()?;
        self.intend(caller, Subject::Account(account), |tx| {
            Box::pin(async move {
                let row = AccountRow { key_hash: KeyHash::of(key), ..known(tx, account).await? };
                tx.save_account(&row).await?;
                self.answer_with_key(tx, caller, &row, key).await
            })
        })
        .await
    }

    async fn change_account(
        &self,
        caller: &Caller,
        account: AccountId,
        change: impl Fn(&mut AccountRow) + Sync,
    ) -> Result<Record> {
        let change = &change;
        self.intend(caller, Subject::Account(account), |tx| {
            Box::pin(async move {
                let before = known(tx, account).await?;
                let mut row = before.clone();
                change(&mut row);
                if row != before {
                    tx.save_account(&row).await?;
                }
                self.account_record(tx, &row).await
            })
        })
        .await
    }

    async fn answer_with_key(
        &self,
        tx: &mut Writer<'_>,
        caller: &Caller,
        row: &AccountRow,
        key: &Secret,
    ) -> Result<Record> {
        let answer = self.account_record(tx, row).await?.with("secret", key.expose());
        self.answer_at_once(tx, caller, &answer).await?;
        Ok(answer)
    }

    async fn account_record(&self, reader: &mut Reader, row: &AccountRow) -> Result<Record> {
        let record = self.quotas_of(reader, row).await?;
        let record = record
            .with("account", row.account)
            .with("name", &row.name)
            .with("scope", row.scope.as_str())
            .with("status", row.standing.as_str());
        Ok(if row.email.is_empty() { record } else { record.with("email", &row.email) })
    }
}

async fn accounts_page(reader: &mut Reader, page: &Page) -> Result<Vec<AccountRow>> {
    let wanted = page.of_accounts()?;
    let after = wanted.after.map(|after| after.to_string()).unwrap_or_default();
    let [name, standing] = [wanted.name, wanted.status].map(Option::unwrap_or_default);
    reader.accounts_page(&after, name, standing, wanted.limit).await
}

async fn known(reader: &mut Reader, account: AccountId) -> Result<AccountRow> {
    reader.account(account).await?.ok_or_else(|| {
        let sentence = "the account could not be found: see the list of accounts";
        Error::new(ErrorKind::NotFound, sentence)
    })
}

fn name_in(record: &Record) -> Result<Option<Name>> {
    record.value("name").map(str::parse).transpose().map_err(|error: InvalidName| {
        Error::new(ErrorKind::InvalidValue, error.to_string()).field("name")
    })
}
