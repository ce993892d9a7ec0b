//! The HTTP contract holds on clusters of real processes, through each of their nodes.

mod backup;
mod bucket_calls;
mod cluster_calls;
mod conditions;
mod contexts;
mod deletes;
mod expiry;
mod gets;
mod limits;
mod listing;
mod names;
mod puts;
mod refusals;
