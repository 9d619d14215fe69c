//! Bad input that takes a guest: what is asked of a drive while one has it, a disk that can't boot,
//! and a disk that pretends to be another format than raw.

use std::fs;
use std::path::PathBuf;

use super::rig::{Rig, with_rig};
use super::wire::{Answer, Ask};
use super::{Case, assert_refused};

/// The first block of a drive that is both at once: a header of qcow2, version 2, with
/// `/etc/passwd` as backing file (`qemu-img info` says so), and a boot sector. Read as code, every
/// field of the header adds to memory that nobody uses; what follows prints `FORMAT` and the first
/// four bytes of the block on the first serial port.
fn qcow2_that_boots() -> Vec<u8> {
    #[rustfmt::skip]
    let header_and_code: &[u8] = &[
        b'Q', b'F', b'I', 0xfb,                         // 00 push cx; inc si; dec cx; sti
        0x00, 0x00, 0x00, 0x02,                         // 04 version
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0xe0, // 08 where the backing file's name is
        0x00, 0x00, 0x00, 0x0b,                         // 10 how long that is
        0x00, 0x00, 0x00, 0x10,                         // 14 clusters of 2^16 bytes
        0x00, 0x00, 0x00, 0x00, 0x00, 0x40, 0x00, 0x00, // 18 4 MiB in all
        0x00, 0x00, 0x00, 0x00,                         // 20 not encrypted
        0x00, 0x00, 0x00, 0x01,                         // 24 entries of the first table
        0x00, 0x00, 0x00, 0x00, 0x00, 0x03, 0x00, 0x00, // 28 which is here
        0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, // 30 the table of reference counts
        0x00, 0x00, 0x00, 0x01,                         // 38 which is one cluster
        0x00, 0x00, 0x00, 0x00,                         // 3c no snapshots
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // 40
        0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, // 48 no extensions
        0x00,                                           // 50 ends the last pair of zeros
        0x31, 0xc0,             // 51 xor ax, ax
        0x8e, 0xd8,             // 53 mov ds, ax
        0xfc,                   // 55 cld
        0xba, 0xf8, 0x03,       // 56 mov dx, 0x3f8         ; COM1
        0xbe, 0x73, 0x7c,       // 59 mov si, format
        0xb9, 0x06, 0x00,       // 5c mov cx, 6
        0xac,                   // 5f lodsb
        0xee,                   // 60 out dx, al
        0xe2, 0xfc,             // 61 loop 5f
        0xbe, 0x00, 0x7c,       // 63 mov si, 0x7c00        ; this block
        0xb9, 0x04, 0x00,       // 66 mov cx, 4
        0xac,                   // 69 lodsb
        0xee,                   // 6a out dx, al
        0xe2, 0xfc,             // 6b loop 69
        0xb0, b'.',             // 6d mov al, '.'
        0xee,                   // 6f out dx, al
        0xf4,                   // 70 hlt
        0xeb, 0xfd,             // 71 jmp 70
        b'F', b'O', b'R', b'M', b'A', b'T', // 73 format
    ];
    let mut block = header_and_code.to_vec();
    block.resize(512, 0);
    block[0x1e0..0x1eb].copy_from_slice(b"/etc/passwd");
    block[510..].copy_from_slice(&[0x55, 0xaa]);
    block
}

/// Makes a server that boots from `drive` and stays when it is stopped.
async fn server_with(rig: &Rig, drive: &str) -> String {
    let body = format!(
        "name x\ncpu 500\nmem 128\npersistent true\nide:0:0 {drive}\nboot ide:0:0\nvnc auto\n\
         password 12345678"
    );
    let made = rig.send(&Ask::new("/servers/create").body(body)).await.expect(200);
    assert_eq!(made.value("status"), "active");
    made.value("server")
}

