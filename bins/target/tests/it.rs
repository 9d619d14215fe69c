//! The process that lends, really: lent by, killed, outlived, and held to the kit.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use elasticstack_core::block::{
    BlockStore, Borrowing, DriveSpec, Lend, LendId, LendSpec, Volume, Writing,
};
use elasticstack_core::conformance::{BlockStoreFixture, LendFixture, Outcome, Violation};
use elasticstack_core::prelude::*;
use elasticstack_host::guests::Scope;
use elasticstack_host::iscsi::initiator::Initiator;
use elasticstack_host::lend::{ProcessConfig, ProcessLender};
use elasticstack_host::store::{ArrayCapacity, DirectoryArray, DirectoryStore, KnownArrays};
use futures_core::future::BoxFuture;
use rustix::process::{Pid, Signal};
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};
use tokio::time::timeout;

/// The longest that anything here may take.
const GUARD: Duration = Duration::from_secs(60);

fn config(dir: &Path) -> ProcessConfig {
    ProcessConfig {
        program: env!("CARGO_BIN_EXE_elasticstack-target").into(),
        dir: dir.join("lend"),
        listen: SocketAddr::from(([127, 0, 0, 1], 0)),
        user: Some("nobody".to_owned()),
        scope: Scope::Session,
    }
}

/// A store of one array in a directory.
fn store(dir: &Path) -> DirectoryStore {
    let array = DirectoryArray {
        array: "a77a0000-0000-4000-8000-000000000001".parse().unwrap(),
        name: "md0".to_owned(),
        path: dir.join("array"),
        capacity: ArrayCapacity::Fixed(Bytes::from_mib(16)),
    };
    DirectoryStore::open(KnownArrays::read(dir).unwrap(), vec![array]).unwrap()
}

fn lend() -> LendSpec {
    LendSpec {
        lend: LendId {
            drive: "5b0e3c52-0000-4000-8000-000000000001".parse().unwrap(),
            epoch: Epoch(1),
        },
        borrower: "5b0e3c52-0000-4000-8000-000000000002".parse().unwrap(),
        writing: Writing::Allowed,
        secret: Secret::new("a-secret-of-some"),
    }
}

/// The drive of [`lend`], which is made if it is not there.
async fn drive(store: &DirectoryStore) -> Arc<dyn Volume> {
    let spec = DriveSpec {
        drive: lend().lend.drive,
        array: "a77a0000-0000-4000-8000-000000000001".parse().unwrap(),
        account: "acc00000-0000-4000-8000-000000000001".parse().unwrap(),
        size: Bytes::from_mib(1),
        generation: Generation::new(Era(1), 1),
    };
    store.create(&spec).await.unwrap();
    store.open(spec.drive, Epoch(1)).await.unwrap()
}

async fn borrow(lender: &dyn Lend) -> Result<Initiator> {
    let LendSpec { lend, borrower, secret, .. } = lend();
    Initiator::login(&Borrowing { portal: lender.portal(), lend, borrower, secret }).await
}

/// The pid of the process that lends, by the socket in its arguments.
fn target_of(dir: &Path) -> Option<Pid> {
    let socket = dir.join("lend/socket");
    std::fs::read_dir("/proc").unwrap().find_map(|entry| {
        let pid = entry.ok()?.file_name().to_str()?.parse().ok()?;
        let arguments = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let wanted = socket.as_os_str().as_encoded_bytes();
        let is_it = arguments.split(|byte| *byte == 0).any(|argument| argument == wanted);
        Pid::from_raw(pid).filter(|_| is_it)
    })
}

fn kill(pid: Pid) {
    rustix::process::kill_process(pid, Signal::KILL).unwrap();
}

/// A directory whose process is killed with it.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Some(pid) = target_of(self.path()) {
            kill(pid);
        }
    }
}

/// Writes to the first block, over and over, a number that grows. Ends with the first write that
/// is refused.
struct Writer {
    task: tokio::task::JoinHandle<Error>,
    /// The last number that was told to be written.
    told: Arc<AtomicU64>,
}

impl Writer {
    fn start(borrowed: Initiator) -> Self {
        let told = Arc::new(AtomicU64::new(0));
        let own = Arc::clone(&told);
        let task = tokio::spawn(async move {
            for number in 1_u64.. {
                let block = number.to_le_bytes().repeat(64);
                if let Err(error) = borrowed.write_at(Bytes::ZERO, block.into()).await {
                    return error;
                }
                own.store(number, Ordering::SeqCst);
            }
            unreachable!()
        });
        Self { task, told }
    }

