//! What processes have used so far, from `/proc`.

use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use crate::commands::bench::cpu::times;

/// The resources that a set of processes has used.
#[derive(Clone, Debug, Default)]
pub(super) struct Usage {
    processes: BTreeMap<u32, ProcessUsage>,
}

/// The resources used between two readings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct UsageSum {
    /// User and system time, including that of child processes that have ended.
    pub(super) cpu: Duration,
    /// The system time in it: what the kernel did for the processes.
    pub(super) kernel: Duration,
    /// Voluntary context switches of all threads that are alive at the end.
    pub(super) voluntary_switches: Option<u64>,
    /// Calls that `/proc/PID/io` counts as reads and writes.
    pub(super) file_calls: Option<u64>,
}

#[derive(Clone, Debug)]
struct ProcessUsage {
    cpu: Cpu,
    /// The context switches by thread.
    voluntary_switches: BTreeMap<u64, u64>,
    file_calls: Option<u64>,
}

/// The CPU time of a process and of its ended children.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Cpu {
    user: Duration,
    system: Duration,
}

impl Usage {
    /// Reads what each process has used. Processes that have ended are left out.
    pub(super) fn read(pids: &[u32]) -> Self {
        Self { processes: pids.iter().filter_map(|&pid| Some((pid, read(pid)?))).collect() }
    }

    /// The sum of what the processes have used since `earlier`; none if a process has ended or appeared since.
    pub(super) fn since(&self, earlier: &Self) -> Option<UsageSum> {
        if self.processes.is_empty() || !self.processes.keys().eq(earlier.processes.keys()) {
            return None;
        }
        let pairs = || self.processes.values().zip(earlier.processes.values());
        let switches = |(now, before): (&ProcessUsage, &ProcessUsage)| {
            let of_thread = |(tid, count): (&u64, &u64)| {
                count.saturating_sub(before.voluntary_switches.get(tid).copied().unwrap_or_default())
            };
            (!now.voluntary_switches.is_empty()).then(|| now.voluntary_switches.iter().map(of_thread).sum::<u64>())
        };
        let calls = |(now, before): (&ProcessUsage, &ProcessUsage)| {
            now.file_calls.zip(before.file_calls).map(|(now, before)| now.saturating_sub(before))
        };
        let of_each = |time: fn(Cpu) -> Duration| {
            pairs().map(|(now, before)| time(now.cpu).saturating_sub(time(before.cpu))).sum()
        };
        Some(UsageSum {
            cpu: of_each(|cpu| cpu.user + cpu.system),
            kernel: of_each(|cpu| cpu.system),
            voluntary_switches: pairs().map(switches).sum(),
            file_calls: pairs().map(calls).sum(),
        })
    }
}

fn read(pid: u32) -> Option<ProcessUsage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let io = fs::read_to_string(format!("/proc/{pid}/io")).ok();
    let file_calls = io.and_then(|io| field(&io, "syscr:")?.checked_add(field(&io, "syscw:")?));
    let threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let switches = |thread: fs::DirEntry| {
        let status = fs::read_to_string(thread.path().join("status")).ok()?;
        Some((thread.file_name().to_str()?.parse().ok()?, field(&status, "voluntary_ctxt_switches:")?))
    };
    Some(ProcessUsage {
        cpu: cpu(&stat, rustix::param::clock_ticks_per_second())?,
        voluntary_switches: threads.filter_map(|thread| switches(thread.ok()?)).collect(),
        file_calls,
    })
}

/// The CPU time of a process and its ended children, from its `/proc/PID/stat`.
fn cpu(stat: &str, ticks_per_second: u64) -> Option<Cpu> {
    let (_, after) = stat.rsplit_once(')')?;
    let [user, system, children_user, children_system] = times(after, ticks_per_second)?;
    Some(Cpu { user: user + children_user, system: system + children_system })
}

/// The number after `name` at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name))?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_of_ended_children_counts() {
        let stat = "42 (a) b (c) S 1 2 3 4 5 6 7 8 9 10 100 50 40 10 20 0 8 0\n";
        let [user, system] = [1_400, 600].map(Duration::from_millis);
        assert_eq!(cpu(stat, 100), Some(Cpu { user, system }));
        for bad in ["", "42 (x", "42 (x) S 1 2", "42 (x) S 1 2 3 4 5 6 7 8 9 10 1 2 3"] {
            assert_eq!(cpu(bad, 100), None, "{bad}");
        }
    }

    #[test]
    fn fields_are_found_by_their_whole_name() {
        let status = "nonvoluntary_ctxt_switches:\t7\nvoluntary_ctxt_switches:\t12\n";
        assert_eq!(field(status, "voluntary_ctxt_switches:"), Some(12));
        assert_eq!(field(status, "syscr:"), None);
    }

    #[test]
    fn the_usage_of_this_process_grows_and_that_of_a_missing_one_is_unknown() {
        let own = std::process::id();
        let before = Usage::read(&[own]);
        fs::read_to_string("/proc/self/stat").unwrap();
        std::thread::sleep(Duration::from_millis(1));
        let used = Usage::read(&[own]).since(&before).unwrap();
        assert!(used.voluntary_switches.is_some_and(|count| count > 0), "{used:?}");
        assert!(used.file_calls.is_some_and(|count| count > 0), "{used:?}");
        assert_eq!(Usage::read(&[u32::MAX]).since(&Usage::read(&[u32::MAX])), None);
        assert_eq!(Usage::read(&[own, u32::MAX]).since(&Usage::default()), None);
    }
}
