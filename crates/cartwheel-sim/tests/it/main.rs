//! What the simulator finds, that its checks can fail, and the exhaustive search.

mod cores;
mod mutations;
mod oracle;
mod scale;
mod search;
mod seeds;
mod transcripts;
mod weeks;
