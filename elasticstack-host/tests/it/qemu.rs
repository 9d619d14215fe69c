//! The QEMU hypervisor against real guests.

use std::fs::{self, File};
use std::io::Read;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use elasticstack_core::block::Attachment;
use elasticstack_core::error::ErrorKind;
use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::{
    Access, Console, DriveSlot, EndCause, Hypervisor, IoLimits, Media, Nic, NicModel, Phase, Seed,
    ServerSpec, Signal,
};
use elasticstack_core::id::ServerId;
use elasticstack_core::secret::Secret;
use elasticstack_core::units::{Bytes, MegaHertz, VcpuCount};
use elasticstack_host::guests::{Guests, Scope};
use rustix::process::{Pid, Resource, Rlimit, kill_process, prlimit};
use serde_json::Value;

use crate::guest_code::{self, Command};
use crate::qemu_rig::Rig;

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guest_starts_speaks_and_is_removed_without_a_trace() {
    let rig = Rig::open().await;
    let spec = rig.machine.spec("1");
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    assert_eq!(rig.observe().await, [(spec.server, Run(1), Phase::Running)]);
    rig.until_serial(&spec, b"hello\r\n").await;
    let pid = rig.machine.process(&spec, Run(1)).unwrap().pid();

    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    assert_eq!(rig.machine.process(&spec, Run(1)).unwrap().pid(), pid, "the same run goes on");
    let newer = rig.qemu.ensure(&spec, Run(2)).await.unwrap_err();
    assert_eq!(newer.kind(), ErrorKind::ServerBusy);
    assert_eq!(rig.qemu.ensure(&spec, Run(0)).await.unwrap_err().kind(), ErrorKind::Stale);

    rig.qemu.remove(spec.server).await.unwrap();
    assert!(!Path::new(&format!("/proc/{pid}")).exists(), "the process is gone and reaped");
    rig.assert_nothing_left().await;
    let serial = rig.qemu.serial(spec.server).await.unwrap_err();
    assert_eq!(serial.kind(), ErrorKind::NotFound);
    rig.qemu.remove(spec.server).await.unwrap();
    rig.qemu.ensure(&spec, Run(2)).await.unwrap();
    assert_eq!(rig.observe().await, [(spec.server, Run(2), Phase::Running)]);
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guest_with_every_bus_and_card_starts() {
    let rig = Rig::open().await;
    let mut spec = rig.machine.spec("1");
    let path = rig.machine.disk("1");
    let mut media =
        [Media::Cdrom].into_iter().chain([Media::Disk, Media::Cdrom].into_iter().cycle());
    for device in ["ide:1:0", "ata:0:0", "ata:0:5", "scsi:0:0", "scsi:0:7", "block:0", "block:7"] {
        let file = path.with_file_name(format!("{device}, drive"));
        guest_code::make_disk(&file).unwrap();
        spec.drives.push(DriveSlot {
            device: device.parse().unwrap(),
            media: media.next().unwrap(),
            access: Access::Exclusive,
            attachment: Attachment::File(file),
            limits: IoLimits::default(),
        });
    }
    spec.boot = vec!["ide:0:0".parse().unwrap(), "scsi:0:0".parse().unwrap()];
    spec.nics =
        [NicModel::E1000, NicModel::Rtl8139, NicModel::Virtio].map(|model| Nic { model }).to_vec();
    spec.vcpus = VcpuCount::for_cpu(MegaHertz(8_000));
    spec.screen = Some(Secret::new("hunter22"));
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    rig.until_serial(&spec, b"hello\r\n").await;
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guest_tries_its_devices_to_boot_from_in_their_order() {
    let rig = Rig::open().await;
    for device in ["ide:1:1", "ata:0:3", "scsi:0:2", "block:4"] {
        let mut spec = rig.machine.spec(device);
        let blank = rig.machine.disk("blank");
        fs::write(&blank, vec![0; 1 << 20]).unwrap();
        let bootable = std::mem::replace(&mut spec.drives[0].attachment, Attachment::File(blank));
        let device = device.parse().unwrap();
        let (media, access) = (Media::Disk, Access::Exclusive);
        spec.drives.push(DriveSlot {
            device,
            media,
            access,
            attachment: bootable,
            limits: IoLimits::default(),
        });
        spec.boot = vec![device];
        rig.qemu.ensure(&spec, Run(1)).await.unwrap();
        rig.until_serial(&spec, b"hello\r\n").await;
        rig.qemu.remove(spec.server).await.unwrap();
    }
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guest_that_ends_itself_stays_ended_until_it_is_removed() {
    for (command, cause) in
        [(Command::PowerOff, EndCause::Guest), (Command::Panic, EndCause::Panicked)]
    {
        let mut rig = Rig::open().await;
        let spec = rig.machine.spec("1");
        rig.qemu.ensure(&spec, Run(5)).await.unwrap();
        guest_code::command(&rig.machine.disk("1"), command).unwrap();
        rig.until(&spec, Phase::Ended(cause)).await;
        assert_eq!(rig.qemu.serial(spec.server).await.unwrap(), b"hello\r\n");
        let reset = rig.qemu.signal(spec.server, Signal::Reset).await.unwrap_err();
        assert_eq!(reset.kind(), ErrorKind::NotFound);
        assert_eq!(rig.qemu.ensure(&spec, Run(5)).await.unwrap_err().kind(), ErrorKind::Stale);

        // What was recorded outlives the process it was seen on, and this one.
        let process = rig.machine.process(&spec, Run(5)).unwrap();
        process.kill().unwrap();
        process.exited().await.unwrap();
        rig.reopen().await;
        assert_eq!(rig.observe().await, [(spec.server, Run(5), Phase::Ended(cause))]);
        assert_eq!(rig.qemu.serial(spec.server).await.unwrap(), b"hello\r\n");
        rig.qemu.remove(spec.server).await.unwrap();
        rig.assert_nothing_left().await;
    }
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guests_ending_that_nobody_watched_is_found_by_the_next_agent() {
    let mut rig = Rig::open().await;
    let spec = rig.machine.spec("1");
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    rig.until_serial(&spec, b"hello\r\n").await;
    rig.reopen_after(async |machine| {
        guest_code::command(&machine.disk("1"), Command::PowerOff).unwrap();
        // A stranger on the operator's socket sees the guest stop.
        machine.operator_sees(spec.server, "\"status\": \"shutdown\"").await;
    })
    .await;
    let ended = Phase::Ended(EndCause::Guest);
    assert_eq!(rig.observe().await, [(spec.server, Run(1), ended)]);
    assert_eq!(rig.qemu.ensure(&spec, Run(1)).await.unwrap_err().kind(), ErrorKind::Stale);
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_running_guest_is_adopted_and_not_restarted() {
    let mut rig = Rig::open().await;
    let spec = rig.machine.spec("1");
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    rig.until_serial(&spec, b"hello\r\n").await;
    let pid = rig.machine.process(&spec, Run(1)).unwrap().pid();
    rig.reopen().await;
    assert_eq!(rig.observe().await, [(spec.server, Run(1), Phase::Running)]);
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    assert_eq!(rig.machine.process(&spec, Run(1)).unwrap().pid(), pid);
    assert_eq!(rig.qemu.serial(spec.server).await.unwrap(), b"hello\r\n");
    rig.qemu.remove(spec.server).await.unwrap();
    rig.assert_nothing_left().await;
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guest_whose_process_is_killed_is_lost_whoever_watched() {
    let mut rig = Rig::open().await;
    let spec = rig.machine.spec("1");
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    rig.machine.process(&spec, Run(1)).unwrap().kill().unwrap();
    rig.until(&spec, Phase::Ended(EndCause::Lost)).await;
    rig.qemu.remove(spec.server).await.unwrap();

    rig.qemu.ensure(&spec, Run(2)).await.unwrap();
    rig.reopen_after(async |machine| {
        let process = machine.process(&spec, Run(2)).unwrap();
        process.kill().unwrap();
        process.exited().await.unwrap();
    })
    .await;
    rig.until(&spec, Phase::Ended(EndCause::Lost)).await;
    assert_eq!(rig.qemu.ensure(&spec, Run(2)).await.unwrap_err().kind(), ErrorKind::Stale);
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guests_start_that_was_cut_short_is_undone_and_can_be_repeated() {
    let mut rig = Rig::open().await;
    let spec = rig.machine.spec("1");
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    rig.reopen_after(async |machine| {
        let record = machine.runtime_dir().join(spec.server.to_string()).join("run.json");
        fs::write(record, r#"{"run":1,"stage":"starting","screen":null}"#).unwrap();
    })
    .await;
    rig.assert_nothing_left().await;
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    assert_eq!(rig.observe().await, [(spec.server, Run(1), Phase::Running)]);
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn the_buttons_reset_and_power_off_the_guest() {
    let rig = Rig::open().await;
    let spec = rig.machine.spec("1");
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    rig.until_serial(&spec, b"hello\r\n").await;
    rig.qemu.signal(spec.server, Signal::Reset).await.unwrap();
    rig.until_serial(&spec, b"hello\r\nhello\r\n").await;
    assert_eq!(rig.observe().await, [(spec.server, Run(1), Phase::Running)]);
    rig.qemu.signal(spec.server, Signal::PowerButton).await.unwrap();
    rig.until(&spec, Phase::Ended(EndCause::Guest)).await;
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn full_storage_pauses_the_guest_and_ensure_lets_it_try_again() {
    let wrapper = "#!/bin/sh\ntrap '' XFSZ\nulimit -S -f 40\nexec qemu-system-x86_64 \"$@\"\n";
    let rig = Rig::with_program(wrapper).await;
    let spec = rig.machine.spec("1");
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    guest_code::command(&rig.machine.disk("1"), Command::Write).unwrap();
    rig.until(&spec, Phase::Paused).await;

    rig.qemu.signal(spec.server, Signal::Reset).await.unwrap();
    rig.until(&spec, Phase::Paused).await;

    let pid = rig.machine.process(&spec, Run(1)).unwrap().pid();
    let limit = Rlimit { current: None, maximum: None };
    prlimit(Pid::from_raw(pid), Resource::Fsize, limit).unwrap();
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    rig.until(&spec, Phase::Ended(EndCause::Guest)).await;
    let serial = rig.qemu.serial(spec.server).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&serial), "hello\r\nhello\r\nwritten\r\n");
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_process_that_says_more_and_more_does_not_fill_its_host() {
    let says =
        "#!/bin/sh\nyes 'a queue is broken' | head -c 3000000\nexec qemu-system-x86_64 \"$@\"\n";
    let rig = Rig::with_program(says).await;
    let spec = rig.machine.spec("1");
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    let log = rig.machine.runtime_dir().join(spec.server.to_string()).join("vmm.log");
    let is_short = || fs::read_to_string(&log).unwrap().starts_with("[elasticstack: what was");
    rig.machine.until(is_short).await;
    assert!(fs::metadata(&log).unwrap().len() < 1 << 20);
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guest_that_does_not_answer_is_left_alone() {
    let mut rig = Rig::open().await;
    let spec = rig.machine.spec("1");
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    let pid = rig.machine.process(&spec, Run(1)).unwrap().pid();
    let send = |signal| kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    send(rustix::process::Signal::STOP);
    rig.until(&spec, Phase::Unresponsive).await;
    let refused = rig.qemu.ensure(&spec, Run(1)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Unavailable);
    rig.reopen().await;
    assert_eq!(rig.observe().await, [(spec.server, Run(1), Phase::Unresponsive)]);

    send(rustix::process::Signal::CONT);
    rig.until(&spec, Phase::Running).await;
    assert_eq!(rig.machine.process(&spec, Run(1)).unwrap().pid(), pid);
    send(rustix::process::Signal::STOP);
    rig.qemu.remove(spec.server).await.unwrap();
    rig.assert_nothing_left().await;
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guests_screen_answers_and_its_password_is_on_no_command_line() {
    let mut rig = Rig::open().await;
    let mut spec = rig.machine.spec("1");
    spec.screen = Some(Secret::new("hunter22"));
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    rig.reopen().await;
    let address = rig.qemu.screen(spec.server).await.unwrap().expect("a screen was asked for");
    assert_eq!(address.port(), 5900);
    assert!(address.ip().is_loopback());
    let mut banner = [0; 4];
    TcpStream::connect(address).unwrap().read_exact(&mut banner).unwrap();
    assert_eq!(&banner, b"RFB ");

    let pid = rig.machine.process(&spec, Run(1)).unwrap().pid();
    let process = |file| fs::read(format!("/proc/{pid}/{file}")).unwrap();
    let told = [process("cmdline"), process("environ")].concat();
    assert!(!told.windows(8).any(|window| window == b"hunter22"));

    let without = rig.machine.spec("2");
    rig.qemu.ensure(&without, Run(1)).await.unwrap();
    assert_eq!(rig.qemu.screen(without.server).await.unwrap(), None);
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_seeded_guest_boots_its_own_disk_and_only_it_is_told_the_seed() {
    let mut rig = Rig::open().await;
    for device in ["ide:0:1", "ata:0:3", "scsi:0:2", "block:4"] {
        let mut spec = rig.machine.spec(device);
        spec.drives[0].device = device.parse().unwrap();
        spec.seed = Some(Seed {
            host_name: None,
            keys: Vec::new(),
            user_data: Some(Secret::new("#!/bin/hunter22")),
        });
        rig.qemu.ensure(&spec, Run(1)).await.unwrap();
        rig.until_serial(&spec, b"hello\r\n").await;
        rig.reopen().await;

        let seed = rig.machine.runtime_dir().join(spec.server.to_string()).join("seed.iso");
        assert_eq!(fs::metadata(&seed).unwrap().permissions().mode() & 0o777, 0o600);
        let content = fs::read(&seed).unwrap();
        assert!(content.windows(8).any(|window| window == b"hunter22"));
        let pid = rig.machine.process(&spec, Run(1)).unwrap().pid();
        let process = |file| fs::read(format!("/proc/{pid}/{file}")).unwrap();
        let told = [process("cmdline"), process("environ")].concat();
        assert!(!told.windows(8).any(|window| window == b"hunter22"));
        rig.qemu.remove(spec.server).await.unwrap();
        assert!(!seed.exists());
    }
    rig.assert_nothing_left().await;
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guests_start_that_fails_says_why_and_leaves_nothing() {
    let rig = Rig::open().await;
    let mut spec = rig.machine.spec("1");
    spec.drives[0].attachment = Attachment::File("/nowhere/secret.raw".into());
    for _ in 0..2 {
        let failure = rig.qemu.ensure(&spec, Run(1)).await.unwrap_err();
        assert_eq!(failure.kind(), ErrorKind::JobFailed);
        assert_eq!(failure.to_string(), "one of its drives cannot be opened");
        rig.assert_nothing_left().await;
    }

    let first = rig.machine.spec("2");
    rig.qemu.ensure(&first, Run(1)).await.unwrap();
    let mut second = rig.machine.spec("3");
    second.drives = first.drives.clone();
    let failure = rig.qemu.ensure(&second, Run(1)).await.unwrap_err();
    assert_eq!(failure.to_string(), "one of its drives is in use by another server");
    assert_eq!(rig.observe().await, [(first.server, Run(1), Phase::Running)]);
}

#[tokio::test]
#[ignore = "needs QEMU, root and control groups (v2): cargo xtask test"]
async fn a_guest_has_its_own_control_group_as_long_as_anything_of_it_exists() {
    let parent = ControlGroup::new();
    let mut rig = Rig::with_scope(Scope::Cgroup(parent.0.clone())).await;
    let spec = rig.machine.spec("1");
    let group = parent.0.join(spec.server.to_string());
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    rig.until_serial(&spec, b"hello\r\n").await;
    let pid = rig.machine.process(&spec, Run(1)).unwrap().pid().to_string();
    let members = || fs::read_to_string(group.join("cgroup.procs")).unwrap();
    assert_eq!(members().trim(), pid);
    rig.reopen().await;
    assert_eq!(rig.observe().await, [(spec.server, Run(1), Phase::Running)]);
    assert_eq!(members().trim(), pid);
    rig.qemu.remove(spec.server).await.unwrap();
    assert!(!group.exists());

    // Whatever a crash in the middle of a start leaves goes at the next start of the agent.
    rig.qemu.ensure(&spec, Run(2)).await.unwrap();
    let record = rig.machine.runtime_dir().join(spec.server.to_string()).join("run.json");
    let starting = r#"{"run":2,"stage":"starting","screen":null}"#;
    rig.reopen_after(async |_| fs::write(&record, starting).unwrap()).await;
    assert!(!group.exists());
    rig.reopen_after(async |_| {
        fs::create_dir(record.parent().unwrap()).unwrap();
        fs::write(&record, starting).unwrap();
        fs::create_dir(&group).unwrap();
    })
    .await;
    assert!(!group.exists());
    rig.assert_nothing_left().await;

    let mut broken = rig.machine.spec("2");
    broken.drives[0].attachment = Attachment::File("/nowhere/drive.raw".into());
    rig.qemu.ensure(&broken, Run(1)).await.unwrap_err();
    rig.assert_nothing_left().await;
}

/// A control group of this test's, where the machine has them mounted. Removed at its end.
struct ControlGroup(PathBuf);

impl ControlGroup {
    fn new() -> Self {
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        let v2 = mounts.lines().find_map(|line| {
            let mut words = line.split(' ').skip(1);
            let point = words.next()?;
            (words.next()? == "cgroup2").then_some(point)
        });
        let v2 = Path::new(v2.expect("control groups (v2) are mounted nowhere"));
        let group = v2.join(format!("elasticstack-test-{}", std::process::id()));
        fs::create_dir(&group).unwrap();
        Self(group)
    }
}

impl Drop for ControlGroup {
    fn drop(&mut self) {
        // Leaves what a failed test left a process in: the machine's end kills that later.
        let _ = fs::remove_dir(&self.0);
    }
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn guests_share_a_drive_that_is_not_exclusive() {
    let rig = Rig::open().await;
    let mut specs = [rig.machine.spec("1"), rig.machine.spec("2"), rig.machine.spec("3")];
    let shared = rig.machine.disk("shared");
    guest_code::make_disk(&shared).unwrap();
    let slots = [("ide:0:1", Media::Disk), ("block:0", Media::Disk), ("ide:1:0", Media::Cdrom)];
    for (spec, (device, media)) in specs.iter_mut().zip(slots) {
        spec.drives.push(DriveSlot {
            device: device.parse().unwrap(),
            media,
            access: Access::Shared,
            attachment: Attachment::File(shared.clone()),
            limits: IoLimits::default(),
        });
        rig.qemu.ensure(spec, Run(1)).await.unwrap();
        rig.until_serial(spec, b"hello\r\n").await;
    }
    // Whoever takes it for his own is refused by QEMU too.
    let mut alone = rig.machine.spec("4");
    alone.drives[0].attachment = Attachment::File(shared);
    let failure = rig.qemu.ensure(&alone, Run(1)).await.unwrap_err();
    assert_eq!(failure.to_string(), "one of its drives is in use by another server");
}

#[tokio::test]
async fn a_program_that_is_not_there_fails_the_start_and_leaves_nothing() {
    let rig = Rig::with_program("#!/nowhere/at-all\n").await;
    let failure = rig.qemu.ensure(&rig.machine.spec("1"), Run(1)).await.unwrap_err();
    assert_eq!(failure.kind(), ErrorKind::JobFailed);
    assert!(format!("{failure:?}").contains("failed to execute"), "{failure:?}");
    rig.assert_nothing_left().await;
}

#[tokio::test]
async fn two_agents_cannot_have_one_runtime_directory() {
    let rig = Rig::open().await;
    let second =
        Guests::open(rig.machine.config.clone(), rig.machine.vmm.clone()).await.unwrap_err();
    assert_eq!(second.kind(), ErrorKind::Unavailable);
}

#[tokio::test]
async fn a_server_is_not_started_while_any_process_has_its_lock() {
    let rig = Rig::open().await;
    let spec = rig.machine.spec("1");
    let folder = rig.machine.runtime_dir().join(spec.server.to_string());
    fs::create_dir(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    lock.try_lock().unwrap();
    let refused = rig.qemu.ensure(&spec, Run(1)).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::ServerBusy);
    assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing but the lock is there");
}

/// The limits that QEMU says are in force, by where drives are plugged in.
async fn in_force(rig: &Rig, server: ServerId) -> Vec<(String, u64, u64)> {
    let answer = rig.machine.operator_asks(server, "query-block").await;
    let drives = answer.as_array().unwrap().iter().map(|entry| &entry["inserted"]);
    let drives = drives.filter(|drive| drive["node-name"].is_string());
    let limit = |drive: &Value, name: &str| drive[name].as_u64().unwrap();
    let limits = drives.map(|drive| {
        let node = drive["node-name"].as_str().unwrap().to_owned();
        (node, limit(drive, "iops"), limit(drive, "bps"))
    });
    limits.collect()
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guests_drives_are_held_to_their_limits_from_its_start_on_and_while_it_runs() {
    let mut rig = Rig::open().await;
    let mut spec = rig.machine.spec("1");
    let more = [("block:0", "2"), ("scsi:0:3", "3")].map(|(device, disk)| {
        let path = rig.machine.disk(disk);
        guest_code::make_disk(&path).unwrap();
        DriveSlot {
            device: device.parse().unwrap(),
            media: Media::Disk,
            access: Access::Exclusive,
            attachment: Attachment::File(path),
            limits: IoLimits::default(),
        }
    });
    spec.drives.extend(more);
    let wanted = |rig_spec: &mut ServerSpec, limits: [(u32, u32); 3]| {
        let mut expected = Vec::new();
        for (slot, (requests, mib)) in rig_spec.drives.iter_mut().zip(limits) {
            let bytes = Bytes::from_mib(mib);
            slot.limits = IoLimits {
                requests: Some(requests).filter(|requests| *requests > 0),
                bytes: Some(bytes).filter(|bytes| *bytes > Bytes::ZERO),
            };
            let node = slot.device.to_string().replace(':', "-");
            expected.push((node, u64::from(requests), bytes.get()));
        }
        expected
    };
    let expected = wanted(&mut spec, [(100, 0), (0, 1), (0, 0)]);
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    assert_eq!(in_force(&rig, spec.server).await, expected);

    let expected = wanted(&mut spec, [(0, 0), (700, 8), (1_000, 2)]);
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    assert_eq!(in_force(&rig, spec.server).await, expected);
    rig.reopen().await;
    rig.qemu.signal(spec.server, Signal::Reset).await.unwrap();
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    assert_eq!(in_force(&rig, spec.server).await, expected);

    // One that is plugged in meanwhile, and another run.
    let unplugged = spec.drives.pop().unwrap();
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    spec.drives.push(unplugged);
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    assert_eq!(in_force(&rig, spec.server).await, expected);
    rig.qemu.remove(spec.server).await.unwrap();
    rig.qemu.ensure(&spec, Run(2)).await.unwrap();
    assert_eq!(in_force(&rig, spec.server).await, expected);
}