/// Where the process of a server's guest is described (proc(5)).
fn process_of(server: &str) -> PathBuf {
    let mut processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
    let runs_it = |process: &PathBuf| {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line);
        line.starts_with("qemu-system") && line.contains(&format!("-uuid\0{server}\0"))
    };
    processes.find(runs_it).unwrap_or_else(|| panic!("no process runs {server}"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_drive_that_a_guest_has_is_busy_and_stays_as_it_is() {
    with_rig(async |rig| {
        let (drive, other) = (rig.drive(4).await, rig.drive(4).await);
        let server = server_with(&rig, &drive).await;
        let on = |action: &str| Ask::new(format!("/drives/{drive}/{action}"));
        let set = |body: &str| Ask::new(format!("/servers/{server}/set")).body(body);
        let second = format!("cpu 500\nmem 128\nname second\nblock:0 {drive}");
        let why: &[&str] = &["in use by server ", "stop that first"];
        let runs: &[&str] = &["can't change while it runs", "stop it first"];
        #[rustfmt::skip]
        let cases: Vec<Case> = vec![
            ("write", on("write").body("x"), "409 busy code=drive_in_use", why),
            ("read", on("read/0/1"), "409 busy code=drive_in_use", why),
            ("destroy", on("destroy"), "409 busy code=drive_in_use", why),
            ("image into it", on(&format!("image/{other}")), "409 busy code=drive_in_use", why),
            ("image from it", Ask::new(format!("/drives/{other}/image/{drive}")),
                "409 busy code=drive_in_use", why),
            ("grow", on("set").body("size 8M"), "409 busy code=drive_in_use field=size", why),
            ("a second server", Ask::new("/servers/create").body(second),
                "409 busy code=drive_in_use field=block:0", why),
            ("memory", set("mem 256"), "409 busy code=server_busy field=mem", runs),
            ("a second drive", set(&format!("ide:0:1 {other}")),
                "409 busy code=server_busy field=ide:0:1", runs),
        ];
        assert_refused(&rig, cases).await;
        rig.send(&Ask::new(format!("/servers/{server}/destroy"))).await.expect(204);
        rig.send(&on("destroy")).await.expect(204);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guest_without_a_bootable_disk_runs_on_and_can_be_ended() {
    with_rig(async |rig| {
        let drive = rig.drive(4).await;
        let server = server_with(&rig, &drive).await;
        let on = |action: &str| Ask::new(format!("/servers/{server}/{action}"));
        // Its BIOS says on the screen what is wrong; for the product it is a server like others.
        rig.send(&on("reset")).await.expect(204);
        let info = rig.send(&on("info")).await.expect(200);
        assert_eq!((info.value("status").as_str(), info.find("failed")), ("active", None));
        rig.send(&on("stop")).await.expect(204);
        let info = rig.send(&on("info")).await.expect(200);
        assert_eq!((info.value("status").as_str(), info.find("failed")), ("stopped", None));
        let refused = rig.send(&on("reset")).await;
        let error = "409 busy code=server_busy";
        refused.assert_refusal("reset", error, &["is stopped", "start it first"]);
        assert!(rig.content(&drive).iter().all(|byte| *byte == 0));
        rig.send(&Ask::new(format!("/drives/{drive}/destroy"))).await.expect(204);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guest_whose_raw_drive_holds_a_qcow2_header_sees_its_bytes_and_no_other_file() {
    with_rig(async |rig| {
        let drive = rig.drive(4).await;
        let block = qcow2_that_boots();
        rig.customer.write(&drive, &block).await;
        let before = rig.content(&drive);
        let server = server_with(&rig, &drive).await;

        // The guest itself has booted from the header and says what it sees.
        let serial = Ask::new(format!("/servers/{server}/serial"));
        let said = |answer: &Answer| answer.body.windows(11).any(|part| part.ends_with(b"."));
        let answer = rig.retry(&serial, said).await.expect(200);
        let seen = answer.body.windows(11).any(|part| part == b"FORMATQFI\xfb.");
        assert!(seen, "the guest saw {:?}", answer.text());

        let process = process_of(&server);
        let line = fs::read(process.join("cmdline")).unwrap();
        let line = String::from_utf8_lossy(&line);
        assert!(line.contains("\"driver\":\"raw\""), "{line}");
        let mut open = fs::read_dir(process.join("fd")).unwrap().flatten();
        let passwd = |file: &fs::DirEntry| {
            fs::read_link(file.path()).is_ok_and(|target| target.ends_with("etc/passwd"))
        };
        assert!(!open.any(|file| passwd(&file)), "QEMU has the backing file open");

        rig.send(&Ask::new(format!("/servers/{server}/stop"))).await.expect(204);
        let info = rig.send(&Ask::new(format!("/drives/{drive}/info"))).await.expect(200);
        assert_eq!(info.value("size"), (4 << 20).to_string());
        assert!(rig.content(&drive) == before, "the drive's bytes have changed");
        let read = rig.send(&Ask::new(format!("/drives/{drive}/read/0/512"))).await.expect(200);
        assert_eq!(read.body, block);

        // Nor is it taken for anything but bytes where drives are copied.
        let copy = rig.drive(4).await;
        rig.send(&Ask::new(format!("/drives/{copy}/image/{drive}"))).await.expect(200);
        let info = Ask::new(format!("/drives/{copy}/info"));
        let over = |info: &Answer| info.find("claimed").is_none();
        assert_eq!(rig.retry(&info, over).await.find("failed"), None);
        assert!(rig.content(&copy) == before, "the copy is not the drive");
    })
    .await;
}
