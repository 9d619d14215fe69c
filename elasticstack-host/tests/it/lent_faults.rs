//! Faults under a guest that borrows its drive over a network: two machines of the lab, of which one
//! lends drives on a real mirror and the other runs real guests. One appends to its drive, each record
//! flushed before the next: what it was told is written is judged from the bytes on the drive. By night
//! another one has fio write its drive at random and read all back, over and over.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use elasticstack_core::block::{Attachment, BlockStore, Lend, LendSpec, Volume};
use elasticstack_core::hypervisor::{
    Access, Console, DriveSlot, Hypervisor, IoLimits, Media, Observed, Phase, ServerKind,
    ServerSpec,
};
use elasticstack_core::prelude::*;
use elasticstack_host::array::{ArrayPlan, DiskName, Health, Level, MadeArray, Md};
use elasticstack_host::guests::{Guests, GuestsConfig, Scope};
use elasticstack_host::qemu::{Accelerator, Qemu};
use elasticstack_lab::{Lab, Machine, stage};

use crate::lio::{Host, lend_spec, run};
use crate::other_initiators::{bash, borrowing, run as tell};

const TEST: &str = "lent_faults::on_two_lab_machines_a_guest_writes_on_when_its_lender_loses_network_power_or_a_disk";

/// The buses, each with a device, and how long a stall it rides out.
const BUSES: [(&str, Duration); 4] = [
    (BLOCK, Duration::from_mins(10)),
    ("scsi:0:0", Duration::from_mins(10)),
    ("ide:0:1", Duration::from_secs(25)),
    ("ata:0:0", Duration::from_secs(25)),
];
const BLOCK: &str = "block:0";

/// Where the guest that runs fio has its drive, which is the last.
const FIO: &str = "block:1";

/// What a lender's boot may take.
const BOOT: Duration = Duration::from_mins(3);

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_two_lab_machines_a_guest_writes_on_when_its_lender_loses_network_power_or_a_disk() {
    let lab = Lab::new().unwrap().with_disks_of(384);
    let Some(mut pair) = Pair::boot(&lab) else { return };
    // As behind a router: nobody says that the lender is not there.
    let known = "ip neighbour replace 10.77.0.1 dev eth0 lladdr 52:54:00:77:00:01 nud permanent";
    pair.borrower.run(known).unwrap().ok().unwrap();
    let (buses, losses): (_, &[u64]) =
        if is_long() { (&BUSES[..], &[20, 25]) } else { (&BUSES[..1], &[20]) };
    let mut guests = buses.to_vec();
    pair.start(&buses.iter().map(|(device, _)| *device).collect::<Vec<_>>());
    let mut rounds = pair.rounds_beyond(0);
    for loss in losses.iter().copied().map(Duration::from_secs) {
        pair.lose_network(loss, &mut guests);
        rounds = pair.rounds_beyond(rounds);
    }

    pair.judge_those_out_before(BOOT, &mut guests);
    let before = pair.count(BLOCK);
    let Pair { lender, borrower } = pair;
    lender.cut_power().unwrap();
    let mut pair = Pair { lender: lab.boot(1).unwrap(), borrower };
    pair.lend_stage("again");
    let took = pair.until_beyond(BLOCK, before);
    println!("it went on {:.1} s after it was lent its drive again", took.as_secs_f64());
    rounds = pair.rounds_beyond(rounds);

    pair.lender.pull(2).unwrap();
    pair.until_more(BLOCK);
    rounds = pair.rounds_beyond(rounds);
    pair.lend_stage("replace");
    pair.until_more(BLOCK);
    rounds = pair.rounds_beyond(rounds);
    pair.lend_stage("whole");
    rounds = pair.rounds_beyond(rounds);
    if is_long() {
        pair.lose_network(Duration::from_mins(10), &mut guests);
        pair.rounds_beyond(rounds);
        println!("{}", pair.borrower.run_stage(TEST, &format!("end/{FIO}")).unwrap());
    }
    pair.judge(&guests);
}

/// By night there are more guests, and one of them runs fio.
fn is_long() -> bool {
    std::env::var_os("ELASTICSTACK_LONG_TESTS").is_some()
}

/// A machine that lends, and one with a guest that borrows.
struct Pair {
    lender: Machine,
    borrower: Machine,
}

