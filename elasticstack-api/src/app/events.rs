//! What happened: the feed of events, and who waits for more of it.
//!
//! ```text
//!  a commit ─▶ Watchers, one task ─ whose? ─▶ the followers of these accounts look again
//! ```
//! A follower reads the database from its cursor on, and is woken when something has happened to
//! the accounts that it is about. That it is woken is a courtesy: what it reads does not hang on it.
//!
//! Invariants: a cursor stands for exactly the events before it, so that whoever goes on from one
//! gets every later event once; what is no longer there whole is refused, never left out in silence.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use elasticstack_core::prelude::*;
use elasticstack_core::wire::record::Record;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::access::Guarded as _;
use super::drive_record::{self, InUse};
use super::{App, OPERATOR, Page, arrays, resources, server_record, snapshots, tokens};
use crate::db::{
    AccountRow, ArrayRow, Database, DriveRow, EventRow, Place, ResourceRow, ServerRow, SnapshotRow,
    Subject, TokenRow, Told,
};

/// How long events are kept.
pub const KEPT: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How much older they grow before they are forgotten, many at once.
const SLACK: Duration = Duration::from_secs(60);

/// How many events are told at once unless it is said.
pub(crate) const BATCH: u32 = 1_000;

/// How many followers one account may have at a time in one server.
pub const MOST_FOLLOWERS: usize = 32;

/// The pause between two looks for whom to wake.
const BREATHER: Duration = Duration::from_millis(20);

/// Whose events are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Whose {
    /// An account's own.
    Own(AccountId),
    /// Everybody's.
    All,
}

impl Whose {
    const fn account(self) -> Option<AccountId> {
        match self {
            Self::Own(account) => Some(account),
            Self::All => None,
        }
    }
}

/// A place among the events of all eras. To clients it is a word without a meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cursor {
    era: Era,
    place: Place,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { era, place } = self;
        write!(f, "{:x}.{:x}.{:x}", era.0, place.mark, place.position)
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let read = || {
            let mut parts = text.split('.');
            let mut part = || i64::from_str_radix(parts.next()?, 16).ok().filter(|part| *part >= 0);
            let (era, mark, position) = (part()?, part()?, part()?);
            let era = Era(u32::try_from(era).ok()?);
            parts.next().is_none().then_some(Self { era, place: Place { mark, position } })
        };
        read().ok_or_else(|| {
            let shown: String = text.chars().take(60).collect();
            Error::new(
                ErrorKind::InvalidValue,
                format!("{shown:?} is no cursor: give one as it was answered, or now"),
            )
            .field("after")
        })
    }
}

/// Events, and the cursor behind them.
#[derive(Debug)]
pub(crate) struct Events {
    pub(crate) records: Vec<Record>,
    pub(crate) cursor: String,
}

/// Who reads events one after the other, and waits for more.
#[derive(Debug)]
pub(crate) struct Follower {
    whose: Whose,
    /// Where to go on; `None` to begin with the oldest.
    from: Option<Cursor>,
    woken: watch::Receiver<()>,
}

