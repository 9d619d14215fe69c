//! Bad sources of imaging: the job ends with a sentence, both drives are free, and the target is as
//! it was or empty, never half an image.

use std::fs;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::rig::{Rig, with_rig};
use super::wire::{Answer, Ask};
use super::{Case, assert_refused, gzip};

const MIB: usize = 1 << 20;

/// What fills a target before it is imaged.
const STALE: u8 = 0xee;

/// Images `target` by gunzip of `source` and waits until the job is over.
async fn gunzip(rig: &Rig, target: &str, source: &str) -> Answer {
    let ask = Ask::new(format!("/drives/{target}/image/{source}/gunzip"));
    rig.send(&ask).await.expect(200);
    let info = Ask::new(format!("/drives/{target}/info"));
    let over = |info: &Answer| info.find("imaging").is_none() && info.find("claimed").is_none();
    rig.retry(&info, over).await.expect(200)
}

/// The most memory that this process has ever occupied, in KiB (proc(5)).
fn peak_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// What does not pack.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    getrandom::fill(&mut bytes).unwrap();
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_gzip_ends_the_job_in_a_sentence_and_leaves_no_half_an_image() {
    with_rig(async |rig| {
        let (target, source) = (rig.drive(4).await, rig.drive(4).await);
        let good = gzip(&noise(2 * MIB));
        let mut corrupt = good.clone();
        corrupt[MIB..MIB + 100].fill(0xff);
        let mut wrong_sum = good.clone();
        *wrong_sum.last_mut().unwrap() ^= 1;
        for (what, content, says, stays) in [
            ("no gzip", b"QFI\xfb".to_vec(), "it does not begin with the bytes 1f 8b", true),
            ("corrupt gzip", corrupt, "the gzip data is damaged", false),
            ("gzip that is cut", good[..MIB].to_vec(), "the gzip data is ", false),
            ("gzip with a wrong sum", wrong_sum, "the checksum", false),
            ("gzip and then more", [&good[..], b"more"].concat(), "bytes that are not gzip", false),
            (
                "gzip of too much",
                gzip(&[noise(2 * MIB), vec![7; 4 * MIB]].concat()),
                "make a larger drive",
                false,
            ),
        ] {
            let empty = vec![0; 4 * MIB];
            rig.customer.write(&source, &empty).await;
            rig.customer.write(&source, &content[..content.len().min(4 * MIB)]).await;
            rig.customer.write(&target, &vec![STALE; 4 * MIB]).await;
            let before = rig.seen().await;
            let info = gunzip(&rig, &target, &source).await;
            assert!(info.value("failed").contains(says), "{what}: {}", info.text());
            let left = if stays { STALE } else { 0 };
            assert!(rig.content(&target).iter().all(|byte| *byte == left), "{what}");
            // What is said of the target is all that may have changed, and its bytes.
            let after = rig.seen().await;
            before.assert_same_but_drive(&after, &target, what);
            let source_info = rig.send(&Ask::new(format!("/drives/{source}/info"))).await;
            assert_eq!(source_info.expect(200).find("claimed"), None, "{what}");
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gzip_bomb_stops_at_the_drives_end_and_takes_neither_memory_nor_disk() {
    with_rig(async |rig| {
        let (target, source) = (rig.drive(8).await, rig.drive(8).await);
        // Members may follow each other: this is 8 GiB, were it ever unpacked.
        let mut member = GzEncoder::new(Vec::new(), Compression::best());
        member.write_all(&vec![b'A'; 16 * MIB]).unwrap();
        let bomb = member.finish().unwrap().repeat(500);
        assert!(bomb.len() > 7 * MIB, "{} bytes", bomb.len());
        rig.customer.write(&source, &bomb).await;
        let before = (rig.seen().await, peak_kib());
        let info = gunzip(&rig, &target, &source).await;
        let failed = info.value("failed");
        assert_eq!(failed, "the image unpacks to more than the drive's 8 MiB: make a larger drive");
        let grown = peak_kib() - before.1;
        assert!(grown < 64 << 10, "it took {grown} KiB of memory");
        assert!(rig.content(&target).iter().all(|byte| *byte == 0), "half a bomb is left");
        before.0.assert_same_but_drive(&rig.seen().await, &target, "a gzip bomb");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drive_that_can_never_be_the_target_is_refused_at_once() {
    with_rig(async |rig| {
        let (small, large) = (rig.drive(4).await, rig.drive(8).await);
        let image =
            |target: &str, source: &str| Ask::new(format!("/drives/{target}/image/{source}"));
        #[rustfmt::skip]
        let cases: Vec<Case> = vec![
            ("itself", image(&small, &small),
                "400 usage code=invalid_value field=source", &["from itself", "name another source"]),
            ("too small", image(&small, &large),
                "400 usage code=invalid_value field=size", &["needs 8388608 bytes", "has 4194304", "set its size"]),
            ("a source that is a path", image(&small, "..%2fx"),
                "404 missing code=not_found", &["the drive could not be found"]),
        ];
        assert_refused(&rig, cases).await;
    })
    .await;
}
