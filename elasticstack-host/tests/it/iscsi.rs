//! The target of iSCSI against initiators that are wrong, hostile, many, or QEMU.

use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use elasticstack_core::block::{Attachment, Volume, Writing};
use elasticstack_core::prelude::*;
use elasticstack_core::secret::Secret;
use elasticstack_host::iscsi::{Chap, Credentials, Identity, IscsiServer, Limits, TargetConfig};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpListener;

use crate::initiator::{Initiator, READ, WRITE, cdb10, header};

const NAME: &str = "iqn.2026-01.org:a";
const SECRET: &str = "a-secret-of-some";

/// A volume in memory that can be fenced, and whose accesses can be made to wait.
#[derive(Default)]
pub(crate) struct Memory {
    pub(crate) bytes: Mutex<Vec<u8>>,
    pub(crate) flushes: AtomicUsize,
    pub(crate) in_flight: AtomicUsize,
    /// The most that were ever in flight.
    pub(crate) peak: AtomicUsize,
    pub(crate) is_slow: AtomicBool,
    pub(crate) is_fenced: AtomicBool,
}

impl Memory {
    pub(crate) fn new(length: usize) -> Arc<Self> {
        Arc::new(Self { bytes: Mutex::new(vec![0; length]), ..Self::default() })
    }

    async fn access<T>(
        &self,
        (offset, length): (Bytes, usize),
        work: impl FnOnce(&mut [u8]) -> T,
    ) -> Result<T> {
        let before = self.in_flight.fetch_add(1, Ordering::SeqCst);
        self.peak.fetch_max(before + 1, Ordering::SeqCst);
        if self.is_slow.load(Ordering::SeqCst) {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let start = usize::try_from(offset.get()).unwrap();
        let done = if self.is_fenced.load(Ordering::SeqCst) {
            Err(Error::new(ErrorKind::Fenced, "the drive is somebody else's now"))
        } else {
            Ok(work(&mut self.bytes.lock().unwrap()[start..start + length]))
        };
        self.in_flight.fetch_sub(1, Ordering::SeqCst);
        done
    }
}

#[async_trait]
impl Volume for Memory {
    fn size(&self) -> Bytes {
        Bytes::try_from(u64::try_from(self.bytes.lock().unwrap().len()).unwrap()).unwrap()
    }

    fn block_size(&self) -> Bytes {
        Bytes::from_kib(4)
    }

    async fn read_at(&self, offset: Bytes, buffer: &mut [u8]) -> Result<()> {
        let range = (offset, buffer.len());
        self.access(range, |bytes| buffer.copy_from_slice(bytes)).await
    }

    async fn write_at(&self, offset: Bytes, data: bytes::Bytes) -> Result<()> {
        self.access((offset, data.len()), |bytes| bytes.copy_from_slice(&data)).await
    }

    async fn flush(&self) -> Result<()> {
        self.flushes.fetch_add(1, Ordering::SeqCst);
        self.access((Bytes::ZERO, 0), |_| ()).await
    }

    async fn discard(&self, offset: Bytes, length: Bytes) -> Result<()> {
        let range = (offset, usize::try_from(length.get()).unwrap());
        self.access(range, |bytes| bytes.fill(0)).await
    }

    fn attachment(&self) -> Option<Attachment> {
        None
    }
}

/// A server with one target.
struct Rig {
    server: IscsiServer,
    address: SocketAddr,
    volume: Arc<Memory>,
}

impl Rig {
    async fn open(chap: Option<Chap>, limits: Limits) -> Self {
        let server = IscsiServer::new(limits);
        let volume = Memory::new(1 << 20);
        server.add(config(&volume, chap)).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let serving = server.clone();
        tokio::spawn(async move { serving.serve(listener).await });
        Self { server, address, volume }
    }

    async fn plain() -> Self {
        Self::open(None, Limits::default()).await
    }

