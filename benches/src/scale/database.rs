//! The two databases, each as operators run it: SQLite's file, and a PostgreSQL that keeps its promise
//! to the disk.
//!
//! What is in them is also read here with their own programs, which know nothing of ours.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;
use tempfile::TempDir;

use super::process::confined;
use crate::footprint::{processor_time, processor_time_of_the_ended};

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
const USER: &str = "elasticstack";

/// Longer than PostgreSQL takes to start on the slowest machine.
const GUARD: Duration = Duration::from_secs(120);

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
    Postgres(Cluster),
}

impl Database {
    pub(super) fn start(kind: Kind) -> Result<Self> {
        Ok(match kind {
            Kind::Sqlite => Self::Sqlite(tempfile::tempdir()?),
            Kind::Postgres => Self::Postgres(Cluster::start()?),
        })
    }

    /// What the API server is told.
    pub(super) fn url(&self) -> String {
        match self {
            Self::Sqlite(directory) => format!("sqlite:{}", file(directory).display()),
            Self::Postgres(cluster) => {
                let socket = cluster.directory.path().display();
                format!("postgres://{USER}@localhost/{USER}?host={socket}")
            }
        }
    }

    /// The processor time of its own processes; SQLite is a part of the API server's.
    pub(super) fn processor_time(&self) -> Result<Duration> {
        match self {
            Self::Sqlite(_) => Ok(Duration::ZERO),
            Self::Postgres(cluster) => cluster.processor_time(),
        }
    }

    /// The rows that answer a question.
    pub(super) fn ask(&self, question: &str) -> Result<Vec<Value>> {
        let answer = match self {
            Self::Sqlite(directory) => captured(
                Command::new("sqlite3")
                    .args(["-readonly", "-json"])
                    .arg(file(directory))
                    .arg(question),
            )?,
            Self::Postgres(cluster) => {
                let question =
                    format!("SELECT COALESCE(json_agg(row_to_json(t)), '[]') FROM ({question}) t");
                let mut psql = Command::new(Path::new(PROGRAMS).join("psql"));
                psql.args([
                    "--no-psqlrc",
                    "--tuples-only",
                    "--no-align",
                    "--username",
                    USER,
                    "--host",
                ]);
                captured(psql.arg(cluster.directory.path()).args(["--command", &question]))?
            }
        };
        if answer.trim_ascii().is_empty() {
            return Ok(Vec::new());
        }
        serde_json::from_slice(&answer).context("reading what a database answers")
    }
}

fn file(directory: &TempDir) -> PathBuf {
    directory.path().join("control.db")
}

/// A PostgreSQL of its own, without a network. It ends with this, or with the thread that started it.
pub(super) struct Cluster {
    directory: TempDir,
    server: Child,
}

impl Cluster {
    fn start() -> Result<Self> {
        let directory = tempfile::tempdir()?;
        let path = directory.path();
        if is_root()? {
            let id = |of: &str| -> Result<u32> {
                let id = captured(Command::new("id").args([of, "postgres"]))?;
                Ok(String::from_utf8(id)?.trim().parse()?)
            };
            chown(path, Some(id("-u")?), Some(id("-g")?))?;
        }
        let data = path.join("data");
        captured(
            unprivileged("initdb")?
                .args(["--auth=trust", "--encoding=UTF8", "--locale=C", "--username", USER])
                .arg("--pgdata")
                .arg(&data),
        )?;
        let log = path.join("log");
        let server = unprivileged("postgres")?
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(path)
            .args(["-h", ""])
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("starting PostgreSQL")?;
        let mut cluster = Self { directory, server };
        let path = cluster.directory.path().to_owned();
        let begun = Instant::now();
        while !is_ready(&path)? {
            let ended = cluster.server.try_wait()?;
            if ended.is_some() || begun.elapsed() > GUARD {
                bail!("PostgreSQL does not start: {}", fs::read_to_string(&log)?);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        captured(
            Command::new(Path::new(PROGRAMS).join("createdb"))
                .args(["--username", USER, "--host"])
                .arg(&path)
                .arg(USER),
        )?;
        Ok(cluster)
    }

    fn processor_time(&self) -> Result<Duration> {
        let pid = self.server.id();
        let mut sum = processor_time(pid)? + processor_time_of_the_ended(pid)?;
        for child in
            fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))?.split_whitespace()
        {
            // One that ended meanwhile is among the ended from now on.
            sum += processor_time(child.parse()?).unwrap_or_default();
        }
        Ok(sum)
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // At once, without a word to who is connected.
        let end = format!("kill -QUIT {}", self.server.id());
        let _ = Command::new("sh").args(["-c", &end]).status();
        let _ = self.server.wait();
    }
}

fn is_root() -> Result<bool> {
    Ok(fs::metadata("/proc/self")?.uid() == 0)
}

/// A program of PostgreSQL's, which refuses to be run by root, that ends with this thread.
fn unprivileged(program: &str) -> Result<Command> {
    let mut command = confined("setpriv");
    if is_root()? {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig", "QUIT"]).arg(Path::new(PROGRAMS).join(program));
    command.current_dir("/");
    Ok(command)
}

fn is_ready(socket: &Path) -> Result<bool> {
    let mut ready = Command::new(Path::new(PROGRAMS).join("pg_isready"));
    Ok(ready.args(["--quiet", "--host"]).arg(socket).status()?.success())
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
