//! The public API as one page for people: static HTML, no script, nothing from outside. From the
//! same tables as the document for machines.

use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use elasticstack_core::wire::calls::{Answer, Body, CALLS, Effect, Route, Scope, path};
use elasticstack_core::wire::headers::HEADERS;
use elasticstack_core::wire::keys::{Input, Key, Object, Standing};
use elasticstack_core::wire::parameters::Names;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use super::{errors, example, schema, tag, tags};
use crate::http::status_of;

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:auto;padding:1rem}\
    pre,code{font:14px/1.4 monospace;background:#f3f3f3}pre{padding:.6rem;overflow:auto}\
    table{border-collapse:collapse}td,th{border:1px solid #ccc;padding:.2rem .5rem;text-align:left;\
    vertical-align:top}h3{margin-top:2rem}";

const PREFACE: &str = "<p>For machines: <a href=\"/openapi.json\">/openapi.json</a> (OpenAPI 3.1). \
Every call is <code>/object/ID/action</code>. POST calls everything; GET calls what only reads.</p>\
<h2>Credentials</h2><p>HTTP Basic: the account's UUID is the user, its secret key or a token \
the password; or <code>Authorization: Bearer TOKEN</code>. In the \
examples they stand in <code>EHAUTH</code> as <code>UUID:KEY</code>, and the address of this API in \
<code>EHURI</code>.</p>\
<h2>Text and JSON</h2><p>A body is read by its <code>Content-Type</code>: <code>application/json</code> \
is one JSON object, <code>application/x-www-form-urlencoded</code> a form if it looks like one, \
everything else lines of <code>KEY VALUE</code>. An answer is JSON if <code>Accept</code> names \
<code>application/json</code>, else text. The two are chosen apart. In text, a key ends at the first \
space; <code>\\n</code> and <code>\\\\</code> stand for a line end and a backslash; records are parted \
by an empty line; several words are parted by spaces. An empty value, or <code>null</code> in JSON, \
unsets a key. Whole numbers and booleans may be quoted or bare.</p>\
<h2>The legacy dialect</h2><p>Clients of older clouds of this family are understood as they are: a body \
of any odd type is read as lines; the last of several lines of one key counts; the older spellings of \
the keys of a server's screen are taken and answered in the newer; doubled and final slashes of a path \
are tolerated. An operator may set the installation to legacy answers: then a call that begins to copy \
into a drive answers 204 and nothing, instead of 200 and the drive.</p>";

/// The page.
pub(crate) fn html() -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>ElasticStack API</title>\
         <style>{STYLE}</style></head><body><h1>ElasticStack API</h1>{PREFACE}"
    );
    error_table(&mut page);
    page.push_str("<h2>Calls</h2>");
    let tags = tags();
    for name in tags.iter().filter_map(|tag| tag["name"].as_str()) {
        let _ = write!(page, "<h2 id=\"{name}\">{name}</h2>");
        for route in CALLS.iter().filter(|route| tag(route) == name) {
            call(&mut page, route);
        }
    }
    header_table(&mut page);
    for object in Object::ALL {
        key_table(&mut page, object);
    }
    page.push_str("</body></html>\n");
    page
}

/// What a policy allows the page's style by.
pub(crate) fn style_hash() -> String {
    format!("sha256-{}", STANDARD.encode(Sha256::digest(STYLE)))
}

fn error_table(page: &mut String) {
    page.push_str(
        "<h2>Errors</h2><p>An error is a status, the header <code>X-Elastic-Error: KEYWORD code=CODE \
         field=FIELD</code> and one sentence; <code>Accept: application/problem+json</code> gets it as \
         JSON (RFC 9457).</p><table><tr><th>status</th><th>keyword</th><th>code</th></tr>",
    );
    for (status, kinds) in errors() {
        for kind in kinds {
            let (keyword, code) = (status_of(kind.class()).1, kind.code());
            row(page, &[&status.to_string(), keyword, &format!("<code>{code}</code>")]);
        }
    }
    page.push_str("</table>");
}

