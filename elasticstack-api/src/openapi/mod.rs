//! The public API described for machines (OpenAPI 3.1) and for people (one page), both from the
//! tables of calls, parameters, queries, headers and keys and from the table of statuses. Pure; names no call and no
//! key.
//!
//! To describe more of a call, add it to the table it comes from and to [`operation`].

mod page;
mod schema;

use std::collections::{BTreeMap, BTreeSet};

use elasticstack_core::error::ErrorKind;
use elasticstack_core::wire::calls::{Answer, Body, CALLS, Effect, Route};
use elasticstack_core::wire::headers::{Carrier, HEADERS, Header, HeaderTakes, refusal_headers};
use elasticstack_core::wire::keys::Object;
use elasticstack_core::wire::parameters::{Names, Parameter};
use elasticstack_core::wire::queries::{Query, QueryTakes};
use serde_json::{Map, Value, json};

use self::schema::Wish;
use crate::http::status_of;

pub(crate) use self::page::{html, style_hash};

/// The whole document.
pub(crate) fn document() -> Value {
    let mut paths = Map::new();
    let mut schemas = BTreeMap::new();
    for route in CALLS.iter() {
        let path = paths.entry(template(route)).or_insert_with(|| json!({}));
        for method in methods(route.effect) {
            path[method] = operation(route, method);
        }
        schemas.extend(schemas_of(route));
    }
    schemas.insert("Problem".to_owned(), problem());
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "ElasticStack",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Servers and drives. The same for people: /docs.",
            "license": { "name": "Apache-2.0 OR MIT", "identifier": "Apache-2.0 OR MIT" },
        },
        "servers": [{ "url": "/" }],
        "security": [{ "basic": [] }, { "bearer": [] }],
        "tags": tags(),
        "paths": paths,
        "components": {
            "securitySchemes": {
                "basic": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "The account's UUID is the user, its secret key or a token the \
                                    password.",
                },
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token.",
                },
            },
            "parameters": header_parameters(),
            "responses": errors().into_iter().map(|(status, kinds)| {
                (format!("Error{status}"), error(status, &kinds))
            }).collect::<Map<_, _>>(),
            "schemas": schemas,
        },
    })
}

/// The path as OpenAPI writes it, its parameters in braces.
fn template(route: &Route) -> String {
    let segments = route.path.split('/').map(|segment| {
        let parameter = route.parameters().find(|parameter| parameter.name == segment);
        parameter.map_or_else(|| segment.to_owned(), |parameter| format!("{{{}}}", parameter.name))
    });
    segments.collect::<Vec<_>>().join("/")
}

const fn methods(effect: Effect) -> &'static [&'static str] {
    match effect {
        Effect::Reads => &["get", "post"],
        Effect::Changes => &["post"],
    }
}

/// The first word of a path: what its calls are about.
fn tag(route: &Route) -> &'static str {
    route.path.split('/').nth(1).unwrap_or_default()
}

fn tags() -> Vec<Value> {
    let names: BTreeSet<&str> = CALLS.iter().map(tag).collect();
    names.into_iter().map(|name| json!({ "name": name })).collect()
}

fn operation(route: &Route, method: &str) -> Value {
    let call = format!("{:?}", route.call);
    let also = if route.effect == Effect::Reads && method == "post" { "ByPost" } else { "" };
    let named = route.parameters().map(parameter).chain(route.queries().map(query));
    let headers = route.headers().map(|header| reference("parameters", header.name));
    let mut operation = json!({
        "operationId": format!("{call}{also}"),
        "summary": route.doc,
        "tags": [tag(route)],
        "parameters": named.chain(headers).collect::<Vec<_>>(),
        "responses": responses(route),
        "x-scope": route.scope.as_str(),
        "x-since": route.since,
    });
    if let Some(body) = request_body(route) {
        operation["requestBody"] = body;
    }
    operation
}

fn parameter(parameter: &Parameter) -> Value {
    let mut described = json!({
        "name": parameter.name,
        "in": "path",
        "required": true,
        "description": parameter.doc,
    });
    match parameter.names {
        Names::Object(object) => {
            described["schema"] = match object {
                Object::Resource => schema::resource(),
                _ => schema::uuid(),
            };
            described["x-object"] = object.word().into();
        }
        Names::OneOf(words) => described["schema"] = schema::one_of(words),
        Names::Amount => described["schema"] = schema::amount(),
        Names::Size => described["schema"] = schema::size(),
    }
    described
}

