//! Whole frames: what is drawn is what stands in the files beside this one. `FLEETKNOCK_UPDATE_FRAMES=1` writes them.

use std::path::Path;

use ratatui::{Terminal, backend::TestBackend};

use super::*;
use crate::top::{
    model::{Key, Update},
    sample,
};

const NOW: Timestamp = Timestamp::from_millis(1_795_361_411_000);
const PLAIN: Look = Look { color: false };

#[test]
fn a_small_terminal_shows_everything() {
    same("80x24", &wall(), (80, 24));
}

#[test]
fn a_large_terminal_shows_more() {
    same("160x50", &wall(), (160, 50));
}

#[test]
fn a_narrow_terminal_shows_one_list() {
    let mut wall = wall();
    wall.press(Key::Tab, NOW);
    same("50x15", &wall, (50, 15));
}

#[test]
fn what_is_missing_is_said() {
    let mut wall = Wall::default();
    same("asking", &wall, (80, 24));
    let mut seen = sample::seen(NOW.as_millis());
    seen.unanswered.insert("ctl-3".to_owned());
    wall.take_in(Update::Seen(Box::new(seen)), NOW);
    wall.take_in(Update::Away("cannot reach the controller".to_owned()), NOW.shifted(-64_000_000));
    same("away", &wall, (80, 24));
}

#[test]
fn an_explanation_and_a_question_lie_over_the_lists() {
    let mut wall = wall();
    wall.take_in(Update::Explained(Box::new(sample::explained("2001:db8::17", NOW.as_millis()))), NOW);
    same("explained", &wall, (80, 24));
    for key in [Key::Esc, Key::Tab, Key::Tab, Key::Char('c')] {
        wall.press(key, NOW);
    }
    assert!(text(&wall, (80, 24)).ends_with("close 2001:db8::5 at bastion-ssh? [y/N]\n"));
    wall.press(Key::Esc, NOW);
    wall.press(Key::Char('?'), NOW);
    assert!(text(&wall, (80, 24)).contains("lift the chosen ban"));
}

#[test]
fn no_size_is_too_small_to_say_so() {
    let mut wall = wall();
    wall.press(Key::Char('?'), NOW);
    for width in 0..90 {
        for height in 0..30 {
            let area = Rect::new(0, 0, width, height);
            draw(&wall, NOW, PLAIN, area, &mut Buffer::empty(area));
        }
    }
    assert!(text(&wall, (29, 8)).contains("too small"));
}

#[test]
fn the_chosen_row_is_seen_in_a_list_of_any_length() {
    let mut wall = Wall::default();
    let mut seen = sample::seen(NOW.as_millis());
    seen.hosts = (0..1_000)
        .map(|n| v1::Host { name: format!("h{n:03}"), connected: true, ..v1::Host::default() })
        .collect();
    seen.longer.push(Pane::Hosts);
    wall.take_in(Update::Seen(Box::new(seen)), NOW);
    wall.press(Key::End, NOW);
    let frame = text(&wall, (80, 24));
    assert!(frame.contains("h999") && frame.contains("Hosts (1000+)"), "{frame}");
    wall.press(Key::Home, NOW);
    assert!(text(&wall, (80, 24)).contains("h000"));
}

#[test]
fn without_colors_there_are_none_and_the_chosen_row_still_shows() {
    let area = Rect::new(0, 0, 80, 24);
    let cells = |color| {
        let mut buffer = Buffer::empty(area);
        draw(&wall(), NOW, Look { color }, area, &mut buffer);
        buffer.content
    };
    let colored = |cell: &ratatui::buffer::Cell| cell.fg != Color::Reset || cell.bg != Color::Reset;
    assert!(cells(true).iter().any(colored));
    assert!(!cells(false).iter().any(colored));
    assert!(cells(false).iter().any(|cell| cell.modifier.contains(Modifier::REVERSED)));
}

#[test]
fn bars_move_by_whole_columns_and_count_everything() {
    let knocks = &wall().seen().unwrap().overview.knocks.clone();
    let sum: u64 = knocks.iter().map(|second| u64::from(second.steps)).sum();
    for columns in [20, 61, 300, 1_000] {
        let bins = bins(knocks, |second| second.steps, NOW.as_millis(), columns);
        assert_eq!((bins.len(), bins.iter().sum::<u64>()), (columns, sum));
    }
    assert!(bins(knocks, |second| second.steps, NOW.as_millis(), 0).is_empty());
    // A clock that is behind the controller's does not lose the newest second.
    assert_eq!(bins(knocks, |second| second.steps, NOW.as_millis() - 5_000, 300).iter().sum::<u64>(), sum);
}

fn wall() -> Wall {
    let mut wall = Wall::default();
    wall.take_in(Update::Seen(Box::new(sample::seen(NOW.as_millis()))), NOW);
    wall.take_in(Update::Past(sample::events(NOW.as_millis())), NOW);
    for (back_ms, kind, message) in [
        (9_000, v1::EventKind::HostDisconnected, "agent disconnected: it left"),
        (2_000, v1::EventKind::OpeningGranted, "opened on 1 host for 15m"),
    ] {
        let event = v1::Event {
            kind: kind.into(),
            time_ms: NOW.as_millis() - back_ms,
            door: "bastion-ssh".to_owned(),
            source: "203.0.113.5".to_owned(),
            message: message.to_owned(),
            ..v1::Event::default()
        };
        wall.take_in(Update::Event(Box::new(event)), NOW);
    }
    wall
}

/// As a terminal of this size shows it.
fn text(wall: &Wall, (width, height): (u16, u16)) -> String {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| draw(wall, NOW, PLAIN, frame.area(), frame.buffer_mut())).unwrap();
    as_text(terminal.backend().buffer())
}

fn same(name: &str, wall: &Wall, size: (u16, u16)) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("src/top/draw/{name}.txt"));
    let drawn = text(wall, size);
    if std::env::var_os("FLEETKNOCK_UPDATE_FRAMES").is_some() {
        std::fs::write(&path, &drawn).unwrap();
    }
    let wanted = std::fs::read_to_string(&path).unwrap();
    assert!(drawn == wanted, "drawn:\n{drawn}\nwanted ({}):\n{wanted}", path.display());
}
