//! Cards of groups: `/groups/discover*` and `/groups/cards/*`.

use std::sync::Arc;

use axum::{Json, extract::State};
use data_encoding::HEXLOWER;
use serde::Deserialize;
use x0x_agent::named_groups::{Admission, Confidentiality, GroupId, SHARDS, ShardKind, SignedCard};
use x0x_api::{
    Base64, ErrorCode, True,
    types::{
        CardSubscription, CardSubscriptionsResponse, CardsSubscribedResponse,
        CardsUnsubscribedResponse, GroupCard, GroupCardImportedResponse, GroupCardsResponse,
        ImportGroupCardRequest, SubscribeCardsRequest,
    },
};
use x0x_core::AgentId;

use super::{Answer, bad, group_id, policy_info};
use crate::{
    app::App,
    http::{
        error::ApiError,
        extract::{JsonBody, Params, PathPair, PathParameter},
    },
};

/// Longest text that is looked for.
const MAX_KEY: usize = 256;

#[derive(Debug, Deserialize)]
pub(in super::super) struct DiscoverParams {
    #[serde(default)]
    q: String,
}

fn card_info(signed: &SignedCard) -> GroupCard {
    let card = &signed.card;
    let (key, signature) = signed.proof();
    let url = |url: &String| Some(url.clone()).filter(|url| !url.is_empty());
    let public = card.policy.confidentiality == Confidentiality::SignedPublic;
    GroupCard {
        group_id: card.group.to_string(),
        name: card.profile.name.clone(),
        description: card.profile.description.clone(),
        avatar_url: url(&card.profile.avatar_url),
        banner_url: url(&card.profile.banner_url),
        tags: card.profile.tags.clone(),
        policy_summary: policy_info(card.policy),
        owner_agent_id: card.owner,
        admin_count: card.admins,
        member_count: card.members,
        created_at: card.created.as_millis(),
        updated_at: card.updated.as_millis(),
        request_access_enabled: card.policy.admission == Admission::RequestAccess,
        metadata_topic: public.then(|| format!("x0x.groups.public.{}", card.group)),
        revision: card.revision,
        state_hash: HEXLOWER.encode(&card.state_hash),
        prev_state_hash: None,
        issued_at: card.issued.as_millis(),
        expires_at: card.expires.as_millis(),
        authority_agent_id: card.authority,
        authority_public_key: HEXLOWER.encode(&key),
        withdrawn: card.withdrawn,
        signature: HEXLOWER.encode(&signature),
        card: Base64::encode(signed.encoded()),
    }
}

fn cards_response(cards: &[SignedCard]) -> GroupCardsResponse {
    GroupCardsResponse { ok: True::default(), groups: cards.iter().map(card_info).collect() }
}

/// Whom to ask about a group: who is named, or else who made its card.
pub(super) async fn whom(
    app: &App,
    group: GroupId,
    named: Option<&str>,
) -> Result<AgentId, ApiError> {
    if let Some(named) = named {
        return Ok(named.parse()?);
    }
    let known = app.agent.groups().card(group).await?;
    let text = "name a `member` to ask, or import the group's card first";
    Ok(known.ok_or_else(|| bad(ErrorCode::NotFound, text))?.card.authority)
}

pub(in super::super) async fn discover(
    State(app): State<Arc<App>>,
    Params(params): Params<DiscoverParams>,
) -> Answer<GroupCardsResponse> {
    Ok(Json(cards_response(&app.agent.groups().cards(&params.q))))
}

pub(in super::super) async fn nearby(State(app): State<Arc<App>>) -> Answer<GroupCardsResponse> {
    Ok(Json(cards_response(&app.agent.groups().nearby().await)))
}

pub(in super::super) async fn subscriptions(
    State(app): State<Arc<App>>,
) -> Answer<CardSubscriptionsResponse> {
    let all = app.agent.groups().card_subscriptions().into_iter();
    let subscriptions: Vec<_> = all
        .map(|one| CardSubscription {
            kind: one.kind.word().to_owned(),
            shard: one.shard,
            key: one.key,
            subscribed_at: one.since.as_millis(),
        })
        .collect();
    let count = subscriptions.len() as u64;
    Ok(Json(CardSubscriptionsResponse { ok: True::default(), count, subscriptions }))
}

fn kind_of(word: &str) -> Result<ShardKind, ApiError> {
    let text = "kind must be 'tag', 'name', or 'id'";
    ShardKind::from_word(word).ok_or_else(|| bad(ErrorCode::InvalidValue, text))
}

fn checked(shard: u32) -> Result<u32, ApiError> {
    let wrong = || ApiError::new(ErrorCode::InvalidValue, format!("shards are below {SHARDS}"));
    Some(shard).filter(|shard| *shard < SHARDS).ok_or_else(wrong)
}

pub(in super::super) async fn subscribe(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<SubscribeCardsRequest>,
) -> Answer<CardsSubscribedResponse> {
    let kind = kind_of(&request.kind)?;
    let key = request.key.filter(|key| !key.trim().is_empty());
    if key.as_ref().is_some_and(|key| key.len() > MAX_KEY) {
        return Err(bad(ErrorCode::InvalidValue, "the key is too long"));
    }
    let shard = match (request.shard, &key) {
        (Some(shard), _) => checked(shard)?,
        (None, Some(key)) => kind.shard(key),
        (None, None) => {
            return Err(bad(ErrorCode::InvalidValue, "either 'shard' or 'key' is required"));
        }
    };
    let newly_added = app.agent.groups().subscribe_cards(kind, shard, key).await?;
    Ok(Json(CardsSubscribedResponse {
        ok: True::default(),
        newly_added,
        kind: kind.word().to_owned(),
        shard,
        topic: kind.topic(shard),
    }))
}

pub(in super::super) async fn unsubscribe(
    State(app): State<Arc<App>>,
    PathPair(kind, shard): PathPair,
) -> Answer<CardsUnsubscribedResponse> {
    let kind = kind_of(&kind)?;
    let number = shard.parse().map_err(|_| bad(ErrorCode::InvalidValue, "a shard is a number"));
    let existed = app.agent.groups().unsubscribe_cards(kind, checked(number?)?).await?;
    Ok(Json(CardsUnsubscribedResponse { ok: True::default(), existed }))
}

pub(in super::super) async fn card(
    State(app): State<Arc<App>>,
    PathParameter(id): PathParameter,
) -> Answer<GroupCard> {
    let known = app.agent.groups().card(group_id(&id)?).await?;
    let known = known.ok_or_else(|| bad(ErrorCode::NotFound, "card not found"))?;
    Ok(Json(card_info(&known)))
}

pub(in super::super) async fn import(
    State(app): State<Arc<App>>,
    JsonBody(request): JsonBody<ImportGroupCardRequest>,
) -> Answer<GroupCardImportedResponse> {
    let groups = app.agent.groups();
    let taken = groups.import_card(&Base64::decode(&request.card)?);
    let card = taken
        .map_err(|error| {
            ApiError::new(ErrorCode::BadRequest, format!("invalid signed card: {error}"))
        })?
        .card;
    // Nothing is opened for it: an agent without groups is in none.
    let here = match groups.is_open() {
        true => groups.get(card.group).await.ok(),
        false => None,
    };
    let me = app.agent.agent_id();
    Ok(Json(GroupCardImportedResponse {
        ok: True::default(),
        group_id: card.group.to_string(),
        stub: here.as_ref().is_none_or(|state| state.view.role(&me).is_none()),
        discovered: true,
        secure_access: here.and_then(|state| state.keys).is_some(),
        withdrawn: card.withdrawn,
    }))
}
