//! What the user of `up` meets: one program a data directory, ports that are free, a panel, and
//! accounts whose keys nobody else sees.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use bytes::Bytes;
use elasticstack_core::client::{HyperTransport, Transport as _};
use elasticstack_core::error::ErrorKind;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;
use http::header::{CONTENT_TYPE, COOKIE, ORIGIN, SET_COOKIE};
use http::{Request, StatusCode};

use crate::rig::{FREE, Rig};

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
    let held = [(); 2].map(|()| TcpListener::bind(FREE).unwrap());
    let [api, panel] = held.each_ref().map(|held| held.local_addr().unwrap());
    let mut command = rig.command_on(&api.to_string(), &panel.to_string(), &rig.zeros());
    let mut product = rig.spawn(command.arg("--data-dir").arg(rig.data_dir()));
    for address in [api, panel] {
        let told = product.line(&format!("port {} is held by", address.port()));
        assert!(told.contains(&format!("(pid {})", std::process::id())), "{told}");
    }
    product.line("READY");
    assert_ne!(product.variable("EHURI"), format!("http://{api}/"));
    assert_ne!(product.variable("PANEL_URL"), format!("http://{panel}"));
    product.terminate();
}

#[tokio::test]
async fn up_leaves_its_addresses_and_accounts_in_a_file_that_only_its_owner_reads() {
    let rig = Rig::new();
    let product = rig.up(&rig.zeros(), &[]);
    let env = rig.data_dir().join("demo.env");
    assert_eq!(fs::metadata(&env).unwrap().permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&env).unwrap();
    let names: Vec<_> = text.lines().map(|line| line.split_once('=').unwrap().0).collect();
    let documented =
        ["EHURI", "EHAUTH", "PANEL_URL", "PANEL_USER", "PANEL_PASSWORD", "OPERATOR_AUTH"];
    assert_eq!(names, documented);

    let hosts = product.client_of("OPERATOR_AUTH").many(Call::HostsInfo).await.unwrap();
    assert_eq!(hosts.len(), 1);
    let refused = product.client().many(Call::HostsInfo).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::OutOfScope, "the demo account is a customer's");

    let auth = product.variable("OPERATOR_AUTH");
    product.terminate();
    let again = rig.up(&rig.zeros(), &[]);
    assert_eq!(again.variable("OPERATOR_AUTH"), auth, "the operator stays the same");
    again.terminate();
}

#[tokio::test]
async fn the_panel_lets_the_demo_account_in_and_shows_the_images_of_the_api() {
    let rig = Rig::new();
    let product = rig.up(&rig.zeros(), &[]);
    let url = product.variable("PANEL_URL");
    let panel = HyperTransport::new(&url).unwrap();
    let log_in = async |key: &str| {
        let form = format!("account={}&key={key}", product.variable("PANEL_USER"));
        let request = Request::post("/login")
            .header(ORIGIN, &url)
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .body(form.into());
        panel.send(request.unwrap()).await.unwrap()
    };
    assert_eq!(log_in("wrong").await.status(), StatusCode::UNAUTHORIZED);
    let entered = log_in(&product.variable("PANEL_PASSWORD")).await;
    assert_eq!(entered.status(), StatusCode::SEE_OTHER);
    let session = &entered.headers()[SET_COOKIE];
    let request = Request::get("/servers/create").header(COOKIE, session).body(Bytes::new());
    let page = panel.send(request.unwrap()).await.unwrap();
    let html = String::from_utf8_lossy(page.body());
    assert!(html.contains("tiny but zeros"), "{}: {html}", page.status());
    product.terminate();
    rig.assert_nothing_is_left();
}

#[test]
fn a_stop_while_it_starts_is_heard_and_leaves_nothing_running() {
    let rig = Rig::new();
    let held = TcpListener::bind(FREE).unwrap();
    let address = held.local_addr().unwrap().to_string();
    // Large enough that it is still being published then.
    let image = rig.zeros_packed(64 << 20, flate2::Compression::none());
    let mut command = rig.command_on(&address, FREE, &image);
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
    product.line("READY");
    let shown = product.line("panel ");
    let keys = [product.variable("PANEL_PASSWORD"), {
        let auth = product.variable("OPERATOR_AUTH");
        auth.split_once(':').unwrap().1.to_owned()
    }];
    assert!(shown.contains(&keys[0]), "the user's own screen shows how to log in: {shown}");

    let env = rig.data_dir().join("demo.env");
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

    let processes = rig.processes();
    assert!(processes.iter().any(|(pid, _)| u32::try_from(*pid) == Ok(product.pid())));
    let environment = |pid: &i32| fs::read(format!("/proc/{pid}/environ")).unwrap();
    let environments: Vec<_> = processes.iter().map(|(pid, _)| environment(pid)).collect();
    product.signal(rustix::process::Signal::TERM);
    let ended = product.ended();
    assert!(ended.status.success(), "{}", ended.log);
    assert!(ended.log.contains("DEBUG"), "the log says much: {}", ended.log);
    for key in &keys {
        assert_eq!(key.len(), 64, "{key}");
        for ((pid, arguments), environment) in processes.iter().zip(&environments) {
            assert!(!arguments.contains(key), "{pid}: {arguments}");
            assert!(!String::from_utf8_lossy(environment).contains(key), "{pid}");
        }
        assert!(!ended.log.contains(key), "the key is in the log");
        assert!(!ended.output.contains(key), "the key is on the screen once more");
    }
    rig.assert_nothing_is_left();
}
