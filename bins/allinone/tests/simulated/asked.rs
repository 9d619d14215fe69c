//! What every changing call of the table is asked here, about objects that are there for it.

use std::io::Write as _;
use std::time::Duration;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use elasticstack_api::Server;
use elasticstack_core::block::{BlockStore as _, DriveSpec};
use elasticstack_core::prelude::*;
use elasticstack_core::wire::calls::{self, Body as Takes, CALLS, Call, Effect, Scope};
use elasticstack_core::wire::record::Record;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::Request;
use uuid::Uuid;

use crate::world::{Answer, CUSTOMER, GUARD, Who, World, operate, post, request, send};

/// What is asked: every call in one way, and some in others that go other ways through the program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    The(Call),
    /// That a drive be shared by many.
    ShareDrive,
    /// That a running server have one more drive.
    Plug,
    /// That a running server have one drive less.
    Unplug,
    /// For an address.
    TakeIp,
    /// That a server start whose drive another host has to lend.
    StartApart,
    /// That one stop which has borrowed its drive.
    StopApart,
    /// That one borrow another drive while it runs.
    PlugApart,
    /// That one give a borrowed drive back while it runs.
    UnplugApart,
}

impl Ask {
    pub(crate) const fn call(self) -> Call {
        match self {
            Self::The(call) => call,
            Self::ShareDrive => Call::DriveSet,
            Self::Plug | Self::Unplug | Self::PlugApart | Self::UnplugApart => Call::ServerSet,
            Self::StartApart => Call::ServerStart,
            Self::StopApart => Call::ServerStop,
            Self::TakeIp => Call::ResourceCreate,
        }
    }

    /// How many hosts it is about.
    pub(crate) const fn hosts(self) -> u64 {
        match self {
            Self::StartApart | Self::StopApart | Self::PlugApart | Self::UnplugApart => 2,
            _ => 1,
        }
    }

    /// Whether the call writes down what it is about to change; if not, it changes bytes of a drive.
    pub(crate) fn has_intent(self) -> bool {
        calls::route(self.call()).body != Takes::Bytes
    }
}

/// One request that changes something.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) ask: Ask,
    pub(crate) who: Who,
    pub(crate) path: String,
    pub(crate) body: Vec<u8>,
}

/// Every call that changes something, in every way.
pub(crate) fn changing() -> Vec<Ask> {
    let changing = CALLS.iter().filter(|route| route.effect == Effect::Changes);
    let others = [
        Ask::ShareDrive,
        Ask::Plug,
        Ask::Unplug,
        Ask::TakeIp,
        Ask::StartApart,
        Ask::StopApart,
        Ask::PlugApart,
        Ask::UnplugApart,
    ];
    changing.map(|route| Ask::The(route.call)).chain(others).collect()
}

/// Makes what a request is about, and says what is to be asked.
pub(crate) async fn prepare(world: &World, server: &Server, ask: Ask) -> Asked {
    let (path, body) = path_and_body(world, server, ask).await;
    let who = match calls::route(ask.call()).scope {
        Scope::Customer => Who::Customer,
        Scope::Operator => Who::Operator,
    };
    Asked { ask, who, path, body: body.into() }
}

