//! The database: opening it, reading a snapshot of it, and changing it in one transaction.
//!
//! Owns every line of SQL in this crate; what a row means is decided in `app`. The SQL keeps to
//! what SQLite and PostgreSQL both take, but where `dialect`, which is all that knows which of them
//! it is, makes two texts of one.
//!
//! Invariants: a transaction that changes something is all or nothing, and durable before anybody
//! hears of it; it is serializable, or depends on rows that it has locked and on nothing else. A
//! snapshot never sees half of one. The change number grows after each such commit of this process,
//! and only then; after a commit of another server its watchers are woken too, a tenth of a second
//! later at most, and so is everybody in `news`. What is only noted is news to nobody.

mod accounts;
mod cards;
mod claims;
mod consoles;
mod dialect;
mod drives;
mod eras;
mod events;
mod hosts;
mod jobs;
mod leases;
mod marks;
mod news;
mod numbers;
mod once;
mod outbox;
mod postgres;
mod quarantine;
mod quotas;
mod resources;
mod row;
mod servers;
mod snapshots;
mod sqlite;
mod tokens;
mod usage;

use std::collections::BTreeSet;
use std::error::Error as StdError;
use std::fmt;
use std::iter;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use elasticstack_core::prelude::*;
use futures_util::future::BoxFuture;
use sqlx::migrate::MigrateError;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;
use uuid::Uuid;

pub(crate) use accounts::{AccountRow, Standing};
pub(crate) use cards::CardRow;
pub(crate) use claims::{ClaimRow, Holder};
pub(crate) use consoles::TicketRow;
pub(crate) use drives::{DriveRow, Standard, Summed};
pub(crate) use events::{EventRow, Place, Told};
pub(crate) use hosts::{ArrayHealth, ArrayRow, Held, Hold, HostRow, Known, Placements, Promised};
pub(crate) use jobs::JobRow;
pub(crate) use once::{OnceRow, Subject};
pub(crate) use outbox::OutboxRow;
pub(crate) use quarantine::{Stray, StrayRow, Why};
pub(crate) use quotas::Used;
pub(crate) use resources::{PoolRow, ResourceRow};
pub(crate) use servers::ServerRow;
pub(crate) use snapshots::SnapshotRow;
pub(crate) use tokens::{Reach, TokenRow};
pub(crate) use usage::Breakpoint;

use dialect::{Pools, Purpose, Statement, Transaction, among, from_json, one};
pub(crate) use dialect::{copy_into, file_of};
use events::Touched;
use news::{News, Tidings};
use row::{failed, number};

/// How long a transaction is begun again before the caller is told to come back.
const PERSEVERANCE: Duration = Duration::from_secs(20);

/// The longest pause before a transaction is begun again.
const LONGEST_PAUSE_MS: u32 = 64;

/// How often commits of other servers are looked for while anybody watches.
const LOOK: Duration = Duration::from_millis(100);

/// What a transaction that changes something is kept apart from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Isolation {
    /// Everything: it is as if it were alone.
    Serializable,
    /// Others that change what it has read by its id: a server, drive, snapshot, job or host, whose
    /// row is locked then. What it writes depends on nothing else.
    RowLocks,
}

/// An open database at the program's schema.
pub(crate) struct Database {
    pools: Arc<Pools>,
    /// One for each serializable transaction; who was disturbed twice takes all of them.
    turns: Semaphore,
    era: Era,
    owner: String,
    clock: Arc<dyn Clock>,
    changes: watch::Sender<u64>,
    news: Arc<News>,
    _lookout: Option<AbortOnDropHandle<()>>,
}

impl fmt::Debug for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pools, era, owner, .. } = self;
        f.debug_struct("Database")
            .field("pools", pools)
            .field("era", era)
            .field("owner", owner)
            .finish_non_exhaustive()
    }
}

