//! A real guest on drives that are lent: QEMU logs in to a target as the agent tells it to.

use std::path::Path;
use std::time::Duration;

use elasticstack_core::block::{Attachment, BlockStore, Lend, LendSpec, Volume};
use elasticstack_core::error::ErrorKind;
use elasticstack_core::generation::{Epoch, Run};
use elasticstack_core::hypervisor::{
    Access, DriveSlot, EndCause, Hypervisor, IoLimits, Media, Phase, ServerSpec, Signal,
};
use elasticstack_core::prelude::*;
use elasticstack_lab::{Lab, stage};
use tokio::time::timeout;

use crate::guest_code::{self, Command};
use crate::lio::{Host, lend_spec, run};
use crate::other_initiators::borrowing;
use crate::qemu_rig::Rig;

/// How long a call about a guest may take that waits for a drive which does not answer.
const DEADLINE: Duration = Duration::from_secs(60);

const SECTOR: u64 = 512;

const LIVES: &str = "lent_guest::on_a_lab_machine_a_guest_lives_on_drives_that_lio_lends";

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn on_a_lab_machine_a_guest_lives_on_drives_that_lio_lends() {
    if stage().is_none() {
        Lab::new().unwrap().boot(1).unwrap().run_stage(LIVES, "guest").unwrap();
        return;
    }
    run(async {
        let host = Host::open(Path::new("/data/guest")).await;
        let drives = [host.create(1, 1).await, host.create(2, 1).await];
        lives_on_lent_drives(&host.store, &host.lender, drives).await;
    });
}

fn slot(device: &str, lend: &LendSpec, lender: &dyn Lend) -> DriveSlot {
    DriveSlot {
        device: device.parse().unwrap(),
        media: Media::Disk,
        access: Access::Exclusive,
        attachment: Attachment::Iscsi(borrowing(lend, lender.portal())),
        limits: IoLimits::default(),
    }
}

async fn tell(volume: &dyn Volume, command: Command) {
    let byte = vec![command.byte()];
    volume.write_at(Bytes::try_from(SECTOR).unwrap(), byte.into()).await.unwrap();
    volume.flush().await.unwrap();
}

/// What the guest wrote, if it did.
async fn written(volume: &dyn Volume) -> [u8; 4] {
    let mut found = [0; 4];
    volume.read_at(Bytes::try_from(63 * SECTOR).unwrap(), &mut found).await.unwrap();
    found
}

pub(crate) async fn lives_on_lent_drives(
    store: &dyn BlockStore,
    lender: &dyn Lend,
    [drive, second]: [DriveId; 2],
) {
    let volume = store.open(drive, Epoch(1)).await.unwrap();
    volume.write_at(Bytes::ZERO, guest_code::boot_sector().into()).await.unwrap();
    volume.flush().await.unwrap();
    let lend = lend_spec(drive, 1);
    let rig = Rig::open().await;
    let mut spec = rig.machine.spec("unused");
    spec.server = lend.borrower;
    spec.drives = vec![slot("ide:0:0", &lend, lender)];

    let early = rig.qemu.ensure(&spec, Run(1)).await.unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Unavailable, "{early:?}");
    rig.assert_nothing_left().await;
    lender.lend(&lend, volume.clone()).await.unwrap();
    rig.qemu.ensure(&spec, Run(1)).await.unwrap();
    rig.until_serial(&spec, b"hello\r\n").await;
    let process = rig.machine.process(&spec, Run(1)).unwrap();
    let line = std::fs::read_to_string(format!("/proc/{}/cmdline", process.pid())).unwrap();
    assert!(line.contains(&lend.lend.target()) && !line.contains(lend.secret.expose()));

    comes_and_goes(&rig, store, lender, &spec, second).await;

    rig.qemu.signal(spec.server, Signal::Reset).await.unwrap();
    rig.until_serial(&spec, b"hello\r\nhello\r\n").await;
    assert_eq!(written(&*volume).await, [0; 4]);
    tell(&*volume, Command::Write).await;
    rig.until(&spec, Phase::Ended(EndCause::Guest)).await;
    assert_ne!(written(&*volume).await, [0; 4]);
    rig.qemu.remove(spec.server).await.unwrap();

    // It is taken from a guest that runs, which then reaches it no more and ends when it is to.
    tell(&*volume, Command::Wait).await;
    rig.qemu.ensure(&spec, Run(2)).await.unwrap();
    rig.until_serial(&spec, b"hello\r\n").await;
    rig.machine.until_read(spec.server).await;
    lender.withdraw(lend.lend).await.unwrap();
    store.fence(drive, Epoch(2)).await.unwrap();
    let volume = store.open(drive, Epoch(2)).await.unwrap();
    volume
        .discard(Bytes::try_from(63 * SECTOR).unwrap(), Bytes::try_from(SECTOR).unwrap())
        .await
        .unwrap();
    tell(&*volume, Command::Write).await;
    let reset = rig.qemu.signal(spec.server, Signal::Reset);
    let _ = timeout(DEADLINE, reset).await.expect("a reset waits for the drive");
    let newer = lend_spec(drive, 2);
    lender.lend(&newer, volume.clone()).await.unwrap();
    let removed = timeout(DEADLINE, rig.qemu.remove(spec.server)).await;
    removed.expect("an end waits for the drive").unwrap();
    assert_eq!(written(&*volume).await, [0; 4], "whoever had it before has written");

    spec.drives = vec![slot("ide:0:0", &newer, lender)];
    rig.qemu.ensure(&spec, Run(3)).await.unwrap();
    rig.until(&spec, Phase::Ended(EndCause::Guest)).await;
    assert_ne!(written(&*volume).await, [0; 4]);
    rig.qemu.remove(spec.server).await.unwrap();
    lender.withdraw(newer.lend).await.unwrap();
    assert_eq!(lender.lent().await.unwrap(), []);
}

async fn comes_and_goes(
    rig: &Rig,
    store: &dyn BlockStore,
    lender: &dyn Lend,
    spec: &ServerSpec,
    drive: DriveId,
) {
    let lend = lend_spec(drive, 1);
    let mut more = spec.clone();
    more.drives.push(slot("block:1", &lend, lender));
    let early = rig.qemu.ensure(&more, Run(1)).await.unwrap_err();
    assert_eq!(early.kind(), ErrorKind::Unavailable, "{early:?}");
    let volume = store.open(drive, Epoch(1)).await.unwrap();
    lender.lend(&lend, volume).await.unwrap();
    for _ in 0..2 {
        rig.qemu.ensure(&more, Run(1)).await.unwrap();
        let plugged: Vec<_> = more.drives.iter().map(|slot| slot.device).collect();
        assert_eq!(rig.machine.plugged(spec.server).await, plugged);
    }
    rig.qemu.ensure(spec, Run(1)).await.unwrap();
    assert_eq!(rig.machine.plugged(spec.server).await, [spec.drives[0].device]);
    lender.withdraw(lend.lend).await.unwrap();
}