async fn path_and_body(world: &World, server: &Server, ask: Ask) -> (String, String) {
    let on = |parameters: &[&str]| calls::path(ask.call(), parameters);
    let nothing = String::new;
    let call = match ask {
        Ask::The(call) => call,
        Ask::ShareDrive => {
            return (on(&[&drive(server, "one", b"").await]), "claim:type shared".to_owned());
        }
        Ask::Plug => {
            let (running, more) = (running(server).await, drive(server, "more", b"").await);
            return (on(&[&running]), format!("block:1 {more}"));
        }
        Ask::Unplug => return (on(&[&running(server).await]), "block:0".to_owned()),
        Ask::StartApart => return (on(&[&apart(world, server).await.borrower]), nothing()),
        Ask::StopApart | Ask::PlugApart | Ask::UnplugApart => {
            let apart = apart(world, server).await;
            post(server, &format!("/servers/{}/start", apart.borrower), "").await;
            let body = match ask {
                Ask::PlugApart => format!("block:1 {}", apart.more),
                Ask::UnplugApart => "block:0".to_owned(),
                _ => nothing(),
            };
            return (on(&[&apart.borrower]), body);
        }
        Ask::TakeIp => {
            operate(server, "/pools/create", POOL).await;
            return (on(&["ip"]), "name made".to_owned());
        }
    };
    match call {
        Call::DriveCreate => (on(&[]), sized("made", 4)),
        Call::DriveSet => (on(&[&drive(server, "one", b"").await]), sized("other", 8)),
        Call::DriveDestroy => (on(&[&drive(server, "one", b"").await]), nothing()),
        Call::DriveImage
        | Call::DriveImageGzip
        | Call::DriveImageGunzip
        | Call::DriveImageQcow2
        | Call::DriveImageVmdk => {
            let held = b"what it holds";
            let bytes = match call {
                Call::DriveImageGunzip => packed(held),
                Call::DriveImageQcow2 => qcow2(held),
                Call::DriveImageVmdk => vmdk(held),
                _ => held.to_vec(),
            };
            let source = drive(server, "source", &bytes).await;
            (on(&[&drive(server, "target", b"").await, &source]), nothing())
        }
        // Refused by the host, whatever is there.
        Call::DriveImageUrl => {
            (on(&[&drive(server, "one", b"before").await]), "url http://[::1]/".to_owned())
        }
        Call::DriveSha256 => (on(&[&drive(server, "one", b"before").await]), "size 6".to_owned()),
        Call::DriveClone | Call::DriveCloneGzip => {
            (on(&[&drive(server, "source", b"what it holds").await]), sized("made", 8))
        }
        Call::DriveCloneGunzip => {
            let source = drive(server, "source", &packed(b"what it holds")).await;
            (on(&[&source]), sized("made", 8))
        }
        Call::DriveWrite => (on(&[&drive(server, "one", b"before").await]), "after".to_owned()),
        Call::DriveWriteAt => {
            (on(&[&drive(server, "one", b"before").await, "3"]), "after".to_owned())
        }
        Call::ServerCreate | Call::ServerCreateStopped => (on(&[]), machine(server, "made").await),
        Call::ServerSet => (on(&[&running(server).await]), "cpu 1500\nname other".to_owned()),
        Call::ServerStart => (on(&[&stopped(server).await]), nothing()),
        Call::ServerStop
        | Call::ServerShutdown
        | Call::ServerReset
        | Call::ServerDestroy
        | Call::ServerConsole => (on(&[&running(server).await]), nothing()),
        Call::ResourceCreate => (on(&["vlan"]), "name made".to_owned()),
        Call::ResourceSet => (on(&["vlan", &vlan(server).await]), "name other".to_owned()),
        Call::ResourceDestroy => (on(&["vlan", &vlan(server).await]), nothing()),
        Call::AccountCreate => (on(&[]), "name made\nquota:disk 1G".to_owned()),
        Call::AccountSet => (on(&[&account(server).await]), "quota:cpu 2000".to_owned()),
        Call::AccountKey | Call::AccountSuspend => (on(&[&account(server).await]), nothing()),
        Call::AccountSuspendStop => {
            running(server).await;
            (on(&[&CUSTOMER.to_string()]), nothing())
        }
        Call::AccountResume => {
            let account = account(server).await;
            operate(server, &format!("/accounts/{account}/suspend"), "").await;
            (on(&[&account]), nothing())
        }
        Call::PoolCreate => (on(&[]), POOL.to_owned()),
        Call::DriveSnapshot => {
            (on(&[&drive(server, "one", b"before").await]), "name made".to_owned())
        }
        Call::SnapshotSet => (on(&[&snapshot(server).await]), "name other".to_owned()),
        Call::SnapshotRestore => {
            let snapshot = snapshot(server).await;
            (on(&[&snapshot]), nothing())
        }
        Call::SnapshotDestroy => (on(&[&snapshot(server).await]), nothing()),
        Call::ProfileSet => (on(&[]), "name other".to_owned()),
        Call::HostCreate => (on(&[]), "name made\naddress nowhere:1".to_owned()),
        Call::HostSet | Call::HostRevoke | Call::HostJoin => {
            let made = operate(server, "/hosts/create", "name one\naddress nowhere:1").await;
            (on(&[&made.value("host")]), "placements closed".to_owned())
        }
        Call::ArraySet => {
            let arrays = operate(server, "/arrays/info", "").await.body;
            let arrays = Record::list_from_json(&arrays).unwrap();
            (on(&[arrays[0].value("array").unwrap()]), "placements closed".to_owned())
        }
        Call::TokenCreate => (on(&[]), "name made".to_owned()),
        Call::TokenDestroy => {
            let made = post(server, "/tokens/create", "name one").await;
            (on(&[&made.value("token")]), nothing())
        }
        Call::StrayAdopt => (on(&[&stray(world, server).await, &CUSTOMER.to_string()]), nothing()),
        Call::StrayDestroy => (on(&[&stray(world, server).await]), nothing()),
        other => panic!("say here what {other:?} is asked, so that it is killed everywhere too"),
    }
}

