//! The command line of one guest's QEMU: a pure function, pinned by golden files.
//!
//! Invariants: nothing that a customer chose as text is in it, and no secret; drives are always
//! opened as raw, so what a guest writes to its first block can't turn into another format; file
//! names are JSON strings, so no comma in them can turn into an option; the secret that a lent drive is
//! logged in with is read from a file of the server's own directory.

use std::net::Ipv4Addr;

use elasticstack_core::error::{Error, Result};
use elasticstack_core::generation::Run;
use elasticstack_core::hypervisor::{Access, Bus, DriveSlot, Media, NicModel, ServerSpec};
use serde_json::json;

use super::Accelerator;
use crate::guests::nodes::{
    SERIAL, SERIAL_RING, blockdev_value, borrowing, node, process_name, secret,
};
use crate::guests::{OPERATOR_SOCKET, QMP_SOCKET, SEED};

/// The arguments after the program. Paths of sockets are relative: QEMU is to run in the server's
/// own directory.
///
/// # Errors
/// `Internal` for a drive that QEMU can't be told to attach.
pub(super) fn command_line(
    spec: &ServerSpec,
    run: Run,
    accelerator: Accelerator,
    screen: Option<Ipv4Addr>,
) -> Result<Vec<String>> {
    let ServerSpec { server, kind: _, cpu: _, vcpus, memory, drives, boot, nics, screen: _, seed } =
        spec;
    let mut line = CommandLine(Vec::new());

    line.option("-name", process_name(*server, run));
    line.option("-uuid", server.to_string());
    line.flag("-no-user-config");
    line.flag("-nodefaults");
    line.option("-display", "none");
    line.option("-machine", "pc");
    let (accelerator, cpu) = match accelerator {
        Accelerator::Kvm => ("kvm", "host"),
        // Guests would copy and clear memory by `rep movsb` and `rep stosb`, which it does a byte at a time.
        Accelerator::SoftwareCpu => ("tcg,thread=multi", "max,-erms,-fsrm"),
    };
    line.option("-accel", accelerator);
    line.option("-cpu", cpu);
    line.option("-smp", format!("cpus={vcpus},sockets=1,cores={vcpus},threads=1"));
    line.option("-m", format!("size={}M", memory.0));
    // A guest asleep (S3) or hibernated (S4) has no button here that wakes it.
    line.option("-global", "PIIX4_PM.disable_s3=1");
    line.option("-global", "PIIX4_PM.disable_s4=1");

    // An ending waits, paused, until somebody has seen it.
    line.flag("-S");
    line.option("-action", "reboot=reset,shutdown=pause,panic=pause");
    line.option(
        "-sandbox",
        "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny",
    );
    for socket in [QMP_SOCKET, OPERATOR_SOCKET] {
        line.option("-qmp", format!("unix:{socket},server=on,wait=off"));
    }

    line.option("-device", "pvpanic");
    line.option("-chardev", format!("ringbuf,id={SERIAL},size={SERIAL_RING}"));
    line.option("-device", format!("isa-serial,chardev={SERIAL}"));
    // Always: boot loaders and installers call the BIOS of the screen, seen by anybody or not.
    line.option("-device", "VGA");
    if let Some(address) = screen {
        line.option("-vnc", format!("{address}:0,password=on"));
        line.option("-device", "piix3-usb-uhci,id=usb");
        line.option("-device", "usb-tablet,bus=usb.0");
    }

    line.option("-boot", if boot.is_empty() { "menu=off" } else { "menu=off,strict=on" });
    for (bus, controller) in
        [(Bus::Ata, "ich9-ahci,id=ata"), (Bus::Scsi, "virtio-scsi-pci,id=scsi")]
    {
        if drives.iter().any(|slot| slot.device.bus() == bus) {
            line.option("-device", controller);
        }
    }
    for slot in drives {
        if borrowing(slot).is_some() {
            let id = secret(slot.device);
            let object = json!({ "qom-type": "secret", "id": id, "file": id });
            line.option("-object", object.to_string());
        }
        line.option("-blockdev", blockdev(slot)?);
        let place = boot.iter().position(|device| *device == slot.device);
        line.option("-device", drive(slot, place));
    }
    for (index, nic) in nics.iter().enumerate() {
        let model = match nic.model {
            NicModel::E1000 => "e1000",
            NicModel::Rtl8139 => "rtl8139",
            NicModel::Virtio => "virtio-net-pci",
        };
        line.option("-netdev", format!("user,id=nic{index}"));
        // No boot ROM: there is nothing to boot from on this network.
        line.option("-device", format!("{model},netdev=nic{index},romfile="));
    }
    if seed.is_some() {
        // A controller of its own, last: it takes no port and moves nothing. A CD, because the BIOS
        // tries the first hard disk only, and on virtio-scsi, because small kernels lack AHCI.
        line.option("-device", "virtio-scsi-pci,id=seed");
        line.option("-blockdev", seed_disk());
        line.option("-device", "scsi-cd,bus=seed.0,drive=seed");
    }
    Ok(line.0)
}

