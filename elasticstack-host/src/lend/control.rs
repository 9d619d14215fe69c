//! What an agent and the process that lends for it say to each other, over a socket in a directory of
//! the agent's: one line of JSON each way, an ask and its answer. With a lend comes the drive's open
//! file, so that the process needs no access to files of its own; and once more, where that can be, open for
//! writes past the page cache.
//!
//! The two may be of different versions, as the process outlives the agent: fields that are not known
//! are passed over, an ask that is not known is answered with `not_offered`, and each says which
//! version it speaks. What comes in is bounded, and no bytes panic it.

use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use elasticstack_core::block::{LendId, LendSpec, Writing};
use elasticstack_core::prelude::*;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::net::UnixStream;

/// The version that is spoken here.
pub const VERSION: u32 = 1;

/// The longest line, in bytes. A list of lends is the longest there is.
const MAX_LINE: usize = 1 << 20;

/// The most files that come with a line.
const MAX_FILES: usize = 2;

/// What an agent asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "snake_case")]
pub enum Ask {
    /// Who is there.
    Hello {
        /// The version that the agent speaks.
        version: u32,
    },
    /// Lend a drive, whose file comes with this.
    Lend(Terms),
    /// End a lend, and answer once none of its I/O is in flight.
    Withdraw {
        /// Which, by the name of its target.
        target: String,
    },
    /// Tell every lend.
    Lent,
}

/// A lend as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms {
    target: String,
    borrower: ServerId,
    read_only: bool,
    secret: Secret,
}

impl From<&LendSpec> for Terms {
    fn from(spec: &LendSpec) -> Self {
        let LendSpec { lend, borrower, writing, secret } = spec.clone();
        let read_only = writing == Writing::Refused;
        Self { target: lend.target(), borrower, read_only, secret }
    }
}

impl TryFrom<Terms> for LendSpec {
    type Error = Error;

    fn try_from(terms: Terms) -> Result<Self> {
        let Terms { target, borrower, read_only, secret } = terms;
        let writing = if read_only { Writing::Refused } else { Writing::Allowed };
        Ok(Self { lend: lend_of(&target)?, borrower, writing, secret })
    }
}

/// The lend that has this target.
pub(super) fn lend_of(target: &str) -> Result<LendId> {
    LendId::of_target(target).ok_or_else(|| {
        Error::new(ErrorKind::InvalidValue, format!("{target:?} is no name of a lend's target"))
    })
}

/// What the process answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "answer", rename_all = "snake_case")]
pub enum Answer {
    /// It is there.
    Hello {
        /// The version that it speaks.
        version: u32,
        /// Where borrowers connect.
        portal: SocketAddr,
    },
    /// It is done.
    Done,
    /// These are lent, by the names of their targets.
    Lent {
        /// Every one.
        targets: Vec<String>,
    },
    /// It is not done.
    Failed {
        /// By [`ErrorKind::code`].
        code: String,
        /// In a sentence.
        message: String,
    },
}

impl Answer {
    /// What a failure is answered with.
    pub(super) fn failed(error: &Error) -> Self {
        let (code, message) = (error.kind().code().to_owned(), error.public_message().to_owned());
        Self::Failed { code, message }
    }

    /// The failure, if this is one.
    pub(super) fn checked(self) -> Result<Self> {
        match self {
            Self::Failed { code, message } => {
                let kind = ErrorKind::from_code(&code).unwrap_or(ErrorKind::Internal);
                Err(Error::new(kind, message))
            }
            answer => Ok(answer),
        }
    }
}

/// Reads an ask from a line.
///
/// # Errors
/// `NotOffered` for what is none here, perhaps because the agent is newer.
pub fn parse(line: &[u8]) -> Result<Ask> {
    serde_json::from_slice(line).map_err(|error| {
        Error::new(
            ErrorKind::NotOffered,
            format!("the process that lends speaks version {VERSION}, and knows no such ask"),
        )
        // Where it goes wrong, never what stands there, which may be a secret.
        .context(format!("line {}, column {}", error.line(), error.column()))
    })
}

/// One end of the socket.
#[derive(Debug)]
pub(super) struct Channel {
    stream: UnixStream,
    /// What has come after the last line.
    ahead: Vec<u8>,
    files: Vec<OwnedFd>,
}

impl Channel {
    pub(super) fn new(stream: UnixStream) -> Self {
        Self { stream, ahead: Vec::new(), files: Vec::new() }
    }

