//! The image in its cache, and the image in real guests: what `docs/tiny.md` promises, under plain QEMU.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use flate2::read::GzDecoder;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use super::workshop::Workshop;
use super::{Args, Image, Inputs, Manifest, is_current, packed, publish, run};

const BLOCK: usize = 512;
const DISK_SIZE: usize = 4 << 20;

/// Far more than any step takes: it only ends a test that would never end.
const GUARD: Duration = Duration::from_secs(120);

#[test]
fn an_image_is_current_while_its_inputs_and_its_size_are_the_same() {
    let inputs = |kernel: &str| Inputs::from([("kernel".to_owned(), kernel.to_owned())]);
    let (cache, images) = (TempDir::new().unwrap(), TempDir::new().unwrap());
    let workshop = Workshop::open(cache.path()).unwrap();
    assert!(!is_current(images.path(), Image::Tiny, &inputs("1")), "nothing is built yet");

    let raw = workshop.write("tiny.raw", &vec![0; DISK_SIZE]).unwrap();
    let draft = packed(&workshop, &raw).unwrap();
    publish(&workshop, images.path(), Image::Tiny, &draft, inputs("1")).unwrap();
    assert!(is_current(images.path(), Image::Tiny, &inputs("1")));
    assert!(!is_current(images.path(), Image::Tiny, &inputs("2")), "another kernel");

    let image = images.path().join("tiny.gz");
    let text = fs::read(images.path().join("tiny.json")).unwrap();
    let manifest: Manifest = serde_json::from_slice(&text).unwrap();
    assert_eq!(manifest.rawsize, Some(4 << 20));
    assert_eq!(manifest.sha256, super::hex(&Sha256::digest(fs::read(&image).unwrap())));
    fs::write(&image, "half").unwrap();
    assert!(!is_current(images.path(), Image::Tiny, &inputs("1")), "the image is cut off");
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn a_second_build_gives_the_same_bytes() {
    let first = run(Args::default()).unwrap();
    let cache = first.ancestors().nth(2).unwrap();
    let other = TempDir::new().unwrap();
    std::os::unix::fs::symlink(cache.join("debs"), other.path().join("debs")).unwrap();
    let second = run(Args { cache: Some(other.path().to_owned()), ..Args::default() }).unwrap();
    assert_ne!(first, second);
    assert!(fs::read(first).unwrap() == fs::read(second).unwrap(), "two builds differ");
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn a_guest_answers_its_nonce_and_powers_off_on_every_bus() {
    let buses = [
        (Bus::Ide, Bus::Virtio),
        (Bus::Virtio, Bus::Scsi),
        (Bus::Scsi, Bus::Ahci),
        (Bus::Ahci, Bus::Ide),
    ];
    for (boot, second) in buses {
        let mut disk = task_disk(b"ES-TINY-ANSWER-1");
        disk[16..48].copy_from_slice(&Sha256::digest(format!("{boot:?} {second:?}")));
        let mut guest = Guest::start(boot, second, &[&disk]);
        guest.wait_for_power_off();

        let written = guest.disk(0);
        let boot_id = guest.boot_ids().pop().expect("the guest said its boot id");
        assert_eq!(&written[544..580], boot_id.as_bytes(), "{boot:?} {second:?}");
        let mut expected = Sha256::new();
        expected.update(&disk[16..48]);
        expected.update(&boot_id);
        assert_eq!(written[512..544], expected.finalize()[..], "{boot:?} {second:?}");
        disk[512..580].copy_from_slice(&written[512..580]);
        assert!(written == disk, "{boot:?} {second:?}: bytes outside the answer changed");
    }
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn appending_goes_on_after_a_reset_until_the_power_button() {
    let mut guest = Guest::start(Bus::Virtio, Bus::Virtio, &[&task_disk(b"ES-TINY-APPEND-1")]);
    guest.wait("ten records", |guest| guest.records().len() >= 10);
    guest.command("system_reset");
    guest.wait("a second boot", |guest| guest.boot_ids().len() == 2);
    let before = guest.records().len();
    guest.wait("ten more records", |guest| guest.records().len() >= before + 10);
    guest.command("system_powerdown");
    guest.wait_for_power_off();

    let (records, boot_ids) = (guest.records(), guest.boot_ids());
    let first = records.iter().filter(|record| record.starts_with(&boot_ids[0])).count();
    for (index, record) in records.iter().enumerate() {
        let (boot_id, count) = if index < first {
            (&boot_ids[0], index + 1)
        } else {
            (&boot_ids[1], index + 1 - first)
        };
        assert_eq!(record.trim_end(), format!("{boot_id} {count:010}"), "record {index}");
    }
    let end = (1 + records.len()) * BLOCK;
    assert!(guest.disk(0)[end..].iter().all(|byte| *byte == 0), "bytes after the last record");
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn appending_starts_after_the_last_record_and_stops_at_the_count_asked_for() {
    let mut disk = task_disk(b"ES-TINY-APPEND-1");
    disk[16..20].copy_from_slice(b"0008");
    disk[BLOCK..4 * BLOCK].fill(b'x');
    let mut guest = Guest::start(Bus::Ide, Bus::Scsi, &[&disk]);
    guest.wait_for_power_off();
    let written = guest.disk(0);
    assert!(written[..4 * BLOCK] == disk[..4 * BLOCK], "what was there changed");
    let boot_id = guest.boot_ids().pop().expect("the guest said its boot id");
    let counts: Vec<_> = guest.records().split_off(3);
    let expected: Vec<_> =
        (1..=8).map(|count| format!("{boot_id} {count:010}{:464}\n", "")).collect();
    assert_eq!(counts, expected);
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn a_disk_that_asks_for_no_task_stays_the_same() {
    let mut own = task_disk(b"ES-TINY-ANSWER-1");
    own[BLOCK..BLOCK + 16].copy_from_slice(b"ES-TINY-BOOTDISK");
    let mut shifted = task_disk(b"\0ES-TINY-ANSWER-");
    shifted[16] = b'1';
    let mut split = task_disk(b"ES-TINY-\0ANSWER-");
    split[16] = b'1';
    let disks = [
        task_disk(b"ES-TINY-ANSWER-2"),
        task_disk(b"es-tiny-append-1"),
        task_disk(&[0xff; 16]),
        shifted,
        split,
        own,
    ];
    let disks: Vec<&[u8]> = disks.iter().map(Vec::as_slice).collect();
    let mut guest = Guest::start(Bus::Ide, Bus::Virtio, &disks);
    guest.wait("the verdict", |guest| guest.serial().contains("no task, disks left alone"));
    guest.command("system_powerdown");
    guest.wait_for_power_off();
    let line = "tiny: no task, disks left alone: vda vdb vdc vdd vde\r\n";
    assert!(guest.serial().contains(line), "{}", guest.serial());
    for (index, disk) in disks.iter().enumerate() {
        assert!(guest.disk(index) == *disk, "disk {index} changed");
    }
}

/// A disk of zeros but for its magic.
fn task_disk(magic: &[u8; 16]) -> Vec<u8> {
    let mut disk = vec![0; DISK_SIZE];
    disk[..16].copy_from_slice(magic);
    disk
}

#[derive(Clone, Copy, Debug)]
enum Bus {
    Ide,
    Ahci,
    Virtio,
    Scsi,
}

impl Bus {
    /// The controller, if the machine has none, and a disk on it.
    fn devices(self, drive: &str) -> Vec<String> {
        match self {
            Self::Ide => vec![format!("ide-hd,drive={drive}")],
            Self::Ahci => vec![
                format!("ahci,id=ahci-{drive}"),
                format!("ide-hd,drive={drive},bus=ahci-{drive}.0"),
            ],
            Self::Virtio => vec![format!("virtio-blk-pci,drive={drive}")],
            Self::Scsi => vec![
                format!("virtio-scsi-pci,id=scsi-{drive}"),
                format!("scsi-hd,drive={drive},bus=scsi-{drive}.0"),
            ],
        }
    }
}

/// A QEMU process with its files.
struct Guest {
    _process: Process,
    qmp: BufReader<UnixStream>,
    directory: TempDir,
    image: Vec<u8>,
}

impl Guest {
    #[track_caller]
    fn start(boot: Bus, others: Bus, disks: &[&[u8]]) -> Self {
        let mut image = Vec::new();
        let packed = fs::File::open(run(Args::default()).unwrap()).unwrap();
        GzDecoder::new(packed).read_to_end(&mut image).unwrap();

        let directory = TempDir::new().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        fs::write(path("boot"), &image).unwrap();
        let mut qemu = Command::new("qemu-system-x86_64");
        qemu.args(["-machine", "pc", "-accel", "tcg", "-m", "256", "-nodefaults"])
            .args(["-display", "none", "-action", "shutdown=pause,panic=pause"])
            .args(["-serial", &format!("file:{}", path("serial"))])
            .args(["-qmp", &format!("unix:{},server=on,wait=off", path("qmp"))]);
        let mut attach = |name: &str, bus: Bus, options: &str| {
            qemu.args(["-drive", &format!("file={},format=raw,if=none,id={name}", path(name))]);
            let mut devices = bus.devices(name);
            devices.last_mut().unwrap().push_str(options);
            for device in devices {
                qemu.args(["-device", &device]);
            }
        };
        attach("boot", boot, ",bootindex=0");
        for (index, disk) in disks.iter().enumerate() {
            let name = format!("disk{index}");
            fs::write(path(&name), disk).unwrap();
            attach(&name, others, "");
        }
        let process = qemu.stdin(Stdio::null()).spawn().expect("start qemu-system-x86_64");
        let process = Process(process);
        let qmp = connect(&directory.path().join("qmp"));
        let mut guest = Self { _process: process, qmp, directory, image };
        guest.command("qmp_capabilities");
        guest
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn disk(&self, index: usize) -> Vec<u8> {
        fs::read(self.path(&format!("disk{index}"))).unwrap()
    }

    fn serial(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.path("serial")).unwrap_or_default()).into_owned()
    }

    fn boot_ids(&self) -> Vec<String> {
        let serial = self.serial();
        let complete = serial.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        complete
            .filter_map(|line| Some(line.split_once("tiny: up, boot id ")?.1.trim().to_owned()))
            .collect()
    }

    /// The blocks of the first disk from block 1 on, up to the first that is empty.
    fn records(&self) -> Vec<String> {
        self.disk(0)
            .chunks(BLOCK)
            .skip(1)
            .take_while(|block| block[0] != 0)
            .map(|block| String::from_utf8(block.to_vec()).unwrap())
            .collect()
    }

    fn command(&mut self, name: &str) -> Value {
        writeln!(self.qmp.get_mut(), "{}", json!({ "execute": name })).unwrap();
        loop {
            let mut line = String::new();
            assert_ne!(self.qmp.read_line(&mut line).unwrap(), 0, "QEMU ended at {name}");
            let mut message: Value = serde_json::from_str(&line).unwrap();
            assert!(message.get("error").is_none(), "{name}: {message}");
            if let Some(answer) = message.get_mut("return") {
                return answer.take();
            }
        }
    }

    #[track_caller]
    fn wait(&mut self, what: &str, mut reached: impl FnMut(&mut Self) -> bool) {
        let deadline = Instant::now() + GUARD;
        while !reached(self) {
            assert!(Instant::now() < deadline, "no {what}; the guest said:\n{}", self.serial());
            thread::sleep(Duration::from_millis(100));
        }
    }

    /// Waits for the guest's own end, and checks that it never wrote to the disk it booted from.
    #[track_caller]
    fn wait_for_power_off(&mut self) {
        self.wait("power-off", |guest| guest.command("query-status")["status"] == "shutdown");
        assert!(fs::read(self.path("boot")).unwrap() == self.image, "the boot disk changed");
    }
}

/// Ended when it is dropped, however the test ends.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn connect(socket: &Path) -> BufReader<UnixStream> {
    let deadline = Instant::now() + GUARD;
    loop {
        match UnixStream::connect(socket) {
            Ok(stream) => {
                stream.set_read_timeout(Some(GUARD)).unwrap();
                return BufReader::new(stream);
            }
            Err(error) => assert!(Instant::now() < deadline, "connect to QMP: {error}"),
        }
        thread::sleep(Duration::from_millis(50));
    }
}
