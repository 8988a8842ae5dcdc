//! A sender that lies: about sizes, hashes and names. What it says costs it the transfer, and nobody else
//! anything.

use std::time::Duration;

use bytes::Bytes;
use x0x_core::{PeerAddr, Protocol};
use x0x_files::{
    Change, ChangeTransferError, Phase, TransferId,
    testing::{MemoryStore, Peer, agent, peer},
    tree::{GROUP_LEN, small_root},
    wire::{FrameIn, OfferIn, SliceIn},
};
use x0x_transport::{
    Inbound, InboundEvent, Node, Transport as _,
    testing::{LinkModel, MemoryNetwork, address, eventually, node},
};

const ID: TransferId = TransferId::new([7; 16]);

/// A machine that speaks the protocol as it likes.
struct Mallory {
    node: Node,
    control: Inbound,
    bob: Peer,
}

impl Mallory {
    async fn meets_bob() -> Self {
        let network = MemoryNetwork::new(1, LinkModel::default());
        let bob = peer(&network, 2, MemoryStore::new()).await;
        let node = node(&network, 1);
        let control = node.inbound(Protocol::Files).expect("nobody else listens");
        let target = PeerAddr::known(bob.machine, [address(2)]);
        node.connect(target).await.expect("the network is up");
        Self { node, control, bob }
    }

    fn offer(size: u64, root: [u8; 32]) -> OfferIn {
        OfferIn {
            id: ID,
            from: agent(1),
            to: agent(2),
            name: "f".into(),
            size,
            root,
            sha256: None,
            media_type: String::new(),
        }
    }

    /// Offers a file, and waits until it is shown.
    async fn offers(&self, offer: OfferIn) {
        let frame = FrameIn::Offer(offer).encode();
        self.node.send(self.bob.machine, Protocol::Files, frame).await.expect("a session");
        self.bob.wait_for(ID, "it is offered", |info| info.record.phase == Phase::Offered).await;
    }

    /// Sends this, whatever it is, once it is asked for something.
    async fn answers(&mut self, group: u64, content: &[u8]) {
        self.bob.files.change(ID, Change::Accept { folder: None }).await.expect("accepted");
        while let Some(event) = self.control.recv().await {
            let InboundEvent::Message { message, .. } = event else { continue };
            if let Ok(FrameIn::Want(_)) = FrameIn::decode(message) {
                break;
            }
        }
        let content = Bytes::copy_from_slice(content);
        let slice = SliceIn { id: ID, group, proof: Bytes::new(), content };
        let sent = self.node.send(self.bob.machine, Protocol::FileContent, slice.encode());
        sent.await.expect("a session");
    }

    async fn fails(&self, why: &str) {
        let failed = |info: &x0x_files::TransferInfo| info.record.phase == Phase::Failed;
        self.bob.wait_for(ID, "it fails", failed).await;
        let info = self.bob.files.transfer(ID).await.expect("known");
        assert_eq!(info.record.reason.as_deref(), Some(why));
        eventually("nothing of it stays", async || self.bob.disk.paths().is_empty()).await;
    }
}

#[tokio::test(start_paused = true)]
async fn content_that_is_not_what_was_offered_fails() {
    let wrong = "the content does not match the offered hash";
    for (size, root, content) in [
        // Another root, a size that is too small, one that is too large, and one of another number of groups.
        (5, [1; 32], &b"hello"[..]),
        (4, small_root(b"hello"), b"hell"),
        (6, small_root(b"hello"), b"hello"),
        (GROUP_LEN as u64 + 5, small_root(b"hello"), b"hello"),
    ] {
        let mut mallory = Mallory::meets_bob().await;
        mallory.offers(Mallory::offer(size, root)).await;
        mallory.answers(0, content).await;
        mallory.fails(wrong).await;
        assert_eq!(mallory.bob.files.metrics().refused_content.value(), 1, "{size} bytes");
    }
}

#[tokio::test(start_paused = true)]
async fn a_sha256_that_is_another_ones_fails() {
    let mut mallory = Mallory::meets_bob().await;
    let offer = OfferIn { sha256: Some([9; 32]), ..Mallory::offer(5, small_root(b"hello")) };
    mallory.offers(offer).await;
    mallory.answers(0, b"hello").await;
    mallory.fails("the SHA-256 does not match").await;
}

#[tokio::test(start_paused = true)]
async fn a_size_that_no_disk_has_is_not_accepted_and_takes_no_room() {
    let mallory = Mallory::meets_bob().await;
    mallory.bob.disk.set_capacity(Some(1 << 40));
    mallory.offers(Mallory::offer(u64::MAX, [1; 32])).await;
    let answer = mallory.bob.files.change(ID, Change::Accept { folder: None }).await;
    let needed = u64::MAX;
    assert_eq!(answer, Err(ChangeTransferError::NoSpace { needed, free: 1 << 40 }));
    assert!(mallory.bob.disk.paths().is_empty());
}

#[tokio::test(start_paused = true)]
async fn groups_behind_the_end_are_dropped() {
    let mut mallory = Mallory::meets_bob().await;
    mallory.offers(Mallory::offer(5, small_root(b"hello"))).await;
    mallory.answers(1 << 40, b"hello").await;
    let metrics = mallory.bob.files.metrics().clone();
    eventually("it is dropped", async || metrics.unasked.value() == 1).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let info = mallory.bob.files.transfer(ID).await.expect("known");
    assert_eq!((info.record.phase, info.verified), (Phase::Active, 0));
}
