//! Promise 30: the dashboard shows what is, in a real browser, and what is clicked there happens. A host goes away, a knock
//! progresses, an opening counts down, and is closed with a click: the port is shut. Each shows what its caller may do and
//! no more; every control has a name for those who cannot see it; what others wrote is text; and nothing is loaded from
//! elsewhere.

use std::{path::Path, time::Duration};

use anyhow::{Context, Result, ensure};
use fleetknock_e2e::SOON;
use fleetknock_lab::{
    Agent, Browser, Fleet, Host, Lab, Pki, Reach, Screen, Shot,
    browser::{ENTER, TAB, screenshots},
    fleet::{HTTP_PORT, HTTPS_PORT},
    wait_until,
};

mod cases;

const DOOR: &str = "bastion-ssh";
const DOORS: &str = "
apiVersion: fleetknock.io/v1
kind: Door
metadata: {name: bastion-ssh, labels: {team: access}}
spec:
  knock:
    sequence:
      - {hosts: {names: [edge-1]}, port: tcp/23981}
      - {hosts: {names: [db-1]}, port: udp/7653}
      - {hosts: {names: [bastion-1]}, port: tcp/31259}
    within: 4m
  opens: {hosts: {names: [bastion-1]}, ports: [tcp/22], for: 10m}
---
apiVersion: fleetknock.io/v1
kind: Door
metadata: {name: db-psql}
spec:
  knock:
    sequence:
      - {port: tcp/40961}
      - {port: udp/11273}
      - {port: tcp/30011}
      - {port: udp/20477}
    within: 30s
  opens: {hosts: {names: [db-1]}, ports: [tcp/5432], for: 2m}
  mode: observe
";
/// A text that would run if the page took it for markup.
const HOSTILE: &str = "<img src=x onerror=\"document.title='owned'\"><script>document.title='owned'</script>";
const BANNED: &str = "198.51.100.7";
/// Where no step is.
const WRONG: u16 = 29_867;
/// The ground of the dark theme, as browsers write it.
const DARK: &str = "rgb(13, 17, 23)";
/// Everything that can be reached by keyboard, and what tells how something goes on.
const CONTROLS: [&str; 10] = [
    "button",
    "a[href]",
    "input",
    "select",
    "textarea",
    "summary",
    "[tabindex=\"0\"]",
    "progress",
    "[role=progressbar]",
    "table",
];

struct Small<'lab> {
    fleet: Fleet<'lab>,
    agents: [Agent; 3],
    client: Host,
}

impl<'lab> Small<'lab> {
    fn start(lab: &'lab Lab, fleet: Fleet<'lab>) -> Result<Self> {
        let agent = |name: &str, role: &str| fleet.agent(name, &[role]);
        let agents =
            [agent("edge-1", "role=edge")?, agent("db-1", "role=db")?, agent("bastion-1", "role=bastion")?];
        agents[2].host().serve(&[22], &[])?;
        let client = lab.client("client")?;
        fleet.wait_connected(3)?;
        fleet.apply(DOORS)?;
        let small = Self { fleet, agents, client };
        small.fleet.wait_guarded(&small.client, &[small.agents[2].host().at(22)])?;
        Ok(small)
    }

    fn knock(&self) -> [Shot; 3] {
        let at = |agent: usize, port: u16| self.agents[agent].host().at(port);
        [Shot::Tcp(at(0, 23_981)), Shot::Udp(at(1, 7_653)), Shot::Tcp(at(2, 31_259))]
    }

    fn is(&self, reach: Reach) -> Result<Duration> {
        let to = self.agents[2].host().at(22);
        wait_until(&format!("{to} to be {reach:?}"), SOON, || Ok(self.client.reach(to)? == reach))
    }
}

#[test]
fn and_what_is_clicked_happens() -> Result<()> {
    Lab::scenario("dashboard", |lab| {
        let small = Small::start(lab, Fleet::start(lab)?)?;
        let origin = format!("http://127.0.0.1:{HTTP_PORT}");
        let browser = Browser::start(small.fleet.control(), &lab.directory().join("browser"))?;
        browser.look(Screen { width: 1440, height: 900, dark: false })?;
        browser.open(&format!("{origin}/"))?;
        browser.wait_text(".tiles", &["3 of 3"])?;
        browser.wait_text(".status", &["Live"])?;

        a_host_goes_away_and_returns(&small, &browser)?;
        let source = small.client.v4().to_string();
        a_knock_progresses(&small, &browser, &source)?;
        a_ban_is_text(&small, &browser)?;
        pictures(&browser, &screenshots()?)?;
        every_control_has_a_name(&browser, &origin, &source)?;
        a_keyboard_and_a_theme_will_do(&browser, &origin)?;
        an_opening_is_closed_with_a_click(&small, &browser, &origin, &source)?;
        a_wrong_knock_is_explained(lab, &small, &browser, &origin)?;

        ensure!(browser.complaints()?.is_empty(), "the console: {:?}", browser.complaints()?);
        let requests = browser.requests()?;
        ensure!(
            requests.iter().any(|url| url.ends_with("/WatchEvents")),
            "no request was seen: {requests:?}"
        );
        let foreign: Vec<_> = requests.iter().filter(|url| !url.starts_with(&format!("{origin}/"))).collect();
        ensure!(foreign.is_empty(), "the page asks others: {foreign:?}");
        cases::all_are_right(&browser)?;
        a_controller_that_is_away_is_told(&small, &browser, &origin)
    })
}

