//! Streams for sessions over which nothing comes any more: UDP may have come to be blocked.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use x0x_core::dialable;

use super::{Actor, Event};
use crate::{
    sock::{
        prober::Input,
        table::{MAX_SOURCES, is_detour},
    },
    state::LinkId,
};

/// How long all the addresses of a peer are tried.
const OPEN_TIME: Duration = Duration::from_secs(5);

/// Links for which a stream is being opened; at most one for each session.
pub(super) type Opening = BTreeSet<LinkId>;

impl Actor {
    /// Opens a stream to the peer of a session that this machine dialled, if the peer takes any where it says that it
    /// listens.
    pub(super) fn seek_stream(&mut self, id: LinkId) {
        let Some(handle) = self.links.get(&id) else { return };
        let Some(session) = handle.session.clone() else { return };
        let at = handle.link.remote_address();
        if !self.context.engine.dials_streams() || is_detour(at) || !self.opening.insert(id) {
            return;
        }
        let mut places: Vec<SocketAddr> = vec![at];
        let here = self.context.engine.local_addresses();
        for address in session.listen_addresses().iter().copied().filter_map(dialable) {
            if places.len() < MAX_SOURCES && !places.contains(&address) && !here.contains(&address)
            {
                places.push(address);
            }
        }
        let context = self.context.clone();
        self.context.tasks.spawn(async move {
            let open = tokio::time::timeout(OPEN_TIME, async {
                for place in places {
                    let way = context.engine.open_stream(place, session.peer).await;
                    if way.is_some() {
                        return way;
                    }
                }
                None
            });
            let way = tokio::select! {
                biased;
                () = context.closing.cancelled() => return,
                way = open => way.ok().flatten(),
            };
            context.event(Event::Streamed { link: id, way }).await;
        });
    }

    /// The session goes there once the peer has answered from there, unless it has another path by then.
    pub(super) fn on_streamed(&mut self, id: LinkId, way: Option<SocketAddr>) {
        self.opening.remove(&id);
        if let (Some(way), Some(flow)) = (way, self.paths.flow(id)) {
            let now = self.now();
            self.paths.probe(now, Input::Probe { flow, address: way });
            self.carry_probes();
        }
    }
}
