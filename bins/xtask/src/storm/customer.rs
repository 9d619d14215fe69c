//! The storm's customer: calls the public API, keeps the ledger of what it asked for, and tolerates
//! exactly what a customer must: no answer, a busy object, and a missing one that was wished away.
//!
//! One task acts on an object at a time; several tasks share the customer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result, bail};
use elasticstack_core::client::{Client, HyperTransport};
use elasticstack_core::error::{self, Chain, ErrorKind};
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;
use tokio::time::timeout;

use super::database::Database;
use super::dice::Dice;
use super::ledger::{Answer, Entry, Fate, Keeping, Kind, Ledger, Ran, Window};
use super::mode::Role;
use super::wait::{Wait, until};

/// How long the product may take to answer at all; it promises 20 s.
const PATIENCE: Duration = Duration::from_secs(90);
/// How long a call waits after one that was not answered.
const BREATH: Duration = Duration::from_millis(100);

/// One of the programs that answer.
#[derive(Debug)]
pub(crate) struct Door {
    pub(crate) role: Role,
    pub(crate) client: Client<HyperTransport>,
}

/// An account at the product.
#[derive(Debug)]
pub(crate) struct Customer {
    doors: Vec<Door>,
    database: Database,
    ledger: Mutex<Ledger>,
    calls: Mutex<Calls>,
}

/// Every call so far, by number.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calls {
    /// How many were sent.
    pub(crate) sent: u64,
    /// Which have no answer yet, and of whom.
    pub(crate) open: BTreeMap<u64, Role>,
    /// Which got none.
    pub(crate) lost: BTreeSet<u64>,
    /// How many got one, and of whom.
    pub(crate) answered: BTreeMap<Role, u64>,
}

/// A server to be made.
#[derive(Debug, Clone)]
pub(crate) struct Plan<'a> {
    /// Its name, given once.
    pub(crate) name: &'a str,
    /// The ids of its drives; it boots from the first.
    pub(crate) drives: &'a [&'a str],
    /// Its memory in MiB.
    pub(crate) memory: u32,
    /// What it becomes when it stops.
    pub(crate) keeping: Keeping,
    /// Whether it is started at once: [`Fate::Active`] or [`Fate::Stopped`].
    pub(crate) first: Fate,
}

impl Customer {
    /// The account whose credentials the clients of `doors` have.
    pub(crate) fn new(doors: Vec<Door>, database: Database) -> Self {
        Self { doors, database, ledger: Mutex::default(), calls: Mutex::default() }
    }

    /// What was asked for so far.
    pub(crate) fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The calls so far.
    pub(crate) fn calls(&self) -> Calls {
        self.lock_calls().clone()
    }

    fn lock_calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where the next call goes: to any door, so that no order of calls keeps to one.
    fn door(&self) -> Result<&Door> {
        Dice::new(self.lock_calls().sent).pick(&self.doors).context("the product has no door")
    }

    /// Makes a drive.
    pub(crate) async fn create_drive(&self, name: &str, size: u64) -> Result<Answer<String>> {
        roomy(name, self.make_drive(name, size).await?)
    }

    async fn make_drive(&self, name: &str, size: u64) -> Result<Answer<String>> {
        let record = Record::new().with("name", name).with("size", size);
        let kind = Kind::Drive { sizes: BTreeSet::from([size]) };
        self.create((name, kind), (Call::DriveCreate, &record, "drive"), Fate::Present).await
    }

    /// Makes a server.
    pub(crate) async fn create_server(&self, plan: &Plan<'_>) -> Result<Answer<String>> {
        let Plan { name, drives, memory, keeping, first } = *plan;
        let mut record = Record::new()
            .with("name", name)
            .with("cpu", 500)
            .with("mem", memory)
            .with("persistent", keeping == Keeping::Persistent)
            .with("boot", "ide:0:0");
        for (unit, drive) in drives.iter().enumerate() {
            record.set(format!("ide:0:{unit}"), drive);
        }
        let (call, starts) = match first {
            Fate::Active => (Call::ServerCreate, 1),
            _ => (Call::ServerCreateStopped, 0),
        };
        let kind = Kind::Server { keeping, starts, ran: Ran::Perhaps };
        roomy(name, self.create((name, kind), (call, &record, "server"), first).await?)
    }

    async fn create(
        &self,
        object: (&str, Kind),
        (call, record, id): (Call, &Record, &str),
        wished: Fate,
    ) -> Result<Answer<String>> {
        let asked = now();
        let what = format!("creating {}", object.0);
        let door = self.door()?;
        let answer = match self.ask(&what, door, door.client.one(call, &[], record)).await? {
            Answer::Done(info) => {
                Answer::Done(info.value(id).with_context(|| format!("{what}: no id"))?.to_owned())
            }
            Answer::Unsure => Answer::Unsure,
            Answer::Refused(kind) => Answer::Refused(kind),
        };
        let made = Window { asked, answered: now() };
        self.ledger().created(object, wished, &answer, made);
        Ok(answer)
    }

