//! Keys and answers against a small fleet.

use super::*;
use crate::top::sample;

const NOW: Timestamp = Timestamp::from_millis(1_795_361_411_000);

#[test]
fn keys_move_between_lists_and_rows() {
    let mut wall = wall();
    assert_eq!(wall.focus(), Pane::Hosts);
    wall.press(Key::Tab, NOW);
    wall.press(Key::Right, NOW);
    assert_eq!(wall.focus(), Pane::Openings);
    assert_eq!(chosen(&wall), "o3", "what ends first stands above");
    wall.press(Key::Down, NOW);
    assert_eq!(chosen(&wall), "o2");
    wall.press(Key::End, NOW);
    wall.press(Key::Down, NOW);
    assert_eq!(chosen(&wall), "o1");
    wall.press(Key::Home, NOW);
    wall.press(Key::Up, NOW);
    assert_eq!(chosen(&wall), "o3");
    wall.press(Key::BackTab, NOW);
    wall.press(Key::Left, NOW);
    wall.press(Key::Left, NOW);
    assert_eq!(wall.focus(), Pane::Events);
}

#[test]
fn what_is_chosen_stays_chosen_when_rows_move_and_go() {
    let mut wall = wall();
    press_all(&mut wall, &[Key::Tab, Key::Tab, Key::Down]);
    assert_eq!(chosen(&wall), "o2");
    let mut seen = seen();
    seen.openings.retain(|opening| opening.id != "o3");
    seen.openings.push(v1::Opening { id: "o4".to_owned(), expires_ms: 1, ..v1::Opening::default() });
    seen.openings.push(v1::Opening { id: "o5".to_owned(), expires_ms: 2, ..v1::Opening::default() });
    wall.take_in(Update::Seen(Box::new(seen.clone())), NOW);
    assert_eq!(chosen(&wall), "o2");
    seen.openings.retain(|opening| opening.id == "o4");
    wall.take_in(Update::Seen(Box::new(seen.clone())), NOW);
    assert_eq!(chosen(&wall), "o4");
    seen.openings.clear();
    wall.take_in(Update::Seen(Box::new(seen)), NOW);
    assert_eq!(wall.press(Key::Char('c'), NOW), Outcome::Stay);
    assert!(matches!(wall.mode(), Mode::Lists));
}

#[test]
fn only_a_yes_closes_and_what_was_asked_about_is_closed() {
    let mut wall = wall();
    press_all(&mut wall, &[Key::Tab, Key::Tab, Key::Down, Key::Char('c')]);
    for no in [Key::Char('n'), Key::Enter, Key::Esc, Key::Tab] {
        assert_eq!(wall.press(no, NOW), Outcome::Stay);
        assert_eq!(wall.said(), Some("nothing was done"));
        wall.press(Key::Char('c'), NOW);
    }
    // It is gone meanwhile: what is asked about does not become another one.
    let mut other = seen();
    other.openings.retain(|opening| opening.id == "o1");
    wall.take_in(Update::Seen(Box::new(other)), NOW);
    let close = Order::Close { id: "o2".to_owned(), what: "203.0.113.9 at bastion-ssh".to_owned() };
    assert_eq!(wall.press(Key::Char('y'), NOW), Outcome::Do(close));
}

#[test]
fn bans_are_lifted_by_who_may() {
    let mut wall = wall();
    wall.press(Key::Char('u'), NOW);
    assert!(wall.said().is_some_and(|said| said.contains("choose a ban")), "the hosts have the focus");
    press_all(&mut wall, &[Key::Tab, Key::Tab, Key::Tab, Key::Char('u')]);
    let unban = Order::Unban { source: "192.0.2.66".to_owned() };
    assert_eq!(wall.press(Key::Char('Y'), NOW), Outcome::Do(unban));

    for (role, may) in [("viewer", false), ("operator", true), ("admin", true), ("", true)] {
        let mut seen = seen();
        seen.overview.caller.as_mut().unwrap().role = role.to_owned();
        wall.take_in(Update::Seen(Box::new(seen)), NOW);
        wall.press(Key::Char('u'), NOW);
        assert_eq!(matches!(wall.mode(), Mode::Asking(_)), may, "{role}");
        assert_eq!(wall.said().is_some_and(|said| said.contains("operator")), !may, "{role}");
        wall.press(Key::Char('n'), NOW);
    }
}

#[test]
fn a_source_is_explained_and_scrolled() {
    let mut wall = wall();
    assert_eq!(wall.press(Key::Char('e'), NOW), Outcome::Stay);
    assert!(wall.said().is_some_and(|said| said.contains("no source")));
    wall.press(Key::Tab, NOW);
    let explain = Order::Explain { source: "2001:db8::17".to_owned() };
    assert_eq!(wall.press(Key::Char('e'), NOW), Outcome::Do(explain));
    let answer = sample::explained("2001:db8::17", NOW.as_millis());
    wall.take_in(Update::Explained(Box::new(answer)), NOW);
    let line = |wall: &Wall| if let Mode::Explained(_, line) = wall.mode() { Some(*line) } else { None };
    press_all(&mut wall, &[Key::Down, Key::Down, Key::Up]);
    assert_eq!(line(&wall), Some(1));
    press_all(&mut wall, &[Key::PageDown, Key::PageDown, Key::PageDown]);
    assert!(line(&wall).is_some_and(|line| line < 10), "not beyond its end");
    wall.press(Key::Esc, NOW);
    assert_eq!(line(&wall), None);
}

