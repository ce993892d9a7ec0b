//! What commands share with the shell that runs them: output, exit codes, signals.

pub mod exit;
pub mod output;
pub mod signals;
mod yaml;
