use std::collections::BTreeMap;
use std::time::Duration;

use cartwheel_client::{ClusterStatus, LivenessStatus, MemberState, MemberStatus};

use super::sample::{Metrics, Sample};

/// The operations on keys, as metrics call them.
pub(super) const OPERATIONS: [&str; 3] = ["get", "put", "delete"];

/// Outcomes for which a request was not carried out, and the client is not the reason.
const FAILURES: [&str; 4] = ["unavailable", "unverified", "disk_full", "overloaded"];

/// What the screen shows: rates between two samples, and the state at the later one.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) cluster: ClusterStatus,
    /// Partitions under way to other nodes; none if the node did not say.
    pub(super) transfers: Option<usize>,
    pub(super) transfer_bytes_rate: f64,
    /// Of all nodes together, in the order of [`OPERATIONS`].
    pub(super) operations: [Operation; 3],
    pub(super) nodes: Vec<NodeFigures>,
    /// What needs an administrator.
    pub(super) alarms: Vec<String>,
}

/// Requests of one kind.
#[derive(Clone, Debug, Default)]
pub(super) struct Operation {
    pub(super) rate: f64,
    pub(super) failures: f64,
    pub(super) times: Times,
}

/// A node. Without an answer, all but its name and status is 0.
#[derive(Clone, Debug, Default)]
pub(super) struct NodeFigures {
    pub(super) name: String,
    pub(super) status: &'static str,
    pub(super) answers: bool,
    pub(super) reads: f64,
    pub(super) writes: f64,
    pub(super) failures: f64,
    pub(super) times: Times,
    /// Requests and messages in the queues of its shards, and requests under way.
    pub(super) waiting: f64,
    pub(super) under_way: f64,
    pub(super) hints: f64,
    pub(super) repairs: f64,
    pub(super) epoch: f64,
}

/// How many requests took up to how long, in seconds.
#[derive(Clone, PartialEq, Debug, Default)]
pub(super) struct Times(Vec<(f64, f64)>);

impl Figures {
    pub(super) fn between(before: &Sample, after: &Sample) -> Self {
        let took = after.at.saturating_duration_since(before.at);
        let empty = Metrics::default();
        let deltas: BTreeMap<&str, Delta<'_>> = after
            .nodes
            .iter()
            .map(|(name, now)| (name.as_str(), Delta { before: before.nodes.get(name).unwrap_or(&empty), now, took }))
            // A node of which there is no earlier sample has no rates yet.
            .map(|(name, delta)| {
                (name, if before.nodes.contains_key(name) { delta } else { Delta { before: delta.now, ..delta } })
            })
            .collect();
        let operations = OPERATIONS.map(|operation| {
            let mut all = Operation::default();
            for delta in deltas.values() {
                let of = delta.operation(operation);
                all.rate += of.rate;
                all.failures += of.failures;
                all.times.add(&of.times);
            }
            all
        });
        let mut nodes: Vec<NodeFigures> =
            after.cluster.members.iter().map(|member| node(member, deltas.get(member.member.name.as_str()))).collect();
        nodes.sort_by(|one, other| one.name.cmp(&other.name));
        let sum = |name| deltas.values().map(|delta| delta.rate(name, "")).sum();
        Self {
            cluster: after.cluster.clone(),
            transfers: after.transfers.as_ref().map(|transfers| transfers.transfers.len()),
            transfer_bytes_rate: sum("cartwheel_transfer_received_bytes_total"),
            operations,
            alarms: alarms(&after.cluster, &after.nodes),
            nodes,
        }
    }
}

fn node(member: &MemberStatus, delta: Option<&Delta<'_>>) -> NodeFigures {
    let (name, status) = (member.member.name.clone(), status(member));
    let Some(delta) = delta else { return NodeFigures { name, status, ..NodeFigures::default() } };
    let [gets, puts, deletes] = OPERATIONS.map(|operation| delta.operation(operation));
    let mut times = Times::default();
    for of in [&gets, &puts, &deletes] {
        times.add(&of.times);
    }
    let now = |name| delta.now.sum(name, "");
    NodeFigures {
        name,
        status,
        answers: true,
        reads: gets.rate,
        writes: puts.rate + deletes.rate,
        failures: gets.failures + puts.failures + deletes.failures,
        times,
        waiting: now("cartwheel_shard_inbox_waiting"),
        under_way: now("cartwheel_shard_requests_under_way"),
        hints: now("cartwheel_hints_held"),
        repairs: delta.rate("cartwheel_repairs_total", ""),
        epoch: now("cartwheel_epoch"),
    }
}

fn status(member: &MemberStatus) -> &'static str {
    match (member.state, member.liveness.as_ref().map(|liveness| liveness.status)) {
        (_, Some(LivenessStatus::Suspect)) => "suspect",
        (_, Some(LivenessStatus::Down)) => "down",
        (MemberState::Disconnected, _) => "lost",
        _ if member.leaving => "leaving",
        (MemberState::Itself, _) if member.problem.is_some() => "problem",
        _ => "alive",
    }
}

fn alarms(cluster: &ClusterStatus, nodes: &BTreeMap<String, Metrics>) -> Vec<String> {
    const GAUGES: [(&str, &str); 4] = [
        ("cartwheel_store_failed", "a store has failed"),
        ("cartwheel_disk_full", "the disk is full: it refuses writes"),
        ("cartwheel_clock_refuses_writes", "the clock is off: it refuses writes"),
        ("cartwheel_hints_full", "it can keep no more hints"),
    ];
    let mut alarms = Vec::new();
    for (name, metrics) in nodes {
        let raised = GAUGES.iter().filter(|(gauge, _)| metrics.sum(gauge, "") > 0.0);
        alarms.extend(raised.map(|(_, meaning)| format!("{name}: {meaning}")));
    }
    for member in &cluster.members {
        alarms.extend(member.problem.iter().map(|problem| format!("{}: {problem}", member.member.name)));
    }
    if cluster.replication.under_replicated > 0 {
        alarms.push(format!("{} partitions have too few homes", cluster.replication.under_replicated));
    }
    alarms
}

