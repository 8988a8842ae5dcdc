//! What the machines ask of the world.

use x0x_core::Machine;

use super::{
    super::{
        collector::{CollectorInput, CollectorOutput},
        depositor::DepositorOutput,
        holder::HolderOutput,
        store::{Deposit, LetterChange},
        wire::{Frame, MAX_ASKED},
    },
    Driver,
    work::{self, Done},
};

impl Driver {
    pub(super) fn holder_output(&mut self, output: HolderOutput) {
        match output {
            HolderOutput::Send { peer, frame } => self.send(peer, &frame),
            HolderOutput::Store { peer, held, sealed } => {
                self.work.push(work::store(self.shared.clone(), peer, held, sealed));
            }
            HolderOutput::Load { peer, tag, digest } => {
                self.work.push(work::load(self.shared.clone(), peer, tag, digest));
            }
            HolderOutput::Remove(gone) => {
                let remove = |(tag, digest)| LetterChange::Remove { tag, digest };
                self.record(gone.into_iter().map(remove).collect());
            }
        }
    }

    pub(super) fn depositor_output(&mut self, output: &DepositorOutput) {
        match *output {
            DepositorOutput::Look(to) => {
                let places = self.boxes.grant_of(&to, self.shared.clock.wall());
                let places = places.map(|grant| grant.places);
                self.work.push(work::look(self.shared.clone(), to, places));
            }
            DepositorOutput::Seal { to, id, number, after } => {
                let wall = self.shared.clock.wall();
                let grant = self.boxes.grant_of(&to, wall).cloned();
                let signer = self.boxes.signer(wall);
                self.work.push(work::seal(
                    self.shared.clone(),
                    signer,
                    grant,
                    to,
                    id,
                    number,
                    after,
                ));
            }
            DepositorOutput::Deposit { peer, to, digest } => {
                let wall = self.shared.clock.wall();
                let grant = self.boxes.grant_of(&to, wall);
                if let Some((sealed, expires_at)) = self.sealed.get(&digest)
                    && let Some(grant) = grant
                {
                    let (tag, expires_at) = (grant.secret.pickup(&peer).tag(), *expires_at);
                    let sealed = sealed.clone();
                    self.send(peer, &Frame::Deposit { tag, expires_at, sealed });
                }
            }
            DepositorOutput::Release(digest) => drop(self.sealed.remove(&digest)),
            DepositorOutput::Note { id, to, holder, digest } => {
                let deposit = Deposit { id, to, holder, digest };
                self.record(vec![LetterChange::Deposited(deposit)]);
            }
            DepositorOutput::Forget(id) => self.record(vec![LetterChange::Settled(id)]),
            DepositorOutput::Withdraw { peer, to, digest } => {
                let wall = self.shared.clock.wall();
                if let Some(grant) = self.boxes.grant_of(&to, wall) {
                    let pickup = grant.secret.pickup(&peer);
                    self.send(peer, &Frame::Delete { pickup, digests: vec![digest] });
                }
            }
            DepositorOutput::Seek(to) => {
                let wall = self.shared.clock.wall();
                if let Some(grant) = self.boxes.grant_of(&to, wall) {
                    let meeting = self.shared.places.meet(grant.places);
                    self.work.push(Box::pin(async move {
                        meeting.await;
                        Done::Met
                    }));
                }
            }
        }
    }

    pub(super) fn collector_output(&mut self, output: CollectorOutput) {
        match output {
            CollectorOutput::Ask(peer) => {
                let pickups = self.boxes.pickups(&peer, self.shared.clock.wall());
                let frames = pickups.len().div_ceil(MAX_ASKED);
                let now = self.now();
                self.collector.handle(now, CollectorInput::Asked { peer, frames });
                for pickups in pickups.chunks(MAX_ASKED) {
                    self.send(peer, &Frame::Ask(pickups.to_vec()));
                }
            }
            CollectorOutput::Fetch { peer, mailbox: (from, period), digest } => {
                let pickup = self.boxes.pickup(&from, period, &peer);
                self.send(peer, &Frame::Fetch { pickup, digest });
            }
            CollectorOutput::Delete { peer, mailbox: (from, period), digests } => {
                let pickup = self.boxes.pickup(&from, period, &peer);
                self.send(peer, &Frame::Delete { pickup, digests });
            }
            CollectorOutput::Knows { from, id } => {
                self.work.push(work::knows(self.shared.clone(), from, id));
            }
            CollectorOutput::Deliver(letter) => {
                let local = self.boxes.local();
                self.work.push(work::deliver(self.shared.clone(), letter, local));
            }
        }
    }
}
