//! SQLite where it is asked: connections to one file, and statements that run on the thread of the
//! task that asks.
//!
//! A statement finds what it needs in memory and is over in microseconds, which is less than it
//! takes to hand it to another thread and to be woken again. A commit waits for the disk there too:
//! one at a time does, and whoever comes next waits for it. A walk over many rows leaves the other
//! tasks of its thread to other threads, and what is in the log is brought into the file by one.
//!
//! Invariants: one connection writes; a connection is lent to one transaction at a time and comes
//! back without one. Nothing here waits for a lock but the beginning of a change, which sleeps.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rusqlite::types::Value;
use rusqlite::{Connection, Error, ErrorCode, OpenFlags, Result};
use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

/// How long a change waits for another process's lock, and anybody for a connection.
pub(super) const BUSY_WAIT: Duration = Duration::from_secs(5);

/// How often it looks whether the lock is free.
const BUSY_LOOK: Duration = Duration::from_millis(5);

/// How many statements each connection keeps prepared: more than this crate has.
const PREPARED: usize = 512;

/// How many pages a connection that reads keeps, in KiB: each change makes it forget them.
const READ_CACHE_KIB: i64 = 512;

/// After how many commits the log is brought into the file.
const LOGGED: u32 = 256;

/// Connections for one purpose, opened when they are first needed.
#[derive(Debug, Clone)]
pub(super) struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    file: PathBuf,
    writes: bool,
    most: u32,
    places: Arc<Semaphore>,
    free: Mutex<Vec<Lent>>,
    /// Commits since the log was last brought into the file.
    logged: AtomicU32,
    /// The connection that does it.
    folder: Mutex<Option<Connection>>,
    /// Whether that is done, but for what was committed meanwhile.
    folded: AtomicBool,
}

/// A connection, and the names of the columns of what it was asked.
#[derive(Debug)]
struct Lent {
    connection: Connection,
    names: HashMap<&'static str, Names>,
}

type Names = Arc<[Box<str>]>;

impl Connections {
    /// At most `most` of them.
    pub(super) fn new(file: PathBuf, writes: bool, most: u32) -> Self {
        let places = Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(1)));
        Self(Arc::new(Shared {
            file,
            writes,
            most,
            places,
            free: Mutex::default(),
            logged: AtomicU32::new(0),
            folder: Mutex::default(),
            folded: AtomicBool::new(false),
        }))
    }

    /// Begins a transaction: one that changes if these connections write, or else a snapshot. A
    /// commit waits for the disk if `is_lasting`.
    ///
    /// # Errors
    /// Busy, as [`is_busy`] knows it, if others keep it waiting for longer than [`BUSY_WAIT`].
    pub(super) async fn begin(&self, is_lasting: bool) -> Result<Transaction> {
        let shared = Arc::clone(&self.0);
        let closed = |_| Error::InvalidPath(shared.file.clone());
        let place = Arc::clone(&shared.places).acquire_owned();
        let place = timeout(BUSY_WAIT, place).await.map_err(|_| busy())?.map_err(closed)?;
        let lent = shared.free().pop();
        let lent = match lent {
            Some(lent) => lent,
            None => shared.open()?,
        };
        let begin = if shared.writes { "BEGIN IMMEDIATE" } else { "BEGIN" };
        let transaction = Transaction { lent: Some(lent), shared, _place: place };
        if transaction.shared.writes {
            transaction.run(match is_lasting {
                true => "PRAGMA synchronous = full",
                false => "PRAGMA synchronous = normal",
            })?;
        }
        let began = Instant::now();
        loop {
            match transaction.run(begin) {
                Err(error) if is_busy(&error) && began.elapsed() < BUSY_WAIT => {
                    tokio::time::sleep(BUSY_LOOK).await;
                }
                begun => return begun.map(|()| transaction),
            }
        }
    }

    /// Waits until every connection is free, closes it, and lends none any more.
    pub(super) async fn close(&self) {
        let all = self.0.places.acquire_many(self.0.most).await;
        self.0.places.close();
        self.0.free().clear();
        self.0.folder.lock().unwrap_or_else(PoisonError::into_inner).take();
        drop(all);
    }

    pub(super) fn file(&self) -> &Path {
        &self.0.file
    }
}