    fn told(&self) -> u64 {
        self.told.load(Ordering::SeqCst)
    }

    async fn goes_on(&self) {
        let before = self.told();
        let later = async {
            while self.told() < before + 10 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        timeout(GUARD, later).await.expect("no write ends any more");
    }

    /// The last number that was told to be written, and why no more were.
    async fn ended(self) -> (u64, Error) {
        let error = timeout(GUARD, self.task).await.expect("it writes on").unwrap();
        (self.told.load(Ordering::SeqCst), error)
    }
}

/// The number that is on the drive.
async fn number(volume: &dyn Volume) -> u64 {
    let mut block = [0; 512];
    volume.read_at(Bytes::ZERO, &mut block).await.unwrap();
    let (first, rest) = block.split_first_chunk::<8>().unwrap();
    assert!(rest.chunks(8).all(|chunk| chunk == first), "a torn block");
    u64::from_le_bytes(*first)
}

#[tokio::test]
async fn a_withdrawal_returns_when_the_last_write_has_landed() {
    let scratch = Scratch::new();
    let store = store(scratch.path());
    let volume = drive(&store).await;
    let lender = ProcessLender::open(config(scratch.path())).await.unwrap();
    for _ in 0..20 {
        lender.lend(&lend(), Arc::clone(&volume)).await.unwrap();
        let writer = Writer::start(borrow(&lender).await.unwrap());
        writer.goes_on().await;
        lender.withdraw(lend().lend).await.unwrap();
        let landed = number(&*volume).await;
        let (told, error) = writer.ended().await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!((told..=told + 1).contains(&landed), "told {told}, and {landed} landed");
        assert_eq!(number(&*volume).await, landed, "a write landed after the withdrawal");
        assert_eq!(borrow(&lender).await.unwrap_err().kind(), ErrorKind::NotFound);
    }
}

#[tokio::test]
async fn when_the_process_is_killed_nothing_is_lent_and_what_was_told_is_on_the_drive() {
    let scratch = Scratch::new();
    let store = store(scratch.path());
    let volume = drive(&store).await;
    let lender = ProcessLender::open(config(scratch.path())).await.unwrap();
    lender.lend(&lend(), Arc::clone(&volume)).await.unwrap();
    let writer = Writer::start(borrow(&lender).await.unwrap());
    writer.goes_on().await;
    kill(target_of(scratch.path()).unwrap());
    let (told, error) = writer.ended().await;
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert_eq!(lender.lent().await.unwrap(), []);
    let landed = number(&*volume).await;
    assert!((told..=told + 1).contains(&landed), "told {told}, and {landed} is there");
    lender.lend(&lend(), Arc::clone(&volume)).await.unwrap();
    assert_eq!(number(&borrow(&lender).await.unwrap()).await, landed);
}

/// Where [`an_agent_lends_and_waits`] is to lend, if it is run by another test.
const AGENT_DIR: &str = "ELASTICSTACK_TEST_AGENT_DIR";

/// The agent's side in a process of its own; without a directory that it is told, it lends and
/// withdraws in one of its own.
#[tokio::test]
async fn an_agent_lends_and_waits() {
    let told = std::env::var_os(AGENT_DIR);
    let scratch = told.is_none().then(Scratch::new);
    let dir =
        scratch.as_ref().map_or_else(|| told.clone().unwrap().into(), |own| own.path().to_owned());
    let store = store(&dir);
    let lender = ProcessLender::open(config(&dir)).await.unwrap();
    lender.lend(&lend(), drive(&store).await).await.unwrap();
    assert_eq!(lender.lent().await.unwrap(), [lend().lend]);
    if scratch.is_none() {
        std::fs::write(dir.join("lends"), "").unwrap();
        std::future::pending::<()>().await;
    }
    lender.withdraw(lend().lend).await.unwrap();
}

fn start_agent(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "an_agent_lends_and_waits"])
        .env(AGENT_DIR, dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[tokio::test]
async fn the_lends_of_an_agent_that_is_killed_go_on_and_its_next_life_finds_them() {
    let scratch = Scratch::new();
    let mut agent = start_agent(scratch.path());
    while !scratch.path().join("lends").exists() {
        assert!(agent.try_wait().unwrap().is_none(), "the agent has ended");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let before = target_of(scratch.path()).unwrap();
    agent.kill().unwrap();
    agent.wait().unwrap();
    let lender = ProcessLender::open(config(scratch.path())).await.unwrap();
    assert_eq!(target_of(scratch.path()), Some(before), "it is the same process");
    assert_eq!(lender.lent().await.unwrap(), [lend().lend]);
    let writer = Writer::start(borrow(&lender).await.unwrap());
    writer.goes_on().await;
    let store = store(scratch.path());
    let volume = drive(&store).await;
    lender.lend(&lend(), Arc::clone(&volume)).await.unwrap();
    writer.goes_on().await;
    lender.withdraw(lend().lend).await.unwrap();
    let (told, _) = writer.ended().await;
    assert!((told..=told + 1).contains(&number(&*volume).await));
}

#[tokio::test]
async fn the_process_has_no_more_rights_than_it_needs() {
    let scratch = Scratch::new();
    let _lender = ProcessLender::open(config(scratch.path())).await.unwrap();
    let pid = target_of(scratch.path()).unwrap().as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(&format!("{name}:")));
        line.unwrap().split_whitespace().collect::<Vec<_>>()
    };
    assert_eq!(field("NoNewPrivs"), ["1"]);
    assert!(["CapEff", "CapPrm"].iter().all(|set| field(set) == ["0000000000000000"]), "{status}");
    let users = field("Uid");
    assert!(users.iter().all(|user| *user != "0" && user == &users[0]), "{users:?}");
    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).unwrap();
    let core = limits.lines().find(|line| line.starts_with("Max core")).unwrap();
    assert!(core.split_whitespace().filter(|word| *word == "0").count() == 2, "{core}");
    let socket = std::fs::metadata(scratch.path().join("lend/socket")).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&socket.permissions()) & 0o777, 0o600);
}

