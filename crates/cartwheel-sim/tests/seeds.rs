//! The simulator tests itself, then the core.

use cartwheel_sim::run::{Settings, run};

/// Seeds of fresh runs.
const SEEDS: std::ops::RangeInclusive<u64> = 1..=300;

/// Seeds that once failed, and what was wrong with the protocol then.
const ONCE_FAILED: [(u64, &str); 42] = [
    (655, "last write wins: two retried writes took each other along"),
    (1671, "last write wins: a late try of a replaced write"),
    (1745, "a late try of a delete deleted what came after it"),
    (1850, "a coordinator that was overloaded when asked twice spoke for the first time"),
    (3518, "the oracle: a try that nobody was told of replaced a write, and was replaced by who had seen another try"),
    (3284, "a coordinator's refusal spoke for another that had the write"),
    (4555, "last write wins: a late try replaced what it knew nothing of"),
    (5823, "last write wins: tries of strong puts"),
    (6212, "a loss was healed by what was read before it"),
    (6655, "a loss was healed by what was read before it"),
    (11_838, "epochs: the floor of a new incarnation counted as an epoch that it had finished"),
    (13_963, "a loss was healed by what was read before it"),
    (14_478, "last write wins: tries of strong puts"),
    (17_792, "a loss was healed by what was read before it"),
    (102_797, "last write wins: strong and eventual puts of one key"),
    (997, "membership: a node that only a dead one had let in was heard by nobody"),
    (9_587, "reconfiguration: a node was to be a home in two incarnations at once"),
    (21_826, "membership: where all were removed nobody saw off those who may go"),
    (22_487, "a strong write was acknowledged by a coordinator that was a home no more"),
    (64_757, "hints were counted while a write of one ended"),
    (109_651, "a power failure took back what was older than the epochs that were finished since"),
    (126_668, "a session that was old was answered by a stand-in alone"),
    (2_418, "reconfiguration: where the only home of a small bucket's keys was lost the partition got no other homes"),
    (2_998, "reconfiguration: a partition was made anew of a configuration that was over"),
    (2_946, "reconfiguration: a partition that was made anew got other homes before a majority held what was left"),
    (2_157, "reconfiguration: nodes that had left were taken for homes that were left"),
    (800_979, "a stand-in's refusal spoke for a coordinator that had the write"),
    (
        901_189,
        "reconfiguration: a home that had been away never made up for it once the next step had begun, and another was lost",
    ),
    (911_145, "reconfiguration: the same with five homes"),
    (22_549, "a read while homes change counted homes of either configuration"),
    (3_001_995, "losses were never forgotten: homes took them over from each other for ever"),
    (3_017_678, "membership: a node that had left was a member again when an earlier change was heard of"),
    (5_005_206, "reconfiguration: a successor that one had accepted was chosen minutes later, when its homes had gone"),
    (
        7_011_990,
        "reconfiguration: nodes that were ready in as many partitions as may be waited for each other in others",
    ),
    (8_008_663, "the oracle: a change was told of by a node that was removed for dead before it reached another"),
    (9_002_446, "the oracle: a record was damaged on the home that alone was to keep it"),
    (9_016_718, "the faults: a copy was put back of a time before a loss that the others had been told of"),
    (11_010_174, "the oracle: a record was damaged on the home that alone was to keep it later"),
    (12_008_032, "the oracle: of two deletes at once the later one had been made in an earlier epoch, and went first"),
    (
        14_006_052,
        "the faults: of a write on two homes one had lost its disk, and the other's record was damaged before that was made good",
    ),
    (13_005_882, "a forwarded write that was refused came again after a restart, and was carried out"),
    (12_008_073, "an epoch was finished over a hint that had not been counted, as a write of it stood still"),
];

/// The same seed is the same run, to the byte; without that no failure could be replayed.
#[test]
fn a_seed_replays() {
    for seed in 1..=25 {
        let readable = Settings { readable: true, ..Settings::default() };
        let (first, second) = (run(seed, readable), run(seed, readable));
        assert_eq!(first.trace.text(), second.trace.text(), "seed {seed}");
        assert_eq!(first.trace_hash, second.trace_hash, "seed {seed}");
        assert_eq!(first.failure, second.failure, "seed {seed}");
        let quick = run(seed, Settings::default());
        assert_eq!(quick.trace_hash, first.trace_hash, "seed {seed}: keeping the text changes nothing");
        assert!(first.trace.lines().len() > 20, "seed {seed}: something happens");
    }
}

#[test]
fn different_seeds_are_different_runs() {
    let hash = |seed| run(seed, Settings::default()).trace_hash;
    assert_ne!(hash(1), hash(2));
}

#[test]
fn seeds_pass() {
    for seed in SEEDS.chain(ONCE_FAILED.map(|(seed, _)| seed)) {
        let report = run(seed, Settings::default());
        if report.failure.is_some() {
            panic!("{}", cartwheel_sim::report::describe(&report, Settings::default(), ""));
        }
    }
}
