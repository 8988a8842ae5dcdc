//! What happens to transfers of files, for sessions that watch them.

use std::sync::Arc;

use x0x_agent::Agent;
use x0x_api::ws::ServerFrame;

use super::outbox::Outbox;
use crate::convert;

/// Carries transfers to the outbox until the agent ends. While the client does not read, it falls behind,
/// and is told how much it missed.
pub(super) async fn receive(agent: Agent, outbox: Arc<Outbox>) {
    // Listened for before the present ones are asked for: none that comes in between is missed.
    let mut events = agent.file_events();
    let mut present = agent.transfers().await;
    present.retain(|info| !info.record.phase.ended());
    for info in present {
        outbox.push(&ServerFrame::Transfer(Box::new(convert::transfer(info)))).await;
    }
    while let Some(event) = events.next().await {
        let frame = match event {
            Ok(event) => ServerFrame::Transfer(Box::new(convert::transfer(event.info().clone()))),
            Err(missed) => ServerFrame::TransfersLagged { missed },
        };
        outbox.push(&frame).await;
    }
}