fn call(page: &mut String, route: &Route) {
    let method = match route.effect {
        Effect::Reads => "GET, POST",
        Effect::Changes => "POST",
    };
    let scope = match route.scope {
        Scope::Customer => "",
        Scope::Operator => " For operators only.",
    };
    let (id, path) = (format!("{:?}", route.call), route.path);
    let _ = write!(page, "<h3 id=\"{id}\"><code>{method} {path}</code></h3>");
    let _ = write!(page, "<p>{}{scope} Since {}.</p>", escaped(route.doc), route.since);
    let parameters = route.parameters().map(|parameter| (parameter.name, parameter.doc.to_owned()));
    let queries = route.queries().map(|query| {
        (query.name, format!("behind the ?: {} Takes {}.", query.doc, query.takes.in_words()))
    });
    let headers = route.headers().map(|header| (header.name, format!("a header: {}", header.doc)));
    page.push_str("<ul>");
    for (name, doc) in parameters.chain(queries).chain(headers) {
        let _ = write!(page, "<li><code>{name}</code>: {}</li>", escaped(&doc));
    }
    page.push_str("</ul>");
    let told = route.answer_headers().map(|(header, _)| format!("<code>{}</code>", header.name));
    let told: Vec<String> = told.collect();
    let answer = match route.answer {
        Answer::One(object) => format!("200 and the {}", link(object)),
        Answer::Many(object) => format!("200 and every {}", link(object)),
        Answer::Ids(object) => format!("200 and the id of every {}", object.word()),
        Answer::Bytes => "200 and the bytes".to_owned(),
        Answer::Nothing => "204 and nothing".to_owned(),
    };
    let body = match route.body {
        Body::Ignored => "no body".to_owned(),
        Body::Record(object) => format!("keys of a {}", link(object)),
        Body::Bytes => {
            "bytes, or gzip of them under <code>Content-Encoding: gzip</code>".to_owned()
        }
    };
    let _ = write!(
        page,
        "<p>Takes {body}; answers {answer}, with the headers {}.</p><pre>{}</pre>",
        told.join(", "),
        escaped(&curl(route))
    );
}

fn link(object: Object) -> String {
    let word = object.word();
    format!("<a href=\"#keys-{word}\">{word}</a>")
}

/// The call as it is typed.
fn curl(route: &Route) -> String {
    let parameters: Vec<&str> = route
        .parameters()
        .map(|parameter| match parameter.names {
            Names::Object(_) => schema::EXAMPLE_UUID,
            Names::OneOf(words) => words.last().copied().unwrap_or_default(),
            Names::Amount | Names::Size => "4096",
        })
        .collect();
    let url = format!("\"$EHURI{}\"", path(route.call, &parameters));
    let user = "curl --user \"$EHAUTH\"";
    match route.body {
        Body::Ignored if route.effect == Effect::Reads => format!("{user} {url}"),
        Body::Ignored => format!("{user} --request POST {url}"),
        Body::Bytes => format!(
            "{user} --header 'Content-Type: application/octet-stream' --data-binary @file {url}"
        ),
        Body::Record(object) => {
            let mut lines = String::new();
            if let Value::Object(record) = example(route, object) {
                for (key, value) in record {
                    let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                    let _ = writeln!(lines, "{key} {value}");
                }
            }
            format!(
                "{user} --header 'Content-Type: text/plain' --data-binary @- {url} <<END\n{lines}END"
            )
        }
    }
}

/// What headers say, those of calls and of answers.
fn header_table(page: &mut String) {
    page.push_str(
        "<h2 id=\"headers\">Headers</h2><table><tr><th>header</th><th>of</th><th></th></tr>",
    );
    for header in HEADERS {
        let name = format!("<code>{}</code>", header.name);
        row(page, &[&name, &header.carrier.in_words(), &escaped(header.doc)]);
    }
    page.push_str("</table>");
}

fn key_table(page: &mut String, object: Object) {
    let word = object.word();
    let _ = write!(
        page,
        "<h2 id=\"keys-{word}\">Keys of a {word}</h2><p><code>{{0-7}}</code> stands for one digit, \
         <code>*</code> for a word of at most 80 characters.</p>\
         <table><tr><th>key</th><th>given</th><th>takes</th><th></th></tr>"
    );
    for key in schema::keys_of(object) {
        let given = match key.input {
            Input::Never => "in answers",
            Input::Create => "on create",
            Input::Stopped => "on create; set while stopped",
            Input::Always => "on create; set",
        };
        let needed = if key.needed_by.contains(&object) { ", needed" } else { "" };
        let name = format!("<code>{}</code>", key.pattern);
        let doc = format!("{}{}", escaped(key.doc), standing(key));
        row(page, &[&name, &format!("{given}{needed}"), &escaped(&key.takes_in_words()), &doc]);
    }
    page.push_str("</table>");
}

fn standing(key: &Key) -> String {
    match key.standing {
        Standing::Honoured => String::new(),
        Standing::Kept => " <em>Kept, not honoured yet.</em>".to_owned(),
        Standing::RefusedBut([]) => " <em>Refused: not offered yet.</em>".to_owned(),
        Standing::RefusedBut(values) => {
            let yet = if key.reason.is_some() { "" } else { ": not offered yet" };
            format!(" <em>Refused but for {}{yet}.</em>", escaped(&values.join(", ")))
        }
    }
}

fn row(page: &mut String, cells: &[&str]) {
    page.push_str("<tr>");
    for cell in cells {
        let _ = write!(page, "<td>{cell}</td>");
    }
    page.push_str("</tr>");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
