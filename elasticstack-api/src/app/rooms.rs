//! Where new things go: the free room of the whole fleet, kept in memory for the scheduler, and
//! the check of what it chooses against the rows.
//!
//! ```text
//!  look: what was changed since ─▶ inventory ─▶ scheduler ─▶ host ─▶ its room by the rows
//!    ▲                                 ▲                              │ it fits: placed
//!    │                                 └──── corrected, once more ◀───┤ it does not
//!    └──────── refused by a corrected one: all of it anew ◀───────────┘
//! ```
//! Invariants: what is placed fits by the rows that the placing transaction reads; what is kept
//! here decides nothing but which host is looked at. A refusal is that of an inventory that was
//! the whole truth at one instant after it was asked.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use elasticstack_core::prelude::*;
use elasticstack_core::scheduler::{HostRoom, Inventory, Placement, Request, Scheduler};
use futures_util::future::BoxFuture;
use thiserror::Error as ThisError;
use tokio::time::Instant;

use super::{App, Caller, no_room};
use crate::db::{ArrayRow, Database, Held, Hold, HostRow, Subject, Writer};

/// How often a transaction corrects what it goes by before it looks at the whole fleet again.
const CORRECTIONS: u32 = 32;

/// How often the whole fleet is looked at for one placement. Each time somebody else was faster.
const LOOKS: u32 = 16;

/// How old what a first look goes by may be.
const RECENT: Duration = Duration::from_secs(1);

/// By what a place is looked for first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// By the fleet as it is.
    Now,
    /// By the fleet as it was a moment ago: where drives leave little choice of a host, that is as
    /// good, and costs nothing.
    Recent,
}

/// Where a place is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Within {
    Fleet,
    Host(HostId),
    Array(HostId, ArrayId),
}

/// The room that was there does not tell whether there is room now.
#[derive(Debug, ThisError)]
#[error("room was taken meanwhile")]
struct Outdated;

fn outdated() -> Error {
    Error::new(
        ErrorKind::ChangedMeanwhile,
        "others were faster to take what room was found: repeat the call",
    )
    .source(Outdated)
}

fn is_outdated(error: &Error) -> bool {
    std::error::Error::source(error).is_some_and(|source| source.is::<Outdated>())
}

/// A scheduler and what it goes by in one transaction.
pub(super) struct Placing<'a> {
    scheduler: &'a dyn Scheduler,
    inventory: Arc<Inventory>,
    /// Whether a refusal by it is one.
    is_current: bool,
    corrections: u32,
}

impl Placing<'_> {
    /// Finds a place that has the room, by the rows that `tx` sees.
    ///
    /// # Errors
    /// `NoCapacity`; the sign to look anew, for [`App::intend_placing`].
    pub(super) async fn place(
        &mut self,
        tx: &mut Writer<'_>,
        request: &Request,
        within: Within,
    ) -> Result<Placement> {
        while self.corrections < CORRECTIONS {
            let placed = match within {
                Within::Fleet => self.scheduler.place(&self.inventory, request),
                _ => self.scheduler.place(&part(&self.inventory, within), request),
            };
            let placement = match placed {
                Ok(placement) => placement,
                Err(refusal) if self.is_current && self.corrections == 0 => {
                    return Err(no_room(refusal));
                }
                Err(_) => return Err(outdated()),
            };
            let mut room = tx.room_of(placement.host).await?.ok_or_else(outdated)?;
            if placement.array.is_some() {
                room.arrays = tx.array_rooms_of(placement.host).await?;
            }
            if request.fits_on(&room, placement.array) {
                return Ok(placement);
            }
            self.corrections += 1;
            let hosts = &mut Arc::make_mut(&mut self.inventory).hosts;
            let known = hosts.iter_mut().find(|known| known.host == room.host);
            let known = known.ok_or_else(outdated)?;
            if placement.array.is_none() {
                room.arrays = std::mem::take(&mut known.arrays);
            }
            *known = room;
        }
        Err(outdated())
    }
}

