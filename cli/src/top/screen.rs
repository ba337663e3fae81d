//! The terminal: taken over, drawn on, listened to, and given back however it ends.

use std::{io, thread, time::Duration};

use fleetknock_core::time::Timestamp;
use futures::{StreamExt as _, future::Either, future::pending, stream::select};
use ratatui::{
    DefaultTerminal,
    crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers},
};
use tokio::{
    signal::unix::{SignalKind, signal},
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use super::{
    ask,
    draw::{Look, draw},
    model::{Key, Outcome, Update, Wall},
};
use crate::controllers::Controllers;

/// Keys that wait to be taken in; nobody types faster, and a paste that does is cut.
const KEYS_MAX: usize = 64;
/// How long the reader of keys goes on after the screen is gone.
const LISTEN: Duration = Duration::from_millis(100);
/// Countdowns and the clock move on, whatever is heard.
const REDRAW: Duration = Duration::from_millis(500);

/// The terminal while the screen has it. Dropping it gives it back; so does a panic, by ratatui's hook.
struct Taken {
    terminal: DefaultTerminal,
}

impl Taken {
    fn take() -> io::Result<Self> {
        let terminal = ratatui::try_init().inspect_err(|_| {
            // It may have been taken by half.
            let _ = ratatui::try_restore();
        })?;
        Ok(Self { terminal })
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        let _ = self.terminal.show_cursor();
        let _ = ratatui::try_restore();
    }
}

/// Shows the fleet until somebody quits, or ends it with a signal.
pub(super) async fn run(
    controllers: &Controllers,
    every: Duration,
    look: Look,
    clock: impl Fn() -> Timestamp,
) -> anyhow::Result<()> {
    let mut heard = std::pin::pin!(select(ask::looking(controllers, every), ask::events(controllers)?));
    let (mut terminated, mut hung_up) = (signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    let mut redraw = interval(REDRAW);
    redraw.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut wall = Wall::default();
    let mut taken = Taken::take()?;
    let mut keys = listen();
    let mut order = Either::Left(pending());
    loop {
        taken.terminal.draw(|frame| draw(&wall, clock(), look, frame.area(), frame.buffer_mut()))?;
        tokio::select! {
            _ = terminated.recv() => return Ok(()),
            _ = hung_up.recv() => return Ok(()),
            _ = redraw.tick() => {}
            pressed = keys.recv() => match pressed {
                // The terminal is gone.
                None => return Ok(()),
                Some(Pressed::Resized) => {}
                Some(Pressed::Key(key)) => match wall.press(key, clock()) {
                    Outcome::Stay => {}
                    Outcome::Quit => return Ok(()),
                    // One that is under way is not dropped: nobody would know whether it was carried out.
                    Outcome::Do(_) if matches!(order, Either::Right(_)) => {
                        wall.take_in(Update::Said("the last order is not answered yet".to_owned()), clock());
                    }
                    Outcome::Do(new) => order = Either::Right(Box::pin(ask::carry_out(controllers, new))),
                },
            },
            Some(update) = heard.next() => wall.take_in(update, clock()),
            update = &mut order => {
                order = Either::Left(pending());
                wall.take_in(update, clock());
            }
        }
    }
}

enum Pressed {
    Key(Key),
    Resized,
}

/// Reads the terminal in a thread of its own, as it can only be waited for there. It ends when nobody takes its keys.
fn listen() -> mpsc::Receiver<Pressed> {
    let (sender, receiver) = mpsc::channel(KEYS_MAX);
    thread::spawn(move || {
        while !sender.is_closed() {
            match event::poll(LISTEN) {
                Ok(false) => continue,
                Ok(true) => {}
                Err(_) => return,
            }
            let pressed = match event::read() {
                Ok(Event::Key(pressed)) => key(pressed).map(Pressed::Key),
                Ok(Event::Resize(..)) => Some(Pressed::Resized),
                Ok(_) => None,
                Err(_) => return,
            };
            if let Some(pressed) = pressed {
                // Full: what comes too fast is dropped.
                let _ = sender.try_send(pressed);
            }
        }
    });
    receiver
}

fn key(event: KeyEvent) -> Option<Key> {
    if event.kind == KeyEventKind::Release {
        return None;
    }
    let control = event.modifiers.contains(KeyModifiers::CONTROL);
    Some(match event.code {
        KeyCode::Char('c') if control => Key::Interrupt,
        KeyCode::Char(_) if control => return None,
        KeyCode::Char(c) => Key::Char(c),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::Left => Key::Left,
        KeyCode::Right => Key::Right,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Tab => Key::Tab,
        KeyCode::BackTab => Key::BackTab,
        KeyCode::Enter => Key::Enter,
        KeyCode::Esc => Key::Esc,
        KeyCode::Backspace => Key::Backspace,
        _ => return None,
    })
}
