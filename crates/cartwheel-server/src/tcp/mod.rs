//! TCP connections, of clients and of peers: accepting them, and noticing that the other end is gone.

pub(crate) mod acceptor;
pub(crate) mod keepalive;
