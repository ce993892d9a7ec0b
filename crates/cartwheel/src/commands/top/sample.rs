use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cartwheel_client::{ClusterStatus, Error, Transfers};
use futures_util::future::{join, join_all};

use crate::cli::Endpoints;

/// What the nodes said at one time.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    pub(super) at: Instant,
    /// The cluster, as one node sees it.
    pub(super) cluster: ClusterStatus,
    /// Transfers, as the same node sees them.
    pub(super) transfers: Option<Transfers>,
    /// The metrics of each member that answered, by its name.
    pub(super) nodes: BTreeMap<String, Metrics>,
}

/// The samples of a node's metrics, by name and labels.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Metrics(BTreeMap<String, f64>);

impl Sample {
    /// Asks all nodes. Those that do not answer in time are left out.
    ///
    /// # Errors
    /// If no node could answer for the cluster.
    pub(super) async fn take(endpoints: &Endpoints, within: Duration) -> Result<Self, Error> {
        let within = within.clamp(Duration::from_millis(500), Duration::from_secs(5));
        let client = endpoints.client()?.with_timeout(within);
        let cluster = client.cluster().await?;
        let metrics = |name: &str, http: &str| {
            let (name, client) = (name.to_owned(), endpoints.client_of([http]));
            async move {
                let text = client.ok()?.with_timeout(within).metrics().await.ok()?;
                Some((name, Metrics::parse(&text)))
            }
        };
        let of_members = cluster.members.iter().map(|member| metrics(&member.member.name, &member.member.http));
        let (transfers, nodes) = join(client.transfers(), join_all(of_members)).await;
        let nodes = nodes.into_iter().flatten().collect();
        Ok(Self { at: Instant::now(), transfers: transfers.ok(), cluster, nodes })
    }
}

impl Metrics {
    /// Parses the text that a node serves. Lines that it does not know are left out.
    pub(super) fn parse(text: &str) -> Self {
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let sample = |line: &str| {
            let (name, value) = line.rsplit_once(' ')?;
            Some((name.to_owned(), value.parse().ok()?))
        };
        Self(lines.filter_map(sample).collect())
    }

    /// The sum of the metric over all its labels, but those that do not have `with` in them.
    pub(super) fn sum(&self, name: &str, with: &str) -> f64 {
        self.labelled(name).filter(|(labels, _)| labels.contains(with)).map(|(_, value)| value).sum()
    }

    /// The metric with each set of labels.
    pub(super) fn labelled<'a>(&'a self, name: &'a str) -> impl Iterator<Item = (&'a str, f64)> {
        let samples = self.0.range(name.to_owned()..).take_while(move |(sample, _)| sample.starts_with(name));
        samples.filter_map(move |(sample, &value)| {
            let labels = &sample[name.len()..];
            (labels.is_empty() || labels.starts_with('{')).then_some((labels, value))
        })
    }
}
