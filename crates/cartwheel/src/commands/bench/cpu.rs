//! The CPU time of processes, from `/proc`.

use std::time::Duration;

/// The CPU time and the command name of a process.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Used {
    pub(super) command: String,
    /// User and system time of all threads.
    pub(super) time: Duration,
}

/// The CPU time of the process `pid`; none if there is no such process or no `/proc`.
pub(super) fn of(pid: u32) -> Option<Used> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    parse(&stat, rustix::param::clock_ticks_per_second())
}

/// Parses a `/proc/PID/stat`. The command is in parentheses and may itself contain parentheses.
fn parse(stat: &str, ticks_per_second: u64) -> Option<Used> {
    let (before, after) = stat.rsplit_once(')')?;
    let command = before.split_once('(')?.1.to_owned();
    let [user, system, ..] = times(after, ticks_per_second)?;
    Some(Used { command, time: user + system })
}

/// The times in `after`, the text after the command in a `/proc/PID/stat`: user and system time, and the same of child processes that have ended.
pub(super) fn times(after: &str, ticks_per_second: u64) -> Option<[Duration; 4]> {
    // They are fields 14 to 17. The text after the command, which is field 2, begins with field 3.
    let mut fields = after.split_ascii_whitespace().skip(11);
    let mut times = [Duration::ZERO; 4];
    for time in &mut times {
        let ticks: u64 = fields.next()?.parse().ok()?;
        *time = Duration::from_millis(ticks.checked_mul(1_000)?.checked_div(ticks_per_second)?);
    }
    Some(times)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stat_is_parsed_with_any_command_name() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 250 50 0 0 20 0 8 0\n";
        assert_eq!(parse(stat, 100), Some(Used { command: "a) b (c".to_owned(), time: Duration::from_secs(3) }));
        for bad in ["", "42 (x", "42 (x) S 1 2", "42 (x) S 1 2 3 4 5 6 7 8 9 10 -1 50"] {
            assert_eq!(parse(bad, 100), None, "{bad}");
        }
    }

    #[test]
    fn this_process_has_used_cpu_time() {
        let before = of(std::process::id()).unwrap();
        let mut sum = 0_u64;
        while of(std::process::id()).unwrap().time == before.time {
            sum = (0..1_000_000).fold(sum, |sum, number| std::hint::black_box(sum ^ number));
        }
    }
}