/// A secret of an answer opens what it is for, and a bundle is of the certificate that is good.
pub(crate) async fn is_good(server: &Server, call: Call, answer: &Answer) {
    let opens = async |authorization: String| {
        let request = Request::get("/profile/info").header("Authorization", authorization);
        send(server, request.body(Body::empty()).unwrap()).await.expect(200);
    };
    match call {
        Call::AccountCreate | Call::AccountKey => {
            let key = format!("{}:{}", answer.value("account"), answer.value("secret"));
            opens(format!("Basic {}", STANDARD.encode(key))).await;
        }
        Call::TokenCreate => opens(format!("Bearer {}", answer.value("secret"))).await,
        Call::HostCreate | Call::HostJoin => {
            let path = format!("/hosts/{}/info", answer.value("host"));
            let info = operate(server, &path, "").await;
            assert_eq!(answer.value("certificate"), info.value("certificate"));
        }
        _ => {}
    }
}

const POOL: &str = "name made\nfirst 10.9.0.10\nlast 10.9.0.20\nnetmask 255.255.255.0\n\
                    gateway 10.9.0.1";

fn sized(name: &str, mib: u64) -> String {
    format!("name {name}\nsize {mib}M")
}

/// A file of so many sectors that has these bytes at these places.
fn file(sectors: usize, parts: &[(usize, &[u8])]) -> Vec<u8> {
    let mut file = vec![0; sectors * 512];
    for (at, bytes) in parts {
        file[*at..at + bytes.len()].copy_from_slice(bytes);
    }
    file
}

/// A qcow2 image, in clusters of 512 bytes, of a disk of one that begins with these bytes.
fn qcow2(bytes: &[u8]) -> Vec<u8> {
    let header = [0x5146_49fb, 2_u32, 0, 0, 0, 9, 0, 512, 0, 1, 0, 512].map(u32::to_be_bytes);
    let entry = |at: u64| at.to_be_bytes();
    let (table, cluster) = (entry(1024), entry(1536));
    file(4, &[(0, &header.concat()), (512, &table), (1024, &cluster), (1536, bytes)])
}

/// A VMDK image, in grains of 4 KiB, of a disk of one that begins with these bytes.
fn vmdk(bytes: &[u8]) -> Vec<u8> {
    let descriptor = b"createType=\"monolithicSparse\"\nRW 8 SPARSE \"it\"\n";
    let wide = [8_u64, 8, 1, 1].map(u64::to_le_bytes).concat();
    let (table, grain) = (3_u32.to_le_bytes(), 8_u32.to_le_bytes());
    let parts: [(usize, &[u8]); 8] = [
        (0, b"KDMV\x01"),
        (12, &wide),
        (44, &512_u32.to_le_bytes()),
        (56, &[2]),
        (512, descriptor),
        (1024, &table),
        (1536, &grain),
        (4096, bytes),
    ];
    file(16, &parts)
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
    gzip.write_all(bytes).unwrap();
    gzip.finish().unwrap()
}