impl Database {
    /// Opens the database at `url` (`sqlite:PATH` or `postgres://…`), makes the file if there is
    /// none, and brings the schema up to date.
    ///
    /// # Errors
    /// `InvalidValue` for another kind of URL; `Unavailable` if it does not answer; `Internal` if
    /// it can't be opened or its schema is newer than this program.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        let pools = Arc::new(Pools::open(url).await?);
        pools.migrate().await.map_err(|error| {
            let doing = match error {
                MigrateError::VersionMissing(_) => "the database is newer than this program",
                _ => "bringing the database's schema up to date",
            };
            Error::internal(doing).source(error)
        })?;
        let (changes, news) = (watch::Sender::new(0), Arc::new(News::new()));
        let (owner, lookout) = if pools.are_shared() {
            let others = look_out(Arc::clone(&pools), changes.clone(), Arc::clone(&news));
            let task = tokio::spawn(others);
            (Uuid::new_v4().to_string(), Some(AbortOnDropHandle::new(task)))
        } else {
            ("only".to_owned(), None)
        };
        let turns = Semaphore::new(usize::try_from(pools.width).unwrap_or(1));
        let era = Era(0);
        let clock = Arc::new(|| Timestamp::from(SystemTime::now()));
        let mut database =
            Self { pools, turns, era, owner, clock, changes, news, _lookout: lookout };
        let mut reader = database.read().await?;
        let row = reader
            .statement("SELECT era FROM control WHERE one = 1")
            .fetch_one()
            .await
            .map_err(failed("reading the era"))?;
        let era = number(&row, "era")?;
        drop(reader);
        database.era = Era(u32::try_from(era).map_err(|error| {
            Error::internal(format!("era {era} is past the largest")).source(error)
        })?);
        Ok(database)
    }

    /// Closes every connection and waits until nothing of it is open.
    pub(crate) async fn close(self) {
        self.pools.close().await;
    }

    /// The same, which is told the time by `clock` instead of the system.
    pub(crate) fn with_clock(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// The era of every generation in this database.
    pub(crate) fn era(&self) -> Era {
        self.era
    }

    /// Under which name this process holds leases: another one each time where there may be
    /// others, and always the same where it can be the only one.
    pub(crate) fn owner(&self) -> &str {
        &self.owner
    }

    /// One number that grows with every commit of this process that changed something. Watchers
    /// are woken by commits of other servers too, and now and then for nothing.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Yields after every commit that saved the server, drive or job of this id, whoever made it,
    /// and now and then for nothing.
    pub(crate) fn changes_of(&self, object: &Uuid) -> watch::Receiver<()> {
        self.news.of(object)
    }

    /// The hosts for which this process queued something since they were last asked for, as soon
    /// as there is one. Asked for by one task.
    pub(crate) async fn queued_for(&self) -> BTreeSet<HostId> {
        self.news.queued_for().await
    }

    /// The change number, where no other process changes anything: while it stays, there is no
    /// news in the database.
    pub(crate) fn sole_number(&self) -> Option<u64> {
        (!self.pools.are_shared()).then(|| *self.changes.borrow())
    }

    /// A snapshot of now.
    ///
    /// # Errors
    /// `Unavailable` if the database does not answer; `Internal`.
    pub(crate) async fn read(&self) -> Result<Reader> {
        let transaction = self.pools.readers.begin(Purpose::Snapshot).await;
        Ok(Reader { transaction: transaction.map_err(failed("beginning a snapshot"))? })
    }

    /// What reads with one statement: as [`Database::read`], without the cost of a transaction. What
    /// two statements read is not from one instant.
    ///
    /// # Errors
    /// As [`Database::read`].
    pub(crate) async fn glance(&self) -> Result<Reader> {
        let transaction = self.pools.readers.begin(Purpose::Glance).await;
        Ok(Reader { transaction: transaction.map_err(failed("reaching the database"))? })
    }

    /// Runs `work` as one transaction and commits it, or nothing of it if it fails. `work` is run
    /// again if another transaction got in its way, so it has no effect but on the database.
    ///
    /// # Errors
    /// Those of `work`; `Unavailable` if others get in its way for too long, or the database does
    /// not answer; `Internal`.
    ///
    /// # Cancel safety
    /// Cancelled before the commit has begun, nothing has happened; after that, all of it does,
    /// and the change number grows.
    pub(crate) async fn write<'env, T>(
        &self,
        work: impl for<'tx> FnMut(&'tx mut Writer<'env>) -> BoxFuture<'tx, Result<T>>,
    ) -> Result<T> {
        self.write_after(Isolation::Serializable, nothing, work).await
    }

    /// Runs `work` as [`Database::write`] does, but as [`Isolation::RowLocks`] allows.
    ///
    /// # Errors
    /// As [`Database::write`].
    ///
    /// # Cancel safety
    /// As [`Database::write`].
    pub(crate) async fn write_locking<'env, T>(
        &self,
        work: impl for<'tx> FnMut(&'tx mut Writer<'env>) -> BoxFuture<'tx, Result<T>>,
    ) -> Result<T> {
        self.write_after(Isolation::RowLocks, nothing, work).await
    }

    /// As [`Database::write`], isolated as told, with `first` done before `work` in the same
    /// transaction.
    pub(crate) async fn write_after<'env, T>(
        &self,
        isolation: Isolation,
        first: impl for<'tx> FnMut(&'tx mut Writer<'env>) -> BoxFuture<'tx, Result<()>>,
        work: impl for<'tx> FnMut(&'tx mut Writer<'env>) -> BoxFuture<'tx, Result<T>>,
    ) -> Result<T> {
        let purpose = match isolation {
            Isolation::Serializable => Purpose::Change,
            Isolation::RowLocks => Purpose::Locked,
        };
        self.transact(purpose, first, work).await
    }

    /// Runs `work` as [`Database::write`] does, where each of its statements is right by itself,
    /// whatever others write meanwhile and whether the next is done, and is done again if a crash
    /// loses it. It gets in nobody's way, waits for no disk, and wakes nobody.
    ///
    /// # Errors
    /// As [`Database::write`].
    ///
    /// # Cancel safety
    /// Some of its statements may have been done. Repeating it is harmless.
    pub(crate) async fn note<'env>(
        &self,
        work: impl for<'tx> FnMut(&'tx mut Writer<'env>) -> BoxFuture<'tx, Result<()>>,
    ) -> Result<()> {
        self.transact(Purpose::Note, nothing, work).await
    }

    async fn transact<'env, T>(
        &self,
        purpose: Purpose,
        mut first: impl for<'tx> FnMut(&'tx mut Writer<'env>) -> BoxFuture<'tx, Result<()>>,
        mut work: impl for<'tx> FnMut(&'tx mut Writer<'env>) -> BoxFuture<'tx, Result<T>>,
    ) -> Result<T> {
        let begun = Instant::now();
        let (mut turns, mut next_turns, mut pause_ms) = (1, 1, 1);
        loop {
            match self.attempt(purpose, turns, &mut first, &mut work).await {
                Err(error) if is_conflict(&error) => {
                    tracing::debug!(error = %Chain(&error), "another transaction got in the way");
                    if begun.elapsed() > PERSEVERANCE {
                        return Err(Error::new(
                            ErrorKind::Unavailable,
                            "the control plane is busy, and nothing was changed: repeat the call",
                        )
                        .source(error));
                    }
                }
                outcome => {
                    if !self.pools.are_shared() {
                        // Nothing there has waited: now the other tasks of this thread may go on,
                        // and whoever is cut off after a commit is cut off here.
                        tokio::task::yield_now().await;
                    }
                    return outcome;
                }
            }
            // After a second time no other serializable transaction of this process is under way;
            // other servers are given way to.
            (turns, next_turns) = (next_turns, self.pools.width);
            let random = getrandom::u32().unwrap_or_default();
            tokio::time::sleep(Duration::from_millis((random % pause_ms).into())).await;
            pause_ms = LONGEST_PAUSE_MS.min(pause_ms * 2);
        }
    }

    async fn attempt<'env, T>(
        &self,
        purpose: Purpose,
        turns: u32,
        first: &mut impl for<'tx> FnMut(&'tx mut Writer<'env>) -> BoxFuture<'tx, Result<()>>,
        work: &mut impl for<'tx> FnMut(&'tx mut Writer<'env>) -> BoxFuture<'tx, Result<T>>,
    ) -> Result<T> {
        let turns = match purpose {
            Purpose::Change => turns,
            Purpose::Locked | Purpose::Note | Purpose::Glance | Purpose::Snapshot => 0,
        };
        let _turns = self
            .turns
            .acquire_many(turns)
            .await
            .map_err(|error| Error::internal("waiting for a turn to write").source(error))?;
        let pool = match purpose {
            Purpose::Note => &self.pools.notes,
            _ => &self.pools.writers,
        };
        let transaction = pool.begin(purpose).await.map_err(failed("beginning a transaction"))?;
        let mut writer = Writer {
            reader: Reader { transaction },
            changed: false,
            tidings: Tidings::default(),
            mark: None,
            touched: Touched::default(),
            read: Read::default(),
            borrows: PhantomData,
        };
        first(&mut writer).await?;
        let outcome = work(&mut writer).await?;
        writer.tell(self.era, self.clock.now()).await?;
        if writer.changed {
            let Writer { reader: Reader { transaction }, tidings, .. } = writer;
            let (changes, news) = (self.changes.clone(), Arc::clone(&self.news));
            let commit = async move {
                let committed = transaction.commit().await;
                match purpose {
                    Purpose::Change | Purpose::Locked => {
                        changes.send_modify(|number| *number += 1);
                        news.tell(tidings);
                    }
                    Purpose::Note | Purpose::Glance | Purpose::Snapshot => {}
                }
                committed
            };
            // Where it waits for nobody, nothing can cut it off, and the next one waits the less.
            let committed = if self.pools.are_shared() {
                let unheard = |error| Error::internal("committing a transaction").source(error);
                tokio::spawn(commit).await.map_err(unheard)?
            } else {
                commit.await
            };
            committed.map_err(failed("committing a transaction"))?;
        }
        Ok(outcome)
    }
}

