//! The results, beside the paper's.

use cartwheel_sim::placement::imbalance::{self, ImbalancePoint};
use hdrhistogram::Histogram;
use serde::Serialize;

use super::args::PaperArgs;
use super::published;
use crate::commands::bench::keys::Keys;
use crate::commands::bench::stats::{Stats, median};
use crate::terminal::table::table_of_numbers;

/// The results. `--json` writes the fields, which are stable: fields may be added but not removed.
#[derive(Debug, Serialize)]
pub(super) struct PaperReport {
    nodes: u16,
    keys: u64,
    value_bytes: u32,
    /// Operations per second at the peak.
    rate: u32,
    connections: u32,
    seconds: u64,
    rounds: u32,
    window_seconds: u64,
    pub(super) table_2: Option<Vec<Coordination>>,
    /// Figures 4 and 5.
    pub(super) windows: Option<Vec<Window>>,
    pub(super) figure_6: Option<Vec<ImbalancePoint>>,
    /// Section 6.3.
    pub(super) versions: Option<Vec<VersionCounts>>,
}

/// The latencies with one kind of coordination: medians over the rounds.
#[derive(Debug, Serialize)]
pub(super) struct Coordination {
    name: &'static str,
    read: MeanAndTail,
    write: MeanAndTail,
    failed: u64,
}

/// The latencies in one window of time.
#[derive(Debug, Serialize)]
pub(super) struct Window {
    pub(super) number: u32,
    /// Operations per second.
    pub(super) rate: u32,
    pub(super) fsync_read: MeanAndTail,
    pub(super) fsync_write: MeanAndTail,
    pub(super) os_write: MeanAndTail,
    failed: u64,
}

/// Latencies in microseconds.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub(super) struct MeanAndTail {
    pub(super) mean_us: f64,
    pub(super) p999_us: f64,
}

/// The versions that reads returned.
#[derive(Debug, Serialize)]
pub(super) struct VersionCounts {
    situation: &'static str,
    key_choice: &'static str,
    /// Reads that returned one, two, three, and four or more versions.
    reads: [u64; 4],
    failed: u64,
}

impl Coordination {
    pub(super) fn new(name: &'static str, rounds: &[Stats]) -> Self {
        let of = |histogram: fn(&Stats) -> &Histogram<u64>| {
            let each: Vec<MeanAndTail> = rounds.iter().map(|stats| MeanAndTail::of(histogram(stats))).collect();
            let middle =
                |figure: fn(&MeanAndTail) -> f64| median(each.iter().map(figure).collect()).unwrap_or_default();
            MeanAndTail { mean_us: middle(|it| it.mean_us), p999_us: middle(|it| it.p999_us) }
        };
        let failed = rounds.iter().map(Stats::failed).sum();
        Self { name, read: of(|stats| &stats.reads), write: of(|stats| &stats.writes), failed }
    }
}

impl Window {
    pub(super) fn new(number: u32, rate: u32, fsync: &Stats, os: &Stats) -> Self {
        Self {
            number,
            rate,
            fsync_read: MeanAndTail::of(&fsync.reads),
            fsync_write: MeanAndTail::of(&fsync.writes),
            os_write: MeanAndTail::of(&os.writes),
            failed: fsync.failed() + os.failed(),
        }
    }
}

impl MeanAndTail {
    fn of(histogram: &Histogram<u64>) -> Self {
        Self { mean_us: histogram.mean(), p999_us: histogram.value_at_quantile(0.999) as f64 }
    }
}

impl VersionCounts {
    pub(super) fn new(situation: &'static str, keys: Keys, stats: &Stats) -> Self {
        let several = |least: u64, most: u64| stats.gets_by_siblings.range(least..=most).map(|(_, count)| count).sum();
        // A write reads first.
        let one = stats.ops().saturating_sub(stats.not_found + stats.gets_with_siblings);
        let reads = [one, several(2, 2), several(3, 3), several(4, u64::MAX)];
        Self { situation, key_choice: keys.name(), reads, failed: stats.failed() }
    }

