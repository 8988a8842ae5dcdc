//! Rows of groups' cards, and of groups by their keys.

use super::row::{created, delete, get, json, post};
use crate::{
    endpoint::{Endpoint, Parameter},
    operation::Operation,
    types::{
        CardSubscriptionsResponse, CardsSubscribedResponse, CardsUnsubscribedResponse,
        CreateMlsGroupRequest, GroupCard, GroupCardImportedResponse, GroupCardsResponse,
        ImportGroupCardRequest, MlsAgentRequest, MlsDecryptRequest, MlsDecryptResponse,
        MlsEncryptRequest, MlsEncryptResponse, MlsGroupResponse, MlsGroupsResponse,
        MlsMembersResponse, MlsWelcomeResponse, SecureContent, SecureDecryptResponse,
        SecureEncryptRequest, SubscribeCardsRequest,
    },
};

const GROUPS: &str = "Groups";
const KEYS: &str = "Groups by their keys";

pub(super) const CARDS: &[Endpoint] = &[
    get(Operation::DiscoverGroups, "/groups/discover", GROUPS, json::<GroupCardsResponse>())
        .cli("groups discover")
        .says("Groups whose cards are known here: of shards that are subscribed, of agents that were asked, and own ones.")
        .query(&[Parameter::new("q", "string", "A part of a name or tag, or an id; all without.")]),
    get(Operation::NearbyGroups, "/groups/discover/nearby", GROUPS, json::<GroupCardsResponse>())
        .cli("groups nearby")
        .says("Groups that the agents know that this one has sessions with; they are asked now."),
    get(
        Operation::CardSubscriptions,
        "/groups/discover/subscriptions",
        GROUPS,
        json::<CardSubscriptionsResponse>(),
    )
    .cli("groups subscriptions")
    .says("The shards of cards that are subscribed."),
    post(
        Operation::SubscribeCards,
        "/groups/discover/subscribe",
        GROUPS,
        json::<CardsSubscribedResponse>(),
    )
    .cli("groups subscribe")
    .says("Reads the cards of groups with a tag, a word in their name, or an id, until the daemon ends.")
    .takes::<SubscribeCardsRequest>(),
    delete(
        Operation::UnsubscribeCards,
        "/groups/discover/subscribe/{kind}/{shard}",
        GROUPS,
        json::<CardsUnsubscribedResponse>(),
    )
    .cli("groups unsubscribe")
    .says("Does not read the cards of a shard any more."),
    get(Operation::GroupCard, "/groups/cards/{id}", GROUPS, json::<GroupCard>())
        .cli("groups card")
        .says("The card of a group; hidden ones have none."),
    post(
        Operation::ImportGroupCard,
        "/groups/cards/import",
        GROUPS,
        json::<GroupCardImportedResponse>(),
    )
    .cli("groups import")
    .says("Takes a group's card from elsewhere, so that it is found here and can be asked for admission.")
    .takes::<ImportGroupCardRequest>(),
];

pub(super) const MLS: &[Endpoint] = &[
    post(Operation::SecureEncrypt, "/groups/{id}/secure/encrypt", KEYS, json::<SecureContent>())
        .cli("groups encrypt")
        .says(
            "Encrypts content to the members of a group, to be carried by other ways than its log.",
        )
        .takes::<SecureEncryptRequest>(),
    post(
        Operation::SecureDecrypt,
        "/groups/{id}/secure/decrypt",
        KEYS,
        json::<SecureDecryptResponse>(),
    )
    .cli("groups decrypt")
    .says("Decrypts such content; 409 once the group is in another epoch than it was made in.")
    .takes::<SecureContent>(),
    get(Operation::MlsGroups, "/mls/groups", KEYS, json::<MlsGroupsResponse>())
        .cli("mls list")
        .says("The groups whose keys this agent has."),
    post(Operation::CreateMlsGroup, "/mls/groups", KEYS, created::<MlsGroupResponse>())
        .cli("mls create")
        .says("Founds a hidden, encrypted group without a name of its own.")
        .takes::<CreateMlsGroupRequest>(),
    get(Operation::MlsGroup, "/mls/groups/{id}", KEYS, json::<MlsGroupResponse>())
        .cli("mls show")
        .says("The epoch of a group's keys, and who has them."),
    post(Operation::AddMlsMember, "/mls/groups/{id}/members", KEYS, json::<MlsMembersResponse>())
        .cli("mls add")
        .says("Adds an agent, which has to be online and to know this agent.")
        .takes::<MlsAgentRequest>(),
    delete(
        Operation::RemoveMlsMember,
        "/mls/groups/{id}/members/{agent_id}",
        KEYS,
        json::<MlsMembersResponse>(),
    )
    .cli("mls remove")
    .says("Removes an agent; the keys are others then."),
    post(Operation::MlsEncrypt, "/mls/groups/{id}/encrypt", KEYS, json::<MlsEncryptResponse>())
        .cli("mls encrypt")
        .says("Encrypts content to the members of this epoch.")
        .takes::<MlsEncryptRequest>(),
    post(Operation::MlsDecrypt, "/mls/groups/{id}/decrypt", KEYS, json::<MlsDecryptResponse>())
        .cli("mls decrypt")
        .says("Decrypts what a member encrypted in this epoch.")
        .takes::<MlsDecryptRequest>(),
    post(Operation::MlsWelcome, "/mls/groups/{id}/welcome", KEYS, json::<MlsWelcomeResponse>())
        .cli("mls welcome")
        .says("What a member that lost the keys needs to come in again by a commit of its own.")
        .takes::<MlsAgentRequest>(),
];
