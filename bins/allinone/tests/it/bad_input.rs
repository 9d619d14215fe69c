//! Bad input against the real product: each is refused with the documented status, keyword, code
//! and field, in a sentence that says what was wrong and what is allowed; and nothing is half done,
//! which is to say that everything that can be seen from outside is as it was before.

mod guest;
mod imaging;
mod rig;
mod wire;

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use uuid::Uuid;

use self::rig::{CAPACITY, Rig, with_rig};
use self::wire::Ask;

/// A request, and the refusal that must come: what it is, status and error header, words of the
/// sentence.
type Case = (&'static str, Ask, &'static str, &'static [&'static str]);

/// Sends each and looks after each whether anything has changed.
async fn assert_refused(rig: &Rig, cases: Vec<Case>) {
    let before = rig.seen().await;
    for (what, ask, error, says) in cases {
        rig.send(&ask).await.assert_refusal(what, error, says);
        Rig::assert_unchanged(&before, &rig.seen().await, what);
    }
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bad_record_is_refused_with_the_key_to_blame_and_makes_nothing() {
    with_rig(async |rig| {
        let drive = rig.drive(8).await;
        let create = |body: &str| Ask::new("/drives/create").body(format!("name x\n{body}"));
        let set = |body: &str| Ask::new(format!("/drives/{drive}/set")).body(body);
        let server = |body: &str| {
            let body = format!("name x\ncpu 500\nmem 128\n{body}");
            Ask::new("/servers/create").body(body)
        };
        let long_name = "n".repeat(81);
        #[rustfmt::skip]
        let cases: Vec<Case> = vec![
            // unknown keys
            ("a misspelt key", create("size 4M\nsise 4M"),
                "400 usage code=unknown_key field=sise", &["\"sise\"", "list of keys"]),
            ("another object's key", create("size 4M\ncpu 500"),
                "400 usage code=unknown_key field=cpu", &["\"cpu\""]),
            ("a device too many", server("ide:0:2 x"),
                "400 usage code=unknown_key field=ide:0:2", &["\"ide:0:2\""]),
            ("a key of answers", create("size 4M\nclaimed x"),
                "400 usage code=invalid_value field=claimed", &["only in answers", "leave it out"]),
            ("a key that is fixed", set("tier ssd"),
                "400 usage code=invalid_value field=tier", &["is fixed"]),
            ("a key that is no word", create("size 4M\n\u{1b}[31m x"),
                "400 usage code=unknown_key", &["list of keys"]),
            ("a key of two lines", Ask::new("/drives/create").json(r#"{"size": "4M", "user:a\nstatus": "x"}"#),
                "400 usage code=unknown_key", &["list of keys"]),
            ("a key of two words", Ask::new("/drives/create").json(r#"{"size": "4M", "user:a b": "x"}"#),
                "400 usage code=unknown_key", &["list of keys"]),
            ("a long key", create(&format!("size 4M\nuser:{long_name} x")),
                "400 usage code=unknown_key", &["list of keys"]),
            // keys that are missing
            ("no size", create(""),
                "400 usage code=missing_key field=size", &["size is missing", "bytes"]),
            ("an empty size", create("size "),
                "400 usage code=missing_key field=size", &["size is missing"]),
            ("no cpu", Ask::new("/servers/create").body("name x\nmem 128"),
                "400 usage code=missing_key field=cpu", &["cpu is missing", "MHz"]),
            // wrong units
            ("a decimal size", create("size 1.5G"),
                "400 usage code=invalid_value field=size", &["\"1.5G\"", "whole number", "k, M, G or T"]),
            ("a unit of two letters", create("size 4MB"),
                "400 usage code=invalid_value field=size", &["\"4MB\"", "k, M, G or T"]),
            ("a unit alone", create("size G"),
                "400 usage code=invalid_value field=size", &["\"G\""]),
            ("processor time in GHz", server("cpu 2GHz"),
                "400 usage code=invalid_value field=cpu", &["\"2GHz\"", "500 to 100000"]),
            ("memory in GB", server("mem 1GB"),
                "400 usage code=invalid_value field=mem", &["\"1GB\"", "128 to 1048576"]),
            ("other digits", server("mem ٢٥٦"),
                "400 usage code=invalid_value field=mem", &["whole number"]),
            // overflow
            ("a size past 64 bits", create("size 18446744073709551616"),
                "400 usage code=invalid_value field=size", &["up to 9223372036854775807"]),
            ("a suffix past 64 bits", create("size 99999999999T"),
                "400 usage code=invalid_value field=size", &["up to 9223372036854775807"]),
            ("a size that can't be rounded up", create("size 9223372036854775807"),
                "400 usage code=invalid_value field=size", &["the largest is"]),
            ("a negative size", create("size -1"),
                "400 usage code=invalid_value field=size", &["\"-1\"", "whole number"]),
            ("memory past 32 bits", server("mem 4294967424"),
                "400 usage code=invalid_value field=mem", &["128 to 1048576"]),
            ("virtual CPUs past 8 bits", server("smp 257"),
                "400 usage code=invalid_value field=smp", &["1 to 64"]),
            // absurd sizes
            ("a drive larger than the array", create("size 1T"),
                "507 full code=no_capacity", &["asked for 1099511627776", "bytes"]),
            ("a drive grown past the array", set("size 1T"),
                "507 full code=no_capacity", &["asked for", "bytes"]),
            ("a server larger than the host", server("cpu 100000\nmem 1048576"),
                "507 full code=no_capacity", &["asked for", "the most to be had"]),
            ("less memory than any guest needs", server("mem 1"),
                "400 usage code=invalid_value field=mem", &["128 to 1048576"]),
            ("no processor time", server("cpu 0"),
                "400 usage code=invalid_value field=cpu", &["500 to 100000"]),
            // values of the wrong kind
            ("a name that is too long", create(&format!("size 4M\nname {long_name}")),
                "400 usage code=invalid_value field=name", &["at most 80 characters"]),
            ("a name of two lines", create("size 4M\nname a\\nb"),
                "400 usage code=invalid_value field=name", &["control characters"]),
            ("a name of nothing", create("size 4M\nname    "),
                "400 usage code=invalid_value field=name", &["at least one character"]),
            ("a NUL", create("size 4M\nuser:x a\0b"),
                "400 usage code=invalid_value field=user:x", &["without NUL"]),
            ("readers that are no accounts", set("readers bob"),
                "400 usage code=invalid_value field=readers", &["\"bob\""]),
            ("a drive that is a path", server("ide:0:0 ../../etc/passwd"),
                "400 usage code=invalid_value field=ide:0:0", &["\"../../etc/passwd\""]),
            ("a drive that is not there", server(&format!("ide:0:0 {}", Uuid::new_v4())),
                "404 missing code=not_found field=ide:0:0", &["could not be found"]),
            ("a drive plugged in twice", server(&format!("ide:0:0 {drive}\nide:0:1 {drive}")),
                "409 busy code=drive_in_use field=ide:0:1", &["plug it in once"]),
            ("a boot device without a drive", server("boot ide:0:0"),
                "400 usage code=invalid_value field=boot", &["has no drive"]),
            ("a flag of another language", server("persistent yes"),
                "400 usage code=invalid_value field=persistent", &["true or false"]),
            ("an unknown model", server("nic:0:model ne2000"),
                "400 usage code=invalid_value field=nic:0:model", &["e1000 or rtl8139 or virtio"]),
            ("a QEMU option in a value", server("nic:0:model e1000,romfile=/etc/passwd"),
                "400 usage code=invalid_value field=nic:0:model", &["e1000 or"]),
            ("a long password", server("password 123456789"),
                "400 usage code=invalid_value field=password", &["at most 8 characters"]),
            // promises that are not kept here
            ("encryption", create("size 4M\nencryption:cipher aes-xts-plain"),
                "400 usage code=not_offered field=encryption:cipher", &["not offered", "set it to none"]),
            ("an encrypted screen", server("vnc:tls on"),
                "400 usage code=not_offered field=vnc:tls", &["not offered", "set it to off"]),
            ("a firewall", server("nic:0:firewall:policy drop"),
                "400 usage code=not_offered field=nic:0:firewall:policy", &["not offered", "leave it out"]),
        ];
        assert_refused(&rig, cases).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_that_cannot_be_read_is_refused_and_makes_nothing() {
    with_rig(async |rig| {
        let drive = rig.drive(8).await;
        let create = || Ask::new("/drives/create");
        let lines = "name x\n".repeat(10_000);
        let keys: String = (0..=1_000).map(|n| format!("user:{n} x\n")).collect();
        let long = format!("size 4M\nname {}", "x".repeat(1 << 20));
        let nested = "[".repeat(100_000);
        let pairs = "name=x&".repeat(1_001) + "size=4M&user:%";
        let text = || "size 4M\nname cut off in the middle";
        let packed = gzip(text().as_bytes());
        let bomb = gzip(&vec![b'x'; 64 << 20]);
        #[rustfmt::skip]
        let cases: Vec<Case> = vec![
            ("a truncated body", create().body(text()).cut_after(10),
                "400 usage code=malformed_body", &["ended early", "send it again"]),
            ("10,000 lines", create().body(lines),
                "400 usage code=malformed_body", &["10001 lines", "at most 10000"]),
            ("1,001 keys", create().body(keys),
                "400 usage code=malformed_body", &["at most 1000 keys"]),
            ("more than a mebibyte", create().body(long),
                "400 usage code=malformed_body", &["too long", "at most 1 MiB"]),
            ("no UTF-8", create().body(&b"size 4M\nname \xff\xfe"[..]),
                "400 usage code=malformed_body", &["not UTF-8", "in UTF-8"]),
            ("UTF-16", create().body(&b"\xff\xfes\0i\0z\0e\0"[..]),
                "400 usage code=malformed_body", &["not UTF-8"]),
            ("two objects", create().body("size 4M\n\nsize 4M"),
                "400 usage code=malformed_body", &["one object was expected"]),
            ("a line without a key", create().body(" size 4M"),
                "400 usage code=malformed_body", &["begins with a space"]),
            ("JSON that is cut", create().json("{\"size\": "),
                "400 usage code=malformed_body", &["not JSON"]),
            ("JSON that is a list", create().json("[1]"),
                "400 usage code=malformed_body", &["not an object"]),
            ("JSON that is nested", create().json("{\"size\": {\"a\": 1}}"),
                "400 usage code=malformed_body", &["\"size\" is nested", "send text, a number"]),
            ("JSON that is very deep", create().json(nested),
                "400 usage code=malformed_body", &["not JSON"]),
            ("JSON that is no UTF-8", create().json(&b"{\"name\": \"\xff\"}"[..]),
                "400 usage code=malformed_body", &["not JSON"]),
            ("a form with a broken escape", create().form(pairs),
                "400 usage code=malformed_body", &["broken % escape"]),
            ("a form that is no UTF-8", create().form("size=4M&name=%ff"),
                "400 usage code=malformed_body", &["not UTF-8"]),
            ("gzip that is cut", create().gzip(&packed[..packed.len() - 9]),
                "400 usage code=malformed_body", &["not whole gzip"]),
            ("text that says it is gzip", create().gzip(text()),
                "400 usage code=malformed_body", &["not whole gzip"]),
            ("a gzip bomb as a record", create().gzip(bomb.clone()),
                "400 usage code=malformed_body", &["at most 1 MiB after decompression"]),
            ("an unknown encoding", create().header("Content-Encoding", "br").body(text()),
                "400 usage code=malformed_body", &["\"br\"", "send gzip or none"]),
            ("a gzip bomb as bytes", Ask::new(format!("/drives/{drive}/write")).gzip([&bomb[..], &gzip(b"one more")].concat()),
                "400 usage code=malformed_body", &["at most 64 MiB after decompression"]),
        ];
        assert_refused(&rig, cases).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_past_a_drives_end_are_neither_read_nor_written() {
    with_rig(async |rig| {
        let drive = rig.drive(4).await;
        let write =
            |at: &str, body: &[u8]| Ask::new(format!("/drives/{drive}/write{at}")).body(body);
        let read = |what: &str| Ask::new(format!("/drives/{drive}/read/{what}"));
        #[rustfmt::skip]
        let cases: Vec<Case> = vec![
            ("one byte past", write("/4194300", b"12345"),
                "400 usage code=invalid_value field=offset", &["5 bytes from byte 4194300", "end at byte 4194304"]),
            ("all of it past", write("/4M", b"1"),
                "400 usage code=invalid_value field=offset", &["end at byte 4194304"]),
            ("more than the drive", write("", &vec![1; (4 << 20) + 1]),
                "400 usage code=invalid_value field=offset", &["end at byte 4194304"]),
            ("gzip of more than the drive", Ask::new(format!("/drives/{drive}/write")).gzip(gzip(&vec![1; (4 << 20) + 1])),
                "400 usage code=invalid_value field=offset", &["end at byte 4194304"]),
            ("an offset near the largest", write("/9223372036854775807", b"12"),
                "400 usage code=invalid_value field=offset", &["end at byte 4194304"]),
            ("an offset past the largest", write("/9223372036854775808", b"1"),
                "400 usage code=invalid_value field=offset", &["up to 9223372036854775807"]),
            ("a negative offset", write("/-1", b"1"),
                "400 usage code=invalid_value field=offset", &["\"-1\"", "k, M, G or T"]),
            ("a truncated body", write("", &[7; 4096]).cut_after(1000),
                "400 usage code=malformed_body", &["ended early", "send it again"]),
            ("a body over 64 MiB", write("", &vec![1; (64 << 20) + 1]),
                "400 usage code=malformed_body", &["at most 64 MiB"]),
            ("reading past the end", read("4M/1"),
                "400 usage code=invalid_value field=offset", &["end at byte 4194304"]),
            ("reading too much", read("0/5M"),
                "400 usage code=invalid_value field=size", &["at most 4 MiB"]),
            ("reading a negative size", read("0/-1"),
                "400 usage code=invalid_value field=size", &["\"-1\""]),
        ];
        assert_refused(&rig, cases).await;
        assert!(rig.content(&drive).iter().all(|byte| *byte == 0), "something was written");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_belongs_to_others_looks_as_if_it_were_not_there() {
    with_rig(async |rig| {
        let (own, theirs) = (rig.drive(4).await, rig.stranger.drive(4).await);
        let body = "cpu 500\nmem 128\nname theirs";
        let server = rig.stranger.send(&Ask::new("/servers/create/stopped").body(body)).await;
        let server = server.expect(200).value("server");
        let drive = |action: &str| Ask::new(format!("/drives/{theirs}/{action}"));
        let power = |action: &str| Ask::new(format!("/servers/{server}/{action}"));
        let make = |key: &str| {
            Ask::new("/servers/create").body(format!("cpu 500\nmem 128\n{key} {theirs}"))
        };
        let nobodys = format!("/drives/{}/info", Uuid::new_v4());
        let (no_drive, no_server): (&[&str], &[&str]) =
            (&["the drive could not be found"], &["the server could not be found"]);
        #[rustfmt::skip]
        let cases: Vec<Case> = vec![
            ("nobody's drive", Ask::new(nobodys),
                "404 missing code=not_found", no_drive),
            ("info", drive("info"),
                "404 missing code=not_found", no_drive),
            ("set", drive("set").body("name mine"),
                "404 missing code=not_found", no_drive),
            ("destroy", drive("destroy"),
                "404 missing code=not_found", no_drive),
            ("read", drive("read/0/1"),
                "404 missing code=not_found", no_drive),
            ("write", drive("write").body("x"),
                "404 missing code=not_found", no_drive),
            ("image into it", drive(&format!("image/{own}")),
                "404 missing code=not_found", no_drive),
            ("image from it", Ask::new(format!("/drives/{own}/image/{theirs}")),
                "404 missing code=not_found field=source", no_drive),
            ("gunzip from it", Ask::new(format!("/drives/{own}/image/{theirs}/gunzip")),
                "404 missing code=not_found field=source", no_drive),
            ("avoid it", Ask::new("/drives/create").body(format!("size 4M\navoid {theirs}")),
                "404 missing code=not_found field=avoid", no_drive),
            ("plug it in", make("ide:0:0"),
                "404 missing code=not_found field=ide:0:0", no_drive),
            ("server info", power("info"),
                "404 missing code=not_found", no_server),
            ("server set", power("set").body("name mine"),
                "404 missing code=not_found", no_server),
            ("start", power("start"),
                "404 missing code=not_found", no_server),
            ("stop", power("stop"),
                "404 missing code=not_found", no_server),
            ("shutdown", power("shutdown"),
                "404 missing code=not_found", no_server),
            ("reset", power("reset"),
                "404 missing code=not_found", no_server),
            ("server destroy", power("destroy"),
                "404 missing code=not_found", no_server),
            ("serial", power("serial"),
                "404 missing code=not_found", no_server),
        ];
        assert_refused(&rig, cases).await;
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_trick_in_a_path_or_a_name_leads_out_of_the_api() {
    with_rig(async |rig| {
        let drive = rig.drive(4).await;
        let no_call: &[&str] = &["no such call", "see the list of calls"];
        let no_drive: &[&str] = &["the drive could not be found"];
        let long = "x".repeat(8_000);
        #[rustfmt::skip]
        let mut cases: Vec<Case> = vec![
            ("GET of a change", Ask::new(format!("/drives/{drive}/destroy")).method("GET"),
                "405 method code=method_not_allowed", &["is called with POST"]),
            ("DELETE", Ask::new(format!("/drives/{drive}/info")).method("DELETE"),
                "405 method code=method_not_allowed", &["GET, POST"]),
        ];
        for (what, path, says) in [
            ("an id with a suffix", &*format!("/drives/{drive}.raw/info"), no_drive),
            ("an id with a NUL", &format!("/drives/{drive}%00/info"), no_drive),
            ("a long id", &format!("/drives/{long}/info"), no_drive),
            ("dots", "/drives/../info", no_drive),
            ("escaped slashes", "/drives/..%2f..%2f..%2fetc%2fpasswd/info", no_drive),
            ("escaped dots", "/drives/%2e%2e/info", no_drive),
            ("backslashes", "/drives/..\\..\\etc/info", no_drive),
            ("the name of a parameter", "/drives/DRIVE/info", no_drive),
            ("dots that lead up", "/drives/../../etc/passwd", no_call),
            ("a file", "/etc/passwd", no_call),
            ("nothing", "/", no_call),
            ("capitals", "/Drives/list", no_call),
            ("the internal API", "/v1/reports", no_call),
        ] {
            cases.push((what, Ask::new(path), "404 missing code=not_found", says));
        }
        assert_refused(&rig, cases).await;

        // As a name, all of this is only text: it comes back as it was and names no file.
        let before = rig.seen().await;
        for name in
            ["../../../../tmp/x", "/etc/passwd", "a\\b", "$(reboot)", "a,format=qcow2", "%00%2e"]
        {
            let set = Ask::new(format!("/drives/{drive}/set"))
                .json(serde_json::json!({ "name": name }).to_string());
            let info = rig.send(&set.header("Accept", "application/json")).await.expect(200);
            let info: serde_json::Value = serde_json::from_slice(&info.body).unwrap();
            assert_eq!(info["name"], name);
        }
        rig.send(&Ask::new(format!("/drives/{drive}/set")).body("name d")).await.expect(200);
        Rig::assert_unchanged(&before, &rig.seen().await, "tricks in names");
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_array_takes_what_still_fits_and_nothing_more() {
    with_rig(async |rig| {
        let mib = |bytes: u64| bytes >> 20;
        let (first, second) = (rig.drive(64).await, rig.drive(16).await);
        let left = mib(CAPACITY.get()) - 80;
        let create = |mib: u64| Ask::new("/drives/create").body(format!("size {mib}M\nname x"));
        let grow =
            |mib: u64| Ask::new(format!("/drives/{second}/set")).body(format!("size {mib}M"));
        #[rustfmt::skip]
        let cases: Vec<Case> = vec![
            ("one granule too many", create(left + 4),
                "507 full code=no_capacity", &["not enough room on an array (bytes)", "asked for 20971520", "is 16777216"]),
            ("a byte too many", Ask::new("/drives/create").body(format!("size {}\nname x", (left << 20) + 1)),
                "507 full code=no_capacity", &["is 16777216"]),
            ("growing past the end", grow(16 + left + 4),
                "507 full code=no_capacity", &["asked for 20971520", "is 16777216"]),
        ];
        assert_refused(&rig, cases).await;
        rig.send(&grow(16 + left)).await.expect(200);
        #[rustfmt::skip]
        let cases: Vec<Case> = vec![
            ("the last granule", create(4),
                "507 full code=no_capacity", &["asked for 4194304", "is 0"]),
        ];
        assert_refused(&rig, cases).await;
        rig.send(&Ask::new(format!("/drives/{first}/destroy"))).await.expect(204);
        let room = rig.retry(&create(64), |answer| answer.status != 507).await;
        assert_eq!(room.expect(200).value("size"), (64 << 20).to_string());
    })
    .await;
}