impl Follower {
    /// Returns once something may have happened.
    pub(crate) async fn woken(&mut self) {
        // Without a sender the server is at its end, and so is the wait of whoever asks this.
        if self.woken.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl App {
    /// Events of those, from behind `page.after` on, waiting for one if it says so.
    ///
    /// # Errors
    /// `InvalidValue` for what is no cursor; `CursorLost` for one from before what is kept;
    /// `Throttled` for a wait beside too many others.
    pub(crate) async fn events(
        &self,
        whose: Whose,
        page: &Page,
        end: &CancellationToken,
    ) -> Result<Events> {
        let limit = page.limit.unwrap_or(BATCH);
        let after = page.after.as_deref();
        let Some(wait) = page.wait.filter(|wait| !wait.is_zero()) else {
            let from = self.place_behind(after).await?;
            let (events, cursor) = self.events_from(whose, from, limit).await?;
            return Ok(self.told(&events, cursor));
        };
        let deadline = Instant::now() + wait;
        let mut follower = self.follow(whose, after).await?;
        loop {
            let events = self.look(&mut follower, limit).await?;
            if !events.records.is_empty() {
                return Ok(events);
            }
            tokio::select! {
                () = follower.woken() => {}
                () = tokio::time::sleep_until(deadline) => return Ok(events),
                () = end.cancelled() => return Ok(events),
            }
        }
    }

    /// Begins to follow the events of those behind the cursor `after`.
    ///
    /// # Errors
    /// `InvalidValue` for what is no cursor; `Throttled` beside too many others.
    pub(crate) async fn follow(&self, whose: Whose, after: Option<&str>) -> Result<Follower> {
        let woken = self.watchers.join(whose)?;
        Ok(Follower { whose, from: self.place_behind(after).await?, woken })
    }

    /// The next events, at most `limit`, and on to behind them. There may be none.
    ///
    /// # Errors
    /// `CursorLost` if it is from before what is kept.
    pub(crate) async fn look(&self, follower: &mut Follower, limit: u32) -> Result<Events> {
        follower.woken.mark_unchanged();
        let (events, cursor) = self.events_from(follower.whose, follower.from, limit).await?;
        follower.from = Some(cursor);
        Ok(self.told(&events, cursor))
    }

    /// The cursor of these words: `None` for the oldest event.
    async fn place_behind(&self, after: Option<&str>) -> Result<Option<Cursor>> {
        match after {
            None => Ok(None),
            Some("now") => {
                let mut reader = self.db.read().await?;
                let era = self.db.era();
                let horizon = reader.horizon().await?;
                let kept = reader.events_kept(era).await?;
                let end = reader.events_end(era, horizon).await?;
                let place = end.unwrap_or(Place { mark: kept, position: 0 });
                Ok(Some(Cursor { era, place }))
            }
            Some(text) => text.parse().map(Some),
        }
    }

    /// The first events from a cursor on, and the cursor behind them.
    async fn events_from(
        &self,
        whose: Whose,
        from: Option<Cursor>,
        limit: u32,
    ) -> Result<(Vec<EventRow>, Cursor)> {
        let era = self.db.era();
        let mut reader = self.db.read().await?;
        let horizon = reader.horizon().await?;
        let kept = Place { mark: reader.events_kept(era).await?, position: 0 };
        let begin = from.map_or(kept, |cursor| cursor.place);
        let is_of_this_era = from.is_none_or(|cursor| cursor.era == era);
        if !is_of_this_era || begin < kept || begin.mark > horizon {
            let days = KEPT.as_secs() / (24 * 60 * 60);
            return Err(Error::new(
                ErrorKind::CursorLost,
                format!(
                    "what followed this cursor is not known whole any more, events are kept for \
                     {days} days: begin anew with after=now and look at what there is by info"
                ),
            )
            .field("after"));
        }
        let events = reader.events(era, whose.account(), begin, horizon, limit).await?;
        let is_full = u32::try_from(events.len()).is_ok_and(|length| length >= limit);
        // Behind the last that anybody has, rather than at the horizon: after a crash of the
        // database marks may come again that nothing was committed under.
        let place = match events.last() {
            Some(last) if is_full => last.place.next(),
            _ => reader.events_end(era, horizon).await?.map_or(begin, |end| end.max(begin)),
        };
        Ok((events, Cursor { era, place }))
    }

    fn told(&self, events: &[EventRow], cursor: Cursor) -> Events {
        let era = self.db.era();
        let records = events.iter().map(|event| record(era, event)).collect();
        Events { records, cursor: cursor.to_string() }
    }

    /// Forgets events that are old enough.
    ///
    /// # Errors
    /// `Unavailable`; `Internal`.
    pub(super) async fn forget_events(&self) -> Result<()> {
        let (now, era) = (self.now(), self.db.era());
        let oldest = self.db.glance().await?.oldest_event().await?;
        if oldest.is_none_or(|oldest| now.since(oldest) <= KEPT + SLACK) {
            return Ok(());
        }
        let kept = i64::try_from(KEPT.as_micros()).unwrap_or(i64::MAX);
        let before = Timestamp::from_micros(now.as_micros().saturating_sub(kept));
        self.db.write(|tx| Box::pin(tx.forget_events(era, before))).await
    }
}

fn record(era: Era, event: &EventRow) -> Record {
    let cursor = Cursor { era, place: event.place.next() };
    let record = Record::new()
        .with("cursor", cursor)
        .with("at", event.at.as_micros())
        .with("user", event.account)
        .with("object", &event.kind)
        .with("id", &event.object)
        .with("event", event.happened.as_str());
    match &event.status {
        Some(status) => record.with("status", status),
        None => record,
    }
}

/// Those who wait for something to happen, by whom it is to happen to.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<BTreeMap<Whose, watch::Sender<()>>>);

impl Watchers {
    fn join(&self, whose: Whose) -> Result<watch::Receiver<()>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, followers| followers.receiver_count() > 0);
        let followers = all.entry(whose).or_default();
        if followers.receiver_count() >= MOST_FOLLOWERS {
            return Err(Error::new(
                ErrorKind::Throttled,
                format!(
                    "an account may wait for events {MOST_FOLLOWERS} times at once, and does: end \
                     one of them first"
                ),
            ));
        }
        Ok(followers.subscribe())
    }

