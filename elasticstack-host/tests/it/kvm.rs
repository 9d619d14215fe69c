//! Small Linux guests by KVM's ioctls, on the real `/dev/kvm` of a machine of the lab.

use std::io::Write;
use std::process::Command;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use elasticstack_core::block::{BlockStore, Volume, Writing};
use elasticstack_core::prelude::*;
use elasticstack_core::sim::SimStore;
use elasticstack_host::kvm::{Base, Confinement, Drive, Machine, News, Spec};
use elasticstack_lab::{Lab, stage};

use crate::lio::run;
use crate::other_initiators::run as tell;

const BOOTS: &str = "kvm::on_a_lab_machine_linux_boots_without_qemu_and_ends_itself";

/// What a guest may take that has a software processor to itself, and then not that.
const GUARD: Duration = Duration::from_mins(4);

/// How often is looked what a guest has said.
const LOOK: Duration = Duration::from_millis(50);

/// What a guest wrote to its console; clones are the same.
#[derive(Clone, Default)]
struct Console(Arc<Mutex<Vec<u8>>>);

impl Console {
    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.lock().unwrap()).into_owned()
    }
}

impl Write for Console {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_linux_boots_without_qemu_and_ends_itself() {
    if stage().is_some() {
        run(boots());
        return;
    }
    let lab = Lab::new().unwrap();
    let cache = format!("{}/.cache/elasticstack", std::env::var("HOME").unwrap());
    let mut make = Command::new("bash");
    make.args(["-c", include_str!("kvm-guest.sh"), "kvm-guest", &cache]);
    tell(make.arg(lab.directory(1).join("guest"))).unwrap();
    let mut machine = lab.boot(1).unwrap();
    machine.run("modprobe kvm_amd || modprobe kvm_intel").unwrap().ok().unwrap();
    machine.run_stage(BOOTS, "guest").unwrap();
}

/// A drive of 64 MiB that begins with `hello`.
async fn volume(store: &SimStore) -> Arc<dyn Volume> {
    let drive = store.drive(Bytes::from_mib(64));
    store.create(&drive).await.unwrap();
    let volume = store.open(drive.drive, Epoch(1)).await.unwrap();
    volume.write_at(Bytes::ZERO, bytes::Bytes::from_static(b"hello")).await.unwrap();
    volume
}

/// What the guest is to have written, if it may: ones for zeros.
async fn is_written(volume: &dyn Volume) -> bool {
    let mut found = vec![0; 1 << 20];
    volume.read_at(Bytes::from_mib(1), &mut found).await.unwrap();
    let expected = [b"hello".as_slice(), &vec![b'x'; (1 << 20) - 5]].concat();
    assert!(found == expected || found.iter().all(|byte| *byte == 0), "other bytes are there");
    found == expected
}

async fn boots() {
    for (word, kernel, end) in
        [("goes", "kernel", News::Off), ("restarts", "unpacked", News::Reset)]
    {
        let store = SimStore::new(1, &[Bytes::from_gib(1)]);
        let (own, lent) = (volume(&store).await, volume(&store).await);
        let drive = |volume: &Arc<dyn Volume>, writing, name: &str| {
            Drive::new(Arc::clone(volume), writing, name.to_owned())
        };
        let spec = Spec {
            memory: 256 << 20,
            processors: 2,
            command_line: format!("console=ttyS0 quiet panic=-1 {word}"),
            drives: vec![
                drive(&own, Writing::Allowed, "own"),
                drive(&lent, Writing::Refused, "for-reading"),
            ],
            cards: Vec::new(),
            confinement: Confinement::None,
        };
        let (kernel, initial_disk) = (format!("/lab/guest/{kernel}"), "/lab/guest/initrd");
        let base = Base::open(kernel.as_ref(), Some(initial_disk.as_ref())).unwrap();
        let console = Console::default();
        let (tell, told) = channel();
        let hear = move |news| tell.send(news).unwrap_or_default();
        let machine = Machine::new(&base, &spec, console.clone(), hear).unwrap();
        machine.resume();
        if end == News::Off {
            let began = Instant::now();
            while !console.text().contains("guest: waits for its power button") {
                assert!(began.elapsed() < GUARD, "{}", console.text());
                assert_eq!(told.recv_timeout(LOOK), Err(RecvTimeoutError::Timeout));
            }
            for _ in 0..3 {
                machine.pause();
                machine.resume();
            }
            machine.press_button().unwrap();
        }
        let news = told.recv_timeout(GUARD);
        drop(machine);
        let said = console.text();
        assert_eq!(news, Ok(end), "{said}");
        for line in [
            "guest: up with 2 processors",
            "guest: vda is own of 131072 sectors",
            "guest: vda begins with hello",
            "guest: vdb is for-reading of 131072 sectors",
            "guest: vdb begins with hello",
            "guest: vdb is not written",
        ] {
            assert!(said.contains(line), "no {line:?}: {said}");
        }
        assert!(is_written(&*own).await && !is_written(&*lent).await, "{said}");
    }
}
