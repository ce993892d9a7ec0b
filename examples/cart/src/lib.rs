//! Real purchases, replayed as shopping carts by concurrent writers, and a proof that no add is lost.
//!
//! | module | contents |
//! | --- | --- |
//! | [`purchases`] | the purchases |
//! | [`mod@cart`] | the two kinds of cart, and their merges |
//! | [`replay`] | the writers |
//! | [`proof`] | the comparison of all carts with the purchases |
//! | [`experiment`] | the example, from the replay to the proof |
//! | [`cluster`], [`progress`] | a cluster whose nodes can be killed, and the progress bar |

pub mod cart;
pub mod cluster;
pub mod experiment;
pub mod progress;
pub mod proof;
pub mod purchases;
pub mod replay;
