//! What a guest's process is asked for: the part of QEMU's Machine Protocol that this one serves, as bytes
//! (QEMU's interop/qmp-spec). Pure.

use elasticstack_core::hypervisor::IoLimits;
use elasticstack_core::units::Bytes;
use serde_json::{Map, Value, json};

/// The longest line taken, in bytes.
pub(super) const MAX_LINE: usize = 1 << 16;

/// A command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ask {
    /// `qmp_capabilities`, the first.
    Capabilities,
    /// `query-status`.
    Status,
    /// `cont`.
    Continue,
    /// `stop`.
    Stop,
    /// `system_powerdown`.
    PowerButton,
    /// `system_reset`.
    Reset,
    /// `ringbuf-read` of the serial port's ring.
    Serial,
    /// `query-named-block-nodes`.
    Nodes,
    /// `query-block`.
    Devices,
    /// `query-blockstats`.
    Counts,
    /// `block_set_io_throttle` of the drive with this path.
    Limit(String, IoLimits),
}

/// A line that can't be carried out, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Refusal(pub String);

/// What a line asks for, and the number that its answer is to bear.
pub(super) fn parse(line: &[u8]) -> (Option<Value>, Result<Ask, Refusal>) {
    let Ok(mut object) = serde_json::from_slice::<Map<String, Value>>(line) else {
        return (None, Err(Refusal("a line that is no JSON object".to_owned())));
    };
    (object.remove("id"), command(&object))
}

fn command(object: &Map<String, Value>) -> Result<Ask, Refusal> {
    let name = object.get("execute").and_then(Value::as_str);
    let name = name.ok_or_else(|| Refusal("an object without a command to execute".to_owned()))?;
    Ok(match name {
        "qmp_capabilities" => Ask::Capabilities,
        "query-status" => Ask::Status,
        "cont" => Ask::Continue,
        "stop" => Ask::Stop,
        "system_powerdown" => Ask::PowerButton,
        "system_reset" => Ask::Reset,
        "ringbuf-read" => Ask::Serial,
        "query-named-block-nodes" => Ask::Nodes,
        "query-block" => Ask::Devices,
        "query-blockstats" => Ask::Counts,
        "block_set_io_throttle" => limit(object.get("arguments"))?,
        _ => return Err(Refusal(format!("the command {name:?} is not offered here"))),
    })
}

fn limit(arguments: Option<&Value>) -> Result<Ask, Refusal> {
    let refused = || Refusal("limits are an id, iops and bps".to_owned());
    let arguments = arguments.ok_or_else(refused)?;
    let path = arguments.get("id").and_then(Value::as_str).ok_or_else(refused)?;
    let number = |name: &str| {
        let number = arguments.get(name).and_then(Value::as_u64).ok_or_else(refused)?;
        Ok(Some(number).filter(|number| *number > 0))
    };
    let requests = number("iops")?.map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    let bytes = number("bps")?.map(|number| Bytes::try_from(number).map_err(|_| refused()));
    Ok(Ask::Limit(path.to_owned(), IoLimits { requests, bytes: bytes.transpose()? }))
}

/// The first line of a connection.
pub(super) fn greeting() -> Vec<u8> {
    line(&json!({ "QMP": { "version": { "package": "elasticstack" }, "capabilities": [] } }))
}

/// The line that answers a command.
pub(super) fn answer(id: Option<Value>, done: Result<Value, Refusal>) -> Vec<u8> {
    let mut answer = match done {
        Ok(value) => json!({ "return": value }),
        Err(Refusal(why)) => json!({ "error": { "class": "GenericError", "desc": why } }),
    };
    if let Some(id) = id {
        answer["id"] = id;
    }
    line(&answer)
}

/// The line that tells of an event.
pub(super) fn event(name: &str, data: &Value) -> Vec<u8> {
    line(&json!({ "event": name, "data": data }))
}

fn line(value: &Value) -> Vec<u8> {
    let mut line = value.to_string().into_bytes();
    line.extend(b"\r\n");
    line
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::guests::qmp_codec::{Decoder, Message, encode};

    #[test]
    fn what_the_agent_asks_is_understood_and_what_it_hears_is_the_protocol() {
        let limits = json!({ "id": "block-0", "iops": 7, "iops_rd": 0, "bps": 0 });
        let asked = IoLimits { requests: Some(7), bytes: None };
        for (name, arguments, expected) in [
            ("query-status", Value::Null, Ask::Status),
            ("cont", Value::Null, Ask::Continue),
            (
                "ringbuf-read",
                json!({ "device": "serial0", "size": 65_536, "format": "base64" }),
                Ask::Serial,
            ),
            ("block_set_io_throttle", limits, Ask::Limit("block-0".to_owned(), asked)),
        ] {
            let (id, ask) = parse(&encode(7, name, &arguments));
            assert_eq!((id, ask), (Some(json!(7)), Ok(expected)));
        }
        let mut decoder = Decoder::default();
        decoder.push(&greeting());
        decoder.push(&answer(Some(json!(7)), Ok(json!({}))));
        decoder.push(&answer(Some(json!(8)), Err(Refusal("no".to_owned()))));
        decoder.push(&event("STOP", &json!({})));
        let heard: Vec<_> = std::iter::from_fn(|| decoder.message().unwrap()).collect();
        assert_eq!(
            heard,
            [
                Message::Greeting,
                Message::Return { id: Some(7), value: json!({}) },
                Message::Failure { id: Some(8), description: "no".to_owned() },
                Message::Event { name: "STOP".to_owned(), data: Map::new() },
            ]
        );
    }

    #[test]
    fn what_is_not_offered_is_refused_by_name() {
        let (id, refused) = parse(br#"{"execute": "device_add", "id": 3}"#);
        assert_eq!(id, Some(json!(3)));
        assert!(refused.unwrap_err().0.contains("device_add"));
        for line in [&b"{}"[..], b"[]", b"\xff", b"{\"execute\": 7}"] {
            assert!(parse(line).1.is_err());
        }
    }

    proptest! {
        #[test]
        fn no_line_panics_the_parser(line: Vec<u8>, command in "[a-z_-]{0,24}", arguments in ".{0,40}") {
            let _ = parse(&line);
            let _ = parse(format!(r#"{{"execute":"{command}","arguments":{arguments}}}"#).as_bytes());
        }
    }
}
