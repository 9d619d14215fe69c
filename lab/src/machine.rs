//! One machine: its disks, its boot, and what befalls its hardware.
//!
//! Its disks are files in its directory, which outlive it; all else is gone when it is. A machine is
//! killed when the thread that booted it ends, however that ends.

use std::fmt;
use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::{Value, json};

use super::job::{Ended, Jobs};
use super::qmp::Qmp;
use super::{Console, First, Lab, NETWORK};

/// Bytes of the disk with the data directory.
const DATA_SIZE: u64 = 8 << 30;

/// How many disks a machine has for arrays.
const DISKS: u8 = 8;

/// How long a machine may take to be up; it takes some seconds where nothing else runs.
const BOOT: Duration = Duration::from_secs(180);

/// How long a QEMU may take to end once its machine is gone.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// A machine that is up. Dropped, its power is cut.
pub struct Machine {
    number: u8,
    directory: PathBuf,
    qemu: Qemu,
    jobs: Jobs,
    qmp: Qmp,
}

impl Machine {
    pub(crate) fn boot(lab: &Lab, number: u8) -> Result<Self> {
        let directory = lab.directory(number);
        Jobs::lay_out(&directory, number)?;
        if lab.first == First::Systemd {
            File::create(directory.join("systemd")).context("ask for systemd")?;
        }
        make_disk(&directory.join("data"), DATA_SIZE)?;
        for disk in 1..=DISKS {
            make_disk(&directory.join(Disk(disk).to_string()), lab.disk_size)?;
        }
        let qemu = command(lab, number, &directory)?.spawn();
        let mut qemu = Qemu(qemu.context("start qemu-system-x86_64 by setpriv")?);
        let (port, qmp) = qemu.connect(&directory)?;
        let jobs = Jobs::open(directory.clone(), port, BOOT)?;
        Ok(Self { number, directory, qemu, jobs, qmp })
    }

    /// Its address in the lab's network.
    #[must_use]
    pub fn address(&self) -> Ipv4Addr {
        Ipv4Addr::new(10, 77, 0, self.number)
    }

    /// Runs a script of bash as root and waits for its end.
    ///
    /// # Errors
    /// The machine is gone. How the script ends is no error here.
    pub fn run(&mut self, script: &str) -> Result<Ended> {
        self.run_aloud(script, |_| {})
    }

    /// As [`Machine::run`], with what the script prints handed to `sink` while it runs.
    ///
    /// # Errors
    /// As [`Machine::run`].
    pub fn run_aloud(&mut self, script: &str, sink: impl FnMut(&[u8])) -> Result<Ended> {
        let ended = self.jobs.run(script, sink);
        ended.map_err(|error| match self.last_words() {
            Some(words) => error.context(words),
            None => error,
        })
    }

    /// How its QEMU ended, if it did, and what that said last.
    fn last_words(&mut self) -> Option<String> {
        let began = Instant::now();
        while began.elapsed() < LAST_WORDS {
            if let Ok(Some(status)) = self.qemu.0.try_wait() {
                let said = self.qmp.rest();
                return Some(format!("its QEMU ended with {status} and said {said:?}"));
            }
            thread::sleep(Duration::from_millis(20));
        }
        None
    }

    /// Takes disk `disk`, 1 to 8, out as a hand would: the machine is not asked before. Inside, its
    /// serial number is `LAB-DISK-N`.
    ///
    /// # Errors
    /// It is out already, or the machine is gone.
    pub fn pull(&mut self, disk: u8) -> Result<()> {
        let name = Disk(disk).to_string();
        self.qmp.execute("device_del", &json!({ "id": name }))?;
        self.qmp.wait_for("DEVICE_DELETED", &name)
    }

    /// Puts disk `disk` in again.
    ///
    /// # Errors
    /// It is in already, or the machine is gone.
    pub fn plug(&mut self, disk: u8) -> Result<()> {
        self.qmp.execute("device_add", &Disk(disk).device())
    }

    /// Lets disk `disk` do so many operations a second, or as many as it can if that is 0.
    ///
    /// # Errors
    /// It is out, or the machine is gone.
    pub fn slow(&mut self, disk: u8, iops: u32) -> Result<()> {
        let mut limits = json!({ "id": Disk(disk).to_string(), "iops": iops });
        for unlimited in ["iops_rd", "iops_wr", "bps", "bps_rd", "bps_wr"] {
            limits[unlimited] = json!(0);
        }
        self.qmp.execute("block_set_io_throttle", &limits)
    }

    /// Pulls its network cable. It notices; the others only hear nothing of it any more.
    ///
    /// # Errors
    /// The machine is gone.
    pub fn unplug_network(&mut self) -> Result<()> {
        self.qmp.execute("set_link", &json!({ "name": "lan", "up": false }))
    }

    /// Puts its network cable in again.
    ///
    /// # Errors
    /// The machine is gone.
    pub fn plug_network(&mut self) -> Result<()> {
        self.qmp.execute("set_link", &json!({ "name": "lan", "up": true }))
    }

    /// Puts other bytes at `offset` of disk `disk`, of which the machine hears nothing.
    ///
    /// # Errors
    /// Those of writing to a file.
    pub fn corrupt(&self, disk: u8, offset: u64, bytes: &[u8]) -> Result<()> {
        let mut file =
            File::options().write(true).open(self.directory.join(Disk(disk).to_string()))?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(file.write_all(bytes)?)
    }

