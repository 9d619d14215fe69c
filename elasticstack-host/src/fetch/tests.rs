//! Fetching from a server of this machine's own, which its operator allows by name.

use std::sync::{Arc, Mutex};

use elasticstack_core::block::Volume;
use elasticstack_core::wire::internal::{Conversion, Download};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use super::*;
use crate::image::download;
use crate::image::tests::{Pair, gzip, noise, padded};

const MIB: usize = 1 << 20;

/// A server that answers by path, and keeps what it was asked.
struct Site {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

impl Site {
    async fn new(answer: impl Fn(&str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let (kept, answer) = (Arc::clone(&asked), Arc::new(answer));
        let task = tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut head = Vec::new();
                while !head.ends_with(b"\r\n\r\n") {
                    match stream.read_u8().await {
                        Ok(byte) => head.push(byte),
                        Err(_) => break,
                    }
                }
                let head = String::from_utf8(head).unwrap();
                let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                kept.lock().unwrap().push(head);
                let _ = stream.write_all(&answer(&path)).await;
            }
        });
        Self { address, asked, _task: AbortOnDropHandle::new(task) }
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

fn ok(body: &[u8]) -> Vec<u8> {
    [format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len()).as_bytes(), body].concat()
}

fn redirect(to: &str) -> Vec<u8> {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n").into_bytes()
}

fn lenient() -> Fetcher {
    let allowed = vec!["127.0.0.0/8".parse().unwrap()];
    Fetcher::new(Networks { allowed, ..Networks::default() }, AUTHORITIES.into())
}

async fn to_drive(
    url: &str,
    sha256: Option<&str>,
    conversion: Conversion,
    pair: &Pair,
) -> Result<()> {
    let file = Download { url: Secret::new(url), sha256: sha256.map(str::to_owned) };
    let target: Arc<dyn Volume> = Arc::clone(&pair.target);
    let revoked = CancellationToken::new();
    download(&lenient(), &file, target, conversion, &revoked, &|_| {}).await
}

/// Why a file is not fetched.
async fn refusal(fetcher: &Fetcher, url: &str) -> String {
    let error = fetcher.fetch(&Secret::new(url)).await.expect_err(url);
    assert_eq!(error.kind(), ErrorKind::JobFailed);
    assert!(!error.public_message().contains("secret"), "{error}");
    error.public_message().to_owned()
}

#[tokio::test]
async fn a_file_becomes_the_drive_raw_or_unpacked_and_nothing_is_asked_but_it() {
    let file = noise(2 * MIB + 7);
    let packed = gzip(&file);
    let (plain, zipped) = (file.clone(), packed.clone());
    let site = Site::new(move |path| match path {
        "/to/raw?key=secret" => redirect("../raw"),
        "/raw" => ok(&plain),
        _ => ok(&zipped),
    })
    .await;
    let pair = Pair::new(MIB, b"", 4 * MIB).await;
    to_drive(&site.url("/to/raw?key=secret"), None, Conversion::None, &pair).await.unwrap();
    assert!(pair.result().await == padded(&file, 4 * MIB));
    let sum: String =
        sha2::Digest::finalize(<sha2::Sha256 as sha2::Digest>::new_with_prefix(&packed))
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
    let pair = Pair::new(MIB, b"", 4 * MIB).await;
    to_drive(&site.url("/gz"), Some(&sum), Conversion::Gunzip, &pair).await.unwrap();
    assert!(pair.result().await == padded(&file, 4 * MIB));
    let asked = site.asked.lock().unwrap();
    let host = format!("host: {}\r\n", site.address);
    assert!(asked.iter().all(|head| head.contains(&host)), "{asked:?}");
    let lines: Vec<_> = asked.iter().map(|head| head.lines().next().unwrap()).collect();
    assert_eq!(lines, ["GET /to/raw?key=secret HTTP/1.1", "GET /raw HTTP/1.1", "GET /gz HTTP/1.1"]);
}

#[tokio::test]
async fn a_file_that_is_not_meant_does_not_fit_or_breaks_off_leaves_no_half_an_image() {
    let file = noise(3 * MIB);
    let site = Site::new(move |path| match path {
        "/whole" => ok(&file),
        "/cut" => ok(&file)[..2 * MIB].to_vec(),
        "/large" => b"HTTP/1.1 200 OK\r\ncontent-length: 99999999\r\n\r\n".to_vec(),
        "/chunks" => {
            let mut answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
            for _ in 0..5 {
                answer.extend_from_slice(format!("{MIB:x}\r\n").as_bytes());
                answer.extend_from_slice(&file[..MIB]);
                answer.extend_from_slice(b"\r\n");
            }
            answer
        }
        _ => [&b"HTTP/1.1 200 OK\r\n\r\n"[..], &file].concat(),
    })
    .await;
    for (path, sum, expected, is_untouched) in [
        ("/whole", Some("00"), "00 was expected", false),
        ("/cut", None, "the file broke off before its end", false),
        ("/large", None, "the file has 99999999 bytes, more than the drive's 4 MiB", true),
        ("/chunks", None, "the image comes to more than the drive's 4 MiB", false),
        ("/endless", None, "does not tell where the file ends", true),
    ] {
        let pair = Pair::new(MIB, b"", 4 * MIB).await;
        let error = to_drive(&site.url(path), sum, Conversion::None, &pair).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::JobFailed, "{error:?}");
        assert!(error.public_message().contains(expected), "{error}");
        assert_eq!(pair.is_untouched().await, is_untouched, "{path}");
        assert!(is_untouched || pair.result().await.iter().all(|byte| *byte == 0), "{path}");
    }
    let pair = Pair::new(MIB, b"", 4 * MIB).await;
    let error = to_drive(&site.url("/whole"), None, Conversion::Gunzip, &pair).await.unwrap_err();
    assert!(error.public_message().contains("not gzip"), "{error}");
}

