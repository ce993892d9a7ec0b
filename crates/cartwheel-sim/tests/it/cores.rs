//! Long work on all cores.

use std::sync::Mutex;
use std::thread;

/// Calls `work` for each item, on as many threads as there are cores, and returns the results in no particular order.
pub fn on_all_cores<T: Send, R: Send>(items: impl Iterator<Item = T> + Send, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let (items, results) = (Mutex::new(items), Mutex::new(Vec::new()));
    let next = || items.lock().expect("no thread panics while it has the lock").next();
    let run = || {
        while let Some(item) = next() {
            let result = work(item);
            results.lock().expect("no thread panics while it has the lock").push(result);
        }
    };
    thread::scope(|scope| {
        (0..thread::available_parallelism().map_or(1, usize::from)).for_each(|_| drop(scope.spawn(run)));
    });
    results.into_inner().expect("no thread panics while it has the lock")
}
