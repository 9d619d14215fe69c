//! Writes answers: records, ids and bytes, as text or JSON, with the exact status codes that old
//! clients test for. Pure.

use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use elasticstack_core::error::{Chain, Error, Result};
use elasticstack_core::resource::ResourceId;
use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::queries::EVENTS_CURSOR;
use elasticstack_core::wire::record::{Record, list_to_text};
use futures_util::TryStreamExt as _;
use http::StatusCode;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE, HeaderName, HeaderValue, VARY};
use http_body::{Frame, SizeHint};
use serde_json::Value;

use super::feed;
use super::request::Format;
use crate::app::{Events, Export, Listed};

const JSON: &str = "application/json";
const BYTES: &str = "application/octet-stream";
const CURSOR: HeaderName = HeaderName::from_static(EVENTS_CURSOR);
const UNBUFFERED: HeaderName = HeaderName::from_static("x-accel-buffering");

/// What a call that succeeded has to say.
#[derive(Debug)]
pub(super) enum Reply {
    /// One record.
    One(Object, Record),
    /// One record and the version that it is at.
    Seen(Object, Record, String),
    /// All records.
    Many(Object, Vec<Record>),
    /// All records of a list that is kept ready.
    Listed(Listed),
    /// Events, and the cursor behind them.
    Events(Events),
    /// Events as they happen.
    Stream(Body),
    /// All ids.
    Ids(Vec<String>),
    /// Resources by type and name.
    Resources(Vec<ResourceId>),
    /// Raw bytes, whatever form was asked for.
    Bytes(Bytes),
    /// A drive's bytes, which may be packed on their way.
    Drive(Bytes, Packing),
    /// A drive as an image, as it is read.
    Export(Export),
    /// Nothing.
    Nothing,
}

/// How bytes are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    None,
    Gzip,
}