fn a_host_goes_away_and_returns(small: &Small<'_>, browser: &Browser) -> Result<()> {
    small.agents[1].kill()?;
    browser.wait_text("#hosts", &["db-1", "cut off"])?;
    browser.wait_text(".tiles", &["2 of 3", "1 cut off"])?;
    browser.wait_text("#events", &["db-1", "host disconnected"])?;
    small.agents[1].start()?;
    browser.wait_text(".tiles", &["3 of 3"])?;
    small.fleet.wait_connected(3).map(drop)
}

fn a_knock_progresses(small: &Small<'_>, browser: &Browser, source: &str) -> Result<()> {
    let knock = small.knock();
    for (number, shot) in knock.iter().enumerate().take(2) {
        small.client.knock(None, &[*shot])?;
        browser.wait_text("#attempts", &[source, DOOR, &format!("{} of 3", number + 1)])?;
    }
    small.client.knock(None, &knock[2..])?;
    browser.wait_text("#openings", &[source, DOOR, "✓ bastion-1"])?;
    browser.wait_text("#attempts", &["Nobody is knocking"])?;
    small.is(Reach::Open)?;
    let left = || {
        Ok::<_, anyhow::Error>(
            browser.run("return document.querySelector('#openings progress').value")?.as_f64(),
        )
    };
    let before = left()?.context("an opening without a countdown")?;
    wait_until("the countdown to fall", SOON * 2, || Ok(left()?.is_some_and(|now| now < before)))?;
    ensure!(browser.text_of("#openings .rest")?.contains(" min "), "the time left is not told");
    Ok(())
}

fn a_ban_is_text(small: &Small<'_>, browser: &Browser) -> Result<()> {
    small.fleet.cli_ok(&["ban", BANNED, "--for", "1h", "--reason", HOSTILE])?;
    browser.wait_text("#bans", &[BANNED, HOSTILE])?;
    let title = browser.run("return document.title")?;
    ensure!(title.as_str().is_some_and(|title| title.contains("Fleetknock")), "the title is {title}");
    ensure!(browser.all("main img, main script")?.is_empty(), "what others wrote is markup");
    Ok(())
}

fn an_opening_is_closed_with_a_click(
    small: &Small<'_>,
    browser: &Browser,
    origin: &str,
    source: &str,
) -> Result<()> {
    browser.open(&format!("{origin}/#/door/{DOOR}"))?;
    browser.wait_text("#openings", &[source])?;
    let button = browser.find("#openings td.action button")?;
    ensure!(
        button.name()? == format!("Close opening of {DOOR} for {source}"),
        "it is called {}",
        button.name()?
    );
    button.click()?;
    browser.wait_text("dialog[open]", &[DOOR, source])?;
    // Nothing happens before it is confirmed.
    browser.find("dialog[open] button[type=button]")?.click()?;
    browser.wait_gone("dialog[open]")?;
    small.is(Reach::Open)?;
    browser.find("#openings td.action button")?.click()?;
    browser.find("dialog[open] #reason")?.write("seen on the wall")?;
    browser.find("dialog[open] button[type=submit]")?.click()?;
    browser.wait_text("#openings", &["Nothing is open"])?;
    small.is(Reach::Filtered)?;
    browser.wait_text("#announcer", &[&format!("Closed the opening of {DOOR} for {source}")])?;
    ensure!(small.fleet.list("openings")?.is_empty(), "it is still open");
    Ok(())
}

