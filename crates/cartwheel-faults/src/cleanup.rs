//! Removes the namespaces, disks and directories of killed runs. The names of all of them contain the process id of the run.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};

use crate::FaultsError;
use crate::network::{NAMESPACES, ip};

const PREFIX: &str = "cartwheel-faults-";

/// A name that nothing else on this machine has.
pub(crate) fn new_name() -> String {
    static MADE: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed))
}

/// A directory for a cluster's data and logs. Dropping it removes it.
#[derive(Debug)]
pub struct RunDir {
    path: PathBuf,
    keep: bool,
}

impl RunDir {
    /// Makes a directory among the system's temporary files.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn new() -> Result<Self, FaultsError> {
        let path = std::env::temp_dir().join(new_name());
        fs::create_dir(&path).map_err(FaultsError::system(format!("create {}", path.display())))?;
        Ok(Self { path, keep: false })
    }

    /// The directory's path.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keeps the directory when this is dropped, until a later run removes it.
    pub fn keep(&mut self) {
        self.keep = true;
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if !self.keep {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Removes the nodes, namespaces, disks and directories of runs whose processes are dead.
///
/// # Errors
/// If something cannot be removed.
pub fn remove() -> Result<(), FaultsError> {
    for namespace in of_dead_runs(Path::new(NAMESPACES))? {
        let name = namespace.file_name().unwrap_or_default().to_string_lossy().into_owned();
        // A paused node outlives the run that paused it. No other processes are in this namespace.
        for pid in pids_inside(&name) {
            let _ = kill_process(pid, Signal::KILL);
        }
        let deleted = ip(&[], &format!("netns del {name}\n"));
        // Another run may have deleted it first.
        if namespace.exists() {
            deleted?;
        }
    }
    for dir in of_dead_runs(&std::env::temp_dir())? {
        for mounted in mounted_below(&dir) {
            let _ = unmount(&mounted, UnmountFlags::DETACH);
        }
        let removed = fs::remove_dir_all(&dir).map_err(FaultsError::system(format!("remove {}", dir.display())));
        if dir.exists() {
            removed?;
        }
    }
    Ok(())
}

/// The entries of `dir` that belong to dead runs.
fn of_dead_runs(dir: &Path) -> Result<Vec<PathBuf>, FaultsError> {
    let failed = || FaultsError::system(format!("read {}", dir.display()));
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries.collect::<Result<Vec<_>, _>>().map_err(failed())?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(error) => return Err(failed()(error)),
    };
    let is_dead = |path: &PathBuf| {
        let pid = path.file_name().and_then(|name| pid_of(name.to_str()?));
        pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists())
    };
    Ok(entries.into_iter().map(|entry| entry.path()).filter(is_dead).collect())
}

/// The process id in a run's name.
fn pid_of(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split('-').next()?.parse().ok()
}

fn pids_inside(namespace: &str) -> Vec<Pid> {
    let listed = Command::new("ip").args(["netns", "pids", namespace]).output();
    let listed = listed.map(|output| String::from_utf8_lossy(&output.stdout).into_owned()).unwrap_or_default();
    listed.split_whitespace().filter_map(|pid| Pid::from_raw(pid.parse().ok()?)).collect()
}

fn mounted_below(dir: &Path) -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(1)).map(PathBuf::from);
    points.filter(|point| point.starts_with(dir)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_contain_the_process_id() {
        assert_eq!(pid_of(&new_name()), Some(std::process::id()));
        assert_eq!(pid_of("cartwheel-faults-77-0-host3"), Some(77));
        assert_eq!(pid_of("cartwheel-77-0"), None);
        assert_eq!(pid_of("cartwheel-faults-x"), None);
        assert_ne!(new_name(), new_name());
    }

    #[test]
    fn only_files_of_dead_runs_are_removed() {
        let dir = tempfile::tempdir().unwrap();
        // Above the largest process id of Linux.
        let dead = dir.path().join(format!("{PREFIX}{}-0", 1 << 23));
        for path in [&dead, &dir.path().join(new_name()), &dir.path().join("thesis")] {
            fs::create_dir(path).unwrap();
        }
        assert_eq!(of_dead_runs(dir.path()).unwrap(), [dead]);
        assert!(of_dead_runs(&dir.path().join("nowhere")).unwrap().is_empty());
    }
}
