//! The progress of the work: a bar on a terminal, otherwise a line every few seconds.

use std::io::{self, IsTerminal as _};
use std::sync::Mutex;
use std::sync::PoisonError;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

const LINE_EVERY: Duration = Duration::from_secs(5);

/// A count of completed work, and how it is shown.
#[derive(Debug)]
pub struct Progress {
    what: &'static str,
    total: u64,
    done: AtomicU64,
    started: Instant,
    shown: Shown,
}

#[derive(Debug)]
enum Shown {
    Hidden,
    Bar(ProgressBar),
    Lines(Mutex<Instant>),
}

impl Progress {
    /// Progress of `what` towards `total`, shown on standard error.
    pub fn shown(what: &'static str, total: u64) -> Self {
        let shown = if io::stderr().is_terminal() {
            let style = ProgressStyle::with_template("{msg:8} {wide_bar} {human_pos}/{human_len} {per_sec} {eta}");
            let bar = ProgressBar::new(total).with_message(what);
            Shown::Bar(style.map_or_else(|_| bar.clone(), |style| bar.clone().with_style(style)))
        } else {
            Shown::Lines(Mutex::new(Instant::now()))
        };
        Self { what, total, done: AtomicU64::new(0), started: Instant::now(), shown }
    }

    /// Progress that is not shown.
    pub fn hidden(total: u64) -> Self {
        Self { what: "", total, done: AtomicU64::new(0), started: Instant::now(), shown: Shown::Hidden }
    }

    /// Counts one more.
    pub fn step(&self) {
        let done = self.done.fetch_add(1, Ordering::Relaxed) + 1;
        match &self.shown {
            Shown::Hidden => {}
            Shown::Bar(bar) => bar.inc(1),
            Shown::Lines(last) => {
                let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
                if last.elapsed() >= LINE_EVERY {
                    *last = Instant::now();
                    eprintln!("{}: {done} of {}, {:.0}/s", self.what, self.total, self.per_second());
                }
            }
        }
    }

    /// Prints a line without disturbing the bar.
    pub fn say(&self, line: &str) {
        match &self.shown {
            Shown::Bar(bar) => bar.suspend(|| println!("{line}")),
            Shown::Hidden => {}
            Shown::Lines(_) => println!("{line}"),
        }
    }

    /// The number completed so far.
    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// The mean number completed in a second.
    pub fn per_second(&self) -> f64 {
        self.done() as f64 / self.started.elapsed().as_secs_f64().max(1e-9)
    }

    /// Ends the progress bar.
    pub fn finish(&self) {
        if let Shown::Bar(bar) = &self.shown {
            bar.finish();
        }
    }
}
