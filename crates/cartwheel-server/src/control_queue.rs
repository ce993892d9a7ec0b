//! The queue of a node's control, and the handle to it.

use cartwheel_core::control::{Changed, ControlInput, MembersChange, MembersChanged, SettingsChange, Survey, Surveyed};
use cartwheel_core::message::Envelope;
use cartwheel_core::message::client::Refusal;
use tokio::sync::{mpsc, oneshot};

use crate::shard::Stopped;

/// How many inputs may wait. Notices are few, and the sender repeats one that is lost.
pub(crate) const INBOX_MAX: usize = 1_024;

/// An item of the queue.
pub(crate) enum Work {
    Input(ControlInput),
    Members(MembersChange, oneshot::Sender<Result<MembersChanged, Refusal>>),
    Change(SettingsChange, oneshot::Sender<Result<Changed, Refusal>>),
    Survey(Survey, oneshot::Sender<Surveyed>),
}

/// A handle to a node's control.
#[derive(Clone, Debug)]
pub struct ControlHandle {
    inbox: mpsc::Sender<Work>,
}

impl ControlHandle {
    /// Changes a bucket's settings.
    ///
    /// # Errors
    /// If the node stops before it responds. The change may or may not have been made.
    pub async fn change(&self, change: SettingsChange) -> Result<Result<Changed, Refusal>, Stopped> {
        self.request(|reply| Work::Change(change, reply), Err(Refusal::Overloaded)).await
    }

    /// Changes the members.
    ///
    /// # Errors
    /// If the node stops before it responds. The change may or may not have been made.
    pub async fn change_members(&self, change: MembersChange) -> Result<Result<MembersChanged, Refusal>, Stopped> {
        self.request(|reply| Work::Members(change, reply), Err(Refusal::Overloaded)).await
    }

    /// Asks nodes how much they hold. The result lacks those that do not answer in time.
    ///
    /// # Errors
    /// If the node stops before it responds.
    pub async fn survey(&self, survey: Survey) -> Result<Surveyed, Stopped> {
        self.request(|reply| Work::Survey(survey, reply), Surveyed::new()).await
    }

    /// Tells the peers whether this node drains.
    ///
    /// # Errors
    /// If the node stops.
    pub async fn drain(&self, drains: bool) -> Result<(), Stopped> {
        self.inbox.send(Work::Input(ControlInput::Drain(drains))).await.map_err(|_| Stopped)
    }

    /// Sends `work` and waits for the response. Returns `overloaded` if the queue is full.
    async fn request<T>(&self, work: impl FnOnce(oneshot::Sender<T>) -> Work, overloaded: T) -> Result<T, Stopped> {
        let (reply, response) = oneshot::channel();
        match self.inbox.try_send(work(reply)) {
            Ok(()) => response.await.map_err(|_| Stopped),
            Err(mpsc::error::TrySendError::Full(_)) => Ok(overloaded),
            Err(mpsc::error::TrySendError::Closed(_)) => Err(Stopped),
        }
    }

    /// How many inputs wait for the control, and how many may.
    pub fn waiting(&self) -> (usize, usize) {
        (self.inbox.max_capacity() - self.inbox.capacity(), self.inbox.max_capacity())
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