impl Shared {
    fn open(&self) -> Result<Lent> {
        let connection = self.connect()?;
        if self.writes {
            // It sleeps for a lock, and has the log brought in for it.
            connection.busy_timeout(Duration::ZERO)?;
            connection.pragma_update(None, "wal_autocheckpoint", 0)?;
            connection.pragma_update(None, "foreign_keys", "on")?;
        } else {
            connection.pragma_update(None, "query_only", "on")?;
            connection.pragma_update(None, "cache_size", -READ_CACHE_KIB)?;
        }
        connection.set_prepared_statement_cache_capacity(PREPARED);
        Ok(Lent { connection, names: HashMap::new() })
    }

    /// A connection that waits for what locks there are while a file is being recovered.
    fn connect(&self) -> Result<Connection> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = Connection::open_with_flags(&self.file, flags)?;
        connection.busy_timeout(BUSY_WAIT)?;
        connection.pragma_update(None, "synchronous", "full")?;
        Ok(connection)
    }

    /// Counts a commit. Now and then it has the log brought into the file meanwhile, which holds up
    /// nobody; what little came to it since is brought in here, so that the log begins anew.
    fn note_commit(self: &Arc<Self>, writer: &Connection) {
        if self.folded.swap(false, Ordering::Relaxed) {
            match checkpoint(writer, "PRAGMA wal_checkpoint(RESTART)") {
                Ok(is_whole) => self.folded.store(!is_whole, Ordering::Relaxed),
                Err(error) => is_left_out(&error),
            }
            self.logged.store(0, Ordering::Relaxed);
            return;
        }
        if self.logged.fetch_add(1, Ordering::Relaxed) + 1 < LOGGED {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        self.logged.store(0, Ordering::Relaxed);
        let shared = Arc::clone(self);
        runtime.spawn_blocking(move || {
            if let Err(error) = shared.fold() {
                is_left_out(&error);
            }
        });
    }

    fn fold(&self) -> Result<()> {
        // Who finds another one at it leaves it to that one.
        let Ok(mut folder) = self.folder.try_lock() else { return Ok(()) };
        if self.places.is_closed() {
            return Ok(());
        }
        let connection = match folder.take() {
            Some(connection) => connection,
            None => self.connect()?,
        };
        checkpoint(&connection, "PRAGMA wal_checkpoint(PASSIVE)")?;
        *folder = Some(connection);
        self.folded.store(true, Ordering::Relaxed);
        Ok(())
    }

    fn free(&self) -> std::sync::MutexGuard<'_, Vec<Lent>> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_left_out(error: &Error) {
    tracing::error!(%error, "the database's log could not be brought into its file");
}

/// Answers whether nobody was in its way.
fn checkpoint(connection: &Connection, sql: &str) -> Result<bool> {
    connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map(|busy| busy == 0)
}

/// A transaction, which is rolled back unless it is committed.
#[derive(Debug)]
pub(super) struct Transaction {
    /// `None` only while it is dropped.
    lent: Option<Lent>,
    shared: Arc<Shared>,
    _place: OwnedSemaphorePermit,
}

impl Transaction {
    /// Returns once it is on the disk, if it is lasting.
    pub(super) fn commit(self) -> Result<()> {
        self.run("COMMIT")?;
        self.shared.note_commit(&self.lent()?.connection);
        Ok(())
    }

    pub(super) fn statement(&mut self, sql: &'static str) -> Statement<'_> {
        Statement { transaction: self, sql, arguments: Vec::new() }
    }

    fn run(&self, sql: &'static str) -> Result<()> {
        self.lent()?.connection.prepare_cached(sql)?.execute([]).map(|_| ())
    }

    fn lent(&self) -> Result<&Lent> {
        self.lent.as_ref().ok_or(Error::InvalidQuery)
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let is_over = self.lent().is_ok_and(|lent| lent.connection.is_autocommit());
        // One that can't be brought back to where it began is closed, which does it too.
        if is_over || self.run("ROLLBACK").is_ok() {
            self.shared.free().extend(self.lent.take());
        }
    }
}

/// A statement and what it is given.
#[must_use]
pub(super) struct Statement<'c> {
    transaction: &'c mut Transaction,
    sql: &'static str,
    arguments: Vec<Value>,
}

