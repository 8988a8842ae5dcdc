//! `docs/api.md`, written from the table and the types' schemas.

use std::{collections::BTreeMap, fmt::Write};

use serde_json::Value;

use crate::{
    Answer, Auth, Body, ENDPOINTS, Endpoint, ErrorCode,
    limits::{
        MAX_BODIES, MAX_BODY, MAX_PROVEN_CONNECTIONS, MAX_TOPICS, MAX_UNPROVEN_CONNECTIONS,
        MAX_WS_TOPICS, SILENT_GRACE, SSE_RING, STUCK_AFTER, UNPROVEN_GRACE,
    },
    openapi::schemas,
};

const HEAD: &str = "# Local API

Written from the endpoint table in `crates/api` by its function `markdown()`; change the table, not
this file. The same as an OpenAPI 3.1 document: `GET /openapi.json`.

The daemon listens on loopback, unless its `api_address` says otherwise; `api.port` in its data directory holds `ip:port`, `api-token` the
token. Every request needs `Authorization: Bearer <token>` unless it says otherwise, a `Host` of exactly
`127.0.0.1:<port>`, `localhost:<port>` or `[::1]:<port>`, and no `Origin` or one of these with `http://`.
With an `api_address` beyond loopback, any IP address with the API's port is taken as `Host`, and then
`Origin` must be `http://` and the `Host` of the same request.
Bodies are JSON with `Content-Type: application/json`. Binary values are standard base64, ids 64 lowercase
hex characters. Every failure is `{\"ok\":false,\"error\":text,\"code\":code}`.

That holds for what never becomes a request, too: bytes that are not HTTP/1 get 400 `bad_request`, heads
beyond 32 KiB or with more than 100 fields 431 `headers_too_large`, and a head that takes longer than 10
seconds 408 `request_timeout`; each closes the connection. A connection without a request for 10 seconds is
closed without a word, and so is one whose client takes no byte of an answer for {stuck} seconds. At most {connections}
connections are open at once, fewer where the daemon may not open so many files. Of those that never presented the
token ({unproven}), the oldest is closed for a new one when it has sent no request for {silent} milliseconds, or waits for
an answer for {grace} milliseconds. Bodies are taken from requests with the token only, and never with `GET` (413). All that are in
work hold at most {bodies} MiB together: a further one waits two seconds for room, and is then refused as `busy` with
`Retry-After`.

A daemon is subscribed to at most {topics} topics at once, for all clients and for itself; one WebSocket session
to at most {ws_topics} of them. Beyond that the code is `limit_reached`. `POST /direct/send` answers 503
`recipient_busy` with `Retry-After` when the recipient's daemon holds as many unread messages as it can;
nothing was delivered, and the same may be sent again later. It answers the same to a stranger, whoever is no
contact there, beyond a burst of 1024 messages and then 16 a second (64 a second of all strangers; each 32 KiB count
as one), however fast its client reads: the recipient lifts that by adding the sender to its contacts (`POST
/contacts`). Over a WebSocket the same code comes in an
`error` frame.

Direct messages are acknowledged once the recipient's daemon has them in its database, where the end of
its process at any point loses none. A loss of power may take the last ones, unless the daemon is
configured with `durability = \"power\"` in `[mail]`, which costs a flush to the disk for each commit. With `\"class\":\"session\"` once
it has them in memory. With `\"queue\":true` this daemon keeps a message until the recipient can be reached, also
over restarts, in order for each recipient; `GET /direct/messages/{id}` and `/direct/receipts` tell how far it
came. What was sent otherwise and failed is not sent again by itself. A failure after sending began has a
`request_id`; with `timeout` and `shutting_down` the message may have arrived, and the same `id` delivers it once
(over a WebSocket the same `request_id`).
A message that came stays in the inbox, for any number of consumers that each have a place of their own: what
one has acknowledged it does not get again. Several workers may share a consumer: each claims messages for a while, under
an `owner` of its own, so that one whose time ran out does not acknowledge what another works on by then. Text of messages is never more than data: `sender`, `verified` and
`trust_level` stand beside it. A stranger may leave 1024 messages and 32 MiB unread, fewer where other strangers left many, a contact 16384 and 128
MiB. With a full disk the code is `storage_full` (507), or `recipient_busy` when it is the recipient's.