struct CommandLine(Vec<String>);

impl CommandLine {
    fn flag(&mut self, flag: &str) {
        self.0.push(flag.to_owned());
    }

    fn option(&mut self, option: &str, value: impl Into<String>) {
        self.0.extend([option.to_owned(), value.into()]);
    }
}

fn blockdev(slot: &DriveSlot) -> Result<String> {
    let node = blockdev_value(slot).map(|node| node.to_string());
    node.ok_or_else(|| {
        let attachment = &slot.attachment;
        Error::internal(format!(
            "QEMU can attach files with UTF-8 names and lent drives, not {attachment:?}"
        ))
    })
}

fn seed_disk() -> String {
    let file = json!({ "driver": "file", "filename": SEED, "read-only": true });
    json!({ "driver": "raw", "node-name": "seed", "read-only": true, "file": file }).to_string()
}

fn drive(slot: &DriveSlot, boot_index: Option<usize>) -> String {
    let device = slot.device;
    let (channel, unit, node) = (device.channel(), device.unit(), node(device));
    let model = match slot.media {
        Media::Disk => "hd",
        Media::Cdrom => "cd",
    };
    let place = match device.bus() {
        Bus::Ata => format!("ide-{model},bus=ata.{unit}"),
        Bus::Block => "virtio-blk-pci".to_owned(),
        Bus::Ide => format!("ide-{model},bus=ide.{channel},unit={unit}"),
        Bus::Scsi => format!("scsi-{model},bus=scsi.0,channel=0,scsi-id={unit},lun=0"),
    };
    // A full or failing array pauses the guest; the guest itself never sees an error.
    let mut drive = format!("{place},drive={node},werror=stop,rerror=stop");
    // QEMU locks files against other writers unless told that there may be some.
    if slot.access == Access::Shared {
        drive.push_str(",share-rw=on");
    }
    if let Some(index) = boot_index {
        drive.push_str(&format!(",bootindex={index}"));
    }
    drive
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;
    use std::os::unix::ffi::OsStringExt;
    use std::path::{Path, PathBuf};
    use std::{env, fs};

    use elasticstack_core::block::Attachment;
    use elasticstack_core::hypervisor::{IoLimits, Nic, Seed, ServerKind};
    use elasticstack_core::secret::Secret;
    use elasticstack_core::units::{MebiBytes, MegaHertz, VcpuCount};

    use super::*;

    #[test]
    fn the_command_line_of_a_small_server_is_as_its_golden_file_says() {
        let spec = spec();
        check_golden("qemu-small", &spec, Accelerator::SoftwareCpu, None);
    }

    #[test]
    fn the_command_line_of_a_server_with_everything_is_as_its_golden_file_says() {
        let mut spec = spec();
        spec.vcpus = VcpuCount::for_cpu(MegaHertz(8_000));
        spec.memory = MebiBytes(8_192);
        spec.drives = vec![
            slot("ide:0:0", Media::Disk, "/arrays/fast/a,b=\"c\"/0.raw"),
            slot("ide:1:1", Media::Cdrom, "/arrays/fast/1.raw"),
            slot("ata:0:5", Media::Disk, "/arrays/fast/2.raw"),
            slot("ata:0:0", Media::Cdrom, "/arrays/fast/3.raw"),
            slot("scsi:0:7", Media::Disk, "/arrays/fast/4.raw"),
            slot("scsi:0:1", Media::Cdrom, "/arrays/fast/5.raw"),
            slot("block:0", Media::Disk, "/arrays/fast/6.raw"),
            slot("block:7", Media::Cdrom, "/arrays/fast/7.raw"),
        ];
        spec.drives[1].access = Access::Shared;
        spec.drives[4].access = Access::Shared;
        spec.boot = vec!["ide:1:1".parse().unwrap(), "block:0".parse().unwrap()];
        spec.nics = [NicModel::E1000, NicModel::Rtl8139, NicModel::Virtio]
            .map(|model| Nic { model })
            .to_vec();
        spec.screen = Some(Secret::new("hunter22"));
        check_golden("qemu-everything", &spec, Accelerator::Kvm, Some([127, 64, 1, 2].into()));
        let line = command_line(&spec, Run(3), Accelerator::Kvm, Some([127, 64, 1, 2].into()));
        assert!(!line.unwrap().concat().contains("hunter22"));
    }

    #[test]
    fn the_command_line_of_a_seeded_server_is_as_its_golden_file_says_and_tells_no_seed() {
        let mut spec = spec();
        spec.seed = Some(Seed {
            host_name: Some("web1".to_owned()),
            keys: vec!["ssh-ed25519 AAAA".to_owned()],
            user_data: Some(Secret::new("hunter22")),
        });
        check_golden("qemu-seeded", &spec, Accelerator::SoftwareCpu, None);
        let line = command_line(&spec, Run(3), Accelerator::SoftwareCpu, None).unwrap().concat();
        for word in ["web1", "ssh-ed25519", "hunter22"] {
            assert!(!line.contains(word), "{word}");
        }
    }

    #[test]
    fn a_path_that_is_not_text_is_refused() {
        let mut spec = spec();
        let path = PathBuf::from(OsString::from_vec(b"/arrays/\xff".to_vec()));
        spec.drives[0].attachment = Attachment::File(path);
        assert!(command_line(&spec, Run(3), Accelerator::Kvm, None).is_err());
    }

    fn spec() -> ServerSpec {
        ServerSpec {
            server: "5b0e3c52-0000-4000-8000-00000000d001".parse().unwrap(),
            kind: ServerKind::Vm,
            cpu: MegaHertz(2_000),
            vcpus: VcpuCount::for_cpu(MegaHertz(2_000)),
            memory: MebiBytes(1_024),
            drives: vec![slot("ide:0:0", Media::Disk, "/arrays/fast/0.raw")],
            boot: vec![],
            nics: vec![],
            screen: None,
            seed: None,
        }
    }

    fn slot(device: &str, media: Media, path: &str) -> DriveSlot {
        DriveSlot {
            device: device.parse().unwrap(),
            media,
            access: Access::Exclusive,
            attachment: Attachment::File(path.into()),
            limits: IoLimits::default(),
        }
    }

    /// Compares with `tests/golden/NAME.txt`, one option a line; `UPDATE_GOLDENS=1` writes it.
    #[track_caller]
    fn check_golden(
        name: &str,
        spec: &ServerSpec,
        accelerator: Accelerator,
        screen: Option<Ipv4Addr>,
    ) {
        let mut text = String::new();
        for argument in command_line(spec, Run(3), accelerator, screen).unwrap() {
            match argument.starts_with('-') {
                true if text.is_empty() => {}
                true => text.push('\n'),
                false => text.push(' '),
            }
            text.push_str(&argument);
        }
        text.push('\n');
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.txt"));
        if env::var_os("UPDATE_GOLDENS").is_some() {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, &text).unwrap();
        }
        let golden = fs::read_to_string(&path).unwrap();
        assert_eq!(text, golden, "{} differs: if meant, UPDATE_GOLDENS=1", path.display());
    }
}
