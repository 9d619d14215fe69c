//! Jobs that make a drive of a file elsewhere, across restarts of the agent.

use elasticstack_core::secret::Secret;
use elasticstack_core::wire::internal::{
    Document, Download, JobDocument, JobProgress, ObjectStatus,
};
use http::StatusCode;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::tests::{MIB, World, drive, drive_id, job};
use crate::fetch::{AUTHORITIES, Fetcher, Networks};

/// One that fetches from this machine too.
pub(super) fn fetcher() -> Fetcher {
    let allowed = vec!["127.0.0.0/8".parse().unwrap()];
    Fetcher::new(Networks { allowed, ..Networks::default() }, AUTHORITIES.into())
}

/// Takes in one request, and tells that two mebibytes will follow.
async fn asked(listener: &TcpListener) -> TcpStream {
    let (mut stream, _) = listener.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", 2 * MIB);
    stream.write_all(answer.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_download_that_was_cut_off_begins_anew_with_the_next_agent() {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/disk", listener.local_addr().unwrap());
    let download = Some(Download { url: Secret::new(url), sha256: None });
    let fetch = JobDocument { source: drive_id(2), download, ..job(1, 2) };
    let file: Vec<u8> = (0..2 * MIB).map(|n| u8::try_from(n / 4096 % 251).unwrap()).collect();
    let half = file.len() / 2;

    let mut caller = world.agent().await;
    caller.push([Document::Drive(drive(2, 1))]).await;
    caller.drive(2, |_| true).await;
    caller.push([Document::Job(fetch.clone())]).await;
    let mut stream = asked(&listener).await;
    stream.write_all(&file[..half]).await.unwrap();
    caller.job(|state| *state == JobProgress::Running(50)).await;
    assert_eq!(caller.write(2, 0, "x").await.0, StatusCode::CONFLICT);
    caller.agent.close().await;
    drop((caller, stream));

    let mut caller = world.agent().await;
    let mut stream = asked(&listener).await;
    stream.write_all(&file).await.unwrap();
    caller.job(|state| *state == JobProgress::Done).await;
    assert!(world.store.content(drive_id(2)).is_some_and(|content| content == file));
    assert_eq!(caller.write(2, 0, "free again").await.0, StatusCode::NO_CONTENT);

    let again =
        JobDocument { job: "5b0e3c52-0000-4000-8000-00000000000c".parse().unwrap(), ..fetch };
    caller.push([Document::Job(again.clone())]).await;
    let _silent = asked(&listener).await;
    let next = JobDocument { generation: job(2, 2).generation, gone: true, ..again.clone() };
    caller.push([Document::Job(next)]).await;
    let gone = |status: &ObjectStatus| {
        matches!(status, ObjectStatus::Job(it) if it.job == again.job && it.gone).then_some(())
    };
    caller.until(gone).await;
    assert_eq!(caller.write(2, 0, "free again").await.0, StatusCode::NO_CONTENT);
    caller.agent.close().await;
}
