//! What accounts see of their drives and servers, kept ready to be sent: a list is put together
//! from what its objects were rendered to when they last changed.
//!
//! ```text
//!  list ─▶ news since the last look? ──no──────────────────────────┐
//!             │ rows marked at its horizon or above, from a snapshot │
//!             ▼                                                      ▼
//!          rendered, each into its place ──▶ a page of the map ──▶ answer
//! ```
//! Invariants: an answer has every commit that was acknowledged before it was asked for, by
//! whichever server, and is all from one snapshot; what is kept is exactly what rendering the rows
//! would give. So whatever is rendered here depends on nothing but rows that are marked when it
//! changes. Accounts that do not ask are forgotten.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use elasticstack_core::prelude::*;
use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::record::Record;
use tokio::time::Instant;
use uuid::Uuid;

use super::access::Guarded as _;
use super::drive_record::{self, InUse};
use super::page::Wanted;
use super::server_record;
use crate::db::{Database, Reader};

/// How long the lists of an account are kept ready after it last asked for them.
const KEPT: Duration = Duration::from_secs(600);

/// Of what there are lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    Drives,
    Servers,
}

impl Kind {
    const fn object(self) -> Object {
        match self {
            Self::Drives => Object::Drive,
            Self::Servers => Object::Server,
        }
    }

    /// What was changed of an account's at the mark `since` or after it; `None` for what is no
    /// longer shown.
    async fn news(self, reader: &mut Reader, account: AccountId, since: i64) -> Result<News> {
        let mut news = News::new();
        match self {
            Self::Drives => {
                let mut claims = reader.claims_since(account, since).await?;
                let mut jobs = reader.running_jobs_since(account, since).await?;
                let take = |row: crate::db::DriveRow| {
                    let claims = claims.remove(&row.drive).unwrap_or_default();
                    let in_use = InUse { claims, job: jobs.remove(&row.drive) };
                    let shown = || {
                        let counted_by = drive_record::counted_by(&row, &in_use);
                        self.entry(&drive_record::info(&row, &in_use), counted_by)
                    };
                    news.push((*row.drive.as_uuid(), (!row.is_hidden()).then(shown)));
                };
                reader.drives_since(account, since, take).await?;
            }
            Self::Servers => {
                let take = |row: crate::db::ServerRow| {
                    let shown =
                        || self.entry(&server_record::info(&row), server_record::counted_by(&row));
                    news.push((*row.server.as_uuid(), (!row.is_hidden()).then(shown)));
                };
                reader.servers_since(account, since, take).await?;
            }
        }
        Ok(news)
    }

    fn entry(self, record: &Record, counted_by: Option<HostId>) -> Arc<Entry> {
        let kept = |key| record.value(key).unwrap_or_default().into();
        let mut json = String::new();
        record.json_into(self.object(), &mut json);
        Arc::new(Entry {
            json: json.into(),
            text: (!record.survives_json(self.object())).then(|| record.to_text().into()),
            status: kept("status"),
            name: kept("name"),
            tags: kept("tags"),
            counted_by,
        })
    }
}

type News = Vec<(Uuid, Option<Arc<Entry>>)>;

/// One object as it is shown, and what it is searched by.
#[derive(Debug)]
struct Entry {
    json: Box<str>,
    /// Its text, where the JSON does not say all of it.
    text: Option<Box<str>>,
    status: Box<str>,
    name: Box<str>,
    tags: Box<str>,
    /// The host that counts what is read and written, if anything is now.
    counted_by: Option<HostId>,
}

impl Entry {
    fn record(&self) -> Result<Record> {
        let read = match &self.text {
            Some(text) => Record::from_text(text.as_bytes()),
            None => Record::from_json(self.json.as_bytes()),
        };
        read.map_err(|error| Error::internal("reading what was rendered").source(error))
    }
}

/// The lists of all accounts that asked of late.
#[derive(Debug, Default)]
pub(super) struct View {
    shelves: Mutex<HashMap<(AccountId, Kind), Shelf>>,
}

#[derive(Debug)]
struct Shelf {
    asked: Timestamp,
    list: Arc<tokio::sync::Mutex<List>>,
}

impl View {
    /// Those of an account's objects that are wanted, as they are now.
    ///
    /// # Errors
    /// `Unavailable`; `Internal`.
    pub(super) async fn page(
        &self,
        db: &Database,
        (account, kind): (AccountId, Kind),
        wanted: &Wanted<'_>,
        now: Timestamp,
    ) -> Result<Listed> {
        let asked = Instant::now();
        let list = self.list(account, kind, now);
        // Who comes while another looks would look for the same: it waits, and then may not have
        // to. Cancelled, a look leaves everything as it was.
        let mut list = list.lock().await;
        list.catch_up(db, (account, kind), asked).await?;
        Ok(list.page(kind, wanted))
    }

