//! Every bound of this crate in one place, with its reason.

use std::time::Duration;

use crate::{
    link::Link,
    log::TopicLog,
    run::{Entry, Run},
    store::LoadLimits,
};

/// Most entries under one signature. 64 makes the signature's share of one entry about 52 bytes and
/// 3 µs, while a run of small entries still fits a few packets.
pub const MAX_RUN_ENTRIES: usize = 64;

/// Largest payload of one entry in bytes: 64 KiB of content, and what a layer above writes beside it.
/// Larger items belong to a file transfer.
pub const MAX_PAYLOAD: usize = 68 * 1024;

/// Largest encoded run in bytes: three of the largest payloads, so that a slow link is never
/// blocked for long by one frame.
pub const MAX_RUN_BYTES: usize = 256 * 1024;

/// Largest frame in bytes: what the gossip stream class carries.
pub const MAX_FRAME: usize = 1024 * 1024;

/// Most topics that a peer may subscribe on one link, and most that are subscribed locally.
pub const MAX_SUBSCRIBED_TOPICS: usize = 512;

/// Most topics that are read at the start because this author published in them.
pub const MAX_OWN_TOPICS: usize = 128;

/// Most chain heads in one frame, and most chains of a topic that are compared as a list; larger
/// topics are compared by ranges.
pub const MAX_HEADS: usize = 256;

/// Most chain heads that travel with a subscription, which saves a round trip in small topics.
pub const MAX_INLINE_HEADS: usize = 16;

/// Most chain heads announced in one frame; as many make it leave at once.
pub const MAX_ANNOUNCED: usize = 64;

/// Most ranges in one frame of a range-based comparison.
pub const MAX_RANGES: usize = 256;

/// Most epochs kept of one author in one topic: of one that restarts every five minutes, all that are
/// within the retention, and those of its other classes. Those of the durable class of which something is
/// retained are not among them: they stay, bounded by the bytes of that class.
pub const MAX_EPOCHS: usize = 320;

/// Epochs of one author that do not count against [`Limits::spare_chains`].
pub const FREE_EPOCHS: usize = 4;

/// Most heads, ranges and peers in the small frames that wait for one link.
pub const MAX_CONTROL_ITEMS: usize = 4096;

/// Most links remembered as able to supply one missing range.
pub const MAX_ANNOUNCERS: usize = 8;

/// Most sessions beyond [`Limits::links`] that wait for a link to end: what a transport may carry.
pub const MAX_WAITING_LINKS: usize = 4096;

/// Bookkeeping bytes charged for each retained run, on top of its encoded bytes: the run, its places in
/// the log's indexes, and its part of what the allocator keeps.
pub const RUN_OVERHEAD: usize = 720;

// What is charged is what is taken: counters of its two shares, two allocations, and its places.
const _: () = assert!(size_of::<Run>() + 16 + 4 * 16 + TopicLog::RUN_PLACE <= RUN_OVERHEAD);

/// Bookkeeping bytes charged for each retained entry.
pub const ENTRY_OVERHEAD: usize = 64;

const _: () = assert!(size_of::<Entry>() <= ENTRY_OVERHEAD);

/// Bytes as which an entry counts at least in its author's share of a topic: what there is for each
/// when a topic is at both of its default caps.
pub(crate) const ENTRY_SHARE: u64 = 384;

/// Changes that wait for the commit under way; nothing more is signed then. Peers' runs stop sooner,
/// by [`Limits::unstored_bytes`].
pub(crate) const MAX_WAITING_CHANGES: usize = 8192;

/// Bytes that a change of a log takes while it waits for the store, beside its run.
const CHANGE_OVERHEAD: usize = 256;

/// Bytes that an author's key takes, with what is derived from it.
pub(crate) const AUTHOR_BYTES: usize = x0x_identity::PUBLIC_KEY_LEN * 3;

/// Bytes that one small entry of a table takes: a few ids and numbers.
pub(crate) const HEAD_BYTES: usize = 160;

/// Bytes that one missing range takes: announcers, floors, and its places in three indexes.
pub(crate) const MISSING_BYTES: usize = MAX_ANNOUNCERS * 64 + 16 * 64 + 6 * HEAD_BYTES;

