//! A container as the agent runs it: a server that is told of by the same documents as any other.

use std::fs;
use std::path::Path;
use std::process::Command;

use elasticstack_core::hypervisor::{Nic, NicModel, ServerKind};
use elasticstack_core::prelude::*;
use elasticstack_core::wire::internal::{Document, Hardware, ServerDocument};
use elasticstack_lab::Lab;

use crate::machine::{
    CONFIG, GUARD, boot, claim, drive, make_drive, report, run, serve, server, tell,
};

/// A nonce of 32 bytes behind what asks for an answer to it (`docs/tiny.md`).
const TASK: &[u8; 48] = b"ES-TINY-ANSWER-1nonce-of-exactly-thirty-two-byte";

const PREPARE: &str = r#"
modprobe kvm_amd || modprobe kvm_intel
modprobe -a bridge tun
ip link add lan type bridge
ip link set lan up
mkdir /data/fast
cat >>$CONFIG <<'END'
[containers]
kernel = "/lab/kernel"
initial_disk = "/lab/initrd.gz"
bridge = "lan"
[[array]]
name = "fast"
path = "/data/fast"
END
"#;

fn container(drives: [DriveId; 2]) -> ServerDocument {
    let [root, task] = drives;
    let hardware = Hardware {
        kind: ServerKind::Container,
        cpu_mhz: 500,
        vcpus: 1,
        memory_mib: 128,
        drives: vec![claim(root, "block:0", None), claim(task, "block:1", None)],
        boot: Vec::new(),
        nics: vec![Nic { model: NicModel::Virtio }],
        screen: None,
        seed: None,
    };
    server(11, hardware)
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_a_container_starts_from_its_root_drive_and_does_what_another_asks() {
    let lab = Lab::new().unwrap();
    let mut machine = boot(&lab);
    let cache = Path::new(&std::env::var("HOME").unwrap()).join(".cache/elasticstack");
    let own = lab.directory(1);
    for file in ["kernel", "initrd.gz"] {
        fs::copy(cache.join("container").join(file), own.join(file)).unwrap();
    }
    let mut unpack = Command::new("gunzip");
    unpack.arg("--stdout").arg(cache.join("images/tiny-root.gz"));
    fs::write(own.join("root"), unpack.output().unwrap().stdout).unwrap();
    fs::write(own.join("task"), [&TASK[..], &[0; 4048]].concat()).unwrap();
    run(&mut machine, &format!("CONFIG={CONFIG}\n{PREPARE}"));
    serve(&mut machine);
    let report = report(&mut machine);
    assert!(report.containers);
    let [root, task] = [1, 2].map(|number| drive(number, report.arrays[0].array));
    make_drive(&mut machine, &root, "/lab/root");
    make_drive(&mut machine, &task, "/lab/task");
    tell(&mut machine, vec![Document::Server(container([root.drive, task.drive]))]);
    // It answers with a hash that only who has read the nonce can make, and turns itself off.
    let answered = format!(
        "answer() {{ dd if=/data/fast/drives/{}.raw bs=1 skip=$1 count=$2 status=none; }}
         SECONDS=0
         until [ -n \"$(answer 512 32 | tr -d '\\0')\" ] && ! pgrep -x elasticstack-vm >/dev/null; do
             [ $SECONDS -lt {} ] || {{ cat /data/agent.log /data/state/servers/*/*.log; false; }}
             sleep 0.1
         done
         {{ answer 16 32; answer 544 36; }} | sha256sum | cut -d ' ' -f 1
         answer 512 32 | od -An -tx1 | tr -d ' \\n'",
        task.drive,
        2 * GUARD.as_secs()
    );
    let said = run(&mut machine, &answered);
    let (expected, answer) = said.split_once('\n').unwrap();
    assert_eq!(answer, expected);
    let left = "ip -o link show | grep -c guest || true";
    assert_eq!(run(&mut machine, left), "0\n", "what is left of its network card");
}
