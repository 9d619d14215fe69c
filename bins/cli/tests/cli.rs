//! Whole commands against a scripted API: what is sent, what is shown, and the exit status.
#![expect(clippy::unwrap_used, reason = "a test's helpers fail like its tests")]

use std::collections::VecDeque;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::{Command as Process, ExitCode};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use clap::Parser as _;
use elasticstack_cli::command::{Cli, run};
use elasticstack_cli::screen::{Progress, Screen, Sink};
use elasticstack_core::client::{Client, Transport};
use elasticstack_core::error::Result;
use elasticstack_core::secret::Secret;
use http::{Request, Response};

const ACCOUNT: &str = "5b0e3c52-0000-4000-8000-00000000a001";
const DRIVE: &str = "5b0e3c52-0000-4000-8000-00000000d001";
const SOURCE: &str = "5b0e3c52-0000-4000-8000-00000000d002";
const SNAPSHOT: &str = "5b0e3c52-0000-4000-8000-00000000f001";
const HOST: &str = "5b0e3c52-0000-4000-8000-00000000b001";
const SERVER: &str = "5b0e3c52-0000-4000-8000-00000000e001";

/// Answers in order, and notes what was asked: the method, the path and the body's length or text.
#[derive(Default)]
struct Script {
    answers: Mutex<VecDeque<Response<Bytes>>>,
    asked: Mutex<Vec<String>>,
}

impl Script {
    fn of(answers: impl IntoIterator<Item = (u16, &'static str)>) -> Arc<Self> {
        let answers = answers.into_iter().zip(1..).map(|((status, body), number)| {
            let mut answer = Response::builder().status(status);
            answer = answer.header("events-cursor", format!("0.{number}.1"));
            let mut body = body;
            if let Some((error, sentence)) = body.split_once('|') {
                answer = answer.header("x-elastic-error", error);
                body = sentence;
            }
            answer.body(Bytes::from_static(body.as_bytes())).unwrap()
        });
        Arc::new(Self { answers: Mutex::new(answers.collect()), asked: Mutex::default() })
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

#[async_trait]
impl Transport for Script {
    async fn send(&self, request: Request<Bytes>) -> Result<Response<Bytes>> {
        let body = request.body();
        let body = match body.len() {
            0 => String::new(),
            1..200 => format!(" {}", String::from_utf8_lossy(body)),
            length => format!(" {length} bytes"),
        };
        self.asked.lock().unwrap().push(format!("{} {}{body}", request.method(), request.uri()));
        Ok(self.answers.lock().unwrap().pop_front().expect("an answer for every request"))
    }
}

/// What a command left behind.
struct Ended {
    out: String,
    err: String,
    status: ExitCode,
}

async fn command(script: &Arc<Script>, line: &[&str]) -> Ended {
    let cli = Cli::try_parse_from(std::iter::once(&"elasticstack").chain(line)).unwrap();
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let mut screen = Screen::new((&mut out, Sink::Bytes), (&mut err, Progress::Lines), cli.form());
    let connect =
        || Ok(Client::new(Arc::clone(script), ACCOUNT.parse().unwrap(), &Secret::new("canary"))?);
    let status = match run(cli.command, connect, &mut screen).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            screen.failed(&failure);
            failure.exit_code()
        }
    };
    let (out, err) = (String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap());
    assert!(!out.contains("canary") && !err.contains("canary"), "the key is shown: {out}{err}");
    Ended { out, err, status }
}

const SERVERS: &str = r#"[
    {"server":"5b0e3c52-0000-4000-8000-00000000e001","name":"web","status":"active","cpu":2000,"mem":1024},
    {"server":"5b0e3c52-0000-4000-8000-00000000e002","name":"a much longer\u001b[31m name","status":"stopped","cpu":500,"mem":512}
]"#;