    async fn log_in(&self, more: &str) -> Initiator {
        Initiator::log_in(self.address, NAME, more).await
    }
}

fn config(volume: &Arc<Memory>, chap: Option<Chap>) -> TargetConfig {
    TargetConfig {
        name: NAME.to_owned(),
        volume: Arc::clone(volume) as Arc<dyn Volume>,
        identity: Identity::of("0198c0de-0000-7000-8000-000000000001"),
        chap,
        initiators: None,
        writing: Writing::Allowed,
    }
}

#[tokio::test]
async fn a_write_is_durable_before_its_status_and_reads_back() {
    let rig = Rig::plain().await;
    let mut host = rig.log_in("").await;
    let tag = host.command(WRITE, 1024, &cdb10(0x2a, 3, 2), &[7; 1024]).await;
    let written = host.receive().await.unwrap();
    assert_eq!((written.opcode(), written.header[3], written.u32_at(16)), (0x21, 0, tag));
    assert_eq!(rig.volume.flushes.load(Ordering::SeqCst), 1);
    host.command(READ, 1024, &cdb10(0x28, 3, 2), &[]).await;
    let read = host.receive().await.unwrap();
    assert_eq!((read.opcode(), read.header[1] & 0x81, &*read.data), (0x25, 0x81, &[7; 1024][..]));
}

#[tokio::test]
async fn a_long_write_is_asked_for_in_bursts_and_takes_what_came_unasked() {
    let rig = Rig::plain().await;
    let more = "InitialR2T=No\0FirstBurstLength=4096\0MaxBurstLength=8192\0";
    let mut host = rig.log_in(more).await;
    let data: Vec<u8> = (0..16384_u32).map(|n| u8::try_from(n % 251).unwrap()).collect();
    let tag = host.command(0x20, 16384, &cdb10(0x2a, 0, 32), &data[..1024]).await;
    host.data_out(false, (tag, u32::MAX), (0, 1024), &data[1024..2048]).await;
    host.data_out(true, (tag, u32::MAX), (1, 2048), &data[2048..4096]).await;
    for (number, (offset, length)) in [(4096, 8192), (12288, 4096)].into_iter().enumerate() {
        let asked = host.receive().await.unwrap();
        assert_eq!(asked.opcode(), 0x31, "{asked:?}");
        assert_eq!(asked.u32_at(36), u32::try_from(number).unwrap());
        assert_eq!((asked.u32_at(40), asked.u32_at(44)), (offset, length));
        let start = usize::try_from(offset).unwrap();
        let burst = &data[start..start + usize::try_from(length).unwrap()];
        host.data_out(true, (tag, asked.u32_at(20)), (0, offset), burst).await;
    }
    assert_eq!(host.receive().await.unwrap().header[3], 0);
    assert!(rig.volume.bytes.lock().unwrap()[..16384] == data);
}

#[tokio::test]
async fn a_fenced_drive_answers_reservation_conflict() {
    let rig = Rig::plain().await;
    let mut host = rig.log_in("").await;
    rig.volume.is_fenced.store(true, Ordering::SeqCst);
    for (flags, cdb, data) in
        [(READ, cdb10(0x28, 0, 1), &[][..]), (WRITE, cdb10(0x2a, 0, 1), &[1; 512])]
    {
        host.command(flags, 512, &cdb, data).await;
        let response = host.receive().await.unwrap();
        assert_eq!((response.opcode(), response.header[3]), (0x21, 0x18));
    }
    assert!(rig.volume.bytes.lock().unwrap().iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn a_connection_is_cut_for_what_cannot_be_gone_on_with_and_no_other_is() {
    let rig = Rig::plain().await;
    let mut bystander =
        Initiator::log_in_as(rig.address, NAME, "iqn.2026-01.org:bystander", 2, "").await;
    let no_opcode = header(0x1f, 0x80, &[]);
    let huge = header(0x40, 0x80, &[(5, &[0xff; 3]), (16, &[0; 4]), (24, &[0, 0, 0, 1])]);
    let login = header(0x43, 0x87, &[(24, &[0, 0, 0, 1])]);
    let left_out = header(0x01, 0x80, &[(16, &[0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 3])]);
    for (what, bytes) in
        [("opcode", no_opcode), ("length", huge), ("login", login), ("number", left_out)]
    {
        let mut host = rig.log_in("").await;
        host.stream.write_all(&bytes).await.unwrap();
        assert!(host.is_cut().await, "{what}");
    }
    let mut host = rig.log_in("ImmediateData=No\0").await;
    host.command(WRITE, 512, &cdb10(0x2a, 0, 1), &[1; 512]).await;
    assert!(host.is_cut().await, "immediate data that was not agreed on");
    let mut host = rig.log_in("").await;
    host.command(0x20, 512, &cdb10(0x2a, 0, 1), &[]).await;
    assert!(host.is_cut().await, "unsolicited data that was not agreed on");
    assert_eq!(bystander.test_unit_ready().await, Some(0));
    assert!(rig.volume.bytes.lock().unwrap().iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn data_other_than_what_was_asked_for_is_never_written() {
    let rig = Rig::plain().await;
    for (what, data_sn, offset, length, is_final) in [
        ("a number left out", 1, 0, 512, true),
        ("another place", 0, 512, 512, true),
        ("more", 0, 0, 1024, true),
        ("less", 0, 0, 256, true),
    ] {
        let mut host = rig.log_in("ImmediateData=No\0").await;
        let tag = host.command(WRITE, 512, &cdb10(0x2a, 0, 1), &[]).await;
        let asked = host.receive().await.unwrap();
        let data = vec![1; length];
        let tags = (tag, asked.u32_at(20));
        host.data_out(is_final, tags, (data_sn, offset), &data).await;
        let response = host.receive().await.unwrap();
        assert_eq!((response.opcode(), response.header[3]), (0x21, 2), "{what}");
        assert_eq!((response.data[4], &response.data[14..16]), (0xb, &[0x0c, 0x0d][..]), "{what}");
        assert_eq!(host.test_unit_ready().await, Some(0), "{what}");
    }
    // Data that nobody asked for is read over.
    let mut host = rig.log_in("").await;
    host.data_out(true, (77, 77), (0, 0), &[1; 512]).await;
    assert_eq!(host.test_unit_ready().await, Some(0));
    assert!(rig.volume.bytes.lock().unwrap().iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn a_task_tag_in_use_is_rejected_and_a_command_outside_the_window_ignored() {
    let rig = Rig::plain().await;
    let mut host = rig.log_in("ImmediateData=No\0").await;
    host.command(WRITE, 512, &cdb10(0x2a, 0, 1), &[]).await;
    assert_eq!(host.receive().await.unwrap().opcode(), 0x31);
    host.next_tag -= 1;
    host.command(0x80, 0, &[0], &[]).await;
    let rejected = host.receive().await.unwrap();
    assert_eq!((rejected.opcode(), rejected.header[2], rejected.data.len()), (0x3f, 7, 48));

    host.cmd_sn += 1000;
    host.command(0x80, 0, &[0], &[]).await;
    host.cmd_sn -= 1001;
    assert_eq!(host.test_unit_ready().await, Some(0));
}

#[tokio::test]
async fn a_silent_or_slow_login_is_cut_and_makes_room_for_others() {
    let limits = Limits { logins: 4, login_time: Duration::from_millis(300), ..Limits::default() };
    let rig = Rig::open(None, limits).await;
    let mut flood = Vec::new();
    for _ in 0..16 {
        let mut silent = Initiator::connect(rig.address).await;
        silent.stream.write_all(&[0x43, 0x87]).await.unwrap();
        flood.push(silent);
    }
    let mut host = rig.log_in("").await;
    assert_eq!(host.test_unit_ready().await, Some(0));
    assert!(flood[0].is_cut().await);
}

#[tokio::test]
async fn a_session_too_many_is_refused() {
    let rig = Rig::open(None, Limits { sessions: 1, ..Limits::default() }).await;
    let mut first = rig.log_in("").await;
    let mut second = Initiator::connect(rig.address).await;
    let text = format!("InitiatorName=iqn.2026-01.org:second\0TargetName={NAME}\0");
    second.send(header(0x43, 0x87, &[]), text.as_bytes()).await;
    assert_eq!(second.receive().await.unwrap().header[36..38], [3, 2]);
    assert_eq!(first.test_unit_ready().await, Some(0));
}

#[tokio::test]
async fn discovery_sessions_take_no_place_of_others_and_have_an_end_of_their_own() {
    let limits = Limits { sessions: 1, discoveries: 2, ..Limits::default() };
    let rig = Rig::open(None, limits).await;
    let mut discoveries = Vec::new();
    for number in 1..=2 {
        let more = "SessionType=Discovery\0";
        let name = format!("iqn.2026-01.org:{number}");
        discoveries.push(Initiator::log_in_as(rig.address, NAME, &name, number, more).await);
    }
    let mut third = Initiator::connect(rig.address).await;
    let text = "InitiatorName=iqn.2026-01.org:third\0SessionType=Discovery\0";
    third.send(header(0x43, 0x87, &[]), text.as_bytes()).await;
    assert_eq!(third.receive().await.unwrap().header[36..38], [3, 2]);
    let mut host = rig.log_in("").await;
    assert_eq!(host.test_unit_ready().await, Some(0));
}

#[tokio::test]
async fn what_may_only_be_read_says_so_and_changes_by_no_command() {
    let server = IscsiServer::new(Limits::default());
    let volume = Memory::new(1 << 20);
    server.add(TargetConfig { writing: Writing::Refused, ..config(&volume, None) }).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { server.serve(listener).await });
    let mut host = Initiator::log_in(address, NAME, "").await;
    host.command(READ, 64, &[0x1a, 0, 0x3f, 0, 64, 0], &[]).await;
    assert_eq!(host.receive().await.unwrap().data[2] & 0x80, 0x80, "the bit WP of MODE SENSE");
    let cdb16 = |operation: u8, blocks: u8| {
        let mut cdb = [0; 16];
        (cdb[0], cdb[13]) = (operation, blocks);
        cdb.to_vec()
    };
    let mut unmap = vec![0, 22, 0, 16, 0, 0, 0, 0];
    unmap.extend([0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]);
    for (cdb, data) in [
        (cdb10(0x2a, 0, 1).to_vec(), vec![1; 512]),
        (vec![0x0a, 0, 0, 0, 1, 0], vec![1; 512]),
        (cdb16(0x8a, 1), vec![1; 512]),
        (cdb10(0x2e, 0, 1).to_vec(), vec![1; 512]),
        (cdb10(0x41, 0, 1).to_vec(), vec![1; 512]),
        (cdb16(0x93, 1), vec![1; 512]),
        (cdb16(0x89, 1), vec![0; 1024]),
        (cdb16(0x8b, 1), vec![1; 512]),
        (vec![0x42, 0, 0, 0, 0, 0, 0, 0, 24, 0], unmap),
    ] {
        let length = u32::try_from(data.len()).unwrap();
        host.command(WRITE, length, &cdb, &data).await;
        let response = host.receive().await.unwrap();
        let sense = &response.data[2..];
        assert_eq!(response.header[3], 2, "{cdb:x?}: {response:?}");
        assert_eq!((sense[2], sense[12], sense[13]), (7, 0x27, 0), "{cdb:x?}: {response:?}");
    }
    assert!(volume.bytes.lock().unwrap().iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn an_initiator_that_logs_in_again_replaces_its_session_and_its_commands() {
    let rig = Rig::plain().await;
    rig.volume.is_slow.store(true, Ordering::SeqCst);
    let mut old = rig.log_in("").await;
    old.command(WRITE, 512, &cdb10(0x2a, 0, 1), &[1; 512]).await;
    while rig.volume.in_flight.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    let mut new = rig.log_in("").await;
    assert_eq!(rig.volume.in_flight.load(Ordering::SeqCst), 0);
    assert!(old.is_cut().await);
    assert_eq!(new.test_unit_ready().await, Some(0));
}

#[tokio::test]
async fn after_a_revoke_nothing_is_in_flight_nobody_is_connected_and_nobody_gets_in() {
    let rig = Rig::plain().await;
    rig.volume.is_slow.store(true, Ordering::SeqCst);
    let mut hosts = Vec::new();
    for number in 1..=4_u8 {
        let name = format!("iqn.2026-01.org:{number}");
        let mut host = Initiator::log_in_as(rig.address, NAME, &name, number, "").await;
        for lba in 0..8 {
            host.command(WRITE, 512, &cdb10(0x2a, lba, 1), &[number; 512]).await;
        }
        hosts.push(host);
    }
    while rig.volume.in_flight.load(Ordering::SeqCst) < 8 {
        tokio::task::yield_now().await;
    }
    rig.server.revoke(NAME).await;
    assert_eq!(rig.volume.in_flight.load(Ordering::SeqCst), 0);
    let after = rig.volume.bytes.lock().unwrap().clone();
    for host in &mut hosts {
        while let Some(pdu) = host.receive().await {
            assert_eq!(pdu.opcode(), 0x21);
        }
    }
    let mut late = Initiator::connect(rig.address).await;
    let text = format!("InitiatorName=iqn.2026-01.org:1\0TargetName={NAME}\0");
    late.send(header(0x43, 0x87, &[]), text.as_bytes()).await;
    assert_eq!(late.receive().await.unwrap().header[36..38], [2, 3]);
    assert!(*rig.volume.bytes.lock().unwrap() == after);
    rig.server.revoke(NAME).await;
    rig.server.add(config(&rig.volume, None)).unwrap();
    rig.server.add(config(&rig.volume, None)).unwrap_err();
}

#[tokio::test]
async fn a_target_without_a_name_or_with_one_secret_for_both_sides_is_refused() {
    let rig = Rig::plain().await;
    let bad_name = TargetConfig { name: "a".to_owned(), ..config(&rig.volume, None) };
    assert_eq!(rig.server.add(bad_name).unwrap_err().kind(), ErrorKind::InvalidValue);
    let ours = Credentials { user: "target".to_owned(), ..chap().initiator };
    let one_secret = Chap { target: Some(ours), ..chap() };
    let error = rig.server.add(config(&rig.volume, Some(one_secret))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidValue);
}

#[tokio::test]
async fn dropping_the_listener_cuts_its_connections() {
    let server = IscsiServer::new(Limits::default());
    let volume = Memory::new(1 << 20);
    server.add(config(&volume, None)).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move { server.serve(listener).await });
    let mut host = Initiator::log_in(address, NAME, "").await;
    serving.abort();
    assert!(host.is_cut().await);
}

#[tokio::test]
async fn an_aborted_command_gets_no_status_and_its_abort_comes_after_its_end() {
    let rig = Rig::plain().await;
    let mut host = rig.log_in("ImmediateData=No\0").await;
    let tag = host.command(WRITE, 512, &cdb10(0x2a, 0, 1), &[]).await;
    let asked = host.receive().await.unwrap();
    let abort: &[(usize, &[u8])] =
        &[(16, &[0, 0, 0, 99]), (20, &tag.to_be_bytes()), (24, &host.cmd_sn.to_be_bytes())];
    host.send(header(0x42, 0x81, abort), &[]).await;
    let done = host.receive().await.unwrap();
    assert_eq!((done.opcode(), done.header[2]), (0x22, 0));
    host.data_out(true, (tag, asked.u32_at(20)), (0, 0), &[1; 512]).await;
    host.send(header(0x42, 0x81, abort), &[]).await;
    let again = host.receive().await.unwrap();
    assert_eq!((again.opcode(), again.header[2]), (0x22, 1), "there is no such task any more");
    assert!(rig.volume.bytes.lock().unwrap().iter().all(|byte| *byte == 0));
}

/// Adds one to the number in the first block, as often as it takes until nobody came between.
async fn increment(host: &mut Initiator) {
    loop {
        host.command(READ, 512, &cdb10(0x28, 0, 1), &[]).await;
        let old = host.receive().await.unwrap().data;
        let mut new = old.clone();
        new[0] += 1;
        let mut cdb = [0; 16];
        (cdb[0], cdb[13]) = (0x89, 1);
        host.command(WRITE, 1024, &cdb, &[old, new].concat()).await;
        let response = host.receive().await.unwrap();
        match response.header[3] {
            0 => return,
            // A miscompare.
            2 => assert_eq!(response.data[4], 0xe, "{response:?}"),
            other => panic!("status {other}"),
        }
    }
}

#[tokio::test]
async fn of_two_who_compare_and_write_at_once_one_is_told_of_the_other() {
    let rig = Rig::plain().await;
    let mut one = Initiator::log_in_as(rig.address, NAME, "iqn.2026-01.org:1", 1, "").await;
    let mut two = Initiator::log_in_as(rig.address, NAME, "iqn.2026-01.org:2", 2, "").await;
    rig.volume.is_slow.store(true, Ordering::SeqCst);
    let add = async |host: &mut Initiator| {
        for _ in 0..3 {
            increment(host).await;
        }
    };
    tokio::join!(add(&mut one), add(&mut two));
    assert_eq!(rig.volume.bytes.lock().unwrap()[0], 6);
}

#[tokio::test]
async fn a_client_that_takes_nothing_holds_no_other_up() {
    let rig = Rig::plain().await;
    let mut greedy = Initiator::log_in_as(rig.address, NAME, "iqn.2026-01.org:g", 2, "").await;
    for _ in 0..32 {
        greedy.command(READ, 1 << 20, &cdb10(0x28, 0, 2048), &[]).await;
    }
    let mut host = rig.log_in("").await;
    for _ in 0..100 {
        assert_eq!(host.test_unit_ready().await, Some(0));
    }
}

#[tokio::test]
async fn a_thousand_sessions_are_held_and_answer() {
    let rig = Rig::plain().await;
    let mut hosts = Vec::new();
    for number in 0..1000 {
        let name = format!("iqn.2026-01.org:host-{number}");
        hosts.push(Initiator::log_in_as(rig.address, NAME, &name, 1, "").await);
    }
    for host in &mut hosts {
        assert_eq!(host.test_unit_ready().await, Some(0));
    }
}

#[tokio::test]
async fn discovery_tells_of_the_targets_that_the_initiator_may_use() {
    let rig = Rig::plain().await;
    let hidden = TargetConfig {
        name: "iqn.2026-01.org:b".to_owned(),
        initiators: Some(vec!["iqn.2026-01.org:other".to_owned()]),
        ..config(&rig.volume, None)
    };
    rig.server.add(hidden).unwrap();
    let mut host = rig.log_in("SessionType=Discovery\0").await;
    let fields: &[(usize, &[u8])] =
        &[(16, &[0, 0, 0, 5]), (20, &[0xff; 4]), (24, &1_u32.to_be_bytes())];
    host.send(header(0x04, 0x80, fields), b"SendTargets=All\0").await;
    let told = host.receive().await.unwrap();
    let expected = format!("TargetName={NAME}\0TargetAddress={},1\0", rig.address);
    assert_eq!(String::from_utf8(told.data).unwrap(), expected);
}

#[tokio::test]
async fn a_list_of_targets_that_is_too_long_for_one_pdu_is_told_in_several() {
    let rig = Rig::plain().await;
    for number in 0..20 {
        let name = format!("iqn.2026-01.org:target-{number:02}");
        rig.server.add(TargetConfig { name, ..config(&rig.volume, None) }).unwrap();
    }
    let more = "SessionType=Discovery\0MaxRecvDataSegmentLength=512\0";
    let mut host = rig.log_in(more).await;
    let (mut told, mut tag, mut text) = (Vec::new(), [0xff; 4], &b"SendTargets=All\0"[..]);
    for cmd_sn in 1_u32.. {
        let fields: &[(usize, &[u8])] =
            &[(16, &[0, 0, 0, 5]), (20, &tag), (24, &cmd_sn.to_be_bytes())];
        host.send(header(0x04, 0x80, fields), text).await;
        let answer = host.receive().await.unwrap();
        assert!(answer.data.len() <= 512);
        told.extend(answer.data);
        if answer.header[1] == 0x80 {
            break;
        }
        assert_eq!(answer.header[1], 0x40, "it goes on");
        (tag, text) = (answer.header[20..24].try_into().unwrap(), &[]);
    }
    let told = String::from_utf8(told).unwrap();
    assert_eq!(told.matches("TargetName=").count(), 21);
    assert!(told.ends_with(",1\0"), "{told:?}");
}

fn chap() -> Chap {
    let initiator = Credentials { user: "host".to_owned(), secret: Secret::new(SECRET) };
    Chap { initiator, target: None }
}

/// Runs a program of QEMU's, and returns whether it went well.
async fn qemu(program: &str, args: &[&str]) -> bool {
    let mut command = Command::new(program);
    command.args(args);
    let run = tokio::task::spawn_blocking(move || command.output().unwrap());
    let output = run.await.unwrap();
    if !output.status.success() {
        eprintln!("{}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

fn url(rig: &Rig, secret: &str) -> String {
    format!("iscsi://host%{secret}@{}/{NAME}/0", rig.address)
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn qemus_own_initiator_writes_and_reads_with_chap_and_nobody_without() {
    let rig = Rig::open(Some(chap()), Limits::default()).await;
    let io = ["-f", "raw", "-c", "write -P 7 4096 65536", "-c", "read -P 7 4096 65536"];
    let good = url(&rig, SECRET);
    assert!(qemu("qemu-io", &[&io[..], &[&good]].concat()).await);
    assert!(rig.volume.bytes.lock().unwrap()[4096..69632].iter().all(|byte| *byte == 7));
    let bad = url(&rig, "another");
    assert!(!qemu("qemu-io", &[&io[..], &[&bad]].concat()).await);
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn qemu_converts_an_image_to_a_drive_and_back() {
    let rig = Rig::plain().await;
    let directory = tempfile::tempdir().unwrap();
    let (source, back) = (directory.path().join("source"), directory.path().join("back"));
    let image: Vec<u8> = (0..1_u32 << 20).map(|n| u8::try_from(n / 4096 % 251).unwrap()).collect();
    std::fs::write(&source, &image).unwrap();
    let target = format!("iscsi://{}/{NAME}/0", rig.address);
    let with_digests = format!(
        "driver=raw,file.driver=iscsi,file.transport=tcp,file.portal={},file.target={NAME},\
         file.header-digest=crc32c",
        rig.address
    );
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let source_options = format!("driver=raw,file.driver=file,file.filename={}", path(&source));
    let convert = ["convert", "-n", "--image-opts", "--target-image-opts"];
    let images: [&str; 2] = [&source_options, &with_digests];
    assert!(qemu("qemu-img", &[&convert[..], &images].concat()).await);
    assert!(*rig.volume.bytes.lock().unwrap() == image);
    let convert = ["convert", "-f", "raw", "-O", "raw"];
    assert!(qemu("qemu-img", &[&convert[..], &[&target, &path(&back)]].concat()).await);
    assert!(std::fs::read(&back).unwrap() == image);
}
