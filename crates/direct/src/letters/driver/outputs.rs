//! What the machines ask of the world.

use x0x_core::Machine;

use super::{
    super::{
        collector::{CollectorInput, CollectorOutput},
        depositor::DepositorOutput,
        holder::HolderOutput,
        store::LetterChange,
        wire::{Frame, MAX_ASKED},
    },
    Driver, work,
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
                let grant = self.boxes.grant_of(&to, self.shared.clock.wall());
                self.work.push(work::look(self.shared.clone(), to, grant));
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
            DepositorOutput::Deposit { peer, digest } => {
                if let Some(letter) = self.sealed.get(&digest) {
                    let (tag, expires_at) = (letter.secret.pickup(&peer).tag(), letter.expires_at);
                    let sealed = letter.bytes.clone();
                    self.send(peer, &Frame::Deposit { tag, expires_at, sealed });
                }
            }
            DepositorOutput::Release(digest) => drop(self.sealed.remove(&digest)),
            DepositorOutput::Note(deposit) => {
                self.record(vec![LetterChange::Deposited(deposit)]);
            }
            DepositorOutput::Lapsed { id, holder } => {
                self.record(vec![LetterChange::Lapsed { id, holder }]);
            }
            DepositorOutput::Forget(id) => self.record(vec![LetterChange::Settled(id)]),
            DepositorOutput::Withdraw { peer, pickup, digest } => {
                self.send(peer, &Frame::Delete { pickup, digests: vec![digest] });
            }
            DepositorOutput::Seek { places } => self.meet(vec![places]),
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
            CollectorOutput::Fetch { peer, mailbox, digest } => {
                let pickup = self.boxes.pickup(&mailbox, &peer);
                self.send(peer, &Frame::Fetch { pickup, digest });
            }
            CollectorOutput::Delete { peer, mailbox, digests } => {
                let pickup = self.boxes.pickup(&mailbox, &peer);
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