#[test]
fn a_filter_leaves_what_contains_it_and_esc_takes_it_off_before_it_quits() {
    let mut wall = wall();
    wall.press(Key::Char('/'), NOW);
    press_all(&mut wall, &"EDGx".chars().map(Key::Char).collect::<Vec<_>>());
    press_all(&mut wall, &[Key::Backspace, Key::Char('e'), Key::Enter]);
    assert_eq!(wall.filter(), "EDGe");
    let names = |wall: &Wall| wall.rows(Pane::Hosts, NOW).into_iter().map(|row| row.key).collect::<Vec<_>>();
    assert_eq!(names(&wall), ["edge-1", "edge-2"]);
    assert_eq!(wall.rows(Pane::Bans, NOW).len(), 0);
    assert_eq!(wall.press(Key::Esc, NOW), Outcome::Stay);
    assert_eq!(names(&wall).len(), 4);
    assert_eq!(wall.press(Key::Esc, NOW), Outcome::Quit);

    wall.press(Key::Char('/'), NOW);
    press_all(&mut wall, &[Key::Char('q'); 1_000]);
    assert_eq!(wall.filter().len(), FILTER_MAX, "q is a letter there");
    assert_eq!(wall.press(Key::Interrupt, NOW), Outcome::Quit);
}

#[test]
fn q_and_ctrl_c_quit_from_where_they_should() {
    let mut wall = wall();
    assert_eq!(wall.press(Key::Char('q'), NOW), Outcome::Quit);
    wall.press(Key::Char('?'), NOW);
    assert_eq!(wall.press(Key::Char('q'), NOW), Outcome::Stay, "it ends the help");
    wall.press(Key::Char('?'), NOW);
    assert_eq!(wall.press(Key::Interrupt, NOW), Outcome::Quit);
}

#[test]
fn events_are_bounded_newest_first_and_kept_ones_are_known_once() {
    let mut wall = wall();
    let event = |time_ms: u64, id: &str| v1::Event { time_ms, id: id.to_owned(), ..v1::Event::default() };
    wall.take_in(Update::Event(Box::new(event(7, "b"))), NOW);
    wall.take_in(Update::Past(vec![event(5, "a"), event(7, "b")]), NOW);
    assert_eq!(wall.events().map(|event| event.time_ms).collect::<Vec<_>>(), [7, 5]);
    for time_ms in 10..10_000 {
        wall.take_in(Update::Event(Box::new(event(time_ms, ""))), NOW);
    }
    assert_eq!(wall.events().count(), EVENTS_MAX);
    assert_eq!(wall.events().next().unwrap().time_ms, 9_999);
}

#[test]
fn it_is_known_since_when_nobody_answers_and_what_was_seen_stays() {
    let mut wall = wall();
    let later = |seconds: i64| NOW.shifted(seconds * 1_000_000);
    wall.take_in(Update::Away("first".to_owned()), later(3));
    wall.take_in(Update::Away("second".to_owned()), later(9));
    assert_eq!(wall.away(), Some(&(later(3), "second".to_owned())));
    assert_eq!(wall.rows(Pane::Openings, later(9)).len(), 3);
    wall.take_in(Update::Seen(Box::new(seen())), later(12));
    assert_eq!(wall.away(), None);
}

#[test]
fn times_are_the_fleets() {
    let mut wall = wall();
    // This machine is an hour behind.
    let own = NOW.shifted(-3_600_000_000);
    wall.take_in(Update::Seen(Box::new(seen())), own);
    assert_eq!(wall.rows(Pane::Attempts, own)[0].cells[2], "4s");
    assert_eq!(wall.rows(Pane::Attempts, own.shifted(2_000_000))[0].cells[2], "2s");
}

#[test]
fn nothing_is_ordered_before_anything_is_known() {
    let mut wall = Wall::default();
    for key in [Key::Down, Key::Char('c'), Key::Char('u'), Key::Char('e'), Key::Tab, Key::End, Key::Enter] {
        assert_eq!(wall.press(key, NOW), Outcome::Stay, "{key:?}");
    }
    assert!(matches!(wall.mode(), Mode::Lists));
}

fn press_all(wall: &mut Wall, keys: &[Key]) {
    for key in keys {
        wall.press(*key, NOW);
    }
}

fn chosen(wall: &Wall) -> String {
    wall.chosen_row(NOW).unwrap().key
}

fn wall() -> Wall {
    let mut wall = Wall::default();
    wall.take_in(Update::Seen(Box::new(seen())), NOW);
    wall
}

fn seen() -> Seen {
    sample::seen(NOW.as_millis())
}
