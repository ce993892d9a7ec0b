//! `cartwheel top`: the load of all nodes, live. It reads the metrics that each node serves, and the cluster's state as one node sees it.

mod figures;
mod live;
mod sample;
mod screen;

use std::io::IsTerminal as _;
use std::process::ExitCode;

use ratatui::Terminal;
use ratatui::backend::TestBackend;

use crate::cli::TopArgs;
use crate::terminal::exit::Failure;
use crate::terminal::output::print;
use figures::Figures;
use sample::Sample;
use screen::Screen;

/// The size of the screen that `--once` prints.
const WIDTH: u16 = 80;

/// Shows the load until the user quits, or once.
///
/// # Errors
/// If no node answers at first, or standard output is no terminal.
pub async fn run(args: &TopArgs) -> Result<ExitCode, Failure> {
    if !args.once && !std::io::stdout().is_terminal() {
        return Err(Failure::usage("standard output is no terminal; pass --once to print one screen as text"));
    }
    let first = Sample::take(&args.endpoints, args.every).await?;
    if args.once {
        tokio::time::sleep(args.every).await;
        let second = Sample::take(&args.endpoints, args.every).await?;
        print(once(&Figures::between(&first, &second)).as_bytes())?;
        return Ok(ExitCode::SUCCESS);
    }
    live::run(args, first).await
}

/// One screen as text.
fn once(figures: &Figures) -> String {
    let screen = Screen::default();
    // A backend in memory does not fail.
    let Ok(mut terminal) = Terminal::new(TestBackend::new(WIDTH, screen.height(figures)));
    let _ = terminal.draw(|frame| screen.draw(frame, figures));
    let buffer = terminal.backend().buffer();
    let lines = buffer.content().chunks(WIDTH.into()).map(|line| {
        let text: String = line.iter().map(|cell| cell.symbol()).collect();
        text.trim_end().to_owned() + "\n"
    });
    lines.collect()
}