/// A drive that begins with these bytes.
async fn drive(server: &Server, name: &str, bytes: &[u8]) -> String {
    let drive = post(server, "/drives/create", &sized(name, 4)).await.value("drive");
    if !bytes.is_empty() {
        let path = format!("/drives/{drive}/write");
        let write = request(Who::Customer, &path, None, bytes);
        send(server, write).await.expect(204);
    }
    drive
}

/// A snapshot of a drive that has been written since.
async fn snapshot(server: &Server) -> String {
    let drive = drive(server, "one", b"before").await;
    let path = format!("/drives/{drive}/snapshot");
    let made = post(server, &path, "name snapshot").await.value("snapshot");
    let write = format!("/drives/{drive}/write");
    post(server, &write, "since").await;
    made
}

/// A drive that is on a host and that nobody here made.
async fn stray(world: &World, server: &Server) -> String {
    let machine = &world.machines[0];
    let array = machine.store.capacity().await.unwrap()[0].array;
    let spec = DriveSpec {
        drive: DriveId::from_uuid(Uuid::from_u128(0xD1)),
        generation: Generation::new(Era(1), 1),
        account: CUSTOMER,
        array,
        size: Bytes::from_mib(4),
    };
    machine.store.create(&spec).await.unwrap();
    // An agent tells of what it does not know when it begins.
    world.kill_agent(machine).await;
    world.boot_agent(machine).await;
    let told = async {
        loop {
            let listed = operate(server, "/quarantine/list", "").await;
            let listed = String::from_utf8(listed.body.to_vec()).unwrap();
            if let Some(stray) = Record::list_from_json(listed.as_bytes()).unwrap().first() {
                return stray.value("uuid").unwrap().to_owned();
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(GUARD, told).await.expect("nobody told of the stray")
}

/// Another customer's account.
async fn account(server: &Server) -> String {
    operate(server, "/accounts/create", "name one").await.value("account")
}

async fn vlan(server: &Server) -> String {
    post(server, "/resources/vlan/create", "name one").await.value("resource")
}

/// A server that uses two drives, as a customer asks for it.
async fn machine(server: &Server, name: &str) -> String {
    let (disk, data) = (drive(server, "disk", b"boots").await, drive(server, "data", b"").await);
    format!(
        "name {name}\ncpu 1000\nsmp auto\nmem 512\npersistent true\nboot ide:0:0\n\
         ide:0:0 {disk}\nblock:0 {data}\nnic:0:model e1000\nnic:0:dhcp auto\n\
         vnc auto\npassword unguessd"
    )
}

/// What has no place together on the first host.
struct Apart {
    /// A stopped server whose one drive is there.
    borrower: String,
    /// Another drive there.
    more: String,
}

/// Two drives on the first of two hosts, where a server leaves no memory for another one.
async fn apart(world: &World, server: &Server) -> Apart {
    let second = world.machines[1].host;
    let place = async |word: &str| {
        operate(server, &format!("/hosts/{second}/set"), &format!("placements {word}")).await;
    };
    place("closed").await;
    let [disk, more] = [drive(server, "disk", b"boots").await, drive(server, "more", b"").await];
    let filler = "name filler\ncpu 500\nmem 65000\npersistent true";
    let filler = post(server, "/servers/create/stopped", filler).await.value("server");
    post(server, &format!("/servers/{filler}/start"), "").await;
    place("open").await;
    let borrower = format!("name borrower\ncpu 500\nmem 1024\npersistent true\nblock:0 {disk}");
    let borrower = post(server, "/servers/create/stopped", &borrower).await.value("server");
    Apart { borrower, more }
}

async fn stopped(server: &Server) -> String {
    let machine = machine(server, "one").await;
    post(server, "/servers/create/stopped", &machine).await.value("server")
}

async fn running(server: &Server) -> String {
    let stopped = stopped(server).await;
    post(server, &format!("/servers/{stopped}/start"), "").await;
    stopped
}
