//! Rows of the keys of this installation.

use super::row::{get, json, post};
use crate::{
    endpoint::{Endpoint, Parameter},
    operation::Operation,
    types::{
        AgentCardResponse, AgentResponse, AnnounceRequest, AnnounceResponse, CreateUserRequest,
        CreateUserResponse, ExportRequest, ExportResponse, ImportCardRequest, ImportCardResponse,
        ImportRequest, ImportResponse, IntroductionResponse, OkResponse, RevocationsResponse,
        RevokeRequest, UserIdResponse,
    },
};

const CATEGORY: &str = "Identity";

pub(super) const TABLE: &[Endpoint] = &[
    get(Operation::Agent, "/agent", CATEGORY, json::<AgentResponse>())
        .cli("agent")
        .says("Ids and public keys of this daemon."),
    get(Operation::UserId, "/agent/user-id", CATEGORY, json::<UserIdResponse>())
        .cli("agent user-id")
        .says("The user behind the agent, and whether others are told."),
    post(Operation::CreateUser, "/agent/user-id", CATEGORY, json::<CreateUserResponse>())
        .cli("user-id create")
        .says("Makes a user key where there is none; it is used from the next start on.")
        .may_take::<CreateUserRequest>(),
    get(Operation::AgentCard, "/agent/card", CATEGORY, json::<AgentCardResponse>())
        .cli("agent card")
        .says("The agent's signed card, and links to hand to others.")
        .query(&[
            Parameter::new("display_name", "string", "What to call the agent, at most 64 bytes."),
            Parameter::new("lan", "boolean", "Whether to tell the machine's addresses in its own networks, too."),
        ]),
    post(Operation::ImportCard, "/agent/card/import", CATEGORY, json::<ImportCardResponse>())
        .cli("agent import")
        .says("Makes a contact of whoever a card or link is about; a card that was changed is refused.")
        .takes::<ImportCardRequest>(),
    post(Operation::ExportKeys, "/agent/export", CATEGORY, json::<ExportResponse>())
        .cli("agent export-keys")
        .says("The agent's keys for another machine, which only a passphrase opens.")
        .takes::<ExportRequest>(),
    post(Operation::ImportKeys, "/agent/import", CATEGORY, json::<ImportResponse>())
        .cli("agent import-keys")
        .says("Makes an exported agent the one of this installation, from the next start on; the machine that it came from is refused by others then.")
        .takes::<ImportRequest>(),
    get(Operation::Introduction, "/introduction", CATEGORY, json::<IntroductionResponse>())
        .cli("agent introduction")
        .says("What a peer may be told of the agent, by its trust level here; 403 when it is blocked.")
        .query(&[
            Parameter::new("peer", "string", "The peer's agent id; somebody unknown when it is absent."),
            Parameter::new("display_name", "string", "What to call the agent, at most 64 bytes."),
        ]),
    post(Operation::Announce, "/announce", CATEGORY, json::<AnnounceResponse>())
        .cli("announce")
        .says("Announces the agent to the network now.")
        .may_take::<AnnounceRequest>(),
    post(Operation::RevokeIdentity, "/identity/revoke", CATEGORY, json::<OkResponse>())
        .cli("identity revoke")
        .says("Revokes a key of this installation for ever, for everybody who hears of it.")
        .takes::<RevokeRequest>(),
    get(Operation::Revocations, "/identity/revocations", CATEGORY, json::<RevocationsResponse>())
        .cli("identity revocations")
        .says("Every revocation that is known here."),
];
