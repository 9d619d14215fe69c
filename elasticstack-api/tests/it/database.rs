//! Where the control plane of a test keeps its state: a file of SQLite's, or a database of its own
//! on a PostgreSQL that the test starts.
//!
//! The variable [`CLUSTER`] names the directory of the socket of a PostgreSQL that runs: with it
//! every test takes a database there; what needs PostgreSQL anyway starts its own without it.

use std::env;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt as _, chown};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const CLUSTER: &str = "ELASTICSTACK_TEST_POSTGRES";
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
const USER: &str = "elasticstack";

/// Longer than a cluster takes to start on the slowest machine.
const GUARD: Duration = Duration::from_secs(120);

/// A database that no other test has. It goes with this.
pub(crate) enum TestDatabase {
    Postgres { socket: PathBuf, name: String, _cluster: Option<Cluster> },
    Sqlite(TempDir),
}

impl TestDatabase {
    /// One of the kind that this run is about.
    pub(crate) fn new() -> Self {
        match env::var_os(CLUSTER) {
            Some(socket) => Self::on(PathBuf::from(socket), None),
            None => Self::Sqlite(tempfile::tempdir().unwrap()),
        }
    }

    /// One on PostgreSQL, which is started if none runs.
    pub(crate) fn postgres() -> Self {
        if env::var_os(CLUSTER).is_some() {
            return Self::new();
        }
        let cluster = Cluster::start();
        Self::on(cluster.directory.path().to_owned(), Some(cluster))
    }

    pub(crate) fn on(socket: PathBuf, cluster: Option<Cluster>) -> Self {
        let name = format!("test_{}", Uuid::new_v4().simple());
        client("createdb", &socket, &[&name]);
        Self::Postgres { socket, name, _cluster: cluster }
    }

    pub(crate) fn url(&self) -> String {
        match self {
            Self::Postgres { socket, name, _cluster: _ } => {
                format!("postgres://{USER}@localhost/{name}?host={}", socket.display())
            }
            Self::Sqlite(directory) => {
                format!("sqlite:{}", directory.path().join("control.db").display())
            }
        }
    }
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        if let Self::Postgres { socket, name, _cluster } = self
            && !std::thread::panicking()
        {
            client("dropdb", socket, &["--force", name]);
        }
    }
}

/// A PostgreSQL of its own in a directory of its own, without a network. It ends with this, or
/// with the thread that started it.
pub(crate) struct Cluster {
    pub(crate) directory: TempDir,
    server: Child,
}

impl Cluster {
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path();
        if is_root() {
            let id = |of: &str| {
                let output = Command::new("id").args([of, "postgres"]).output().unwrap();
                String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
            };
            chown(path, Some(id("-u")), Some(id("-g"))).unwrap();
        }
        let data = path.join("data");
        let made = unprivileged("initdb")
            .args(["--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C"])
            .args(["--username", USER, "--pgdata"])
            .arg(&data)
            .output()
            .unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let log = path.join("log");
        let server = unprivileged("postgres")
            .arg("-D")
            .arg(&data)
            .arg("-k")
            .arg(path)
            .args(["-h", "", "-F", "-N", "300"])
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut cluster = Self { directory, server };
        let begun = Instant::now();
        while !is_ready(cluster.directory.path()) {
            let ended = cluster.server.try_wait().unwrap();
            assert!(
                ended.is_none() && begun.elapsed() < GUARD,
                "it does not start: {ended:?}, {}",
                fs::read_to_string(&log).unwrap()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        cluster
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        // At once, without a word to who is connected, and without a trace.
        let end = format!("kill -QUIT {}", self.server.id());
        let _ = Command::new("sh").args(["-c", &end]).status();
        let _ = self.server.wait();
    }
}

fn is_root() -> bool {
    fs::metadata("/proc/self").unwrap().uid() == 0
}

/// A program of PostgreSQL's, which refuses to be run by root, that ends with this thread.
fn unprivileged(program: &str) -> Command {
    let mut command = Command::new("setpriv");
    if is_root() {
        command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups"]);
    }
    command.args(["--pdeathsig", "QUIT"]).arg(Path::new(PROGRAMS).join(program));
    command.current_dir("/");
    command
}

fn is_ready(socket: &Path) -> bool {
    let ready = Command::new(Path::new(PROGRAMS).join("pg_isready"))
        .args(["--quiet", "--host"])
        .arg(socket)
        .status();
    ready.unwrap().success()
}

pub(crate) fn client(program: &str, socket: &Path, arguments: &[&str]) {
    let done = Command::new(Path::new(PROGRAMS).join(program))
        .args(["--username", USER, "--host"])
        .arg(socket)
        .args(arguments)
        .output()
        .unwrap();
    assert!(done.status.success(), "{program}: {}", String::from_utf8_lossy(&done.stderr));
}
