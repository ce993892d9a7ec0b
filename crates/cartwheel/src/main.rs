//! The `cartwheel` binary.

#![warn(clippy::print_stdout, clippy::print_stderr)]

use std::process::ExitCode;

use cartwheel::cli::{Cli, Command, ConfigCommand, GivenArgs, RenewArgs, ServeArgs};
use cartwheel::config::{Config, Environment, LogFormat, LogLevel, listing};
use cartwheel::exit::{Exit, Failure};
use cartwheel::signals::{self, Parent};
use cartwheel::{bench, buckets, cluster, dev, keys, load, log, output, renewing, serve, simulate, verify};
use clap::{CommandFactory as _, Parser as _};
use tracing::warn;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return failed(&Failure::other(format_args!("cannot start the threads that the node needs: {error}")));
        }
    };
    runtime.block_on(run(cli.command)).unwrap_or_else(|failure| failed(&failure))
}

async fn run(command: Command) -> Result<ExitCode, Failure> {
    if let Command::Serve(args) = command {
        return run_node(args).await.map(|()| Exit::Done.into());
    }
    let _log = log::to_stderr(&LogLevel::default(), LogFormat::Human);
    Ok(match command {
        Command::Dev(args) => dev::run(&args).await.map(|()| Exit::Done.into()).map_err(Failure::other)?,
        // It has a log of its own.
        Command::Serve(_) => Exit::Done.into(),
        Command::Config(command) => config(command).await?,
        Command::Renew(args) => renew(&args)?,
        Command::Get(args) => keys::get(&args).await?,
        Command::Put(args) => keys::put(&args).await?,
        Command::Delete(args) => keys::delete(&args).await?,
        Command::Load(args) => load::run(&args).await?,
        Command::Bench(args) => bench::run(&args).await?,
        Command::Verify(args) => verify::run(&args).await?,
        Command::Bucket(command) => buckets::run(&command).await?,
        Command::Cluster(command) => cluster::run(&command).await?,
        Command::Simulate(command) => simulate::run(&command).map_err(Failure::usage)?,
        Command::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "cartwheel", &mut script);
            keys::print(&script)?;
            Exit::Done.into()
        }
    })
}

async fn config(command: ConfigCommand) -> Result<ExitCode, Failure> {
    let environment = Environment::of_process();
    match command {
        ConfigCommand::Show { format, given } => {
            let GivenArgs { config, settings } = *given;
            let listed = listing::list(settings, config, &environment).map_err(Failure::usage)?;
            listing::show(format, &listed)?;
        }
        ConfigCommand::Check { given } => {
            let GivenArgs { config, settings } = *given;
            let config = Config::resolve(settings, config, &environment).map_err(Failure::usage)?;
            unknown_variables(&environment).for_each(output::note);
            let would = serve::check(&config).await.map_err(Failure::usage)?;
            keys::print(format!("the settings make sense: {would}\n").as_bytes())?;
        }
    }
    Ok(Exit::Done.into())
}

/// What to say of variables that mean nothing.
fn unknown_variables(environment: &Environment) -> impl Iterator<Item = String> {
    environment.unknown().map(|(name, nearest)| {
        let did_you_mean = nearest.map_or_else(String::new, |nearest| format!(": did you mean {nearest}?"));
        format!("the environment variable {name} is no setting and is ignored{did_you_mean}")
    })
}

fn renew(args: &RenewArgs) -> Result<ExitCode, Failure> {
    let done = renewing::run(args).map_err(Failure::other)?;
    keys::print(done.as_bytes())?;
    Ok(Exit::Done.into())
}

async fn run_node(args: Box<ServeArgs>) -> Result<(), Failure> {
    let environment = Environment::of_process();
    let config = Config::resolve(args.settings, args.config, &environment).map_err(Failure::usage)?;
    let _log = log::to_stderr(&config.log_level, config.log_format);
    signals::reopen_log_on_hang_up()
        .map_err(|error| Failure::other(format_args!("cannot listen to signals: {error}")))?;
    unknown_variables(&environment).for_each(|told| warn!("{told}"));
    let parent = if args.stop_with_stdin { Parent::HoldsStdin } else { Parent::Unwatched };
    serve::serve(&config, parent).await.map_err(Failure::other)
}

fn failed(failure: &Failure) -> ExitCode {
    output::note(format_args!("error: {}", failure.message));
    failure.exit.into()
}
