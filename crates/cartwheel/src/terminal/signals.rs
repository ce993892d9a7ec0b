//! The signals that stop a process.

use std::io::{self, Read as _};

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

/// Whether a process ends with its parent process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parent {
    /// The process does not depend on its parent.
    Unwatched,
    /// The process ends when its standard input ends. The parent holds it open, so the process ends even if the parent is killed.
    HoldsStdin,
}

/// Waits until the process must stop, and returns the reason.
///
/// # Errors
/// If signal handlers cannot be installed.
pub fn stop(parent: Parent) -> io::Result<impl Future<Output = &'static str>> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let orphaned = orphaned(parent)?;
    Ok(async move {
        tokio::select! {
            _ = interrupt.recv() => "interrupted",
            _ = terminate.recv() => "received SIGTERM",
            Ok(()) = orphaned => "the parent process has ended",
        }
    })
}

/// Waits until the terminal of the process is closed (SIGHUP), and returns the reason.
///
/// # Errors
/// If signal handlers cannot be installed.
pub fn hang_up() -> io::Result<impl Future<Output = &'static str>> {
    let mut hang_up = signal(SignalKind::hangup())?;
    Ok(async move {
        hang_up.recv().await;
        "the terminal was closed"
    })
}

/// The receiver gets a message when the parent has ended. If the parent is not watched, it gets none, only an error, which [`stop`] ignores.
fn orphaned(parent: Parent) -> io::Result<oneshot::Receiver<()>> {
    let (gone, orphaned) = oneshot::channel();
    if parent == Parent::HoldsStdin {
        // A separate thread: a blocking read on a thread of the runtime would delay the end of the process.
        std::thread::Builder::new().name("parent-watch".to_owned()).spawn(move || {
            let mut ignored = [0; 64];
            while matches!(io::stdin().read(&mut ignored), Ok(1..)) {}
            let _ = gone.send(());
        })?;
    }
    Ok(orphaned)
}