    /// Asks for a larger size.
    pub(crate) async fn grow_drive(&self, name: &str, size: u64) -> Result<Answer<()>> {
        let id = self.id(name)?;
        let record = Record::new().with("size", size);
        let what = format!("growing {name}");
        let (door, drive) = (self.door()?, [id.as_str()]);
        let set = door.client.one(Call::DriveSet, &drive, &record);
        let answer = self.ask(&what, door, set).await?.map(drop);
        self.enter(name, |before| before, &answer)?;
        if let Some(Kind::Drive { sizes }) =
            self.ledger().entries.get_mut(name).map(|entry| &mut entry.kind)
        {
            match answer {
                Answer::Done(()) => *sizes = BTreeSet::from([size]),
                Answer::Unsure => drop(sizes.insert(size)),
                Answer::Refused(_) => {}
            }
        }
        Ok(answer)
    }

    /// Starts a server.
    pub(crate) async fn start(&self, name: &str) -> Result<Answer<()>> {
        let id = self.id(name)?;
        let what = format!("starting {name}");
        let record = Record::new();
        if let Some(Kind::Server { starts, .. }) =
            self.ledger().entries.get_mut(name).map(|entry| &mut entry.kind)
        {
            *starts += 1;
        }
        let (door, server) = (self.door()?, [id.as_str()]);
        let start = door.client.one(Call::ServerStart, &server, &record);
        let answer = self.ask(&what, door, start).await?.map(drop);
        self.enter(name, |_| Fate::Active, &answer)?;
        Ok(answer)
    }

    /// Cuts a server's power.
    pub(crate) async fn stop(&self, name: &str) -> Result<Answer<()>> {
        let id = self.id(name)?;
        let keeping = match self.ledger().entries.get(name).map(|entry| &entry.kind) {
            Some(Kind::Server { keeping, .. }) => *keeping,
            _ => bail!("{name} is no server"),
        };
        let what = format!("stopping {name}");
        let door = self.door()?;
        let answer = self.ask(&what, door, door.client.act(Call::ServerStop, &[&id])).await?;
        self.enter(name, |before| keeping.after_stop(before), &answer)?;
        Ok(answer)
    }

    /// Destroys a drive or a server.
    pub(crate) async fn destroy(&self, name: &str) -> Result<Answer<()>> {
        let id = self.id(name)?;
        let call = match self.ledger().entries.get(name).map(|entry| &entry.kind) {
            Some(Kind::Server { .. }) => Call::ServerDestroy,
            _ => Call::DriveDestroy,
        };
        let asked = now();
        let what = format!("destroying {name}");
        let door = self.door()?;
        let answer = self.ask(&what, door, door.client.act(call, &[&id])).await?;
        if let Some(entry) = self.ledger().entries.get_mut(name) {
            let asked = entry.ended.map_or(asked, |window| window.asked);
            entry.ended = Some(Window { asked, answered: now() });
        }
        self.enter(name, |_| Fate::Absent, &answer)?;
        Ok(answer)
    }

    /// Begins to image one drive into another.
    pub(crate) async fn image(&self, call: Call, target: &str, source: &str) -> Result<Answer<()>> {
        let what = format!("imaging {target} from {source}");
        let (door, drives, record) = (self.door()?, [target, source], Record::new());
        let image = door.client.one(call, &drives, &record);
        Ok(self.ask(&what, door, image).await?.map(drop))
    }

    /// Writes to a drive, again and again until that is acknowledged.
    pub(crate) async fn write(&self, drive: &str, data: Vec<u8>) -> Result<()> {
        let data = bytes::Bytes::from(data);
        let what = format!("writing to {drive}");
        until(&what, async || {
            let (door, drive) = (self.door()?, [drive]);
            let write = door.client.write(Call::DriveWrite, &drive, data.clone());
            Ok(self.ask(&what, door, write).await?.obstacle())
        })
        .await
    }

    /// All drives, or all servers, as the product tells of them.
    pub(crate) async fn list(&self, call: Call) -> Result<Answer<Vec<Record>>> {
        let door = self.door()?;
        self.ask("listing", door, door.client.many(call)).await
    }

    /// Finds out what became of a creation whose answer was lost; whether it is there. Whoever did
    /// not answer is dead by then, and so are its transactions: this does not change any more.
    pub(crate) async fn look_for(&self, name: &str) -> Result<bool> {
        let (call, key, wished) = match self.ledger().entries.get(name) {
            None => return Ok(false),
            Some(Entry { id: Some(_), .. }) => return Ok(true),
            Some(entry) => {
                let wished = entry.may.iter().find(|fate| **fate != Fate::Absent).copied();
                match entry.kind {
                    Kind::Server { .. } => (Call::ServersInfo, "server", wished),
                    Kind::Drive { .. } => (Call::DrivesInfo, "drive", wished),
                }
            }
        };
        let wait = Wait::new("looking for what may have been made");
        let found = loop {
            match self.list(call).await? {
                Answer::Done(records) => {
                    let named = records.iter().find(|record| record.value("name") == Some(name));
                    break named.and_then(|record| record.value(key)).map(str::to_owned);
                }
                answer => wait.pause(&answer.obstacle().unwrap_or_default()).await?,
            }
        };
        if let Some(entry) = self.ledger().entries.get_mut(name) {
            let fate = if found.is_some() { wished } else { None };
            entry.may = BTreeSet::from([fate.unwrap_or(Fate::Absent)]);
            entry.id.clone_from(&found);
        }
        Ok(found.is_some())
    }

