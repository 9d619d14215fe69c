//! The two databases behind one face: pools, transactions, statements and rows of either.
//!
//! All that differs between SQLite and PostgreSQL stands here; no other file knows which of them
//! it is. A statement has one text for both, or two that are made here of one (`one!`, `among!`,
//! `from_json!`). Rows and arguments stay in the driver's own types: choosing between the two is all
//! that a column costs. PostgreSQL is spoken with by sqlx over what [`super::postgres`] lends; sqlx
//! also keeps both schemas. SQLite is asked by [`super::sqlite`].

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use elasticstack_core::prelude::*;
use futures_util::TryStreamExt as _;
use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgArguments, PgConnectOptions, PgDatabaseError, PgRow};
use sqlx::query::Query;
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode};
use sqlx::{Connection as _, Decode, Encode, Postgres, Row as _, SqliteConnection, Type};
use tokio::task::consume_budget;

use super::postgres;
use super::row::failed;
use super::sqlite::{self, BUSY_WAIT};

/// How many snapshots are read at a time.
const READERS: u32 = 4;

/// How many serializable transactions change something at a time: with each more, more of them get
/// in each other's way.
const WRITERS: u32 = 2;

/// How many besides take in what hosts say and change single objects.
const TAKERS: u32 = 4;

/// How many notes are taken at a time.
const NOTERS: u32 = 2;

/// How often servers that start at the same time may get into each other's way.
const MIGRATIONS: u32 = 5;

/// What a transaction is for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Purpose {
    /// Reading with one statement.
    Glance,
    /// Reading, all from one instant.
    Snapshot,
    /// Reading and writing, as if alone.
    Change,
    /// Changing single objects, whose rows are locked when they are read.
    Locked,
    /// Writing down what is right whatever else is written, statement by statement, and what a crash
    /// may lose.
    Note,
}

/// The two texts of what reads one row by its id.
macro_rules! one {
    ($sql:literal) => {
        [$sql, concat!($sql, " FOR NO KEY UPDATE")]
    };
}
pub(super) use one;

/// The two texts of a statement whose end is that a number is one of those in `$1`, an array in JSON.
macro_rules! among {
    ($sql:literal) => {
        [
            concat!(
                $sql,
                " IN (SELECT CAST(value AS BIGINT) \
                 FROM json_array_elements_text(CAST($1 AS JSON)))"
            ),
            concat!($sql, " IN (SELECT value FROM json_each($1))"),
        ]
    };
}
pub(super) use among;

/// The two texts of a statement that ends with columns of the rows in `$1`, an array of objects in
/// JSON; the types are PostgreSQL's.
macro_rules! from_json {
    ($sql:literal, $first:literal $first_type:literal $(, $column:literal $type:literal)*) => {
        [
            concat!(
                $sql, ", ", $first, $(", ", $column,)*
                " FROM json_to_recordset(CAST($1 AS JSON)) AS given (",
                $first, " ", $first_type, $(", ", $column, " ", $type,)* ")"
            ),
            concat!(
                $sql, ", value ->> '", $first, "'", $(", value ->> '", $column, "'",)*
                " FROM json_each($1)"
            ),
        ]
    };
}
pub(super) use from_json;

macro_rules! postgres_horizon {
    () => {
        "mark + CAST(CAST(pg_snapshot_xmin(pg_current_snapshot()) AS TEXT) AS BIGINT) AS mark"
    };
}

macro_rules! sqlite_horizon {
    () => {
        "mark + 1 AS mark"
    };
}

macro_rules! latest {
    () => {
        "(SELECT CAST(COALESCE(MAX(latest), 0) AS BIGINT) FROM \
         (SELECT MAX(changed) AS latest FROM servers \
         UNION ALL SELECT MAX(changed) FROM drives \
         UNION ALL SELECT MAX(changed) FROM snapshots \
         UNION ALL SELECT MAX(changed) FROM hosts \
         UNION ALL SELECT MAX(changed) FROM arrays) AS changes) AS latest"
    };
}

/// Asks for what is told beside the one row that marks begin from.
macro_rules! told {
    ($first:expr $(, $more:expr)*) => {
        concat!("SELECT ", $first, $(", ", $more,)* " FROM control WHERE one = 1")
    };
}

/// Connections for one purpose.
#[derive(Debug, Clone)]
pub(super) enum Pool {
    Postgres(postgres::Connections),
    Sqlite(sqlite::Connections),
}

