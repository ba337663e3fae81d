//! Draws the screen. Pure: the same state, time and size give the same cells.

use fleetknock_core::time::Timestamp;
use fleetknock_proto::v1;
use ratatui::{
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Color, Modifier, Style},
    text::Line,
    widgets::{Block, BorderType, Clear, Paragraph, Sparkline, Widget as _, Wrap},
};

use super::{
    model::{Mode, Order, Pane, Wall},
    rows::{Alarm, Row, clock_time, explained},
};
use crate::output::{ago, clean};

/// Below this there is room for one list only.
const WIDE: (u16, u16) = (72, 20);
/// Below this there is room for nothing.
const LEAST: (u16, u16) = (30, 8);
/// No column takes more, so that those after it are seen.
const COLUMN_MAX: usize = 28;

const KEYS: &str = "q quit  tab pane  arrows choose  c close  u unban  e explain  / filter  ? help";
const HELP: [&str; 12] = [
    "tab, left, right    another list",
    "up, down, page      choose a row; home and end as well",
    "c                   close the chosen opening",
    "u                   lift the chosen ban",
    "e                   explain what the chosen source knocked",
    "/                   show only rows with this text; esc shows all",
    "?                   this help",
    "q, esc, ctrl-c      quit",
    "",
    "Cut off: the host's agent is connected to no controller.",
    "Drifting: its clock is more than 500 ms off, or not known to 100 ms.",
    "Times of events are UTC; what ends or fails stands above.",
];

/// What is counted of a second.
type Count = fn(&v1::KnockCounts) -> u32;

/// How things are shown.
#[derive(Clone, Copy, Debug)]
pub(super) struct Look {
    /// Without, only bold, reversed and borders tell things apart: `NO_COLOR`.
    pub(super) color: bool,
}

impl Look {
    fn of(self, alarm: Alarm) -> Style {
        match alarm {
            Alarm::Bad => self.colored(Color::Red).add_modifier(Modifier::BOLD),
            Alarm::Odd => self.colored(Color::Yellow),
            Alarm::Fine => Style::new(),
        }
    }

    fn colored(self, color: Color) -> Style {
        if self.color { Style::new().fg(color) } else { Style::new() }
    }
}

/// Draws everything at this time of this machine.
pub(super) fn draw(wall: &Wall, now: Timestamp, look: Look, area: Rect, buffer: &mut Buffer) {
    if area.width < LEAST.0 || area.height < LEAST.1 {
        let line = format!("too small: {} columns and {} rows are needed", LEAST.0, LEAST.1);
        return Paragraph::new(line).wrap(Wrap { trim: true }).render(area, buffer);
    }
    let notices = notices(wall, now);
    let rows = [Constraint::Length(2 + notices.len() as u16), Constraint::Fill(1), Constraint::Length(1)];
    let [head, body, foot] = Layout::vertical(rows).areas(area);
    draw_head(wall, now, look, &notices, head, buffer);
    if area.width < WIDE.0 || area.height < WIDE.1 {
        draw_pane(wall, wall.focus(), now, look, body, buffer);
    } else {
        let knocks = if area.height < 32 { 4 } else { 6 };
        let parts =
            [Constraint::Length(knocks), Constraint::Fill(6), Constraint::Fill(6), Constraint::Fill(5)];
        let [knocks, upper, middle, lower] = Layout::vertical(parts).areas(body);
        draw_knocks(wall, now, look, knocks, buffer);
        let halves = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]);
        let [hosts, attempts] = halves.areas(upper);
        let [openings, bans] = halves.areas(middle);
        let panes = [hosts, attempts, openings, bans, lower];
        for (pane, area) in Pane::ALL.into_iter().zip(panes) {
            draw_pane(wall, pane, now, look, area, buffer);
        }
    }
    draw_foot(wall, look, foot, buffer);
    match wall.mode() {
        Mode::Help => draw_over("Help", &HELP.map(str::to_owned), 0, area, buffer),
        Mode::Explained(answer, line) => {
            let title = format!("Explain {}", clean(&answer.source));
            draw_over(&title, &explained(answer), *line, area, buffer);
        }
        Mode::Lists | Mode::Filtering | Mode::Asking(_) => {}
    }
}

/// What makes the picture less than whole.
fn notices(wall: &Wall, now: Timestamp) -> Vec<String> {
    let mut notices = Vec::new();
    if let Some((since, reason)) = wall.away() {
        let age = ago(since.as_millis(), now);
        let since = clock_time(since.as_millis());
        notices.push(format!("NO ANSWER since {since} ({age}), asking again: {}", clean(reason)));
    }
    if let Some(seen) = wall.seen().filter(|seen| !seen.unanswered.is_empty()) {
        let names: Vec<_> = seen.unanswered.iter().map(|name| clean(name)).collect();
        notices.push(format!("UNANSWERED: {}; what only they know is missing", names.join(", ")));
    }
    notices
}

