//! What is refused, how, and that nothing is half done.

use std::io::{Read as _, Write as _};

use axum::body::Body;
use elasticstack_core::wire::calls::{self, CALLS, Call, Effect};
use elasticstack_core::wire::internal::MAX_WRITE;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use http::Request;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use uuid::Uuid;

use crate::cloud::{Cloud, SMALL};

/// A path of every call, about objects that are not there.
fn paths() -> impl Iterator<Item = (Call, String)> {
    CALLS.iter().map(|route| {
        let nothing = Uuid::new_v4().to_string();
        let parameters = match route.call {
            _ if route.path.contains("/SOURCE") => [nothing.as_str(); 3],
            _ => [nothing.as_str(), "0", "1"],
        };
        (route.call, calls::path(route.call, &parameters))
    })
}

#[tokio::test]
async fn no_call_is_served_without_the_right_credentials() {
    let cloud = Cloud::new().await;
    let stranger = cloud.basic.chars().rev().collect::<String>();
    for (call, path) in paths() {
        for basic in [None, Some(&stranger)] {
            let mut request = Request::builder().method("POST").uri(&path);
            if let Some(basic) = basic {
                request = request.header("Authorization", basic);
            }
            let refused = cloud.send(request.body(Body::from(SMALL)).unwrap()).await.expect(401);
            let keyword = refused.header("x-elastic-error");
            assert_eq!(keyword, "auth code=bad_credentials", "{call:?}");
            assert!(refused.header("www-authenticate").starts_with("Basic realm="), "{call:?}");
        }
    }
    cloud.server.close().await;
}

#[tokio::test]
async fn a_get_of_a_changing_call_and_an_odd_method_are_405() {
    let cloud = Cloud::new().await;
    for (call, path) in paths() {
        let changes = calls::route(call).effect == Effect::Changes;
        let allow = if changes { "POST" } else { "GET, POST" };
        for method in ["GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"] {
            if method == "GET" && !changes {
                continue;
            }
            let request = cloud.request(method, &path).body(Body::empty()).unwrap();
            let refused = cloud.send(request).await.expect(405);
            let keyword = refused.header("x-elastic-error");
            assert_eq!(keyword, "method code=method_not_allowed", "{call:?} {method}");
            assert_eq!(refused.header("allow"), allow, "{call:?} {method}");
        }
    }
    cloud.server.close().await;
}

#[tokio::test]
async fn unknown_calls_unknown_objects_and_other_peoples_objects_look_alike() {
    let cloud = Cloud::new().await;
    let (drive, server) = (cloud.drive().await, cloud.stopped_server().await);
    let stranger = cloud.stranger().await;
    for (call, path) in paths() {
        let route = calls::route(call);
        if !route.path.contains("DRIVE") && !route.path.contains("SERVER") {
            continue;
        }
        let body = "name x";
        let nobody = cloud.post(&path, body).await.expect(404);
        assert_eq!(nobody.header("x-elastic-error"), "missing code=not_found", "{call:?}");
        let id = path.split('/').nth(2).unwrap().to_owned();
        let owned = if route.path.contains("DRIVE") { &drive } else { &server };
        let path = path.replacen(&id, owned, 1);
        let request = Request::post(&path).header("Authorization", &stranger);
        let others = cloud.send(request.body(Body::from(body)).unwrap()).await.expect(404);
        assert_eq!(others.text(), nobody.text(), "{call:?}");
    }
    for path in ["/", "/drives", "/drives/x/info", "/drives/..%2f..%2fetc/info", "/x/y/z"] {
        let missing = cloud.get(path).await.expect(404);
        assert_eq!(missing.header("x-elastic-error"), "missing code=not_found", "{path}");
    }
    cloud.server.close().await;
}

