//! Screens of servers over websockets: tickets, what they open, and what ends it. A real guest's
//! screen is looked at in the all-in-one's tests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use axum::body::Body;
use elasticstack_api::ServerBuilder;
use elasticstack_api::app::TICKET;
use elasticstack_api::http::Limits;
use elasticstack_core::prelude::*;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{Request, Response};
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use tokio_tungstenite::tungstenite::{Error as Failed, Message};

use crate::cloud::{Answer, Cloud, GUARD, send, served};
use crate::database::TestDatabase;

type Socket = WebSocketStream<TcpStream>;

/// A server of the customer's that runs with a screen.
async fn running(cloud: &Cloud) -> String {
    let server = cloud.stopped_server().await;
    cloud.post(&format!("/servers/{server}/start"), "").await.expect(200);
    server
}

/// The path that a new ticket opens.
async fn path(cloud: &Cloud, server: &str) -> String {
    let answer = cloud.post(&format!("/servers/{server}/console"), "").await.expect(200);
    answer.value("path").unwrap().to_owned()
}

/// Opens a websocket, or says with which status and error it was refused.
pub(crate) async fn open(
    address: SocketAddr,
    path: &str,
) -> Result<(Socket, Response<Option<Vec<u8>>>), (u16, String)> {
    let mut request = format!("ws://{address}{path}").into_client_request().unwrap();
    let headers = request.headers_mut();
    headers.insert("Sec-WebSocket-Protocol", "binary".parse().unwrap());
    headers.insert("Origin", "https://elsewhere.example".parse().unwrap());
    let stream = TcpStream::connect(address).await.unwrap();
    match tokio_tungstenite::client_async(request, stream).await {
        Ok(opened) => Ok(opened),
        Err(Failed::Http(refused)) => {
            let error = refused.headers().get("x-elastic-error");
            let error = error.map_or("", |error| error.to_str().unwrap()).to_owned();
            Err((refused.status().as_u16(), error))
        }
        Err(error) => panic!("{error}"),
    }
}

