//! The way to a guest's screen, over HTTP/2 as the control plane takes it.

use std::time::Duration;

use bytes::Bytes as Chunk;
use elasticstack_core::error::ErrorKind;
use elasticstack_core::hypervisor::{Access, EndCause, Phase};
use elasticstack_core::wire::internal::{Document, Fault, SCREEN_PROTOCOL};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http2::{self, SendRequest};
use hyper::ext::Protocol;
use hyper::upgrade::Upgraded;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::locked;
use super::serve::speak;
use super::tests::{Caller, World, server, server_id};

const GUARD: Duration = Duration::from_secs(60);

/// A connection to the agent, and what came of asking it for the screen of `run`.
async fn screen(
    caller: &Caller,
    run: u64,
    protocol: &'static str,
) -> Result<(TokioIo<Upgraded>, SendRequest<Empty<Chunk>>), (StatusCode, String)> {
    let (ours, theirs) = tokio::io::duplex(64 << 10);
    tokio::spawn(speak(theirs, caller.agent.router()));
    let client = http2::Builder::new(TokioExecutor::new());
    let (mut sender, connection) = client.handshake(TokioIo::new(ours)).await.unwrap();
    tokio::spawn(connection);
    let request = Request::builder()
        .method(Method::CONNECT)
        .uri(format!("http://host/v1/servers/{}/screen?run={run}", server_id()))
        .extension(Protocol::from_static(protocol))
        .body(Empty::new())
        .unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status();
    if status.is_success() {
        return Ok((TokioIo::new(hyper::upgrade::on(answer).await.unwrap()), sender));
    }
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    Err((status, serde_json::from_slice::<Fault>(&body).unwrap().code))
}

#[tokio::test]
async fn a_screen_is_carried_for_the_run_that_shows_it_and_for_no_other() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    *locked(&world.hypervisor.screen) = listener.local_addr().unwrap();
    let mut caller = world.agent().await;
    let refused = |status, kind: ErrorKind| Some((status, kind.code().to_owned()));
    let missing = || refused(StatusCode::NOT_FOUND, ErrorKind::NotFound);
    assert_eq!(screen(&caller, 1, SCREEN_PROTOCOL).await.err(), missing(), "nothing runs");
    let drive = super::tests::drive(1, 1);
    caller.push([Document::Drive(drive), Document::Server(server(1, 1, Access::Exclusive))]).await;
    caller.running(1).await;
    assert_eq!(screen(&caller, 2, SCREEN_PROTOCOL).await.err(), missing(), "another run");
    let odd = screen(&caller, 1, "websocket").await.err();
    assert_eq!(odd, refused(StatusCode::BAD_REQUEST, ErrorKind::InvalidValue));

    let (mut io, _sender) = screen(&caller, 1, SCREEN_PROTOCOL).await.unwrap();
    let (mut guest, _) = listener.accept().await.unwrap();
    let mut heard = [0; 5];
    io.write_all(b"hello").await.unwrap();
    guest.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"hello");
    guest.write_all(b"there").await.unwrap();
    io.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"there");

    // What nobody reads stays where it is: the guest's side waits.
    let piece = vec![7; 64 << 10];
    let mut sent = 0_usize;
    while let Ok(written) = tokio::time::timeout(Duration::from_secs(1), guest.write(&piece)).await
    {
        sent += written.unwrap();
        assert!(sent < 64 << 20, "nothing holds it back");
    }
    let mut rest = vec![0; sent];
    io.read_exact(&mut rest).await.unwrap();
    assert!(rest.iter().all(|byte| *byte == 7));

    drop(guest);
    let ended = tokio::time::timeout(GUARD, io.read(&mut heard)).await.expect("it goes on");
    assert_eq!(ended.unwrap(), 0, "it ends with the guest's side");

    let (mut io, _sender) = screen(&caller, 1, SCREEN_PROTOCOL).await.unwrap();
    let (mut guest, _) = listener.accept().await.unwrap();
    caller.agent.close().await;
    let ended = tokio::time::timeout(GUARD, guest.read(&mut heard)).await.expect("it goes on");
    assert_eq!(ended.unwrap(), 0, "it ends with the agent");
    let ended = tokio::time::timeout(GUARD, io.read(&mut heard)).await.expect("it goes on");
    assert!(matches!(ended, Ok(0) | Err(_)), "{ended:?}");
    let closing = screen(&caller, 1, SCREEN_PROTOCOL).await.err();
    assert_eq!(closing, refused(StatusCode::SERVICE_UNAVAILABLE, ErrorKind::Unavailable));
}

#[tokio::test]
async fn a_run_that_is_over_shows_no_screen_though_somebody_listens_there() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    *locked(&world.hypervisor.screen) = listener.local_addr().unwrap();
    let mut caller = world.agent().await;
    let drive = super::tests::drive(1, 1);
    caller.push([Document::Drive(drive), Document::Server(server(1, 1, Access::Exclusive))]).await;
    caller.running(1).await;
    world.hypervisor.come_to(server_id(), Phase::Ended(EndCause::Guest));
    let over = screen(&caller, 1, SCREEN_PROTOCOL).await.err();
    assert_eq!(over, Some((StatusCode::NOT_FOUND, "not_found".to_owned())));
    caller.agent.close().await;
}
