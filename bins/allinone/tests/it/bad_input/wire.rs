//! Requests as bytes on a socket, and answers as they come: nothing of the product's own client,
//! which could not be made to send what is sent here.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A request, POST unless it says otherwise.
#[derive(Clone)]
pub(super) struct Ask {
    method: &'static str,
    path: String,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    /// How much of the body is really sent.
    sent: usize,
}

/// An answer.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    head: String,
    pub(super) body: Vec<u8>,
}

impl Ask {
    pub(super) fn new(path: impl Into<String>) -> Self {
        Self {
            method: "POST",
            path: path.into(),
            headers: Vec::new(),
            body: Vec::new(),
            sent: usize::MAX,
        }
    }

    pub(super) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    pub(super) fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    pub(super) fn header(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }

    pub(super) fn json(self, body: impl Into<Vec<u8>>) -> Self {
        self.header("Content-Type", "application/json").body(body)
    }

    pub(super) fn form(self, body: impl Into<Vec<u8>>) -> Self {
        self.header("Content-Type", "application/x-www-form-urlencoded").body(body)
    }

    pub(super) fn gzip(self, body: impl Into<Vec<u8>>) -> Self {
        self.header("Content-Encoding", "gzip").body(body)
    }

    /// Announces the whole body, sends `length` bytes of it and no more.
    pub(super) fn cut_after(mut self, length: usize) -> Self {
        self.sent = length;
        self
    }

    /// Sends it on a connection of its own and reads what comes until the server closes.
    pub(super) async fn send(&self, address: SocketAddr, basic: &str) -> Answer {
        let Self { method, path, headers, body, sent } = self;
        let mut head = format!(
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nAuthorization: {basic}\r\n"
        );
        for (name, value) in headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        head.push_str(&format!("Content-Length: {}\r\n\r\n", body.len()));
        let request = [head.as_bytes(), &body[..body.len().min(*sent)]].concat();
        let end = if *sent < body.len() { End::CutOff } else { End::Whole };
        exchange(address, &request, end).await
    }
}

/// What comes after a request's last byte.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Nothing: the request is whole.
    Whole,
    /// The word that nothing more will come, though something was announced.
    CutOff,
}

/// Sends bytes and reads the answer to its end.
async fn exchange(address: SocketAddr, request: &[u8], end: End) -> Answer {
    let (mut reading, mut writing) = TcpStream::connect(address).await.unwrap().into_split();
    let mut answer = Vec::new();
    let write = async {
        // A server that has refused may close before it has read everything.
        let _ = writing.write_all(request).await;
        if end == End::CutOff {
            let _ = writing.shutdown().await;
        }
    };
    let (read, ()) = tokio::join!(reading.read_to_end(&mut answer), write);
    if let Err(error) = read {
        assert!(!answer.is_empty(), "no answer: {error}");
    }
    let end = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n").map_or(0, |at| at + 4);
    let head = String::from_utf8_lossy(&answer[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0);
    Answer { status, head, body: answer[end..].to_vec() }
}

impl Answer {
    /// This answer, if it has the status.
    #[track_caller]
    pub(super) fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{}{}", self.head, self.text());
        self
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The value of a header, empty if it is not there.
    pub(super) fn header(&self, name: &str) -> String {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let found = lines.find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map_or_else(String::new, |(_, value)| value.to_owned())
    }

    /// The value of a key of a record.
    #[track_caller]
    pub(super) fn value(&self, key: &str) -> String {
        self.find(key).unwrap_or_else(|| panic!("no {key} in {}", self.text()))
    }

    /// The value of a key of a record, if it is there.
    pub(super) fn find(&self, key: &str) -> Option<String> {
        let text = self.text();
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines.find(|(name, _)| *name == key).map(|(_, value)| value.to_owned())
    }

    /// Asserts that this is a refusal with this status and error header, in one sentence with
    /// these words.
    #[track_caller]
    pub(super) fn assert_refusal(&self, what: &str, error: &str, says: &[&str]) {
        let (found, text) = (self.header("x-elastic-error"), self.text());
        assert_eq!(format!("{} {found}", self.status), error, "{what}: {text}");
        assert!(text.ends_with('\n') && text.lines().count() == 1, "{what}: {text:?}");
        for word in says {
            assert!(text.contains(word), "{what}: {text:?} does not say {word:?}");
        }
    }
}

impl std::fmt::Debug for Ask {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let start = String::from_utf8_lossy(&self.body[..self.body.len().min(60)]);
        let Self { method, path, headers, .. } = self;
        write!(f, "{method} {path} {headers:?} {start:?} ({} bytes)", self.body.len())
    }
}