#[tokio::test]
async fn nothing_is_asked_of_addresses_inside_also_behind_a_redirect_or_a_name() {
    let site = Site::new(|_| ok(b"a secret")).await;
    let port = site.address.port();
    let strict = Fetcher::default();
    for host in ["127.0.0.1", "localhost", "[::1]", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1"] {
        let said = refusal(&strict, &format!("http://{host}:{port}/?secret")).await;
        assert!(said.contains("is not a public address, or not allowed here"), "{said}");
    }
    assert_eq!(site.asked.lock().unwrap().len(), 0);

    // To another address of this machine, of which only one is allowed.
    let leads = Site::new(move |path| match path {
        "/inside" => redirect(&format!("http://127.0.0.2:{port}/")),
        "/dressed" => redirect(&format!("http://[::ffff:127.0.0.2]:{port}/")),
        "/file" => redirect("file:///etc/passwd"),
        "/user" => redirect("http://me:secret@127.0.0.1/"),
        "/nowhere" => b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
        "/missing" => b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec(),
        "/mute" => b"SSH-2.0-OpenSSH\r\n".to_vec(),
        _ => redirect("/round/and/round"),
    })
    .await;
    let allowed = vec!["127.0.0.1/32".parse().unwrap()];
    let one = Fetcher::new(Networks { allowed, ..Networks::default() }, AUTHORITIES.into());
    for (path, expected) in [
        ("/inside", "127.0.0.2 is not a public address, or not allowed here"),
        ("/dressed", "is not a public address, or not allowed here"),
        ("/file", "files are fetched by http:// and https:// only"),
        ("/user", "a file's address with a user in it is not taken"),
        ("/nowhere", "127.0.0.1 redirects to nowhere"),
        ("/missing", "127.0.0.1 answers 404"),
        ("/mute", "127.0.0.1 does not speak HTTP"),
        ("/round", "the file is behind more than five redirects"),
    ] {
        let said = refusal(&one, &leads.url(path)).await;
        assert!(said.contains(expected), "{said:?} instead of {expected:?}");
    }
    assert_eq!(site.asked.lock().unwrap().len(), 0, "a redirect led inside");
    let rounds = leads.asked.lock().unwrap().iter().filter(|it| it.contains("/round")).count();
    assert_eq!(rounds, 6);
    assert!(refusal(&one, "ftp://127.0.0.1/x").await.contains("http://"));
}

#[tokio::test]
async fn a_download_that_is_taken_back_ends_while_the_network_is_silent() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let revoked = CancellationToken::new();
    let pair = Pair::new(MIB, b"", MIB).await;
    let file = Download { url: Secret::new(url), sha256: None };
    let fetcher = lenient();
    let target: Arc<dyn Volume> = Arc::clone(&pair.target);
    let work = download(&fetcher, &file, target, Conversion::None, &revoked, &|_| {});
    let take_back = async {
        let (stream, _) = listener.accept().await.unwrap();
        revoked.cancel();
        stream
    };
    let (ended, _stream) = tokio::join!(work, take_back);
    assert_eq!(ended.unwrap_err().public_message(), "the job was taken back");
}

#[tokio::test]
async fn a_file_is_fetched_by_https_from_who_has_the_certificate_for_it() {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let authorities = directory.path().join("authorities.pem");
    std::fs::write(&authorities, made.cert.pem()).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let config = rustls::ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("0.0.0.0:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let _server = AbortOnDropHandle::new(tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(mut stream) = acceptor.accept(stream).await {
                let mut first = [0; 4];
                stream.read_exact(&mut first).await.unwrap();
                let to = if first == *b"GET " { ok(b"it") } else { Vec::new() };
                stream.write_all(&to).await.unwrap();
                let _ = stream.shutdown().await;
            }
        }
    }));
    let allowed = vec!["127.0.0.0/8".parse().unwrap()];
    let networks = Networks { allowed, ..Networks::default() };
    let fetcher = Fetcher::new(networks, authorities);
    let url = Secret::new(format!("https://127.0.0.1:{port}/it"));
    let mut file = fetcher.fetch(&url).await.unwrap();
    assert_eq!(file.next().await.unwrap(), Some(Data::from_static(b"it")));
    let other = format!("https://127.0.0.2:{port}/it");
    let said = refusal(&fetcher, &other).await;
    assert!(said.contains("does not prove to be itself by its certificate"), "{said}");
    let blind = Fetcher::new(fetcher.networks.clone(), "/nowhere.pem".into());
    let said = refusal(&blind, url.expose()).await;
    assert!(said.contains("no list of certificate authorities"), "{said}");
}