impl Pair {
    /// Boots both, and has the drives lent; or does a part of the test, on one of them.
    fn boot(lab: &Lab) -> Option<Self> {
        if let Some(stage) = stage() {
            run(do_stage(&stage));
            return None;
        }
        let (lender, borrower) = (lab.boot(1).unwrap(), lab.boot(2).unwrap());
        let mut pair = Self { lender, borrower };
        let cache = format!("{}/.cache/elasticstack", std::env::var("HOME").unwrap());
        let mut make = Command::new("bash");
        make.args(["-c", include_str!("fio-guest.sh"), "fio-guest", &cache]);
        tell(make.arg(lab.directory(2).join("fio.raw"))).unwrap();
        let unpack = format!(
            "gunzip -c '{cache}/images/tiny.gz' >{GUEST}; cp --sparse=always /lab/fio.raw {FIO_GUEST}"
        );
        // Without it the guest's processor is software too, which is slower.
        pair.borrower.run(&format!("{unpack}; modprobe kvm_amd || modprobe kvm_intel")).unwrap();
        pair.lend_stage("lend");
        Some(pair)
    }

    fn lend_stage(&mut self, stage: &str) {
        println!("{}", self.lender.run_stage(TEST, stage).unwrap());
    }

    /// Starts the guests that have their drives there, and waits until they write.
    fn start(&mut self, devices: &[&str]) {
        let also = if is_long() { [FIO].as_slice() } else { &[] };
        let stage = format!("start/{}", [devices, also].concat().join(","));
        self.borrower.run_stage(TEST, &stage).unwrap();
        for device in devices {
            self.until_beyond(device, 0);
        }
    }

    /// Waits until fio has written its drive and read it back once more, from begin to end, than the so
    /// many times that it had; answers how often that is.
    fn rounds_beyond(&mut self, rounds: u32) -> u32 {
        if !is_long() {
            return 0;
        }
        // The one that was under way does not count.
        let wanted = if rounds == 0 { 1 } else { rounds + 2 };
        let said = self.borrower.run_stage(TEST, &format!("rounds/{wanted}")).unwrap();
        println!("{said}");
        rounds_in(&said)
    }

    /// Takes the lender's network away for so long. Those of the guests that ride it out go on.
    fn lose_network(&mut self, loss: Duration, guests: &mut Vec<(&str, Duration)>) {
        self.judge_those_out_before(loss, guests);
        self.lender.unplug_network().unwrap();
        thread::sleep(loss);
        let before: Vec<_> = guests.iter().map(|(device, _)| self.count(device)).collect();
        self.lender.plug_network().unwrap();
        let back = Instant::now();
        for ((device, _), before) in guests.iter().zip(before) {
            self.until_beyond(device, before);
            let took = back.elapsed().as_secs_f64();
            println!("{device}: {loss:?} without network; went on {took:.1} s after");
        }
    }

    /// How many records there are of the guest that has its drive there.
    fn count(&mut self, device: &str) -> u64 {
        let count = format!("LC_ALL=C tr -d '\\0' <{} | wc -c", file(device));
        let bytes = self.lender.run(&count).unwrap().ok().unwrap();
        bytes.trim().parse::<u64>().unwrap() / SECTOR
    }

    fn until_more(&mut self, device: &str) {
        let count = self.count(device);
        self.until_beyond(device, count);
    }

    /// Waits until the guest has written some more than so many records.
    fn until_beyond(&mut self, device: &str, count: u64) -> Duration {
        let began = Instant::now();
        let file = file(device);
        let record = format!("dd if={file} bs={SECTOR} skip={} count=1 status=none", count + 3);
        let written = format!(
            "for _ in {{1..900}}; do [ \"$({record} | tr -d '\\0')\" ] && exit; sleep 0.2; done; exit 1"
        );
        if self.lender.run(&written).unwrap().status != 0 {
            let seen = self.borrower.run_stage(TEST, &format!("look/{device}"));
            panic!("the guest writes no more after {count} records: {seen:?}");
        }
        began.elapsed()
    }

    /// Judges and takes away those that such a stall may be too long for.
    fn judge_those_out_before(&mut self, stall: Duration, guests: &mut Vec<(&str, Duration)>) {
        let leaving: Vec<_> = guests.extract_if(.., |(_, longest)| *longest < stall).collect();
        self.judge(&leaving);
    }

    /// Ends the guests and looks at all that they wrote.
    fn judge(&mut self, guests: &[(&str, Duration)]) {
        if guests.is_empty() {
            return;
        }
        let devices: Vec<_> = guests.iter().map(|(device, _)| *device).collect();
        let devices = devices.join(",");
        println!("{}", self.borrower.run_stage(TEST, &format!("end/{devices}")).unwrap());
        self.lend_stage(&format!("judge/{devices}"));
    }
}

const SECTOR: u64 = 512;