impl Statement<'_> {
    /// Gives the next `$N` its value.
    pub(super) fn bind(&mut self, value: Value) {
        self.arguments.push(value);
    }

    /// How many rows it changed.
    pub(super) fn execute(self) -> Result<u64> {
        self.walk(|_| ControlFlow::Continue(()))
    }

    pub(super) fn fetch_all(self) -> Result<Vec<Row>> {
        let mut rows = Vec::new();
        self.walk(|row| {
            rows.push(row);
            ControlFlow::Continue(())
        })?;
        Ok(rows)
    }

    pub(super) fn fetch_optional(self) -> Result<Option<Row>> {
        let mut first = None;
        self.walk(|row| {
            first = Some(row);
            ControlFlow::Break(())
        })?;
        Ok(first)
    }

    /// Hands over one row after the other, until `take` fails. What goes wrong with the statement is
    /// an error as `failed` makes it.
    pub(super) fn each<E>(
        self,
        mut take: impl FnMut(Row) -> std::result::Result<(), E>,
        failed: impl Fn(Error) -> E,
    ) -> std::result::Result<(), E> {
        let mut refused = None;
        let walked = at_leisure(|| {
            self.walk(|row| match take(row) {
                Ok(()) => ControlFlow::Continue(()),
                Err(error) => {
                    refused = Some(error);
                    ControlFlow::Break(())
                }
            })
        });
        walked.map_err(failed)?;
        refused.map_or(Ok(()), Err)
    }

    /// Hands over rows until `take` has enough; answers how many the statement changed.
    fn walk(self, mut take: impl FnMut(Row) -> ControlFlow<()>) -> Result<u64> {
        let Self { transaction, sql, arguments } = self;
        let Lent { connection, names } = transaction.lent.as_mut().ok_or(Error::InvalidQuery)?;
        let mut statement = connection.prepare_cached(sql)?;
        for index in 1..=statement.parameter_count() {
            // To SQLite `$N` is a name.
            let number = statement.parameter_name(index).and_then(|name| name.strip_prefix('$'));
            let number = number.and_then(|number| number.parse::<usize>().ok());
            let value = number.and_then(|number| arguments.get(number.checked_sub(1)?));
            let value = value.ok_or(Error::InvalidParameterCount(arguments.len(), index))?;
            statement.raw_bind_parameter(index, value)?;
        }
        let names = names
            .entry(sql)
            .or_insert_with(|| statement.column_names().into_iter().map(Box::from).collect());
        let mut rows = statement.raw_query();
        while let Some(row) = rows.next()? {
            let values = (0..names.len()).map(|index| row.get(index)).collect::<Result<_>>()?;
            if take(Row { names: Arc::clone(names), values }).is_break() {
                break;
            }
        }
        drop(rows);
        Ok(connection.changes())
    }
}

/// A row, whole.
#[derive(Debug)]
pub(super) struct Row {
    names: Names,
    values: Box<[Value]>,
}

impl Row {
    pub(super) fn column<'r, T: Kept<'r>>(&'r self, name: &str) -> Result<T> {
        let index = self.names.iter().position(|known| **known == *name);
        let found = index.and_then(|index| Some((index, self.values.get(index)?)));
        let (index, value) = found.ok_or_else(|| Error::InvalidColumnName(name.to_owned()))?;
        let unlike = || Error::InvalidColumnType(index, name.to_owned(), value.data_type());
        T::read(value).ok_or_else(unlike)
    }
}

/// What SQLite keeps a value as.
pub(super) trait Given {
    fn value(&self) -> Value;
}

impl Given for i64 {
    fn value(&self) -> Value {
        Value::Integer(*self)
    }
}

impl Given for str {
    fn value(&self) -> Value {
        Value::Text(self.to_owned())
    }
}

impl Given for String {
    fn value(&self) -> Value {
        Value::Text(self.clone())
    }
}

impl<T: Given + ?Sized> Given for &T {
    fn value(&self) -> Value {
        (**self).value()
    }
}

impl<T: Given> Given for Option<T> {
    fn value(&self) -> Value {
        self.as_ref().map_or(Value::Null, Given::value)
    }
}

/// What a value of SQLite's may be read as.
pub(super) trait Kept<'r>: Sized {
    fn read(value: &'r Value) -> Option<Self>;
}

impl Kept<'_> for i64 {
    fn read(value: &Value) -> Option<Self> {
        if let Value::Integer(number) = value { Some(*number) } else { None }
    }
}

impl<'r> Kept<'r> for &'r str {
    fn read(value: &'r Value) -> Option<Self> {
        if let Value::Text(text) = value { Some(text) } else { None }
    }
}