    fn are_any(&self) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().any(|followers| followers.receiver_count() > 0)
    }

    /// Wakes those who wait for something to happen to one of these, or everybody.
    fn wake(&self, accounts: Option<&[AccountId]>) {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for (whose, followers) in &*all {
            let concerned = match (accounts, whose) {
                (None, _) => true,
                (Some(accounts), Whose::All) => !accounts.is_empty(),
                (Some(accounts), Whose::Own(account)) => accounts.contains(account),
            };
            if concerned {
                followers.send_replace(());
            }
        }
    }
}

/// Wakes `watchers` after commits that something happened in, until the app is gone.
pub(super) async fn wake(db: Weak<Database>, watchers: Arc<Watchers>) {
    let Some(mut changes) = db.upgrade().map(|db| db.changes()) else { return };
    // Up to which mark they have been woken.
    let mut told = None;
    while changes.changed().await.is_ok() {
        if !watchers.are_any() {
            told = None;
            continue;
        }
        let Some(db) = db.upgrade() else { return };
        told = match news(&db, told).await {
            Ok((horizon, accounts)) => {
                watchers.wake(accounts.as_deref());
                Some(horizon)
            }
            // Who follows looks by itself, and sees the outage or nothing.
            Err(error) => {
                tracing::debug!(error = %Chain(&error), "looking for whom something happened to");
                None
            }
        };
        drop(db);
        tokio::time::sleep(BREATHER).await;
    }
}

/// The horizon, and whom something has happened to since it was at `told`; `None` if that is not
/// known.
async fn news(db: &Database, told: Option<i64>) -> Result<(i64, Option<Vec<AccountId>>)> {
    let mut reader = db.read().await?;
    let horizon = reader.horizon().await?;
    let accounts = match told {
        None => None,
        Some(told) => Some(reader.accounts_with_events(db.era(), told, horizon).await?),
    };
    Ok((horizon, accounts))
}

impl Told for AccountRow {
    fn subject(&self) -> Subject {
        Subject::Account(self.account)
    }

    fn owner(&self) -> AccountId {
        self.account
    }

    fn shown(&self) -> Option<Record> {
        let record = self.quotas.clone().with("name", &self.name).with("email", &self.email);
        Some(record.with("status", self.standing.as_str()))
    }
}

impl Told for ArrayRow {
    fn subject(&self) -> Subject {
        Subject::Array(self.array)
    }

    fn owner(&self) -> AccountId {
        OPERATOR
    }