All server-sent events carry ids, and a client that reconnects with `Last-Event-ID` gets what it missed as long as
the daemon still has it, and `event: lagged` with `{\"missed\":n}` where it does not. The ids of `/events`, `/peers/events`,
`/presence/events`, `/files/events`, `/groups/events` and `/direct/receipts` are rising numbers of this run of the daemon, of
each of these streams its own; behind one that it did not give, that of another run, comes a mark whose
`missed` is 0 and then all that is kept, the last {sse_ring} events. `/peers/events`, `/presence/events` and `/files/events` begin with how
things stand, those that are live, there or moving, for a client that names no id, and again behind every `lagged`: then those
that are not told are not. Those of `/direct/events` are the numbers of the messages, which
stay valid when the daemon is started anew; what is not kept any more is told by `event: gap` with
`{\"missed\":n}` in place of `lagged`. Those of `/events?topic=..` are places in
the topics, which stay valid when the daemon is started anew; those of task lists and stores are numbers of a run again.

Every message carries a `cursor`, the place after it in its topic. A subscription with `since` (`POST
/subscribe`, `/events?topic=..`, the WebSocket's `subscribe`) goes on there. What is not kept any more is
skipped behind a `lagged` mark. A cursor of another daemon means the oldest message that is kept, behind a
mark whose `missed` is 0.

";

/// The beginning, with the numbers that hold.
fn head() -> String {
    let numbers = [
        ("{connections}", (MAX_UNPROVEN_CONNECTIONS + MAX_PROVEN_CONNECTIONS).to_string()),
        ("{unproven}", MAX_UNPROVEN_CONNECTIONS.to_string()),
        ("{silent}", SILENT_GRACE.as_millis().to_string()),
        ("{grace}", UNPROVEN_GRACE.as_millis().to_string()),
        ("{stuck}", STUCK_AFTER.as_secs().to_string()),
        ("{bodies}", (MAX_BODIES >> 20).to_string()),
        ("{topics}", MAX_TOPICS.to_string()),
        ("{ws_topics}", MAX_WS_TOPICS.to_string()),
        ("{sse_ring}", SSE_RING.to_string()),
    ];
    let fill = |text: String, (name, number): &(&str, String)| text.replace(name, number);
    numbers.iter().fold(HEAD.to_owned(), fill)
}

/// The API as Markdown.
#[must_use]
pub fn markdown() -> String {
    let mut out = head();
    let mut category = "";
    for endpoint in ENDPOINTS {
        if endpoint.category != category {
            category = endpoint.category;
            line(&mut out, format_args!("## {category}\n"));
        }
        section(&mut out, endpoint);
    }
    out.push_str("## Error codes\n\n| code | status | given when |\n|---|---|---|\n");
    for code in ErrorCode::ALL {
        let (status, summary) = (code.status(), code.summary().trim());
        line(&mut out, format_args!("| `{code}` | {status} | {summary} |"));
    }
    out.push_str("\n## Types\n\n");
    let schemas = schemas();
    for (name, schema) in &schemas {
        type_section(&mut out, name, schema);
    }
    let end = out.trim_end().len();
    out.truncate(end);
    out.push('\n');
    out
}

fn line(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{text}");
}

fn section(out: &mut String, endpoint: &Endpoint) {
    line(out, format_args!("### {} {}\n\n{}\n", endpoint.method, endpoint.path, endpoint.summary));
    if let Some(cli) = endpoint.cli {
        line(out, format_args!("- Command: `x0x {cli}`"));
    }
    match endpoint.auth {
        Auth::None => line(out, format_args!("- Token: not needed")),
        Auth::Bearer => {}
        Auth::BearerOrQuery => line(out, format_args!("- Token: in the header, or as `?token=`")),
    }
    for parameter in endpoint.query {
        let (name, summary) = (parameter.name, parameter.summary);
        line(out, format_args!("- Query `{name}` ({}): {summary}", parameter.value));
    }
    if let Some(request) = endpoint.request {
        let optional = if endpoint.body == Body::Optional { ", optional" } else { "" };
        line(out, format_args!("- Body: {}{optional}", link(&request.name())));
    }
    if ![0, MAX_BODY].contains(&endpoint.max_body) {
        line(out, format_args!("- Body limit: {} MiB", endpoint.max_body >> 20));
    }
    match endpoint.answer {
        Answer::Json(schema) => line(out, format_args!("- Answer: {}", link(&schema.name()))),
        Answer::Created(schema) => {
            let schema = link(&schema.name());
            line(out, format_args!("- Answer: {schema}, with status 201 when it is new"));
        }
        Answer::Nothing => line(out, format_args!("- Answer: none, with status 204")),
        Answer::Text { media_type } => line(out, format_args!("- Answer: `{media_type}`")),
        Answer::Events(schema) => {
            line(out, format_args!("- Answer: events with {}", link(&schema.name())));
        }
        Answer::Frames { client, server } => {
            let (client, server) = (link(&client.name()), link(&server.name()));
            line(out, format_args!("- Frames: {client} from the client, {server} from the daemon"));
        }
    }
    out.push('\n');
}

fn link(name: &str) -> String {
    format!("[{name}](#{})", name.to_lowercase())
}

fn type_section(out: &mut String, name: &str, schema: &Value) {
    line(out, format_args!("### {name}\n"));
    if let Some(text) = schema["description"].as_str() {
        line(out, format_args!("{}\n", one_line(text)));
    }
    if let Some(variants) = schema["oneOf"].as_array() {
        for variant in variants {
            variant_item(out, variant);
        }
        out.push('\n');
    } else if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().map(|value| format!("`{value}`")).collect();
        line(out, format_args!("One of {}.\n", values.join(", ")));
    } else if schema["properties"].is_object() {
        out.push_str("| field | type | meaning |\n|---|---|---|\n");
        for (field, (kind, meaning)) in fields(schema) {
            line(out, format_args!("| `{field}` | {kind} | {meaning} |"));
        }
        out.push('\n');
    } else {
        line(out, format_args!("Type: {}\n", kind(schema)));
    }
}

