//! The `cartwheel` binary.

#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use cartwheel::cli::{Cli, Command, RenewArgs, ServeArgs};
use cartwheel::config::{Config, Environment, LogFormat, LogLevel};
use cartwheel::signals::{self, Parent};
use cartwheel::{bench, buckets, cluster, dev, keys, load, log, output, renewing, serve, simulate, verify};
use clap::{CommandFactory as _, Parser as _};
use tracing::warn;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start the threads that the node needs: {error}")),
    };
    match runtime.block_on(run(cli.command)) {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

async fn run(command: Command) -> Result<ExitCode, String> {
    if let Command::Serve(args) = command {
        return run_node(args).await.map(|()| ExitCode::SUCCESS);
    }
    let _log = log::to_stderr(&LogLevel::default(), LogFormat::Human);
    match command {
        Command::Dev(args) => dev::run(&args).await.map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string()),
        // It has a log of its own.
        Command::Serve(_) => Ok(ExitCode::SUCCESS),
        Command::Renew(args) => renew(&args),
        Command::Get(args) => keys::get(&args).await.map_err(|error| error.to_string()),
        Command::Put(args) => keys::put(&args).await.map_err(|error| error.to_string()),
        Command::Delete(args) => keys::delete(&args).await.map_err(|error| error.to_string()),
        Command::Load(args) => load::run(&args).await.map_err(|error| error.to_string()),
        Command::Bench(args) => bench::run(&args).await.map_err(|error| error.to_string()),
        Command::Verify(args) => verify::run(&args).await.map_err(|error| error.to_string()),
        Command::Bucket(command) => buckets::run(&command).await.map_err(|error| error.to_string()),
        Command::Cluster(command) => cluster::run(&command).await.map_err(|error| error.to_string()),
        Command::Simulate(command) => simulate::run(&command).map_err(|error| error.to_string()),
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "cartwheel", &mut script);
            keys::print(&script).map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string())
        }
    }
}

fn renew(args: &RenewArgs) -> Result<ExitCode, String> {
    let done = renewing::run(args).map_err(|error| error.to_string())?;
    keys::print(done.as_bytes()).map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string())
}

async fn run_node(args: Box<ServeArgs>) -> Result<(), String> {
    let environment = Environment::of_process();
    let config = Config::resolve(args.settings, args.config, &environment).map_err(|error| error.to_string())?;
    let _log = log::to_stderr(&config.log_level, config.log_format);
    signals::reopen_log_on_hang_up().map_err(|error| format!("cannot listen to signals: {error}"))?;
    for (name, nearest) in environment.unknown() {
        let did_you_mean = nearest.map_or_else(String::new, |nearest| format!(": did you mean {nearest}?"));
        warn!("the environment variable {name} is no setting and is ignored{did_you_mean}");
    }
    let parent = if args.stop_with_stdin { Parent::HoldsStdin } else { Parent::Unwatched };
    serve::serve(&config, parent).await.map_err(|error| error.to_string())
}

fn failed(error: &str) -> ExitCode {
    output::note(format_args!("error: {error}"));
    ExitCode::FAILURE
}
