//! A port of the gateway for this machine.

use std::sync::Arc;

use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use x0x_core::Clock;
use x0x_transport::{
    Node, Transport,
    interfaces::NetworkWatch,
    portmap::{PortMapConfig, PortMapMetrics, SystemGateways, run},
};

/// Asks gateways until the agent stops, and tells the node what they grant.
pub(crate) fn start(
    node: &Arc<Node>,
    metrics: &Arc<PortMapMetrics>,
    network: NetworkWatch,
    clock: &Arc<dyn Clock>,
    stop: &CancellationToken,
) -> Option<JoinHandle<()>> {
    let port = node.local_addresses().first()?.port();
    let mut config = PortMapConfig::new(port);
    config.metrics = Arc::clone(metrics);
    let node = Arc::clone(node);
    let mapping =
        run(config, SystemGateways, network, Arc::clone(clock), stop.clone(), move |lease| {
            match lease {
                Some(lease) => tracing::debug!(?lease, "the gateway leads here"),
                None => tracing::debug!("the gateway does not lead here any more"),
            }
            node.set_mapped(lease.map(|lease| lease.external));
        });
    Some(tokio::spawn(mapping))
}