#[tokio::test]
async fn whatever_is_said_to_the_process_it_goes_on() {
    let scratch = Scratch::new();
    let lender = ProcessLender::open(config(scratch.path())).await.unwrap();
    for line in [
        &b"{\"ask\":\"dance\"}\n"[..],
        b"{\"ask\":\"withdraw\",\"target\":\"iqn.none\"}\n",
        b"{\"ask\":\"lend\",\"target\":\"\",\"borrower\":\"\",\"read_only\":1,\"secret\":\"\"}\n",
        b"\xff\0\n",
        b"\n",
    ] {
        let mut stream = UnixStream::connect(scratch.path().join("lend/socket")).unwrap();
        stream.write_all(line).unwrap();
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).unwrap();
        assert!(answer.starts_with("{\"answer\":\"failed\",\"code\":"), "{answer}");
    }
    // One that does not end is hung up on.
    let mut stream = UnixStream::connect(scratch.path().join("lend/socket")).unwrap();
    while stream.write_all(&[b'x'; 4096]).is_ok() {}
    assert_eq!(lender.lent().await.unwrap(), []);
}

/// The process over a directory store, with our initiator as the borrower.
struct Process {
    runtime: Runtime,
    scratch: Scratch,
}

impl Process {
    fn new() -> Self {
        let runtime = Builder::new_current_thread().enable_all().build().unwrap();
        Self { runtime, scratch: Scratch::new() }
    }
}

#[async_trait]
impl BlockStoreFixture for Process {
    async fn start(&self) -> Result<Arc<dyn BlockStore>> {
        Ok(Arc::new(store(self.scratch.path())))
    }

    // What the kernel has taken it keeps: no nearer to a power cut without a machine to cut it off.
    async fn crash(&self, store: Arc<dyn BlockStore>) -> Result<()> {
        drop(store);
        Ok(())
    }

    fn block_on(
        &self,
        check: BoxFuture<'_, Result<Outcome, Violation>>,
    ) -> Result<Outcome, Violation> {
        self.runtime.block_on(check)
    }
}

#[async_trait]
impl LendFixture for Process {
    async fn lender(&self) -> Result<Arc<dyn Lend>> {
        Ok(Arc::new(ProcessLender::open(config(self.scratch.path())).await?))
    }

    async fn restart(&self, lender: Arc<dyn Lend>) -> Result<Arc<dyn Lend>> {
        drop(lender);
        self.lender().await
    }

    async fn borrow(&self, borrowing: &Borrowing) -> Result<Arc<dyn Volume>> {
        Ok(Arc::new(Initiator::login(borrowing).await?))
    }
}

mod kit {
    use super::Process;

    elasticstack_core::lend_conformance! { process_lender, Process::new }
}
