//! Rows of events: what happened to what customers have, told in the transaction that did it.
//!
//! ```text
//!  save_…, claim, release ─▶ Touched: what was there before, what is now ─ before the commit ─▶ rows
//! ```
//! No use case writes an event: whatever saves a row notes it, and the transaction compares what
//! the owner was shown with what he is shown now. So there is one event for each object whose info
//! a transaction changed, and none for what nobody sees.
//!
//! Invariant: the events of an era are ordered by mark and position, and all with a mark below the
//! horizon of a snapshot (see `marks`) are in it, so that whoever reads on from where he was misses
//! none and meets none twice.

use std::collections::BTreeMap;

use elasticstack_core::prelude::*;
use elasticstack_core::wire::record::Record;
use serde_json::{Value, json};

use super::dialect::Row;
use super::row::{column, failed, instant, parsed, word};
use super::{Holder, JobRow, Reader, Subject, Writer, from_json};

/// A row of something that has an owner, who is told what happens to it.
pub(crate) trait Told {
    /// What it is.
    fn subject(&self) -> Subject;

    /// Who is told.
    fn owner(&self) -> AccountId;

    /// What its row alone has its owner shown of it; `None` if it is shown no more.
    fn shown(&self) -> Option<Record>;
}

/// What can happen to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Happened {
    Created,
    Changed,
    Destroyed,
}

impl Happened {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Created => "created",
            Self::Changed => "changed",
            Self::Destroyed => "destroyed",
        }
    }

    fn from_word(word: &str) -> Option<Self> {
        let all = [Self::Created, Self::Changed, Self::Destroyed];
        all.into_iter().find(|happened| happened.as_str() == word)
    }
}

/// A place among the events of an era: before the event that has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    pub(crate) mark: i64,
    pub(crate) position: i64,
}

impl Place {
    /// The place right behind.
    pub(crate) const fn next(self) -> Self {
        Self { mark: self.mark, position: self.position.saturating_add(1) }
    }
}

/// Something that happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct EventRow {
    pub(crate) place: Place,
    pub(crate) at: Timestamp,
    pub(crate) account: AccountId,
    /// What kind of object it happened to, in a word.
    pub(crate) kind: String,
    /// The object's id.
    pub(crate) object: String,
    pub(crate) happened: Happened,
    /// The status that the object has since, if it has one.
    pub(crate) status: Option<String>,
}

fn event(row: &Row) -> Result<EventRow> {
    Ok(EventRow {
        place: place(row)?,
        at: instant(row, "at_us")?,
        account: parsed(row, "account")?,
        kind: column(row, "kind")?,
        object: column(row, "object")?,
        happened: word(row, "happened", Happened::from_word)?,
        status: column(row, "status")?,
    })
}

fn place(row: &Row) -> Result<Place> {
    Ok(Place { mark: column(row, "mark")?, position: column(row, "position")? })
}

/// What an owner is shown of one of his rows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Sight {
    owner: AccountId,
    record: Record,
}

fn sight<T: Told>(row: Option<&T>) -> Option<Sight> {
    row.and_then(|row| Some(Sight { owner: row.owner(), record: row.shown()? }))
}

/// What there was before a transaction, and what there is now.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change<T> {
    before: Option<T>,
    now: Option<T>,
}

/// What a transaction has done to one object.
#[derive(Debug, Default)]
struct Touch {
    /// To its row; `None` if that was not saved.
    row: Option<Change<Sight>>,
    /// To what uses it, by who does: what is told of that use.
    uses: BTreeMap<String, Change<String>>,
}

/// The objects that a transaction has touched.
#[derive(Debug, Default)]
pub(super) struct Touched(BTreeMap<Subject, Touch>);

impl Touched {
    /// Notes that a row is there no more, or is another one.
    fn note<T: Told>(&mut self, subject: Subject, before: Option<&T>, now: Option<&T>) {
        let touch = self.0.entry(subject).or_default();
        let first = || Change { before: sight(before), now: None };
        touch.row.get_or_insert_with(first).now = sight(now);
    }

    /// Notes that `user` uses an object in another way.
    fn note_use(
        &mut self,
        subject: Subject,
        user: String,
        before: Option<&str>,
        now: Option<&str>,
    ) {
        let uses = &mut self.0.entry(subject).or_default().uses;
        let first = || Change { before: before.map(str::to_owned), now: None };
        uses.entry(user).or_insert_with(first).now = now.map(str::to_owned);
    }
}

