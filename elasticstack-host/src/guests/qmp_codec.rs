//! The QEMU Machine Protocol as bytes: one JSON object a line, both ways.
//!
//! Pure: no socket, no clock. Every byte comes from a process that runs a stranger's guest, so no
//! bytes may panic it, and a line is never longer than [`MAX_LINE`].

use serde_json::{Map, Value, json};

/// The longest line taken, in bytes. The longest answer we ask for is a full serial ring in
/// base64, 88 KiB.
pub const MAX_LINE: usize = 1 << 20;

/// One message from QEMU.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    /// The first line on a connection.
    Greeting,
    /// A command succeeded.
    Return {
        /// The command's number.
        id: Option<u64>,
        /// What it returned.
        value: Value,
    },
    /// A command failed.
    Failure {
        /// The command's number; none if QEMU could not even read it.
        id: Option<u64>,
        /// Why, in words for an operator.
        description: String,
    },
    /// Something happened.
    Event {
        /// What, such as `SHUTDOWN`.
        name: String,
        /// More about it.
        data: Map<String, Value>,
    },
}

/// Bytes that are not this protocol.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    /// A line does not end.
    #[error("a line of more than {MAX_LINE} bytes")]
    LineTooLong,
    /// A line is not JSON.
    #[error("a line that is not JSON")]
    NotJson(#[source] serde_json::Error),
    /// A line is JSON, but no message.
    #[error("a line that is neither greeting, return, error nor event")]
    NotAMessage,
}

/// Turns bytes into messages, however they are cut.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
    /// So many bytes at the front hold no line end.
    searched: usize,
}

impl Decoder {
    /// Takes the next bytes of the connection.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message; `None` until more bytes come.
    ///
    /// # Errors
    /// [`CodecError`]; the connection is then of no more use.
    pub fn message(&mut self) -> Result<Option<Message>, CodecError> {
        loop {
            let unsearched = self.buffer.iter().skip(self.searched);
            let Some(offset) = unsearched.into_iter().position(|&byte| byte == b'\n') else {
                self.searched = self.buffer.len();
                return if self.searched > MAX_LINE {
                    Err(CodecError::LineTooLong)
                } else {
                    Ok(None)
                };
            };
            let line: Vec<u8> = self.buffer.drain(..=self.searched + offset).collect();
            self.searched = 0;
            if line.len() > MAX_LINE {
                return Err(CodecError::LineTooLong);
            }
            if !line.trim_ascii().is_empty() {
                return parse(&line).map(Some);
            }
        }
    }
}

fn parse(line: &[u8]) -> Result<Message, CodecError> {
    let mut object: Map<String, Value> =
        serde_json::from_slice(line).map_err(CodecError::NotJson)?;
    let id = object.get("id").and_then(Value::as_u64);
    if object.contains_key("QMP") {
        return Ok(Message::Greeting);
    }
    if let Some(value) = object.remove("return") {
        return Ok(Message::Return { id, value });
    }
    if let Some(error) = object.remove("error") {
        let description = error.get("desc").and_then(Value::as_str).unwrap_or("no reason given");
        return Ok(Message::Failure { id, description: description.to_owned() });
    }
    match (object.remove("event"), object.remove("data")) {
        (Some(Value::String(name)), Some(Value::Object(data))) => Ok(Message::Event { name, data }),
        (Some(Value::String(name)), None) => Ok(Message::Event { name, data: Map::new() }),
        _ => Err(CodecError::NotAMessage),
    }
}

/// The line that asks for `command`, numbered `id`. `arguments` is an object, or null for none.
#[must_use]
pub fn encode(id: u64, command: &str, arguments: &Value) -> Vec<u8> {
    let request = match arguments {
        Value::Null => json!({ "execute": command, "id": id }),
        arguments => json!({ "execute": command, "arguments": arguments, "id": id }),
    };
    let mut line = request.to_string().into_bytes();
    line.push(b'\n');
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(bytes: &[u8]) -> Vec<Message> {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        std::iter::from_fn(|| decoder.message().unwrap()).collect()
    }

    #[test]
    fn every_kind_of_message_is_understood() {
        let event = |name: &str, data: Value| Message::Event {
            name: name.to_owned(),
            data: data.as_object().unwrap().clone(),
        };
        assert_eq!(
            decode(
                b"{\"QMP\": {\"version\": {}, \"capabilities\": [\"oob\"]}}\r\n\
                  {\"return\": {}, \"id\": 1}\r\n\r\n\
                  {\"id\": 2, \"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\r\n\
                  {\"timestamp\": {}, \"event\": \"STOP\"}\r\n\
                  {\"event\": \"SHUTDOWN\", \"data\": {\"guest\": true}}\r\n{\"ev"
            ),
            [
                Message::Greeting,
                Message::Return { id: Some(1), value: json!({}) },
                Message::Failure { id: Some(2), description: "no".to_owned() },
                event("STOP", json!({})),
                event("SHUTDOWN", json!({ "guest": true })),
            ]
        );
    }

    #[test]
    fn what_is_not_the_protocol_is_an_error() {
        for line in ["x\n", "[]\n", "{}\n", "{\"event\": 1}\n", "{\"event\": \"A\", \"data\": 1}\n"]
        {
            let mut decoder = Decoder::default();
            decoder.push(line.as_bytes());
            assert!(decoder.message().is_err(), "{line:?}");
        }
        let mut endless = Decoder::default();
        endless.push(&vec![b' '; MAX_LINE]);
        assert!(matches!(endless.message(), Ok(None)));
        endless.push(b" ");
        assert!(matches!(endless.message(), Err(CodecError::LineTooLong)));
    }

    #[test]
    fn a_command_is_one_line() {
        let line = encode(7, "set_password", &json!({ "password": "a\nb" }));
        assert_eq!(line.iter().filter(|&&byte| byte == b'\n').count(), 1);
        let back: Value = serde_json::from_slice(&line).unwrap();
        let sent =
            json!({ "execute": "set_password", "arguments": { "password": "a\nb" }, "id": 7 });
        assert_eq!(back, sent);
    }

    proptest! {
        #[test]
        fn no_bytes_panic_the_decoder(pieces: Vec<Vec<u8>>) {
            let mut decoder = Decoder::default();
            for piece in pieces {
                decoder.push(&piece);
                while let Ok(Some(_)) = decoder.message() {}
            }
        }

        #[test]
        fn messages_do_not_depend_on_how_the_bytes_are_cut(ids: Vec<u64>, cut in 1_usize..40) {
            let lines: Vec<u8> =
                ids.iter().flat_map(|id| format!("{{\"return\": {{}}, \"id\": {id}}}\r\n").into_bytes()).collect();
            let mut decoder = Decoder::default();
            let mut found = Vec::new();
            for piece in lines.chunks(cut) {
                decoder.push(piece);
                while let Some(message) = decoder.message().unwrap() {
                    found.push(message);
                }
            }
            let expected: Vec<_> =
                ids.into_iter().map(|id| Message::Return { id: Some(id), value: json!({}) }).collect();
            prop_assert_eq!(found, expected);
        }
    }
}