/// Expects that a screen is closed with this code.
async fn closed(socket: &mut Socket, code: u16) {
    loop {
        match socket.next().await {
            Some(Ok(Message::Close(Some(frame)))) => {
                return assert_eq!(u16::from(frame.code), code, "{}", frame.reason);
            }
            Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => {}
            other => panic!("it ends without a word: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_ticket_opens_a_screen_once_and_its_bytes_go_both_ways() {
    let cloud = Cloud::new().await;
    let server = running(&cloud).await;
    let before = Timestamp::from(SystemTime::now()).as_seconds();
    let answer = cloud.post(&format!("/servers/{server}/console"), "").await.expect(200);
    let (ticket, path) = (answer.value("ticket").unwrap(), answer.value("path").unwrap());
    assert_eq!(path, format!("/console/{ticket}"));
    let expires: i64 = answer.value("expires").unwrap().parse().unwrap();
    assert!((before + 60..before + 60 + 60).contains(&expires), "{before} {expires}");
    served(&cloud.server, async |address| {
        let (socket, response) = open(address, path).await.unwrap();
        assert_eq!(response.headers()["sec-websocket-protocol"], "binary");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let sent: Vec<u8> = (0..1_000_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
        let (mut write, mut read) = socket.split();
        let writing = async {
            for part in sent.chunks(50_000) {
                write.send(Message::binary(part.to_vec())).await.unwrap();
            }
        };
        let reading = async {
            let mut heard = Vec::new();
            while heard.len() < sent.len() {
                if let Message::Binary(part) = read.next().await.unwrap().unwrap() {
                    heard.extend_from_slice(&part);
                }
            }
            heard
        };
        let ((), heard) = tokio::join!(writing, reading);
        assert!(heard == sent, "the bytes are not the same");
        let refused = open(address, path).await.err().unwrap();
        assert_eq!(refused, (404, "missing code=not_found".to_owned()));
    })
    .await;
    cloud.server.close().await;
}

#[tokio::test]
async fn of_many_who_use_a_ticket_at_once_one_gets_in() {
    let cloud = Cloud::new().await;
    let path = path(&cloud, &running(&cloud).await).await;
    served(&cloud.server, async |address| {
        let tries = futures_util::future::join_all((0..16).map(|_| open(address, &path))).await;
        assert_eq!(tries.iter().filter(|tried| tried.is_ok()).count(), 1, "{tries:?}");
        for refused in tries.into_iter().filter_map(Result::err) {
            assert_eq!(refused.0, 404, "{refused:?}");
        }
    })
    .await;
    cloud.server.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs PostgreSQL: cargo xtask test"]
async fn a_ticket_that_one_server_gave_is_good_once_at_all_of_them() {
    let cloud = Cloud::on(TestDatabase::postgres()).await;
    let two = cloud.another_server().await;
    let server = running(&cloud).await;
    served(&cloud.server, async |one| {
        served(&two, async |other| {
            for _ in 0..8 {
                let path = path(&cloud, &server).await;
                let places = [one, other, one, other];
                let tries = places.map(|address| open(address, &path));
                let tries = futures_util::future::join_all(tries).await;
                assert_eq!(tries.iter().filter(|tried| tried.is_ok()).count(), 1, "{tries:?}");
            }
            let path = path(&cloud, &server).await;
            let (mut socket, _) = open(other, &path).await.unwrap();
            socket.send(Message::binary("hello")).await.unwrap();
            let heard = loop {
                if let Message::Binary(heard) = socket.next().await.unwrap().unwrap() {
                    break heard;
                }
            };
            assert_eq!(heard, "hello");
            assert_eq!(open(one, &path).await.err().unwrap().0, 404);
        })
        .await;
    })
    .await;
}

#[tokio::test]
async fn a_ticket_is_good_for_a_minute_and_then_forgotten() {
    let ahead = Arc::new(AtomicU64::new(0));
    let clock = ahead.clone();
    let begun = Timestamp::from(SystemTime::now());
    let clock = Arc::new(move || begun.plus(Duration::from_micros(clock.load(Ordering::SeqCst))));
    let cloud = Cloud::with(TestDatabase::new(), |builder| builder.clock(clock)).await;
    let server = running(&cloud).await;
    let (early, late) = (path(&cloud, &server).await, path(&cloud, &server).await);
    let minute = u64::try_from(TICKET.as_micros()).unwrap();
    served(&cloud.server, async |address| {
        ahead.store(minute - 1, Ordering::SeqCst);
        open(address, &early).await.unwrap();
        ahead.store(minute, Ordering::SeqCst);
        assert_eq!(open(address, &late).await.err().unwrap().0, 404);
        cloud.server.app().deadlines().await.unwrap();
        // Were its row still there, this would find it good again.
        ahead.store(0, Ordering::SeqCst);
        assert_eq!(open(address, &late).await.err().unwrap().0, 404);
    })
    .await;
    cloud.server.close().await;
}

#[tokio::test]
async fn a_server_that_shows_nothing_gives_no_ticket() {
    let cloud = Cloud::new().await;
    let console = |server: &str| format!("/servers/{server}/console");
    let stopped = cloud.stopped_server().await;
    let refused = cloud.post(&console(&stopped), "").await.expect(409);
    assert_eq!(refused.header("x-elastic-error"), "busy code=server_busy");
    let sized = "name s\ncpu 500\nmem 128\npersistent true";
    for without in ["", "\nvnc auto", "\npassword x"] {
        let body = format!("{sized}{without}");
        let made = cloud.post("/servers/create", &body).await.expect(200);
        let refused = cloud.post(&console(made.value("server").unwrap()), "").await.expect(409);
        assert_eq!(refused.header("x-elastic-error"), "busy code=server_busy field=vnc");
    }
    // One that is set while it runs is there from its next start on.
    let made = cloud.post("/servers/create", &format!("{sized}\nvnc auto")).await.expect(200);
    let server = made.value("server").unwrap();
    cloud.post(&format!("/servers/{server}/set"), "password x").await.expect(200);
    cloud.post(&console(server), "").await.expect(409);
    for step in ["stop", "start", "console"] {
        let done = cloud.post(&format!("/servers/{server}/{step}"), "").await;
        assert!(matches!(done.status, 200 | 204), "{step}: {done:?}");
    }
    cloud.server.close().await;
}

#[tokio::test]
async fn a_ticket_is_for_one_run_and_a_screen_ends_with_it() {
    let cloud = Cloud::new().await;
    let server = running(&cloud).await;
    let act = async |what: &str| {
        let done = cloud.post(&format!("/servers/{server}/{what}"), "").await;
        assert!(matches!(done.status, 200 | 204), "{what}: {done:?}");
    };
    let (opened, kept) = (path(&cloud, &server).await, path(&cloud, &server).await);
    served(&cloud.server, async |address| {
        let (mut socket, _) = open(address, &opened).await.unwrap();
        act("stop").await;
        closed(&mut socket, 1000).await;
        assert_eq!(open(address, &kept).await.err().unwrap().0, 409, "it does not run");
        act("start").await;
        assert_eq!(open(address, &kept).await.err().unwrap().0, 404, "that is another run");
        let (mut socket, _) = open(address, &path(&cloud, &server).await).await.unwrap();
        act("destroy").await;
        closed(&mut socket, 1000).await;
    })
    .await;
    cloud.server.close().await;
}

#[tokio::test]
async fn a_screen_ends_with_the_token_that_asked_for_it() {
    let cloud = Cloud::new().await;
    let server = running(&cloud).await;
    let token = cloud.post("/tokens/create", "name t").await.expect(200);
    let bearer = format!("Bearer {}", token.value("secret").unwrap());
    let ask = async || {
        let request = Request::post(format!("/servers/{server}/console"));
        let request = request.header("Authorization", &bearer).body(Body::empty()).unwrap();
        let answer: Answer = send(&cloud.server, request).await.expect(200);
        answer.value("path").unwrap().to_owned()
    };
    let (opened, kept) = (ask().await, ask().await);
    served(&cloud.server, async |address| {
        let (mut socket, _) = open(address, &opened).await.unwrap();
        let (mut other, _) = open(address, &path(&cloud, &server).await).await.unwrap();
        let token = token.value("token").unwrap();
        cloud.post(&format!("/tokens/{token}/destroy"), "").await.expect(204);
        closed(&mut socket, 1008).await;
        assert_eq!(open(address, &kept).await.err().unwrap().0, 404);
        other.send(Message::binary("still")).await.unwrap();
        while other.next().await.unwrap().unwrap() != Message::binary("still") {}
    })
    .await;
    let reading = cloud.post("/tokens/create", "name r\naccess read").await.expect(200);
    let request = Request::post(format!("/servers/{server}/console"))
        .header("Authorization", format!("Bearer {}", reading.value("secret").unwrap()));
    cloud.send(request.body(Body::empty()).unwrap()).await.expect(403);
    cloud.server.close().await;
}

#[tokio::test]
async fn a_screen_ends_when_its_account_is_suspended_or_has_another_key() {
    let cloud = Cloud::new().await;
    let server = running(&cloud).await;
    let profile = cloud.get("/profile/info").await.expect(200);
    let account = profile.value("uuid").unwrap();
    let command = async |what: &str| {
        cloud.operate(&format!("/accounts/{account}/{what}"), "").await.expect(200);
    };
    let paths = [path(&cloud, &server).await, path(&cloud, &server).await];
    served(&cloud.server, async |address| {
        let (mut socket, _) = open(address, &paths[0]).await.unwrap();
        command("suspend").await;
        closed(&mut socket, 1008).await;
        let refused = open(address, &paths[1]).await.err().unwrap();
        assert_eq!(refused, (403, "quota code=account_suspended".to_owned()));
        command("resume").await;
        let (mut socket, _) = open(address, &paths[1]).await.unwrap();
        command("key").await;
        closed(&mut socket, 1008).await;
    })
    .await;
    cloud.server.close().await;
}

#[tokio::test]
async fn a_screen_ends_with_the_api_server_which_waits_for_it() {
    let cloud = Cloud::new().await;
    let path = path(&cloud, &running(&cloud).await).await;
    let mut socket =
        served(&cloud.server, async |address| open(address, &path).await.unwrap().0).await;
    closed(&mut socket, 1001).await;
    cloud.server.close().await;
}

#[tokio::test]
async fn no_account_has_more_screens_and_tickets_than_it_may() {
    let limits = Limits { screens: 3, screens_each: 2, ..Limits::default() };
    let choose = |builder: ServerBuilder| builder.limits(limits);
    let mut cloud = Cloud::with(TestDatabase::new(), choose).await;
    let server = running(&cloud).await;
    let mut paths = Vec::new();
    for _ in 0..100 {
        paths.push(path(&cloud, &server).await);
    }
    let console = format!("/servers/{server}/console");
    let refused = cloud.post(&console, "").await.expect(403);
    assert_eq!(refused.header("x-elastic-error"), "quota code=quota_exceeded");
    cloud.basic = cloud.stranger().await;
    let strangers = running(&cloud).await;
    let strangers = [path(&cloud, &strangers).await, path(&cloud, &strangers).await];
    served(&cloud.server, async |address| {
        let first = open(address, &paths[0]).await.unwrap();
        let _second = open(address, &paths[1]).await.unwrap();
        let full = open(address, &paths[2]).await.err().unwrap();
        assert_eq!(full, (403, "quota code=quota_exceeded".to_owned()));
        let _theirs = open(address, &strangers[0]).await.unwrap();
        assert_eq!(open(address, &strangers[1]).await.err().unwrap().0, 503, "all are taken");
        drop(first);
        let reopened = async {
            while open(address, &paths[2]).await.is_err() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(GUARD, reopened).await.expect("what was refused used no ticket up");
    })
    .await;
    cloud.server.close().await;
}

#[tokio::test]
async fn what_is_no_screen_is_refused_in_words() {
    let cloud = Cloud::new().await;
    let server = running(&cloud).await;
    let good = path(&cloud, &server).await;
    for (method, path, status, error) in [
        ("POST", good.as_str(), 405, "method code=method_not_allowed"),
        ("GET", &good, 400, "usage code=invalid_value field=Upgrade"),
        ("GET", "/console", 404, "missing code=not_found"),
        ("GET", "/console/x/y", 404, "missing code=not_found"),
    ] {
        let answer = cloud.send(cloud.request(method, path).body(Body::empty()).unwrap()).await;
        assert_eq!(answer.header("x-elastic-error"), error, "{method} {path}");
        assert_eq!(answer.expect(status).header("allow"), if status == 405 { "GET" } else { "" });
    }
    let wrong =
        format!("{}{}", &good[..good.len() - 1], if good.ends_with('0') { '1' } else { '0' });
    served(&cloud.server, async |address| {
        for path in ["/console/x", "/console/ec_", "/console/ec_%00", &wrong] {
            let refused = open(address, path).await.err().unwrap();
            assert_eq!(refused, (404, "missing code=not_found".to_owned()), "{path}");
        }
        let (mut socket, _) = open(address, &good).await.expect("none of that used it up");
        socket.send(Message::text("RFB 003.008")).await.unwrap();
        closed(&mut socket, 1003).await;
        let (mut socket, _) = open(address, &path(&cloud, &server).await).await.unwrap();
        for (opcode, is_final) in
            [(Data::Binary, false), (Data::Continue, false), (Data::Continue, true)]
        {
            let part = Frame::message(vec![0; 48 << 10], OpCode::Data(opcode), is_final);
            socket.send(Message::Frame(part)).await.unwrap();
        }
        closed(&mut socket, 1003).await;
        let (mut socket, _) = open(address, &path(&cloud, &server).await).await.unwrap();
        let _ = socket.send(Message::binary(vec![0; (128 << 10) + 1])).await;
        // The rest of such a frame is not waited for, and may cut off the last word too.
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(Some(frame)))) => {
                    break assert_eq!(u16::from(frame.code), 1003);
                }
                Some(Ok(Message::Binary(_) | Message::Ping(_) | Message::Pong(_))) => {}
                Some(Err(_)) => break,
                other => panic!("such a frame is let through: {other:?}"),
            }
        }
    })
    .await;
    cloud.server.close().await;
}