/// The connections to one database.
#[derive(Debug)]
pub(super) struct Pools {
    pub(super) readers: Pool,
    pub(super) writers: Pool,
    /// For what is only noted.
    pub(super) notes: Pool,
    /// How many of `writers` change anything at a time.
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
        let file = PathBuf::from(path.strip_prefix("//").unwrap_or(path));
        let made = connect(&file).await.map_err(failed("opening the database"))?;
        made.close().await.map_err(failed("opening the database"))?;
        let writers = Pool::Sqlite(sqlite::Connections::new(file.clone(), true, 1));
        Ok(Self {
            readers: Pool::Sqlite(sqlite::Connections::new(file, false, READERS)),
            notes: writers.clone(),
            writers,
            width: 1,
        })
    }

    async fn open_postgres(url: &str) -> Result<Self> {
        let options = PgConnectOptions::from_str(url)
            // The reason might repeat a part of the URL, which may hold a password.
            .map_err(|_| not_a_url())?
            .application_name("elasticstack")
            .options([
                // The locks of a server whose machine is gone must not outlive it for long.
                ("idle_in_transaction_session_timeout", "15s"),
                // Who reads a table from end to end is in the way of all who write to it, so small
                // ones are searched by their indexes too; and no statement is planned each time.
                ("enable_seqscan", "off"),
                ("plan_cache_mode", "force_generic_plan"),
                ("jit", "off"),
            ]);
        let writers = postgres::Connections::new(options.clone(), WRITERS + TAKERS);
        // An address where nothing answers is told at once.
        writers.begin(None).await.map_err(failed("opening the database"))?;
        let forgetful = options.clone().options([
            ("synchronous_commit", "off"),
            ("default_transaction_isolation", "read committed"),
        ]);
        Ok(Self {
            readers: Pool::Postgres(postgres::Connections::new(options, READERS)),
            writers: Pool::Postgres(writers),
            notes: Pool::Postgres(postgres::Connections::new(forgetful, NOTERS)),
            width: WRITERS,
        })
    }

    /// Closes every connection. SQLite's last one leaves the file whole, without a journal.
    pub(super) async fn close(&self) {
        for pool in [&self.readers, &self.writers, &self.notes] {
            match pool {
                Pool::Postgres(connections) => connections.close().await,
                Pool::Sqlite(connections) => connections.close().await,
            }
        }
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
            Pool::Postgres(connections) => connections.migrate(migrator).await,
            Pool::Sqlite(connections) => {
                let mut connection = connect(connections.file()).await?;
                migrator.run(&mut connection).await?;
                Ok(connection.close().await?)
            }
        }
    }

    /// A mark that is another one after every commit, whoever makes it, and now and then without
    /// one; `None` where this process is the only one that writes.
    pub(super) async fn mark(&self) -> Result<Option<String>, Failure> {
        if !self.are_shared() {
            return Ok(None);
        }
        let mut reader = self.readers.begin(Purpose::Glance).await?;
        let sql = "SELECT CAST(pg_current_snapshot() AS TEXT) AS mark";
        reader.statement(sql).fetch_one().await?.column("mark").map(Some)
    }
}

/// The file of a database of SQLite's; `None` for one of PostgreSQL's.
///
/// # Errors
/// `InvalidValue` for another kind of URL.
pub(crate) fn file_of(url: &str) -> Result<Option<PathBuf>> {
    match url.strip_prefix("sqlite:") {
        Some(path) => Ok(Some(path.strip_prefix("//").unwrap_or(path).into())),
        None if url.starts_with("postgres://") => Ok(None),
        None => Err(not_a_url()),
    }
}

