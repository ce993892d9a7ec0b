use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// The metrics of the Redis API server. What its commands read and write is counted with the requests on keys. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct RespMetrics {
    /// Open connections.
    pub connections: Gauge,
    /// Accepted connections.
    pub accepted: Counter,
    /// Commands.
    pub commands: Counter,
    /// Bytes of large requests that are arriving or being carried out.
    pub request_bytes: Gauge,
    /// Bytes of large replies that wait for clients to read them.
    pub reply_bytes: Gauge,
}

impl RespMetrics {
    pub(super) fn register(&self, registry: &mut Registry) {
        registry.register("resp_connections", "Open connections with Redis clients", self.connections.clone());
        let help = "Accepted connections with Redis clients";
        registry.register("resp_connections_accepted", help, self.accepted.clone());
        registry.register("resp_commands", "Commands of Redis clients", self.commands.clone());
        let help = "Memory held for large commands of Redis clients that are arriving or being carried out";
        registry.register("resp_request_bytes", help, self.request_bytes.clone());
        let help = "Memory held for large replies that Redis clients have not read yet";
        registry.register("resp_reply_bytes", help, self.reply_bytes.clone());
    }
}
