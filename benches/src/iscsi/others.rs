//! Loads by initiators that others wrote: `iscsi-perf` of libiscsi, and fio through QEMU's own
//! initiator, which `qemu-storage-daemon` gives to it as an NBD device.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use elasticstack_host::iscsi::initiator::Address;
use serde_json::{Value, json};

use super::load::{Kind, Latencies, Load, Measured};
use super::served::Served;

/// How long a program may take to come up.
const START: Duration = Duration::from_secs(10);

/// Reads by `iscsi-perf`, which does nothing else and says nothing of latencies.
pub(super) fn iscsi_perf(load: &Load, served: &Served) -> Result<Measured> {
    let Address { portal, target, lun, own } = &served.address;
    let who = match own.secret.expose() {
        "" => String::new(),
        secret => format!("{}%{secret}@", own.user),
    };
    let mut command = Command::new("iscsi-perf");
    command.args(["-i", &own.user, "-m", &load.depth.to_string()]);
    command.args(["-b", &(load.block / 512).to_string(), "-t", &load.time.as_secs().to_string()]);
    command.args((load.kind == Kind::Read).then_some("-r"));
    command.arg(format!("iscsi://{who}{portal}/{target}/{lun}"));
    let before = served.cpu()?;
    let output = command.output().context("starting iscsi-perf")?;
    let cpu = served.cpu()?.since(&before);
    let said = String::from_utf8_lossy(&output.stdout);
    let complained = String::from_utf8_lossy(&output.stderr);
    let rate = average(&said).with_context(|| format!("iscsi-perf says {said}{complained}"))?;
    let per_cpu_second = rate * load.time.as_secs_f64() / cpu.as_secs_f64();
    Ok(Measured { rate, per_cpu_second, latencies: None })
}

/// The last average that `iscsi-perf` printed, of operations a second.
fn average(said: &str) -> Option<f64> {
    let (_, last) = said.rsplit_once("iops average ")?;
    last.split_whitespace().next()?.parse().ok()
}

/// A target as QEMU's initiator sees it, given out as an NBD device.
pub(super) struct ByQemu {
    daemon: Child,
    uri: String,
}

impl ByQemu {
    /// Logs in, `socket` being where the device is to be.
    pub(super) fn start(served: &Served, socket: &Path) -> Result<Self> {
        let Address { portal, target, lun, own } = &served.address;
        let mut node = json!({
            "driver": "iscsi", "node-name": "lent", "transport": "tcp", "lun": lun,
            "portal": portal.to_string(), "target": target, "initiator-name": own.user,
        });
        let mut daemon = Command::new("qemu-storage-daemon");
        if !own.secret.expose().is_empty() {
            // One of this bench's own, of no worth.
            daemon.args(["--object", &format!("secret,id=chap,data={}", own.secret.expose())]);
            node["user"] = json!(own.user);
            node["password-secret"] = json!("chap");
        }
        let path = socket.display();
        daemon.args(["--blockdev", &node.to_string()]);
        daemon.args(["--nbd-server", &format!("addr.type=unix,addr.path={path}")]);
        daemon.args(["--export", "type=nbd,id=lent,node-name=lent,name=lent,writable=on"]);
        // NBD asks where there are zeros before each read; LIO has no answer, and QEMU says so each time.
        let daemon = daemon.stdin(Stdio::null()).stderr(Stdio::null());
        let daemon = daemon.spawn().context("starting qemu-storage-daemon")?;
        let began = std::time::Instant::now();
        while !socket.exists() {
            ensure!(began.elapsed() < START, "QEMU does not log in to {}", served.name);
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(Self { daemon, uri: format!("nbd+unix:///lent?socket={path}") })
    }

    /// Has fio put the load on it.
    pub(super) fn fio(&self, load: &Load, served: &Served) -> Result<Measured> {
        let Load { kind, depth, block, time } = load;
        let rw = match kind {
            Kind::Read => "randread",
            Kind::Write => "randwrite",
            Kind::SequentialRead => "read",
            Kind::SequentialWrite => "write",
        };
        let mut fio = Command::new("fio");
        fio.args(["--name=lent", "--ioengine=nbd", "--output-format=json", "--time_based"]);
        fio.arg(format!("--uri={}", self.uri)).arg(format!("--rw={rw}"));
        fio.arg(format!("--iodepth={depth}")).arg(format!("--bs={block}"));
        fio.arg(format!("--runtime={}", time.as_secs()));
        let before = served.cpu()?;
        let output = fio.output().context("starting fio")?;
        let cpu = served.cpu()?.since(&before);
        let complained = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "fio fails: {complained}");
        // What the engine says comes before.
        let told = String::from_utf8_lossy(&output.stdout);
        let json = told.find('{').and_then(|start| told.get(start..)).unwrap_or_default();
        let said: Value = serde_json::from_str(json).with_context(|| format!("fio says {told}"))?;
        let is_read = matches!(kind, Kind::Read | Kind::SequentialRead);
        let of = &said["jobs"][0][if is_read { "read" } else { "write" }];
        let number = |value: &Value| value.as_f64().context("fio leaves a figure out");
        let count = number(&of["total_ios"])?;
        let percentile =
            |name: &str| number(&of["clat_ns"]["percentile"][name]).map(|nanos| nanos / 1e3);
        let latencies =
            Latencies { p50_us: percentile("50.000000")?, p99_us: percentile("99.000000")? };
        let rate = number(&of["iops"])?;
        let per_cpu_second = count / cpu.as_secs_f64();
        Ok(Measured { rate, per_cpu_second, latencies: Some(latencies) })
    }
}

impl Drop for ByQemu {
    fn drop(&mut self) {
        let _ = self.daemon.kill().and_then(|()| self.daemon.wait());
    }
}
