//! What the user of `up` meets: one program a data directory, a port that is free, and an account
//! whose key nobody else sees.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;

use crate::rig::Rig;

#[test]
fn a_second_start_on_a_data_directory_is_refused_with_a_sentence() {
    let rig = Rig::new();
    let image = rig.zeros();
    let first = rig.up(&image, &[]);
    let second = rig.spawn(rig.command(&image).arg("--data-dir").arg(rig.data_dir())).ended();
    assert_eq!(second.status.code(), Some(1));
    let expected = format!(
        "error: {} is in use by another all-in-one: stop it, or give another --data-dir\n",
        rig.data_dir().display()
    );
    assert_eq!(second.log, expected);
    first.terminate();
    rig.assert_nothing_is_left();
}

#[test]
fn a_held_port_is_named_with_its_holder_and_the_next_one_taken() {
    let rig = Rig::new();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap();
    let mut command = rig.command_on(&address.to_string(), &rig.zeros());
    let mut product = rig.spawn(command.arg("--data-dir").arg(rig.data_dir()));
    let told = product.line("is held by");
    assert!(told.contains(&format!("port {} ", address.port())), "{told}");
    assert!(told.contains(&format!("(pid {})", std::process::id())), "{told}");
    let ready = product.line("READY");
    assert!(!ready.contains(&format!("{address}/")), "{ready}");
    product.terminate();
}

#[test]
fn a_stop_while_it_starts_is_heard_and_leaves_nothing_running() {
    let rig = Rig::new();
    let held = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = held.local_addr().unwrap().to_string();
    // Large enough that it is still being published then.
    let image = rig.zeros_packed(64 << 20, flate2::Compression::none());
    let mut command = rig.command_on(&address, &image);
    let mut product = rig.spawn(command.arg("--data-dir").arg(rig.data_dir()));
    product.line("is held by");
    product.terminate();
    rig.assert_nothing_is_left();
    rig.up(&image, &[]).terminate();
}

#[tokio::test]
#[ignore = "needs QEMU: cargo xtask test"]
async fn only_its_owner_reads_the_accounts_key_while_a_guest_runs() {
    let rig = Rig::new();
    let mut command = rig.command(&rig.zeros());
    command.env("RUST_LOG", "debug").arg("--data-dir").arg(rig.data_dir());
    let mut product = rig.spawn(&mut command);
    let ready = product.line("READY");
    let api = ready.split(' ').find(|word| word.starts_with("http://")).unwrap();
    product.api = api.trim_end_matches('/').to_owned();

    let env = rig.data_dir().join("demo.env");
    assert_eq!(fs::metadata(&env).unwrap().permissions().mode() & 0o777, 0o600);
    let script = format!(
        ". '{}' && curl -sfu \"$PANEL_USER:$PANEL_PASSWORD\" \"${{EHURI}}profile/info\" && \
         curl -sfu \"$EHAUTH\" \"${{EHURI}}drives/info/standard\"",
        env.display()
    );
    let curl = Command::new("sh").args(["-c", &script]).output().unwrap();
    let told = String::from_utf8(curl.stdout).unwrap();
    assert!(curl.status.success(), "{}: {told}", curl.status);
    assert!(told.contains("name tiny but zeros"), "{told}");

    let client = product.client();
    let record = Record::new().with("name", "a").with("cpu", 500).with("mem", 256);
    let server = client.one(Call::ServerCreate, &[], &record).await.unwrap();
    assert_eq!(server.value("status"), Some("active"));
    assert_eq!(rig.guests().len(), 1);

    let text = fs::read_to_string(&env).unwrap();
    let key = text.lines().find_map(|line| line.strip_prefix("PANEL_PASSWORD=")).unwrap();
    assert_eq!(key.len(), 64, "{key}");
    let processes = rig.processes();
    assert!(processes.iter().any(|(pid, _)| u32::try_from(*pid) == Ok(product.pid())));
    for (pid, arguments) in &processes {
        assert!(!arguments.contains(key), "{pid}: {arguments}");
        let environment = fs::read(format!("/proc/{pid}/environ")).unwrap();
        assert!(!String::from_utf8_lossy(&environment).contains(key), "{pid}");
    }
    product.signal(rustix::process::Signal::TERM);
    let ended = product.ended();
    assert!(ended.status.success(), "{}", ended.log);
    assert!(ended.log.contains("DEBUG"), "the log says much: {}", ended.log);
    assert!(!ended.log.contains(key), "the key is in the log");
    assert!(!ended.output.contains(key), "the key is on the screen");
    rig.assert_nothing_is_left();
}
