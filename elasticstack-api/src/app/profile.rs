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
        let row = known(self.db.read().await?.account(caller.account).await?)?;
        Ok(Record::new().with("uuid", row.account).with("name", row.name).with("email", row.email))
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
        if let Some(email) = email.filter(|email| !email.is_empty() && !is_mail_address(email)) {
            let sentence = format!("{email:?} is not an address of mail: give NAME@DOMAIN");
            return Err(Error::new(ErrorKind::InvalidValue, sentence).field("email"));
        }
        let name = name.as_ref();
        self.intend(caller, Subject::Account(account), |tx| {
            Box::pin(async move {
                let before = known(tx.account(account).await?)?;
                let (name, email) = (name.unwrap_or(&before.name), email.unwrap_or(&before.email));
                if *name != before.name || *email != before.email {
                    tx.save_profile(account, name, email).await?;
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

/// Whether mail may be sent there: who gets it is proved by sending it, not here.
fn is_mail_address(text: &str) -> bool {
    let plain = |character: char| !character.is_whitespace() && !character.is_control();
    text.chars().all(plain)
        && text.split_once('@').is_some_and(|(name, domain)| {
            !name.is_empty() && !domain.is_empty() && !domain.contains('@')
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_of_mail_is_a_name_at_a_domain() {
        for good in ["a@b.c", "first.last+tag@mail.example.org", "größe@example.org"] {
            assert!(is_mail_address(good), "{good}");
        }
        for bad in ["a", "@b", "a@", "a@b@c", "a b@c", "a@b\nBcc: x@y"] {
            assert!(!is_mail_address(bad), "{bad}");
        }
    }
}
