//! The queue of a node's control, and the way into it.

use cartwheel_core::control::{Changed, ControlInput, MembersChange, MembersChanged, SettingsChange, Survey, Surveyed};
use cartwheel_core::message::Envelope;
use cartwheel_core::message::client::Refusal;
use tokio::sync::{mpsc, oneshot};

use crate::shard::Stopped;

/// How many inputs may wait. Notices are few, and one that is lost is sent again.
pub(crate) const INBOX_MAX: usize = 1_024;

/// What the control takes from its queue.
pub(crate) enum Work {
    Input(ControlInput),
    Members(MembersChange, oneshot::Sender<Result<MembersChanged, Refusal>>),
    Change(SettingsChange, oneshot::Sender<Result<Changed, Refusal>>),
    Survey(Survey, oneshot::Sender<Surveyed>),
}

/// The way to a node's control.
#[derive(Clone, Debug)]
pub struct ControlHandle {
    inbox: mpsc::Sender<Work>,
}

impl ControlHandle {
    /// Has a bucket's settings changed.
    ///
    /// # Errors
    /// If the node stops before it has answered. The change may have been made or not.
    pub async fn change(&self, change: SettingsChange) -> Result<Result<Changed, Refusal>, Stopped> {
        self.ask(|reply| Work::Change(change, reply), Err(Refusal::Overloaded)).await
    }

    /// Has the members changed.
    ///
    /// # Errors
    /// If the node stops before it has answered. The change may have been made or not.
    pub async fn change_members(&self, change: MembersChange) -> Result<Result<MembersChanged, Refusal>, Stopped> {
        self.ask(|reply| Work::Members(change, reply), Err(Refusal::Overloaded)).await
    }

    /// Asks nodes how much they hold. Those that do not answer in time are missing from what this returns.
    ///
    /// # Errors
    /// If the node stops before it has answered.
    pub async fn survey(&self, survey: Survey) -> Result<Surveyed, Stopped> {
        self.ask(|reply| Work::Survey(survey, reply), Surveyed::new()).await
    }

    /// Waits for the answer to what `work` asks for; `overloaded` if too much waits already.
    async fn ask<T>(&self, work: impl FnOnce(oneshot::Sender<T>) -> Work, overloaded: T) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        match self.inbox.try_send(work(reply)) {
            Ok(()) => answer.await.map_err(|_| Stopped),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Stopped),
        }
    }

    /// Hands a peer's notice to the control, or drops it if too much waits already.
    pub fn deliver(&self, notice: Envelope) {
        let _ = self.inbox.try_send(Work::Input(ControlInput::Message(Box::new(notice))));
    }
}

/// The control's queue before the control is there.
#[derive(Debug)]
pub struct ControlInbox(pub(crate) mpsc::Receiver<Work>);

/// A control's queue and the way into it.
pub fn inbox() -> (ControlHandle, ControlInbox) {
    let (sender, receiver) = mpsc::channel(INBOX_MAX);
    (ControlHandle { inbox: sender }, ControlInbox(receiver))
}
