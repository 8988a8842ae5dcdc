//! Receiving: offers, acceptance, what is asked for, and what is stored.

use std::path::PathBuf;

use bytes::Bytes;
use x0x_core::{MachineId, Tick};
use x0x_trust::{Action, Reason};

use super::{
    Changed, FilesMachine, Output,
    ignored::unseen,
    peers::Claim,
    status_of,
    transfer::{Accepting, Held, Side, Stage, Transfer},
    verified_of,
};
use crate::{
    config::{
        MAX_AHEAD, MAX_LIVE, MAX_OFFERS_OF_STRANGERS, MAX_OFFERS_PER_CONTACT,
        MAX_OFFERS_PER_STRANGER, MAX_UNASKED, MAX_WINDOW, WINDOW,
    },
    error::{ChangeTransferError, WorkError},
    id::TransferId,
    ranges::RangeSet,
    record::{Direction, Phase, Record},
    tree::{group_len, groups},
    wire::{FrameIn, MAX_RANGES, OfferError, OfferIn, SliceIn, Standing, Status, Want},
};

impl FilesMachine {
    pub(super) fn on_offer(&mut self, now: Tick, peer: MachineId, offer: OfferIn) {
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        let offer = match offer.verify(&session.agents, &self.config.local_agents) {
            Ok(offer) => offer.into_inner(),
            Err(OfferError::NotProven) => return self.metrics.refused_not_proven.inc(),
            Err(OfferError::UnknownRecipient) => {
                return self.metrics.refused_unknown_recipient.inc();
            }
        };
        let decision = self.policy.decide(&offer.from, Some(&peer), Action::FileOffer);
        let denied = !decision.allowed();
        if denied {
            self.metrics.refused_trust.inc();
        }
        let known = self.live.get(&offer.id).map(|t| (&t.record, t.verified));
        let ended = self.history.get(&offer.id).map(|record| (record, verified_of(record)));
        if let Some((record, verified)) = known.or(ended) {
            let same = record.direction == Direction::Receiving
                && record.peer == offer.from
                && record.size == offer.size
                && record.root == Some(offer.root);
            if !same {
                self.metrics.refused_id.inc();
                return self.refuse(peer, offer.id, "the id is in use");
            }
            // The sender is back, and learns how it stands.
            let (id, status) = (offer.id, status_of(record, verified));
            let session = self.sessions.get_mut(&peer);
            if session.is_none_or(|session| !session.repeats.take(now)) {
                return self.metrics.refused_rate.inc();
            }
            if denied {
                return self.send_status(peer, unseen(id));
            }
            self.send_status(peer, status);
            self.offered_by(id, peer);
            return self.peer_goes_on(now, id);
        }
        if denied && self.is_ignored(peer, &offer.id) {
            return self.ignore(now, peer, &offer);
        }
        let session = self.sessions.get_mut(&peer);
        if session.is_none_or(|session| !session.offers.take(now)) {
            self.metrics.refused_rate.inc();
            return self.refuse(peer, offer.id, "too many offers");
        }
        let ignored = self.ignored.count(peer, &offer.from);
        let standing = if denied { (Reason::Unknown, ignored) } else { (decision.reason, 0) };
        if !self.has_room(&offer, standing) {
            self.metrics.refused_limit.inc();
            return self.refuse(peer, offer.id, "too many offers");
        }
        if denied {
            return self.ignore(now, peer, &offer);
        }
        self.take_offer(now, peer, offer);
    }

    /// A transfer belongs to the machine that offered it last.
    fn offered_by(&mut self, id: TransferId, peer: MachineId) {
        let Some(transfer) = self.live.get_mut(&id) else { return };
        if transfer.record.machine.replace(peer) == Some(peer) {
            return;
        }
        if let Some(incoming) = transfer.incoming() {
            incoming.give_up_asked();
        }
        self.save(id);
        self.turn_due = true;
    }

    fn refuse(&mut self, peer: MachineId, id: TransferId, reason: &str) {
        let reason = reason.to_owned();
        self.send_status(peer, Status { id, standing: Standing::Rejected, verified: 0, reason });
    }

    fn has_room(&self, offer: &OfferIn, (reason, ignored): (Reason, usize)) -> bool {
        let is_open = |t: &&Transfer| {
            t.record.direction == Direction::Receiving && t.record.phase == Phase::Offered
        };
        let of_peer = ignored
            + self.live.values().filter(is_open).filter(|t| t.record.peer == offer.from).count();
        if self.live.len() >= MAX_LIVE {
            return false;
        }
        if reason != Reason::Unknown {
            return of_peer < MAX_OFFERS_PER_CONTACT;
        }
        let is_stranger = |t: &&Transfer| {
            let machine = t.record.machine.as_ref();
            self.policy.decide(&t.record.peer, machine, Action::FileOffer).reason == Reason::Unknown
        };
        let of_strangers = self.live.values().filter(is_open).filter(is_stranger).count();
        of_peer < MAX_OFFERS_PER_STRANGER && of_strangers < MAX_OFFERS_OF_STRANGERS
    }

