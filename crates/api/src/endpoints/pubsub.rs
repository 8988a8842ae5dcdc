//! Rows of topics.

use super::row::{delete, get, json, post, stream};
use crate::{
    endpoint::{Answer, Endpoint, Parameter, SchemaOf},
    event::Event,
    operation::Operation,
    types::{
        OkResponse, PublishRequest, PublishResponse, SubscribeRequest, SubscribeResponse,
        SubscriptionsResponse,
    },
};

const CATEGORY: &str = "Publish and subscribe";

pub(super) const TABLE: &[Endpoint] = &[
    post(Operation::Publish, "/publish", CATEGORY, json::<PublishResponse>())
        .cli("publish")
        .says("Publishes a message; 429 when there is no room for it within two seconds.")
        .takes::<PublishRequest>(),
    post(Operation::Subscribe, "/subscribe", CATEGORY, json::<SubscribeResponse>())
        .cli("subscribe")
        .says("Lets the messages of a topic come to `/events`, those that are kept first unless `since` says otherwise.")
        .takes::<SubscribeRequest>(),
    get(Operation::Subscriptions, "/subscribe", CATEGORY, json::<SubscriptionsResponse>())
        .cli("subscriptions")
        .says("The subscriptions made by `POST /subscribe`, those of clients that are gone, too."),
    delete(Operation::Unsubscribe, "/subscribe/{id}", CATEGORY, json::<OkResponse>())
        .cli("unsubscribe")
        .says("Ends a subscription; its messages stop."),
    stream(Operation::Events, "/events", CATEGORY, Answer::Events(SchemaOf::new::<Event>()))
        .cli("events")
        .says("Messages of every subscription of the daemon, or of some topics, as server-sent events.")
        .query(&[
            Parameter::new(
                "topic",
                "string",
                "A topic of which this stream is, instead of the daemon's subscriptions; up to 16 times.",
            ),
            Parameter::new(
                "since",
                "string",
                "Where a stream of topics begins: the id of one of its events, for one topic also a \
                 message's `cursor`, or `now`; otherwise with the oldest messages that the daemon keeps.",
            ),
        ]),
];
