//! The page's pure functions, each by what it makes of something.

use anyhow::{Context, Result, ensure};
use fleetknock_lab::Browser;
use serde_json::Value;

/// Runs all of them in the browser that the page is for.
pub(super) fn all_are_right(browser: &Browser) -> Result<()> {
    let tries: String = CASES.iter().map(|(tried, _)| format!("() => {tried},")).collect();
    let script =
        format!("return import('/logic.js').then((l) => [{tries}].map((run) => JSON.stringify(run())))");
    let results = browser.run(&script)?;
    let results = results.as_array().context("no list of results")?;
    ensure!(results.len() == CASES.len(), "{} of {} cases ran", results.len(), CASES.len());
    for ((tried, wanted), result) in CASES.iter().zip(results) {
        let result: Value = serde_json::from_str(result.as_str().unwrap_or("null"))?;
        let wanted: Value = serde_json::from_str(wanted).with_context(|| format!("{tried}: {wanted}"))?;
        ensure!(result == wanted, "{tried} is {result}, not {wanted}");
    }
    Ok(())
}

const CASES: &[(&str, &str)] = &[
    // Numbers and times for people.
    ("l.count('1234567')", r#""1,234,567""#),
    ("l.count(undefined)", r#""0""#),
    ("[l.plural(1, 'miss', 'misses'), l.plural('2', 'miss', 'misses')]", r#"["1 miss", "2 misses"]"#),
    (
        "[0, 999, 28_000, 245_000, 7_380_000, 273_600_000].map(l.span)",
        r#"["0 s", "0 s", "28 s", "4 min 05 s", "2 h 03 min", "3 d 04 h"]"#,
    ),
    ("l.span(-5)", r#""0 s""#),
    (
        "[l.left('10000', 9_999), l.left('10000', 10_000), l.left('10000', 20_000), l.left('0', 1)]",
        r#"["1 s", "over", "over", "over"]"#,
    ),
    (
        "[l.share('0', '100', 25), l.share('0', '100', 200), l.share('0', '100', -5), l.share('5', '5', 5)]",
        "[0.75, 0, 1, 0]",
    ),
    (
        "['30000', '1500', '7200000', '240000', '0'].map(l.setting)",
        r#"["30 s", "1500 ms", "2 h", "4 min", "0 s"]"#,
    ),
    (
        "['120', '-830000', '-30', '2400000', '4200'].map(l.offset)",
        r#"["+0.12 ms", "−830 ms", "−0.03 ms", "+2.40 s", "+4.2 ms"]"#,
    ),
    ("l.time(new Date(2026, 0, 2, 3, 4, 5).getTime())", r#""03:04:05""#),
    (
        "l.time(new Date(2026, 0, 2, 3, 4, 5).getTime(), new Date(2026, 0, 3).getTime())",
        r#""2026-01-02 03:04:05""#,
    ),
    ("l.precise(String(new Date(2026, 0, 2, 3, 4, 5, 67).getTime() * 1000 + 890))", r#""03:04:05.067""#),
    (
        "['', '90', '90s', ' 10m ', '2h', '1d'].map(l.parseSpan)",
        "[0, 90000, 90000, 600000, 7200000, 86400000]",
    ),
    (
        "[l.parseSpan('soon') === undefined, l.parseSpan('-1') === undefined, l.parseSpan('9999999') === undefined]",
        "[true, true, true]",
    ),
    // Words of the contract.
    (
        "[l.word('OPENING_STATE_', 'OPENING_STATE_ACTIVE'), l.word('KNOCK_OUTCOME_', 'KNOCK_OUTCOME_TOO_LATE'), l.word('A_', 7)]",
        r#"["active", "too late", "unspecified"]"#,
    ),
    (
        "l.ports([{protocol: 'PROTOCOL_TCP', port: 22}, {protocol: 'PROTOCOL_ICMP', port: 731}])",
        r#""tcp/22, icmp/731""#,
    ),
    (
        "l.range({protocol: 'PROTOCOL_UDP', first: 1, last: 1}) + ' ' + l.range({protocol: 'PROTOCOL_UDP', first: 1, last: 9})",
        r#""udp/1 udp/1–9""#,
    ),
    (
        "[l.selector({matchLabels: {role: 'edge'}, names: ['db-1']}), l.selector({matchLabels: {}, names: []}), l.selector(null)]",
        r#"["role=edge, db-1", "any host", "any host"]"#,
    ),
    // Who may do what: nobody unknown may do anything, and everybody everything where there are no roles.
    (
        "['', 'viewer', 'operator', 'admin', 'king'].map((role) => [l.mayOperate({role}), l.mayAdmin({role})])",
        "[[true, true], [false, false], [true, false], [true, true], [false, false]]",
    ),
    ("[l.mayOperate(undefined), l.mayAdmin(null)]", "[false, false]"),
    // Hosts: those that want attention first.
    ("l.drifts({connected: true, clockOffsetUs: '-500001', clockUncertaintyUs: '5'})", "true"),
    ("l.drifts({connected: true, clockOffsetUs: '500000', clockUncertaintyUs: '100000'})", "false"),
    ("l.drifts({connected: false, clockOffsetUs: '900000', clockUncertaintyUs: '5'})", "false"),
    (
        "l.byTrouble([{name: 'b', connected: true, warnings: []}, {name: 'a', connected: true, warnings: []}, {name: 'w', connected: true, warnings: ['x']}, {name: 'z', connected: false, warnings: []}, {name: 'd', connected: true, clockOffsetUs: '600000', warnings: []}]).map((host) => host.name)",
        r#"["z", "d", "w", "a", "b"]"#,
    ),
    // Openings that are over by the server's time are not shown, whatever was answered before.
    (
        "l.active([{id: '1', state: 'OPENING_STATE_ACTIVE', expiresMs: '5'}, {id: '2', state: 'OPENING_STATE_ACTIVE', expiresMs: '30'}, {id: '3', state: 'OPENING_STATE_ACTIVE', expiresMs: '20'}, {id: '4', state: 'OPENING_STATE_WITHDRAWN', expiresMs: '30'}], 10).map((one) => one.id)",
        r#"["3", "2"]"#,
    ),
    // The chart: bins stand still, take in only their time, and nothing is drawn for nothing.
    (
        "((b) => [b.lanes.steps.length, b.lanes.steps.at(-1), b.lanes.steps.at(-2), b.totals.steps, b.totals.misses, b.first])(l.bins([{fromMs: '1000000', steps: 2, completed: 1, misses: 0, banned: 0, others: 0}, {fromMs: '1004000', steps: 1}, {fromMs: '995000', misses: 4}, {fromMs: '1', steps: 99}], 1_004_999))",
        "[60, 3, 0, 3, 4, 705000]",
    ),
    ("l.bars([0, 5, 10], 30, 20, 1)", r#""M10 10h9V20h-9zM20 0h9V20h-9z""#),
    ("l.bars([0, 0], 30, 20)", r#""""#),
    (
        "l.minutes(l.bins([{fromMs: '1000000', steps: 2}, {fromMs: '950000', misses: 3}], 1_004_999)).map((row) => [row.steps, row.misses])",
        "[[2, 3], [0, 0], [0, 0], [0, 0], [0, 0]]",
    ),
    (
        "l.chartText({steps: 1, completed: 0, misses: 1, banned: 2})",
        r#""Knocks in the last 5 minutes: 1 step, 0 complete, 1 miss, 2 of banned sources.""#,
    ),
    // Events: none twice, the latest first, and never more than the bound, however long the page is open.
    (
        "l.mergeEvents([{id: 'a', timeMs: '1'}], [{id: 'b', timeMs: '2'}, {id: 'a', timeMs: '1'}, {id: 'b', timeMs: '2'}]).map((event) => event.id)",
        r#"["b", "a"]"#,
    ),
    (
        "l.mergeEvents([{kind: 'K', timeMs: '1', message: 'x'}], [{kind: 'K', timeMs: '1', message: 'x'}]).length",
        "1",
    ),
    (
        "Array.from({length: 5000}, (_, n) => ({id: String(n), timeMs: String(n)})).reduce((kept, event) => l.mergeEvents(kept, [event]), []).length",
        "500",
    ),
    (
        "l.mergeEvents([{id: '5', timeMs: '5'}], [{id: '6', timeMs: '6'}, {id: '7', timeMs: '7'}], 2).map((event) => event.id)",
        r#"["7", "6"]"#,
    ),
    (
        "[l.filterEvents([{door: 'bastion-ssh', source: '10.0.0.9'}], {door: 'bas'}).length, l.filterEvents([{door: 'bastion-ssh'}], {door: 'bas'}, true).length, l.filterEvents([{}], {host: 'a'}).length]",
        "[1, 0, 0]",
    ),
    (
        "[l.tone('EVENT_KIND_HOST_DISCONNECTED'), l.tone('EVENT_KIND_OPENING_GRANTED'), l.tone('EVENT_KIND_DOOR_APPLIED'), l.tone(99)]",
        r#"["bad", "ok", "", ""]"#,
    ),
    (
        "l.spoken({kind: 'EVENT_KIND_HOST_DISCONNECTED', door: '', source: '', host: 'db-1', message: 'no answer'})",
        r#""host disconnected: db-1: no answer""#,
    ),
    // Patience, and the fleet's time.
    ("[1, 2, 3, 10, 1000].map((failures) => l.backOff(failures, 0.5))", "[1000, 2000, 4000, 30000, 30000]"),
    ("[l.backOff(1, 0), l.backOff(1, 1)]", "[750, 1250]"),
    (
        "[l.betterSample(undefined, {at: 0, took: 90}).took, l.betterSample({at: 0, took: 5}, {at: 10, took: 90}).took, l.betterSample({at: 0, took: 5}, {at: 70_000, took: 90}).took]",
        "[90, 5, 90]",
    ),
    (
        "[l.connection({failures: 0, answeredAt: 5, streaming: true, unanswered: [], controller: 'c'}, 5), l.connection({failures: 0, answeredAt: 5, streaming: true, unanswered: ['ctl-2'], controller: 'c'}, 5)]",
        r#"[{"level": "ok", "text": "Live"}, {"level": "warn", "text": "Not answered by: ctl-2"}]"#,
    ),
    (
        "l.connection({failures: 2, answeredAt: 0, streaming: true, unanswered: [], controller: 'ctl-1'}, 5).text",
        r#""No answer from ctl-1; trying again""#,
    ),
    // Routes, with names that others chose.
    (
        "['', '#/', '#/nowhere', '#/host/', '#/host/db-1', '#/door/a%2Fb', '#/host/%'].map(l.parseRoute)",
        r#"[{"page": "overview"}, {"page": "overview"}, {"page": "overview"}, {"page": "overview"}, {"page": "host", "name": "db-1"}, {"page": "door", "name": "a/b"}, {"page": "host", "name": "%"}]"#,
    ),
    (
        "l.parseRoute(l.explainRoute('fd77::10', 'a b&c'))",
        r#"{"page": "explain", "source": "fd77::10", "door": "a b&c"}"#,
    ),
    ("l.parseRoute(l.hostRoute('<b>?#/')).name", r#""<b>?#/""#),
    (
        "[l.verdictTone('EXPLAIN_CODE_OPEN'), l.verdictTone('EXPLAIN_CODE_OPEN_IN_PART'), l.verdictTone('EXPLAIN_CODE_NEVER_HEARD_OF')]",
        r#"["ok", "warn", "bad"]"#,
    ),
];
