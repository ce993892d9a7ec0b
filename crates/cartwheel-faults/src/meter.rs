//! What the nodes' metrics say of the bytes that a change of the members moves, though nodes die meanwhile and count from zero again.

use std::collections::BTreeMap;

/// Bytes of records that nodes were handed in bulk.
pub const TRANSFERRED: &str = "cartwheel_transfer_received_bytes_total";
/// Bytes of messages that nodes sent to compare replicas and to make them equal.
pub const COMPARED: &str = "cartwheel_exchange_sent_bytes_total";

/// Follows counters of several nodes. What a node counts between the last look and its death is missed.
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
    /// From now on what the counters grow by is added up.
    pub const fn begin(&mut self) {
        self.is_running = true;
    }

    /// Takes in what a node says.
    pub fn look(&mut self, node: usize, metrics: &str) {
        for name in [TRANSFERRED, COMPARED] {
            let Some(now) = sum_of(metrics, name) else { continue };
            // A node that is new has counted from zero.
            let new = Counter { last: if self.is_running { 0.0 } else { now }, grown: 0.0 };
            let counter = self.counters.entry((node, name)).or_insert(new);
            if self.is_running {
                // So has one that was started again.
                counter.grown += if now < counter.last { now } else { now - counter.last };
            }
            counter.last = now;
        }
    }

    /// By how much a counter has grown on all nodes together; none if no node has it.
    pub fn grown(&self, name: &str) -> Option<u64> {
        let of_all = self.counters.iter().filter(|((_, of), _)| *of == name).map(|(_, counter)| counter.grown);
        of_all.reduce(|a, b| a + b).map(|bytes| bytes as u64)
    }
}

/// The sum of a counter over all its labels; none if it is not there.
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
    fn what_a_node_counted_before_it_died_is_not_forgotten() {
        let says = |meter: &mut Meter, node, value: u64| meter.look(node, &format!("{COMPARED} {value}\n"));
        let mut meter = Meter::default();
        says(&mut meter, 0, 100);
        meter.begin();
        assert_eq!((meter.grown(COMPARED), meter.grown(TRANSFERRED)), (Some(0), None));
        says(&mut meter, 0, 130);
        says(&mut meter, 0, 10);
        says(&mut meter, 1, 4);
        assert_eq!(meter.grown(COMPARED), Some(30 + 10 + 4));
    }
}