#[tokio::test]
async fn bad_input_is_refused_with_the_keyword_and_the_key_to_blame() {
    let cloud = Cloud::new().await;
    let drive = cloud.drive().await;
    let many_lines = "name x\n".repeat(10_000);
    let many_keys: String = (0..2_000).map(|n| format!("user:{n} x\n")).collect();
    let long = format!("user:a {}", "x".repeat(1 << 20));
    let write_past = format!("/drives/{drive}/write/4194300");
    let read_past = format!("/drives/{drive}/read/4194304/1");
    let read_much = format!("/drives/{drive}/read/0/4194305");
    let read_odd = format!("/drives/{drive}/read/-1/4");
    for (path, body, status, error, sentence) in [
        ("/drives/create", "name x", 400, "usage code=missing_key field=size", "size"),
        ("/drives/create", "size 4M\nsise 1", 400, "usage code=unknown_key field=sise", "sise"),
        ("/drives/create", "size 99999999T", 400, "usage code=invalid_value field=size", "suffix"),
        ("/drives/create", "size -4M", 400, "usage code=invalid_value field=size", "suffix"),
        ("/drives/create", "size 1T\nname x", 507, "full code=no_capacity", ""),
        ("/drives/create", many_lines.as_str(), 400, "usage code=malformed_body", "10000"),
        ("/drives/create", many_keys.as_str(), 400, "usage code=malformed_body", "1000 keys"),
        ("/drives/create", long.as_str(), 400, "usage code=malformed_body", "at most 1 MiB"),
        (write_past.as_str(), "12345", 400, "usage code=invalid_value", "end"),
        (read_past.as_str(), "", 400, "usage code=invalid_value", "end"),
        (read_much.as_str(), "", 400, "usage code=invalid_value field=size", "4 MiB"),
        (read_odd.as_str(), "", 400, "usage code=invalid_value field=offset", "suffix"),
    ] {
        let shown: String = body.chars().take(40).collect();
        let refused = cloud.post(path, body).await;
        assert_eq!(refused.status, status, "{path} {shown}: {}", refused.text());
        let header = refused.header("x-elastic-error");
        assert!(header.starts_with(error), "{path} {shown}: {header}");
        let text = refused.text();
        assert!(text.contains(sentence) && text.ends_with('\n'), "{path} {shown}: {text}");
        assert_eq!(text.lines().count(), 1, "{text}");
    }
    let json = cloud.post_json("/drives/create", "{\"size\": ").await.expect(400);
    assert!(json.header("content-type").starts_with("text/plain"), "{json:?}");
    let request = cloud.request("POST", "/drives/create").body(Body::from(&b"name \xff"[..]));
    cloud.send(request.unwrap()).await.expect(400);
    let left = cloud.get("/drives/list").await.expect(200);
    assert_eq!(left.text(), format!("{drive}\n"), "nothing was made on the way");
    assert!(cloud.agent.bytes(&drive).iter().all(|byte| *byte == 0), "nothing was written");
    cloud.server.close().await;
}

