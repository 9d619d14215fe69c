//! A PostgreSQL that is thrown away: Debian's, in a directory of its own, without a network.
//!
//! What is in it is read with its own program, which knows nothing of ours.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";

/// Of the one role and the one database.
const NAME: &str = "elasticstack";

/// Longer than PostgreSQL takes to start on the slowest machine.
const GUARD: Duration = Duration::from_secs(120);

/// A running PostgreSQL with one empty database. It ends with this, or with the thread that started it.
#[derive(Debug)]
pub struct Postgres {
    socket: Socket,
    server: Child,
}

/// Where a PostgreSQL is reached.
#[derive(Debug, Clone)]
pub struct Socket(PathBuf);

impl Postgres {
    /// Starts one in `directory`, which is empty and which everybody can reach: PostgreSQL refuses
    /// to be run by root, who gives the directory away. `launcher` is what is to run it, such as
    /// `taskset` with its arguments, and `options` are the server's own.
    ///
    /// # Errors
    /// It is not installed, or does not start.
    pub fn start(directory: &Path, launcher: &[&str], options: &[&str]) -> Result<Self> {
        let is_root = fs::metadata("/proc/self")?.uid() == 0;
        if is_root {
            let id = |of: &str| -> Result<u32> {
                let id = captured(Command::new("id").args([of, "postgres"]))?;
                Ok(String::from_utf8(id)?.trim().parse()?)
            };
            chown(directory, Some(id("-u")?), Some(id("-g")?))?;
        }
        let unprivileged = |program: &str| {
            let words = launcher.iter().copied().chain(["setpriv", "--pdeathsig", "QUIT"]);
            let role = ["--reuid=postgres", "--regid=postgres", "--clear-groups"];
            let words = words.chain(role.into_iter().filter(|_| is_root));
            // `env` runs what is named behind it, so there is a first word without a launcher too.
            let mut command = Command::new("env");
            command.args(words).arg(Path::new(PROGRAMS).join(program)).current_dir("/");
            command
        };
        let data = directory.join("data");
        captured(
            unprivileged("initdb")
                .args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"])
                .args(["--username", NAME, "--pgdata"])
                .arg(&data),
        )?;
        let log = directory.join("log");
        let server = unprivileged("postgres")
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(directory)
            .args(["-h", ""])
            .args(options)
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .context("start PostgreSQL")?;
        let mut postgres = Self { socket: Socket(directory.to_owned()), server };
        postgres.wait(&log)?;
        captured(postgres.socket.client("createdb").arg(NAME))?;
        Ok(postgres)
    }

    /// Waits until it takes connections.
    fn wait(&mut self, log: &Path) -> Result<()> {
        let began = Instant::now();
        while !self.socket.client("pg_isready").arg("--quiet").status()?.success() {
            let ended = self.server.try_wait()?;
            if ended.is_some() || began.elapsed() > GUARD {
                bail!("PostgreSQL does not start: {}", fs::read_to_string(log)?);
            }
            thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Where it is reached.
    #[must_use]
    pub const fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The number of its first process, whose children are the others.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.server.id()
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        // At once, without a word to who is connected.
        let end = format!("kill -QUIT {}", self.server.id());
        let _ = Command::new("sh").args(["-c", &end]).status();
        let _ = self.server.wait();
    }
}

impl Socket {
    /// The database's URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("postgres://{NAME}@localhost/{NAME}?host={}", self.0.display())
    }

    /// The rows that answer a question.
    ///
    /// # Errors
    /// The question is none, or PostgreSQL does not run.
    pub fn ask(&self, question: &str) -> Result<Vec<Value>> {
        let question =
            format!("SELECT COALESCE(json_agg(row_to_json(t)), '[]') FROM ({question}) t");
        let mut psql = self.client("psql");
        psql.args(["--no-psqlrc", "--tuples-only", "--no-align", "--command", &question, NAME]);
        let answer = captured(&mut psql)?;
        serde_json::from_slice(&answer).context("read what PostgreSQL answers")
    }

    fn client(&self, program: &str) -> Command {
        let mut command = Command::new(Path::new(PROGRAMS).join(program));
        command.args(["--username", NAME, "--host"]).arg(&self.0);
        command
    }
}

fn captured(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("start {command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?} failed: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(output.stdout)
}
