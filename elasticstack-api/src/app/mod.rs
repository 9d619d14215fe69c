//! The use cases: everything that a customer, an operator or a host's report does to the control
//! plane. Transactions begin and end here.
//!
//! Owns policy: who may do what, what a wish does to the rows, when an answer is given. Does not
//! own SQL (`db`), HTTP (`http`) or the way to a host (`hosts`).
//!
//! ```text
//!  wish ──▶ biller ──▶ ┌ one transaction ─────────────────────────┐ ──▶ change number grows
//!                      │ check · place · row + generation · claims │        │
//!                      │ · usage breakpoint · outbox               │        ├─▶ hosts push `outbox`
//!                      └───────────────────────────────────────────┘        ▼
//!  report ───────────▶ one transaction: states, usage, cursor ──────▶ waiting calls look again
//! ```
//! Invariants: nothing remote is asked inside a transaction; a claim is the intent row itself, so
//! a crash leaves none behind; free room is derived from intents, never stored.

mod access;
mod accounts;
mod arrays;
mod console;
mod counters;
mod customers;
mod deadlines;
mod drive_record;
mod drives;
mod events;
mod fleet;
mod hosts;
mod imaging;
mod ingest;
mod intake;
mod leases;
mod metering;
mod nics;
mod offers;
mod once;
mod page;
mod plugs;
mod pools;
mod power;
mod profile;
mod quarantine;
mod quotas;
mod resources;
mod rooms;
mod seal;
mod server_record;
mod servers;
mod snapshots;
mod standard;
mod stock;
mod tokens;
mod version;
mod view;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use elasticstack_core::biller::{Biller, Change, ChangeKind, Verdict};
use elasticstack_core::id::TypedId;
use elasticstack_core::prelude::*;
use elasticstack_core::scheduler::{Refusal, Scheduler};
use elasticstack_core::wire::calls::Scope;
use elasticstack_core::wire::internal::{Counts, CountsOf};
use futures_util::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

use self::events::Watchers;
use self::fleet::Heard;
use self::intake::Intake;
use self::once::{Once, UnderWay};
use self::rooms::Rooms;
use self::view::View;
use crate::authority::Authority;
use crate::db::{Database, Reach, Reader, Standing};

pub use accounts::{OPERATOR, secret_key};
pub use console::TICKET;
pub(crate) use console::{Grant, ticket_id};
pub use customers::OnSuspend;
pub(crate) use events::{BATCH, Events, Follower, Whose};
pub use events::{KEPT, MOST_FOLLOWERS};
pub use leases::LEASE;
pub(crate) use once::Origin;
pub use once::REMEMBERED;
pub use page::Page;
pub use quotas::Quota;
pub(crate) use tokens::token_id;
pub use view::Listed;

/// Who asks, once authenticated.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The account that asks and pays.
    pub account: AccountId,
    /// What its credentials cover.
    pub scope: Scope,
    /// The key under which it asks, if it gave one.
    once: Option<Arc<Once>>,
    /// The versions of its object that it asks about, if it cares.
    matching: Option<Vec<String>>,
    /// What its token is good for; `None` if it came with the account's key.
    reach: Option<Reach>,
    /// Which token that was.
    token: Option<TokenId>,
    /// Whether it may change things, as of when it came.
    standing: Standing,
}

impl Caller {
    fn new(account: AccountId, scope: Scope, standing: Standing) -> Self {
        let (reach, token) = (None, None);
        Self { account, scope, once: None, matching: None, reach, token, standing }
    }
}

/// Whether a new server is started at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnCreate {
    /// It is started in the same step; if it can't be, nothing is made.
    Start,
    /// It waits for a start.
    LeaveStopped,
}

/// A guest's screen: the bytes of VNC (RFC 6143), both ways. Dropping it hangs up.
pub trait Screen: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Screen for T {}

/// A drive as a qcow2 image, which comes as it is taken.
pub struct Export {
    /// Its length in bytes.
    pub length: u64,
    /// Its bytes. One that broke off ends with an error, short of its length.
    pub pieces: BoxStream<'static, Result<bytes::Bytes>>,
}

impl fmt::Debug for Export {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Export").field("length", &self.length).finish_non_exhaustive()
    }
}

/// The way to a host's bytes, which `hosts` implements over the internal API.
#[async_trait]
pub trait DataPath: Send + Sync {
    /// `length` bytes of a drive from `offset` on.
    ///
    /// # Errors
    /// `DriveInUse` if the host finds it claimed; `Unavailable` if the host does not answer.
    async fn read(
        &self,
        host: HostId,
        drive: DriveId,
        offset: Bytes,
        length: Bytes,
    ) -> Result<bytes::Bytes>;