/// What is done first where nothing is.
fn nothing<'tx>(_: &'tx mut Writer<'_>) -> BoxFuture<'tx, Result<()>> {
    Box::pin(async { Ok(()) })
}

fn is_conflict(error: &Error) -> bool {
    let mut sources = iter::successors(error.source(), |&source| source.source());
    sources.any(|source| source.downcast_ref().is_some_and(dialect::is_conflict))
}

/// Wakes the watchers of `changes` after commits of other servers, for as long as it is run. What
/// was committed while nobody watched is made up for at the first look.
async fn look_out(pools: Arc<Pools>, changes: watch::Sender<u64>, news: Arc<News>) {
    let mut seen = None;
    loop {
        tokio::time::sleep(LOOK).await;
        if changes.receiver_count() == 0 && !news.is_awaited() {
            continue;
        }
        match pools.mark().await {
            Ok(mark) if mark != seen => {
                seen = mark;
                changes.send_modify(|_| {});
                news.tell_all();
            }
            Ok(_) => {}
            // Who waits sees the outage by itself, or nothing happens that it could see.
            Err(error) => tracing::debug!(%error, "looking for commits of other servers"),
        }
    }
}

/// A snapshot: all it reads is from one instant.
pub(crate) struct Reader {
    transaction: Transaction,
}