fn draw_head(wall: &Wall, now: Timestamp, look: Look, notices: &[String], area: Rect, buffer: &mut Buffer) {
    let time = clock_time(wall.fleet_time(now).as_millis());
    let (first, second) = match wall.seen() {
        None => ("fleetknock top".to_owned(), "asking ...".to_owned()),
        Some(seen) => (who(&seen.overview), counts(&seen.overview)),
    };
    let bold = Style::new().add_modifier(Modifier::BOLD);
    let width = usize::from(area.width);
    buffer.set_stringn(area.x, area.y, &first, width.saturating_sub(10), bold);
    buffer.set_stringn(area.right().saturating_sub(9), area.y, format!("{time}Z"), 9, Style::new());
    buffer.set_stringn(area.x, area.y + 1, &second, width, Style::new());
    for (line, notice) in (area.y + 2..).zip(notices) {
        buffer.set_stringn(area.x, line, notice, width, look.of(Alarm::Bad));
    }
}

/// Such as `fleet blue  by ctl-1 0.1.0  as user alice (operator)`.
fn who(overview: &v1::OverviewResponse) -> String {
    let caller = overview.caller.clone().unwrap_or_default();
    let role = if caller.role.is_empty() { String::new() } else { format!(" ({})", caller.role) };
    let v1::OverviewResponse { fleet, controller, version, .. } = overview;
    clean(&format!("fleet {fleet}  by {controller} {version}  as {}{role}", caller.who))
}

fn counts(overview: &v1::OverviewResponse) -> String {
    let cut_off = overview.hosts.saturating_sub(overview.hosts_connected);
    let mut parts = vec![format!("hosts {}/{} up", overview.hosts_connected, overview.hosts)];
    if cut_off > 0 {
        parts.push(format!("{cut_off} cut off"));
    }
    if overview.hosts_drifting > 0 {
        parts.push(format!("{} drifting", overview.hosts_drifting));
    }
    parts.push(format!("openings {}", overview.openings));
    parts.push(format!("bans {}", overview.bans));
    parts.push(format!("doors {}", overview.doors));
    parts.push(format!("controllers {}", overview.controllers));
    parts.push(format!("sources {}/{}", overview.sources_in_flight, overview.sources_limit));
    parts.join("  ")
}

fn draw_knocks(wall: &Wall, now: Timestamp, look: Look, area: Rect, buffer: &mut Buffer) {
    let Some(seen) = wall.seen() else {
        return Block::bordered().title(" Knocks ").render(area, buffer);
    };
    let minutes = super::SECONDS / 60;
    let block = Block::bordered().title(format!(" Knocks of the last {minutes} minutes "));
    let inner = block.inner(area);
    block.render(area, buffer);
    let lines: [(&str, Count, Color); 4] = [
        ("steps", |second| second.steps, Color::Green),
        ("misses", |second| second.misses, Color::Yellow),
        ("opened", |second| second.completed, Color::Cyan),
        ("banned", |second| second.banned, Color::Red),
    ];
    for (line, (name, count, color)) in inner.rows().zip(lines) {
        let columns = [Constraint::Length(8), Constraint::Fill(1), Constraint::Length(9)];
        let [label, bars, sum] = Layout::horizontal(columns).areas(line);
        let knocks = &seen.overview.knocks;
        let total: u64 = knocks.iter().map(|second| u64::from(count(second))).sum();
        buffer.set_stringn(label.x, label.y, name, usize::from(label.width), Style::new());
        let total = format!("{total:>9}");
        buffer.set_stringn(sum.x, sum.y, total, usize::from(sum.width), Style::new());
        let bins = bins(knocks, count, wall.fleet_time(now).as_millis(), usize::from(bars.width));
        Sparkline::default().data(bins).style(look.colored(color)).render(bars, buffer);
    }
}

/// The counts of seconds as so many columns, now at the right end.
fn bins(knocks: &[v1::KnockCounts], count: Count, now_ms: u64, columns: usize) -> Vec<u64> {
    let mut bins = vec![0_u64; columns];
    let seconds = u64::from(super::SECONDS).div_ceil((columns as u64).max(1)).max(1);
    for second in knocks {
        // Columns are whole spans of time, so that a bar moves as it is and does not flicker.
        let back = (now_ms / 1_000 / seconds).saturating_sub(second.from_ms / 1_000 / seconds);
        let place = usize::try_from(back).ok().and_then(|back| columns.checked_sub(1)?.checked_sub(back));
        if let Some(bin) = place.and_then(|place| bins.get_mut(place)) {
            *bin += u64::from(count(second));
        }
    }
    bins
}