/// What of an inventory lies within a host or an array.
fn part(inventory: &Inventory, within: Within) -> Inventory {
    let (host, array) = match within {
        Within::Fleet => return inventory.clone(),
        Within::Host(host) => (host, None),
        Within::Array(host, array) => (host, Some(array)),
    };
    let mut hosts: Vec<HostRoom> =
        inventory.hosts.iter().filter(|room| room.host == host).cloned().collect();
    for room in &mut hosts {
        room.arrays.retain(|room| array.is_none_or(|array| room.array == array));
    }
    Inventory { hosts }
}

impl App {
    /// [`App::intend`] for what needs a place: `work` is begun again with a new look at the fleet
    /// where the last one does not tell whether there is room.
    ///
    /// # Errors
    /// Those of `work`; `ChangedMeanwhile` if others are faster again and again.
    pub(super) async fn intend_placing<'env, T>(
        &'env self,
        caller: &'env Caller,
        subject: Subject,
        first: Look,
        mut work: impl for<'tx> FnMut(&'tx mut Writer<'env>, Placing<'env>) -> BoxFuture<'tx, Result<T>>,
    ) -> Result<T> {
        let (mut looks, mut look) = (1, first);
        loop {
            let inventory = &match look {
                Look::Now => self.rooms.look(&self.db).await?,
                Look::Recent => self.rooms.recent(&self.db).await?,
            };
            let is_current = look == Look::Now;
            let outcome = self
                .intend(caller, subject, |tx| {
                    let (scheduler, inventory) = (self.scheduler.as_ref(), Arc::clone(inventory));
                    work(tx, Placing { scheduler, inventory, is_current, corrections: 0 })
                })
                .await;
            match outcome {
                Err(error) if is_outdated(&error) && looks < LOOKS => {
                    (looks, look) = (looks + 1, Look::Now);
                }
                outcome => return outcome,
            }
        }
    }
}

/// The free room of the fleet.
#[derive(Debug, Default)]
pub(super) struct Rooms(tokio::sync::Mutex<Known>);

impl Rooms {
    /// The whole inventory, with every commit that was acknowledged before this was asked.
    ///
    /// # Errors
    /// `Unavailable`; `Internal`.
    pub(super) async fn look(&self, db: &Database) -> Result<Arc<Inventory>> {
        let asked = Instant::now();
        // Who comes while another looks would look for the same. Cancelled, a look changes nothing.
        let mut known = self.0.lock().await;
        known.catch_up(db, asked).await?;
        Ok(Arc::clone(&known.inventory))
    }

    /// The inventory as of the last look, if that was a moment ago.
    ///
    /// # Errors
    /// As [`Rooms::look`].
    async fn recent(&self, db: &Database) -> Result<Arc<Inventory>> {
        let known = self.0.lock().await;
        if known.looked.is_some_and(|looked| looked.elapsed() < RECENT) {
            return Ok(Arc::clone(&known.inventory));
        }
        drop(known);
        self.look(db).await
    }
}

/// All that free room follows from, as of the last look.
#[derive(Debug, Default)]
struct Known {
    hosts: HashMap<HostId, Host>,
    host_of: HashMap<ArrayId, HostId>,
    promised: HashMap<ArrayId, u64>,
    servers: HashMap<ServerId, (HostId, Held)>,
    drives: HashMap<DriveId, (ArrayId, Bytes)>,
    snapshots: HashMap<SnapshotId, (ArrayId, Bytes)>,
    inventory: Arc<Inventory>,
    /// What is news since the last look is marked there or above.
    since: i64,
    /// When the last look began; `None` before the first.
    looked: Option<Instant>,
    /// The number of changes then, where all of them are ours.
    number: Option<u64>,
}

#[derive(Debug, Default)]
struct Host {
    /// `None` until it is heard of.
    row: Option<HostRow>,
    held: Held,
    arrays: BTreeMap<ArrayId, ArrayRow>,
    /// Where it stands in the inventory.
    place: Option<usize>,
}

/// What was changed since a look.
#[derive(Debug, Default)]
struct News {
    hosts: Vec<HostRow>,
    arrays: Vec<ArrayRow>,
    holds: Vec<Hold>,
}

