//! PostgreSQL's connections: lent to one transaction at a time, and ready for the next one without
//! another word to the database.
//!
//! sqlx opens and counts them. It would also test each that comes back to it, which is a message and
//! an answer as dear as a short statement's, so none does. Invariants: a connection that is ready has
//! no transaction and owes no answer; one of which that is not known is settled first, and closed
//! if that fails.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Error, Executor as _, PgConnection, Postgres, Result, raw_sql};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, timeout};

use super::sqlite::BUSY_WAIT;

/// A connection that was unused for longer is tried before it is trusted.
const TRUSTED: Duration = Duration::from_secs(1);

/// One that was unused for longer is closed: what lies between may have forgotten it.
const UNUSED: Duration = Duration::from_secs(10 * 60);

/// One that is older is closed when it comes back: what a server process gathers, it keeps.
const LIFETIME: Duration = Duration::from_secs(30 * 60);

/// Has PostgreSQL look at 300 rows of a table, not at 30,000, when it makes its statistics anew: it
/// does so each minute for all that change as fast as ours, and half a second of a core each time
/// is what calls would wait for. Every statement finds its rows by an index, whatever they tell.
const SAMPLES: &str = "DO $$ DECLARE its record; BEGIN FOR its IN \
     SELECT attrelid::regclass AS relation, quote_ident(attname) AS attribute \
     FROM pg_attribute JOIN pg_class ON pg_class.oid = attrelid \
     WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace \
     AND attnum > 0 AND NOT attisdropped AND attstattarget IS DISTINCT FROM 1 \
     LOOP EXECUTE format('ALTER TABLE %s ALTER COLUMN %s SET STATISTICS 1', its.relation, its.attribute); \
     END LOOP; END $$";

/// Connections for one purpose, opened when they are first needed.
#[derive(Debug, Clone)]
pub(super) struct Connections(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    pool: PgPool,
    most: u32,
    places: Arc<Semaphore>,
    ready: Mutex<Vec<Ready>>,
}

#[derive(Debug)]
struct Ready {
    connection: Open,
    since: Instant,
}

/// A connection, which is closed when it is dropped, wherever that is: it never goes back to sqlx,
/// which would wait for its answers without a limit.
#[derive(Debug)]
struct Open {
    /// `None` only while it is dropped.
    connection: Option<PoolConnection<Postgres>>,
    since: Instant,
}

impl Connections {
    /// At most `most` of them.
    pub(super) fn new(options: PgConnectOptions, most: u32) -> Self {
        let pool = PgPoolOptions::new()
            .max_connections(most)
            .acquire_timeout(BUSY_WAIT)
            .connect_lazy_with(options);
        let places = Arc::new(Semaphore::new(usize::try_from(most).unwrap_or(1)));
        Self(Arc::new(Shared { pool, most, places, ready: Mutex::default() }))
    }

    /// Begins a transaction with `begin`, or lends a connection without one: then each statement
    /// is its own.
    ///
    /// # Errors
    /// `PoolTimedOut` if others have all connections for longer than [`BUSY_WAIT`]; what the
    /// database says.
    pub(super) async fn begin(&self, begin: Option<&'static str>) -> Result<Transaction> {
        let shared = Arc::clone(&self.0);
        let place = timeout(BUSY_WAIT, Arc::clone(&shared.places).acquire_owned()).await;
        let place = place.map_err(|_| Error::PoolTimedOut)?.map_err(|_| Error::PoolClosed)?;
        let connection = shared.connection().await?;
        let mut transaction = Transaction {
            connection: Some(connection),
            is_begun: begin.is_some(),
            is_settled: begin.is_none(),
            shared,
            place: Some(place),
        };
        if let Some(begin) = begin {
            transaction.connection()?.execute(begin).await?;
        }
        Ok(transaction)
    }

    /// Waits until every connection is free, closes it, and lends none any more.
    pub(super) async fn close(&self) {
        let all = self.0.places.acquire_many(self.0.most).await;
        self.0.places.close();
        self.0.ready().clear();
        self.0.pool.close().await;
        drop(all);
    }