    /// A drive as a qcow2 image.
    ///
    /// # Errors
    /// As [`DataPath::read`]; later, by the pieces, if the drive is used or the host lost meanwhile.
    async fn export(&self, host: HostId, drive: DriveId) -> Result<Export>;

    /// Writes `data` at `offset`; durable when it returns.
    ///
    /// # Errors
    /// As [`DataPath::read`].
    async fn write(
        &self,
        host: HostId,
        drive: DriveId,
        offset: Bytes,
        data: bytes::Bytes,
    ) -> Result<()>;

    /// What the newest run of a server wrote to its serial port.
    ///
    /// # Errors
    /// `NotFound` if nothing is kept; `Unavailable` if the host does not answer.
    async fn serial(&self, host: HostId, server: ServerId) -> Result<bytes::Bytes>;

    /// What servers and drives of a host have read and written, of those that it can tell; soon, or
    /// not at all.
    ///
    /// # Errors
    /// `Unavailable` if the host does not answer; `NotOffered` if it counts nothing.
    async fn counts(&self, host: HostId, of: CountsOf) -> Result<Counts>;

    /// The screen of one run of a server. It ends with that run at the latest.
    ///
    /// # Errors
    /// `NotFound` if the run is over or has no screen; `Unavailable` if the host does not answer.
    async fn screen(&self, host: HostId, server: ServerId, run: Run) -> Result<Box<dyn Screen>>;
}

/// A host as its follower needs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostRecord {
    /// Which host.
    pub host: HostId,
    /// What the operator calls it.
    pub name: Name,
    /// Where its agent is reached.
    pub address: String,
    /// SHA-256 of the one certificate that it proves itself with, in lower-case hex; `None` if any
    /// of the authority's does that names it.
    pub certificate: Option<String>,
}

/// An image to publish as a standard drive.
#[derive(Debug, Clone)]
pub struct StandardImage {
    /// The id it always has.
    pub drive: DriveId,
    /// What customers see.
    pub name: Name,
    /// `disk` or `cdrom`.
    pub media: String,
    /// `gzip` if the file is compressed.
    pub format: Option<String>,
    /// The size after decompression.
    pub rawsize: Option<Bytes>,
    /// SHA-256 of the file, in lower-case hex.
    pub sha256: String,
    /// The file.
    pub path: PathBuf,
}

/// What an operator may choose.
#[derive(Debug, Clone)]
pub struct AppConfig {
    /// How long a call that changes something waits for its host's report before it answers with
    /// what is so far.
    pub answer_within: Duration,
    /// Who signs the certificates of new hosts; without one no host can be added.
    pub authority: Option<Arc<Authority>>,
    /// The limits of every customer for whom an operator set no other; none by default.
    pub quotas: BTreeMap<Quota, u64>,
}

impl Default for AppConfig {
    fn default() -> Self {
        Self { answer_within: Duration::from_secs(20), authority: None, quotas: BTreeMap::new() }
    }
}

/// The control plane over one database.
pub struct App {
    db: Arc<Database>,
    scheduler: Arc<dyn Scheduler>,
    biller: Arc<dyn Biller>,
    clock: Arc<dyn Clock>,
    data: Arc<dyn DataPath>,
    config: AppConfig,
    /// When this process began to listen: a host not heard of since counts as heard of then.
    opened: Timestamp,
    heard: Mutex<BTreeMap<HostId, Heard>>,
    /// The hosts whose leases we last knew to be ours.
    held: Mutex<BTreeSet<HostId>>,
    intake: Intake,
    stale: AtomicU64,
    under_way: UnderWay,
    view: View,
    watchers: Arc<Watchers>,
    _waker: AbortOnDropHandle<()>,
    rooms: Rooms,
}

impl fmt::Debug for App {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("App")
            .field("db", &self.db)
            .field("config", &self.config)
            .finish_non_exhaustive()
    }
}

impl App {
    /// [`App::open_with`] the default configuration.
    ///
    /// # Errors
    /// As [`App::open_with`].
    pub async fn open(
        url: &str,
        scheduler: Arc<dyn Scheduler>,
        biller: Arc<dyn Biller>,
        clock: Arc<dyn Clock>,
        data: Arc<dyn DataPath>,
    ) -> Result<Arc<Self>> {
        Self::open_with(AppConfig::default(), url, scheduler, biller, clock, data).await
    }

