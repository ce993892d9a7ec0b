//! The growth of the nodes' byte counters during a change of the members. Nodes that die start again at zero, and the meter accounts for that.

use std::collections::BTreeMap;

/// The counter of bytes of records received by bulk transfers.
pub const TRANSFERRED: &str = "cartwheel_transfer_received_bytes_total";
/// The counter of bytes of messages that compare replicas and make them equal.
pub const COMPARED: &str = "cartwheel_exchange_sent_bytes_total";

/// Follows counters of several nodes. It misses what a node counts between its last report and its death.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Meter {
    counters: BTreeMap<(usize, &'static str), Counter>,
    is_running: bool,
}

#[derive(Clone, Copy, PartialEq, Debug)]
struct Counter {
    last: f64,
    grown: f64,
}

impl Meter {
    /// Counts all growth from now on.
    pub const fn begin(&mut self) {
        self.is_running = true;
    }

    /// Updates the counters from a node's metrics.
    pub fn record(&mut self, node: usize, metrics: &str) {
        for name in [TRANSFERRED, COMPARED] {
            let Some(now) = sum_of(metrics, name) else { continue };
            // A new node has counted from zero.
            let new = Counter { last: if self.is_running { 0.0 } else { now }, grown: 0.0 };
            let counter = self.counters.entry((node, name)).or_insert(new);
            if self.is_running {
                // So has a restarted one.
                counter.grown += if now < counter.last { now } else { now - counter.last };
            }
            counter.last = now;
        }
    }

    /// The growth of a counter on all nodes together; `None` if no node has it.
    pub fn grown(&self, name: &str) -> Option<u64> {
        let of_all = self.counters.iter().filter(|((_, of), _)| *of == name).map(|(_, counter)| counter.grown);
        of_all.reduce(|a, b| a + b).map(|bytes| bytes as u64)
    }
}

/// The sum of a counter over all its labels; `None` if it is not there.
fn sum_of(metrics: &str, name: &str) -> Option<f64> {
    let value = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let rest = match rest.strip_prefix('{') {
            Some(labelled) => labelled.rsplit_once('}')?.1,
            None => rest,
        };
        rest.strip_prefix(' ')?.trim().parse::<f64>().ok()
    };
    metrics.lines().filter_map(value).reduce(|a, b| a + b)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "HTTP/1.1 200 OK\r\n\r\n# TYPE cartwheel_exchange_sent_bytes counter\n\
        cartwheel_exchange_sent_bytes_total{peer=\"node-1\"} 5\ncartwheel_exchange_sent_bytes_total{peer=\"a} b\"} 7\n\
        cartwheel_exchange_sent_bytes_total_more 9\ncartwheel_epoch 3\n";

    #[test]
    fn a_counter_is_summed_over_its_labels() {
        assert_eq!(sum_of(TEXT, COMPARED), Some(12.0));
        assert_eq!(sum_of(TEXT, "cartwheel_epoch"), Some(3.0));
        assert_eq!(sum_of(TEXT, TRANSFERRED), None);
    }

    #[test]
    fn counts_before_a_restart_are_kept() {
        let record = |meter: &mut Meter, node, value: u64| meter.record(node, &format!("{COMPARED} {value}\n"));
        let mut meter = Meter::default();
        record(&mut meter, 0, 100);
        meter.begin();
        assert_eq!((meter.grown(COMPARED), meter.grown(TRANSFERRED)), (Some(0), None));
        record(&mut meter, 0, 130);
        record(&mut meter, 0, 10);
        record(&mut meter, 1, 4);
        assert_eq!(meter.grown(COMPARED), Some(30 + 10 + 4));
    }
}