    fn row(&self) -> [String; 6] {
        let all = self.reads.iter().sum::<u64>();
        let [one, two, three, more] = self.reads.map(|count| percent(100.0 * count as f64 / all.max(1) as f64));
        [format!("{}, {} keys", self.situation, self.key_choice), all.to_string(), one, two, three, more]
    }
}

impl PaperReport {
    pub(super) fn new(args: &PaperArgs) -> Self {
        Self {
            nodes: args.nodes,
            keys: args.keys,
            value_bytes: args.value_size,
            rate: args.rate,
            connections: args.connections,
            seconds: args.seconds,
            rounds: args.rounds,
            window_seconds: args.window_seconds,
            table_2: None,
            windows: None,
            figure_6: None,
            versions: None,
        }
    }

    pub(super) fn text(&self) -> String {
        let parts = [
            self.table_2.as_deref().map(|rows| self.table_2_text(rows)),
            self.windows.as_deref().map(windows_text),
            self.figure_6.as_deref().map(figure_6_text),
            self.versions.as_deref().map(versions_text),
        ];
        let failed = self.failed();
        let mut text = parts.into_iter().flatten().collect::<Vec<_>>().join("\n");
        if failed > 0 {
            text.push_str(&format!("\n{failed} operations failed and are in no latency\n"));
        }
        text
    }

    fn failed(&self) -> u64 {
        let of_table = self.table_2.iter().flatten().map(|row| row.failed);
        let of_windows = self.windows.iter().flatten().map(|window| window.failed);
        of_table.chain(of_windows).chain(self.versions.iter().flatten().map(|row| row.failed)).sum()
    }

    fn table_2_text(&self, rows: &[Coordination]) -> String {
        let Self { nodes, keys, value_bytes, rate, rounds, seconds, .. } = self;
        let measured = rows.iter().map(|Coordination { name, read, write, .. }| {
            let figures = [read.p999_us, write.p999_us, read.mean_us, write.mean_us];
            row((*name).to_owned(), figures.map(ms))
        });
        let names = ["the paper, server-driven", "the paper, client-driven"];
        let paper = names
            .into_iter()
            .zip(published::TABLE_2)
            .map(|(name, row_ms)| row(name.to_owned(), row_ms.map(|ms| ms.to_string())));
        let header = ["COORDINATION, MS", "READ P99.9", "WRITE P99.9", "READ MEAN", "WRITE MEAN"];
        format!(
            "Table 2: server-driven and client-driven coordination; {rate} operations/s, half of them reads, {nodes} nodes, {keys} keys\n\
             zipfian, {value_bytes} bytes, fsync; medians of {rounds} rounds of {seconds} s\n\n{}",
            table_of_numbers(header, measured.chain(paper))
        )
    }
}

fn row<const N: usize, const M: usize>(name: String, cells: [String; N]) -> [String; M] {
    let mut all = std::iter::once(name).chain(cells);
    std::array::from_fn(|_| all.next().unwrap_or_default())
}

fn windows_text(windows: &[Window]) -> String {
    let rows = windows.iter().map(|window| {
        let Window { number, rate, fsync_read, fsync_write, os_write, .. } = window;
        let figures = [
            fsync_read.mean_us,
            fsync_read.p999_us,
            fsync_write.mean_us,
            fsync_write.p999_us,
            os_write.mean_us,
            os_write.p999_us,
        ];
        let [a, b, c, d, e, f] = figures.map(ms);
        [(number + 1).to_string(), rate.to_string(), a, b, c, d, e, f]
    });
    let header =
        ["WINDOW", "OPS/S", "READ MEAN", "READ P99.9", "WRITE MEAN", "WRITE P99.9", "OS WRITE MEAN", "OS WRITE P99.9"];
    let of = |figure: fn(&Window) -> f64| median(windows.iter().map(figure).collect()).unwrap_or_default();
    let (read, write) = (of(|it| it.fsync_read.p999_us), of(|it| it.fsync_write.p999_us));
    let (read_mean, write_mean) = (of(|it| it.fsync_read.mean_us), of(|it| it.fsync_write.mean_us));
    let os = of(|it| it.os_write.p999_us);
    let times = |a: f64, b: f64| if b > 0.0 { a / b } else { 0.0 };
    format!(
        "Figures 4 and 5: latencies in ms as the load rises and falls, with fsync, and of writes with os\n\n{}\n\
         figure 4, medians of the windows: 99.9th percentile of reads {} ms, {:.0} times the mean; of writes {} ms, {:.0} times\n\
         the paper: {}\n\
         figure 5: 99.9th percentile of writes with fsync {} ms, with os {} ms: {:.1} times lower\n\
         the paper: {}\n",
        table_of_numbers(header, rows),
        ms(read),
        times(read, read_mean),
        ms(write),
        times(write, write_mean),
        published::FIGURE_4,
        ms(write),
        ms(os),
        times(write, os),
        published::FIGURE_5,
    )
}

