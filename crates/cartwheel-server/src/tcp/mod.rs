//! TCP connections of clients and peers: accepting them, and detecting that the other end has vanished.

pub(crate) mod acceptor;
pub(crate) mod clients;
pub(crate) mod connections;
pub(crate) mod keepalive;
pub(crate) mod read;