impl Reader {
    /// The first `limit` events from `from` on, of an account or, without one, of all, with marks
    /// below `horizon`.
    pub(crate) async fn events(
        &mut self,
        era: Era,
        account: Option<AccountId>,
        from: Place,
        horizon: i64,
        limit: u32,
    ) -> Result<Vec<EventRow>> {
        let statement = match account {
            Some(account) => self
                .statement(
                    "SELECT * FROM events WHERE era = $1 AND (mark, position) >= ($2, $3) \
                     AND mark < $4 AND account = $6 ORDER BY mark, position LIMIT $5",
                )
                .bind(i64::from(era.0))
                .bind(from.mark)
                .bind(from.position)
                .bind(horizon)
                .bind(i64::from(limit))
                .bind(account.to_string()),
            None => self
                .statement(
                    "SELECT * FROM events WHERE era = $1 AND (mark, position) >= ($2, $3) \
                     AND mark < $4 ORDER BY mark, position LIMIT $5",
                )
                .bind(i64::from(era.0))
                .bind(from.mark)
                .bind(from.position)
                .bind(horizon)
                .bind(i64::from(limit)),
        };
        let rows = statement.fetch_all().await.map_err(failed("reading events"))?;
        rows.iter().map(event).collect()
    }

    /// The place right behind the last event with a mark below `horizon`; `None` without one.
    pub(crate) async fn events_end(&mut self, era: Era, horizon: i64) -> Result<Option<Place>> {
        let row = self
            .statement(
                "SELECT mark, position FROM events WHERE era = $1 AND mark < $2 \
                 ORDER BY mark DESC, position DESC LIMIT 1",
            )
            .bind(i64::from(era.0))
            .bind(horizon)
            .fetch_optional()
            .await
            .map_err(failed("reading the last event"))?;
        row.as_ref().map(|row| place(row).map(Place::next)).transpose()
    }

    /// The accounts that something with a mark from `from` on and below `horizon` happened to.
    pub(crate) async fn accounts_with_events(
        &mut self,
        era: Era,
        from: i64,
        horizon: i64,
    ) -> Result<Vec<AccountId>> {
        let rows = self
            .statement(
                "SELECT DISTINCT account FROM events WHERE era = $1 AND mark >= $2 AND mark < $3",
            )
            .bind(i64::from(era.0))
            .bind(from)
            .bind(horizon)
            .fetch_all()
            .await
            .map_err(failed("reading to whom something happened"))?;
        rows.iter().map(|row| parsed(row, "account")).collect()
    }

    /// The mark from which on every event is still there.
    pub(crate) async fn events_kept(&mut self, era: Era) -> Result<i64> {
        let row = self
            .statement("SELECT mark FROM events_kept WHERE era = $1")
            .bind(i64::from(era.0))
            .fetch_optional()
            .await
            .map_err(failed("reading which events are kept"))?;
        row.map_or(Ok(0), |row| column(&row, "mark"))
    }

    /// When the oldest event happened.
    pub(crate) async fn oldest_event(&mut self) -> Result<Option<Timestamp>> {
        let row = self
            .statement("SELECT at_us FROM events ORDER BY era, mark, position LIMIT 1")
            .fetch_optional()
            .await
            .map_err(failed("reading the oldest event"))?;
        row.map(|row| instant(&row, "at_us")).transpose()
    }

    async fn sight_of(&mut self, subject: Subject) -> Result<Option<Sight>> {
        Ok(match subject {
            Subject::Drive(drive) => sight(self.drive(drive).await?.as_ref()),
            Subject::Resource(resource) => sight(self.resource(resource).await?.as_ref()),
            // What uses these is no part of what is shown of them.
            Subject::Account(_)
            | Subject::Array(_)
            | Subject::Host(_)
            | Subject::Pool(_)
            | Subject::Server(_)
            | Subject::Snapshot(_)
            | Subject::Token(_) => None,
        })
    }
}

