//! What is secret is in no line of the log, however much is logged.

use std::io;
use std::sync::{Arc, Mutex};

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tracing_subscriber::fmt::MakeWriter;

use crate::cloud::{Cloud, served};

/// Everything that was logged.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl io::Write for Log {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for Log {
    type Writer = Self;

    fn make_writer(&self) -> Self {
        self.clone()
    }
}

#[tokio::test]
async fn no_secret_is_logged_whatever_is_called_and_however_it_ends() {
    let log = Log::default();
    let subscriber = tracing_subscriber::fmt()
        .with_max_level(tracing::Level::TRACE)
        .with_writer(log.clone())
        .finish();
    // Everything here is done on this thread.
    let _logging = tracing::subscriber::set_default(subscriber);
    let cloud = Cloud::new().await;
    let (password, guess) = ("hunter22", "guess-of-a-canary");
    let sized = format!("name s\ncpu 500\nmem 128\npersistent true\nvnc auto\npassword {password}");
    let made = cloud.post("/servers/create", &sized).await.expect(200);
    let server = made.value("server").unwrap();

    let send = async |basic: &str, path: &str, body: &str| {
        let request = Request::post(path).header("Authorization", basic);
        let request = request.header("Idempotency-Key", format!("once-for{path}"));
        cloud.send(request.body(Body::from(body.to_owned())).unwrap()).await
    };
    let stranger = cloud.stranger().await;
    // Each twice: what is kept of an answer is not logged either.
    let mut secrets = vec![password.to_owned(), guess.to_owned()];
    let console = format!("/servers/{server}/console");
    let mut path = String::new();
    for (basic, call, body, key) in [
        (&cloud.basic, console.as_str(), "", "ticket"),
        (&cloud.operator, "/hosts/create", "name h2\naddress h:1", "bundle"),
        (&stranger, "/tokens/create", "name t", "secret"),
    ] {
        let first = send(basic, call, body).await.expect(200);
        assert_eq!(send(basic, call, body).await.expect(200).value(key), first.value(key));
        let secret = first.value(key).unwrap();
        secrets.push(secret[secret.len() / 2..][..secret.len().min(40) / 2].to_owned());
        path = first.value("path").map_or(path, str::to_owned);
    }
    let account = cloud.operate("/accounts/create", "name a").await.expect(200);
    let anew = format!("/accounts/{}/key", account.value("account").unwrap());
    let anew = cloud.operate(&anew, "").await.expect(200);
    secrets.extend([&account, &anew].map(|made| made.value("secret").unwrap().to_owned()));
    let token = cloud.post("/tokens/create", "name t").await.expect(200);
    let token = token.value("secret").unwrap();
    secrets.push(token[40..].to_owned());
    for basic in [&cloud.basic, &cloud.operator] {
        let decoded = STANDARD.decode(&basic["Basic ".len()..]).unwrap();
        let (_, key) = std::str::from_utf8(&decoded).unwrap().split_once(':').unwrap();
        secrets.extend([key.to_owned(), basic["Basic ".len()..].to_owned()]);
    }

    // What goes wrong is logged, and quotes nothing.
    let bearer = format!("Bearer {token}");
    send(&bearer, "/tokens/create", "name t").await.expect(403);
    send(&format!("Bearer {guess}"), "/drives/list", "").await.expect(401);
    send(&cloud.basic, "/servers/create", &format!("password {guess}-too-long")).await.expect(400);
    send(&cloud.basic, "/servers/create", &format!("passwort {guess}")).await.expect(400);
    cloud.get(&format!("/console/{guess}")).await.expect(400);
    served(&cloud.server, async |address| {
        let open = async |path: &str| {
            let request = format!("ws://{address}{path}").into_client_request().unwrap();
            let stream = TcpStream::connect(address).await.unwrap();
            tokio_tungstenite::client_async(request, stream).await
        };
        open(&path).await.unwrap();
        open(&path).await.unwrap_err();
        open(&format!("/console/{guess}")).await.unwrap_err();
    })
    .await;
    cloud.post(&format!("/servers/{server}/set"), "password other").await.expect(200);
    let kept = cloud.post(&console, "").await.expect(200);
    cloud.dial.remove(cloud.host);
    cloud.dial.cut();
    served(&cloud.server, async |address| {
        let path = kept.value("path").unwrap();
        let request = format!("ws://{address}{path}").into_client_request().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        tokio_tungstenite::client_async(request, stream).await.unwrap_err();
    })
    .await;
    secrets.push(kept.value("ticket").unwrap()[40..].to_owned());
    cloud.get(&format!("/servers/{server}/serial")).await.expect(503);
    cloud.server.close().await;

    let log = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
    for said in ["/console/TICKET", "/servers/SERVER/serial", "a screen is opened"] {
        assert!(log.contains(said), "{said:?} is not logged, so this proves nothing");
    }
    for secret in &secrets {
        assert!(secret.len() >= 8, "{secret:?} would be found anywhere");
        let line = log.lines().find(|line| line.contains(secret.as_str()));
        assert!(line.is_none(), "{secret:?} is logged: {line:?}");
    }
}