    /// Sends one line, with files.
    pub(super) async fn send(
        &mut self,
        message: &impl Serialize,
        files: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let mut line = serde_json::to_vec(message)?;
        line.push(b'\n');
        let mut rest = &line[..];
        let mut files = files;
        while !rest.is_empty() {
            let sent = self
                .stream
                .async_io(Interest::WRITABLE, || {
                    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
                    let mut ancillary = SendAncillaryBuffer::new(&mut space);
                    if !files.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(files))
                    {
                        return Err(io::Error::other("more files than a line can carry"));
                    }
                    let parts = [IoSlice::new(rest)];
                    let flags = SendFlags::NOSIGNAL;
                    Ok(rustix::net::sendmsg(&self.stream, &parts, &mut ancillary, flags)?)
                })
                .await?;
            rest = rest.get(sent..).unwrap_or_default();
            files = &[];
        }
        Ok(())
    }

    /// The next line, with the files that came by its end; `None` at the end of all lines.
    pub(super) async fn receive(&mut self) -> io::Result<Option<(Vec<u8>, Vec<OwnedFd>)>> {
        let mut looked_at = 0;
        loop {
            let fresh = self.ahead.get(looked_at..).unwrap_or_default();
            if let Some(at) = fresh.iter().position(|byte| *byte == b'\n') {
                let end = looked_at.saturating_add(at);
                let mut line: Vec<u8> = self.ahead.drain(..=end).collect();
                line.pop();
                return Ok(Some((line, std::mem::take(&mut self.files))));
            }
            looked_at = self.ahead.len();
            if looked_at > MAX_LINE {
                return Err(io::Error::other("a line that is too long"));
            }
            let mut chunk = [0; 4096];
            let (read, files) = self
                .stream
                .async_io(Interest::READABLE, || receive_once(self.stream.as_fd(), &mut chunk))
                .await?;
            self.files.extend(files);
            if self.files.len() > MAX_FILES {
                return Err(io::Error::other("more files than a line can carry"));
            }
            if read == 0 {
                return Ok(None);
            }
            self.ahead.extend_from_slice(chunk.get(..read).unwrap_or_default());
        }
    }
}

/// What is there, with files.
fn receive_once(socket: BorrowedFd<'_>, into: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(2))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut parts = [IoSliceMut::new(into)];
    let flags = RecvFlags::CMSG_CLOEXEC;
    let read = rustix::net::recvmsg(socket, &mut parts, &mut ancillary, flags)?.bytes;
    let mut files = Vec::new();
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            files.extend(rights);
        }
    }
    Ok((read, files))
}

/// Reads an answer from a line.
pub(super) fn answer<T: DeserializeOwned>(line: &[u8]) -> io::Result<T> {
    serde_json::from_slice(line).map_err(io::Error::from)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Seek as _, Write as _};

    use proptest::prelude::*;
    use tokio::io::AsyncWriteExt as _;

    use super::*;

    fn spec() -> LendSpec {
        LendSpec {
            lend: LendId {
                drive: "5b0e3c52-0000-4000-8000-000000000001".parse().unwrap(),
                epoch: Epoch(7),
            },
            borrower: "5b0e3c52-0000-4000-8000-000000000002".parse().unwrap(),
            writing: Writing::Refused,
            secret: Secret::new("a-secret-of-some"),
        }
    }

    #[test]
    fn a_lend_is_asked_for_as_an_older_process_understands_it() {
        let line = "{\"ask\":\"lend\",\
                    \"target\":\"iqn.2026-01.org.elasticstack:drive.5b0e3c52-0000-4000-8000-000000000001.7\",\
                    \"borrower\":\"5b0e3c52-0000-4000-8000-000000000002\",\
                    \"read_only\":true,\"secret\":\"a-secret-of-some\"}";
        let ask = Ask::Lend(Terms::from(&spec()));
        assert_eq!(serde_json::to_string(&ask).unwrap(), line);
        let newer = line.replace("\"ask\"", "\"comes_later\":[1],\"ask\"");
        let Ask::Lend(terms) = parse(newer.as_bytes()).unwrap() else { panic!("{newer}") };
        assert_eq!(LendSpec::try_from(terms).unwrap(), spec());
        for other in ["", "{}", "{\"ask\":\"dance\"}", "{\"ask\":\"lend\"}", "[]", "\u{0}"] {
            assert_eq!(parse(other.as_bytes()).unwrap_err().kind(), ErrorKind::NotOffered);
        }
        let wrong = line.replace("a-secret-of-some\"", "a-secret-of-some");
        let error = parse(wrong.as_bytes()).unwrap_err();
        assert!(!format!("{error:?}").contains("of-some"), "{error:?}");
    }

    #[tokio::test]
    async fn a_line_brings_its_files_and_one_without_end_is_refused() {
        let (one, other) = UnixStream::pair().unwrap();
        let (mut one, mut other) = (Channel::new(one), Channel::new(other));
        let mut file: File = tempfile::tempfile().unwrap();
        file.write_all(b"it is this one").unwrap();
        one.send(&Ask::Lent, &[file.as_fd()]).await.unwrap();
        one.send(&Ask::Hello { version: 9 }, &[]).await.unwrap();
        let (line, mut files) = other.receive().await.unwrap().unwrap();
        assert_eq!(parse(&line).unwrap(), Ask::Lent);
        let mut came = File::from(files.pop().unwrap());
        let mut text = String::new();
        came.rewind().unwrap();
        came.read_to_string(&mut text).unwrap();
        assert_eq!((&*text, files.len()), ("it is this one", 0));
        let (line, files) = other.receive().await.unwrap().unwrap();
        assert_eq!((parse(&line).unwrap(), files.len()), (Ask::Hello { version: 9 }, 0));

        let endless = async move {
            let chunk = [b'x'; 1 << 16];
            while one.stream.write_all(&chunk).await.is_ok() {}
        };
        let refused = async move { other.receive().await.unwrap_err() };
        let (error, ()) = tokio::join!(refused, endless);
        assert!(error.to_string().contains("too long"), "{error}");
    }

    proptest! {
        #[test]
        fn no_line_panics_it(line in proptest::collection::vec(any::<u8>(), 0..200), text in ".*") {
            let _ = parse(&line);
            let ask = format!("{{\"ask\":\"withdraw\",\"target\":{}}}", serde_json::json!(text));
            prop_assert_eq!(parse(ask.as_bytes()).unwrap(), Ask::Withdraw { target: text });
        }
    }
}