    /// Opens the database at `url` (`sqlite:PATH` or `postgres://…`), making the file if there is
    /// none and bringing the schema up to date.
    ///
    /// # Errors
    /// `InvalidValue` for another kind of URL; `Unavailable` if it does not answer; `Internal` if
    /// it can't be opened or is newer than this program.
    pub async fn open_with(
        config: AppConfig,
        url: &str,
        scheduler: Arc<dyn Scheduler>,
        biller: Arc<dyn Biller>,
        clock: Arc<dyn Clock>,
        data: Arc<dyn DataPath>,
    ) -> Result<Arc<Self>> {
        let db = Arc::new(Database::open(url).await?.with_clock(Arc::clone(&clock)));
        nics::note_older_cards(&db).await?;
        let watchers = Arc::<Watchers>::default();
        let waker = events::wake(Arc::downgrade(&db), Arc::clone(&watchers));
        let opened = clock.now();
        Ok(Arc::new(Self {
            db,
            scheduler,
            biller,
            clock,
            data,
            config,
            opened,
            heard: Mutex::default(),
            held: Mutex::default(),
            intake: Intake::default(),
            stale: AtomicU64::new(0),
            under_way: UnderWay::default(),
            view: View::default(),
            watchers,
            _waker: AbortOnDropHandle::new(tokio::spawn(waker)),
            rooms: Rooms::default(),
        }))
    }

    /// One number that grows with every committed change of this process; waiters and pushers
    /// watch it. They are woken by changes of other servers too, and now and then for nothing.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.db.changes()
    }

    /// How many reports were ignored because they were about an older generation or run, or about
    /// what is not known here.
    #[must_use]
    pub fn stale_reports(&self) -> u64 {
        self.stale.load(Ordering::Relaxed)
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    fn generation(&self, number: u64) -> Generation {
        Generation::new(self.db.era(), number)
    }

    /// Asks the biller whether `account` may make a change, under a new id.
    async fn authorize(&self, account: AccountId, kind: ChangeKind) -> Result<ChangeId> {
        let change = new_id();
        match self.biller.authorize(&Change { change, account, kind }).await? {
            Verdict::Allow { .. } => Ok(change),
            Verdict::Refuse { reason } => Err(Error::new(ErrorKind::PaymentRequired, reason)),
            verdict => {
                Err(Error::internal(format!("the biller's answer is not known: {verdict:?}")))
            }
        }
    }

    /// What a call waits with for any change.
    fn patience(&self) -> Patience<'_, u64> {
        self.patience_with(self.changes())
    }

    /// What a call waits with for a report on a server, drive or job.
    fn patience_for<K>(&self, object: TypedId<K>) -> Patience<'_, ()> {
        self.patience_with(self.db.changes_of(object.as_uuid()))
    }

    fn patience_with<T>(&self, changes: watch::Receiver<T>) -> Patience<'_, T> {
        let now = Instant::now();
        let deadline = now + self.config.answer_within;
        Patience { db: &self.db, changes, deadline, first: Some(now) }
    }

    /// What a call waits with for a report on what it has just written: how that stands it knows.
    fn patience_after_writing<K>(&self, object: TypedId<K>) -> Patience<'_, ()> {
        let patience = self.patience_for(object);
        let first = Instant::now() + UNHEARD;
        Patience { first: Some(first.min(patience.deadline)), ..patience }
    }
}

/// How long who has just written something waits for news of it without a look. A report that came
/// before it began to wait, and was no news then, is found by that look.
const UNHEARD: Duration = Duration::from_millis(250);

/// Looks at the database once and after each change that is waited for, until the time to answer
/// is up.
struct Patience<'a, T> {
    db: &'a Database,
    changes: watch::Receiver<T>,
    deadline: Instant,
    /// When the first look is due if there is no news before; `None` after it.
    first: Option<Instant>,
}

impl<T> Patience<'_, T> {
    /// What reads the one row to look at; `None` once the time is up.
    async fn look(&mut self) -> Result<Option<Reader>> {
        let first = self.first.take();
        let due = first.unwrap_or(self.deadline);
        let is_news = tokio::time::timeout_at(due, self.changes.changed())
            .await
            .is_ok_and(|news| news.is_ok());
        if !is_news && first.is_none() {
            return Ok(None);
        }
        self.changes.mark_unchanged();
        self.db.glance().await.map(Some)
    }
}

/// A new random id.
fn new_id<K>() -> TypedId<K> {
    TypedId::from_uuid(Uuid::new_v4())
}

fn no_room(refusal: Refusal) -> Error {
    Error::new(ErrorKind::NoCapacity, refusal.to_string())
}

fn changed_meanwhile(object: &'static str) -> Error {
    Error::new(
        ErrorKind::ChangedMeanwhile,
        format!("the {object} was changed by another call meanwhile: repeat this one"),
    )
}