/// The answer in this form.
///
/// # Errors
/// `Internal`.
pub(super) fn render(reply: Reply, format: Format) -> Result<Response> {
    Ok(match (reply, format) {
        (Reply::One(_, record) | Reply::Seen(_, record, _), Format::Text) => text(record.to_text()),
        (Reply::One(object, record) | Reply::Seen(object, record, _), Format::Json) => {
            let mut written = String::new();
            record.json_into(object, &mut written);
            ok(JSON, Body::from(written))
        }
        (Reply::Many(_, records), Format::Text) => text(list_to_text(&records)),
        (Reply::Many(object, records), Format::Json) => {
            let mut written = String::from("[");
            for (index, record) in records.iter().enumerate() {
                if index > 0 {
                    written.push(',');
                }
                record.json_into(object, &mut written);
            }
            written.push(']');
            ok(JSON, Body::from(written))
        }
        (Reply::Listed(list), Format::Text) => text(list_to_text(&list.records()?)),
        (Reply::Listed(list), Format::Json) => ok(JSON, Body::new(Pieces::of(list))),
        (Reply::Events(Events { records, cursor }), format) => {
            let mut response = render(Reply::Many(Object::Event, records), format)?;
            if let Ok(cursor) = HeaderValue::try_from(cursor) {
                response.headers_mut().insert(CURSOR, cursor);
            }
            response
        }
        (Reply::Stream(body), _) => {
            let mut response = ok(feed::MEDIA_TYPE, body);
            // A proxy that gathers an answer before it passes it on would never pass on this one.
            response.headers_mut().insert(UNBUFFERED, HeaderValue::from_static("no"));
            response
        }
        (Reply::Ids(ids), Format::Text) => text(ids.iter().map(|id| format!("{id}\n")).collect()),
        (Reply::Ids(ids), Format::Json) => {
            json(&ids.iter().map(|id| serde_json::json!({ "uuid": id })).collect())
        }
        (Reply::Resources(ids), Format::Text) => {
            text(ids.iter().map(|id| format!("{} {id}\n", id.kind().as_str())).collect())
        }
        (Reply::Resources(ids), Format::Json) => {
            let listed = |id: &ResourceId| serde_json::json!({ "resource": id.to_string(), "type": id.kind().as_str() });
            json(&ids.iter().map(listed).collect())
        }
        (Reply::Bytes(data), _) => ok(BYTES, Body::from(data)),
        (Reply::Drive(data, packing), _) => {
            let mut response = ok(BYTES, Body::from(data));
            let headers = response.headers_mut();
            headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
            if packing == Packing::Gzip {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            response
        }
        (Reply::Export(Export { length, pieces }), _) => {
            let broken = |error: Error| {
                tracing::warn!(error = %Chain(&error), "an export broke off");
                io::Error::other("the export broke off")
            };
            let mut response = ok(BYTES, Body::from_stream(pieces.map_err(broken)));
            response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
            response
        }
        (Reply::Nothing, _) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
    })
}

/// The JSON of a list, put together piece by piece as it is sent: a client that reads slowly holds
/// what it has not read as it lies in the view, and no copy of it.
struct Pieces {
    list: Listed,
    /// The one to be written next; past the last of them, the end.
    next: usize,
    /// Bytes that are not written yet.
    left: u64,
}

impl Pieces {
    /// More than this is not put together at a time, but for one object that is larger.
    const SIZE: usize = 64 << 10;

    fn of(list: Listed) -> Self {
        let length = |text: &str| u64::try_from(text.len()).unwrap_or(u64::MAX);
        let objects = (0..list.len()).filter_map(|index| list.json(index));
        // Each has one byte before it, a bracket or a comma; an empty list has its bracket too.
        let all: u64 = objects.map(|json| length(json) + 1).sum();
        Self { list, next: 0, left: all.max(1) + 1 }
    }

    fn piece(&mut self) -> Vec<u8> {
        let mut piece = Vec::with_capacity(Self::SIZE.min(usize::try_from(self.left).unwrap_or(0)));
        if self.list.is_empty() {
            piece.push(b'[');
        }
        while let Some(json) = self.list.json(self.next) {
            if !piece.is_empty() && piece.len() + json.len() + 2 > Self::SIZE {
                return piece;
            }
            piece.push(if self.next == 0 { b'[' } else { b',' });
            piece.extend_from_slice(json.as_bytes());
            self.next += 1;
        }
        piece.push(b']');
        piece
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let this = self.get_mut();
        if this.left == 0 {
            return Poll::Ready(None);
        }
        let piece = this.piece();
        this.left = this.left.saturating_sub(u64::try_from(piece.len()).unwrap_or(u64::MAX));
        Poll::Ready(Some(Ok(Frame::data(piece.into()))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}

fn text(text: String) -> Response {
    ok("text/plain; charset=utf-8", Body::from(text))
}

fn json(value: &Value) -> Response {
    ok(JSON, Body::from(value.to_string()))
}

fn ok(content_type: &'static str, body: Body) -> Response {
    let mut response = Response::new(body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    fn drive(name: &str) -> Record {
        Record::new().with("size", 12_582_912).with("name", name).with("read:bytes", 4096)
    }

    async fn rendered(reply: Reply, format: Format) -> (u16, String, String) {
        let response = render(reply, format).unwrap();
        let content_type = response.headers().get(CONTENT_TYPE);
        let content_type =
            content_type.map_or_else(String::new, |value| value.to_str().unwrap().to_owned());
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, content_type, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn every_reply_has_its_text_and_its_json_form() {
        let records = || Reply::Many(Object::Drive, vec![drive("a\nb"), drive("c")]);
        let ids = || Reply::Ids(vec!["x".to_owned(), "y".to_owned()]);
        let (plain, json) = ("text/plain; charset=utf-8", "application/json");
        for (reply, format, content_type, body) in [
            (
                Reply::One(Object::Drive, drive("web")),
                Format::Text,
                plain,
                "name web\nread:bytes 4096\nsize 12582912\n",
            ),
            (
                Reply::One(Object::Drive, drive("web")),
                Format::Json,
                json,
                r#"{"name":"web","read:bytes":"4096","size":12582912}"#,
            ),
            (
                records(),
                Format::Text,
                plain,
                "name a\\nb\nread:bytes 4096\nsize 12582912\n\nname c\nread:bytes 4096\nsize 12582912\n",
            ),
            (
                records(),
                Format::Json,
                json,
                r#"[{"name":"a\nb","read:bytes":"4096","size":12582912},{"name":"c","read:bytes":"4096","size":12582912}]"#,
            ),
            (ids(), Format::Text, plain, "x\ny\n"),
            (ids(), Format::Json, json, r#"[{"uuid":"x"},{"uuid":"y"}]"#),
            (
                Reply::Resources(vec![ResourceId::Ip([198, 51, 100, 7].into())]),
                Format::Text,
                plain,
                "ip 198.51.100.7\n",
            ),
            (
                Reply::Resources(vec![ResourceId::Ip([198, 51, 100, 7].into())]),
                Format::Json,
                json,
                r#"[{"resource":"198.51.100.7","type":"ip"}]"#,
            ),
            (Reply::Ids(vec![]), Format::Text, plain, ""),
            (Reply::Ids(vec![]), Format::Json, json, "[]"),
            (Reply::Many(Object::Drive, vec![]), Format::Text, plain, ""),
            (Reply::Many(Object::Drive, vec![]), Format::Json, json, "[]"),
            (
                Reply::Bytes(Bytes::from_static(b"raw")),
                Format::Json,
                "application/octet-stream",
                "raw",
            ),
        ] {
            let what = format!("{reply:?} {format:?}");
            let answer = rendered(reply, format).await;
            assert_eq!(answer, (200, content_type.to_owned(), body.to_owned()), "{what}");
        }
        let nothing = rendered(Reply::Nothing, Format::Json).await;
        assert_eq!(nothing, (204, String::new(), String::new()));
    }
}