const ARRAY: &str = "/srv/fast";
const MADE: &str = "/data/made";
const GUEST: &str = "/data/tiny.raw";
const FIO_GUEST: &str = "/data/fio.raw";
/// Where a guest has its system. The BIOS reads that bus in large pieces, others word by word.
const OWN: &str = "block:7";

async fn do_stage(stage: &str) {
    let (stage, devices) = stage.split_once('/').unwrap_or((stage, ""));
    let devices: Vec<_> = devices.split(',').collect();
    match stage {
        "lend" => lend(make()).await,
        "again" => lend(made()).await,
        "replace" => replace(),
        "whole" => until_whole(),
        "judge" => judge(&devices).await,
        "start" => start(&devices).await,
        "rounds" => until_rounds(devices[0]).await,
        "look" => drop(look(&open().await, devices[0]).await),
        "end" => end(&devices).await,
        _ => panic!("there is no stage {stage}"),
    }
}

fn disk(number: u8) -> DiskName {
    DiskName::Serial(format!("LAB-DISK-{number}"))
}

fn make() -> MadeArray {
    bash("modprobe raid1");
    let plan = ArrayPlan::new("fast".parse().unwrap(), Level::Raid1, &[disk(1), disk(2)], &[]);
    let array = MadeArray::new(None);
    plan.unwrap().make(array).unwrap();
    array.format().unwrap();
    let MadeArray { md, filesystem, .. } = array;
    fs::write(MADE, format!("{md} {filesystem}")).unwrap();
    bash("sync /data");
    array
}

fn made() -> MadeArray {
    let told = fs::read_to_string(MADE).unwrap();
    let (md, filesystem) = told.split_once(' ').unwrap();
    MadeArray { md: md.parse().unwrap(), filesystem: filesystem.parse().unwrap(), integrity: None }
}

/// Lends as an agent does whenever it starts: what its documents say, under the epochs that they say.
async fn lend(array: MadeArray) {
    array.bring_up(Path::new(ARRAY)).unwrap();
    let host = Host::open(&Path::new(ARRAY).join("array")).await;
    let is_new = host.store.list().await.unwrap().is_empty();
    for device in BUSES.map(|(device, _)| device) {
        if is_new {
            host.create(number(device), 8).await;
            let volume = host.store.open(drive(device), Epoch(1)).await.unwrap();
            volume.write_at(Bytes::ZERO, b"ES-TINY-APPEND-1"[..].into()).await.unwrap();
            volume.flush().await.unwrap();
        }
        host.lend(&spec(device)).await;
    }
    if is_new {
        host.create(number(FIO), 4).await;
    }
    host.lend(&spec(FIO)).await;
}

/// The number of the guest with its drive there.
fn number(device: &str) -> u8 {
    let mut devices = BUSES.iter().map(|(device, _)| *device).chain([FIO]);
    u8::try_from(devices.position(|other| other == device).unwrap() + 1).unwrap()
}

fn drive(device: &str) -> DriveId {
    format!("5b0e3c52-0000-4000-8000-0000000000{:02x}", number(device)).parse().unwrap()
}

fn file(device: &str) -> String {
    format!("{ARRAY}/array/drives/{}.raw", drive(device))
}

fn spec(device: &str) -> LendSpec {
    let borrower = format!("5e17e700-0000-4000-8000-0000000000{:02x}", number(device));
    LendSpec { borrower: borrower.parse().unwrap(), ..lend_spec(drive(device), 1) }
}

/// Has the mirror rebuilt, for minutes unless it is let go faster.
fn replace() {
    while Md::find(made().md).unwrap().unwrap().health() == Health::Whole {
        thread::sleep(Duration::from_millis(100));
    }
    rebuild_at_most(1_000);
    made().add_disk(&disk(3)).unwrap();
}

/// Says that the mirror is still being rebuilt, and has that go on to its end.
fn until_whole() {
    let health = || Md::find(made().md).unwrap().unwrap().health();
    assert_eq!(health(), Health::Rebuilding, "it was rebuilt before the guests had written enough");
    rebuild_at_most(1_000_000);
    while health() != Health::Whole {
        thread::sleep(Duration::from_millis(100));
    }
}

/// In KiB a second.
fn rebuild_at_most(speed: u32) {
    bash(&format!(
        "echo {speed} >/proc/sys/dev/raid/speed_limit_min
         echo {speed} >/proc/sys/dev/raid/speed_limit_max"
    ));
}

async fn open() -> Guests {
    let config = GuestsConfig { runtime_dir: "/data/servers".into(), scope: Scope::Session };
    let accelerator = Accelerator::detect().0;
    let qemu = Qemu { program: "qemu-system-x86_64".into(), accelerator };
    Guests::open(config, qemu).await.unwrap()
}