impl Reader {
    /// A statement that reads.
    fn statement(&mut self, sql: &'static str) -> Statement<'_> {
        self.transaction.statement(sql)
    }

    /// A statement that reads one row by its id, as `one!` has it.
    fn one(&mut self, sql: [&'static str; 2]) -> Statement<'_> {
        self.transaction.one(sql)
    }
}

/// A transaction that may change things. It reads what it has written. What is done in it may
/// borrow anything that lives as long as `'env`.
pub(crate) struct Writer<'env> {
    reader: Reader,
    changed: bool,
    tidings: Tidings,
    mark: Option<i64>,
    touched: Touched,
    read: Read,
    borrows: PhantomData<&'env ()>,
}

/// What a transaction has read last, of a kind, and not saved since; and what it has marked.
#[derive(Default)]
struct Read {
    account: Option<AccountRow>,
    server: Option<ServerRow>,
    drive: Option<DriveRow>,
    marked: BTreeSet<DriveId>,
}

impl Writer<'_> {
    /// A statement that changes something.
    fn change(&mut self, sql: &'static str) -> Statement<'_> {
        self.changed = true;
        self.reader.statement(sql)
    }

    /// A statement of two texts that changes something, as `among!` and `from_json!` have it.
    fn change_either(&mut self, sql: [&'static str; 2]) -> Statement<'_> {
        self.changed = true;
        self.reader.transaction.either(sql)
    }
}

impl Deref for Writer<'_> {
    type Target = Reader;

    fn deref(&self) -> &Reader {
        &self.reader
    }
}

impl DerefMut for Writer<'_> {
    fn deref_mut(&mut self) -> &mut Reader {
        &mut self.reader
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn scratch() -> (tempfile::TempDir, String, Database) {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("control.db").display());
        let database = Database::open(&url).await.unwrap();
        (directory, url, database)
    }

    #[tokio::test]
    async fn a_database_newer_than_the_program_is_refused() {
        let (_directory, url, database) = scratch().await;
        let insert = "INSERT INTO _sqlx_migrations \
             (version, description, installed_on, success, checksum, execution_time) \
             VALUES (9999, 'from the future', '2030-01-01', TRUE, X'00', 0)";
        database
            .write(|tx| {
                Box::pin(
                    async move { tx.change(insert).execute().await.map_err(failed("inserting")) },
                )
            })
            .await
            .unwrap();
        drop(database);
        let refused = Database::open(&url).await.unwrap_err();
        assert!(Chain(&refused).to_string().contains("newer than this program"), "{refused:?}");
    }

    #[tokio::test]
    async fn a_transaction_that_fails_or_changes_nothing_is_not_heard_of() {
        let (_directory, _, database) = scratch().await;
        let before = *database.changes().borrow();
        let next_era = "UPDATE control SET era = era + 1";
        let refused: Result<()> = database
            .write(|tx| {
                Box::pin(async move {
                    tx.change(next_era).execute().await.map_err(failed("changing the era"))?;
                    Err(Error::new(ErrorKind::NotFound, "no"))
                })
            })
            .await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
        database.write(|_| Box::pin(async move { Ok(()) })).await.unwrap();
        assert_eq!(*database.changes().borrow(), before);
        let era = "UPDATE control SET era = era + 1 RETURNING era";
        let row = database
            .write(|tx| {
                Box::pin(async move {
                    tx.change(era).fetch_one().await.map_err(failed("changing the era"))
                })
            })
            .await
            .unwrap();
        assert_eq!(number(&row, "era").unwrap(), u64::from(database.era().0) + 1);
        assert!(*database.changes().borrow() > before);
    }
}
