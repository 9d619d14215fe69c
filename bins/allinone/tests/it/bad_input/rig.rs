//! A running product on a directory of its own, two customers, and everything there is to see of
//! it from outside: so that a test can say that nothing has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::future::Future;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use elasticstack_bin_allinone::cloud::{Cloud, Guests, Options};
use elasticstack_core::biller::{
    Ack, Biller, Change, OpenBiller, Period, Statement, Usage, UsageId, Verdict,
};
use elasticstack_core::prelude::*;
use elasticstack_host::store::ArrayCapacity;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use uuid::Uuid;

use super::wire::{Answer, Ask};

/// What the one array holds: small, and without over-commit.
pub(super) const CAPACITY: Bytes = Bytes::from_mib(96);

/// How long anything may take until a test gives up.
const GUARD: Duration = Duration::from_secs(120);

/// A running product and its two customers.
pub(super) struct Rig {
    /// The customer whose requests are bad.
    pub(super) customer: Customer,
    /// Somebody else.
    pub(super) stranger: Customer,
    pub(super) data_dir: TempDir,
    cloud: Cloud,
    ledger: Arc<Ledger>,
}

/// One account, as its owner speaks to the product.
#[derive(Debug, Clone)]
pub(super) struct Customer {
    address: std::net::SocketAddr,
    basic: String,
}

/// All that can be seen from outside. Two that are equal mean: nothing has happened.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// What the customers' lists say, claims included.
    lists: Vec<String>,
    /// Each file of the array: its length, what it occupies, and when it was last written.
    files: BTreeMap<String, (u64, u64, i64, i64)>,
    /// Each process that runs a guest of this product.
    guests: BTreeSet<String>,
    /// Each interval of usage.
    usage: BTreeMap<UsageId, String>,
}

/// Starts the product, lets `test` loose on it, and stops it whatever came of that.
pub(super) async fn with_rig<F, Fut>(test: F)
where
    F: FnOnce(Arc<Rig>) -> Fut,
    Fut: Future<Output = ()> + Send + 'static,
{
    let data_dir = tempfile::tempdir().unwrap();
    let ledger = Arc::new(Ledger::default());
    let options = Options { capacity: ArrayCapacity::Fixed(CAPACITY), biller: ledger.clone() };
    let cloud = Cloud::start_with(data_dir.path(), options).await.unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let identity = cloud.identity();
    let customer = Customer::new(address, identity.account, &identity.key);
    let (other, key) = (AccountId::from_uuid(Uuid::now_v7()), Secret::new(Uuid::new_v4()));
    cloud.app().account_create(other, &"stranger".parse().unwrap(), "", &key).await.unwrap();
    let stranger = Customer::new(address, other, &key);
    let rig = Arc::new(Rig { customer, stranger, data_dir, cloud, ledger });

    let (done, stopped) = oneshot::channel::<()>();
    let testing = tokio::spawn(test(Arc::clone(&rig)));
    let tested = async {
        let outcome = testing.await;
        drop(done);
        outcome
    };
    let serving = rig.cloud.serve(listener, async move { drop(stopped.await) });
    let (served, outcome) = tokio::join!(serving, tested);
    served.unwrap();
    let Rig { cloud, data_dir, .. } = Arc::into_inner(rig).expect("the test is over");
    cloud.stop(Guests::Stop).await.unwrap();
    drop(data_dir);
    if let Err(failure) = outcome {
        std::panic::resume_unwind(failure.into_panic());
    }
}

impl Rig {
    /// Sends a request of the customer whose requests are bad.
    pub(super) async fn send(&self, ask: &Ask) -> Answer {
        self.customer.send(ask).await
    }

    /// What is to be seen now.
    pub(super) async fn seen(&self) -> Seen {
        let mut lists = Vec::new();
        for customer in [&self.customer, &self.stranger] {
            for path in ["/drives/info", "/servers/info", "/profile/info"] {
                lists.push(customer.send(&Ask::new(path)).await.expect(200).text());
            }
        }
        self.cloud.app().forward_usage().await.unwrap();
        Seen {
            lists,
            files: files(&self.data_dir.path().join("array")),
            guests: guests(self.data_dir.path()),
            usage: self.ledger.intervals(),
        }
    }

