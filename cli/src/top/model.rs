//! What the screen knows and what keys do to it. Pure: time, keys and answers come in, orders go out.

use std::collections::{BTreeSet, VecDeque};

use fleetknock_core::time::Timestamp;
use fleetknock_proto::v1;

use super::rows::{self, Row};

/// Events that are kept; the oldest give way.
pub(super) const EVENTS_MAX: usize = 200;
/// Characters of a filter; more are not taken.
const FILTER_MAX: usize = 64;
/// How many rows one page key moves.
const PAGE: isize = 10;

/// A list on the screen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    Hosts,
    Attempts,
    Openings,
    Bans,
    Events,
}

impl Pane {
    /// In the order of the tab key.
    pub(super) const ALL: [Self; 5] = [Self::Hosts, Self::Attempts, Self::Openings, Self::Bans, Self::Events];

    pub(super) fn title(self) -> &'static str {
        match self {
            Self::Hosts => "Hosts",
            Self::Attempts => "Attempts",
            Self::Openings => "Openings",
            Self::Bans => "Bans",
            Self::Events => "Events",
        }
    }

    fn moved(self, by: usize) -> Self {
        Self::ALL[(self as usize + by) % Self::ALL.len()]
    }
}

/// What a person pressed, as far as it matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Key {
    Char(char),
    Up,
    Down,
    Left,
    Right,
    PageUp,
    PageDown,
    Home,
    End,
    Tab,
    BackTab,
    Enter,
    Esc,
    Backspace,
    /// Ctrl-C.
    Interrupt,
}

/// What the fleet looked like at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Seen {
    pub(super) overview: v1::OverviewResponse,
    pub(super) hosts: Vec<v1::Host>,
    pub(super) attempts: Vec<v1::Attempt>,
    pub(super) openings: Vec<v1::Opening>,
    pub(super) bans: Vec<v1::Ban>,
    /// Controllers that did not answer.
    pub(super) unanswered: BTreeSet<String>,
    /// Lists that are longer than one page.
    pub(super) longer: Vec<Pane>,
}

/// What the controllers said.
#[derive(Clone, Debug)]
pub(super) enum Update {
    Seen(Box<Seen>),
    /// None could be asked, and why.
    Away(String),
    Event(Box<v1::Event>),
    /// Events from before the screen was there.
    Past(Vec<v1::Event>),
    /// An order was carried out, or was not.
    Said(String),
    Explained(Box<v1::ExplainResponse>),
}

/// What a person asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Close { id: String, what: String },
    Unban { source: String },
    Explain { source: String },
}

/// What a key came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    Stay,
    Quit,
    Do(Order),
}

/// What lies over the lists, or takes the keys.
#[derive(Clone, Debug, Default)]
pub(super) enum Mode {
    #[default]
    Lists,
    /// The filter is being typed.
    Filtering,
    /// Whether to do it: y, and everything else is a no.
    Asking(Order),
    Help,
    /// An explanation, scrolled down by so many lines.
    Explained(Box<v1::ExplainResponse>, usize),
}

/// Which row of a list is chosen. By name, since rows move; by place once it is gone.
#[derive(Clone, Debug, Default)]
struct Chosen {
    key: Option<String>,
    place: usize,
}

/// The screen.
#[derive(Debug, Default)]
pub(super) struct Wall {
    seen: Option<Seen>,
    /// The fleet's time minus this machine's.
    ahead_us: i64,
    /// Since when no controller could be asked, and why.
    away: Option<(Timestamp, String)>,
    events: VecDeque<v1::Event>,
    focus: usize,
    chosen: [Chosen; Pane::ALL.len()],
    filter: String,
    mode: Mode,
    said: Option<String>,
}

impl Wall {
    pub(super) fn seen(&self) -> Option<&Seen> {
        self.seen.as_ref()
    }

    pub(super) fn away(&self) -> Option<&(Timestamp, String)> {
        self.away.as_ref()
    }

