//! The initiator against our own target, and against targets that no honest one is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use elasticstack_core::block::{Borrowing, LendId, Volume, Writing};
use elasticstack_core::prelude::*;
use elasticstack_core::secret::Secret;
use elasticstack_host::iscsi::initiator::{Initiator, probe};
use elasticstack_host::iscsi::{Chap, Credentials, Identity, IscsiServer, Limits, TargetConfig};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::initiator::header;
use crate::iscsi::Memory;

const MIB: usize = 1 << 20;

fn borrowing(portal: SocketAddr) -> Borrowing {
    Borrowing {
        portal,
        lend: LendId {
            drive: "5b0e3c52-0000-4000-8000-000000000001".parse().unwrap(),
            epoch: Epoch(3),
        },
        borrower: "5b0e3c52-0000-4000-8000-000000000002".parse().unwrap(),
        secret: Secret::new("a-secret-of-some"),
    }
}

/// A drive of 1 MiB that is lent by our target.
async fn lent() -> (IscsiServer, Arc<Memory>, Borrowing) {
    let server = IscsiServer::new(Limits::default());
    let volume = Memory::new(MIB);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let borrowing = borrowing(listener.local_addr().unwrap());
    let initiator =
        Credentials { user: borrowing.initiator(), secret: Secret::new("a-secret-of-some") };
    server
        .add(TargetConfig {
            name: borrowing.lend.target(),
            volume: Arc::clone(&volume) as Arc<dyn Volume>,
            identity: Identity::of("drive"),
            chap: Some(Chap { initiator, target: None }),
            initiators: Some(vec![borrowing.initiator()]),
            writing: Writing::Allowed,
        })
        .unwrap();
    let serving = server.clone();
    tokio::spawn(async move { serving.serve(listener).await });
    (server, volume, borrowing)
}

fn at(offset: usize) -> Bytes {
    Bytes::try_from(u64::try_from(offset).unwrap()).unwrap()
}

#[tokio::test]
async fn a_borrowed_drive_is_a_row_of_bytes() {
    let (_server, memory, borrowing) = lent().await;
    let volume = Initiator::login(&borrowing).await.unwrap();
    assert_eq!((volume.size(), volume.block_size()), (at(MIB), Bytes::from_kib(4)));
    let mut model = vec![0; MIB];
    // Ends within blocks, within one block, over several bursts, of everything, and of nothing.
    for (byte, from, to) in [
        (1, 0, MIB),
        (2, 512, 1024),
        (3, 700, 710),
        (4, 1000, 90_001),
        (5, 300_000, 1_000_000),
        (0, 4096, 8192),
        (0, 20_000, 20_001),
        (0, 30_001, 200_003),
        (0, MIB - 1, MIB),
        (6, 9, 9),
    ] {
        if byte == 0 {
            volume.discard(at(from), at(to - from)).await.unwrap();
        } else {
            volume.write_at(at(from), vec![byte; to - from].into()).await.unwrap();
        }
        model[from..to].fill(byte);
        assert!(*memory.bytes.lock().unwrap() == model, "{byte} from {from} to {to}");
        let mut read = vec![9; to - from];
        volume.read_at(at(from), &mut read).await.unwrap();
        assert!(read == model[from..to], "{byte} from {from} to {to}");
    }
    volume.flush().await.unwrap();
    for (offset, length) in [(MIB, 1), (MIB - 1, 2), (1 << 40, 1)] {
        let error = volume.read_at(at(offset), &mut vec![0; length]).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidValue, "{error:?}");
    }
}

#[tokio::test]
async fn commands_of_a_borrowed_drive_are_in_flight_together() {
    let (_server, memory, borrowing) = lent().await;
    let volume = Arc::new(Initiator::login(&borrowing).await.unwrap());
    memory.is_slow.store(true, Ordering::SeqCst);
    let mut writes = tokio::task::JoinSet::new();
    for number in 0..100_u8 {
        let volume = Arc::clone(&volume);
        writes.spawn(async move {
            let data = vec![number + 1; 9728];
            volume.write_at(at(usize::from(number) * 10_240), data.into()).await
        });
    }
    while let Some(done) = writes.join_next().await {
        done.unwrap().unwrap();
    }
    let peak = memory.peak.load(Ordering::SeqCst);
    assert!((2..=32).contains(&peak), "{peak} were in flight at once");
    let bytes = memory.bytes.lock().unwrap();
    for number in 0..100_u8 {
        let start = usize::from(number) * 10_240;
        assert!(bytes[start..start + 9728].iter().all(|byte| *byte == number + 1), "{number}");
    }
}

#[tokio::test]
async fn a_probe_says_which_step_failed() {
    let (_server, _volume, right) = lent().await;
    assert_eq!(probe(&right).await.unwrap(), at(MIB));
    let nobody = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let old = LendId { epoch: Epoch(2), ..right.lend };
    let stranger = "5b0e3c52-0000-4000-8000-000000000003".parse().unwrap();
    for (wrong, kind, says) in [
        (Borrowing { portal: nobody, ..right.clone() }, ErrorKind::Unavailable, "refuses"),
        (Borrowing { lend: old, ..right.clone() }, ErrorKind::NotFound, "has no target"),
        (
            Borrowing { secret: Secret::new("another-secret-.."), ..right.clone() },
            ErrorKind::BadCredentials,
            "0x01",
        ),
        (Borrowing { secret: Secret::new(""), ..right.clone() }, ErrorKind::BadCredentials, "0x01"),
        (Borrowing { borrower: stranger, ..right.clone() }, ErrorKind::BadCredentials, "0x02"),
    ] {
        let error = probe(&wrong).await.unwrap_err();
        let chain = Chain(&error).to_string();
        assert_eq!(error.kind(), kind, "{chain}");
        assert!(chain.contains(says), "{says}: {chain}");
        assert!(!chain.contains("secret-"), "{chain}");
    }
    // Nothing of the right one's was cut by any of them.
    let volume = Initiator::login(&right).await.unwrap();
    probe(&right).await.unwrap();
    volume.flush().await.unwrap();
}