/// How runs spread over the links of a topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Dissemination {
    /// Plumtree (Leitão et al., SRDS 2007), with a tree for each author on top of a shared one.
    #[default]
    Tree,
    /// Every link gets every run. For comparison.
    Flood,
    /// A tree that is promoted again to this many eager links each second. For comparison.
    EagerFloor(u8),
    /// A fixed set of at most this many eager links, announcements to the others. For comparison.
    Mesh(u8),
}

/// The tunable bounds. The defaults suit a daemon on a small machine.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Most topics with a log. Beyond it the oldest topic without local subscribers is dropped.
    pub topics: usize,
    /// Most local subscriptions.
    pub subscriptions: usize,
    /// Most entries retained in one topic; the oldest run is evicted, unless its author has less than
    /// an equal share: then the oldest of the author with the greatest.
    pub topic_entries: usize,
    /// Most bytes retained in one topic, treated alike.
    pub topic_bytes: usize,
    /// Most bytes retained in all topics; the largest topic is evicted from.
    pub log_bytes: usize,
    /// Bytes of the durable class in one topic, beside those two. Beyond it publishing in the class is
    /// refused; what others publish at the same time is taken up to twice as much.
    pub durable_topic_bytes: u64,
    /// Bytes of the durable class in all topics, treated alike.
    pub durable_bytes: u64,
    /// Bytes of one topic that the store has not taken yet. Beyond it publishing is busy, and what
    /// peers send is refused and asked for later.
    pub unstored_topic_bytes: u64,
    /// Bytes of all topics that the store has not taken yet, treated alike.
    pub unstored_bytes: u64,
    /// How long an entry is retained and may still arrive.
    pub retention: Duration,
    /// How far an author's clock may be ahead of ours.
    pub clock_ahead: Duration,
    /// Most authors in one topic. Beyond it the least recently active ones without retained entries
    /// become former authors, else new authors are refused.
    pub topic_authors: usize,
    /// Most authors in all topics together, treated alike.
    pub authors: usize,
    /// Most former authors in all topics together: only their heads are kept, against replays, until
    /// what they published is too old to be accepted. New authors are refused beyond it.
    pub former_authors: usize,
    /// Most chains in all topics together that are beyond the [`FREE_EPOCHS`] newest of their author.
    /// Beyond it the author's oldest one is forgotten that is not of the durable class.
    pub spare_chains: usize,
    /// Entries per second and at once of one author in one topic, over all links together. What is
    /// above it is refused and fetched later.
    pub author_rate: u64,
    /// Entries of one author in one topic at once; far fewer than a topic retains.
    pub author_burst: u64,
    /// How long a peer that was disconnected for misbehaviour gets no link.
    pub ban: Duration,
    /// Most author keys in the cache; the least recently used is evicted.
    pub keys: usize,
    /// Most links; further sessions wait for one to end, the longest waiting first.
    pub links: usize,
    /// Most links to peers that are no neighbours of the overlay but subscribe our topics. A neighbour
    /// takes the place of one when there are too many links.
    pub strangers: usize,
    /// Most of these from one network of the internet, a /24 or /48.
    pub network_strangers: usize,
    /// Most author heads remembered for one link. Beyond it they are forgotten, which costs
    /// duplicates.
    pub link_heads: usize,
    /// Most missing ranges asked for on one link at a time, most that a peer may ask for at a time,
    /// and most small frames queued for a link.
    pub link_wants: usize,
    /// Most missing ranges known at a time. Beyond it the link with most of them gives way to one with
    /// fewer; what is left out is left to reconciliation.
    pub missing: usize,
    /// Most missing ranges known at a time that one link was the first to tell of.
    pub link_missing: usize,
    /// How runs spread.
    pub dissemination: Dissemination,
    /// How many links fewer an announced copy must have crossed than the pushed one for its link to
    /// become the author's parent.
    pub hop_threshold: u32,
    /// Links beyond the first that may push one author's runs here; each costs a copy of everything.
    pub redundant_links: u8,
    /// Runs above this size in bytes are announced and pulled, never pushed.
    pub announce_above: usize,
    /// How long announcements are gathered for one frame.
    pub announce_delay: Duration,
    /// Least time between two frames of announcements on one link, unless one is full. In a steady
    /// flow the announcements would otherwise cost more packets than what they announce.
    pub announce_every: Duration,
    /// Least and most time that an announced run may take to arrive by the tree before it is asked
    /// for; between them it follows the slowest eager link.
    pub graft_after: (Duration, Duration),
    /// Least time after which the next link is asked for what the last one did not send.
    pub ask_again: Duration,
    /// How often a topic is compared with one of its links, give or take 30 %.
    pub reconcile_every: Duration,
    /// Entries per second that a link may bring in: in full runs, as costly to receive as
    /// `link_run_rate` is. What is above it is refused and asked for later;
    /// a sender keeps a little below its own limit, so that this does not happen.
    pub link_rate: u64,
    /// Entries that a link may bring in at once: twice a full topic log, so that catching up passes.
    pub link_burst: u64,
    /// Signatures per second that a link may make this node check, treated like `link_rate`. More
    /// than one publisher signs, so that a relay passes on what several do; half a core.
    pub link_run_rate: u64,
    /// Signatures that a link may make this node check at once: a second of one core.
    pub link_run_burst: u64,
    /// Signatures per second checked for all links together: three quarters of a core.
    pub check_rate: u64,
    /// Signatures checked for all links together at once.
    pub check_burst: u64,
    /// Signatures per second checked for a link when the others use up `check_rate`.
    pub link_check_rate: u64,
    /// Signatures checked for a link at once when the others use up `check_rate`.
    pub link_check_burst: u64,
    /// Most entries of one topic waiting for the signer; publishing beyond it is busy.
    pub pending_topic_entries: usize,
    /// Most entries waiting for the signer; publishing beyond it is busy.
    pub pending_entries: usize,
    /// Most payload bytes waiting for the signer; publishing beyond it is busy.
    pub pending_bytes: usize,
    /// Most topics whose own sequence is remembered. Beyond it the least recently used topic
    /// continues in a new epoch.
    pub published_topics: usize,
    /// Entries appended since a link had caught up that it may be behind on a topic before
    /// publishing to it is busy.
    pub backlog_entries: u64,
    /// The same in bytes.
    pub backlog_bytes: u64,
    /// A link that did not work off half of the backlog in this time is slow, and holds no publisher
    /// back until it has caught up.
    pub stalled_after: Duration,
    /// How long a topic's log outlives its last local subscriber.
    pub topic_grace: Duration,
    /// How long other links are asked before a gap that the sender cannot fill is accepted.
    pub gap_patience: Duration,
    /// Most equivocation proofs kept; the oldest is dropped. The author stays blocked.
    pub equivocation_proofs: usize,
    /// Batches that wait in one subscription, each of at most [`MAX_RUN_ENTRIES`] messages and about
    /// [`MAX_RUN_BYTES`] bytes.
    pub subscription_batches: usize,
    /// Bytes that wait in all subscriptions. Beyond it a subscription gets one batch at a time.
    pub waiting_bytes: u64,
    /// Most peers whose misbehaviour is remembered after their link is gone.
    pub penalties: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            topics: 1024,
            subscriptions: 512,
            topic_entries: 65_536,
            topic_bytes: 24 * 1024 * 1024,
            log_bytes: 32 * 1024 * 1024,
            durable_topic_bytes: 16 * 1024 * 1024,
            durable_bytes: 32 * 1024 * 1024,
            unstored_topic_bytes: 4 * 1024 * 1024,
            unstored_bytes: 8 * 1024 * 1024,
            retention: Duration::from_secs(24 * 60 * 60),
            clock_ahead: Duration::from_secs(5 * 60),
            topic_authors: 4096,
            authors: 8192,
            former_authors: 65_536,
            spare_chains: 65_536,
            author_rate: 128_000,
            author_burst: 16_384,
            ban: Duration::from_secs(600),
            keys: 4096,
            links: 64,
            strangers: 16,
            network_strangers: 4,
            link_heads: 4096,
            link_wants: 256,
            missing: 4096,
            link_missing: 1024,
            dissemination: Dissemination::Tree,
            hop_threshold: 2,
            redundant_links: 0,
            announce_above: 32 * 1024,
            announce_delay: Duration::from_millis(20),
            announce_every: Duration::from_millis(100),
            graft_after: (Duration::from_millis(100), Duration::from_secs(1)),
            ask_again: Duration::from_millis(100),
            reconcile_every: Duration::from_secs(30),
            link_rate: 128_000,
            link_burst: 131_072,
            link_run_rate: 8000,
            link_run_burst: 16_384,
            check_rate: 12_000,
            check_burst: 32_768,
            link_check_rate: 64,
            link_check_burst: 512,
            pending_topic_entries: 4096,
            pending_entries: 16_384,
            pending_bytes: 8 * 1024 * 1024,
            published_topics: 4096,
            backlog_entries: 16_384,
            backlog_bytes: 16 * 1024 * 1024,
            stalled_after: Duration::from_secs(5),
            topic_grace: Duration::from_secs(10),
            gap_patience: Duration::from_secs(2),
            equivocation_proofs: 16,
            subscription_batches: 16,
            waiting_bytes: 32 * 1024 * 1024,
            penalties: 1024,
        }
    }
}