fn draw_pane(wall: &Wall, pane: Pane, now: Timestamp, look: Look, area: Rect, buffer: &mut Buffer) {
    let rows = wall.rows(pane, now);
    let longer = wall.seen().is_some_and(|seen| seen.longer.contains(&pane));
    let more = if longer { "+" } else { "" };
    let title = format!(" {} ({}{more}) ", pane.title(), rows.len());
    let focused = wall.focus() == pane;
    let border = if focused { BorderType::Double } else { BorderType::Plain };
    let block = Block::bordered().title(title).border_type(border);
    let inner = block.inner(area);
    block.render(area, buffer);
    let height = usize::from(inner.height);
    let place = wall.place(pane, &rows);
    // The chosen row is seen.
    let first = if place < height { 0 } else { place + 1 - height };
    let shown = rows.get(first..rows.len().min(first + height)).unwrap_or_default();
    let widths = widths(shown);
    for ((line, row), number) in inner.rows().zip(shown).zip(first..) {
        let mut style = look.of(row.alarm);
        if focused && number == place {
            style = style.add_modifier(Modifier::REVERSED);
            buffer.set_style(line, style);
        }
        buffer.set_stringn(line.x, line.y, text(row, &widths), usize::from(line.width), style);
    }
}

fn widths(rows: &[Row]) -> Vec<usize> {
    let columns = rows.iter().map(|row| row.cells.len()).max().unwrap_or(0);
    let width =
        |column: usize| rows.iter().filter_map(|row| Some(row.cells.get(column)?.chars().count())).max();
    (0..columns).map(|column| width(column).unwrap_or(0).min(COLUMN_MAX)).collect()
}

fn text(row: &Row, widths: &[usize]) -> String {
    let last = row.cells.len().saturating_sub(1);
    let cells = row.cells.iter().zip(widths).enumerate().map(|(column, (cell, width))| {
        if column == last { cell.clone() } else { format!("{:width$}  ", shortened(cell, *width)) }
    });
    cells.collect()
}

fn shortened(cell: &str, width: usize) -> String {
    if cell.chars().count() <= width {
        return cell.to_owned();
    }
    cell.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

fn draw_foot(wall: &Wall, look: Look, area: Rect, buffer: &mut Buffer) {
    let (text, style) = match (wall.mode(), wall.said()) {
        (Mode::Asking(Order::Close { what, .. }), _) => (format!("close {what}? [y/N]"), look.of(Alarm::Bad)),
        (Mode::Asking(Order::Unban { source }), _) => {
            (format!("lift the ban of {source}? [y/N]"), look.of(Alarm::Bad))
        }
        (Mode::Filtering, _) => (format!("/{}_", wall.filter()), Style::new()),
        (Mode::Explained(..), _) => ("arrows scroll  any other key goes back".to_owned(), Style::new()),
        (_, Some(said)) => (said.to_owned(), look.of(Alarm::Odd)),
        (_, None) if !wall.filter().is_empty() => {
            (format!("only rows with '{}'; esc shows all", wall.filter()), Style::new())
        }
        (_, None) => (KEYS.to_owned(), Style::new()),
    };
    buffer.set_stringn(area.x, area.y, clean(&text), usize::from(area.width), style);
}

/// Text over the lists.
fn draw_over(title: &str, lines: &[String], first: usize, area: Rect, buffer: &mut Buffer) {
    let (width, height) = (area.width.saturating_sub(4).min(100), area.height.saturating_sub(3));
    let height = height.min(lines.len() as u16 + 6).max(LEAST.1 - 3);
    let area = area.centered(Constraint::Length(width), Constraint::Length(height));
    Clear.render(area, buffer);
    let text: Vec<_> = lines.iter().skip(first).map(|line| Line::raw(line.as_str())).collect();
    let block = Block::bordered().title(format!(" {title} ")).border_type(BorderType::Double);
    Paragraph::new(text).wrap(Wrap { trim: false }).block(block).render(area, buffer);
}

/// What was drawn, as text without blanks at the ends of lines.
pub(super) fn as_text(buffer: &Buffer) -> String {
    let mut text = String::new();
    for y in buffer.area.rows().map(|row| row.y) {
        let line: String = (buffer.area.left()..buffer.area.right())
            .filter_map(|x| buffer.cell((x, y)).map(ratatui::buffer::Cell::symbol))
            .collect();
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
