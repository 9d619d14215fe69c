//! The profile: an account as its owner sees it and may change it.

use elasticstack_core::name::InvalidName;
use elasticstack_core::prelude::*;
use elasticstack_core::wire::keys::{self, Moment, Object};
use elasticstack_core::wire::record::Record;

use super::{App, Caller};
use crate::db::{AccountRow, Subject};

impl App {
    /// The caller's account as its owner sees it.
    ///
    /// # Errors
    /// `NotFound` if the account is gone.
    pub async fn profile_info(&self, caller: &Caller) -> Result<Record> {
        let mut reader = self.db.read().await?;
        let row = known(reader.account(caller.account).await?)?;
        let quotas = self.quotas_of(&mut reader, &row).await?;
        Ok(quotas.with("uuid", row.account).with("name", row.name).with("email", row.email))
    }

    /// Changes the name or the address of mail. The name stays if it is unset.
    ///
    /// # Errors
    /// Those of a record's check; `InvalidValue` for what is no address of mail.
    pub async fn profile_set(&self, caller: &Caller, change: &Record) -> Result<Record> {
        keys::check(Object::Profile, Moment::SetStopped, change)?;
        let account = caller.account;
        let name: Option<Name> =
            change.value("name").map(str::parse).transpose().map_err(|error: InvalidName| {
                Error::new(ErrorKind::InvalidValue, error.to_string()).field("name")
            })?;
        let email = change.iter().find(|(key, _)| *key == "email").map(|(_, value)| value);
        let name = name.as_ref();
        self.intend(caller, Subject::Account(account), |tx| {
            Box::pin(async move {
                let before = known(tx.account(account).await?)?;
                let (name, email) = (name.unwrap_or(&before.name), email.unwrap_or(&before.email));
                let (name, email) = (name.clone(), email.to_owned());
                let row = AccountRow { name, email, ..before.clone() };
                if row != before {
                    tx.save_account(&row).await?;
                }
                Ok(())
            })
        })
        .await?;
        self.profile_info(caller).await
    }
}

fn known(row: Option<AccountRow>) -> Result<AccountRow> {
    row.ok_or_else(|| {
        Error::new(ErrorKind::NotFound, "the account could not be found: ask your operator")
    })
}