fn query(query: &Query) -> Value {
    let schema = match query.takes {
        QueryTakes::Range(low, high) => {
            json!({ "type": "integer", "minimum": low, "maximum": high })
        }
        QueryTakes::Seconds(high) => {
            json!({ "type": "integer", "minimum": 0, "maximum": high, "x-unit": "seconds" })
        }
        QueryTakes::Number => json!({ "type": "integer", "format": "int64" }),
        QueryTakes::Uuid => schema::uuid(),
        QueryTakes::Resource => schema::resource(),
        // What else it may be is no business of a client's, who gives what it was given.
        QueryTakes::Cursor => json!({ "type": "string", "pattern": "^[!-~]+$", "x-cursor": "now" }),
        QueryTakes::OneOf(words) => schema::one_of(words),
        QueryTakes::Text => json!({ "type": "string", "pattern": schema::NO_NUL }),
    };
    let Query { name, doc, .. } = query;
    json!({ "name": name, "in": "query", "required": false, "description": doc, "schema": schema })
}

/// The headers that calls may carry, by name.
fn header_parameters() -> Map<String, Value> {
    let carried = HEADERS.iter().filter(|header| matches!(header.carrier, Carrier::Call(_)));
    let described = carried.map(|header| {
        let parameter = json!({
            "name": header.name,
            "in": "header",
            "required": false,
            "description": header.doc,
            "schema": header_value(header),
        });
        (header.name.to_owned(), parameter)
    });
    described.collect()
}

fn header_value(header: &Header) -> Value {
    match header.takes {
        HeaderTakes::Text => json!({ "type": "string" }),
        HeaderTakes::Visible(most) => {
            json!({ "type": "string", "maxLength": most, "pattern": "^[!-~]+$" })
        }
        HeaderTakes::Whole => json!({ "type": "integer", "minimum": 0 }),
    }
}

/// The headers of an answer, each with whether it is always there.
fn carried(headers: impl Iterator<Item = (&'static Header, bool)>) -> Map<String, Value> {
    let described = headers.map(|(header, always)| {
        let schema = header_value(header);
        let header_of = json!({ "description": header.doc, "required": always, "schema": schema });
        (header.name.to_owned(), header_of)
    });
    described.collect()
}

fn request_body(route: &Route) -> Option<Value> {
    let object = match route.body {
        Body::Ignored => return None,
        Body::Bytes => {
            return Some(json!({
                "required": false,
                "description": "The bytes, or gzip of them under Content-Encoding: gzip; nothing writes nothing.",
                "content": { "application/octet-stream": { "schema": binary() } },
            }));
        }
        Body::Record(object) => object,
    };
    let schema = reference("schemas", &given_name(object, wish(route)));
    let content = json!({ "schema": schema, "example": example(route, object) });
    Some(json!({
        "required": schema::needed_keys(object, wish(route)).next().is_some(),
        "description": "As text, the same keys in lines of KEY VALUE: `\\n` and `\\\\` stand for a line \
                        end and a backslash, a list is its words parted by spaces.",
        "content": { "application/json": content.clone(), "text/plain": content },
    }))
}

fn wish(route: &Route) -> Wish {
    if route.is_set() { Wish::Change } else { Wish::Make }
}

/// A record that this call takes: what it needs, or else the first key that it may change.
fn example(route: &Route, object: Object) -> Value {
    let needed = schema::needed_keys(object, wish(route));
    let mut record: Map<String, Value> =
        needed.map(|key| (key.pattern.to_owned(), schema::example(key))).collect();
    if record.is_empty() {
        let named = schema::given_keys(object, wish(route))
            .find(|key| key.takes == elasticstack_core::wire::keys::Takes::Name);
        record.extend(named.map(|key| (key.pattern.to_owned(), schema::example(key))));
    }
    record.into()
}

fn responses(route: &Route) -> Value {
    let lines = |object| reference("schemas", &format!("{}Lines", title(object)));
    let ok = match route.answer {
        Answer::Nothing => ("204", json!({ "description": "Done." })),
        Answer::Bytes => (
            "200",
            told(
                "The bytes.",
                json!({
                    "application/octet-stream": { "schema": binary() },
                }),
            ),
        ),
        Answer::One(object) => (
            "200",
            told(
                "The record.",
                json!({
                    "application/json": { "schema": reference("schemas", &title(object)) },
                    "text/plain": { "schema": lines(object) },
                }),
            ),
        ),
        Answer::Many(object) => {
            let mut content = json!({
                "application/json": { "schema": {
                    "type": "array",
                    "items": reference("schemas", &title(object)),
                } },
                "text/plain": { "schema": lines(object) },
            });
            if object == Object::Event {
                content["text/event-stream"] = json!({ "schema": {
                    "type": "string",
                    "description": "Without an end, an event each: its cursor as id, the record \
                                    as JSON as data.",
                } });
            }
            ("200", told("The records.", content))
        }
        Answer::Ids(Object::Resource) => (
            "200",
            told(
                "The resources by type and name.",
                json!({
                    "application/json": { "schema": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {
                                "type": { "type": "string" },
                                "resource": schema::resource(),
                            },
                            "required": ["type", "resource"],
                            "additionalProperties": false,
                        },
                    } },
                    "text/plain": { "schema": {
                        "type": "string",
                        "description": "One TYPE RESOURCE a line.",
                    } },
                }),
            ),
        ),
        Answer::Ids(_) => (
            "200",
            told(
                "The ids.",
                json!({
                    "application/json": { "schema": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": { "uuid": schema::uuid() },
                            "required": ["uuid"],
                            "additionalProperties": false,
                        },
                    } },
                    "text/plain": { "schema": { "type": "string", "description": "One id a line." } },
                }),
            ),
        ),
    };
    let (status, mut success) = ok;
    success["headers"] = carried(route.answer_headers()).into();
    let mut responses = Map::from_iter([(status.to_owned(), success)]);
    responses.extend(
        errors()
            .into_keys()
            .map(|status| (status.to_string(), reference("responses", &format!("Error{status}")))),
    );
    responses.into()
}

