//! The proof: it succeeds only if a guest really did its task, and leaves nothing behind however
//! it ends.

use std::fs;

use elasticstack_bin_allinone::smoke::{self, Steps, Traces};
use elasticstack_core::wire::calls::Call;
use rustix::process::Signal;
use serde_json::Value;

use crate::rig::{Rig, read, serial, tiny};

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn the_smoke_succeeds_on_a_guest_and_leaves_nothing_behind() {
    let rig = Rig::new();
    let ended = rig.spawn(rig.command(&tiny()).arg("--smoke")).ended();
    assert!(ended.status.success(), "{}: {}", ended.status, ended.log);
    assert!(ended.output.contains("the guest's answer is right"), "{}", ended.output);
    assert_eq!(ended.log, "", "the shutdown is quiet");
    rig.assert_nothing_is_left();
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn the_smoke_fails_if_the_guest_has_a_zeroed_boot_drive() {
    let rig = Rig::new();
    let mut command = rig.command(&rig.zeros());
    let mut product = rig.spawn(command.args(["--smoke", "--seconds", "30"]));
    product.line("the server is created and started");
    let ended = product.ended();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    assert!(ended.log.contains("within 30 s"), "{}", ended.log);
    assert!(!ended.output.contains("right"), "{}", ended.output);
    rig.assert_nothing_is_left();
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn the_smoke_fails_if_the_guest_has_no_cloud_init_to_listen_to_it() {
    let rig = Rig::new();
    let manifest = fs::read_to_string(tiny()).unwrap();
    let mut manifest: Value = serde_json::from_str(&manifest).unwrap();
    manifest["cloud_init"] = true.into();
    let claimed = rig.data_dir().join("claimed.json");
    fs::write(&claimed, manifest.to_string()).unwrap();
    fs::copy(tiny().with_extension("gz"), claimed.with_extension("gz")).unwrap();
    let mut command = rig.command(&claimed);
    let mut product = rig.spawn(command.args(["--smoke", "--seconds", "60"]));
    product.line("the server is created and started");
    let ended = product.ended();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    assert!(ended.log.contains("within 60 s"), "{}", ended.log);
    assert!(ended.log.contains("tiny: no task, disks left alone"), "it ran: {}", ended.log);
    rig.assert_nothing_is_left();
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn a_guest_leaves_a_drive_with_another_magic_as_it_is() {
    let rig = Rig::new();
    let product = rig.up(&tiny(), &[]);
    let client = product.client();
    let (mut traces, mut steps) = (Traces::default(), Steps::default());
    let task = smoke::give(&client, *b"ES-TINY-ANSWER-2", &mut traces, &mut steps).await.unwrap();
    serial(&client, &task.server, "tiny: no task, disks left alone").await;
    client.act(Call::ServerStop, &[&task.server]).await.unwrap();
    let mut sent = task.block.clone();
    let found = read(&client, &task.second).await;
    sent.resize(found.len(), 0);
    assert!(found == sent, "the guest wrote to a drive that did not ask for it");
    smoke::clean(&client, &traces).await.unwrap();
    product.terminate();
    rig.assert_nothing_is_left();
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn a_second_is_too_short_for_a_guest_and_all_is_cleaned_up() {
    let rig = Rig::new();
    let ended = rig.spawn(rig.command(&tiny()).args(["--smoke", "--seconds", "1"])).ended();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    assert!(ended.log.contains("within 1 s"), "{}", ended.log);
    rig.assert_nothing_is_left();
}

#[test]
#[ignore = "needs QEMU: cargo xtask test"]
fn a_smoke_that_is_interrupted_takes_its_guest_along() {
    let rig = Rig::new();
    let mut product = rig.spawn(rig.command(&tiny()).arg("--smoke"));
    product.line("the server is created and started");
    assert_eq!(rig.guests().len(), 1);
    product.signal(Signal::INT);
    let ended = product.ended();
    assert_eq!(ended.status.code(), Some(1), "{}", ended.log);
    assert!(ended.log.contains("told to stop"), "{}", ended.log);
    rig.assert_nothing_is_left();
}
