//! What the pages tell and what their buttons do.

use elasticstack_core::error::ErrorKind;
use elasticstack_core::wire::calls::Call;
use elasticstack_core::wire::record::Record;
use http::StatusCode;

use crate::api::{Api, IMAGE};
use crate::browser::{Browser, Page};

#[tokio::test]
async fn servers_and_drives_are_shown_with_their_state_and_size() {
    let api = Api::new();
    let server = api.has_server("web", "active");
    api.has_server("db", "starting");
    api.has_drive(&Record::new().with("name", "disk one").with("imaging", "37%"));
    api.has_drive(&Record::new().with("name", "disk two").with("claimed", &server));
    api.has_drive(&Record::new().with("name", "disk three").with("failed", "no gzip"));
    let mut browser = Browser::logged_in(&api).await;

    let servers = browser.get("/servers").await;
    for text in [">web<", "active", "2 GHz", "1 GiB", "http-equiv=\"refresh\""] {
        servers.shows(text);
    }
    let drives = browser.get("/drives").await;
    for text in ["disk one", "1.5 GiB", "value=\"37\"", "in use", "no gzip"] {
        drives.shows(text);
    }
    let one = browser.get(&format!("/servers/{server}")).await;
    one.shows("Switch off");
    one.hides(">Start<");
    one.hides("http-equiv=\"refresh\"");
}

