//! The two databases behind one face: pools, transactions, statements and rows of either.
//!
//! All that differs between SQLite and PostgreSQL stands here; no other file knows which of them
//! it is. Every statement has one text for both. Rows and arguments stay in the driver's own
//! types: choosing between the two is all that a column costs.

use std::str::FromStr;
use std::time::Duration;

use elasticstack_core::prelude::*;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgDatabaseError, PgPool, PgPoolOptions, PgRow,
};
use sqlx::query::Query;
use sqlx::sqlite::{
    SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions,
    SqliteRow, SqliteSynchronous,
};
use sqlx::{
    Connection as _, Decode, Encode, PgConnection, Postgres, Row as _, Sqlite, SqliteConnection,
    Type,
};

use super::row::failed;

/// How long one statement waits for another process's lock, and a caller for a connection.
const BUSY_WAIT: Duration = Duration::from_secs(5);

/// How many snapshots are read at a time.
const READERS: u32 = 4;

/// How many transactions write at a time, where more than one can.
const WRITERS: u32 = 8;

/// A connection that was unused for longer is tried before it is trusted.
const TRUSTED: Duration = Duration::from_secs(1);

/// How often servers that start at the same time may get into each other's way.
const MIGRATIONS: u32 = 5;

/// What a transaction is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// Reading, all from one instant.
    Snapshot,
    /// Reading and writing, as if alone.
    Change,
}

/// Connections for one purpose.
#[derive(Debug, Clone)]
pub(super) enum Pool {
    Postgres(PgPool),
    Sqlite(SqlitePool),
}

/// The connections to one database.
#[derive(Debug)]
pub(super) struct Pools {
    pub(super) readers: Pool,
    pub(super) writers: Pool,
    /// How many of `writers` there are.
    pub(super) width: u32,
}

impl Pools {
    /// Opens the database at `url` as `Database::open` promises.
    pub(super) async fn open(url: &str) -> Result<Self> {
        if let Some(path) = url.strip_prefix("sqlite:") {
            Self::open_sqlite(path).await
        } else if url.starts_with("postgres://") {
            Self::open_postgres(url).await
        } else {
            Err(not_a_url())
        }
    }

    async fn open_sqlite(path: &str) -> Result<Self> {
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
        // Only now is there a file to be read.
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .connect_lazy_with(options.pragma("query_only", "on"));
        Ok(Self { readers: Pool::Sqlite(readers), writers: Pool::Sqlite(writer), width: 1 })
    }

    async fn open_postgres(url: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(url)
            // The reason might repeat a part of the URL, which may hold a password.
            .map_err(|_| not_a_url())?
            .application_name("elasticstack")
            // The locks of a server whose machine is gone must not outlive it for long.
            .options([("idle_in_transaction_session_timeout", "15s")]);
        let pool = |size: u32| {
            PgPoolOptions::new()
                .max_connections(size)
                .acquire_timeout(BUSY_WAIT)
                .test_before_acquire(false)
                .before_acquire(|connection, known| {
                    Box::pin(async move {
                        if known.idle_for > TRUSTED {
                            connection.ping().await?;
                        }
                        Ok(true)
                    })
                })
        };
        let writers = pool(WRITERS)
            .connect_with(options.clone())
            .await
            .map_err(failed("opening the database"))?;
        let readers = pool(READERS).connect_lazy_with(options);
        Ok(Self {
            readers: Pool::Postgres(readers),
            writers: Pool::Postgres(writers),
            width: WRITERS,
        })
    }

    /// Whether other processes may have the database open for writing all the while.
    pub(super) fn are_shared(&self) -> bool {
        match self.writers {
            Pool::Postgres(_) => true,
            Pool::Sqlite(_) => false,
        }
    }