impl Known {
    /// Takes in what is news to who asks at `asked`.
    async fn catch_up(&mut self, db: &Database, asked: Instant) -> Result<()> {
        let (looks, number) = (Instant::now(), db.sole_number());
        let is_current = self
            .looked
            .is_some_and(|looked| looked > asked || (number.is_some() && number == self.number));
        if is_current {
            return Ok(());
        }
        let mut reader = db.read().await?;
        let next_look = reader.next_look().await?;
        let mut news = News {
            hosts: reader.hosts_since(self.since).await?,
            arrays: reader.arrays_since(self.since).await?,
            holds: Vec::new(),
        };
        reader.holds_since(self.since, |hold| news.holds.push(hold)).await?;
        self.take(news);
        (self.since, self.looked, self.number) = (next_look, Some(looks), number);
        Ok(())
    }

    fn take(&mut self, news: News) {
        let mut touched = BTreeSet::new();
        for row in news.hosts {
            touched.insert(row.host);
            let host = self.hosts.entry(row.host).or_default();
            host.row = Some(row);
        }
        for row in news.arrays {
            touched.insert(row.host);
            self.host_of.insert(row.array, row.host);
            self.hosts.entry(row.host).or_default().arrays.insert(row.array, row);
        }
        for hold in news.holds {
            match hold {
                Hold::Server(server, now) => {
                    let moves = exchange(&mut self.servers, server, now);
                    self.server_moves(moves, &mut touched);
                }
                Hold::Drive(drive, now) => {
                    let moves = exchange(&mut self.drives, drive, now);
                    self.bytes_move(moves, &mut touched);
                }
                Hold::Snapshot(snapshot, now) => {
                    let moves = exchange(&mut self.snapshots, snapshot, now);
                    self.bytes_move(moves, &mut touched);
                }
            }
        }
        if touched.is_empty() {
            return;
        }
        let inventory = Arc::make_mut(&mut self.inventory);
        for id in touched {
            let Some(host) = self.hosts.get_mut(&id) else { continue };
            let Some(row) = &host.row else { continue };
            let promised = |array: &ArrayId| {
                let sum = self.promised.get(array).copied().unwrap_or_default();
                Bytes::try_from(sum.min(i64::MAX.unsigned_abs())).unwrap_or_default()
            };
            let arrays = host.arrays.iter().map(|(id, array)| array.room(promised(id)));
            let room = row.room(host.held, arrays.collect());
            match host.place.and_then(|place| inventory.hosts.get_mut(place)) {
                Some(known) => *known = room,
                None => {
                    host.place = Some(inventory.hosts.len());
                    inventory.hosts.push(room);
                }
            }
        }
    }

    fn server_moves(
        &mut self,
        [before, now]: [Option<(HostId, Held)>; 2],
        touched: &mut BTreeSet<HostId>,
    ) {
        if before == now {
            return;
        }
        if let Some((host, held)) = before {
            let sum = &mut self.hosts.entry(host).or_default().held;
            sum.servers = sum.servers.saturating_sub(held.servers);
            sum.cpu = sum.cpu.saturating_sub(held.cpu);
            sum.memory = sum.memory.saturating_sub(held.memory);
            touched.insert(host);
        }
        if let Some((host, held)) = now {
            let sum = &mut self.hosts.entry(host).or_default().held;
            sum.servers = sum.servers.saturating_add(held.servers);
            sum.cpu = sum.cpu.saturating_add(held.cpu);
            sum.memory = sum.memory.saturating_add(held.memory);
            touched.insert(host);
        }
    }

    fn bytes_move(
        &mut self,
        [before, now]: [Option<(ArrayId, Bytes)>; 2],
        touched: &mut BTreeSet<HostId>,
    ) {
        if before == now {
            return;
        }
        for (array, _) in before.into_iter().chain(now) {
            touched.extend(self.host_of.get(&array));
        }
        if let Some((array, size)) = before {
            let sum = self.promised.entry(array).or_default();
            *sum = sum.saturating_sub(size.get());
        }
        if let Some((array, size)) = now {
            let sum = self.promised.entry(array).or_default();
            *sum = sum.saturating_add(size.get());
        }
    }
}

/// Notes what `holder` holds, and tells what it held before and what it holds now.
fn exchange<K: Eq + Hash, V: Copy>(
    holders: &mut HashMap<K, V>,
    holder: K,
    now: Option<V>,
) -> [Option<V>; 2] {
    let before = match now {
        Some(now) => holders.insert(holder, now),
        None => holders.remove(&holder),
    };
    [before, now]
}