    /// One drive, as the product tells of it.
    pub(crate) async fn drive(&self, id: &str) -> Result<Answer<Record>> {
        let (door, drive, record) = (self.door()?, [id], Record::new());
        let info = door.client.one(Call::DriveInfo, &drive, &record);
        self.ask("asking about a drive", door, info).await
    }

    /// Waits until the product answers this account at every door.
    pub(crate) async fn until_served(&self) -> Result<()> {
        for door in &self.doors {
            until("the first answer", async || {
                let record = Record::new();
                let profile = door.client.one(Call::ProfileInfo, &[], &record);
                Ok(self.ask("asking for the profile", door, profile).await?.obstacle())
            })
            .await?;
        }
        Ok(())
    }

    /// Makes a drive; waits for a product that has just come up until it has room for it.
    pub(crate) async fn first_drive(&self, name: &str, size: u64) -> Result<String> {
        let mut made = None;
        until("the first drive", async || match self.make_drive(name, size).await? {
            Answer::Done(id) => {
                made = Some(id);
                Ok(None)
            }
            Answer::Refused(kind) => Ok(Some(kind.code().to_owned())),
            Answer::Unsure => bail!("the answer to {name} was lost though nobody was killed"),
        })
        .await?;
        made.context("the first drive has no id")
    }

    /// The id of `name`.
    ///
    /// # Errors
    /// The answer to its creation was lost and nobody looked for it since.
    pub(crate) fn id(&self, name: &str) -> Result<String> {
        let ledger = self.ledger();
        let entry = ledger.entries.get(name).with_context(|| format!("{name} was never made"))?;
        entry.id.clone().with_context(|| format!("the id of {name} is not known"))
    }

    fn enter<T>(&self, name: &str, after: impl Fn(Fate) -> Fate, answer: &Answer<T>) -> Result<()> {
        match self.ledger().entries.get_mut(name) {
            Some(entry) => entry.answered(after, answer).with_context(|| name.to_owned()),
            None => Ok(()),
        }
    }

    /// Sends a call to a door and sorts its answer.
    async fn ask<T>(
        &self,
        what: &str,
        door: &Door,
        call: impl Future<Output = error::Result<T>>,
    ) -> Result<Answer<T>> {
        let number = self.lock_calls().open(door.role);
        let answer = match timeout(PATIENCE, call).await {
            Ok(Ok(done)) => Answer::Done(done),
            Ok(Err(error)) => match error.kind() {
                ErrorKind::Unavailable => Answer::Unsure,
                kind @ (ErrorKind::DriveInUse
                | ErrorKind::ServerBusy
                | ErrorKind::NotFound
                | ErrorKind::NoCapacity) => Answer::Refused(kind),
                _ => bail!("{what}: {}", Chain(&error)),
            },
            Err(_) => bail!("{what}: no answer within {} s", PATIENCE.as_secs()),
        };
        self.lock_calls().close(number, &answer);
        if let Answer::Unsure = answer {
            // As a customer would, who does not knock at a closed door without a pause.
            tokio::time::sleep(BREATH).await;
            // Whoever asks next, at whichever door, is to find what came of it.
            self.database.until_begun_is_over().await?;
        }
        Ok(answer)
    }
}

impl Calls {
    /// How many were answered.
    pub(crate) fn answers(&self) -> u64 {
        self.answered.values().sum()
    }

    fn open(&mut self, door: Role) -> u64 {
        self.sent += 1;
        self.open.insert(self.sent, door);
        self.sent
    }

    fn close<T>(&mut self, number: u64, answer: &Answer<T>) {
        let door = self.open.remove(&number);
        match (door, answer) {
            (Some(door), Answer::Done(_) | Answer::Refused(_)) => {
                *self.answered.entry(door).or_default() += 1;
            }
            (_, Answer::Unsure) => drop(self.lost.insert(number)),
            (None, _) => {}
        }
    }
}

/// No room is no part of the storm: it must have enough.
fn roomy<T>(name: &str, answer: Answer<T>) -> Result<Answer<T>> {
    match answer {
        Answer::Refused(ErrorKind::NoCapacity) => bail!("there is no room for {name}"),
        answer => Ok(answer),
    }
}

/// Microseconds since 1970.
pub(crate) fn now() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}
