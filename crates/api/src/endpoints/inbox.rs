//! Rows of the inbox.

use super::row::{created, delete, get, json, post};
use crate::{
    endpoint::{Endpoint, Parameter},
    operation::Operation,
    types::{
        ClaimRequest, ConsumerInfo, ConsumerRequest, ConsumersResponse, HistoryResponse,
        InboxAckRequest, InboxResponse, OkResponse, ReleaseRequest,
    },
};

const CATEGORY: &str = "Inbox";

const CONSUMER: Parameter =
    Parameter::new("consumer", "string", "Whose place it is; `default` unless given.");
const LIMIT: Parameter =
    Parameter::new("limit", "integer", "At most so many messages; 50 unless given, 256 at most.");

pub(super) const TABLE: &[Endpoint] = &[
    get(Operation::Inbox, "/inbox", CATEGORY, json::<InboxResponse>())
        .cli("inbox peek")
        .says(
            "Direct messages that a consumer has not acknowledged and nobody has claimed, at once.",
        )
        .query(&[CONSUMER, LIMIT]),
    get(Operation::InboxWait, "/inbox/wait", CATEGORY, json::<InboxResponse>())
        .cli("inbox wait")
        .says("The same, as soon as there is one; none after `timeout_ms`.")
        .query(&[
            CONSUMER,
            LIMIT,
            Parameter::new(
                "timeout_ms",
                "integer",
                "How long to wait; 30000 unless given, 60000 at most.",
            ),
        ]),
    post(Operation::InboxClaim, "/inbox/claim", CATEGORY, json::<InboxResponse>())
        .cli("inbox claim")
        .says("The same, for this caller alone until the lease is over.")
        .takes::<ClaimRequest>(),
    post(Operation::InboxAck, "/inbox/ack", CATEGORY, json::<OkResponse>())
        .cli("inbox ack")
        .says("Acknowledges messages for a consumer, which does not get them again.")
        .takes::<InboxAckRequest>(),
    post(Operation::InboxRelease, "/inbox/release", CATEGORY, json::<OkResponse>())
        .cli("inbox release")
        .says("Gives claimed messages back.")
        .takes::<ReleaseRequest>(),
    post(Operation::InboxSeek, "/inbox/seek", CATEGORY, json::<OkResponse>())
        .cli("inbox seek")
        .says("Puts a consumer to another place, so that it gets messages again, or skips them.")
        .takes::<ConsumerRequest>(),
    get(Operation::InboxConsumers, "/inbox/consumers", CATEGORY, json::<ConsumersResponse>())
        .cli("inbox consumers")
        .says("The consumers, and how far they have come. One is made when it first waits or claims."),
    post(Operation::InboxCreateConsumer, "/inbox/consumers", CATEGORY, created::<ConsumerInfo>())
        .cli("inbox create-consumer")
        .says("Makes a consumer that begins somewhere else than with the oldest message.")
        .takes::<ConsumerRequest>(),
    delete(
        Operation::InboxRemoveConsumer,
        "/inbox/consumers/{name}",
        CATEGORY,
        json::<OkResponse>(),
    )
    .cli("inbox remove-consumer")
    .says("Forgets a consumer and its place."),
    get(Operation::History, "/history", CATEGORY, json::<HistoryResponse>())
        .cli("history")
        .says("Messages that came, and those that were queued, the newest first. An answer ends at `limit`, or at 8 MiB of either; with its `next` as `cursor`, the following one goes on there.")
        .query(&[
            Parameter::new("q", "string", "Words that all are in the text."),
            Parameter::new("agent", "string", "Only with this agent."),
            Parameter::new(
                "before",
                "integer",
                "Only from before this time, milliseconds since the Unix epoch.",
            ),
            Parameter::new("cursor", "string", "Goes on where an answer with this `next` ended."),
            LIMIT,
        ]),
];