impl Kept<'_> for String {
    fn read(value: &Value) -> Option<Self> {
        <&str>::read(value).map(str::to_owned)
    }
}

impl<'r, T: Kept<'r>> Kept<'r> for Option<T> {
    fn read(value: &'r Value) -> Option<Self> {
        if *value == Value::Null { Some(None) } else { T::read(value).map(Some) }
    }
}

/// Whether another connection has the lock.
pub(super) fn is_busy(error: &Error) -> bool {
    error.sqlite_error_code() == Some(ErrorCode::DatabaseBusy)
}

fn busy() -> Error {
    let sentence = format!("every connection was in use for {BUSY_WAIT:?}");
    Error::SqliteFailure(rusqlite::ffi::Error::new(rusqlite::ffi::SQLITE_BUSY), Some(sentence))
}

/// Does what may take long, with the other tasks of this thread left to other threads if there
/// are any.
fn at_leisure<T>(work: impl FnOnce() -> T) -> T {
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn connections(writes: bool) -> (tempfile::TempDir, Connections) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("test.db");
        let made = Connection::open(&file).unwrap();
        made.pragma_update(None, "journal_mode", "wal").unwrap();
        made.execute_batch("CREATE TABLE t (number BIGINT, word TEXT)").unwrap();
        (directory, Connections::new(file, writes, 1))
    }

    #[tokio::test]
    async fn what_is_not_committed_was_never_there_and_its_connection_is_good_again() {
        let (_directory, connections) = connections(true).await;
        for (commits, rows) in [(false, 0), (true, 1), (false, 1)] {
            let mut change = connections.begin(true).await.unwrap();
            let mut insert = change.statement("INSERT INTO t VALUES ($2, $1)");
            insert.bind("one".value());
            insert.bind(1.value());
            assert_eq!(insert.execute().unwrap(), 1);
            if commits {
                change.commit().unwrap();
            } else {
                drop(change);
            }
            let mut look = connections.begin(true).await.unwrap();
            let found = look.statement("SELECT * FROM t").fetch_all().unwrap();
            assert_eq!(found.len(), rows);
            for row in found {
                assert_eq!(row.column::<i64>("number").unwrap(), 1);
                assert_eq!(row.column::<Option<&str>>("word").unwrap(), Some("one"));
                row.column::<i64>("word").unwrap_err();
                row.column::<i64>("none").unwrap_err();
            }
        }
    }

    #[tokio::test]
    async fn the_log_is_brought_into_the_file_while_others_read_and_write() {
        let (directory, connections) = connections(true).await;
        let log = directory.path().join("test.db-wal");
        let mut most = 0;
        for _ in 0..LOGGED * 8 {
            let mut change = connections.begin(true).await.unwrap();
            change.statement("INSERT INTO t VALUES (1, 'one')").execute().unwrap();
            change.commit().unwrap();
            most = most.max(std::fs::metadata(&log).unwrap().len());
            tokio::task::yield_now().await;
        }
        let unfolded = u64::from(LOGGED) * 8 * 4096;
        assert!(most < unfolded / 2, "the log grew to {most} bytes");
        connections.close().await;
    }

    #[tokio::test]
    async fn a_snapshot_changes_nothing() {
        let (_directory, connections) = connections(false).await;
        let mut snapshot = connections.begin(true).await.unwrap();
        snapshot.statement("DELETE FROM t").execute().unwrap_err();
    }

    #[tokio::test(start_paused = true)]
    async fn who_finds_every_connection_in_use_is_told_so_in_the_end() {
        let (_directory, connections) = connections(false).await;
        let held = connections.begin(true).await.unwrap();
        assert!(is_busy(&connections.begin(true).await.unwrap_err()));
        drop(held);
        connections.begin(true).await.unwrap();
    }

    #[tokio::test]
    async fn a_change_waits_for_the_lock_of_another_process() {
        let (directory, connections) = connections(true).await;
        let other = Connection::open(directory.path().join("test.db")).unwrap();
        other.execute_batch("BEGIN IMMEDIATE").unwrap();
        let release = async {
            tokio::time::sleep(BUSY_LOOK * 3).await;
            other.execute_batch("ROLLBACK").unwrap();
        };
        let (begun, ()) = tokio::join!(connections.begin(true), release);
        begun.unwrap().commit().unwrap();
    }
}
