//! The settings of a running node, for support. No setting is shown unless it is named here, so that none that holds a secret is shown by mistake.

use super::Config;

impl Config {
    /// The settings in force, by name. Of TLS it shows only whether it is used.
    pub(crate) fn in_force(&self) -> Vec<(&'static str, String)> {
        let address = |address: &Option<super::ListenAddr>| {
            address.as_ref().map_or_else(|| "as in the cluster".to_owned(), ToString::to_string)
        };
        vec![
            ("dir", self.dir.display().to_string()),
            ("http_listen", address(&self.http_listen)),
            ("resp_listen", address(&self.resp_listen)),
            ("peer_listen", address(&self.peer_listen)),
            ("admin_listen", self.admin_listen.as_ref().map_or_else(|| "none".to_owned(), ToString::to_string)),
            ("insecure", self.insecure.to_string()),
            ("tls", if self.tls.is_some() { "on" } else { "off" }.to_owned()),
            ("users", if self.access.requires_users() { "require" } else { "auto" }.to_owned()),
            ("core_dumps", self.access.core_dumps.to_string()),
            ("trace_sample", self.trace_sample.to_string()),
            ("slow_request", format!("{:?}", self.slow_request)),
            ("durability", format!("{:?}", self.durability).to_lowercase()),
            ("cache_size", self.cache_bytes.to_string()),
            ("disk_reserve", self.disk_reserve_bytes.to_string()),
            ("hints_share", self.hints_share.to_string()),
            ("exchange_every", format!("{:?}", self.exchange_every)),
            ("background_p99_target", format!("{:?}", self.background_p99_target)),
            ("log_level", self.log_level.to_string()),
            ("log_format", format!("{:?}", self.log_format).to_lowercase()),
        ]
    }
}
