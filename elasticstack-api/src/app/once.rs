//! Doing what a client asks at most once, however often it asks under one key.
//!
//! ```text
//!  call with a key ─▶ known? ──no──▶ use case ─▶ intend: key's row + the change, one transaction
//!                      │ yes                        │
//!                      │                            ▼ the answer, sealed, into the row
//!                      ├─ answered ─▶ that answer
//!                      ├─ under way ─▶ waits for that answer
//!                      └─ its server died ─▶ waits for the object, answers with what it is now
//! ```
//! Invariants: the key's row and the change are one transaction, so there is never one without the
//! other; what was refused has changed nothing and left no row; an answer is kept as it was given,
//! readable with the caller's secret alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use elasticstack_core::prelude::*;
use elasticstack_core::state::ServerState;
use elasticstack_core::wire::calls::Answer;
use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::record::Record;
use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::access::{Wish, permitted};
use super::seal::Seal;
use super::{App, Caller, drives, server_record, snapshots, version};
use crate::db::{Isolation, OnceRow, ServerRow, Subject, Writer};

/// How long a key is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

/// One run of a call under a key.
pub(super) struct Once {
    key: String,
    fingerprint: String,
    attempt: String,
    seal: Seal,
}

impl fmt::Debug for Once {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Once").field("key", &self.key).finish_non_exhaustive()
    }
}

/// What came of a call, as it is kept: it may hold secrets, and is never shown.
#[derive(Serialize, Deserialize)]
enum Outcome {
    Record(BTreeMap<String, String>),
    Nothing,
    Failed { code: String, message: String, field: Option<String> },
}

impl Outcome {
    fn of(answer: &Result<Option<Record>>) -> Self {
        match answer {
            Ok(Some(record)) => Self::Record(
                record.iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect(),
            ),
            Ok(None) => Self::Nothing,
            Err(error) => Self::Failed {
                code: error.kind().code().to_owned(),
                message: error.public_message().to_owned(),
                field: error.blamed_field().map(str::to_owned),
            },
        }
    }

    fn answer(self) -> Result<Option<Record>> {
        match self {
            Self::Record(keys) => {
                let mut record = Record::new();
                keys.into_iter().for_each(|(key, value)| record.set(key, value));
                Ok(Some(record))
            }
            Self::Nothing => Ok(None),
            Self::Failed { code, message, field } => {
                let kind = ErrorKind::from_code(&code).unwrap_or(ErrorKind::Internal);
                let error = Error::new(kind, message);
                Err(match field {
                    Some(field) => error.field(field),
                    None => error,
                })
            }
        }
    }
}

/// What is known of an earlier request under the same key.
enum Known {
    /// Its answer.
    Answer(Result<Option<Record>>),
    /// What it was about: whoever was to answer it is gone, or does not come to an end.
    Unanswered(Option<Subject>),
}

/// Whether an answer was made for this request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// It was.
    Now,
    /// It is that of an earlier request under the same key.
    Earlier,
}

impl Caller {
    /// The same caller, whose intent is carried out once for `key`. The `request` says in parts
    /// what is asked; `secret` is what the caller proved himself with.
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) fn once<'a>(
        mut self,
        key: &str,
        secret: &Secret,
        request: impl IntoIterator<Item = &'a str>,
    ) -> Result<Self> {
        let seal = Seal::new(secret, &format!("{} {key}", self.account))?;
        self.once = Some(std::sync::Arc::new(Once {
            key: key.to_owned(),
            fingerprint: seal.hash(request),
            attempt: Uuid::new_v4().to_string(),
            seal,
        }));
        Ok(self)
    }
}

/// The runs of calls under a key that this process is at.
#[derive(Debug, Default)]
pub(super) struct UnderWay(Mutex<BTreeSet<String>>);

impl UnderWay {
    fn begin<'a>(&'a self, attempt: &'a str) -> Begun<'a> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt.to_owned());
        Begun { under_way: self, attempt }
    }

    fn has(&self, attempt: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(attempt)
    }
}

struct Begun<'a> {
    under_way: &'a UnderWay,
    attempt: &'a str,
}

