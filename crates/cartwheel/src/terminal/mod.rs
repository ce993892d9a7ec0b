//! The commands' interface to the shell: output, tables, errors, exit codes, signals.

pub mod error;
pub mod exit;
pub mod output;
pub mod signals;
pub mod table;
mod yaml;