    /// Brings the schema up to date. Servers that do it at the same time take no lock: the one
    /// that comes second fails, tries again and finds it done.
    pub(super) async fn migrate(&self) -> Result<(), MigrateError> {
        let mut migrator: Migrator = sqlx::migrate!();
        migrator.set_locking(false);
        for _ in 1..MIGRATIONS {
            match self.migrate_with(&migrator).await {
                Err(MigrateError::Execute(_) | MigrateError::ExecuteMigration(..))
                    if self.are_shared() =>
                {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
                outcome => return outcome,
            }
        }
        self.migrate_with(&migrator).await
    }

    async fn migrate_with(&self, migrator: &Migrator) -> Result<(), MigrateError> {
        match &self.writers {
            Pool::Postgres(pool) => migrator.run(pool).await,
            Pool::Sqlite(pool) => migrator.run(pool).await,
        }
    }

    /// A mark that is another one after every commit, whoever makes it, and now and then without
    /// one; `None` where this process is the only one that writes.
    pub(super) async fn mark(&self) -> sqlx::Result<Option<String>> {
        match &self.readers {
            Pool::Postgres(pool) => {
                sqlx::query_scalar("SELECT CAST(pg_current_snapshot() AS TEXT)")
                    .fetch_one(pool)
                    .await
            }
            Pool::Sqlite(_) => Ok(None),
        }
    }
}

impl Pool {
    pub(super) async fn begin(&self, purpose: Purpose) -> sqlx::Result<Transaction> {
        Ok(match self {
            Self::Postgres(pool) => Transaction::Postgres(
                pool.begin_with(match purpose {
                    Purpose::Snapshot => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
                    Purpose::Change => "BEGIN ISOLATION LEVEL SERIALIZABLE",
                })
                .await?,
            ),
            Self::Sqlite(pool) => Transaction::Sqlite(
                pool.begin_with(match purpose {
                    Purpose::Snapshot => "BEGIN",
                    Purpose::Change => "BEGIN IMMEDIATE",
                })
                .await?,
            ),
        })
    }
}

/// A transaction, which is rolled back unless it is committed.
pub(super) enum Transaction {
    Postgres(sqlx::Transaction<'static, Postgres>),
    Sqlite(sqlx::Transaction<'static, Sqlite>),
}

impl Transaction {
    pub(super) async fn commit(self) -> sqlx::Result<()> {
        match self {
            Self::Postgres(transaction) => transaction.commit().await,
            Self::Sqlite(transaction) => transaction.commit().await,
        }
    }

    /// A statement of one text for both databases; it is prepared once a connection.
    pub(super) fn statement(&mut self, sql: &'static str) -> Statement<'_> {
        match self {
            Self::Postgres(transaction) => Statement::Postgres(transaction, sqlx::query(sql)),
            Self::Sqlite(transaction) => Statement::Sqlite(transaction, sqlx::query(sql)),
        }
    }
}

/// What a statement may be given: the intersection of what the databases take.
pub(super) trait Argument<'t>:
    Encode<'t, Postgres> + Type<Postgres> + Encode<'t, Sqlite> + Type<Sqlite>
{
}

impl<'t, T> Argument<'t> for T where
    T: Encode<'t, Postgres> + Type<Postgres> + Encode<'t, Sqlite> + Type<Sqlite>
{
}

/// A statement on its way to a connection.
#[must_use]
pub(super) enum Statement<'c> {
    Postgres(&'c mut PgConnection, Query<'c, Postgres, PgArguments>),
    Sqlite(&'c mut SqliteConnection, Query<'c, Sqlite, SqliteArguments>),
}

impl Statement<'_> {
    /// Gives the next `$N` its value.
    pub(super) fn bind<'t>(self, value: impl Argument<'t>) -> Self {
        match self {
            Self::Postgres(connection, query) => Self::Postgres(connection, query.bind(value)),
            Self::Sqlite(connection, query) => Self::Sqlite(connection, query.bind(value)),
        }
    }

    /// How many rows it changed.
    pub(super) async fn execute(self) -> sqlx::Result<u64> {
        Ok(match self {
            Self::Postgres(connection, query) => query.execute(connection).await?.rows_affected(),
            Self::Sqlite(connection, query) => query.execute(connection).await?.rows_affected(),
        })
    }

    pub(super) async fn fetch_all(self) -> sqlx::Result<Vec<Row>> {
        Ok(match self {
            Self::Postgres(connection, query) => {
                query.fetch_all(connection).await?.into_iter().map(Row::Postgres).collect()
            }
            Self::Sqlite(connection, query) => {
                query.fetch_all(connection).await?.into_iter().map(Row::Sqlite).collect()
            }
        })
    }

