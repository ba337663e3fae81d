//! Pages over what several controllers follow.

use super::*;

#[test]
fn pages_over_several_controllers_cover_every_attempt_once_in_order() {
    let parts: [&[u32]; 4] = [&[1, 2, 3, 10, 11], &[], &[4, 5, 12], &[6, 7, 8, 9, 13, 14, 15]];
    for size in 1..=16 {
        let (mut seen, mut token) = (Vec::new(), String::new());
        loop {
            let page = Page::parse(size, &token).unwrap();
            let merged = merge(&page, parts.iter().map(|numbers| part(&page, numbers, 1)));
            assert!(merged.attempts.len() <= size as usize);
            assert_eq!((merged.sources_in_flight, merged.sources_limit), (15, 400));
            seen.extend(merged.attempts.into_iter().map(|attempt| attempt.source));
            if merged.next_page_token.is_empty() {
                break;
            }
            token = merged.next_page_token;
        }
        assert_eq!(seen, (1..=15).map(source).collect::<Vec<_>>(), "{size}");
    }
}

#[test]
fn of_an_attempt_followed_twice_the_one_further_on_is_told() {
    let page = Page::parse(10, "").unwrap();
    for order in [[1, 2], [2, 1]] {
        let merged = merge(&page, order.into_iter().map(|done| part(&page, &[7], done)));
        assert_eq!(merged.attempts.len(), 1);
        assert_eq!(merged.attempts[0].steps_done, 2);
    }
}

fn source(number: u32) -> String {
    format!("203.0.113.{}", 100 + number)
}

fn part(page: &Page<'_>, numbers: &[u32], steps_done: u32) -> pb::ListAttemptsResponse {
    let attempt = |number: &u32| pb::Attempt {
        door: "bastion-ssh".to_owned(),
        source: source(*number),
        steps_done,
        steps_total: 3,
        ..pb::Attempt::default()
    };
    let attempts = numbers.iter().map(attempt).map(|a| (format!("{}/{}", a.door, a.source), a));
    let (attempts, next_page_token) = page.cut(attempts);
    let sources_in_flight = numbers.len() as u64;
    pb::ListAttemptsResponse {
        attempts,
        next_page_token,
        sources_in_flight,
        sources_limit: 100,
        unanswered: Vec::new(),
    }
}