    /// Cuts its power and waits until it is off.
    ///
    /// # Errors
    /// Those of killing a process.
    pub fn cut_power(mut self) -> Result<()> {
        self.qemu.0.kill().context("kill the machine")?;
        self.qemu.0.wait().context("wait for the machine's end").map(|_| ())
    }

    /// Ends it in order, so that a terminal at it is left as it was.
    ///
    /// # Errors
    /// The machine is gone.
    pub fn quit(mut self) -> Result<()> {
        self.qmp.execute("quit", &json!({}))?;
        self.qemu.0.wait().context("wait for the machine's end").map(|_| ())
    }
}

impl fmt::Debug for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Machine").field("directory", &self.directory).finish_non_exhaustive()
    }
}

/// A QEMU, which is killed when this is dropped.
struct Qemu(Child);

impl Qemu {
    /// Connects to its port and its monitor as soon as it has made them.
    fn connect(&mut self, directory: &Path) -> Result<(UnixStream, Qmp)> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.0.try_wait()? {
                bail!("qemu-system-x86_64 ended with {status}");
            }
            if let Ok(monitor) = UnixStream::connect(directory.join("monitor")) {
                // It was made after the port.
                let port = UnixStream::connect(directory.join("port"));
                return Ok((port.context("reach the machine's port")?, Qmp::open(monitor)?));
            }
            ensure!(began.elapsed() < BOOT, "qemu-system-x86_64 does not answer");
            thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        // That it has ended by itself is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A disk for arrays, by its number; shown, its device's id.
#[derive(Clone, Copy)]
struct Disk(u8);

impl Disk {
    /// What QEMU is told of it.
    fn device(self) -> Value {
        json!({
            "driver": "scsi-hd",
            "bus": "disks.0",
            "scsi-id": self.0,
            "lun": 0,
            "drive": format!("{self}-file"),
            "id": self.to_string(),
            "serial": format!("LAB-DISK-{}", self.0),
        })
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "disk{}", self.0)
    }
}

fn command(lab: &Lab, number: u8, directory: &Path) -> Result<Command> {
    let at = |name: &str| -> Result<String> {
        let path = directory.join(name);
        // QEMU takes a comma for the end of a value.
        let path = path.to_str().context("the lab's directory has a name that is no text")?;
        Ok(path.replace(',', ",,"))
    };
    let share = |path: &Path, tag: &str, more: &str| {
        let path = path.display();
        format!("local,path={path},mount_tag={tag},security_model=none{more}")
    };
    let file = |name: &str| -> Result<String> {
        let path = at(name)?;
        Ok(format!("driver=file,filename={path},node-name={name}-file,discard=unmap"))
    };
    let port = lab.port;
    let mut qemu = Command::new("setpriv");
    let mut option = |name: &str, value: &str| {
        qemu.args([name, value]);
    };
    option("--pdeathsig", "KILL");
    option("qemu-system-x86_64", "-nodefaults");
    option("-display", "none");
    option("-machine", "q35");
    option("-accel", "tcg,thread=multi");
    // Linux would copy and clear memory by `rep movsb` and `rep stosb`, which QEMU does a byte at a time.
    option("-cpu", "max,-erms,-fsrm");
    // Two that QEMU translates side by side now and then wait for each other for ever (QEMU 7.2).
    option("-smp", "1");
    option("-m", "2G");
    option("-kernel", &lab.kit.join("kernel").display().to_string());
    option("-initrd", &lab.kit.join("initrd.gz").display().to_string());
    // The software CPU of a busy machine may be late with the ticks that Linux tries its timer by.
    option("-append", "console=ttyS0 quiet panic=-1 no_timer_check");
    option("-serial", &format!("file:{}", at("console")?));
    if lab.console == Console::Terminal && number == 1 {
        option("-serial", "stdio");
    }
    option("-virtfs", &share(Path::new("/"), "root", ",readonly=on,multidevs=remap"));
    option("-virtfs", &share(&lab.kit.join("modules"), "modules", ",readonly=on"));
    option("-virtfs", &share(directory, "lab", ""));
    option("-device", &format!("virtio-net,netdev=lan,mac=52:54:00:77:00:{number:02x}"));
    option("-netdev", &format!("socket,id=lan,mcast={NETWORK}:{port},localaddr=127.0.0.1"));
    option("-blockdev", &file("data")?);
    option("-device", "virtio-blk,drive=data-file,serial=data");
    option("-device", "virtio-scsi,id=disks");
    for disk in (1..=DISKS).map(Disk) {
        option("-blockdev", &file(&disk.to_string())?);
        option("-device", &disk.device().to_string());
    }
    option("-device", "virtio-serial");
    option("-device", "virtserialport,chardev=port,name=lab");
    option("-chardev", &format!("socket,id=port,path={},server=on,wait=off", at("port")?));
    option("-qmp", &format!("unix:{},server=on,wait=off", at("monitor")?));
    qemu.arg("-no-reboot");
    qemu.stdin(if lab.console == Console::Terminal { Stdio::inherit() } else { Stdio::null() });
    Ok(qemu)
}

fn make_disk(path: &Path, size: u64) -> Result<()> {
    if path.exists() {
        return Ok(());
    }
    let made = File::create(path).and_then(|file| file.set_len(size));
    made.with_context(|| format!("make the disk {}", path.display()))
}
