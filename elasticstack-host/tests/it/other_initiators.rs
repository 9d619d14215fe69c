//! Borrowers of lent drives that others wrote: QEMU's initiator and Linux's own, open-iscsi.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use elasticstack_core::block::{Borrowing, LendSpec};
use elasticstack_core::secret::Secret;
use serde_json::json;

/// Runs a command to its end and answers what it printed, if it ended well, and else of what it
/// complained.
pub(crate) fn run(command: &mut Command) -> Result<String, String> {
    let Output { status, stdout, stderr } =
        command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let [printed, complained] =
        [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    if status.success() { Ok(printed) } else { Err(format!("{status}: {printed}{complained}")) }
}

/// A script of bash, which is to end well.
#[track_caller]
pub(crate) fn bash(script: &str) -> String {
    run(Command::new("bash").args(["-e", "-c", script])).unwrap()
}

pub(crate) fn borrowing(spec: &LendSpec, portal: std::net::SocketAddr) -> Borrowing {
    let LendSpec { lend, borrower, secret, .. } = spec.clone();
    Borrowing { portal, lend, borrower, secret }
}

/// `qemu-io` on what is borrowed. `name` and `secret` are what it logs in with.
fn qemu_io(of: &Borrowing, name: &str, secret: Option<&Secret>) -> Command {
    let mut command = Command::new("qemu-io");
    let mut node = json!({
        "driver": "iscsi",
        "transport": "tcp",
        "portal": of.portal.to_string(),
        "target": of.lend.target(),
        "lun": 0,
        "initiator-name": name,
        "header-digest": "crc32c",
    });
    if let Some(secret) = secret {
        command.args(["--object", &format!("secret,id=chap,data={}", secret.expose())]);
        node["user"] = json!(name);
        node["password-secret"] = json!("chap");
    }
    command.arg(format!("json:{}", json!({ "driver": "raw", "file": node })));
    command
}

/// What QEMU's initiator makes of these commands of `qemu-io`.
pub(crate) fn qemu(of: &Borrowing, commands: &[&str]) -> Result<String, String> {
    qemu_as(of, &of.initiator(), Some(&of.secret), &[], commands)
}

pub(crate) fn qemu_as(
    of: &Borrowing,
    name: &str,
    secret: Option<&Secret>,
    options: &[&str],
    commands: &[&str],
) -> Result<String, String> {
    let mut command = qemu_io(of, name, secret);
    command.args(options);
    for told in commands {
        command.args(["-c", told]);
    }
    let said = run(&mut command)?;
    // It ends well also when a read or a write did not.
    if said.contains("failed") || said.contains("error") { Err(said) } else { Ok(said) }
}

/// QEMU's initiator, logged in for as long as this lives, which is told what to do as it goes.
pub(crate) struct Session {
    qemu_io: Child,
    said: BufReader<std::process::ChildStdout>,
}

impl Session {
    pub(crate) fn open(of: &Borrowing) -> Self {
        let mut command = qemu_io(of, &of.initiator(), Some(&of.secret));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut qemu_io = command.spawn().unwrap();
        let said = BufReader::new(qemu_io.stdout.take().unwrap());
        let mut session = Self { qemu_io, said };
        assert!(session.does("length").is_some(), "it does not log in");
        session
    }

    /// Has it do something, and answers what it says of that, in a line; `None` if it is gone.
    pub(crate) fn does(&mut self, told: &str) -> Option<String> {
        let stdin = self.qemu_io.stdin.as_mut().unwrap();
        writeln!(stdin, "{told}").ok()?;
        loop {
            let mut line = String::new();
            if self.said.read_line(&mut line).ok()? == 0 {
                return None;
            }
            // It asks for more without ending the line, and says of what it did how fast it was.
            if !line.contains(" ops;") {
                return Some(line.trim().replace("qemu-io> ", ""));
            }
        }
    }

    /// The same without waiting for what it says.
    pub(crate) fn begins(&mut self, told: &str) {
        writeln!(self.qemu_io.stdin.as_mut().unwrap(), "{told}").unwrap();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // That it has ended by itself is as good.
        let _ = self.qemu_io.kill();
        let _ = self.qemu_io.wait();
    }
}

/// Linux's own initiator, with the name of one borrower.
pub(crate) struct OpenIscsi;

impl OpenIscsi {
    /// Starts it, on a machine of the lab: what it writes to `/etc` is gone with that.
    pub(crate) fn start(name: &str) -> Self {
        bash("modprobe iscsi_tcp && mkdir -p /run/lock/iscsi");
        fs::write("/etc/iscsi/initiatorname.iscsi", format!("InitiatorName={name}\n")).unwrap();
        bash("iscsid");
        Self
    }

    /// Logs in and answers the device.
    pub(crate) fn log_in(&self, of: &Borrowing) -> Result<PathBuf, String> {
        let node = |more: &[&str]| {
            let (target, portal) = (of.lend.target(), of.portal.to_string());
            let node = ["--mode", "node", "--target", &target, "--portal", &portal];
            run(Command::new("iscsiadm").args(node).args(more))
        };
        node(&["--op", "new"])?;
        for (name, value) in [
            ("node.session.auth.authmethod", "CHAP"),
            ("node.session.auth.username", &of.initiator()),
            ("node.session.auth.password", of.secret.expose()),
            ("node.conn[0].iscsi.HeaderDigest", "CRC32C"),
            ("node.session.timeo.replacement_timeout", "1"),
            ("node.session.initial_login_retry_max", "1"),
        ] {
            node(&["--op", "update", "--name", name, "--value", value])?;
        }
        node(&["--login"])?;
        let found = format!(
            "for session in /sys/class/iscsi_session/*; do \
             grep -qx '{}' $session/targetname || continue; \
             until ls $session/device/target*/*/block/* >/dev/null 2>&1; do sleep 0.1; done; \
             basename $session/device/target*/*/block/*; done",
            of.lend.target()
        );
        Ok(Path::new("/dev").join(bash(&found).trim()))
    }

    /// What targets it finds there.
    pub(crate) fn discover(&self, portal: std::net::SocketAddr) -> Result<String, String> {
        let portal = portal.to_string();
        let discovery = ["--mode", "discovery", "--type", "sendtargets", "--portal", &portal];
        run(Command::new("timeout").args(["20", "iscsiadm"]).args(discovery))
    }
}
