//! The control plane's database from outside: what is in it is asked with its own program.

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use elasticstack_lab::Socket;
use serde_json::Value;
use tokio::task::spawn_blocking;

use super::wait::Wait;
use crate::process;

/// Where the database is.
#[derive(Debug, Clone)]
pub(crate) enum Database {
    Sqlite(PathBuf),
    Postgres(Socket),
}

/// The transactions of others.
const AT_WORK: &str = "SELECT pid, xact_start::text AS since FROM pg_stat_activity \
                       WHERE backend_type = 'client backend' AND xact_start IS NOT NULL \
                       AND pid <> pg_backend_pid()";

impl Database {
    /// The rows that answer a question.
    pub(crate) fn ask(&self, question: &str) -> Result<Vec<Value>> {
        let file = match self {
            Self::Postgres(socket) => return socket.ask(question),
            Self::Sqlite(file) => file,
        };
        let text =
            process::capture(process::command("sqlite3")?.arg("-json").arg(file).arg(question))?;
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_str(&text).context("sqlite3 printed an unknown shape")
    }

    /// Waits until every transaction is over that is at work now. On SQLite none outlives its
    /// program; PostgreSQL may still commit what a program asked for before it was killed.
    pub(crate) async fn until_begun_is_over(&self) -> Result<()> {
        let Self::Postgres(_) = self else { return Ok(()) };
        let at_work = async || -> Result<Vec<Value>> {
            let database = self.clone();
            spawn_blocking(move || database.ask(AT_WORK)).await.context("ask PostgreSQL")?
        };
        let mut begun = at_work().await?;
        let wait = Wait::new("transactions end");
        while !begun.is_empty() {
            wait.pause(&format!("{begun:?}")).await?;
            let still = at_work().await?;
            begun.retain(|transaction| still.contains(transaction));
        }
        Ok(())
    }
}
