//! `/letters`.

use std::sync::Arc;

use axum::{Json, extract::State};
use x0x_agent::{LetterGap, LettersStatus};
use x0x_api::types::{self, HeldMessage, LettersHolding, LettersResponse};

use super::Answer;
use crate::app::App;

pub(super) async fn status(State(app): State<Arc<App>>) -> Answer<LettersResponse> {
    let status: LettersStatus = app.agent.letters_status().await;
    let held = status.held_out.into_iter().map(|(request_id, agent_id, holders)| HeldMessage {
        request_id,
        agent_id,
        holders: holders as u64,
    });
    let gap = |gap: LetterGap| types::LetterGap {
        agent_id: gap.from,
        missing_id: gap.missing,
        next_id: gap.next,
        at: gap.at.as_millis(),
    };
    Ok(Json(LettersResponse {
        holding: LettersHolding {
            enabled: status.holds,
            letters: status.held as u64,
            bytes: status.held_bytes,
            max_bytes: status.hold_limit,
        },
        held: held.collect(),
        outstanding: status.outstanding as u64,
        mailboxes: status.mailboxes as u64,
        gaps: status.gaps.into_iter().map(gap).collect(),
        ..LettersResponse::default()
    }))
}