fn gzip(data: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(data).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn gzip_is_written_unpacked_and_bad_gzip_not_at_all() {
    let cloud = Cloud::new().await;
    let drive = cloud.drive().await;
    let write = async |body: Vec<u8>| {
        let request = cloud
            .request("POST", &format!("/drives/{drive}/write/1M"))
            .header("Content-Type", "application/octet-stream")
            .header("Content-Encoding", "gzip");
        cloud.send(request.body(Body::from(body)).unwrap()).await
    };
    let mut corrupt = gzip(b"something that was whole once");
    corrupt[12] ^= 0xff;
    for (body, sentence) in [
        (gzip(&vec![1; (64 << 20) + 1]), "at most 64 MiB after decompression"),
        (gzip(&vec![1; 4 << 20]), "end"),
        (corrupt, "not whole gzip"),
        (gzip(b"cut")[..12].to_vec(), "not whole gzip"),
    ] {
        let refused = write(body).await.expect(400);
        assert!(refused.text().contains(sentence), "{}", refused.text());
    }
    assert!(cloud.agent.bytes(&drive).iter().all(|byte| *byte == 0));
    write([gzip(b"one "), gzip(b"two")].concat()).await.expect(204);
    assert_eq!(cloud.agent.bytes(&drive)[1 << 20..][..8], *b"one two\0");
    cloud.server.close().await;
}

#[tokio::test]
async fn a_write_has_64_mib_and_no_byte_more() {
    let cloud = Cloud::new().await;
    let made = cloud.post("/drives/create", "size 64M").await.expect(200);
    let drive = made.value("drive").unwrap();
    let write = async |bytes: Vec<u8>| {
        let request = cloud
            .request("POST", &format!("/drives/{drive}/write/0"))
            .header("Content-Type", "application/octet-stream");
        cloud.send(request.body(Body::from(bytes)).unwrap()).await
    };
    let refused = write(vec![2; MAX_WRITE + 1]).await.expect(400);
    assert_eq!(refused.header("x-elastic-error"), "usage code=malformed_body");
    assert!(cloud.agent.bytes(drive).iter().all(|byte| *byte == 0));
    write(vec![1; MAX_WRITE]).await.expect(204);
    assert!(cloud.agent.bytes(drive).iter().all(|byte| *byte == 1));
    cloud.server.close().await;
}

#[tokio::test]
async fn a_drive_is_read_packed_by_whoever_takes_gzip() {
    let cloud = Cloud::new().await;
    let drive = cloud.drive().await;
    cloud.post(&format!("/drives/{drive}/write"), "packed").await.expect(204);
    let read = async |accepted: &str| {
        let request = cloud.request("GET", &format!("/drives/{drive}/read/0/1M"));
        let request = request.header("Accept-Encoding", accepted);
        let read = cloud.send(request.body(Body::empty()).unwrap()).await.expect(200);
        let [vary, kind] = ["vary", "content-type"].map(|name| read.header(name).to_owned());
        assert_eq!((&*vary, &*kind), ("Accept-Encoding", "application/octet-stream"));
        read
    };
    for accepted in ["", "identity", "gzip;q=0"] {
        let plain = read(accepted).await;
        assert_eq!((plain.header("content-encoding"), plain.body.len()), ("", 1 << 20));
        assert_eq!(plain.body[..8], *b"packed\0\0");
    }
    let packed = read("deflate, gzip").await;
    assert_eq!(packed.header("content-encoding"), "gzip");
    assert!(packed.body.len() < 16 << 10, "zeros take {} bytes", packed.body.len());
    let mut unpacked = Vec::new();
    GzDecoder::new(packed.body.as_slice()).read_to_end(&mut unpacked).unwrap();
    assert_eq!((unpacked.len(), &unpacked[..8]), (1 << 20, &b"packed\0\0"[..]));
    for (path, status) in [("drives/list", 200), (&*format!("drives/{drive}/read/4M/1"), 400)] {
        let request = cloud.request("GET", &format!("/{path}")).header("Accept-Encoding", "gzip");
        let other = cloud.send(request.body(Body::empty()).unwrap()).await.expect(status);
        assert_eq!(other.header("content-encoding"), "", "{path}");
    }
    cloud.server.close().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_not_written() {
    let cloud = Cloud::new().await;
    let drive = cloud.drive().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let served = cloud.server.serve(listener, async {
        let _ = stopped.await;
    });
    let client = async {
        let head = format!(
            "POST /drives/{drive}/write HTTP/1.1\r\nHost: x\r\nAuthorization: {}\r\n",
            cloud.basic
        );
        for (rest, sent) in [
            ("Content-Length: 1000\r\n\r\n", "cut off"),
            ("Transfer-Encoding: chunked\r\n\r\n", "7\r\ncut off\r\n"),
        ] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(format!("{head}{rest}{sent}").as_bytes()).await.unwrap();
            stream.shutdown().await.unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{answer}");
            assert!(answer.ends_with("the body ended early: send it again\n"), "{answer}");
        }
        let mut stream = TcpStream::connect(address).await.unwrap();
        let whole =
            "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n5\r\nwhole\r\n0\r\n\r\n";
        stream.write_all(format!("{head}{whole}").as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 204 No Content\r\n"), "{answer}");
        stop.send(()).unwrap();
    };
    let (served, ()) = tokio::join!(served, client);
    served.unwrap();
    assert_eq!(cloud.agent.bytes(&drive)[..8], *b"whole\0\0\0");
    cloud.server.close().await;
}
