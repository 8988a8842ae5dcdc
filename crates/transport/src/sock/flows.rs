//! The flows that are open, for whoever takes packets off the socket: what belongs to none of them, or was not made
//! by whoever shares its keys, costs nothing further.

use std::{
    collections::{HashMap, hash_map::Entry},
    sync::{Arc, OnceLock, PoisonError, RwLock},
};

use super::{
    packet::{FlowId, FlowKeys, ProbeIn},
    prober::{MAX_FLOWS, ProbeMetrics},
};

/// Keys of the open flows, at most [`MAX_FLOWS`].
#[derive(Debug, Default)]
pub struct KnownFlows {
    keys: RwLock<HashMap<FlowId, FlowKeys>>,
    metrics: OnceLock<Arc<ProbeMetrics>>,
}

impl KnownFlows {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts here what is refused. Only the first call counts.
    pub fn count(&self, metrics: Arc<ProbeMetrics>) {
        let _ = self.metrics.set(metrics);
    }

    /// Packets of this flow are let through from now on.
    pub fn open(&self, keys: FlowKeys) {
        let mut all = self.keys.write().unwrap_or_else(PoisonError::into_inner);
        if all.len() < MAX_FLOWS
            && let Entry::Vacant(free) = all.entry(keys.flow())
        {
            free.insert(keys);
        }
    }

    /// The flow is over.
    pub fn close(&self, flow: FlowId) {
        self.keys.write().unwrap_or_else(PoisonError::into_inner).remove(&flow);
    }

    /// Whether whoever shares the keys of an open flow made the packet.
    #[must_use]
    pub fn admits(&self, packet: &ProbeIn) -> bool {
        let all = self.keys.read().unwrap_or_else(PoisonError::into_inner);
        let keys = all.get(&packet.flow());
        let made = keys.is_some_and(|keys| packet.verify(keys).is_some());
        if let Some(metrics) = self.metrics.get().filter(|_| !made) {
            metrics.received.inc();
            match keys {
                Some(_) => metrics.refused_forged.inc(),
                None => metrics.refused_unknown_flow.inc(),
            }
        }
        made
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sock::packet::{FLOW_SECRET_LEN, Probe, Step};

    fn keys(n: u32) -> [FlowKeys; 2] {
        let mut secret = std::array::from_fn::<u8, FLOW_SECRET_LEN, _>(|at| at as u8);
        secret[..4].copy_from_slice(&n.to_be_bytes());
        [FlowKeys::new(&secret, true), FlowKeys::new(&secret, false)]
    }

    fn packet(keys: &FlowKeys) -> ProbeIn {
        let to = "192.0.2.1:9".parse().expect("an address");
        ProbeIn::decode(&Probe::new(Step::Probe, 0, 1, to).encode(keys)).expect("a probe")
    }

    #[test]
    fn what_is_of_no_open_flow_or_forged_is_counted_and_kept_out() {
        let flows = KnownFlows::new();
        let metrics = Arc::new(ProbeMetrics::default());
        flows.count(metrics.clone());
        let [near, far] = keys(1);
        assert!(!flows.admits(&packet(&far)), "not open yet");
        flows.open(near.clone());
        assert!(flows.admits(&packet(&far)));
        assert!(!flows.admits(&packet(&near)), "thrown back");
        flows.close(near.flow());
        assert!(!flows.admits(&packet(&far)), "over");
        let counted = [&metrics.refused_unknown_flow, &metrics.refused_forged, &metrics.received];
        assert_eq!(counted.map(|counter| counter.value()), [2, 1, 3]);
        for n in 0..MAX_FLOWS as u32 + 5 {
            flows.open(keys(n)[0].clone());
        }
        assert_eq!(flows.keys.read().expect("no panic").len(), MAX_FLOWS);
    }
}