    fn shown(&self) -> Option<Record> {
        Some(arrays::record(&self.in_steps()))
    }
}

impl Told for DriveRow {
    fn subject(&self) -> Subject {
        Subject::Drive(self.drive)
    }

    fn owner(&self) -> AccountId {
        self.account
    }

    fn shown(&self) -> Option<Record> {
        (!self.is_hidden()).then(|| drive_record::info(self, &InUse::default()))
    }
}

impl Told for ResourceRow {
    fn subject(&self) -> Subject {
        Subject::Resource(self.resource)
    }

    fn owner(&self) -> AccountId {
        self.account
    }

    fn shown(&self) -> Option<Record> {
        (!self.is_hidden()).then(|| resources::record(self))
    }
}

impl Told for ServerRow {
    fn subject(&self) -> Subject {
        Subject::Server(self.server)
    }

    fn owner(&self) -> AccountId {
        self.account
    }

    fn shown(&self) -> Option<Record> {
        (!self.is_hidden()).then(|| server_record::info(self))
    }
}

impl Told for SnapshotRow {
    fn subject(&self) -> Subject {
        Subject::Snapshot(self.snapshot)
    }

    fn owner(&self) -> AccountId {
        self.account
    }

    fn shown(&self) -> Option<Record> {
        (!self.is_hidden()).then(|| snapshots::info(self))
    }
}

impl Told for TokenRow {
    fn subject(&self) -> Subject {
        Subject::Token(self.token)
    }

    fn owner(&self) -> AccountId {
        self.account
    }

    fn shown(&self) -> Option<Record> {
        Some(tokens::record(self))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn account(number: u128) -> AccountId {
        AccountId::from_uuid(uuid::Uuid::from_u128(number))
    }

    #[test]
    fn an_account_has_so_many_followers_at_a_time_and_others_have_their_own() {
        let watchers = Watchers::default();
        let join = |number| watchers.join(Whose::Own(account(number)));
        let mut followers: Vec<_> = (0..MOST_FOLLOWERS).map(|_| join(1).unwrap()).collect();
        assert_eq!(join(1).unwrap_err().kind(), ErrorKind::Throttled);
        join(2).unwrap();
        watchers.join(Whose::All).unwrap();
        followers.pop();
        followers.push(join(1).unwrap());
        assert!(join(1).is_err());
        drop(followers);
        join(3).unwrap();
        assert_eq!(watchers.0.lock().unwrap().len(), 1, "who is gone leaves nothing behind");
    }

    #[test]
    fn those_are_woken_whom_something_happened_to() {
        let watchers = Watchers::default();
        let mut one = watchers.join(Whose::Own(account(1))).unwrap();
        let mut other = watchers.join(Whose::Own(account(2))).unwrap();
        let mut all = watchers.join(Whose::All).unwrap();
        let mut woken = |accounts: Option<&[AccountId]>| {
            watchers.wake(accounts);
            [&mut one, &mut other, &mut all].map(|follower| {
                let is_woken = follower.has_changed().unwrap();
                follower.mark_unchanged();
                is_woken
            })
        };
        assert_eq!(woken(Some(&[account(1)])), [true, false, true]);
        assert_eq!(woken(Some(&[account(3)])), [false, false, true]);
        assert_eq!(woken(Some(&[])), [false, false, false]);
        assert_eq!(woken(None), [true, true, true]);
    }

    #[test]
    fn what_is_no_cursor_is_refused() {
        for text in ["", "1", "1.2", "1.2.3.4", "1.2.", "1.-2.3", "g.1.1", "100000000.1.1", "a b c"]
        {
            let refused = text.parse::<Cursor>().unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidValue, "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_cursor_is_read_as_it_was_written(
            era: u32, mark in 0..=i64::MAX, position in 0..=i64::MAX, text in ".{0,20}",
        ) {
            let cursor = Cursor { era: Era(era), place: Place { mark, position } };
            prop_assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
            let _ = text.parse::<Cursor>();
        }
    }
}
