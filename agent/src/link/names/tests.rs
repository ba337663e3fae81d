//! What becomes of URLs whose names have several addresses, other ones later, or none that can be asked for.

use std::{collections::BTreeMap, sync::Mutex};

use super::*;

#[tokio::test]
async fn every_address_of_every_name_is_a_candidate_once() {
    let dns = Dns::default();
    dns.set("a.test", Some(&["10.0.0.1", "10.0.0.2", "2001:db8::1", "10.0.0.2"]));
    dns.set("b.test", Some(&["10.0.0.2", "::ffff:10.0.0.3"]));
    let mut names = dns.names(&["http://a.test", "http://b.test", "http://10.0.0.9:7", "http://[::1]"]);
    assert_eq!(
        round(&mut names).await,
        [
            "http://a.test:7600 (10.0.0.1:7600)",
            "http://a.test:7600 (10.0.0.2:7600)",
            "http://a.test:7600 ([2001:db8::1]:7600)",
            "http://b.test:7600 (10.0.0.3:7600)",
            "http://10.0.0.9:7",
            "http://[::1]:7600",
        ]
    );
}

#[tokio::test]
async fn each_round_asks_anew_and_keeps_what_was_known_when_nobody_answers() {
    let dns = Dns::default();
    let mut names = dns.names(&["http://a.test:7"]);
    assert!(round(&mut names).await.is_empty());
    dns.set("a.test", Some(&["10.0.0.1"]));
    assert_eq!(round(&mut names).await, ["http://a.test:7 (10.0.0.1:7)"]);
    dns.set("a.test", Some(&["10.0.0.2"]));
    assert_eq!(round(&mut names).await, ["http://a.test:7 (10.0.0.2:7)"]);
    dns.set("a.test", Some(&[]));
    assert_eq!(round(&mut names).await, ["http://a.test:7 (10.0.0.2:7)"]);
    dns.set("a.test", None);
    assert_eq!(round(&mut names).await, ["http://a.test:7 (10.0.0.2:7)"]);
}

#[tokio::test]
async fn a_name_that_cannot_be_resolved_does_not_stop_the_others() {
    let dns = Dns::default();
    dns.set("good.test", Some(&["10.0.0.1"]));
    let mut names = dns.names(&["http://bad.test", "http://good.test:7"]);
    assert_eq!(round(&mut names).await, ["http://good.test:7 (10.0.0.1:7)"]);
    assert!(names.entries[0].trouble.is_some() && names.entries[1].trouble.is_none());
    dns.set("bad.test", Some(&["10.0.0.2"]));
    round(&mut names).await;
    assert!(names.entries[0].trouble.is_none());
}

#[tokio::test]
async fn a_name_without_an_answer_is_asked_once_at_a_time_and_holds_nobody_up_who_has_an_address() {
    let dns = Dns::default();
    dns.set("slow.test", Some(&["hang"]));
    let mut alone = dns.names(&["http://slow.test"]);
    let begun = Instant::now();
    assert!(round(&mut alone).await.is_empty());
    let alone_took = begun.elapsed();
    assert!(alone_took >= PATIENCE_MOST);

    let mut names = dns.names(&["http://slow.test", "http://10.0.0.1:7"]);
    let begun = Instant::now();
    for _ in 0..4 {
        assert_eq!(round(&mut names).await, ["http://10.0.0.1:7"]);
    }
    assert!(begun.elapsed() < alone_took);
    assert_eq!(names.running.len(), 1);
}

#[tokio::test]
async fn an_endless_answer_is_cut() {
    let dns = Dns::default();
    let all: Vec<String> = (0..1_000).map(|n| format!("10.0.{}.{}", n / 250, n % 250)).collect();
    dns.set("many.test", Some(&all.iter().map(String::as_str).collect::<Vec<_>>()));
    assert_eq!(round(&mut dns.names(&["http://many.test"])).await.len(), ADDRESSES_MAX);
}

async fn round(names: &mut Names) -> Vec<String> {
    names.ask();
    names.answered(Instant::now()).await;
    names.candidates().iter().map(ToString::to_string).collect()
}

/// Name servers in memory: a name that is not set does not exist, and the address `hang` never comes.
#[derive(Clone, Default)]
struct Dns(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Dns {
    fn set(&self, name: &str, addresses: Option<&[&str]>) {
        let mut records = self.0.lock().unwrap();
        match addresses {
            Some(addresses) => {
                records.insert(name.to_owned(), addresses.iter().map(ToString::to_string).collect())
            }
            None => records.remove(name),
        };
    }

    fn names(&self, urls: &[&str]) -> Names {
        let records = Arc::clone(&self.0);
        let lookup: Lookup = Arc::new(move |host| {
            let found = records.lock().unwrap().get(&host).cloned();
            Box::pin(async move {
                let found = found.ok_or_else(|| io::Error::other("no such name"))?;
                if found == ["hang"] {
                    std::future::pending::<()>().await;
                }
                Ok(found.iter().map(|address| address.parse().unwrap()).collect())
            })
        });
        Names::with_lookup(urls.iter().map(|url| url.parse().unwrap()).collect(), lookup)
    }
}
