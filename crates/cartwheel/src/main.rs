//! The `cartwheel` binary.

use std::io::IsTerminal as _;
use std::process::ExitCode;

use cartwheel::cli::{Cli, Command};
use cartwheel::signals::Parent;
use cartwheel::{bench, dev, keys, load, serve};
use clap::Parser as _;
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start the threads that the node needs: {error}")),
    };
    let ended = runtime.block_on(async {
        match cli.command {
            Command::Dev(args) => dev::run(&args).await.map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string()),
            Command::Serve(args) => {
                let parent = if args.stop_with_stdin { Parent::HoldsStdin } else { Parent::Unwatched };
                let ended = serve::serve(&args.dir, parent).await;
                ended.map(|()| ExitCode::SUCCESS).map_err(|error| error.to_string())
            }
            Command::Get(args) => keys::get(&args).await.map_err(|error| error.to_string()),
            Command::Put(args) => keys::put(&args).await.map_err(|error| error.to_string()),
            Command::Delete(args) => keys::delete(&args).await.map_err(|error| error.to_string()),
            Command::Load(args) => load::run(&args).await.map_err(|error| error.to_string()),
            Command::Bench(args) => bench::run(&args).await.map_err(|error| error.to_string()),
        }
    });
    match ended {
        Ok(code) => code,
        Err(error) => failed(&error),
    }
}

fn failed(error: &str) -> ExitCode {
    eprintln!("error: {error}");
    ExitCode::FAILURE
}

fn log_to_stderr() {
    let filter =
        EnvFilter::try_from_env("CARTWHEEL_LOG").unwrap_or_else(|_| EnvFilter::new("info,fjall=warn,lsm_tree=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
