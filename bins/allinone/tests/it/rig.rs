//! The program under test, run as its user runs it, and a look at what it leaves behind.
//!
//! Owns one directory that everything of a test is in: data, scratch files, logs. Whatever process
//! has to do with that directory is the test's, and is killed when the test ends.

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

use elasticstack_core::client::{Client, HyperTransport};
use elasticstack_core::secret::Secret;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;
use rustix::process::{Pid, Signal, kill_process};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// A guard against a hang: nothing that is waited for takes this long on the slowest machine.
pub(crate) const GUARD: Duration = Duration::from_secs(300);

/// An address with any free port.
pub(crate) const FREE: &str = "127.0.0.1:0";

const PROGRAM: &str = env!("CARGO_BIN_EXE_elasticstack-allinone");

/// The manifest of the real `tiny`.
pub(crate) fn tiny() -> PathBuf {
    image("tiny")
}

/// The manifest of a real image.
pub(crate) fn image(name: &str) -> PathBuf {
    let home = std::env::var_os("HOME").expect("HOME is set");
    let images = Path::new(&home).join(".cache/elasticstack/images");
    let manifest = images.join(name).with_extension("json");
    assert!(
        manifest.exists(),
        "{} is missing: build it with `cargo xtask image {name}`",
        manifest.display()
    );
    manifest
}

/// The directory of one test.
pub(crate) struct Rig {
    root: TempDir,
    mounts: String,
}

impl Rig {
    pub(crate) fn new() -> Self {
        let root = tempfile::Builder::new().prefix("es-").tempdir().unwrap();
        for name in ["data", "tmp"] {
            fs::create_dir(root.path().join(name)).unwrap();
        }
        Self { root, mounts: mounts() }
    }

    pub(crate) fn data_dir(&self) -> PathBuf {
        self.root.path().join("data")
    }

    /// The manifest of a standard drive called `tiny` that is nothing but zeros.
    pub(crate) fn zeros(&self) -> PathBuf {
        self.zeros_packed(4 << 20, flate2::Compression::fast())
    }

    /// The same, of this many bytes, packed so.
    pub(crate) fn zeros_packed(&self, raw: u32, packed: flate2::Compression) -> PathBuf {
        let manifest = self.root.path().join("zeros.json");
        let mut gzip = Vec::new();
        let zeros = std::io::repeat(0).take(raw.into());
        flate2::read::GzEncoder::new(zeros, packed).read_to_end(&mut gzip).unwrap();
        let sha256: String =
            Sha256::digest(&gzip).iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(manifest.with_extension("gz"), gzip).unwrap();
        let text = serde_json::json!({
            "drive": "3f8a6c1e-5b0d-4e7a-9c42-74696e790002",
            "name": "tiny but zeros",
            "media": "disk",
            "format": "gzip",
            "rawsize": raw,
            "sha256": sha256,
        });
        fs::write(&manifest, text.to_string()).unwrap();
        manifest
    }

    /// The program, with scratch files in a place of its own, on any free ports.
    pub(crate) fn command(&self, image: &Path) -> Command {
        self.command_on(FREE, FREE, image)
    }

    /// The same, with its API and its panel on these addresses.
    pub(crate) fn command_on(&self, api: &str, panel: &str, image: &Path) -> Command {
        let mut command = Command::new(PROGRAM);
        command
            .env("TMPDIR", self.root.path().join("tmp"))
            .env_remove("RUST_LOG")
            .stdin(Stdio::null())
            .args(["--api", api, "--panel", panel, "--image"])
            .arg(image);
        command
    }

    /// Starts the program on the data directory and waits until it is ready.
    pub(crate) fn up(&self, image: &Path, flags: &[&str]) -> Product {
        let mut command = self.command(image);
        let mut product = self.spawn(command.arg("--data-dir").arg(self.data_dir()).args(flags));
        product.line("READY");
        product
    }

    pub(crate) fn spawn(&self, command: &mut Command) -> Product {
        let log = tempfile::Builder::new().prefix("log-").tempfile_in(self.root.path()).unwrap();
        let (log, path) = log.keep().unwrap();
        let mut child = command.stdout(Stdio::piped()).stderr(log).spawn().unwrap();
        let (send, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                let _ = send.send(line);
            }
        });
        let env = self.data_dir().join("demo.env");
        Product { child, log: path, lines, env }
    }

    /// Pid and arguments of every process that works in this directory or was told of it.
    pub(crate) fn processes(&self) -> Vec<(i32, String)> {
        let root = self.root.path().to_str().unwrap();
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let ours = entries.filter_map(|entry| {
            let pid: i32 = entry.file_name().to_str()?.parse().ok()?;
            let arguments = fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let arguments = String::from_utf8_lossy(&arguments).replace('\0', " ");
            let works_here =
                fs::read_link(entry.path().join("cwd")).is_ok_and(|cwd| cwd.starts_with(root));
            (works_here || arguments.contains(root)).then_some((pid, arguments))
        });
        ours.collect()
    }

    /// Pid and start time of every guest's process.
    pub(crate) fn guests(&self) -> Vec<(i32, String)> {
        let guests = self.processes().into_iter();
        let guests = guests.filter(|(_, arguments)| arguments.starts_with("qemu-system-x86_64 "));
        let mut guests: Vec<_> = guests
            .map(|(pid, _)| {
                let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
                let after_name = stat.rsplit(')').next().unwrap();
                (pid, after_name.split_whitespace().nth(19).unwrap().to_owned())
            })
            .collect();
        guests.sort();
        guests
    }

    /// No process, no mount, and no scratch file.
    #[track_caller]
    pub(crate) fn assert_nothing_is_left(&self) {
        let processes = self.processes();
        assert!(processes.is_empty(), "{processes:?}");
        assert_eq!(mounts(), self.mounts);
        let scratch = fs::read_dir(self.root.path().join("tmp")).unwrap();
        let scratch: Vec<_> = scratch.map(|entry| entry.unwrap().path()).collect();
        assert!(scratch.is_empty(), "{scratch:?}");
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        for (pid, _) in self.processes() {
            let _ = kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL);
        }
    }
}