    pub(super) fn events(&self) -> impl Iterator<Item = &v1::Event> {
        self.events.iter().rev()
    }

    pub(super) fn focus(&self) -> Pane {
        Pane::ALL[self.focus]
    }

    pub(super) fn filter(&self) -> &str {
        &self.filter
    }

    pub(super) fn mode(&self) -> &Mode {
        &self.mode
    }

    /// What is to be said of the last order.
    pub(super) fn said(&self) -> Option<&str> {
        self.said.as_deref()
    }

    /// The fleet's time, as far as it is known.
    pub(super) fn fleet_time(&self, now: Timestamp) -> Timestamp {
        now.shifted(self.ahead_us)
    }

    /// The rows of a list that pass the filter.
    pub(super) fn rows(&self, pane: Pane, now: Timestamp) -> Vec<Row> {
        let mut rows = rows::of(self, pane, self.fleet_time(now));
        if !self.filter.is_empty() {
            let wanted = self.filter.to_lowercase();
            rows.retain(|row| row.cells.iter().any(|cell| cell.to_lowercase().contains(&wanted)));
        }
        rows
    }

    /// The place of the chosen row.
    pub(super) fn place(&self, pane: Pane, rows: &[Row]) -> usize {
        let chosen = &self.chosen[pane as usize];
        let named = chosen.key.as_ref().and_then(|key| rows.iter().position(|row| row.key == *key));
        named.unwrap_or(chosen.place).min(rows.len().saturating_sub(1))
    }

    /// Takes in what the controllers said at this time of this machine.
    pub(super) fn take_in(&mut self, update: Update, now: Timestamp) {
        match update {
            Update::Seen(seen) => {
                let fleet = Timestamp::from_millis(seen.overview.now_ms);
                let [fleet, own] =
                    [fleet, now].map(|time| i64::try_from(time.as_micros()).unwrap_or_default());
                self.ahead_us = fleet.saturating_sub(own);
                self.seen = Some(*seen);
                self.away = None;
            }
            Update::Away(reason) => {
                let since = self.away.take().map_or(now, |(since, _)| since);
                self.away = Some((since, reason));
            }
            Update::Event(event) => self.remember(*event),
            Update::Past(events) => {
                let newer = std::mem::take(&mut self.events);
                events.into_iter().chain(newer).for_each(|event| self.remember(event));
            }
            Update::Said(what) => self.said = Some(what),
            Update::Explained(answer) => self.mode = Mode::Explained(answer, 0),
        }
    }

