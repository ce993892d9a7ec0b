use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;

/// The metrics of logins. Clones count together.
#[derive(Clone, Debug, Default)]
pub struct AccessMetrics {
    /// Logins with a wrong name, password or token.
    pub(super) wrong: Counter,
    /// Logins that were refused because too many failed or were being checked.
    pub(super) throttled: Counter,
    /// Lines of the audit log that could not be written.
    pub(super) unwritten: Counter,
}

impl AccessMetrics {
    /// Registers them.
    pub fn register(&self, registry: &mut Registry) {
        registry.register("logins_failed", "Logins with a wrong name, password or token", self.wrong.clone());
        let help = "Logins refused because too many failed or were being checked";
        registry.register("logins_throttled", help, self.throttled.clone());
        let help = "Administrative acts that could not be written to the audit log";
        registry.register("audit_lines_lost", help, self.unwritten.clone());
    }
}
