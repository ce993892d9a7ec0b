//! The commands' interface to the shell: output, tables, charts, errors, exit codes, signals.

pub mod chart;
pub mod confirm;
pub mod error;
pub mod exit;
pub mod output;
pub mod signals;
pub mod table;
mod yaml;
