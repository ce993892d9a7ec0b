//! Accepts the connections of clients, and deals them out to threads.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use super::acceptor::Acceptor;
use super::connections::{ConnectionLimit, OpenConnection, Serves};
use crate::tls::{ClientSide, NetStream};

/// How long what is under way may take once the node stops.
const FINISH_WITHIN: Duration = Duration::from_secs(5);

/// An address at which clients are served.
pub(crate) struct ClientListener {
    /// Where they connect.
    pub(crate) listener: TcpListener,
    /// What the log calls them.
    pub(crate) clients: &'static str,
    /// How many connections there may be at once. Further clients wait in the system's accept queue.
    pub(crate) limit: Arc<ConnectionLimit>,
    /// Which of their requests are served.
    pub(crate) serves: Serves,
    /// Counts accepted connections.
    pub(crate) accepted: Counter,
    /// Counts open connections.
    pub(crate) open: Gauge,
    /// How they use TLS.
    pub(crate) tls: ClientSide,
    /// What a client is sent that does not use TLS where it has to.
    pub(crate) plain_refusal: &'static [u8],
    /// The threads on which connections are served, each on the one that has fewest.
    pub(crate) threads: Vec<Handle>,
}

impl ClientListener {
    /// Serves each connection with `serve`, until `stop` is true and the requests under way have ended or timed out.
    pub(crate) async fn serve<F: Future<Output = ()> + Send>(
        self,
        mut stop: watch::Receiver<bool>,
        serve: impl FnOnce(NetStream, OpenConnection) -> F + Clone + Send + 'static,
    ) {
        let Self { listener, clients, limit, serves, accepted, open, tls, plain_refusal, threads } = self;
        let acceptor = Acceptor::new(listener, limit.connections_max(), clients);
        let threads: Vec<_> = threads.into_iter().map(|thread| (thread, Arc::new(()))).collect();
        // Each connection holds a sender until it has ended.
        let (unended, mut all_ended) = mpsc::channel::<Infallible>(1);
        loop {
            let (stream, permit) = tokio::select! {
                accepted = async { limit.room().await; acceptor.next().await } => accepted,
                _ = stop.wait_for(|stop| *stop) => break,
            };
            // With Nagle's algorithm the end of a response may wait 40 ms for the client to acknowledge its beginning.
            let _ = stream.set_nodelay(true);
            let guard = limit.register(stream.peer_addr().ok().map(|addr| addr.ip()), serves);
            accepted.inc();
            let counted = Counted::new(&open);
            let least = threads.iter().min_by_key(|(_, connections)| Arc::strong_count(connections));
            let (Some((thread, connections)), Ok(stream)) = (least, stream.into_std()) else { continue };
            let held = (permit, counted, connections.clone(), unended.clone());
            let (serve, tls, mut until) = (serve.clone(), tls.clone(), stop.clone());
            thread.spawn(async move {
                let _held = held;
                // It is this thread's from now on.
                let Ok(stream) = TcpStream::from_std(stream) else { return };
                let accepted = tokio::select! {
                    biased;
                    accepted = tls.accept(stream, plain_refusal) => accepted,
                    _ = until.wait_for(|stop| *stop) => return,
                };
                match accepted {
                    Ok(stream) => serve(stream, guard).await,
                    Err(error) => debug!(clients, %error, "refused a connection"),
                }
            });
        }
        drop((acceptor, unended));
        limit.stop();
        if tokio::time::timeout(FINISH_WITHIN, all_ended.recv()).await.is_err() {
            let timeout_s = FINISH_WITHIN.as_secs();
            warn!(clients, timeout_s, "cut off requests that did not end in time");
        }
    }
}

/// Counts an open connection until it is dropped.
struct Counted(Gauge);

impl Counted {
    fn new(open: &Gauge) -> Self {
        open.inc();
        Self(open.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.dec();
    }
}
