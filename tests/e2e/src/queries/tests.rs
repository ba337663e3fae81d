//! Names are found wherever PromQL has them.

use super::{Query, names};

#[test]
fn metrics_and_labels_are_told_apart() {
    for (expression, metrics, labels) in [
        ("sum by (host, kind) (rate(drops_total{kind=~\"a|b\"}[5m])) > 1", "drops_total", "host kind"),
        ("histogram_quantile(0.99, sum by (le) (rate(x_bucket[$__rate_interval])))", "x_bucket", "le"),
        ("(sum(lease_held) or vector(0)) == 0", "lease_held", ""),
        ("(a_end > 0) - time() < 1e5 or b_end - time() < 10", "a_end b_end", ""),
        ("fleet:x:p99_10m > 1", "fleet:x:p99_10m", ""),
        (
            "a * on (instance) group_left (version) b{x!='}', y=\"\\\"\"} offset 5m",
            "a b",
            "instance version x y",
        ),
        ("sum(up{job=\"etcd\"})", "up", "job"),
    ] {
        let found = names(expression);
        let words =
            |words: &std::collections::BTreeSet<String>| words.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!(
            (words(&found.metrics).as_str(), words(&found.labels).as_str()),
            (metrics, labels),
            "{expression}"
        );
    }
}

#[test]
fn variables_are_filled_in() {
    let written = "rate(x{host=~\"$host\", door=~\"$door\"}[$__rate_interval])".to_owned();
    let query = Query { place: String::new(), written };
    assert_eq!(query.filled(), "rate(x{host=~\".*\", door=~\".*\"}[15s])");
}
