//! `nx sec top`: a live view.

mod draw;
mod gather;
mod keys;
mod model;
mod once;
#[cfg(test)]
mod tests;
mod usage;

use super::output::Said;
use crate::run::{Exit, Failure};
use crate::screen::{self, Asked, Screen};
use draw::Paint;
use gather::Gather;
use keys::Key;
use model::Model;
use ratatui::Terminal;
use ratatui::backend::{Backend, CrosstermBackend};
use ratatui::widgets::Paragraph;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::io::{self, Stdout};
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

/// How often who runs and the counters are looked at; denies are shown as they come.
const EVERY: Duration = Duration::from_secs(1);

/// How a page key moves the list.
const PAGE: isize = 10;

/// Why the view ended.
enum Ended {
    /// By its user.
    Quit,
    /// As by this signal.
    Signal(rustix::process::Signal),
}

/// `nx sec top`.
#[derive(Debug, clap::Args)]
pub(crate) struct TopArgs {
    /// Say what one look shows as one JSON object, which needs no terminal
    #[arg(long)]
    json: bool,
}

impl TopArgs {
    pub(super) const fn says_json(&self) -> bool {
        self.json
    }
}

pub(super) fn top(args: &TopArgs) -> Result<Said, Failure> {
    if args.json {
        return once::once();
    }
    if !screen::is_there() {
        return Err(Failure::usage(
            "`nx sec top` needs a terminal to draw on and to read keys from, and not one of the kind `dumb`".to_owned(),
        )
        .with_help(
            "`nx sec top --json` says one look, and `nx sec audit --follow` each deny as it comes, to a pipe or a file",
        ));
    }
    let failed = |error: io::Error| Failure::new(Exit::Missing, format!("the terminal cannot be used: {error}"));
    let screen = Screen::enter().map_err(failed)?;
    // After the signals are blocked: a thread inherits its maker's mask.
    let ended = Gather::start().and_then(|gather| watch(&screen, gather).map_err(failed));
    match ended? {
        Ended::Quit => Ok(Said::fine(String::new())),
        Ended::Signal(signal) => Ok(Said {
            code: screen.end_by(signal),
            ..Said::fine(String::new())
        }),
    }
}

fn watch(screen: &Screen, mut gather: Gather) -> io::Result<Ended> {
    let paint = Paint {
        colour: std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty()),
    };
    let mut terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
    let mut model = Model::default();
    let mut look_at = Instant::now();
    loop {
        let now = Instant::now();
        if now >= look_at {
            gather.look(&mut model);
            look_at = now + EVERY;
        }
        let more = gather.read(&mut model);
        draw(&mut terminal, &model, paint)?;
        let wait = if more {
            Duration::ZERO
        } else {
            look_at.saturating_duration_since(Instant::now())
        };
        let has_key = wait_for(screen, &gather, wait)?;
        match screen.asked() {
            Some(Asked::End(signal)) => return Ok(Ended::Signal(signal)),
            Some(Asked::Stop) => stop(screen, &mut terminal)?,
            Some(Asked::Continued) => {
                screen.again()?;
                anew(&mut terminal)?;
            }
            Some(Asked::Resized) | None => {}
        }
        if !has_key {
            continue;
        }
        // End of input: the terminal has gone away.
        let Some(keys) = keys::read()? else {
            return Ok(Ended::Quit);
        };
        for key in keys {
            match key {
                Key::Quit => return Ok(Ended::Quit),
                Key::Stop => stop(screen, &mut terminal)?,
                Key::Redraw => anew(&mut terminal)?,
                Key::Up => model.scroll_by(-1),
                Key::Down => model.scroll_by(1),
                Key::PageUp => model.scroll_by(-PAGE),
                Key::PageDown => model.scroll_by(PAGE),
            }
        }
    }
}

fn stop(screen: &Screen, terminal: &mut Terminal<CrosstermBackend<Stdout>>) -> io::Result<()> {
    screen.stop()?;
    // Nothing of what was drawn is there any more.
    anew(terminal)
}

/// A view that knows nothing of what is on the screen, and draws all of it. Ratatui's own `clear` asks the terminal where
/// its cursor is, and waits two seconds for one that does not answer.
fn anew(terminal: &mut Terminal<CrosstermBackend<Stdout>>) -> io::Result<()> {
    terminal.backend_mut().clear()?;
    *terminal = Terminal::new(CrosstermBackend::new(io::stdout()))?;
    Ok(())
}

fn draw(terminal: &mut Terminal<CrosstermBackend<Stdout>>, model: &Model, paint: Paint) -> io::Result<()> {
    terminal
        .draw(|frame| {
            let area = frame.area();
            let lines = draw::lines(model, area.width, area.height, paint);
            frame.render_widget(Paragraph::new(lines), area);
        })
        .map(drop)
}

/// Until a key, a signal, a record, or the time has passed; whether it is a key.
fn wait_for(screen: &Screen, gather: &Gather, wait: Duration) -> io::Result<bool> {
    let stdin = io::stdin();
    let mut fds = vec![
        PollFd::from_borrowed_fd(stdin.as_fd(), PollFlags::IN),
        PollFd::from_borrowed_fd(screen.as_fd(), PollFlags::IN),
    ];
    fds.extend(gather.journal().map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    let timeout = Timespec {
        tv_sec: i64::try_from(wait.as_secs()).unwrap_or(0),
        tv_nsec: wait.subsec_nanos().into(),
    };
    match poll(&mut fds, Some(&timeout)) {
        Ok(_) | Err(Errno::INTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    Ok(fds.first().is_some_and(|stdin| !stdin.revents().is_empty()))
}
