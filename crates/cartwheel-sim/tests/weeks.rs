//! Two weeks and more of simulated time, a day in each run: nodes are away for hours while hints wait for them, messages are late by
//! hours, and what was deleted stays deleted.

use std::time::Duration;

use cartwheel_sim::run::{Settings, run};

const SEEDS: std::ops::RangeInclusive<u64> = 1..=18;
const TWO_WEEKS: Duration = Duration::from_secs(14 * 24 * 60 * 60);

#[test]
fn deletes_stay_deleted_for_weeks() {
    let settings = Settings { takes_a_day: true, ..Settings::default() };
    let simulated = SEEDS.map(|seed| {
        let report = run(seed, settings);
        if report.failure.is_some() {
            panic!("{}", cartwheel_sim::report::describe(&report, settings, " --day"));
        }
        Duration::from_micros(report.stats.simulated_us)
    });
    let simulated: Duration = simulated.sum();
    assert!(simulated >= TWO_WEEKS, "only {} hours were simulated", simulated.as_secs() / 3600);
}