impl Writer<'_> {
    /// Notes that `now` is there in the place of `before`.
    pub(super) fn note<T: Told>(&mut self, before: Option<&T>, now: &T) {
        self.touched.note(now.subject(), before, Some(now));
    }

    /// Notes that `before` is there no more.
    pub(super) fn note_gone<T: Told>(&mut self, before: Option<&T>) {
        if let Some(row) = before {
            self.touched.note(row.subject(), before, None);
        }
    }

    /// Notes that `holder` has a claim on an object.
    pub(super) fn note_claim(&mut self, subject: Subject, holder: Holder) {
        self.touched.note_use(subject, format!("claim {holder}"), None, Some(""));
    }

    /// Notes that `holder` has a claim on an object no more.
    pub(super) fn note_release(&mut self, subject: Subject, holder: Holder) {
        self.touched.note_use(subject, format!("claim {holder}"), Some(""), None);
    }

    /// Notes what is told of a job on the drive that it writes.
    pub(super) fn note_job(&mut self, before: Option<&JobRow>, now: Option<&JobRow>) {
        let Some(row) = now.or(before) else { return };
        let told = |row: Option<&JobRow>| row.and_then(JobRow::told);
        let (subject, user) = (Subject::Drive(row.target), format!("job {}", row.job));
        let (before, now) = (told(before), told(now));
        self.touched.note_use(subject, user, before.as_deref(), now.as_deref());
    }

    /// Writes down what the transaction has done, at `now`.
    pub(super) async fn tell(&mut self, era: Era, now: Timestamp) -> Result<()> {
        let touched = std::mem::take(&mut self.touched);
        let mut told = Vec::new();
        for (subject, touch) in touched.0 {
            let used_otherwise = touch.uses.values().any(|used| used.before != used.now);
            let row = match touch.row {
                Some(row) => row,
                None if used_otherwise => {
                    let same = self.sight_of(subject).await?;
                    Change { before: same.clone(), now: same }
                }
                None => continue,
            };
            let (happened, sight) = match (&row.before, &row.now) {
                (None, Some(sight)) => (Happened::Created, sight),
                (Some(sight), None) => (Happened::Destroyed, sight),
                (Some(before), Some(sight)) if before != sight || used_otherwise => {
                    (Happened::Changed, sight)
                }
                (None, None) | (Some(_), Some(_)) => continue,
            };
            let status = row.now.as_ref().and_then(|sight| sight.record.value("status"));
            told.push(json!({
                "position": told.len(),
                "account": sight.owner.to_string(),
                "kind": subject.kind(),
                "object": subject.object(),
                "happened": happened.as_str(),
                "status": status,
            }));
        }
        if told.is_empty() {
            return Ok(());
        }
        let mark = self.mark().await?;
        self.change_either(from_json!(
            "INSERT INTO events (era, mark, at_us, position, account, kind, object, happened, \
             status) SELECT $2, $3, $4",
            "position" "BIGINT", "account" "TEXT", "kind" "TEXT", "object" "TEXT",
            "happened" "TEXT", "status" "TEXT"
        ))
        .bind(Value::Array(told).to_string())
        .bind(i64::from(era.0))
        .bind(mark)
        .bind(now.as_micros())
        .execute()
        .await
        .map_err(failed("writing down what happened"))?;
        Ok(())
    }

    /// Forgets the events of older eras, and of this one those before the first that happened at
    /// or after `before`.
    pub(crate) async fn forget_events(&mut self, era: Era, before: Timestamp) -> Result<()> {
        let horizon = self.horizon().await?;
        let first = self
            .statement(
                "SELECT mark FROM events WHERE era = $1 AND at_us >= $2 \
                 ORDER BY mark, position LIMIT 1",
            )
            .bind(i64::from(era.0))
            .bind(before.as_micros())
            .fetch_optional()
            .await
            .map_err(failed("reading which events to keep"))?;
        let first: Option<i64> = first.map(|row| column(&row, "mark")).transpose()?;
        let kept = match first.filter(|first| *first < horizon) {
            Some(first) => first,
            None => match self.events_end(era, horizon).await? {
                Some(end) => end.mark.saturating_add(1),
                None => return Ok(()),
            },
        };
        self.change("DELETE FROM events WHERE era < $1 OR (era = $1 AND mark < $2)")
            .bind(i64::from(era.0))
            .bind(kept)
            .execute()
            .await
            .map_err(failed("forgetting events"))?;
        self.change("UPDATE events_kept SET era = $1, mark = $2 WHERE one = 1")
            .bind(i64::from(era.0))
            .bind(kept)
            .execute()
            .await
            .map_err(failed("noting which events are kept"))?;
        Ok(())
    }
}
