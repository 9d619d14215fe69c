//! A connection to the QMP socket of one guest's process.
//!
//! One task owns it: commands are asked one after the other, and what events say meanwhile is kept
//! in order until asked for. Every wait but that for an event has a limit. After an error other
//! than a refused command the connection is in an unknown state: drop it and connect again.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use elasticstack_core::hypervisor::EndCause;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::nodes::{SERIAL, SERIAL_RING};
use super::phase::{Notice, Status};
use super::qmp_codec::{CodecError, Decoder, Message, encode};

/// How long it may take to greet or to answer before it counts as silent.
const ANSWER: Duration = Duration::from_secs(10);

/// Why the process did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub(super) enum QmpError {
    /// The socket can't be reached.
    #[error("the QMP socket does not accept a connection")]
    Connect(#[source] io::Error),
    /// The connection is over, most often because the process is.
    #[error("the QMP connection ended")]
    Closed,
    /// The connection failed.
    #[error("the QMP connection failed")]
    Broken(#[source] io::Error),
    /// No answer within [`ANSWER`].
    #[error("the process did not answer {0} within {ANSWER:?}")]
    Silent(&'static str),
    /// It understood and refused.
    #[error("the process refused {command}: {description}")]
    Refused {
        /// What was asked.
        command: &'static str,
        /// Its reason, for an operator.
        description: String,
    },
    /// The other side does not speak QMP.
    #[error("the process sent something that is not QMP")]
    Garbled(#[from] CodecError),
}

/// A connection that is past its greeting.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: UnixStream,
    decoder: Decoder,
    notices: VecDeque<Notice>,
    last_id: u64,
}

impl Qmp {
    /// Connects to the socket at `path` and gets ready for commands.
    pub(super) async fn connect(path: &Path) -> Result<Self, QmpError> {
        let stream = UnixStream::connect(path).await.map_err(QmpError::Connect)?;
        let mut qmp =
            Self { stream, decoder: Decoder::default(), notices: VecDeque::new(), last_id: 0 };
        let greeting = timeout(ANSWER, qmp.message()).await;
        match greeting.map_err(|_| QmpError::Silent("a new connection"))?? {
            Message::Greeting => {}
            _ => return Err(CodecError::NotAMessage.into()),
        }
        qmp.execute("qmp_capabilities", Value::Null).await?;
        Ok(qmp)
    }

    /// Has `command` carried out and returns what it returns. Not cancel safe.
    pub(super) async fn execute(
        &mut self,
        command: &'static str,
        arguments: Value,
    ) -> Result<Value, QmpError> {
        self.last_id += 1;
        let line = encode(self.last_id, command, &arguments);
        match timeout(ANSWER, self.ask(command, &line)).await {
            Ok(answer) => answer,
            Err(_elapsed) => Err(QmpError::Silent(command)),
        }
    }

    /// What the guest is doing.
    pub(super) async fn status(&mut self) -> Result<Status, QmpError> {
        let answer = self.execute("query-status", Value::Null).await?;
        let word = answer.get("status").and_then(Value::as_str).unwrap_or_default();
        Ok(Status::from_word(word))
    }

    /// What the guest wrote to its first serial port since it was last asked, as far as the ring kept it.
    pub(super) async fn serial(&mut self) -> Result<Vec<u8>, QmpError> {
        let ask = json!({ "device": SERIAL, "size": SERIAL_RING, "format": "base64" });
        let answer = self.execute("ringbuf-read", ask).await?;
        Ok(STANDARD.decode(answer.as_str().unwrap_or_default()).unwrap_or_default())
    }

    /// The next thing that events say about the run, waiting for it. Cancel safe.
    pub(super) async fn notice(&mut self) -> Result<Notice, QmpError> {
        loop {
            if let Some(notice) = self.notices.pop_front() {
                return Ok(notice);
            }
            let message = self.message().await?;
            self.note(message);
        }
    }

    /// How the run ended, if the connection said so before it broke.
    pub(super) async fn last_words(mut self) -> Option<EndCause> {
        loop {
            // No time at all: only what has arrived is looked at.
            match timeout(Duration::ZERO, self.notice()).await {
                Ok(Ok(Notice::Ended(cause))) => return Some(cause),
                Ok(Ok(Notice::Changed | Notice::Reset)) => {}
                Ok(Err(_)) | Err(_) => return None,
            }
        }
    }

    async fn ask(&mut self, command: &'static str, line: &[u8]) -> Result<Value, QmpError> {
        // Where sending fails it is gone, and reading tells that after its last words.
        let _ = self.stream.write_all(line).await;
        loop {
            match self.message().await? {
                Message::Return { id, value } if id == Some(self.last_id) => return Ok(value),
                Message::Failure { id, description } if id == Some(self.last_id) => {
                    return Err(QmpError::Refused { command, description });
                }
                other => self.note(other),
            }
        }
    }

    fn note(&mut self, message: Message) {
        if let Message::Event { name, data } = message
            && let Some(notice) = Notice::from_event(&name, &data)
            && self.notices.back() != Some(&notice)
        {
            self.notices.push_back(notice);
        }
    }

    /// The next message. Cancel safe: bytes go to the decoder as soon as they are read.
    async fn message(&mut self) -> Result<Message, QmpError> {
        loop {
            if let Some(message) = self.decoder.message()? {
                return Ok(message);
            }
            let mut bytes = [0; 4096];
            match self.stream.read(&mut bytes).await {
                Ok(0) => return Err(QmpError::Closed),
                Ok(length) => self.decoder.push(bytes.get(..length).unwrap_or_default()),
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    return Err(QmpError::Closed);
                }
                Err(error) => return Err(QmpError::Broken(error)),
            }
        }
    }
}