fn figure_6_text(points: &[ImbalancePoint]) -> String {
    let share = |share: Option<f64>| share.map_or("-".to_owned(), |share| format!("{:.1}%", share * 100.0));
    let [low, high] = published::FIGURE_6;
    let row = |point: &ImbalancePoint| {
        let [one, two, three] = point.out_of_balance.map(share);
        let paper = match point.load_eighths {
            eighths if eighths == *imbalance::LEVELS.start() => share(Some(low)),
            eighths if eighths == *imbalance::LEVELS.end() => share(Some(high)),
            _ => String::new(),
        };
        [format!("{}/8", point.load_eighths), one, two, three, paper]
    };
    format!(
        "Figure 6: nodes whose load is more than {:.0}% off the mean, of {} simulated nodes, by load; Cartwheel places by strategy 3\n\n{}",
        imbalance::THRESHOLD * 100.0,
        super::FIGURE_6.nodes,
        table_of_numbers(["LOAD", "STRATEGY 1", "STRATEGY 2", "STRATEGY 3", "THE PAPER"], points.iter().map(row))
    )
}

fn versions_text(rows: &[VersionCounts]) -> String {
    let [one, two, three, more] = published::VERSIONS_PERCENT.map(percent);
    let paper = ["the paper, 24 hours".to_owned(), "-".to_owned(), one, two, three, more];
    let header = ["SITUATION", "READS", "1 VERSION", "2", "3", "4 OR MORE"];
    format!(
        "Section 6.3: versions that a read returns; half of the operations are reads, half reads and writes with their context\n\n{}",
        table_of_numbers(header, rows.iter().map(VersionCounts::row).chain([paper]))
    )
}

fn ms(us: f64) -> String {
    format!("{:.2}", us / 1e3)
}

/// A percentage with as many digits as the paper has for the rarest case.
fn percent(percent: f64) -> String {
    format!("{percent:.5}%")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::commands::bench::stats::{Kind, Recorder};

    #[test]
    fn versions_are_counted_over_all_reads() {
        let recorder = Recorder::new().unwrap();
        recorder.begin();
        for siblings in [1, 1, 1, 2, 2, 3, 4, 9, 1, 1] {
            recorder.record_success(Kind::Read, Duration::from_millis(1));
            recorder.record_get(siblings);
        }
        let counts = VersionCounts::new("calm", Keys::Uniform(1), &recorder.stats());
        assert_eq!(counts.reads, [5, 2, 1, 2]);
        let [_, all, one, ..] = counts.row();
        assert_eq!((all.as_str(), one.as_str()), ("10", "50.00000%"));
    }

    #[test]
    fn every_part_stands_beside_the_paper() {
        let recorder = Recorder::new().unwrap();
        recorder.begin();
        recorder.record_success(Kind::Write, Duration::from_millis(8));
        let stats = recorder.stats();
        let window = Window::new(0, 100, &stats, &stats);
        let text = windows_text(&[window]);
        assert!(text.contains("1 ") && text.contains("8.00") && text.contains("the paper: "), "{text}");
        let text = versions_text(&[]);
        assert!(text.contains("99.94000%") && text.contains("0.00009%"), "{text}");
        let point =
            ImbalancePoint { load_eighths: 1, requests: 1, keys: 1, out_of_balance: [None, Some(0.3), Some(0.1)] };
        let text = figure_6_text(&[point]);
        assert!(text.contains("30.0%") && text.contains("20.0%"), "{text}");
    }
}