    /// Brings the schema up to date.
    ///
    /// # Errors
    /// What sqlx or the database says, also where another server does the same at this moment.
    pub(super) async fn migrate(&self, migrator: &Migrator) -> Result<(), MigrateError> {
        migrator.run(&self.0.pool).await?;
        self.0.pool.execute(raw_sql(SAMPLES)).await.map_err(MigrateError::Execute)?;
        Ok(())
    }
}

impl Shared {
    async fn connection(&self) -> Result<Open> {
        let ready = self.ready().pop();
        if let Some(Ready { mut connection, since }) = ready {
            let unused = since.elapsed();
            if unused < TRUSTED || (unused < UNUSED && connection.answers().await) {
                return Ok(connection);
            }
        }
        Ok(Open { connection: Some(self.pool.acquire().await?), since: Instant::now() })
    }

    fn ready(&self) -> MutexGuard<'_, Vec<Ready>> {
        // No code that could panic runs under this lock.
        self.ready.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_back(&self, connection: Open) {
        if connection.since.elapsed() < LIFETIME {
            self.ready().push(Ready { connection, since: Instant::now() });
        }
    }
}

impl Open {
    fn connection(&mut self) -> Result<&mut PgConnection> {
        self.connection.as_deref_mut().ok_or(Error::PoolClosed)
    }

    async fn answers(&mut self) -> bool {
        let Ok(connection) = self.connection() else { return false };
        timeout(BUSY_WAIT, connection.ping()).await.is_ok_and(|answer| answer.is_ok())
    }

    /// Ends what it was doing, in a transaction or without one, where there is nothing to roll back
    /// and all answers are awaited. Answers whether it is as one that has done nothing.
    async fn settles(&mut self, in_transaction: bool) -> bool {
        let Ok(connection) = self.connection() else { return false };
        let last = if in_transaction { "ROLLBACK" } else { "-- the last answer" };
        let settled = async {
            match connection.execute(last).await {
                // That was the answer to what was cut off: it comes first.
                Err(Error::Database(_)) => connection.execute(last).await,
                outcome => outcome,
            }
        };
        timeout(BUSY_WAIT, settled).await.is_ok_and(|outcome| outcome.is_ok())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        drop(self.connection.take().map(PoolConnection::detach));
    }
}

/// A transaction, which is rolled back unless it is committed; or a connection without one.
#[derive(Debug)]
pub(super) struct Transaction {
    /// `None` only while it is dropped.
    connection: Option<Open>,
    is_begun: bool,
    /// Whether the connection is known to have no transaction and to owe no answer.
    is_settled: bool,
    shared: Arc<Shared>,
    /// Held until the connection is back.
    place: Option<OwnedSemaphorePermit>,
}

impl Transaction {
    /// The connection, for one statement. Whoever has the whole answer says so with
    /// [`Transaction::settle`].
    pub(super) fn connection(&mut self) -> Result<&mut PgConnection> {
        self.is_settled = false;
        self.connection.as_mut().ok_or(Error::PoolClosed)?.connection()
    }

    pub(super) fn settle(&mut self) {
        self.is_settled = !self.is_begun;
    }

    pub(super) async fn commit(mut self) -> Result<()> {
        if self.is_begun {
            self.connection()?.execute("COMMIT").await?;
            self.is_begun = false;
            self.settle();
        }
        Ok(())
    }
}

impl Drop for Transaction {
    fn drop(&mut self) {
        let (Some(mut connection), place) = (self.connection.take(), self.place.take()) else {
            return;
        };
        let shared = Arc::clone(&self.shared);
        if self.is_settled {
            shared.take_back(connection);
        } else if let Ok(runtime) = Handle::try_current() {
            let in_transaction = self.is_begun;
            runtime.spawn(async move {
                if connection.settles(in_transaction).await {
                    shared.take_back(connection);
                }
                drop(place);
            });
        }
    }
}