#[tokio::test]
async fn servers_are_listed_as_an_aligned_table() {
    let script = Script::of([(200, SERVERS)]);
    let ended = command(&script, &["server", "list"]).await;
    assert_eq!(
        ended.out,
        "\
SERVER                                NAME                     STATUS   CPU       MEM
5b0e3c52-0000-4000-8000-00000000e001  web                      active   2000 MHz  1024 MiB
5b0e3c52-0000-4000-8000-00000000e002  a much longer\u{fffd}[31m name  stopped  500 MHz   512 MiB
"
    );
    assert_eq!(script.asked(), ["GET /servers/info"]);
}

#[tokio::test]
async fn json_is_what_the_api_says_with_numbers_bare() {
    let ended = command(&Script::of([(200, SERVERS)]), &["--json", "server", "list"]).await;
    let list: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(list[0]["cpu"], 2000);
    assert_eq!(list[1]["status"], "stopped");
    let ended = command(&Script::of([(204, "")]), &["server", "stop", SERVER, "--json"]).await;
    assert_eq!(ended.out, format!("{{\n  \"server\": \"{SERVER}\"\n}}\n"));
    let ended = command(&Script::of([]), &["keys", "drive", "--json"]).await;
    let keys: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert!(keys.as_array().unwrap().iter().any(|key| key["key"] == "size"), "{keys}");
}

#[tokio::test]
async fn a_server_is_created_from_human_units_and_boots_from_its_first_drive() {
    let script = Script::of([(200, r#"{"server":"x"}"#), (200, "{}")]);
    let drive = format!("block:0={DRIVE}");
    let line = ["server", "create", "--cpu=2GHz", "--mem=1GiB", "--drive", &drive, "smp=auto"];
    command(&script, &line).await;
    command(&script, &["server", "create", "--stopped"]).await;
    assert_eq!(
        script.asked(),
        [
            format!(
                "POST /servers/create {{\"block:0\":\"{DRIVE}\",\"boot\":\"block:0\",\
                 \"cpu\":2000,\"mem\":1024,\"smp\":\"auto\"}}"
            ),
            "POST /servers/create/stopped {}".to_owned(),
        ]
    );
}

#[tokio::test]
async fn a_snapshot_is_taken_restored_and_destroyed() {
    let taken = r#"{"snapshot":"5b0e3c52-0000-4000-8000-00000000f001","size":4194304}"#;
    let script = Script::of([(200, taken), (200, taken), (204, "")]);
    let ended = command(&script, &["snapshot", "create", DRIVE, "--name", "before"]).await;
    assert_eq!(ended.out, "size      4 MiB\nsnapshot  5b0e3c52-0000-4000-8000-00000000f001\n");
    command(&script, &["snapshot", "restore", SNAPSHOT]).await;
    let ended = command(&script, &["snapshot", "destroy", SNAPSHOT]).await;
    assert_eq!(ended.out, format!("snapshot {SNAPSHOT}: destroyed\n"));
    assert_eq!(
        script.asked(),
        [
            format!("POST /drives/{DRIVE}/snapshot {{\"name\":\"before\"}}"),
            format!("POST /snapshots/{SNAPSHOT}/restore {{}}"),
            format!("POST /snapshots/{SNAPSHOT}/destroy"),
        ]
    );
}

#[tokio::test]
async fn a_host_is_closed_opened_revoked_and_joined_again() {
    let script =
        Script::of([(200, "{}"), (200, "{}"), (200, "{}"), (200, r#"{"bundle":"PEM\n"}"#)]);
    for word in ["close", "open", "revoke"] {
        let ended = command(&script, &["host", word, HOST]).await;
        assert_eq!(ended.status, ExitCode::SUCCESS, "{word}: {}", ended.err);
    }
    let ended = command(&script, &["host", "join", HOST]).await;
    assert_eq!(ended.out, "elasticstack-agent join <<'END_OF_BUNDLE'\nPEM\nEND_OF_BUNDLE\n");
    assert_eq!(
        script.asked(),
        [
            format!("POST /hosts/{HOST}/set {{\"placements\":\"closed\"}}"),
            format!("POST /hosts/{HOST}/set {{\"placements\":\"open\"}}"),
            format!("POST /hosts/{HOST}/revoke {{}}"),
            format!("POST /hosts/{HOST}/join {{}}"),
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_for_an_image_shows_how_far_it_is_and_why_it_failed() {
    let steps = [(200, "{}"), (200, r#"{"imaging":"queued"}"#), (200, r#"{"imaging":"37%"}"#)];
    let line = ["drive", "image", DRIVE, SOURCE, "--gunzip", "--wait"];

    let script = Script::of(steps.into_iter().chain([(200, r#"{"name":"web","size":4194304}"#)]));
    let ended = command(&script, &line).await;
    assert_eq!(script.asked()[0], format!("POST /drives/{DRIVE}/image/{SOURCE}/gunzip {{}}"));
    assert_eq!(ended.err, "imaging queued\nimaging 37%\nimaging done\n");
    assert_eq!(ended.out, "name  web\nsize  4 MiB\n");

    let failed = [(200, r#"{"failed":"the source is no gzip"}"#)];
    let ended = command(&Script::of(steps.into_iter().chain(failed)), &line).await;
    assert_eq!(
        ended.err,
        "imaging queued\nimaging 37%\nerror: the source is no gzip (job_failed)\n"
    );
    assert_eq!(ended.status, ExitCode::from(1));
}

#[tokio::test]
async fn an_upload_that_breaks_off_says_where_to_go_on() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image");
    std::fs::write(&file, vec![7; (4 << 20) + 300]).unwrap();
    let file = file.to_str().unwrap();

    let script = Script::of([(204, ""), (503, "busy code=unavailable|the host is away")]);
    let ended = command(&script, &["drive", "write", DRIVE, file]).await;
    assert_eq!(
        script.asked(),
        [
            format!("POST /drives/{DRIVE}/write/0 4194304 bytes"),
            format!("POST /drives/{DRIVE}/write/4194304 300 bytes"),
        ]
    );
    let last = ended.err.lines().last().unwrap();
    assert_eq!(
        last,
        "error: the host is away; up to byte 4194304 it is done: \
         go on with --offset 4194304 (unavailable)"
    );
    assert_eq!(ended.status, ExitCode::from(3));

    let script = Script::of([(204, "")]);
    let ended = command(&script, &["drive", "upload", DRIVE, file, "--offset", "4MiB"]).await;
    assert_eq!(script.asked(), [format!("POST /drives/{DRIVE}/write/4194304 300 bytes")]);
    assert_eq!(ended.out, format!("drive {DRIVE}: 300 B written\n"));
}

#[tokio::test]
async fn a_download_goes_on_where_it_broke_off_and_a_short_answer_is_no_success() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("copy");
    std::fs::write(&path, "abXX").unwrap();
    let file = path.to_str().unwrap();

    let script = Script::of([(200, r#"{"size":5}"#), (200, "cde")]);
    let ended = command(&script, &["drive", "read", DRIVE, file, "--offset=2"]).await;
    assert_eq!(ended.status, ExitCode::SUCCESS, "{}", ended.err);
    assert_eq!(std::fs::read(&path).unwrap(), b"abcde");
    assert_eq!(script.asked()[1], format!("GET /drives/{DRIVE}/read/2/3"));

    let ended =
        command(&Script::of([(200, "ab")]), &["drive", "read", DRIVE, "-", "--length=3"]).await;
    assert_eq!(ended.status, ExitCode::from(3));
    assert!(ended.err.contains("sent 2 of 3 bytes"), "{}", ended.err);
}

const EVENT: &str = r#"[{"at":1,"cursor":"1.2.0","event":"changed","id":"5b0e3c52-0000-4000-8000-00000000e001","object":"server","status":"active"}]"#;

#[tokio::test]
async fn events_are_listed_from_a_cursor_on() {
    let script = Script::of([(200, EVENT)]);
    let ended = command(&script, &["events", "--all", "--after", "1.1.0"]).await;
    assert_eq!(
        ended.out,
        "\
AT  OBJECT  ID                                    EVENT    STATUS  CURSOR
1   server  5b0e3c52-0000-4000-8000-00000000e001  changed  active  1.2.0
"
    );
    assert_eq!(script.asked(), ["GET /events/info/all?limit=10000&after=1.1.0"]);
    let ended = command(&Script::of([(200, EVENT)]), &["events", "--json"]).await;
    let list: serde_json::Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(list[0]["at"], 1);
}

#[tokio::test(start_paused = true)]
async fn following_goes_on_behind_what_it_has_shown_also_when_the_server_was_away() {
    let answers = [
        (200, "[]"),
        (200, EVENT),
        (503, "busy code=unavailable|it is away"),
        (200, EVENT),
        (400, "usage code=cursor_lost field=after|begin anew"),
    ];
    let script = Script::of(answers);
    let ended = command(&script, &["events", "--follow"]).await;
    let row = format!("{:<16}  server   {SERVER}  changed    active    1.2.0", 1);
    let headings = ended.out.lines().next().unwrap();
    assert_eq!(
        headings.split_whitespace().collect::<Vec<_>>().join(" "),
        "AT OBJECT ID EVENT STATUS CURSOR"
    );
    assert_eq!(ended.out.lines().skip(1).collect::<Vec<_>>(), [&row, &row]);
    assert!(ended.err.contains("it is away: trying again from 0.2.1 on"), "{}", ended.err);
    assert_eq!(ended.status, ExitCode::from(1));
    assert_eq!(
        script.asked(),
        [
            "GET /events/info?after=now",
            "GET /events/info?after=0.1.1&wait=60",
            "GET /events/info?after=0.2.1&wait=60",
            "GET /events/info?after=0.2.1&wait=60",
            "GET /events/info?after=0.4.1&wait=60",
        ]
    );
    let ended = command(&Script::of(answers), &["events", "--follow", "--json"]).await;
    assert_eq!(ended.out.lines().count(), 2, "one a line: {}", ended.out);
}

#[tokio::test]
async fn refusals_are_a_sentence_a_code_and_a_status() {
    for (answer, line, status) in [
        ((409, "busy code=drive_in_use|it is in use"), "error: it is in use (drive_in_use)", 6),
        ((404, "missing code=not_found|no such drive"), "error: no such drive (not_found)", 4),
        ((401, "auth|who are you"), "error: who are you (bad_credentials)", 5),
        ((507, "full code=no_capacity|no room"), "error: no room (no_capacity)", 1),
    ] {
        let ended = command(&Script::of([answer]), &["drive", "destroy", DRIVE]).await;
        assert_eq!(ended.err.trim_end(), line);
        assert_eq!(ended.status, ExitCode::from(status), "{line}");
        assert_eq!(ended.out, "");
    }
}

fn process(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let output = Process::new(env!("CARGO_BIN_EXE_elasticstack"))
        .args(arguments)
        .env_remove("EHURI")
        .env_remove("EHAUTH")
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).unwrap())
}

#[test]
fn a_servers_screen_is_a_url_on_the_address_of_the_api() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}", listener.local_addr().unwrap());
    let api = std::thread::spawn(move || {
        let (stream, _) = listener.accept().unwrap();
        let mut asked = String::new();
        BufReader::new(&stream).read_line(&mut asked).unwrap();
        let ticket = r#"{"ticket":"t","path":"/console/t","expires":9}"#;
        let length = ticket.len();
        write!(&stream, "HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{ticket}").unwrap();
        asked
    });
    let account = format!("{ACCOUNT}:canary");
    let environment = [("EHURI", address.as_str()), ("EHAUTH", account.as_str())];
    let (status, text) = process(&["server", "console", SERVER, "--json"], &environment);
    assert_eq!(status, Some(0), "{text}");
    let shown: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(shown["url"], format!("{}/console/t", address.replace("http", "ws")));
    let asked = api.join().unwrap();
    assert!(asked.starts_with(&format!("POST /servers/{SERVER}/console ")), "{asked}");
}

#[test]
fn the_program_itself_exits_as_documented() {
    let account = format!("{ACCOUNT}:canary");
    let (status, text) = process(&["server", "list"], &[]);
    assert_eq!(status, Some(2), "{text}");
    assert!(text.starts_with("error: EHURI is not set"), "{text}");
    // Nothing listens on port 1 of loopback.
    let environment = [("EHURI", "http://127.0.0.1:1"), ("EHAUTH", account.as_str())];
    let (status, text) = process(&["server", "list"], &environment);
    assert_eq!(status, Some(3), "{text}");
    assert!(text.contains("can't be reached (unavailable)"), "{text}");
    assert!(!text.contains("canary"), "{text}");
    let (status, text) = process(&["completions", "bash"], &[]);
    assert_eq!(status, Some(0), "{text}");
    assert!(text.contains("_elasticstack()"), "{text}");
}
