//! The database: opening it, reading a snapshot of it, and changing it in one transaction.
//!
//! Owns every line of SQL in this crate; what a row means is decided in `app`. The SQL keeps to
//! what SQLite and PostgreSQL both take, and this file is all that knows which of them it is.
//!
//! Invariants: there is one writer at a time, whose transaction is all or nothing and durable
//! (`synchronous=FULL`) before anybody hears of it; a snapshot never sees half of one; the change
//! number grows after each commit that changed something, and only then.

mod accounts;
mod claims;
mod drives;
mod hosts;
mod jobs;
mod outbox;
mod row;
mod servers;
mod usage;

use std::error::Error as StdError;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::time::Duration;

use elasticstack_core::prelude::*;
use futures_util::future::BoxFuture;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{
    SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous,
};
use sqlx::{Sqlite, SqliteConnection, Transaction};
use tokio::sync::watch;

pub(crate) use accounts::AccountRow;
pub(crate) use claims::{ClaimRow, Holder};
pub(crate) use drives::{DriveRow, Standard};
pub(crate) use hosts::{ArrayRow, HostRow};
pub(crate) use jobs::JobRow;
pub(crate) use outbox::OutboxRow;
pub(crate) use servers::ServerRow;
pub(crate) use usage::Breakpoint;

use row::{failed, number};

static MIGRATIONS: Migrator = sqlx::migrate!();

/// How long one attempt waits for another process that writes.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// How often a transaction is begun again before the caller is told to come back.
const ATTEMPTS: u32 = 5;

/// How many snapshots are read at a time.
const READERS: u32 = 4;

/// An open database at the program's schema.
#[derive(Debug)]
pub(crate) struct Database {
    writer: SqlitePool,
    readers: SqlitePool,
    era: Era,
    changes: watch::Sender<u64>,
}

impl Database {
    /// Opens the database at `url` (`sqlite:PATH`), makes it if there is none, and brings its
    /// schema up to date.
    ///
    /// # Errors
    /// `InvalidValue` for another kind of URL; `Internal` if it can't be opened or its schema is
    /// newer than this program.
    pub(crate) async fn open(url: &str) -> Result<Self> {
        let path = url.strip_prefix("sqlite:").ok_or_else(|| {
            Error::new(
                ErrorKind::InvalidValue,
                "the database's URL is not one that this program opens: give sqlite:PATH",
            )
            .field("database")
        })?;
        let options = SqliteConnectOptions::new()
            .filename(path.strip_prefix("//").unwrap_or(path))
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .busy_timeout(BUSY_WAIT)
            .foreign_keys(true);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .connect_with(options.clone())
            .await
            .map_err(failed("opening the database"))?;
        MIGRATIONS.run(&writer).await.map_err(|error| {
            let doing = match error {
                MigrateError::VersionMissing(_) => "the database is newer than this program",
                _ => "bringing the database's schema up to date",
            };
            Error::internal(doing).source(error)
        })?;
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_with(options.pragma("query_only", "on"))
            .await
            .map_err(failed("opening the database for reading"))?;
        let mut database = Self { writer, readers, era: Era(0), changes: watch::Sender::new(0) };
        let mut reader = database.read().await?;
        let row = sqlx::query("SELECT era FROM control WHERE one = 1")
            .fetch_one(reader.connection())
            .await
            .map_err(failed("reading the era"))?;
        let era = number(&row, "era")?;
        drop(reader);
        database.era = Era(u32::try_from(era).map_err(|error| {
            Error::internal(format!("era {era} is past the largest")).source(error)
        })?);
        Ok(database)
    }

    /// The era of every generation in this database.
    pub(crate) fn era(&self) -> Era {
        self.era
    }

    /// One number that grows with every commit of this process that changed something.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// A snapshot of now.
    ///
    /// # Errors
    /// `Internal`.
    pub(crate) async fn read(&self) -> Result<Reader> {
        let transaction = self.readers.begin().await.map_err(failed("beginning a snapshot"))?;
        Ok(Reader { transaction })
    }