    /// Repeats a request of the customer's until its answer is as wished.
    pub(super) async fn retry(&self, ask: &Ask, wished: impl Fn(&Answer) -> bool) -> Answer {
        let begun = Instant::now();
        loop {
            let answer = self.send(ask).await;
            if wished(&answer) {
                return answer;
            }
            assert!(begun.elapsed() < GUARD, "{ask:?} stays {}: {}", answer.status, answer.text());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    #[track_caller]
    pub(super) fn assert_unchanged(before: &Seen, after: &Seen, what: &str) {
        assert_eq!(before, after, "{what}: something was done");
    }

    /// A drive of the customer's.
    pub(super) async fn drive(&self, mib: u32) -> String {
        self.customer.drive(mib).await
    }

    /// A drive's content as it lies on the array.
    pub(super) fn content(&self, drive: &str) -> Vec<u8> {
        fs::read(self.data_dir.path().join(format!("array/drives/{drive}.raw"))).unwrap()
    }
}

impl Seen {
    /// Asserts that two are equal but for what is said of one drive (`failed`) and for its bytes,
    /// which occupy no more than they did.
    #[track_caller]
    pub(super) fn assert_same_but_drive(&self, after: &Self, drive: &str, what: &str) {
        let without = |seen: &Self| {
            let lists = seen.lists.iter().map(|list| {
                list.lines().filter(|line| !line.starts_with("failed ")).collect::<Vec<_>>()
            });
            // A drive's record beside its bytes counts who has opened it.
            let files = seen.files.iter().map(|(path, written)| {
                (path, Some(written).filter(|_| path.ends_with(".raw") && !path.contains(drive)))
            });
            format!("{:#?}\n{:#?}", lists.collect::<Vec<_>>(), files.collect::<Vec<_>>())
        };
        assert_eq!(without(self), without(after), "{what}: something else was done");
        assert_eq!((&self.guests, &self.usage), (&after.guests, &after.usage), "{what}");
        let target = after.files.iter().filter(|(path, _)| path.ends_with(&format!("{drive}.raw")));
        for (path, (length, occupied, ..)) in target {
            let (before, at_most, ..) = self.files[path];
            assert_eq!(*length, before, "{what}: {path} has another length");
            assert!(*occupied <= at_most, "{what}: {path} occupies {occupied} blocks");
        }
    }
}

impl Customer {
    fn new(address: std::net::SocketAddr, account: AccountId, key: &Secret) -> Self {
        let basic = STANDARD.encode(format!("{account}:{}", key.expose()));
        Self { address, basic: format!("Basic {basic}") }
    }

    /// Sends a request with this customer's credentials.
    pub(super) async fn send(&self, ask: &Ask) -> Answer {
        tokio::time::timeout(GUARD, ask.send(self.address, &self.basic))
            .await
            .unwrap_or_else(|_| panic!("no answer to {ask:?}"))
    }

    /// Makes a drive of zeros.
    pub(super) async fn drive(&self, mib: u32) -> String {
        let ask = Ask::new("/drives/create").body(format!("name d\nsize {mib}M"));
        self.send(&ask).await.expect(200).value("drive")
    }

    /// Writes bytes to a drive.
    pub(super) async fn write(&self, drive: &str, data: &[u8]) {
        for (index, piece) in data.chunks(32 << 20).enumerate() {
            let path = format!("/drives/{drive}/write/{}", index * (32 << 20));
            self.send(&Ask::new(path).body(piece)).await.expect(204);
        }
    }
}

fn files(array: &Path) -> BTreeMap<String, (u64, u64, i64, i64)> {
    let mut found = BTreeMap::new();
    let mut left = vec![array.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            if about.is_dir() {
                left.push(path);
            } else {
                let written = (about.len(), about.blocks(), about.mtime(), about.mtime_nsec());
                found.insert(path.display().to_string(), written);
            }
        }
    }
    found
}

/// The processes that work in this product's directory of servers.
fn guests(data_dir: &Path) -> BTreeSet<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let at_work = processes.filter(|process| {
        fs::read_link(process.path().join("cwd"))
            .is_ok_and(|cwd| cwd.starts_with(data_dir.join("servers")))
    });
    at_work.map(|process| process.file_name().to_string_lossy().into_owned()).collect()
}

/// A biller that remembers what it took.
#[derive(Debug, Default)]
struct Ledger {
    open: OpenBiller,
    taken: Mutex<BTreeMap<UsageId, String>>,
}

impl Ledger {
    fn intervals(&self) -> BTreeMap<UsageId, String> {
        self.taken.lock().unwrap().clone()
    }
}

#[async_trait]
impl Biller for Ledger {
    async fn authorize(&self, change: &Change) -> Result<Verdict> {
        self.open.authorize(change).await
    }

    async fn ingest(&self, usage: &[Usage]) -> Result<Ack> {
        let mut taken = self.taken.lock().unwrap();
        for item in usage {
            taken.insert(item.id, format!("{item:?}"));
        }
        Ok(Ack { taken: usage.iter().map(|item| item.id).collect() })
    }

    async fn statement(&self, account: AccountId, period: Period) -> Result<Statement> {
        self.open.statement(account, period).await
    }
}