    fn take_offer(&mut self, now: Tick, peer: MachineId, offer: OfferIn) {
        let id = offer.id;
        let record = Record {
            id,
            direction: Direction::Receiving,
            peer: offer.from,
            machine: Some(peer),
            local: offer.to,
            name: offer.name,
            size: offer.size,
            root: Some(offer.root),
            sha256: offer.sha256,
            media_type: offer.media_type,
            phase: Phase::Offered,
            reason: None,
            started: self.wall,
            ended: None,
            source: None,
            modified: 0,
            folder: None,
            output: None,
        };
        self.send_status(peer, status_of(&record, 0));
        self.live.insert(id, Transfer::new(record));
        self.metrics.offers.inc();
        self.gauge();
        self.save(id);
        self.show_offer(id);
        self.schedule(now, id);
        self.turn_due = true;
    }

    /// Begins to accept: a look at the disk comes first.
    pub(super) fn accept(
        &mut self,
        id: TransferId,
        phase: Phase,
        direction: Direction,
        ticket: Option<u64>,
        folder: Option<PathBuf>,
    ) -> Result<(), ChangeTransferError> {
        let incoming = self.live.get_mut(&id).and_then(Transfer::incoming);
        let Some(incoming) = incoming.filter(|_| direction == Direction::Receiving) else {
            return Err(ChangeTransferError::NotIncoming);
        };
        if phase != Phase::Offered || incoming.accepting.is_some() {
            return Err(ChangeTransferError::NotPossible(phase));
        }
        incoming.accepting = Some(Accepting { ticket, folder: folder.clone() });
        self.outputs.push_back(Output::LookForSpace { id, folder });
        Ok(())
    }

    pub(super) fn on_space(&mut self, now: Tick, id: TransferId, free: Result<u64, WorkError>) {
        let keep = self.config.keep_free;
        let usable = free.map(|free| free.saturating_sub(keep));
        let reserved: u64 =
            self.live.values().map(Transfer::remaining).fold(0, u64::saturating_add);
        let Some(transfer) = self.live.get_mut(&id) else { return };
        let (size, remaining) = (transfer.record.size, transfer.remaining());
        let Some(incoming) = transfer.incoming() else { return };
        if let Some(accepting) = incoming.accepting.take() {
            let needed = size.saturating_add(reserved);
            let result = match usable {
                Ok(free) if free >= needed => Ok(()),
                Ok(free) => Err(ChangeTransferError::NoSpace { needed, free }),
                Err(WorkError::NoSpace) => Err(ChangeTransferError::NoSpace { needed, free: 0 }),
                Err(error) => Err(ChangeTransferError::Folder(error.to_string())),
            };
            self.accepted_or_not(now, id, accepting, result);
            return;
        }
        if incoming.held == Some(Held::Space) {
            if usable.is_ok_and(|free| free >= remaining) {
                incoming.held = None;
                transfer.tries = 0;
                self.turn_due = true;
                self.complete_or_ask(now, id);
                self.show(id);
            }
            self.schedule(now, id);
        }
    }

    fn accepted_or_not(
        &mut self,
        now: Tick,
        id: TransferId,
        accepting: Accepting,
        result: Result<(), ChangeTransferError>,
    ) {
        let Some(transfer) = self.live.get_mut(&id) else { return };
        let mut told = false;
        if let Some(incoming) = transfer.incoming() {
            incoming.waits_for_disk = accepting.ticket.is_none() && result.is_err();
        }
        if result.is_ok() {
            (transfer.tries, transfer.moved) = (0, None);
            transfer.record.phase = Phase::Active;
            transfer.record.folder = accepting.folder;
            let record = transfer.record.clone();
            self.save(id);
            told = self.tell(&record, 0);
            if accepting.ticket.is_none() {
                self.metrics.accepted_by_rule.inc();
            }
            self.queue(id);
        }
        self.schedule(now, id);
        self.show(id);
        if let Some(ticket) = accepting.ticket {
            let result = result.map(|()| Changed { told });
            self.outputs.push_back(Output::Changed { ticket, result });
        }
    }

    pub(super) fn on_opened(
        &mut self,
        now: Tick,
        id: TransferId,
        result: Result<RangeSet, WorkError>,
    ) {
        let Some(transfer) = self.live.get_mut(&id) else { return };
        let total = groups(transfer.record.size);
        let Some(incoming) = transfer.incoming() else { return };
        if incoming.stage != Stage::Opening {
            return;
        }
        match result {
            Ok(there) => {
                incoming.stage = Stage::Open;
                incoming.missing = RangeSet::of(0..total);
                there.iter().for_each(|range| incoming.missing.remove(range));
                transfer.verified = transfer.bytes_of(&there);
                transfer.record.reason = None;
                self.metrics.bytes_resumed.add(transfer.verified);
                self.complete_or_ask(now, id);
            }
            Err(WorkError::NoSpace) => self.out_of_space(now, id, Stage::Shut),
            Err(error) => self.work_failed(now, id, &error),
        }
    }