/// Two samples of one node.
#[derive(Clone, Copy)]
struct Delta<'a> {
    before: &'a Metrics,
    now: &'a Metrics,
    took: Duration,
}

impl Delta<'_> {
    /// How fast a counter grew, in 1/s. After a restart of the node it is what it has counted since.
    fn rate(&self, name: &str, with: &str) -> f64 {
        let (before, now) = (self.before.sum(name, with), self.now.sum(name, with));
        let grown = if now < before { now } else { now - before };
        grown / self.took.as_secs_f64().max(1e-3)
    }

    fn operation(&self, operation: &str) -> Operation {
        let label = format!("operation=\"{operation}\"");
        let failed = |outcome: &str| format!("{label},outcome=\"{outcome}\"");
        let requests = "cartwheel_requests_total";
        let failures = FAILURES.iter().map(|outcome| self.rate(requests, &failed(outcome))).sum();
        Operation { rate: self.rate(requests, &label), failures, times: self.times(&label) }
    }

    /// The times of the requests with this label between the samples.
    fn times(&self, label: &str) -> Times {
        let name = "cartwheel_request_duration_seconds_bucket";
        let buckets = |metrics: &Metrics| -> BTreeMap<u64, f64> {
            let of_label = metrics.labelled(name).filter(|(labels, _)| labels.contains(label));
            of_label.filter_map(|(labels, count)| Some((bound(labels)?.to_bits(), count))).collect()
        };
        let (before, now) = (buckets(self.before), buckets(self.now));
        // The bits of positive numbers are in their order.
        let grown = now.into_iter().map(|(bound, count)| (bound, count - before.get(&bound).copied().unwrap_or(0.0)));
        let grown: Vec<(f64, f64)> = grown.map(|(bound, count)| (f64::from_bits(bound), count)).collect();
        Times(if grown.iter().any(|(_, count)| *count < 0.0) { Vec::new() } else { grown })
    }
}

fn bound(labels: &str) -> Option<f64> {
    let bound = labels.split_once("le=\"")?.1.split('"').next()?;
    if bound == "+Inf" { Some(f64::INFINITY) } else { bound.parse().ok() }
}

impl Times {
    fn add(&mut self, others: &Self) {
        if self.0.is_empty() {
            self.0.clone_from(&others.0);
            return;
        }
        for ((_, count), (_, more)) in self.0.iter_mut().zip(&others.0) {
            *count += more;
        }
    }

    /// The time in seconds that this share of the requests did not exceed, interpolated within a bucket; none without requests.
    pub(super) fn percentile(&self, share: f64) -> Option<f64> {
        let all = self.0.last().map(|&(_, count)| count).filter(|&count| count > 0.0)?;
        let wanted = share * all;
        let (mut low, mut below) = (0.0, 0.0);
        for &(bound, count) in &self.0 {
            if count >= wanted {
                if bound.is_infinite() {
                    return Some(low);
                }
                return Some(low + (bound - low) * (wanted - below) / (count - below).max(f64::MIN_POSITIVE));
            }
            (low, below) = (bound, count);
        }
        Some(low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_lies_within_its_bucket() {
        let times = Times(vec![(0.001, 50.0), (0.002, 90.0), (0.004, 100.0), (f64::INFINITY, 100.0)]);
        assert_eq!(times.percentile(0.5), Some(0.001));
        assert_eq!(times.percentile(0.25), Some(0.0005));
        assert_eq!(times.percentile(0.7), Some(0.0015));
        assert_eq!(times.percentile(1.0), Some(0.004));
        assert_eq!(Times::default().percentile(0.5), None);
        let slowest = Times(vec![(0.001, 0.0), (f64::INFINITY, 3.0)]);
        assert_eq!(slowest.percentile(0.99), Some(0.001), "all that is known is that it took longer");
    }

    #[test]
    fn rates_are_of_what_came_between_the_samples_and_survive_a_restart() {
        let text = |gets: u32, slow: u32| {
            Metrics::parse(&format!(
                "# HELP cartwheel_requests Requests.\ncartwheel_requests_total{{operation=\"get\",outcome=\"ok\"}} {gets}\n\
                 cartwheel_requests_total{{operation=\"get\",outcome=\"unavailable\"}} 4\n\
                 cartwheel_request_duration_seconds_bucket{{le=\"0.001\",operation=\"get\"}} {gets}\n\
                 cartwheel_request_duration_seconds_bucket{{le=\"+Inf\",operation=\"get\"}} {slow}\n"
            ))
        };
        let (before, now) = (text(100, 100), text(300, 300));
        let took = Duration::from_secs(2);
        let get = Delta { before: &before, now: &now, took }.operation("get");
        assert_eq!((get.rate, get.failures, get.times.percentile(0.5)), (100.0, 0.0, Some(0.0005)));
        let put = Delta { before: &before, now: &now, took }.operation("put");
        assert_eq!((put.rate, put.times.percentile(0.5)), (0.0, None));
        let restarted = Delta { before: &now, now: &before, took }.operation("get");
        assert_eq!((restarted.rate, restarted.times), (52.0, Times::default()));
    }
}
