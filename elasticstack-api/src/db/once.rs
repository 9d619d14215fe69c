//! Rows of idempotency keys: what was asked under a key, and what came of it.

use elasticstack_core::id::{IdKind, TypedId};
use elasticstack_core::prelude::*;
use elasticstack_core::resource::{ResourceId, ResourceKind};

use super::dialect::Row;
use super::row::{column, failed, instant, parsed, parsed_if_any};
use super::{Reader, Writer};

/// What an intent is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Subject {
    /// The account itself, or what is named only as it is made.
    Account(AccountId),
    Array(ArrayId),
    Drive(DriveId),
    Host(HostId),
    Pool(PoolId),
    Resource(ResourceId),
    Server(ServerId),
    Snapshot(SnapshotId),
    Token(TokenId),
}

impl Subject {
    pub(super) const fn kind(self) -> &'static str {
        match self {
            Self::Account(_) => "account",
            Self::Array(_) => "array",
            Self::Drive(_) => "drive",
            Self::Host(_) => "host",
            Self::Pool(_) => "pool",
            Self::Resource(id) => id.kind().as_str(),
            Self::Server(_) => "server",
            Self::Snapshot(_) => "snapshot",
            Self::Token(_) => "token",
        }
    }

    pub(super) fn object(self) -> String {
        match self {
            Self::Account(id) => id.to_string(),
            Self::Array(id) => id.to_string(),
            Self::Drive(id) => id.to_string(),
            Self::Host(id) => id.to_string(),
            Self::Pool(id) => id.to_string(),
            Self::Resource(id) => id.to_string(),
            Self::Server(id) => id.to_string(),
            Self::Snapshot(id) => id.to_string(),
            Self::Token(id) => id.to_string(),
        }
    }
}

/// What is known under a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct OnceRow {
    pub(crate) account: AccountId,
    pub(crate) key: String,
    /// A keyed hash of the request.
    pub(crate) fingerprint: String,
    /// Which run of the call wrote this.
    pub(crate) attempt: String,
    /// In which server that ran.
    pub(crate) owner: String,
    /// What was changed; `None` if nothing was.
    pub(crate) subject: Option<Subject>,
    /// The sealed answer; `None` until there is one.
    pub(crate) outcome: Option<String>,
    pub(crate) created: Timestamp,
}

fn subject(row: &Row) -> Result<Option<Subject>> {
    fn id<K: IdKind>(row: &Row) -> Result<TypedId<K>> {
        parsed(row, "object")
    }
    let kind: Option<&str> = column(row, "kind")?;
    Ok(match kind {
        None => None,
        Some("account") => Some(Subject::Account(id(row)?)),
        Some("array") => Some(Subject::Array(id(row)?)),
        Some("drive") => Some(Subject::Drive(id(row)?)),
        Some("host") => Some(Subject::Host(id(row)?)),
        Some("pool") => Some(Subject::Pool(id(row)?)),
        Some("server") => Some(Subject::Server(id(row)?)),
        Some("snapshot") => Some(Subject::Snapshot(id(row)?)),
        Some("token") => Some(Subject::Token(id(row)?)),
        Some(other) => {
            let name: &str = column(row, "object")?;
            let kind = ResourceKind::from_word(other);
            let resource = kind.and_then(|kind| ResourceId::parse(kind, name));
            let unknown = || Error::internal(format!("an intent about a {other:?}"));
            Some(Subject::Resource(resource.ok_or_else(unknown)?))
        }
    })
}

impl Reader {
    /// What is known under a key of an account's.
    pub(crate) async fn once(&mut self, account: AccountId, key: &str) -> Result<Option<OnceRow>> {
        let row = self
            .statement("SELECT * FROM idempotency_keys WHERE account = $1 AND client_key = $2")
            .bind(account.to_string())
            .bind(key)
            .fetch_optional()
            .await
            .map_err(failed("reading an idempotency key"))?;
        row.map(|row| {
            Ok(OnceRow {
                account,
                key: key.to_owned(),
                fingerprint: column(&row, "fingerprint")?,
                attempt: column(&row, "attempt")?,
                owner: column(&row, "owner")?,
                subject: subject(&row)?,
                outcome: parsed_if_any(&row, "outcome")?,
                created: instant(&row, "created_us")?,
            })
        })
        .transpose()
    }

    /// Whether any key is from before `before`.
    pub(crate) async fn has_once_before(&mut self, before: Timestamp) -> Result<bool> {
        let row = self
            .statement("SELECT client_key FROM idempotency_keys WHERE created_us < $1 LIMIT 1")
            .bind(before.as_micros())
            .fetch_optional()
            .await
            .map_err(failed("looking for old idempotency keys"))?;
        Ok(row.is_some())
    }
}

impl Writer<'_> {
    /// Adds a key. The caller has seen to it that it is not there.
    pub(crate) async fn insert_once(&mut self, row: &OnceRow) -> Result<()> {
        let OnceRow { account, key, fingerprint, attempt, owner, subject, outcome, created } = row;
        self.change(
            "INSERT INTO idempotency_keys (account, client_key, fingerprint, attempt, owner, \
             kind, object, outcome, created_us) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .bind(account.to_string())
        .bind(key)
        .bind(fingerprint)
        .bind(attempt)
        .bind(owner)
        .bind(subject.map(Subject::kind))
        .bind(subject.map(Subject::object))
        .bind(outcome)
        .bind(created.as_micros())
        .execute()
        .await
        .map_err(failed("adding an idempotency key"))?;
        Ok(())
    }

    /// Writes down the answer under a key that has none yet.
    pub(crate) async fn answer_once(
        &mut self,
        account: AccountId,
        key: &str,
        outcome: &str,
    ) -> Result<()> {
        self.change(
            "UPDATE idempotency_keys SET outcome = $3 \
             WHERE account = $1 AND client_key = $2 AND outcome IS NULL",
        )
        .bind(account.to_string())
        .bind(key)
        .bind(outcome)
        .execute()
        .await
        .map_err(failed("keeping an answer"))?;
        Ok(())
    }

    /// Forgets the keys from before `before`.
    pub(crate) async fn delete_once_before(&mut self, before: Timestamp) -> Result<()> {
        self.change("DELETE FROM idempotency_keys WHERE created_us < $1")
            .bind(before.as_micros())
            .execute()
            .await
            .map_err(failed("forgetting old idempotency keys"))?;
        Ok(())
    }
}
