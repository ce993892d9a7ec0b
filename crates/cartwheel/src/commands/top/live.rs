use std::io;
use std::process::ExitCode;
use std::time::Duration;

use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;

use super::figures::Figures;
use super::sample::Sample;
use super::screen::Screen;
use crate::cli::TopArgs;
use crate::terminal::exit::Failure;

/// How often it is looked whether the program ends, while no key is pressed.
const KEYS_WITHIN: Duration = Duration::from_millis(200);

/// What a key wants.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Wish {
    Quit,
    Pause,
    SortByNext,
    Reverse,
    /// The terminal has another size.
    Redraw,
}

/// Shows the load on the terminal until the user quits.
pub(super) async fn run(args: &TopArgs, first: Sample) -> Result<ExitCode, Failure> {
    let mut terminal = ratatui::try_init().map_err(no_terminal)?;
    let ended = show(&mut terminal, args, first).await;
    ratatui::restore();
    ended.map_err(no_terminal)?;
    Ok(ExitCode::SUCCESS)
}

fn no_terminal(error: io::Error) -> Failure {
    Failure::other(format_args!("cannot use the terminal: {error}; pass --once to print one screen as text"))
}

async fn show(terminal: &mut ratatui::DefaultTerminal, args: &TopArgs, first: Sample) -> io::Result<()> {
    let mut wishes = wishes()?;
    let mut screen = Screen { has_keys: true, ..Screen::default() };
    let mut figures = Figures::between(&first, &first);
    let mut latest = first;
    let mut ticks = tokio::time::interval(args.every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // The first tick is at once.
    ticks.tick().await;
    loop {
        terminal.draw(|frame| screen.draw(frame, &figures))?;
        tokio::select! {
            wish = wishes.recv() => match wish {
                None | Some(Wish::Quit) => return Ok(()),
                Some(Wish::Pause) => screen.paused = !screen.paused,
                Some(Wish::SortByNext) => screen.sort_by_next(),
                Some(Wish::Reverse) => screen.reversed = !screen.reversed,
                Some(Wish::Redraw) => {}
            },
            _ = ticks.tick(), if !screen.paused => {
                tokio::select! {
                    sample = Sample::take(&args.endpoints, args.every) => match sample {
                        Ok(sample) => {
                            figures = Figures::between(&latest, &sample);
                            latest = sample;
                        }
                        Err(error) => figures.alarms = vec![format!("no node answers, so these are the last figures: {error}")],
                    },
                    Some(Wish::Quit) = wishes.recv() => return Ok(()),
                }
            }
        }
    }
}

/// The keys that are pressed, read on a thread of their own: the terminal is read by blocking.
fn wishes() -> io::Result<mpsc::Receiver<Wish>> {
    let (sender, wishes) = mpsc::channel(16);
    std::thread::Builder::new().name("keys".to_owned()).spawn(move || {
        while !sender.is_closed() {
            match event::poll(KEYS_WITHIN) {
                Ok(false) => continue,
                Ok(true) => {}
                // The terminal is gone.
                Err(_) => return,
            }
            let Ok(event) = event::read() else { return };
            if let Some(wish) = wish(&event)
                && sender.blocking_send(wish).is_err()
            {
                return;
            }
        }
    })?;
    Ok(wishes)
}

fn wish(event: &Event) -> Option<Wish> {
    let key = match event {
        Event::Resize(..) => return Some(Wish::Redraw),
        Event::Key(key) if key.kind != KeyEventKind::Release => key,
        _ => return None,
    };
    match key.code {
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => Some(Wish::Quit),
        KeyCode::Char('q') | KeyCode::Esc => Some(Wish::Quit),
        KeyCode::Char('p' | ' ') => Some(Wish::Pause),
        KeyCode::Char('s') => Some(Wish::SortByNext),
        KeyCode::Char('r') => Some(Wish::Reverse),
        _ => None,
    }
}