#[tokio::test]
async fn buttons_start_stop_shut_down_reset_and_destroy() {
    let api = Api::new();
    let server = api.has_server("web", "stopped");
    let mut browser = Browser::logged_in(&api).await;
    for (action, call, notice) in [
        ("start", Call::ServerStart, "web is starting."),
        ("shutdown", Call::ServerShutdown, "web was asked to shut down."),
        ("reset", Call::ServerReset, "web was reset."),
        ("stop", Call::ServerStop, "web was switched off."),
    ] {
        let done = browser.submit(&format!("/servers/{server}/{action}"), &[]).await;
        assert_eq!((done.status, done.location()), (StatusCode::SEE_OTHER, "/servers"));
        assert!(api.state().calls.contains(&call), "{action}");
        browser.get("/servers").await.shows(notice);
        browser.get("/servers").await.hides(notice);
    }
    let path = format!("/servers/{server}/destroy");
    browser.get(&path).await.shows("Destroy the server web?");
    assert_eq!(api.state().servers.len(), 1, "a look destroys nothing");
    browser.submit(&path, &[]).await;
    assert!(api.state().servers.is_empty());
    assert_eq!(browser.get(&format!("/servers/{server}")).await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn a_refusal_is_a_sentence_on_the_next_page() {
    let api = Api::new();
    let server = api.has_server("web", "stopped");
    let mut browser = Browser::logged_in(&api).await;
    let full = (ErrorKind::NoCapacity, "no host has 1024 MiB free: 512 MiB at most");
    api.state().refusals.insert("/servers/SERVER/start", full);
    browser.submit(&format!("/servers/{server}/start"), &[]).await;
    browser.get("/servers").await.shows("No host has 1024 MiB free: 512 MiB at most.");

    let away = (ErrorKind::Unavailable, "the API server can't be reached");
    api.state().refusals.insert("/servers/info", away);
    let page = browser.get("/servers").await;
    assert_eq!(page.status, StatusCode::SERVICE_UNAVAILABLE);
    page.shows("The API server can&#39;t be reached.");
}

#[tokio::test]
async fn the_serial_log_is_shown_and_follows_if_asked() {
    let api = Api::new();
    let server = api.has_server("web", "active");
    api.state().serial = b"tiny: up <script>\x1b[1m\n".to_vec();
    let mut browser = Browser::logged_in(&api).await;
    let page = browser.get(&format!("/servers/{server}/serial")).await;
    page.shows("tiny: up &lt;script&gt;");
    page.hides("http-equiv=\"refresh\"");
    let following = browser.get(&format!("/servers/{server}/serial?follow=1")).await;
    following.shows("http-equiv=\"refresh\"");
    api.state().serial = [vec![b'x'; 100_000], b"the end".to_vec()].concat();
    let long = browser.get(&format!("/servers/{server}/serial")).await;
    long.shows("the end");
    long.shows("The last 64 KiB");
    assert!(long.html.len() < 80_000);
}

/// The create form, filled in as its fields say.
async fn create(browser: &mut Browser, cpu: &str) -> Page {
    let shown = browser.get("/servers/create").await;
    send(browser, cpu, shown.hidden("form")).await
}

/// Sends the create form as it was shown once.
async fn send(browser: &mut Browser, cpu: &str, form: &str) -> Page {
    let fields = [
        ("name", "web one"),
        ("image", IMAGE),
        ("cpu", cpu),
        ("mem", "0.5"),
        ("disk", "1"),
        ("form", form),
    ];
    browser.submit("/servers/create", &fields).await
}

#[tokio::test(start_paused = true)]
async fn a_form_that_is_sent_twice_makes_one_server() {
    let api = Api::new();
    let mut browser = Browser::logged_in(&api).await;
    let form = browser.get("/servers/create").await.hidden("form").to_owned();
    let mut impatient = browser.clone();
    let (first, second) =
        tokio::join!(send(&mut browser, "2", &form), send(&mut impatient, "2", &form));
    assert_eq!(first.location(), second.location());
    settled(&mut browser, first.location()).await;
    assert_eq!(send(&mut browser, "2", &form).await.location(), first.location());
    settled(&mut browser, first.location()).await;
    assert_eq!(api.state().drives.len(), 1);
    assert_eq!(api.state().servers.len(), 1);

    let another = create(&mut browser, "2").await;
    assert_ne!(another.location(), first.location(), "a form shown anew makes another");
}

/// Looks at a build's page until it is something else than busy.
async fn settled(browser: &mut Browser, path: &str) -> Page {
    for _ in 0..1000 {
        let page = browser.get(path).await;
        if !page.html.contains("This page follows by itself") {
            return page;
        }
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    panic!("{path} is never done")
}

#[tokio::test(start_paused = true)]
async fn a_server_is_made_from_an_image_while_its_page_follows() {
    let api = Api::new();
    let mut browser = Browser::logged_in(&api).await;
    browser.get("/servers/create").await.shows("tiny &lt;i&gt;");

    let sent = create(&mut browser, "1.5").await;
    let build = sent.location().to_owned();
    assert!(build.starts_with("/drives/") && build.ends_with("/build"), "{build}");
    let page = browser.get(&build).await;
    page.shows("Creating web one");
    page.shows("http-equiv=\"refresh\"");

    let done = settled(&mut browser, &build).await;
    let state = api.state();
    let (id, server) = state.servers.first_key_value().unwrap();
    assert_eq!(done.location(), format!("/servers/{id}"));
    let (drive, disk) = state.drives.first_key_value().unwrap();
    for (key, value) in [
        ("name", "web one"),
        ("cpu", "1500"),
        ("mem", "512"),
        ("ide:0:0", drive.as_str()),
        ("boot", "ide:0:0"),
        ("persistent", "true"),
    ] {
        assert_eq!(server.value(key), Some(value), "{key}");
    }
    assert_eq!(disk.value("size"), Some("1073741824"));
    let left: Vec<_> = disk.iter().filter(|(key, _)| key.starts_with("user:")).collect();
    assert!(left.is_empty(), "the wish is taken off the drive: {left:?}");
}

#[tokio::test]
async fn a_form_that_is_wrong_comes_back_with_what_was_typed_and_makes_nothing() {
    let api = Api::new();
    let mut browser = Browser::logged_in(&api).await;
    let page = create(&mut browser, "999").await;
    assert_eq!(page.status, StatusCode::UNPROCESSABLE_ENTITY);
    page.shows("Processor takes 0.5 to 100 GHz.");
    page.shows("value=\"web one\"");
    assert!(api.state().drives.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_build_that_failed_says_why_and_goes_on_from_there() {
    let api = Api::new();
    let mut browser = Browser::logged_in(&api).await;
    let full = (ErrorKind::NoCapacity, "no host has room");
    api.state().refusals.insert("/servers/create", full);
    let build = create(&mut browser, "2").await.location().to_owned();
    let failed = settled(&mut browser, &build).await;
    failed.shows("No host has room.");
    failed.shows("Go on");

    api.state().refusals.clear();
    let imagings = count(&api, Call::DriveImageGunzip);
    assert_eq!(browser.submit(&build, &[]).await.location(), build);
    let done = settled(&mut browser, &build).await;
    assert!(done.location().starts_with("/servers/"), "{}", done.html);
    assert_eq!(count(&api, Call::DriveImageGunzip), imagings, "what is imaged stays imaged");
}

#[tokio::test(start_paused = true)]
async fn a_build_survives_the_panel() {
    let api = Api::new();
    let mut first = Browser::logged_in(&api).await;
    api.state().imaging_waits = true;
    let build = create(&mut first, "2").await.location().to_owned();
    first.get(&build).await.shows("This page follows by itself");
    first.close_panel().await;

    let mut second = Browser::logged_in(&api).await;
    second.get(&build).await.shows("The work has stopped here.");
    second.get("/drives").await.shows("Unfinished server");
    api.state().imaging_waits = false;
    second.submit(&build, &[]).await;
    let done = settled(&mut second, &build).await;
    assert!(done.location().starts_with("/servers/"), "{}", done.html);
    assert_eq!(api.state().servers.len(), 1);
}

fn count(api: &Api, call: Call) -> usize {
    api.state().calls.iter().filter(|&&made| made == call).count()
}