async fn start(devices: &[&str]) {
    let guests = open().await;
    for device in devices {
        let own = format!("{GUEST}.{}", number(device));
        let guest = if *device == FIO { FIO_GUEST } else { GUEST };
        bash(&format!("cp --reflink=always {guest} {own}"));
        guests.ensure(&server(device, own.into()), Run(1)).await.unwrap();
    }
    guests.close().await;
}

fn server(device: &str, own: PathBuf) -> ServerSpec {
    let slot = |device: &str, attachment| DriveSlot {
        device: device.parse().unwrap(),
        media: Media::Disk,
        access: Access::Exclusive,
        attachment,
        limits: IoLimits::default(),
    };
    let borrowed = borrowing(&spec(device), "10.77.0.1:3260".parse().unwrap());
    ServerSpec {
        server: spec(device).borrower,
        kind: ServerKind::Vm,
        cpu: MegaHertz(2_000),
        vcpus: VcpuCount::for_cpu(MegaHertz(2_000)),
        memory: MebiBytes(256),
        drives: vec![slot(OWN, Attachment::File(own)), slot(device, Attachment::Iscsi(borrowed))],
        boot: vec![OWN.parse().unwrap()],
        nics: vec![],
        screen: None,
        seed: None,
    }
}

/// Waits until fio has read back so many rounds, or more.
async fn until_rounds(wanted: &str) {
    let (guests, wanted) = (open().await, wanted.parse().unwrap());
    let rounds = loop {
        let serial = guests.serial(spec(FIO).borrower).await.unwrap();
        let serial = String::from_utf8_lossy(&serial);
        assert!(!serial.contains("fio: failed"), "{serial}");
        match rounds_in(&serial) {
            rounds if rounds >= wanted => break rounds,
            _ => tokio::time::sleep(Duration::from_millis(500)).await,
        }
    };
    println!("fio: round {rounds} is read back");
    guests.close().await;
}

/// The last round of which fio's guest says that it is read back: some of what it says may be missing.
fn rounds_in(said: &str) -> u32 {
    let rounds = said.lines().filter_map(|line| line.split_once("fio: round ")?.1.split_once(' '));
    rounds.filter_map(|(round, _)| round.parse().ok()).max().unwrap_or(0)
}

async fn look(guests: &Guests, device: &str) -> String {
    let serial = guests.serial(spec(device).borrower).await.unwrap();
    let serial = String::from_utf8_lossy(&serial).into_owned();
    let log = format!("/data/servers/{}/vmm.log", spec(device).borrower);
    let log = fs::read_to_string(log).unwrap_or_default();
    println!("{:?}\n{serial}\n{log}", guests.observe().await.unwrap());
    serial
}

async fn end(devices: &[&str]) {
    let guests = open().await;
    for device in devices {
        let serial = look(&guests, device).await;
        let server = spec(device).borrower;
        let seen = guests.observe().await.unwrap();
        let is_running = |seen: &Observed| seen.server == server && seen.phase == Phase::Running;
        assert!(seen.iter().any(is_running), "{seen:?}");
        let is_well = !serial.contains("cannot write") && !serial.contains("fio: failed");
        assert!(is_well, "the guest was told of an error");
        guests.remove(server).await.unwrap();
    }
    guests.close().await;
}

async fn judge(devices: &[&str]) {
    let host = Host::open(&Path::new(ARRAY).join("array")).await;
    for device in devices {
        let lend = spec(device).lend;
        host.lender.withdraw(lend).await.unwrap();
        let volume = host.store.open(lend.drive, lend.epoch).await.unwrap();
        println!("{device}: {} records of one boot, none missing", records(&*volume).await);
    }
}

/// How many records a guest wrote, which are to be all there is and of one boot.
async fn records(volume: &dyn Volume) -> usize {
    let mut bytes = vec![0; usize::try_from(u64::from(volume.size())).unwrap()];
    volume.read_at(Bytes::ZERO, &mut bytes).await.unwrap();
    let blocks = bytes.chunks(512).skip(1);
    let records: Vec<&[u8]> = blocks.clone().take_while(|block| block[0] != 0).collect();
    let boot = &records[0][..36];
    for (number, record) in (1..).zip(&records) {
        let mut expected = [boot, format!(" {number:010}").as_bytes()].concat();
        expected.resize(511, b' ');
        expected.push(b'\n');
        assert!(*record == expected, "record {number}: {:?}", String::from_utf8_lossy(record));
    }
    let left = blocks.skip(records.len()).flatten().all(|byte| *byte == 0);
    assert!(left, "there is something behind record {}", records.len());
    records.len()
}