    pub(super) async fn fetch_one(self) -> sqlx::Result<Row> {
        self.fetch_optional().await?.ok_or(sqlx::Error::RowNotFound)
    }

    pub(super) async fn fetch_optional(self) -> sqlx::Result<Option<Row>> {
        Ok(match self {
            Self::Postgres(connection, query) => {
                query.fetch_optional(connection).await?.map(Row::Postgres)
            }
            Self::Sqlite(connection, query) => {
                query.fetch_optional(connection).await?.map(Row::Sqlite)
            }
        })
    }
}

/// What a column may be read as: the intersection of what the databases give.
pub(super) trait Column<'r>:
    Decode<'r, Postgres> + Type<Postgres> + Decode<'r, Sqlite> + Type<Sqlite>
{
}

impl<'r, T> Column<'r> for T where
    T: Decode<'r, Postgres> + Type<Postgres> + Decode<'r, Sqlite> + Type<Sqlite>
{
}

/// A row as its driver has it.
pub(super) enum Row {
    Postgres(PgRow),
    Sqlite(SqliteRow),
}

impl Row {
    pub(super) fn column<'r, T: Column<'r>>(&'r self, name: &str) -> sqlx::Result<T> {
        match self {
            Self::Postgres(row) => row.try_get(name),
            Self::Sqlite(row) => row.try_get(name),
        }
    }
}

/// Whether the transaction failed only because of another one, so that repeating it may succeed.
///
/// On PostgreSQL that includes a unique key that both found free: repeated, it is found taken.
pub(super) fn is_conflict(error: &sqlx::Error) -> bool {
    /// SQLite's code for a lock that another process holds; the low byte of its extended codes.
    const SQLITE_BUSY: u32 = 5;
    let Some(error) = error.as_database_error() else { return false };
    match error.try_downcast_ref::<PgDatabaseError>() {
        Some(error) => matches!(error.code(), "40001" | "40P01" | "23505"),
        None => error
            .code()
            .and_then(|code| code.parse::<u32>().ok())
            .is_some_and(|code| code & 0xff == SQLITE_BUSY),
    }
}

/// Whether the database could not be reached, or went away.
pub(super) fn is_outage(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut | sqlx::Error::WorkerCrashed => true,
        // The classes of broken connections and of a server that is ended or starts.
        sqlx::Error::Database(error) => error
            .try_downcast_ref::<PgDatabaseError>()
            .is_some_and(|error| error.code().starts_with("08") || error.code().starts_with("57P")),
        _ => false,
    }
}

fn not_a_url() -> Error {
    Error::new(
        ErrorKind::InvalidValue,
        "the database's URL is not one that this program opens: give sqlite:PATH or \
         postgres://USER:PASSWORD@HOST/DATABASE",
    )
    .field("database")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_url_that_cannot_be_opened_is_refused_without_a_word_of_it() {
        let urls = [
            "",
            "hunter2",
            "mysql://root:hunter2@localhost/cloud",
            "Sqlite:hunter2.db",
            "postgres:/root:hunter2@localhost:cloud",
            "postgres://root:hunter2@localhost:port/cloud",
            "postgres://root:hunter2@local host/cloud?sslmode=hunter2",
        ];
        for url in urls {
            let refused = Pools::open(url).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::InvalidValue, "{url}");
            assert_eq!(refused.blamed_field(), Some("database"));
            let shown = format!("{refused:?}");
            assert!(shown.contains("give sqlite:PATH or postgres://"), "{shown}");
            assert!(!shown.contains("hunter2"), "{shown}");
        }
    }

    #[tokio::test]
    async fn a_database_out_of_reach_is_unavailable_and_its_password_is_not_told() {
        let url = "postgres://root:hunter2@localhost/cloud?host=/nowhere/at/all";
        let away = Pools::open(url).await.unwrap_err();
        assert_eq!(away.kind(), ErrorKind::Unavailable, "{away:?}");
        assert!(!format!("{away:?}").contains("hunter2"), "{away:?}");
    }
}
