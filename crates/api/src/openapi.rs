//! The OpenAPI document, built from the table and the types' schemas.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    Answer, Auth, Body, ENDPOINTS, Endpoint, ErrorBody, SchemaOf, VERSION, endpoint::Schemas,
};

const BEARER: &str = "bearer";
const QUERY: &str = "queryToken";

/// [`openapi`] as JSON text, with one line for each path, method and schema: what is committed.
#[must_use]
pub fn openapi_text() -> String {
    let mut out = String::new();
    write_opened(&openapi(), &mut out);
    out.push('\n');
    out
}

/// Writes an object with one line for each member; the lists of paths and schemas likewise.
fn write_opened(value: &Value, out: &mut String) {
    let Value::Object(members) = value else {
        return out.push_str(&value.to_string());
    };
    out.push('{');
    for (place, (name, member)) in members.iter().enumerate() {
        out.push_str(if place == 0 { "\n" } else { ",\n" });
        out.push_str(&Value::from(name.as_str()).to_string());
        out.push(':');
        let list =
            ["paths", "components", "schemas"].contains(&name.as_str()) || name.starts_with('/');
        if list {
            write_opened(member, out);
        } else {
            out.push_str(&member.to_string());
        }
    }
    out.push_str("\n}");
}

/// The API as an OpenAPI 3.1 document.
#[must_use]
pub fn openapi() -> Value {
    let mut paths: BTreeMap<&str, Map<String, Value>> = BTreeMap::new();
    for endpoint in ENDPOINTS {
        let method = endpoint.method.as_str().to_lowercase();
        paths.entry(endpoint.path).or_default().insert(method, operation(endpoint));
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "x0x local API",
            "version": VERSION,
            "description": "The API of a daemon on its own machine. The token is in the file `api-token` \
                of its data directory, the port in `api.port`.",
            "license": {"name": "MIT OR Apache-2.0"},
        },
        "servers": [{"url": "http://127.0.0.1:12700"}],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {
                BEARER: {"type": "http", "scheme": "bearer"},
                QUERY: {"type": "apiKey", "in": "query", "name": "token"},
            },
        },
    })
}

fn operation(endpoint: &Endpoint) -> Value {
    let mut operation = json!({
        "operationId": endpoint.operation.id(),
        "summary": endpoint.summary,
        "tags": [endpoint.category],
        "security": security(endpoint.auth),
        "responses": responses(endpoint),
    });
    let parameters: Vec<Value> = parameters(endpoint).collect();
    if !parameters.is_empty() {
        operation["parameters"] = Value::Array(parameters);
    }
    if let Some(request) = endpoint.request {
        operation["requestBody"] = json!({
            "required": endpoint.body == Body::Json,
            "content": {"application/json": {"schema": reference(&request)}},
        });
    }
    if let Answer::Frames { client, server } = endpoint.answer {
        operation["x-websocket"] =
            json!({"client": reference(&client), "server": reference(&server)});
    }
    operation
}

fn security(auth: Auth) -> Value {
    match auth {
        Auth::None => json!([]),
        Auth::Bearer => json!([{BEARER: []}]),
        Auth::BearerOrQuery => json!([{BEARER: []}, {QUERY: []}]),
    }
}

fn parameters(endpoint: &Endpoint) -> impl Iterator<Item = Value> {
    let path = endpoint.path_parameters().map(
        |name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}),
    );
    let query = endpoint.query.iter().map(|parameter| {
        json!({
            "name": parameter.name,
            "in": "query",
            "description": parameter.summary,
            "schema": {"type": parameter.value},
        })
    });
    path.chain(query)
}

fn responses(endpoint: &Endpoint) -> Value {
    let success = match endpoint.answer {
        Answer::Json(schema) | Answer::Created(schema) => json!({
            "description": "Done.",
            "content": {"application/json": {"schema": reference(&schema)}},
        }),
        Answer::Nothing => json!({"description": "Done."}),
        Answer::Text { media_type } => {
            json!({"description": "The document.", "content": {media_type: {}}})
        }
        Answer::Events(schema) => json!({
            "description": "A stream of events; each event's data is this JSON.",
            "content": {"text/event-stream": {"schema": reference(&schema)}},
        }),
        Answer::Frames { .. } => json!({"description": "The connection is a WebSocket now."}),
    };
    let status = match endpoint.answer {
        Answer::Frames { .. } => "101",
        Answer::Nothing => "204",
        _ => "200",
    };
    let mut responses = json!({
        status: success,
        "default": {
            "description": "Refused, or failed.",
            "content": {"application/json": {"schema": reference(&ERROR)}},
        },
    });
    if let Answer::Created(_) = endpoint.answer {
        responses["201"] = responses[status].clone();
        responses["201"]["description"] = json!("Done; it is new.");
    }
    responses
}

const ERROR: SchemaOf = SchemaOf::new::<ErrorBody>();

fn reference(schema: &SchemaOf) -> Value {
    json!({"$ref": format!("#/components/schemas/{}", schema.name())})
}

/// Every schema that the table names, and those they refer to.
pub(crate) fn schemas() -> BTreeMap<String, Value> {
    let mut named: Schemas = Vec::new();
    let tops = ENDPOINTS.iter().flat_map(|endpoint| {
        let answer = match endpoint.answer {
            Answer::Json(schema) | Answer::Created(schema) | Answer::Events(schema) => {
                [Some(schema), None]
            }
            Answer::Frames { client, server } => [Some(client), Some(server)],
            Answer::Text { .. } | Answer::Nothing => [None, None],
        };
        answer.into_iter().chain([endpoint.request]).flatten()
    });
    for top in tops.chain([ERROR]) {
        named.push((top.name().into_owned(), (top.schema)()));
        (top.nested)(&mut named);
    }
    named
        .into_iter()
        .filter_map(|(name, schema)| Some((name, serde_json::to_value(schema).ok()?)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                if let Some(Value::String(target)) = map.get("$ref") {
                    found.push(target.clone());
                }
                map.values().for_each(|value| references(value, found));
            }
            Value::Array(items) => items.iter().for_each(|value| references(value, found)),
            _ => {}
        }
    }

    #[test]
    fn every_reference_resolves() {
        let document = openapi();
        let mut found = Vec::new();
        references(&document, &mut found);
        assert!(found.len() > ENDPOINTS.len());
        for target in found {
            let pointer = target.strip_prefix('#').expect("a local reference");
            assert!(document.pointer(pointer).is_some(), "{target} is missing");
        }
    }

    #[test]
    fn every_endpoint_is_described() {
        let document = openapi();
        for endpoint in ENDPOINTS {
            let method = endpoint.method.as_str().to_lowercase();
            let operation = &document["paths"][endpoint.path][&method];
            assert_eq!(operation["operationId"], endpoint.operation.id());
            assert_eq!(operation["requestBody"].is_object(), endpoint.body != Body::None);
        }
        let health = &document["components"]["schemas"]["HealthResponse"];
        assert_eq!(health["properties"]["peers"]["type"], "integer");
    }
}