impl Drop for Begun<'_> {
    fn drop(&mut self) {
        let mut under_way = self.under_way.0.lock().unwrap_or_else(PoisonError::into_inner);
        under_way.remove(self.attempt);
    }
}

impl App {
    /// Carries out an intent of the caller's about `subject`: one transaction of `work` and of the
    /// caller's key, if it gave one, provided that its account is not suspended and the object is
    /// at the version that it named. Every use case that changes something begins it here.
    ///
    /// # Errors
    /// `AccountSuspended`; those of `work`.
    pub(super) async fn intend<'env, T>(
        &'env self,
        caller: &'env Caller,
        subject: Subject,
        work: impl for<'tx> FnMut(&'tx mut Writer<'env>) -> BoxFuture<'tx, Result<T>>,
    ) -> Result<T> {
        self.intend_as(Isolation::Serializable, caller, subject, work).await
    }

    /// As [`App::intend`], where `work` depends on nothing but the one server that it reads first.
    /// What becomes of the account meanwhile may come before this or after it.
    pub(super) async fn intend_alone<'env, T>(
        &'env self,
        caller: &'env Caller,
        server: ServerId,
        work: impl for<'tx> FnMut(&'tx mut Writer<'env>) -> BoxFuture<'tx, Result<T>>,
    ) -> Result<T> {
        self.intend_as(Isolation::RowLocks, caller, Subject::Server(server), work).await
    }

    async fn intend_as<'env, T>(
        &'env self,
        isolation: Isolation,
        caller: &'env Caller,
        subject: Subject,
        work: impl for<'tx> FnMut(&'tx mut Writer<'env>) -> BoxFuture<'tx, Result<T>>,
    ) -> Result<T> {
        let now = self.now();
        self.db
            .write_after(
                isolation,
                |tx| Box::pin(self.begin_intent(tx, caller, subject, now)),
                work,
            )
            .await
    }

    async fn begin_intent(
        &self,
        tx: &mut Writer<'_>,
        caller: &Caller,
        subject: Subject,
        now: Timestamp,
    ) -> Result<()> {
        let account = tx.account(caller.account).await?;
        account.map_or(Ok(()), |account| account.standing.check())?;
        if let Some(once) = &caller.once {
            match tx.once(caller.account, &once.key).await? {
                None => tx.insert_once(&self.once_row(caller, once, Some(subject), now)).await?,
                Some(known) if known.attempt == once.attempt => return Ok(()),
                // Whoever called this finds the other one's row and waits for its answer.
                Some(_) => return Err(super::changed_meanwhile("object")),
            }
        }
        version::expect(tx, caller, subject).await
    }

    fn once_row(
        &self,
        caller: &Caller,
        once: &Once,
        subject: Option<Subject>,
        created: Timestamp,
    ) -> OnceRow {
        OnceRow {
            account: caller.account,
            key: once.key.clone(),
            fingerprint: once.fingerprint.clone(),
            attempt: once.attempt.clone(),
            owner: self.db.owner().to_owned(),
            subject,
            outcome: None,
            created,
        }
    }

    /// Keeps an answer in the transaction of its intent: one that holds what can't be told again.
    pub(super) async fn answer_at_once(
        &self,
        tx: &mut Writer<'_>,
        caller: &Caller,
        answer: &Record,
    ) -> Result<()> {
        let Some(once) = &caller.once else { return Ok(()) };
        let sealed = once.sealed(&Ok(Some(answer.clone())))?;
        tx.answer_once(caller.account, &once.key, &sealed).await
    }

    /// Does `work` for a caller who may have done it before under the same key: then the answer is
    /// what came of it. A call that answers in the form `form`.
    ///
    /// # Errors
    /// `KeyReused` if the key was used for something else; those of `work`.
    pub(crate) async fn once(
        &self,
        caller: &Caller,
        form: Answer,
        work: impl Future<Output = Result<Option<Record>>>,
    ) -> (Result<Option<Record>>, Origin) {
        let Some(once) = &caller.once else { return (work.await, Origin::Now) };
        match self.known_under(caller, once).await {
            Ok(None) => {}
            Ok(Some(known)) => return self.again(caller, once, form, known).await,
            Err(error) => return (Err(error), Origin::Now),
        }
        let begun = self.under_way.begin(&once.attempt);
        let answer = work.await;
        match self.keep(caller, once, &answer).await {
            Ok(None) => {}
            Ok(Some(other)) => {
                drop(begun);
                return self.again(caller, once, form, other).await;
            }
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "an answer could not be kept");
            }
        }
        (answer, Origin::Now)
    }

    async fn known_under(&self, caller: &Caller, once: &Once) -> Result<Option<OnceRow>> {
        self.db.glance().await?.once(caller.account, &once.key).await
    }

    /// Keeps an answer that stands. If another run of the call came first, it is that one's row
    /// that counts.
    async fn keep(
        &self,
        caller: &Caller,
        once: &Once,
        answer: &Result<Option<Record>>,
    ) -> Result<Option<OnceRow>> {
        let known = self.known_under(caller, once).await?;
        match &known {
            Some(known) if known.attempt != once.attempt => return Ok(Some(known.clone())),
            Some(known) if known.outcome.is_some() => return Ok(None),
            Some(_) => {}
            // It was refused: nothing has changed, and it may be asked again.
            None if answer.is_err() => return Ok(None),
            None => {}
        }
        if !stands(answer) {
            return Ok(None);
        }
        let sealed = &once.sealed(answer)?;
        let now = self.now();
        self.db
            .write(|tx| {
                Box::pin(async move {
                    match tx.once(caller.account, &once.key).await? {
                        Some(known) if known.attempt != once.attempt => return Ok(Some(known)),
                        Some(_) => {}
                        None => {
                            let row = self.once_row(caller, once, None, now);
                            tx.insert_once(&row).await?;
                        }
                    }
                    tx.answer_once(caller.account, &once.key, sealed).await?;
                    Ok(None)
                })
            })
            .await
    }

    /// Answers what was asked before.
    async fn again(
        &self,
        caller: &Caller,
        once: &Once,
        form: Answer,
        known: OnceRow,
    ) -> (Result<Option<Record>>, Origin) {
        let answer = match self.known_answer(caller, once, known).await {
            Ok(Known::Answer(answer)) => answer,
            Ok(Known::Unanswered(subject)) => {
                let answer = self.settled(caller, form, subject).await;
                if stands(&answer)
                    && let Err(error) = self.keep_for(caller, once, &answer).await
                {
                    tracing::warn!(error = %Chain(&error), "an answer could not be kept");
                }
                answer
            }
            Err(error) => return (Err(error), Origin::Now),
        };
        (answer, Origin::Earlier)
    }

    /// The answer that was given under the key, waiting for it while it is under way.
    async fn known_answer(
        &self,
        caller: &Caller,
        once: &Once,
        mut known: OnceRow,
    ) -> Result<Known> {
        if known.fingerprint != once.fingerprint {
            return Err(Error::new(
                ErrorKind::KeyReused,
                "this Idempotency-Key was used for another request, or with other credentials: \
                 use a new key for a new request",
            )
            .field("Idempotency-Key"));
        }
        let mut patience = self.patience();
        loop {
            if let Some(sealed) = &known.outcome {
                return Ok(Known::Answer(once.opened(sealed)?.answer()));
            }
            let is_ours = known.owner == self.db.owner();
            if is_ours && !self.under_way.has(&known.attempt) {
                return Ok(Known::Unanswered(known.subject));
            }
            let Some(mut reader) = patience.look().await? else {
                return Ok(Known::Unanswered(known.subject));
            };
            if let Some(now) = reader.once(caller.account, &once.key).await? {
                known = now;
            }
        }
    }

    async fn keep_for(
        &self,
        caller: &Caller,
        once: &Once,
        answer: &Result<Option<Record>>,
    ) -> Result<()> {
        let sealed = &once.sealed(answer)?;
        self.db.write(|tx| Box::pin(tx.answer_once(caller.account, &once.key, sealed))).await
    }

    /// Waits until an intent that is written down is carried out, and says what its object is then.
    async fn settled(
        &self,
        caller: &Caller,
        form: Answer,
        subject: Option<Subject>,
    ) -> Result<Option<Record>> {
        let wants_record = matches!(form, Answer::One(_));
        match subject {
            Some(Subject::Drive(drive)) if wants_record => {
                let row = self.db.glance().await?.drive(drive).await?;
                let row = permitted(caller.account, row, Wish::Own)?;
                let row = self.await_drive(row).await?;
                let record = drives::record(&mut self.db.read().await?, caller.account, &row).await;
                record.map(Some)
            }
            Some(Subject::Snapshot(snapshot)) if wants_record => {
                let row = self.db.glance().await?.snapshot(snapshot).await?;
                let row = permitted(caller.account, row, Wish::Own)?;
                Ok(Some(snapshots::info(&self.await_snapshot(row).await?)))
            }
            Some(Subject::Server(server)) => {
                let row = self.await_server(server).await?;
                if wants_record {
                    let row = permitted(caller.account, row, Wish::Own)?;
                    return Ok(Some(server_record::info(&row)));
                }
                match row {
                    Some(row) if !is_settled(&row) => Err(Error::new(
                        ErrorKind::Unavailable,
                        "the server is not there yet: repeat the call",
                    )),
                    _ => Ok(None),
                }
            }
            Some(Subject::Array(array)) if wants_record => self.array_info(array).await.map(Some),
            Some(Subject::Host(host)) if wants_record => self.host_info(host).await.map(Some),
            Some(Subject::Token(token)) if wants_record => {
                self.token_info(caller, token).await.map(Some)
            }
            Some(Subject::Account(account)) if form == Answer::One(Object::Account) => {
                self.account_info(account).await.map(Some)
            }
            Some(Subject::Account(_)) if wants_record => self.profile_info(caller).await.map(Some),
            Some(Subject::Pool(pool)) if wants_record => self.pool_info(pool).await.map(Some),
            Some(Subject::Resource(id)) if wants_record => {
                self.resource_info(caller, id).await.map(Some)
            }
            Some(_) | None => Ok(None),
        }
    }

    async fn await_server(&self, server: ServerId) -> Result<Option<ServerRow>> {
        let mut patience = self.patience_for(server);
        let mut last = None;
        while let Some(mut reader) = patience.look().await? {
            last = reader.server(server).await?;
            if last.as_ref().is_none_or(is_settled) {
                break;
            }
        }
        Ok(last)
    }

    /// Forgets keys that are old enough.
    ///
    /// # Errors
    /// `Unavailable`; `Internal`.
    pub(super) async fn forget_keys(&self) -> Result<()> {
        let remembered = i64::try_from(REMEMBERED.as_micros()).unwrap_or(i64::MAX);
        let before = Timestamp::from_micros(self.now().as_micros().saturating_sub(remembered));
        if !self.db.glance().await?.has_once_before(before).await? {
            return Ok(());
        }
        self.db.write(|tx| Box::pin(tx.delete_once_before(before))).await
    }
}

impl Once {
    fn sealed(&self, answer: &Result<Option<Record>>) -> Result<String> {
        let text = serde_json::to_string(&Outcome::of(answer))
            .map_err(|error| Error::internal("writing down an answer").source(error))?;
        self.seal.close(text)
    }

    fn opened(&self, sealed: &str) -> Result<Outcome> {
        serde_json::from_str(&self.seal.open(sealed)?)
            .map_err(|error| Error::internal("reading a kept answer").source(error))
    }
}

/// Whether an answer is the last word: that a host or we ourselves could not be asked is not.
fn stands(answer: &Result<Option<Record>>) -> bool {
    match answer {
        Ok(_) => true,
        Err(error) => !matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Internal),
    }
}

/// Whether a server's host has done all that is wished of it.
fn is_settled(row: &ServerRow) -> bool {
    match row.state {
        ServerState::Stopped | ServerState::Gone => true,
        ServerState::Starting | ServerState::Stopping | ServerState::Destroying => false,
        ServerState::Running | ServerState::Paused | ServerState::Unresponsive => {
            row.seen_generation >= row.generation && row.seen_reset >= row.reset
        }
    }
}