fn a_wrong_knock_is_explained(lab: &Lab, small: &Small<'_>, browser: &Browser, origin: &str) -> Result<()> {
    let clumsy = lab.client("clumsy")?;
    let [first, _, last] = small.knock();
    clumsy.knock(None, &[first, Shot::Tcp(small.agents[1].host().at(WRONG)), last])?;
    browser.open(&format!("{origin}/#/explain"))?;
    browser.find("#source")?.write(&clumsy.v4().to_string())?;
    browser.find("#question button[type=submit]")?.click()?;
    browser.wait_text("#verdicts", &[DOOR, "wrong knock", "of 3"])?;
    ensure!(!browser.text_of("#verdicts .remedy")?.is_empty(), "no remedy is told");
    browser.wait_text("#seen", &["edge-1", "step", "db-1", "miss", "hidden"])?;
    ensure!(!browser.text_of("main")?.contains("23981"), "a step's port is shown");
    // Where there are no roles, everybody may see everything, if they say so.
    browser.find("input[name=reveal]")?.click()?;
    browser.find("#question button[type=submit]")?.click()?;
    browser.wait_text("#seen", &["tcp/23981"])?;
    // Another question does not show them by itself.
    browser.open(&format!("{origin}/#/explain?source={}&door={DOOR}", clumsy.v4()))?;
    browser.wait_text("#seen", &["edge-1", "hidden"])?;
    ensure!(!browser.text_of("main")?.contains("23981"), "a step's port is shown unasked");
    Ok(())
}

fn every_control_has_a_name(browser: &Browser, origin: &str, source: &str) -> Result<()> {
    let explain = format!("#/explain?source={source}");
    let mut names = Vec::new();
    for (route, ready) in [
        ("#/", "#controllers table"),
        ("#/host/bastion-1", "#guard table"),
        ("#/door/bastion-ssh", "#open form"),
        (&explain, "#question form"),
    ] {
        browser.open(&format!("{origin}/{route}"))?;
        browser.find(ready)?;
        names.extend(named(browser, route, "body")?);
    }
    browser.open(&format!("{origin}/#/"))?;
    browser.find("#bans .heading button")?.click()?;
    let dialog = browser.find("dialog[open]")?;
    ensure!(
        dialog.role()? == "dialog" && dialog.name()? == "Ban a source",
        "it is called {}",
        dialog.name()?
    );
    names.extend(named(browser, "the ban's dialog", "dialog")?);
    browser.run("document.querySelector('dialog').close()")?;
    for expected in
        ["Lift the ban of 198.51.100.7", "Skip to the content", "Explain", "Open bastion-ssh", "Ban it"]
    {
        ensure!(names.iter().any(|name| name == expected), "nothing is called {expected}: {names:?}");
    }
    Ok(())
}

/// The first key leads past the header; a chosen theme outlives the page.
fn a_keyboard_and_a_theme_will_do(browser: &Browser, origin: &str) -> Result<()> {
    browser.open("about:blank")?;
    browser.open(&format!("{origin}/#/host/edge-1"))?;
    browser.find("#guard")?;
    browser.run("document.activeElement.blur(); document.getSelection().empty()")?;
    let active = || {
        browser
            .run("return [document.activeElement.id, getComputedStyle(document.activeElement).outlineStyle]")
    };
    browser.find("body")?.write(TAB)?;
    ensure!(active()? == serde_json::json!(["skip", "solid"]), "Tab leads to {}", active()?);
    browser.find("#skip")?.write(ENTER)?;
    ensure!(active()?[0] == "main", "the skip link leads to {}", active()?);
    let theme = browser.find(".who button")?;
    ensure!(theme.name()?.starts_with("Theme: auto"), "it is called {}", theme.name()?);
    theme.click()?;
    theme.click()?;
    browser.wait_text(".who", &["Theme: dark"])?;
    browser.open("about:blank")?;
    browser.open(&format!("{origin}/"))?;
    browser.wait_text(".who", &["Theme: dark"])?;
    let ground = browser.run("return getComputedStyle(document.body).backgroundColor")?;
    ensure!(ground == DARK, "the ground is {ground}");
    browser.find(".who button")?.click()?;
    browser.wait_text(".who", &["Theme: auto"]).map(drop)
}

/// What is shown stays, with the time that it is of; and all goes on by itself.
fn a_controller_that_is_away_is_told(small: &Small<'_>, browser: &Browser, origin: &str) -> Result<()> {
    browser.open(&format!("{origin}/#/"))?;
    browser.wait_text(".tiles", &["3 of 3"])?;
    small.fleet.kill_controller()?;
    browser.wait_text(".status", &["No answer from"])?;
    browser.wait_text("main", &["as of", "bastion-1", DOOR])?;
    small.fleet.start_controller()?;
    browser.wait_text(".status", &["Live"])?;
    browser.wait_text(".tiles", &["3 of 3"]).map(drop)
}

