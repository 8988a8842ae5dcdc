//! The beginning of sessions, before their peers have taken them and after.
//!
//! A session over a link that this machine dialled is up as soon as the peer proved itself, though the peer may be the one
//! who decides. What is written until it has decided is kept: if it takes another link, all of it goes again over that one.
//! Of a link that it does not take the peer reads nothing but control messages.

use std::sync::Arc;

use tokio::sync::oneshot;
use x0x_core::{MachineId, StreamClass};

use super::{
    Actor,
    stream::{ClassReader, Incoming},
    writer,
};
use crate::{
    config::MAX_SESSIONS,
    link::Side,
    state::{LinkId, SessionUp},
    table::{Session, is_used},
};

/// What an early session waits for.
#[derive(Debug)]
pub(super) struct EarlySession {
    session: Arc<Session>,
    /// Its readers, who get the peer's streams of the link that the peer takes.
    readers: [Option<oneshot::Sender<Incoming>>; 4],
}

fn used_classes() -> impl Iterator<Item = StreamClass> {
    StreamClass::ALL.into_iter().filter(|class| is_used(*class))
}

impl Actor {
    pub(super) fn session_up(&mut self, up: SessionUp) {
        let Some(handle) = self.links.get_mut(&up.link) else { return };
        let (id, peer, is_early) = (up.link, up.peer, up.early);
        tracing::debug!(peer = %peer.short(), side = ?up.side, is_early, "session up");
        let (link, control) = (handle.link.clone(), handle.control.clone());
        let (side, now) = (up.side, self.context.clock.now());
        let mut session = Session::new(up, link.clone(), control, &self.context.config, now);
        let wrote = self.dial_backs.wrote_to(now, link.remote_address());
        session.unasked = side == Side::Acceptor && !wrote;
        let session = Arc::new(session);
        handle.session = Some(session.clone());
        self.context.table.insert(session.clone());
        if self.lanes.len() >= MAX_SESSIONS {
            self.prune_lanes();
        }
        let mut readers = [const { None }; 4];
        for class in used_classes() {
            if is_early && class != StreamClass::Control {
                session.outbox(class).begin_early();
            }
            let (sender, incoming) = oneshot::channel();
            readers[class as usize] = Some(sender);
            let lane = self.lanes.entry(peer).or_default()[class as usize].clone();
            let reader = ClassReader::new(self.context.clone(), session.clone(), id, class);
            self.context.tasks.spawn(reader.run(lane, incoming));
        }
        self.write_classes(id, &session);
        self.watch_path(id, &*link);
        let early = EarlySession { session, readers };
        if is_early {
            self.early.insert(peer, early);
        } else {
            self.begin_reading(id, early);
        }
    }

    /// Starts the writers of a session on a link; that of control has long begun.
    fn write_classes(&self, id: LinkId, session: &Session) {
        for class in used_classes().filter(|class| *class != StreamClass::Control) {
            let (context, link) = (self.context.clone(), session.link());
            let outbox = session.outbox(class).writer();
            let writer = writer::write_class(context, id, link, class, outbox, None);
            self.context.tasks.spawn(writer);
        }
    }

    /// The peer has taken the session on the link on which it began.
    pub(super) fn session_taken(&mut self, id: LinkId, peer: MachineId) {
        let Some(early) = self.early.remove(&peer) else { return };
        for class in used_classes().filter(|class| *class != StreamClass::Control) {
            early.session.outbox(class).confirm();
        }
        self.begin_reading(id, early);
    }

    /// The peer has taken it on another one.
    pub(super) fn session_moved(&mut self, from: LinkId, to: LinkId, side: Side, peer: MachineId) {
        let Some(early) = self.early.remove(&peer) else { return };
        if let Some(handle) = self.links.get_mut(&from) {
            handle.session = None;
        }
        let Some(handle) = self.links.get_mut(&to) else { return };
        tracing::debug!(peer = %peer.short(), from = from.0, to = to.0, "session moved");
        let session = early.session.clone();
        session.carry(handle.link.clone(), handle.control.clone(), side);
        handle.session = Some(session.clone());
        for class in used_classes().filter(|class| *class != StreamClass::Control) {
            session.outbox(class).rewind();
        }
        self.write_classes(to, &session);
        self.watch_path(to, &*session.link());
        self.begin_reading(to, early);
    }

    /// Both ends have the session on this link: the peer's streams are read.
    fn begin_reading(&mut self, id: LinkId, early: EarlySession) {
        let Some(handle) = self.links.get_mut(&id) else { return };
        handle.link.trust();
        for (reader, stream) in early.readers.into_iter().zip(&mut handle.streams) {
            let (Some(reader), Some(stream)) = (reader, stream.take()) else { continue };
            self.context.tasks.spawn(async move {
                if let Ok(incoming) = stream.await {
                    // A reader that is gone has no use for it.
                    let _ = reader.send(incoming);
                }
            });
        }
        self.report_address(id);
        self.tell_ways_in_use(self.now());
    }
}