/// One variant of a tagged enum, as a list item with its fields.
fn variant_item(out: &mut String, variant: &Value) {
    let fields = fields(variant);
    let tag = tags(variant);
    let text = variant["description"].as_str().map(one_line).unwrap_or_default();
    let name = if tag.is_empty() { kind(variant) } else { format!("`{tag}`") };
    line(out, format_args!("- {name}: {text}"));
    for (field, (kind, meaning)) in fields.iter().filter(|(field, _)| **field != "type") {
        line(out, format_args!("  - `{field}` {kind}: {meaning}"));
    }
}

/// The value of the `type` field, wherever the variant's schema holds it.
fn tags(schema: &Value) -> String {
    if let Some(tag) = schema["properties"]["type"]["enum"][0].as_str() {
        return tag.to_owned();
    }
    let parts = schema["allOf"].as_array().into_iter().flatten();
    parts.map(tags).find(|tag| !tag.is_empty()).unwrap_or_default()
}

/// Fields of an object, with the type and meaning of each. Optional ones say so.
fn fields(schema: &Value) -> BTreeMap<&str, (String, String)> {
    let mut found = BTreeMap::new();
    for part in schema["allOf"].as_array().into_iter().flatten() {
        match part["$ref"].as_str() {
            Some(target) => {
                found.insert("…", (name_of(target), "the fields of that type".to_owned()));
            }
            None => found.extend(fields(part)),
        }
    }
    let required = |name: &str| {
        schema["required"].as_array().is_some_and(|names| names.iter().any(|known| known == name))
    };
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let optional = if required(name) { "" } else { ", optional" };
        found.insert(name, (kind(property) + optional, meaning(property)));
    }
    found
}

/// A field's own description; a nullable reference holds it one level down.
fn meaning(property: &Value) -> String {
    let options = property["oneOf"].as_array().into_iter().flatten();
    let mut texts = std::iter::once(property).chain(options).map(|part| &part["description"]);
    texts.find_map(Value::as_str).map(one_line).unwrap_or_default()
}

fn kind(schema: &Value) -> String {
    if let Some(target) = schema["$ref"].as_str() {
        return name_of(target);
    }
    if let Some(options) = schema["oneOf"].as_array().or(schema["allOf"].as_array()) {
        let mut kinds: Vec<String> = options.iter().map(kind).collect();
        kinds.sort();
        return kinds.join(" or ");
    }
    match &schema["type"] {
        Value::String(name) if name == "array" => format!("list of {}", kind(&schema["items"])),
        Value::String(name) if name == "object" && schema["additionalProperties"].is_object() => {
            format!("map to {}", kind(&schema["additionalProperties"]))
        }
        Value::String(name) => name.clone(),
        Value::Array(names) => {
            names.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" or ")
        }
        _ => "any".to_owned(),
    }
}

fn name_of(target: &str) -> String {
    link(target.rsplit('/').next().unwrap_or(target))
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_those_of_the_limits() {
        let head = head();
        for part in [
            "At most 2560\nconnections",
            "token (256)",
            "for 100 milliseconds",
            "for 1000 milliseconds",
        ] {
            assert!(head.contains(part), "{part} is missing in\n{head}");
        }
        let known = |rest: &&str| rest.starts_with('"') || rest.starts_with("id}");
        let holes: Vec<_> = head.split('{').skip(1).filter(|rest| !known(rest)).collect();
        assert!(holes.is_empty(), "{holes:?}");
    }
}
