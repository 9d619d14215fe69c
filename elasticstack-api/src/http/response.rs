//! Writes answers: records, ids and bytes, as text or JSON, with the exact status codes that old
//! clients test for. Pure.

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use elasticstack_core::resource::ResourceId;
use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::record::{Record, list_to_text};
use http::StatusCode;
use http::header::{CONTENT_TYPE, HeaderValue};
use serde_json::Value;

use super::request::Format;

/// What a call that succeeded has to say.
#[derive(Debug)]
pub(super) enum Reply {
    /// One record.
    One(Object, Record),
    /// All records.
    Many(Object, Vec<Record>),
    /// All ids.
    Ids(Vec<String>),
    /// Resources by type and name.
    Resources(Vec<ResourceId>),
    /// Raw bytes, whatever form was asked for.
    Bytes(Bytes),
    /// Nothing.
    Nothing,
}

/// The answer in this form.
pub(super) fn render(reply: Reply, format: Format) -> Response {
    match (reply, format) {
        (Reply::One(_, record), Format::Text) => text(record.to_text()),
        (Reply::One(object, record), Format::Json) => json(&record.to_json(object)),
        (Reply::Many(_, records), Format::Text) => text(list_to_text(&records)),
        (Reply::Many(object, records), Format::Json) => {
            json(&records.iter().map(|record| record.to_json(object)).collect())
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
        (Reply::Bytes(data), _) => ok("application/octet-stream", Body::from(data)),
        (Reply::Nothing, _) => {
            let mut response = Response::new(Body::empty());
            *response.status_mut() = StatusCode::NO_CONTENT;
            response
        }
    }
}

fn text(text: String) -> Response {
    ok("text/plain; charset=utf-8", Body::from(text))
}

fn json(value: &Value) -> Response {
    ok("application/json", Body::from(value.to_string()))
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
        let response = render(reply, format);
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