fn told(description: &str, content: Value) -> Value {
    let described = ("description".to_owned(), description.into());
    Map::from_iter([described, ("content".to_owned(), content)]).into()
}

fn schemas_of(route: &Route) -> Vec<(String, Value)> {
    let mut schemas = Vec::new();
    if let Body::Record(object) = route.body {
        schemas.push((given_name(object, wish(route)), schema::given(object, wish(route))));
    }
    if let Answer::One(object) | Answer::Many(object) = route.answer {
        schemas.push((title(object), schema::answered(object)));
        schemas.push((format!("{}Lines", title(object)), schema::lines(object)));
    }
    schemas
}

/// The kinds of errors under each status.
fn errors() -> BTreeMap<u16, Vec<ErrorKind>> {
    let mut errors = BTreeMap::<u16, Vec<ErrorKind>>::new();
    for kind in ErrorKind::ALL {
        errors.entry(status_of(kind.class()).0.as_u16()).or_default().push(kind);
    }
    errors
}

fn error(status: u16, kinds: &[ErrorKind]) -> Value {
    let codes: Vec<&str> = kinds.iter().map(|kind| kind.code()).collect();
    let keywords: BTreeSet<&str> = kinds.iter().map(|kind| status_of(kind.class()).1).collect();
    let keyword = keywords.into_iter().collect::<Vec<_>>().join("|");
    let mut headers = carried(refusal_headers(status));
    headers["X-Elastic-Error"]["schema"]["pattern"] =
        format!("^({keyword}) code=({})( field=\\S+)?$", codes.join("|")).into();
    json!({
        "description": format!("{keyword}: {}", codes.join(", ")),
        "headers": headers,
        "content": {
            "text/plain": { "schema": { "type": "string", "description": "One sentence." } },
            "application/problem+json": { "schema": {
                "allOf": [
                    reference("schemas", "Problem"),
                    { "properties": { "status": { "const": status }, "code": { "enum": codes } } },
                ],
            } },
        },
    })
}

fn problem() -> Value {
    json!({
        "type": "object",
        "description": "RFC 9457, for whoever accepts application/problem+json by name.",
        "properties": {
            "type": { "const": "about:blank" },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string", "description": "What was asked, what was found, what to do." },
            "code": { "type": "string", "description": "What programs match on." },
            "field": { "type": "string", "description": "The key or parameter to blame." },
        },
        "required": ["type", "title", "status", "detail", "code"],
    })
}