    fn remember(&mut self, event: v1::Event) {
        // Kept events have an id, and may be heard of twice.
        if !event.id.is_empty() && self.events.iter().any(|known| known.id == event.id) {
            return;
        }
        if self.events.len() == EVENTS_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    /// What a key comes to at this time of this machine.
    pub(super) fn press(&mut self, key: Key, now: Timestamp) -> Outcome {
        if key == Key::Interrupt {
            return Outcome::Quit;
        }
        match std::mem::take(&mut self.mode) {
            Mode::Lists => return self.press_in_lists(key, now),
            Mode::Filtering => self.press_in_filter(key),
            Mode::Asking(order) => {
                if matches!(key, Key::Char('y' | 'Y')) {
                    return Outcome::Do(order);
                }
                self.said = Some("nothing was done".to_owned());
            }
            Mode::Help => {}
            Mode::Explained(answer, line) => {
                let line = match key {
                    Key::Down => line.saturating_add(1),
                    Key::Up => line.saturating_sub(1),
                    Key::PageDown | Key::Char(' ') => line.saturating_add(PAGE.unsigned_abs()),
                    Key::PageUp => line.saturating_sub(PAGE.unsigned_abs()),
                    Key::Home => 0,
                    _ => return Outcome::Stay,
                };
                let last = rows::explained(&answer).len().saturating_sub(1);
                self.mode = Mode::Explained(answer, line.min(last));
            }
        }
        Outcome::Stay
    }

    fn press_in_filter(&mut self, key: Key) {
        match key {
            Key::Enter => return,
            Key::Esc => {
                self.filter.clear();
                return;
            }
            Key::Backspace => {
                self.filter.pop();
            }
            Key::Char(c) if self.filter.chars().count() < FILTER_MAX => self.filter.push(c),
            _ => {}
        }
        self.mode = Mode::Filtering;
    }

    fn press_in_lists(&mut self, key: Key, now: Timestamp) -> Outcome {
        self.said = None;
        let last = Pane::ALL.len() - 1;
        match key {
            Key::Char('q') => return Outcome::Quit,
            Key::Esc if self.filter.is_empty() => return Outcome::Quit,
            Key::Esc => self.filter.clear(),
            Key::Char('?') => self.mode = Mode::Help,
            Key::Char('/') => self.mode = Mode::Filtering,
            Key::Tab | Key::Right => self.focus = self.focus().moved(1) as usize,
            Key::BackTab | Key::Left => self.focus = self.focus().moved(last) as usize,
            Key::Up => self.choose(-1, now),
            Key::Down => self.choose(1, now),
            Key::PageUp => self.choose(-PAGE, now),
            Key::PageDown => self.choose(PAGE, now),
            Key::Home => self.choose(isize::MIN, now),
            Key::End => self.choose(isize::MAX, now),
            Key::Char('c') => self.ask_to_close(now),
            Key::Char('u') => self.ask_to_unban(now),
            Key::Char('e') => match self.chosen_row(now).and_then(|row| row.source) {
                Some(source) => return Outcome::Do(Order::Explain { source }),
                None => self.said = Some("no source is chosen: choose an attempt, opening or ban".to_owned()),
            },
            _ => {}
        }
        Outcome::Stay
    }

    fn choose(&mut self, by: isize, now: Timestamp) {
        let pane = self.focus();
        let rows = self.rows(pane, now);
        let place = self.place(pane, &rows).saturating_add_signed(by).min(rows.len().saturating_sub(1));
        let key = rows.get(place).map(|row| row.key.clone());
        self.chosen[pane as usize] = Chosen { key, place };
    }

    fn chosen_row(&self, now: Timestamp) -> Option<Row> {
        let mut rows = self.rows(self.focus(), now);
        let place = self.place(self.focus(), &rows);
        (place < rows.len()).then(|| rows.swap_remove(place))
    }

    fn ask_to_close(&mut self, now: Timestamp) {
        match self.chosen_row(now).filter(|_| self.focus() == Pane::Openings) {
            None => self.said = Some("choose an opening to close it (tab, arrows)".to_owned()),
            Some(row) => {
                let [source, .., door] = &row.cells[..] else { return };
                self.ask(Order::Close { what: format!("{source} at {door}"), id: row.key });
            }
        }
    }

    fn ask_to_unban(&mut self, now: Timestamp) {
        match self.chosen_row(now).filter(|_| self.focus() == Pane::Bans) {
            None => self.said = Some("choose a ban to lift it (tab, arrows)".to_owned()),
            Some(row) => self.ask(Order::Unban { source: row.key }),
        }
    }

    /// Asks first, and only whoever may.
    fn ask(&mut self, order: Order) {
        match self.role() {
            Some("viewer") => {
                self.said = Some("a viewer may not change anything; it takes an operator".to_owned());
            }
            Some(_) => self.mode = Mode::Asking(order),
            None => self.said = Some("it is not known yet what you may do".to_owned()),
        }
    }

    /// The caller's; empty where there are no roles.
    fn role(&self) -> Option<&str> {
        let caller = self.seen.as_ref()?.overview.caller.as_ref();
        Some(caller.map_or("", |caller| &caller.role))
    }
}

#[cfg(test)]
mod tests;