impl Limits {
    /// An upper bound of the memory that peers and local clients can make this crate hold, in
    /// bytes. Dominated by batches of the largest runs in every subscription, all unread while their
    /// runs were evicted; then by the author tables, the links and the log.
    #[must_use]
    pub fn memory_bound(&self) -> usize {
        const AUTHOR: usize = AUTHOR_BYTES;
        const HEAD: usize = HEAD_BYTES;
        let proofs =
            self.equivocation_proofs * 2 * (MAX_RUN_BYTES + MAX_RUN_ENTRIES * ENTRY_OVERHEAD);
        let known = self.authors + self.former_authors;
        let chains = known * FREE_EPOCHS + self.spare_chains + self.durable_chains();
        let authors = (self.authors + self.keys) * AUTHOR
            + known * TopicLog::AUTHOR_PLACE
            + chains * TopicLog::CHAIN_PLACE;
        let link = self.link_heads * (Link::VIEW_PLACE + Link::GONE_PLACE)
            + self.keys * 100
            + self.link_wants * 2 * HEAD
            + MAX_CONTROL_ITEMS * HEAD / 2
            + (self.link_wants + MAX_ANNOUNCED) * HEAD
            + MAX_SUBSCRIBED_TOPICS * 5 * HEAD;
        let missing = self.missing * MISSING_BYTES;
        let waiting = usize::try_from(self.waiting_bytes).unwrap_or(usize::MAX)
            + self.subscriptions * (MAX_RUN_BYTES + self.subscription_batches * HEAD);
        self.log_bytes
            + 2 * usize::try_from(self.durable_bytes).unwrap_or(usize::MAX / 4)
            + waiting
            + authors
            + proofs
            + missing
            + self.storing()
            + self.links * link
            + self.links * MAX_SUBSCRIBED_TOPICS * HEAD
            + MAX_WAITING_LINKS * 2 * HEAD
            + MAX_FRAME
            + self.pending_bytes
            + self.pending_entries * ENTRY_OVERHEAD
            + self.published_topics * 2 * HEAD
            + self.penalties * 2 * HEAD
            + self.topics * 8 * HEAD
            + 512 * HEAD
    }
}