    /// Only content that is wrong ends a transfer; a disk that fails may be well again later.
    fn work_failed(&mut self, now: Tick, id: TransferId, error: &WorkError) {
        match error {
            WorkError::BadContent | WorkError::BadSha256 => {
                self.end(id, Phase::Failed, Some(error.to_string()), true);
            }
            _ => self.disk_failed(now, id, error),
        }
    }

    fn out_of_space(&mut self, now: Tick, id: TransferId, stage: Stage) {
        let Some(incoming) = self.live.get_mut(&id).and_then(Transfer::incoming) else { return };
        incoming.stage = stage;
        incoming.give_up_asked();
        if incoming.held.replace(Held::Space) != Some(Held::Space) {
            self.metrics.no_space.inc();
            self.show(id);
        }
        self.turn_due = true;
        self.schedule(now, id);
    }

    /// The window of each file that is received now, in groups.
    fn window(&self) -> u64 {
        let receiving =
            self.live.values().filter(|transfer| transfer.is_receiving()).count() as u64;
        (MAX_WINDOW / receiving.max(1)).clamp(*WINDOW.start(), *WINDOW.end())
    }

    /// Asks for what is missing, when enough of the window is free to be worth a frame.
    pub(super) fn ask(&mut self, now: Tick, id: TransferId) {
        if self.ask_again(id) {
            self.schedule(now, id);
        }
    }

    /// [`ask`](Self::ask), without setting the timer.
    pub(super) fn ask_again(&mut self, id: TransferId) -> bool {
        let window = self.window();
        let Some(transfer) = self.live.get(&id) else { return false };
        let Side::In(incoming) = &transfer.side else { return false };
        let on_the_way = incoming.asked.len() + incoming.writing.len();
        let idle = transfer.record.phase != Phase::Active
            || incoming.stage != Stage::Open
            || incoming.peer_paused
            || incoming.held.is_some()
            || incoming.missing.is_empty()
            || on_the_way > window / 2;
        if idle {
            return false;
        }
        let Some(peer) = self.route(&transfer.record) else {
            self.end_denied(id);
            return false;
        };
        let Some(transfer) = self.live.get_mut(&id) else { return false };
        let verified = transfer.verified;
        let Some(incoming) = transfer.incoming() else { return false };
        incoming.via = Some(peer);
        incoming.served_at = self.sessions.get(&peer).map_or(0, |session| session.groups);
        let (mut ranges, mut room) = (Vec::new(), window - on_the_way);
        while room > 0
            && ranges.len() < MAX_RANGES
            && let Some(range) = incoming.missing.take_first(room)
        {
            let count = range.end - range.start;
            room -= count;
            ranges.push((range.start, count));
            incoming.asked.insert(range);
        }
        self.transmit(peer, FrameIn::Want(Want { id, ranges, verified }));
        true
    }

    /// Until when a transfer that gets nothing waits for others that share its line: its machine sent some of
    /// theirs lately, and not more than may be before its turn.
    pub(super) fn waits_behind(&self, now: Tick, id: TransferId) -> Option<Tick> {
        let transfer =
            self.live.get(&id).filter(|transfer| transfer.record.phase == Phase::Active)?;
        let Side::In(incoming) = &transfer.side else { return None };
        let session = self.sessions.get(&incoming.via?)?;
        let until = session.heard? + self.config.stall_after;
        let waits = until > now
            && incoming.held.is_none()
            && !incoming.asked.is_empty()
            && session.groups.saturating_sub(incoming.served_at) < MAX_AHEAD;
        waits.then_some(until)
    }

    pub(super) fn on_content(&mut self, now: Tick, peer: MachineId, frame: Bytes) {
        let Ok(slice) = SliceIn::decode(frame) else {
            self.metrics.broken_malformed.inc();
            self.outputs.push_back(Output::Disconnect(peer));
            return;
        };
        let known = self.live.contains_key(&slice.id);
        if known && self.claim(peer, &slice.id) == Claim::Denied {
            return self.metrics.refused_trust.inc();
        }
        let incoming = self.live.get_mut(&slice.id).and_then(Transfer::incoming);
        if let Some(incoming) = incoming
            && incoming.via == Some(peer)
            && incoming.asked.contains(slice.group)
        {
            incoming.asked.remove(slice.group..slice.group + 1);
            incoming.writing.insert(slice.group..slice.group + 1);
            if let Some(session) = self.sessions.get_mut(&peer) {
                session.groups += 1;
                session.heard = Some(now);
                incoming.served_at = session.groups;
            }
            self.outputs.push_back(Output::Store(slice));
            return;
        }
        self.metrics.unasked.inc();
        let Some(session) = self.sessions.get_mut(&peer) else { return };
        session.unasked += 1;
        if session.unasked == MAX_UNASKED {
            self.metrics.broken_unasked.inc();
            self.outputs.push_back(Output::Disconnect(peer));
        }
    }

