//! More than two weeks of simulated time, about a day in each run: nodes are away for hours while hints wait for them, messages are late by hours,
//! and deleted values stay deleted.

use std::time::Duration;

use cartwheel_sim::run::{RunSettings, run};

use crate::cores::on_all_cores;

const SEEDS: std::ops::RangeInclusive<u64> = 1..=18;
const TWO_WEEKS: Duration = Duration::from_secs(14 * 24 * 60 * 60);

#[test]
fn deletes_stay_deleted_for_weeks() {
    let settings = RunSettings { takes_a_day: true, ..RunSettings::default() };
    let simulated = on_all_cores(SEEDS, |seed| {
        let report = run(seed, settings);
        if report.failure.is_some() {
            panic!("{}", cartwheel_sim::report::describe(&report, settings, " --day"));
        }
        Duration::from_micros(report.stats.simulated_us)
    });
    let simulated: Duration = simulated.into_iter().sum();
    assert!(simulated >= TWO_WEEKS, "only {} hours were simulated", simulated.as_secs() / 3600);
}