    fn list(
        &self,
        account: AccountId,
        kind: Kind,
        now: Timestamp,
    ) -> Arc<tokio::sync::Mutex<List>> {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        let shelf = shelves
            .entry((account, kind))
            .or_insert_with(|| Shelf { asked: now, list: Arc::default() });
        shelf.asked = now;
        Arc::clone(&shelf.list)
    }

    /// Forgets the lists that nobody asked for of late.
    pub(super) fn forget_unused(&self, now: Timestamp) {
        let mut shelves = self.shelves.lock().unwrap_or_else(PoisonError::into_inner);
        shelves.retain(|_, shelf| now.since(shelf.asked) < KEPT);
    }
}

/// All that an account is shown of a kind, by id, as of the last look.
#[derive(Debug, Default)]
struct List {
    entries: BTreeMap<Uuid, Arc<Entry>>,
    /// What is news since the last look is marked there or above.
    since: i64,
    /// When the last look began; `None` before the first.
    looked: Option<Instant>,
    /// The number of changes then, where all of them are ours.
    number: Option<u64>,
}

impl List {
    /// Takes in what is news to who asks at `asked`.
    async fn catch_up(
        &mut self,
        db: &Database,
        (account, kind): (AccountId, Kind),
        asked: Instant,
    ) -> Result<()> {
        let (looks, number) = (Instant::now(), db.sole_number());
        let is_current = self
            .looked
            .is_some_and(|looked| looked > asked || (number.is_some() && number == self.number));
        if is_current {
            return Ok(());
        }
        let mut reader = match kind {
            Kind::Drives => db.read().await?,
            // What one statement reads is from one instant.
            Kind::Servers => db.glance().await?,
        };
        let next_look = reader.next_look().await?;
        for (id, entry) in kind.news(&mut reader, account, self.since).await? {
            match entry {
                Some(entry) => self.entries.insert(id, entry),
                None => self.entries.remove(&id),
            };
        }
        (self.since, self.looked, self.number) = (next_look, Some(looks), number);
        Ok(())
    }

    fn page(&self, kind: Kind, wanted: &Wanted<'_>) -> Listed {
        let begin = wanted.after.map_or(std::ops::Bound::Unbounded, std::ops::Bound::Excluded);
        let entries = self.entries.range((begin, std::ops::Bound::Unbounded));
        let fitting =
            entries.filter(|(_, entry)| wanted.fits(&entry.status, &entry.name, &entry.tags));
        let entries = fitting.take(wanted.limit).map(|(id, entry)| (*id, Arc::clone(entry)));
        Listed { kind, entries: entries.collect() }
    }
}

/// A part of a list: objects as they are shown, in the order of their ids.
#[derive(Clone)]
pub struct Listed {
    kind: Kind,
    entries: Vec<(Uuid, Arc<Entry>)>,
}

impl Listed {
    /// What each of them is.
    #[must_use]
    pub const fn object(&self) -> Object {
        self.kind.object()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Their ids.
    pub fn ids(&self) -> impl Iterator<Item = Uuid> {
        self.entries.iter().map(|(id, _)| *id)
    }

    /// The JSON of the one at `index`.
    #[must_use]
    pub fn json(&self, index: usize) -> Option<&str> {
        self.entries.get(index).map(|(_, entry)| &*entry.json)
    }

    /// Their records.
    ///
    /// # Errors
    /// `Internal`.
    pub fn records(&self) -> Result<Vec<Record>> {
        self.entries.iter().map(|(_, entry)| entry.record()).collect()
    }

    /// Those of which something is read and written now, each with the host that counts it.
    pub(super) fn counted(&self) -> impl Iterator<Item = (HostId, Uuid)> {
        self.entries.iter().filter_map(|(id, entry)| Some((entry.counted_by?, *id)))
    }

    /// The same list, with more keys where `more` has some, which is told what is counted now.
    ///
    /// # Errors
    /// `Internal`.
    pub(super) fn with(
        mut self,
        more: impl Fn(Uuid, Option<HostId>) -> Option<Record>,
    ) -> Result<Self> {
        for (id, entry) in &mut self.entries {
            if let Some(more) = more(*id, entry.counted_by) {
                let mut record = entry.record()?;
                record.apply(&more);
                *entry = self.kind.entry(&record, entry.counted_by);
            }
        }
        Ok(self)
    }
}

impl fmt::Debug for Listed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listed").field("object", &self.object()).field("len", &self.len()).finish()
    }
}