    /// Runs `work` as one transaction and commits it, or nothing of it if it fails. `work` is run
    /// again if the database was busy, so it has no effect but on the database.
    ///
    /// # Errors
    /// Those of `work`; `Unavailable` if the database stays busy; `Internal`.
    ///
    /// # Cancel safety
    /// Cancelled before the commit has begun, nothing has happened; after that, all of it does,
    /// and the change number grows.
    pub(crate) async fn write<'env, T>(
        &self,
        mut work: impl for<'tx> FnMut(&'tx mut Writer<'env>) -> BoxFuture<'tx, Result<T>>,
    ) -> Result<T> {
        for _ in 0..ATTEMPTS {
            match self.attempt(&mut work).await {
                Err(error) if is_busy(&error) => {
                    tracing::warn!(error = %Chain(&error), "the database was busy");
                }
                outcome => return outcome,
            }
        }
        Err(Error::new(
            ErrorKind::Unavailable,
            "the control plane is busy, and nothing was changed: repeat the call",
        ))
    }

    async fn attempt<'env, T>(
        &self,
        work: &mut impl for<'tx> FnMut(&'tx mut Writer<'env>) -> BoxFuture<'tx, Result<T>>,
    ) -> Result<T> {
        let transaction = self
            .writer
            .begin_with("BEGIN IMMEDIATE")
            .await
            .map_err(failed("beginning a transaction"))?;
        let mut writer =
            Writer { reader: Reader { transaction }, changed: false, borrows: PhantomData };
        let outcome = work(&mut writer).await?;
        if writer.changed {
            let Reader { transaction } = writer.reader;
            let changes = self.changes.clone();
            let commit = tokio::spawn(async move {
                let committed = transaction.commit().await;
                changes.send_modify(|number| *number += 1);
                committed
            });
            commit
                .await
                .map_err(|error| Error::internal("committing a transaction").source(error))?
                .map_err(failed("committing a transaction"))?;
        }
        Ok(outcome)
    }
}

fn is_busy(error: &Error) -> bool {
    /// SQLite's code for a lock that another process holds; the low byte of its extended codes.
    const SQLITE_BUSY: u32 = 5;
    error
        .source()
        .and_then(|source| source.downcast_ref::<sqlx::Error>())
        .and_then(sqlx::Error::as_database_error)
        .and_then(sqlx::error::DatabaseError::code)
        .and_then(|code| code.parse::<u32>().ok())
        .is_some_and(|code| code & 0xff == SQLITE_BUSY)
}

/// A snapshot: all it reads is from one instant.
pub(crate) struct Reader {
    transaction: Transaction<'static, Sqlite>,
}

impl Reader {
    fn connection(&mut self) -> &mut SqliteConnection {
        &mut self.transaction
    }
}

/// A transaction that may change things. It reads what it has written. What is done in it may
/// borrow anything that lives as long as `'env`.
pub(crate) struct Writer<'env> {
    reader: Reader,
    changed: bool,
    borrows: PhantomData<&'env ()>,
}

impl Writer<'_> {
    /// The connection, for a statement that changes something.
    fn changing(&mut self) -> &mut SqliteConnection {
        self.changed = true;
        self.reader.connection()
    }

    /// The next number of the database's one sequence, which never gives one out twice.
    async fn next_number(&mut self) -> Result<i64> {
        let row = sqlx::query("UPDATE control SET sequence = sequence + 1 RETURNING sequence")
            .fetch_one(self.changing())
            .await
            .map_err(failed("taking a number of the sequence"))?;
        row::column(&row, "sequence")
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

    #[tokio::test]
    async fn a_database_newer_than_the_program_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("control.db").display());
        let database = Database::open(&url).await.unwrap();
        let insert = "INSERT INTO _sqlx_migrations \
             (version, description, installed_on, success, checksum, execution_time) \
             VALUES (9999, 'from the future', '2030-01-01', TRUE, X'00', 0)";
        sqlx::query(insert).execute(&database.writer).await.unwrap();
        drop(database);
        let refused = Database::open(&url).await.unwrap_err();
        assert!(Chain(&refused).to_string().contains("newer than this program"), "{refused:?}");
    }

    #[tokio::test]
    async fn a_transaction_that_fails_or_changes_nothing_is_not_heard_of() {
        let directory = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}", directory.path().join("control.db").display());
        let database = Database::open(&url).await.unwrap();
        let before = *database.changes().borrow();
        let refused: Result<()> = database
            .write(|tx| {
                Box::pin(async move {
                    tx.next_number().await?;
                    Err(Error::new(ErrorKind::NotFound, "no"))
                })
            })
            .await;
        assert_eq!(refused.unwrap_err().kind(), ErrorKind::NotFound);
        database.write(|_| Box::pin(async move { Ok(()) })).await.unwrap();
        assert_eq!(*database.changes().borrow(), before);
        assert_eq!(
            database.write(|tx| Box::pin(async move { tx.next_number().await })).await.unwrap(),
            1
        );
        assert!(*database.changes().borrow() > before);
    }
}