fn binary() -> Value {
    json!({ "type": "string", "format": "binary" })
}

fn reference(kind: &str, name: &str) -> Value {
    json!({ "$ref": format!("#/components/{kind}/{name}") })
}

fn given_name(object: Object, wish: Wish) -> String {
    let what = match wish {
        Wish::Make => "Wish",
        Wish::Change => "Change",
    };
    format!("{}{what}", title(object))
}

/// The word for an object, as a type is written.
fn title(object: Object) -> String {
    let word = object.word();
    word.chars()
        .next()
        .map(|first| first.to_ascii_uppercase())
        .into_iter()
        .chain(word.chars().skip(1))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_golden_openapi_document_says_what_the_tables_say() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/openapi/openapi.json");
        let document = serde_json::to_string_pretty(&document()).unwrap() + "\n";
        if std::env::var_os("UPDATE_GOLDENS").is_some() {
            std::fs::write(path, &document).unwrap();
        }
        let golden = std::fs::read_to_string(path).unwrap_or_default();
        assert!(document == golden, "openapi.json is out of date: run `cargo xtask goldens`");
    }

    #[test]
    fn every_call_is_documented_for_machines_and_for_people() {
        let (document, page) = (document(), html());
        for route in CALLS.iter() {
            for method in methods(route.effect) {
                let operation = &document["paths"][template(route)][method];
                assert_eq!(operation["summary"], route.doc, "{method} {}", route.path);
                assert_eq!(operation["x-scope"], route.scope.as_str(), "{}", route.path);
                let parameters = operation["parameters"].as_array().unwrap();
                for name in names_of(route) {
                    let described = |parameter: &Value| {
                        let pointer = parameter["$ref"].as_str().map_or("", |path| &path[1..]);
                        let found = document.pointer(pointer).filter(|_| !pointer.is_empty());
                        found.unwrap_or(parameter)["name"] == name
                    };
                    assert!(parameters.iter().any(described), "{}: {name}", route.path);
                }
                assert_eq!(parameters.len(), names_of(route).count(), "{}", route.path);
                let success = operation["responses"].get("200");
                let success = success.or_else(|| operation["responses"].get("204")).unwrap();
                for (header, always) in route.answer_headers() {
                    assert_eq!(success["headers"][header.name]["required"], always);
                }
                let has_body = !matches!(route.body, Body::Ignored);
                assert_eq!(operation["requestBody"].is_object(), has_body, "{}", route.path);
                for status in errors().keys() {
                    assert!(operation["responses"][status.to_string()].is_object());
                }
            }
            let heading = format!("{:?}", route.call);
            let (_, rest) = page
                .split_once(&format!("<h3 id=\"{heading}\">"))
                .unwrap_or_else(|| panic!("{heading} is not on the page"));
            let section = rest.split("<h3").next().unwrap();
            for name in names_of(route) {
                assert!(section.contains(&format!("<code>{name}</code>")), "{heading}: {name}");
            }
        }
    }

    /// All that a call may be given apart from its body.
    fn names_of(route: &Route) -> impl Iterator<Item = &'static str> {
        let headers = route.headers().map(|header| header.name);
        let queries = route.queries().map(|query| query.name);
        route.parameters().map(|parameter| parameter.name).chain(queries).chain(headers)
    }

    #[test]
    fn a_refusal_waits_as_long_as_the_table_of_statuses_says() {
        for (status, kinds) in errors() {
            let waits = kinds.iter().any(|kind| status_of(kind.class()).2.is_some());
            let told = refusal_headers(status).any(|(header, _)| header.name == "Retry-After");
            assert_eq!(waits, told, "{status}");
        }
    }

    #[test]
    fn every_reference_of_the_document_leads_somewhere() {
        fn references(value: &Value, found: &mut Vec<String>) {
            match value {
                Value::Object(map) => {
                    found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                    map.values().for_each(|value| references(value, found));
                }
                Value::Array(items) => items.iter().for_each(|item| references(item, found)),
                _ => {}
            }
        }
        let document = document();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(!found.is_empty());
        for reference in found {
            let pointer = reference.strip_prefix('#').unwrap();
            assert!(document.pointer(pointer).is_some(), "{reference}");
        }
    }
}