fn mounts() -> String {
    fs::read_to_string("/proc/self/mounts").unwrap()
}

/// The program, running. Dropped, it runs on until its [`Rig`] goes.
pub(crate) struct Product {
    child: Child,
    log: PathBuf,
    lines: Receiver<String>,
    env: PathBuf,
}

impl Product {
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for a line of output that has these words.
    #[track_caller]
    pub(crate) fn line(&mut self, words: &str) -> String {
        let deadline = Instant::now() + GUARD;
        let mut seen = Vec::new();
        loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) if line.contains(words) => return line,
                Ok(line) => seen.push(line),
                Err(why) => panic!("no {words:?} ({why}) in {seen:?}; log: {}", self.log()),
            }
        }
    }

    /// One line of `demo.env`.
    #[track_caller]
    pub(crate) fn variable(&self, name: &str) -> String {
        let env = fs::read_to_string(&self.env).unwrap();
        let mut lines = env.lines().filter_map(|line| line.split_once('='));
        let (_, value) = lines.find(|(found, _)| *found == name).unwrap();
        value.to_owned()
    }

    /// The demo account's client.
    pub(crate) fn client(&self) -> Client<HyperTransport> {
        self.client_of("EHAUTH")
    }

    /// The client of the account that this line of `demo.env` is of.
    pub(crate) fn client_of(&self, credentials: &str) -> Client<HyperTransport> {
        let auth = self.variable(credentials);
        let (account, key) = auth.split_once(':').unwrap();
        let transport = HyperTransport::new(&self.variable("EHURI")).unwrap();
        Client::new(transport, account.parse().unwrap(), &Secret::new(key)).unwrap()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Asks it to end, and expects that it does so well and without a word in its log.
    #[track_caller]
    pub(crate) fn terminate(self) {
        self.signal(Signal::TERM);
        let ended = self.ended();
        assert!(ended.status.success(), "{}: {}", ended.status, ended.log);
        assert_eq!(ended.log, "", "the shutdown is quiet");
    }

    /// Ends it as a crash does.
    #[track_caller]
    pub(crate) fn kill(self) {
        self.signal(Signal::KILL);
        assert_eq!(self.ended().status.signal(), Some(Signal::KILL.as_raw()));
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn ended(mut self) -> Ended {
        let deadline = Instant::now() + GUARD;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                let output = self.lines.iter().collect::<Vec<_>>().join("\n");
                return Ended { status, output, log: self.log() };
            }
            assert!(Instant::now() < deadline, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }
}

/// What the program left in words.
pub(crate) struct Ended {
    pub(crate) status: ExitStatus,
    /// The lines of output that nobody waited for.
    pub(crate) output: String,
    pub(crate) log: String,
}

/// Waits until `holds` answers true.
pub(crate) async fn until<Fut: Future<Output = bool>>(what: &str, mut holds: impl FnMut() -> Fut) {
    let deadline = Instant::now() + GUARD;
    while !holds().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// One value of an object's info.
pub(crate) async fn info(
    client: &Client<HyperTransport>,
    call: Call,
    id: &str,
    key: &str,
) -> Option<String> {
    let info = client.one(call, &[id], &Record::new()).await.unwrap();
    info.value(key).map(str::to_owned)
}

/// Waits until a server's serial log has these words.
pub(crate) async fn serial(client: &Client<HyperTransport>, server: &str, words: &str) {
    let log = async || client.read(Call::ServerSerial, &[server]).await.unwrap();
    let has = async || String::from_utf8_lossy(&log().await).contains(words);
    until(&format!("{words:?} on the serial port"), has).await;
}

/// The whole of a small drive.
pub(crate) async fn read(client: &Client<HyperTransport>, drive: &str) -> Vec<u8> {
    let size = info(client, Call::DriveInfo, drive, "size").await.unwrap();
    client.read(Call::DriveRead, &[drive, "0", &size]).await.unwrap().into()
}
