//! What tells a process to stop.

use std::io::{self, Read as _};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Whether a process incarnations only as long as the one that started it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parent {
    /// It incarnations on its own.
    Unwatched,
    /// It ends when its standard input does, which its parent holds open: even a parent that is killed cannot leave it behind.
    HoldsStdin,
}

/// Waits until the process is told to stop, and says by what.
///
/// # Errors
/// If signals cannot be listened to.
pub fn stop(parent: Parent) -> io::Result<impl Future<Output = &'static str>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let orphaned = orphaned(parent)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "interrupted",
            _ = terminate.recv() => "told to by SIGTERM",
            Ok(()) = orphaned => "the parent process is gone",
        }
    })
}

/// Waits until the terminal is gone that the process was started from, and says so.
///
/// # Errors
/// If signals cannot be listened to.
pub fn hang_up() -> io::Result<impl Future<Output = &'static str>> {
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        hang_up.recv().await;
        "the terminal is gone"
    })
}

/// Completes when the parent is gone; never, if there is none to watch.
fn orphaned(parent: Parent) -> io::Result<oneshot::Receiver<()>> {
    let (gone, orphaned) = oneshot::channel();
    if parent == Parent::HoldsStdin {
        // A thread of its own: a blocking read on the runtime's would hold up the end of the process.
        std::thread::Builder::new().name("parent-watch".to_owned()).spawn(move || {
            let mut ignored = [0; 64];
            while matches!(io::stdin().read(&mut ignored), Ok(1..)) {}
            let _ = gone.send(());
        })?;
    }
    Ok(orphaned)
}