/// A connection for what SQLite is seldom asked; it makes the file if there is none.
async fn connect(file: &Path) -> sqlx::Result<SqliteConnection> {
    let options = SqliteConnectOptions::new()
        .filename(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .busy_timeout(BUSY_WAIT)
        .foreign_keys(true);
    SqliteConnection::connect_with(&options).await
}

/// Writes what a database of SQLite's holds at this instant into an empty file. Whoever works on
/// the database is not held up.
pub(crate) async fn copy_into(database: &Path, file: &Path) -> Result<()> {
    let options = SqliteConnectOptions::new().filename(database).busy_timeout(BUSY_WAIT);
    let mut connection =
        SqliteConnection::connect_with(&options).await.map_err(failed("opening the database"))?;
    let name = file.to_str().ok_or_else(|| {
        let shown = file.display();
        let sentence = format!("{shown} can't be the name of a backup: use letters and digits");
        Error::new(ErrorKind::InvalidValue, sentence)
    })?;
    let copied = sqlx::query("VACUUM INTO $1").bind(name).execute(&mut connection).await;
    copied.map_err(failed("copying the database"))?;
    connection.close().await.map_err(failed("closing the database"))
}

impl Pool {
    pub(super) async fn begin(&self, purpose: Purpose) -> Result<Transaction, Failure> {
        Ok(match self {
            Self::Postgres(connections) => {
                let begin = match purpose {
                    Purpose::Glance | Purpose::Note => None,
                    Purpose::Snapshot => Some("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"),
                    Purpose::Change => Some("BEGIN ISOLATION LEVEL SERIALIZABLE"),
                    Purpose::Locked => Some("BEGIN ISOLATION LEVEL READ COMMITTED"),
                };
                let locks = matches!(purpose, Purpose::Locked);
                Transaction::Postgres { transaction: connections.begin(begin).await?, locks }
            }
            // To begin one costs next to nothing here.
            Self::Sqlite(connections) => {
                let is_lasting = !matches!(purpose, Purpose::Note);
                Transaction::Sqlite(connections.begin(is_lasting).await?)
            }
        })
    }
}

/// A transaction, which is rolled back unless it is committed; or a connection without one, each of
/// whose statements is its own.
pub(super) enum Transaction {
    Postgres {
        transaction: postgres::Transaction,
        /// Whether the rows that it reads one by one are locked.
        locks: bool,
    },
    Sqlite(sqlite::Transaction),
}

impl Transaction {
    pub(super) async fn commit(self) -> Result<(), Failure> {
        match self {
            Self::Postgres { transaction, .. } => transaction.commit().await?,
            Self::Sqlite(transaction) => transaction.commit()?,
        }
        Ok(())
    }

    /// What gives out the mark of a transaction; see `marks`.
    pub(super) fn mark(&mut self) -> Statement<'_> {
        let sql = match self {
            Self::Postgres { .. } => {
                "SELECT mark + CAST(CAST(pg_current_xact_id() AS TEXT) AS BIGINT) AS mark \
                 FROM control WHERE one = 1"
            }
            Self::Sqlite(_) => "UPDATE control SET mark = mark + 1 WHERE one = 1 RETURNING mark",
        };
        self.statement(sql)
    }

    /// What tells the horizon of a snapshot; see `marks`.
    pub(super) fn horizon(&mut self) -> Statement<'_> {
        let sql = match self {
            Self::Postgres { .. } => told!(postgres_horizon!()),
            Self::Sqlite(_) => told!(sqlite_horizon!()),
        };
        self.statement(sql)
    }

    /// What tells the horizon of a snapshot, and the latest mark in it; see `marks`.
    pub(super) fn horizon_and_latest(&mut self) -> Statement<'_> {
        let sql = match self {
            Self::Postgres { .. } => told!(postgres_horizon!(), latest!()),
            Self::Sqlite(_) => told!(sqlite_horizon!(), latest!()),
        };
        self.statement(sql)
    }

    /// What reads one row by its id: the first text, or where rows are locked the second.
    pub(super) fn one(&mut self, [read, lock]: [&'static str; 2]) -> Statement<'_> {
        let locks = matches!(self, Self::Postgres { locks: true, .. });
        self.statement(if locks { lock } else { read })
    }

    /// A statement of two texts, as `among!` and `from_json!` have it.
    pub(super) fn either(&mut self, [postgres, sqlite]: [&'static str; 2]) -> Statement<'_> {
        let is_sqlite = matches!(self, Self::Sqlite(_));
        self.statement(if is_sqlite { sqlite } else { postgres })
    }

    /// A statement of one text for both databases; it is prepared once a connection.
    pub(super) fn statement(&mut self, sql: &'static str) -> Statement<'_> {
        match self {
            Self::Postgres { transaction, .. } => {
                Statement::Postgres(transaction, sqlx::query(sql))
            }
            Self::Sqlite(transaction) => Statement::Sqlite(transaction.statement(sql)),
        }
    }
}

/// What a statement may be given: the intersection of what the databases take.
pub(super) trait Argument<'t>:
    Encode<'t, Postgres> + Type<Postgres> + sqlite::Given
{
}

impl<'t, T> Argument<'t> for T where T: Encode<'t, Postgres> + Type<Postgres> + sqlite::Given {}

/// A statement on its way to a connection. On SQLite it does not wait, so it counts as if it had:
/// who has many of them lets the other tasks of its thread in between.
#[must_use]
pub(super) enum Statement<'c> {
    Postgres(&'c mut postgres::Transaction, Query<'c, Postgres, PgArguments>),
    Sqlite(sqlite::Statement<'c>),
}

impl Statement<'_> {
    /// Gives the next `$N` its value.
    pub(super) fn bind<'t>(self, value: impl Argument<'t>) -> Self {
        match self {
            Self::Postgres(transaction, query) => Self::Postgres(transaction, query.bind(value)),
            Self::Sqlite(mut statement) => {
                statement.bind(value.value());
                Self::Sqlite(statement)
            }
        }
    }

    /// How many rows it changed.
    pub(super) async fn execute(self) -> Result<u64, Failure> {
        Ok(match self {
            Self::Postgres(transaction, query) => {
                let done = query.execute(transaction.connection()?).await?;
                transaction.settle();
                done.rows_affected()
            }
            Self::Sqlite(statement) => {
                consume_budget().await;
                statement.execute()?
            }
        })
    }

    pub(super) async fn fetch_all(self) -> Result<Vec<Row>, Failure> {
        Ok(match self {
            Self::Postgres(transaction, query) => {
                let rows = query.fetch_all(transaction.connection()?).await?;
                transaction.settle();
                rows.into_iter().map(Row::Postgres).collect()
            }
            Self::Sqlite(statement) => {
                consume_budget().await;
                statement.fetch_all()?.into_iter().map(Row::Sqlite).collect()
            }
        })
    }

    /// Hands over one row after the other, so that not all are in memory at a time.
    pub(super) async fn each(
        self,
        doing: &'static str,
        mut take: impl FnMut(&Row) -> Result<()>,
    ) -> Result<()> {
        match self {
            Self::Postgres(transaction, query) => {
                let connection = transaction.connection().map_err(failed(doing))?;
                let mut rows = query.fetch(connection);
                while let Some(row) = rows.try_next().await.map_err(failed(doing))? {
                    take(&Row::Postgres(row))?;
                }
                drop(rows);
                transaction.settle();
                Ok(())
            }
            Self::Sqlite(statement) => statement.each(|row| take(&Row::Sqlite(row)), failed(doing)),
        }
    }

    pub(super) async fn fetch_one(self) -> Result<Row, Failure> {
        self.fetch_optional().await?.ok_or(sqlx::Error::RowNotFound.into())
    }

    pub(super) async fn fetch_optional(self) -> Result<Option<Row>, Failure> {
        Ok(match self {
            Self::Postgres(transaction, query) => {
                let row = query.fetch_optional(transaction.connection()?).await?;
                transaction.settle();
                row.map(Row::Postgres)
            }
            Self::Sqlite(statement) => {
                consume_budget().await;
                statement.fetch_optional()?.map(Row::Sqlite)
            }
        })
    }
}

/// What a column may be read as: the intersection of what the databases give.
pub(super) trait Column<'r>:
    Decode<'r, Postgres> + Type<Postgres> + sqlite::Kept<'r>
{
}

impl<'r, T> Column<'r> for T where T: Decode<'r, Postgres> + Type<Postgres> + sqlite::Kept<'r> {}

/// A row as its driver has it.
pub(super) enum Row {
    Postgres(PgRow),
    Sqlite(sqlite::Row),
}

impl Row {
    pub(super) fn column<'r, T: Column<'r>>(&'r self, name: &str) -> Result<T, Failure> {
        Ok(match self {
            Self::Postgres(row) => row.try_get(name)?,
            Self::Sqlite(row) => row.column(name)?,
        })
    }
}

/// What a database says that does not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Postgres(#[from] sqlx::Error),
    #[error(transparent)]
    Sqlite(#[from] rusqlite::Error),
}

/// Whether the transaction failed only because of another one, so that repeating it may succeed.
///
/// On PostgreSQL that includes a unique key that both found free: repeated, it is found taken.
pub(super) fn is_conflict(failure: &Failure) -> bool {
    match failure {
        Failure::Postgres(error) => refusal(error)
            .is_some_and(|refusal| matches!(refusal.code(), "40001" | "40P01" | "23505")),
        Failure::Sqlite(error) => sqlite::is_busy(error),
    }
}

/// Whether the database could not be reached, went away, or had others to serve for too long.
pub(super) fn is_outage(failure: &Failure) -> bool {
    match failure {
        Failure::Postgres(sqlx::Error::Io(_) | sqlx::Error::PoolTimedOut) => true,
        // The classes of broken connections and of a server that is ended or starts.
        Failure::Postgres(error) => refusal(error).is_some_and(|refusal| {
            refusal.code().starts_with("08") || refusal.code().starts_with("57P")
        }),
        Failure::Sqlite(error) => sqlite::is_busy(error),
    }
}

fn refusal(error: &sqlx::Error) -> Option<&PgDatabaseError> {
    error.as_database_error()?.try_downcast_ref()
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
