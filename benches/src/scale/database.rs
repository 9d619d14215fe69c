//! The two databases, each as operators run it: SQLite's file, and a PostgreSQL that keeps its promise
//! to the disk.
//!
//! What is in them is also read here with their own programs, which know nothing of ours.

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use elasticstack_lab::Postgres;
use serde_json::Value;
use tempfile::TempDir;

use super::process::CONFINED;
use crate::footprint::{processor_time, processor_time_of_the_ended};

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    Sqlite,
    Postgres,
}

impl Kind {
    pub(crate) const ALL: [Self; 2] = [Self::Sqlite, Self::Postgres];

    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Sqlite => "SQLite",
            Self::Postgres => "PostgreSQL",
        }
    }
}

/// A database, which goes with this.
pub(super) enum Database {
    Sqlite(TempDir),
    /// The server goes before its directory.
    Postgres {
        server: Postgres,
        _directory: TempDir,
    },
}

impl Database {
    pub(super) fn start(kind: Kind) -> Result<Self> {
        Ok(match kind {
            Kind::Sqlite => Self::Sqlite(tempfile::tempdir()?),
            Kind::Postgres => {
                let directory = tempfile::tempdir()?;
                let server = Postgres::start(directory.path(), &CONFINED, &[])?;
                Self::Postgres { server, _directory: directory }
            }
        })
    }

    /// What the API server is told.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Sqlite(directory) => format!("sqlite:{}", file(directory).display()),
            Self::Postgres { server, .. } => server.socket().url(),
        }
    }

    /// The processor time of its own processes; SQLite is a part of the API server's.
    pub(super) fn processor_time(&self) -> Result<Duration> {
        match self {
            Self::Sqlite(_) => Ok(Duration::ZERO),
            Self::Postgres { server, .. } => processor_time_of_all(server.pid()),
        }
    }

    /// The rows that answer a question.
    pub(super) fn ask(&self, question: &str) -> Result<Vec<Value>> {
        let directory = match self {
            Self::Sqlite(directory) => directory,
            Self::Postgres { server, .. } => return server.socket().ask(question),
        };
        let mut sqlite = Command::new("sqlite3");
        let answer = sqlite.args(["-readonly", "-json"]).arg(file(directory)).arg(question);
        let answer = captured(answer)?;
        if answer.trim_ascii().is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_slice(&answer).context("reading what a database answers")
    }
}

/// That of a process, its children, and those of them that have ended.
fn processor_time_of_all(pid: u32) -> Result<Duration> {
    let mut sum = processor_time(pid)? + processor_time_of_the_ended(pid)?;
    for child in fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?.split_whitespace()
    {
        // One that ended meanwhile is among the ended from now on.
        sum += processor_time(child.parse()?).unwrap_or_default();
    }
    Ok(sum)
}

fn file(directory: &TempDir) -> PathBuf {
    directory.path().join("control.db")
}

fn captured(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("starting {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}
