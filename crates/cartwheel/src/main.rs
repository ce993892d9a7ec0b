//! The command line of Cartwheel: a node (`serve`), a cluster on one machine (`dev`), and client commands.

#![warn(clippy::print_stdout, clippy::print_stderr)]

mod cli;
mod commands;
mod terminal;

use std::process::ExitCode;

use cartwheel_server::config::{LogFormat, LogLevel};
use cartwheel_server::log;
use clap::{CommandFactory as _, Parser as _};

use cli::{Cli, Command};
use commands::{
    backup, bench, buckets, cert, cluster, config, debug, dev, keys, listing, load, man, ready, renew, serve, simulate,
    top, users, verify,
};
use terminal::exit::{Exit, Failure};
use terminal::output;

/// An operation allocates and frees many small buffers. The system's allocator takes a quarter of a node's time for that.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return failed(&Failure::other(format_args!(
                "cannot start threads: {error}; end other processes, or raise the limit (ulimit -u)"
            )));
        }
    };
    runtime.block_on(run(cli.command)).unwrap_or_else(|failure| failed(&failure))
}

async fn run(command: Command) -> Result<ExitCode, Failure> {
    if let Command::Serve(args) = command {
        return serve::run(args).await.map(|()| Exit::Done.into());
    }
    let _log = log::to_stderr(&LogLevel::default(), LogFormat::Human);
    Ok(match command {
        Command::Dev(args) => dev::run(&args).await.map(|()| Exit::Done.into()).map_err(Failure::other)?,
        // Handled above: a node sets up its own log.
        Command::Serve(_) => Exit::Done.into(),
        Command::Config(command) => config::run(command).await?,
        Command::Renew(args) => renew::run(&args)?,
        Command::Get(args) => keys::get(&args).await?,
        Command::Put(args) => keys::put(&args).await?,
        Command::Delete(args) => keys::delete(&args).await?,
        Command::Keys(args) => listing::keys(&args).await?,
        Command::Export(args) => listing::export(&args).await?,
        Command::Load(args) => load::run(&args).await?,
        Command::Bench(args) => bench::run(&args).await?,
        Command::Verify(args) => verify::run(&args).await?,
        Command::Backup(command) => backup::run(&command).await?,
        Command::Bucket(command) => buckets::run(&command).await?,
        Command::Cluster(command) => cluster::run(&command).await?,
        Command::User(command) => users::run(&command).await?,
        Command::Debug(command) => debug::run(&command).await?,
        Command::Ready(args) => ready::run(&args).await?,
        Command::Top(args) => top::run(&args).await?,
        Command::Cert(command) => cert::run(&command)?,
        Command::Simulate(command) => simulate::run(&command).map_err(Failure::usage)?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "cartwheel", &mut script);
            output::print(&script)?;
            Exit::Done.into()
        }
        Command::Man { dir } => man::write(&dir)?,
    })
}

fn failed(failure: &Failure) -> ExitCode {
    output::note(format_args!("error: {}", failure.message));
    failure.exit.into()
}