    pub(super) fn on_stored(
        &mut self,
        now: Tick,
        id: TransferId,
        group: u64,
        result: Result<(), WorkError>,
    ) {
        let Some(transfer) = self.live.get_mut(&id) else { return };
        let len = group_len(transfer.record.size, group) as u64;
        let Some(incoming) = transfer.incoming() else { return };
        // A result from before the file was opened again says nothing.
        if !incoming.writing.contains(group) {
            return;
        }
        incoming.writing.remove(group..group + 1);
        match result {
            Ok(()) => {
                transfer.verified += len;
                transfer.tries = 0;
                self.metrics.bytes_stored.add(len);
                self.complete_or_ask(now, id);
                self.show_progress(now, id);
            }
            Err(WorkError::NoSpace) => {
                incoming.missing.insert(group..group + 1);
                self.out_of_space(now, id, Stage::Open);
            }
            Err(error) => {
                if error == WorkError::BadContent {
                    self.metrics.refused_content.inc();
                }
                self.work_failed(now, id, &error);
            }
        }
    }

    fn complete_or_ask(&mut self, now: Tick, id: TransferId) {
        let Some(incoming) = self.live.get_mut(&id).and_then(Transfer::incoming) else { return };
        let whole = incoming.missing.is_empty()
            && incoming.asked.is_empty()
            && incoming.writing.is_empty()
            && incoming.held.is_none();
        if incoming.stage == Stage::Open && whole {
            incoming.stage = Stage::Finishing;
            self.outputs.push_back(Output::Finish(id));
        } else {
            self.ask(now, id);
        }
        self.schedule(now, id);
    }

    pub(super) fn on_finished(
        &mut self,
        now: Tick,
        id: TransferId,
        result: Result<PathBuf, WorkError>,
    ) {
        let Some(transfer) = self.live.get_mut(&id) else { return };
        let Some(incoming) = transfer.incoming() else { return };
        let cancelled = incoming.cancelling.is_some();
        match result {
            Ok(path) => {
                transfer.record.output = Some(path);
                self.metrics.received.inc();
                self.end(id, Phase::Complete, None, true);
            }
            Err(_) if cancelled => {
                self.end(id, Phase::Cancelled, Some("cancelled here".into()), true);
            }
            Err(WorkError::NoSpace) => self.out_of_space(now, id, Stage::Open),
            Err(error) => self.work_failed(now, id, &error),
        }
    }

    /// The sender is there and does not pause.
    fn peer_goes_on(&mut self, now: Tick, id: TransferId) {
        if let Some(incoming) = self.live.get_mut(&id).and_then(Transfer::incoming) {
            if std::mem::take(&mut incoming.peer_paused) {
                self.turn_due = true;
                self.show_progress(now, id);
            }
            self.ask(now, id);
            self.schedule(now, id);
        }
    }

    pub(super) fn heard_of_incoming(&mut self, now: Tick, status: Status) {
        let id = status.id;
        let Some(transfer) = self.live.get_mut(&id).filter(|t| !t.is_finishing()) else { return };
        let Some(incoming) = transfer.incoming() else { return };
        let reason = (!status.reason.is_empty()).then_some(status.reason);
        match status.standing {
            Standing::Offered | Standing::Active => self.peer_goes_on(now, id),
            Standing::Paused => {
                if !std::mem::replace(&mut incoming.peer_paused, true) {
                    incoming.give_up_asked();
                    self.turn_due = true;
                    self.schedule(now, id);
                    self.show_progress(now, id);
                }
            }
            Standing::Failed => drop(self.end(id, Phase::Failed, reason, false)),
            Standing::Cancelled | Standing::Rejected => {
                self.end(id, Phase::Cancelled, reason, false);
            }
            Standing::Unknown => {
                let reason = Some("the sender does not know the transfer any more".into());
                self.end(id, Phase::Cancelled, reason, false);
            }
            // Nothing more will come. Before the file is open it is not known whether more is needed.
            Standing::Complete
                if incoming.stage == Stage::Open
                    && !(incoming.missing.is_empty() && incoming.asked.is_empty()) =>
            {
                let reason = Some("the sender counts the transfer as complete".into());
                self.end(id, Phase::Failed, reason, false);
            }
            Standing::Complete => {}
        }
    }
}