#[tokio::test]
async fn a_borrowed_drive_that_is_fenced_or_gone_says_so_for_good() {
    let (server, memory, borrowing) = lent().await;
    let volume = Initiator::login(&borrowing).await.unwrap();
    memory.is_fenced.store(true, Ordering::SeqCst);
    let error = volume.read_at(Bytes::ZERO, &mut [0; 512]).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Fenced, "{error:?}");
    server.revoke(&borrowing.lend.target()).await;
    for _ in 0..2 {
        let error = volume.write_at(Bytes::ZERO, vec![1; 512].into()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
    assert_eq!(probe(&borrowing).await.unwrap_err().kind(), ErrorKind::NotFound);
}

/// A PDU of a target's, whose length is filled in.
fn pdu(mut header: [u8; 48], data: &[u8]) -> Vec<u8> {
    let length = u32::try_from(data.len()).unwrap().to_be_bytes();
    header[5..8].copy_from_slice(&length[1..]);
    [&header[..], data, &[0; 3][..(4 - data.len() % 4) % 4]].concat()
}

async fn read_pdu(stream: &mut TcpStream) -> Option<[u8; 48]> {
    let mut header = [0; 48];
    stream.read_exact(&mut header).await.ok()?;
    let length = u32::from_be_bytes([0, header[5], header[6], header[7]]);
    let mut data = vec![0; usize::try_from(length).unwrap().next_multiple_of(4)];
    stream.read_exact(&mut data).await.ok()?;
    Some(header)
}

/// What is answered to a command with this tag.
type Answer = fn([u8; 4]) -> Vec<u8>;

/// A target that lets everybody in and answers each command with what `answer` makes of its tag.
async fn hostile(answer: Answer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let window: &[(usize, &[u8])] = &[(28, &[0, 0, 0, 1]), (32, &[0, 0, 0, 9])];
        for (flags, text) in [(0x81, &b"AuthMethod=None\0"[..]), (0x87, b"")] {
            read_pdu(&mut stream).await.unwrap();
            stream.write_all(&pdu(header(0x23, flags, window), text)).await.unwrap();
        }
        while let Some(asked) = read_pdu(&mut stream).await {
            let tag = asked[16..20].try_into().unwrap();
            if stream.write_all(&answer(tag)).await.is_err() {
                return;
            }
        }
    });
    address
}

fn answer(opcode: u8, flags: u8, tag: [u8; 4], fields: &[(usize, &[u8])], data: &[u8]) -> Vec<u8> {
    let window: [(usize, &[u8]); 3] = [(16, &tag), (28, &[0, 0, 0, 1]), (32, &[0, 0, 0, 99])];
    pdu(header(opcode, flags, &[&window[..], fields].concat()), data)
}

#[tokio::test]
async fn a_target_that_is_none_ends_the_session_and_nothing_else() {
    let cases: [(&str, Answer); 14] = [
        ("an opcode", |tag| answer(0x32, 0x80, tag, &[], &[])),
        ("a length", |tag| [answer(0x25, 0x81, tag, &[], &[]), vec![0xff; 4096]].concat()),
        ("a long segment", |tag| {
            let mut long = answer(0x25, 0x81, tag, &[], &[]);
            long[5..8].fill(0xff);
            long
        }),
        ("data that is too long", |tag| answer(0x25, 0x81, tag, &[], &[0; 64])),
        ("data elsewhere", |tag| answer(0x25, 0x81, tag, &[(40, &[0, 0, 0, 4])], &[0; 4])),
        ("data of nothing", |_| answer(0x25, 0x81, [9; 4], &[], &[0; 4])),
        ("the end of nothing", |_| answer(0x21, 0x80, [9; 4], &[], &[])),
        ("a request for data", |tag| answer(0x31, 0x80, tag, &[(44, &[0, 0, 2, 0])], &[])),
        ("a reject", |tag| answer(0x3f, 0x80, tag, &[], &[0; 48])),
        ("a second login", |tag| answer(0x23, 0x87, tag, &[], &[])),
        ("no blocks", |tag| answer(0x25, 0x81, tag, &[], &[0; 32])),
        ("too many blocks", |tag| {
            answer(0x25, 0x81, tag, &[], &[&[0xff; 8][..], &[0, 0, 2, 0], &[0; 20]].concat())
        }),
        ("attention for ever", |tag| {
            let sense = [&[0, 18, 0x70, 0, 6][..], &[0; 15]].concat();
            answer(0x21, 0x80, tag, &[(3, &[2])], &sense)
        }),
        ("pings without end", |tag| {
            let ping: &[(usize, &[u8])] = &[(16, &[0xff; 4]), (20, &[0, 0, 0, 5])];
            answer(0x20, 0x80, tag, ping, &[]).repeat(50_000)
        }),
    ];
    for (what, answer) in cases {
        let borrowing = borrowing(hostile(answer).await);
        let login = tokio::time::timeout(Duration::from_secs(60), Initiator::login(&borrowing));
        let error = login.await.expect(what).map(drop).expect_err(what);
        let kinds = [ErrorKind::Unavailable, ErrorKind::Internal];
        assert!(kinds.contains(&error.kind()), "{what}: {error:?}");
    }
}