/// The names of all controls of a page; asked again when the page has taken one of them away meanwhile.
fn named(browser: &Browser, page: &str, within: &str) -> Result<Vec<String>> {
    let controls = CONTROLS.map(|control| format!("{within} {control}")).join(", ");
    // What is folded away has no name until it is unfolded.
    browser.run("document.querySelectorAll('details').forEach((folded) => { folded.open = true; })")?;
    let mut names = Vec::new();
    wait_until(&format!("the controls of {page} to stay while they are looked at"), SOON * 4, || {
        names.clear();
        for control in browser.all(&controls)? {
            match control.name() {
                Ok(name) => names.push(name),
                Err(error) if format!("{error:#}").contains("stale element") => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    })?;
    ensure!(names.len() > 4, "{page} has only these controls: {names:?}");
    ensure!(
        names.iter().all(|name| !name.trim().is_empty()),
        "{page} has a control without a name: {names:?}"
    );
    Ok(names)
}

/// The pages as people see them, to be looked at; none of them is wider than its screen.
fn pictures(browser: &Browser, folder: &Path) -> Result<()> {
    for (name, width, height) in
        [("desktop", 1440, 900), ("phone", 390, 844), ("narrow", 360, 740), ("wall", 1920, 1080)]
    {
        for (theme, dark) in [("light", false), ("dark", true)] {
            browser.look(Screen { width, height, dark })?;
            let wide = browser.run("return [document.documentElement.scrollWidth, innerWidth, getComputedStyle(document.body).backgroundColor]")?;
            ensure!(wide[0].as_u64() <= Some(width.into()) && wide[1] == width, "{name} is too wide: {wide}");
            ensure!((wide[2] == DARK) == dark, "{name} {theme} has the ground {}", wide[2]);
            let file = folder.join(format!("{name}-{theme}.png"));
            browser.screenshot(&file)?;
        }
    }
    browser.look(Screen { width: 1440, height: 900, dark: false })
}

#[test]
fn to_those_who_sign_in_and_only_what_they_may() -> Result<()> {
    Lab::scenario("signin", |lab| {
        let pki = Pki::create(lab, "fleet", "blue")?;
        let small = Small::start(lab, Fleet::start_trusted(lab, &pki)?)?;
        let token =
            |name: &str, role: &str| small.fleet.cli_ok(&["token", "create", "--user", name, "--role", role]);
        let (viewer, admin) = (token("vera", "viewer")?, token("ada", "admin")?);
        let source = small.client.v4().to_string();
        small.fleet.cli_ok(&["open", DOOR, "--source", &source])?;
        let browser = Browser::start(small.fleet.control(), &lab.directory().join("browser"))?;
        browser.open(&format!("https://127.0.0.1:{HTTPS_PORT}/"))?;
        browser.wait_text("h1", &["Sign in"])?;
        ensure!(!browser.text_of("body")?.contains("edge-1"), "a stranger sees the fleet");
        sign_in(&browser, "fkt_0000000000000000_nobody")?;
        browser.wait_text(".sign-in .error", &["token"])?;
        browser.run("document.querySelector('#token').value = ''")?;

        sign_in(&browser, viewer.trim())?;
        browser.wait_text(".who", &["vera", "viewer"])?;
        browser.wait_text("#openings", &[&source])?;
        browser.wait_text(".status", &["Live"])?;
        ensure!(
            browser.all("#openings td.action button, #bans button")?.is_empty(),
            "a viewer is shown what it may not"
        );
        browser.open(&format!("https://127.0.0.1:{HTTPS_PORT}/#/door/{DOOR}"))?;
        browser.wait_text("#facts", &["3 steps within 4 min"])?;
        ensure!(browser.all("#open")?.is_empty(), "a viewer is shown the form to open");
        ensure!(!browser.text_of("main")?.contains("23981"), "a step's port is shown");
        named(&browser, "a viewer's page", "body")?;

        browser.find(".who button")?.click()?;
        browser.wait_text("h1", &["Sign in"])?;
        sign_in(&browser, admin.trim())?;
        browser.wait_text(".who", &["ada", "admin"])?;
        browser.find("#openings td.action button")?;
        let stored = browser.run("return [JSON.stringify(localStorage), document.cookie]")?.to_string();
        ensure!(!stored.contains(admin.trim()), "scripts of the page can read the token: {stored}");
        // That nobody is signed in is the only thing to complain of.
        let complaints = browser.complaints()?;
        ensure!(complaints.iter().all(|one| one.contains("401")), "the console: {complaints:?}");
        Ok(())
    })
}

fn sign_in(browser: &Browser, token: &str) -> Result<()> {
    browser.find("#token")?.write(token)?;
    browser.find(".sign-in button[type=submit]")?.click()
}