impl Limits {
    /// Most chains of the durable class: each has a signed run in the log.
    pub(crate) fn durable_chains(&self) -> usize {
        let bytes = usize::try_from(self.durable_bytes).unwrap_or(usize::MAX / 4);
        2 * bytes / (RUN_OVERHEAD + x0x_identity::SIGNATURE_LEN)
    }

    /// What a store behind the logs adds: runs on their way to it, and one topic on its way from it,
    /// of which the runs exist twice for a moment; and one that is stored again.
    fn storing(&self) -> usize {
        const CHAIN: usize = 128;
        let load = LoadLimits::from(self);
        let runs = usize::try_from(load.bytes).unwrap_or(usize::MAX).saturating_mul(3);
        let unstored = usize::try_from(self.unstored_bytes).unwrap_or(usize::MAX);
        // One run more than the limit, and those that are being committed.
        let waiting = unstored.saturating_add(MAX_RUN_BYTES).saturating_mul(2);
        waiting
            .saturating_add(2 * MAX_WAITING_CHANGES * CHANGE_OVERHEAD)
            .saturating_add(runs)
            .saturating_add(load.chains * CHAIN)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_bound_is_known() {
        let bound = Limits::default().memory_bound();
        assert!(bound < 896 * 1024 * 1024, "{bound} bytes");
    }
}
