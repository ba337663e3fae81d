//! A browser on a host of the lab: headless Chromium, driven by chromedriver over the W3C's WebDriver protocol
//! (w3.org/TR/webdriver2), of which a handful of commands is enough.

use std::{
    fmt,
    io::{BufReader, Write as _},
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use data_encoding::BASE64;
use serde_json::{Value, json};

use crate::{
    host::Host,
    probe::connect,
    process::Process,
    wait::{wait_until, within},
};

/// Where chromedriver listens, in a namespace that has no other.
const PORT: u16 = 9515;
/// How long chromedriver may take to listen, and how long one command may take, the start of Chromium included.
const READY: Duration = Duration::from_secs(20);
const COMMAND: Duration = Duration::from_secs(30);
/// How long the page may take to show something.
const SHOWN: Duration = Duration::from_secs(30);
/// The key of an element's id in answers (w3.org/TR/webdriver2, section 12).
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// Keys as they are typed (w3.org/TR/webdriver2, section 17.4.2).
pub const TAB: &str = "\u{e004}";
/// The same.
pub const ENTER: &str = "\u{e007}";

/// A running browser with one window. Dropping it ends it.
#[derive(Debug)]
pub struct Browser {
    host: Host,
    driver: Process,
    session: String,
}

/// Something on the page.
pub struct Element<'browser> {
    browser: &'browser Browser,
    id: String,
}

/// What a window looks like.
#[derive(Clone, Copy, Debug)]
pub struct Screen {
    /// In CSS pixels.
    pub width: u32,
    /// In CSS pixels.
    pub height: u32,
    /// Whether the system prefers dark.
    pub dark: bool,
}

impl Browser {
    /// Starts one on this host, with nothing remembered and whatever certificate a server shows accepted: what is tested
    /// is the page. What it remembers lies in `directory`, which must not be there yet.
    ///
    /// # Errors
    /// When chromium or chromedriver is missing or does not get ready.
    pub fn start(host: &Host, directory: &Path) -> Result<Self> {
        let driver = host
            .spawn("chromedriver", &["chromedriver", &format!("--port={PORT}")])
            .context("cannot run chromedriver; install it with: apt-get install chromium chromium-driver")?;
        wait_until("chromedriver to listen", READY, || {
            if !driver.is_running() {
                bail!("chromedriver ended: {}", driver.log());
            }
            host.reaches(SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT))
        })?;
        let mut browser = Self { host: host.clone(), driver, session: String::new() };
        let data = format!("--user-data-dir={}", directory.display());
        let flags = [
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-quic",
            "--disable-dev-shm-usage",
            "--no-first-run",
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
            "--hide-scrollbars",
            data.as_str(),
            "about:blank",
        ];
        let wanted = json!({"capabilities": {"alwaysMatch": {
            "browserName": "chrome",
            "acceptInsecureCerts": true,
            "goog:chromeOptions": {"args": flags},
            "goog:loggingPrefs": {"browser": "ALL", "performance": "ALL"},
        }}});
        let answer = browser.ask("POST", "/session", Some(&wanted))?;
        browser.session = answer["sessionId"].as_str().context("a session without an id")?.to_owned();
        // What the browser loads for a window of its own is no request of a page.
        browser.open("about:blank")?;
        browser.requests()?;
        Ok(browser)
    }

    /// Opens a page, or another fragment of the same.
    ///
    /// # Errors
    /// When it cannot be had.
    pub fn open(&self, url: &str) -> Result<()> {
        self.command("POST", "/url", Some(&json!({"url": url}))).map(drop)
    }

    /// Sets the size of the page and the system's theme.
    ///
    /// # Errors
    /// When the browser refuses.
    pub fn look(&self, screen: Screen) -> Result<()> {
        let phone = screen.width < 600;
        let metrics =
            json!({"width": screen.width, "height": screen.height, "deviceScaleFactor": 1, "mobile": phone});
        self.devtools("Emulation.setDeviceMetricsOverride", &metrics)?;
        let theme = if screen.dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": theme}]});
        self.devtools("Emulation.setEmulatedMedia", &features)
    }

    /// Runs a function's body in the page; what it returns, a promise's result too.
    ///
    /// # Errors
    /// When it throws.
    pub fn run(&self, script: &str) -> Result<Value> {
        self.command("POST", "/execute/sync", Some(&json!({"script": script, "args": []})))
    }

    /// All elements that a CSS selector finds, in their order.
    ///
    /// # Errors
    /// When the selector is none.
    pub fn all(&self, selector: &str) -> Result<Vec<Element<'_>>> {
        let found =
            self.command("POST", "/elements", Some(&json!({"using": "css selector", "value": selector})))?;
        let ids = found.as_array().into_iter().flatten().filter_map(|one| one[ELEMENT].as_str());
        Ok(ids.map(|id| Element { browser: self, id: id.to_owned() }).collect())
    }

    /// The first one, once there is one.
    ///
    /// # Errors
    /// When there is none in time.
    pub fn find(&self, selector: &str) -> Result<Element<'_>> {
        let (found, _) = within(&format!("{selector} to be on the page"), SHOWN, || {
            Ok(self.all(selector)?.into_iter().next())
        })
        .with_context(|| self.shown())?;
        Ok(found)
    }

    /// What an element shows, or nothing while it is not there.
    ///
    /// # Errors
    /// When the page cannot be asked.
    pub fn text_of(&self, selector: &str) -> Result<String> {
        let script = format!("return document.querySelector({})?.innerText ?? ''", Value::from(selector));
        Ok(self.run(&script)?.as_str().unwrap_or_default().to_owned())
    }

    /// Waits until an element shows all of this.
    ///
    /// # Errors
    /// When it does not in time.
    pub fn wait_text(&self, selector: &str, wanted: &[&str]) -> Result<Duration> {
        wait_until(&format!("{selector} to show {wanted:?}"), SHOWN, || {
            let text = self.text_of(selector)?;
            Ok(wanted.iter().all(|part| text.contains(part)))
        })
        .with_context(|| self.shown())
    }

    /// Waits until nothing on the page is found by this selector.
    ///
    /// # Errors
    /// When something still is.
    pub fn wait_gone(&self, selector: &str) -> Result<Duration> {
        wait_until(&format!("{selector} to be gone"), SHOWN, || Ok(self.all(selector)?.is_empty()))
            .with_context(|| self.shown())
    }

    /// Writes what is seen of the page into a PNG file.
    ///
    /// # Errors
    /// When it cannot be taken or written.
    pub fn screenshot(&self, file: &Path) -> Result<()> {
        let taken = self.command("GET", "/screenshot", None)?;
        let bytes = BASE64.decode(taken.as_str().context("a screenshot is a text")?.as_bytes())?;
        std::fs::write(file, bytes).with_context(|| format!("cannot write {}", file.display()))
    }

    /// What the page wrote to its console since it was last asked: errors, and what was not loaded.
    ///
    /// # Errors
    /// When the browser cannot be asked.
    pub fn complaints(&self) -> Result<Vec<String>> {
        let entries = self.log("browser")?;
        let bad =
            entries.iter().filter(|entry| matches!(entry["level"].as_str(), Some("SEVERE" | "WARNING")));
        Ok(bad.map(|entry| entry["message"].as_str().unwrap_or_default().to_owned()).collect())
    }

    /// Where the page sent requests since it was last asked.
    ///
    /// # Errors
    /// When the browser cannot be asked.
    pub fn requests(&self) -> Result<Vec<String>> {
        let mut urls = Vec::new();
        for entry in self.log("performance")? {
            let entry: Value = serde_json::from_str(entry["message"].as_str().unwrap_or("null"))?;
            if entry["message"]["method"] == "Network.requestWillBeSent" {
                urls.push(
                    entry["message"]["params"]["request"]["url"].as_str().unwrap_or_default().to_owned(),
                );
            }
        }
        Ok(urls)
    }

    fn log(&self, kind: &str) -> Result<Vec<Value>> {
        let entries = self.command("POST", "/se/log", Some(&json!({"type": kind})))?;
        Ok(entries.as_array().cloned().unwrap_or_default())
    }

    /// What the page shows now, for a failure's message.
    fn shown(&self) -> String {
        format!("the page shows: {}", self.text_of("body").unwrap_or_else(|error| format!("{error:#}")))
    }

    fn devtools(&self, method: &str, parameters: &Value) -> Result<()> {
        let order = json!({"cmd": method, "params": parameters});
        self.command("POST", "/goog/cdp/execute", Some(&order)).map(drop)
    }

    fn command(&self, verb: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        self.ask(verb, &format!("/session/{}{path}", self.session), body)
    }

    /// One command; chromedriver answers with what `value` holds.
    fn ask(&self, verb: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT);
        let mut stream = self.host.inside(|| connect(None, to, READY))??;
        stream.set_read_timeout(Some(COMMAND))?;
        let body = body.map(Value::to_string).unwrap_or_default();
        let head = format!(
            "{verb} {path} HTTP/1.1\r\nhost: {to}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes())?;
        let (code, text) = read_answer(BufReader::new(stream)).with_context(|| format!("{verb} {path}"))?;
        let mut answer: Value = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
        let value = answer["value"].take();
        if code != 200 {
            bail!("{verb} {path} {body}: {}: {}", value["error"], value["message"]);
        }
        Ok(value)
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        if !self.session.is_empty() {
            // Chromium is in a process group of its own: it is asked to go. The lab ends what would not.
            let _ = self.command("DELETE", "", None);
        }
        let _ = self.driver.kill();
    }
}

impl Element<'_> {
    /// Clicks on it.
    ///
    /// # Errors
    /// When it is covered, or not on the page any more.
    pub fn click(&self) -> Result<()> {
        self.command("POST", "/click", Some(&json!({}))).map(drop)
    }

    /// Types into it.
    ///
    /// # Errors
    /// When nothing can be typed there.
    pub fn write(&self, text: &str) -> Result<()> {
        self.command("POST", "/value", Some(&json!({"text": text}))).map(drop)
    }

    /// Its name for those who cannot see it (w3.org/TR/accname).
    ///
    /// # Errors
    /// When it is not on the page any more.
    pub fn name(&self) -> Result<String> {
        Ok(self.command("GET", "/computedlabel", None)?.as_str().unwrap_or_default().to_owned())
    }

    /// What it is for those who cannot see it (w3.org/TR/wai-aria).
    ///
    /// # Errors
    /// When it is not on the page any more.
    pub fn role(&self) -> Result<String> {
        Ok(self.command("GET", "/computedrole", None)?.as_str().unwrap_or_default().to_owned())
    }

    fn command(&self, verb: &str, path: &str, body: Option<&Value>) -> Result<Value> {
        self.browser.command(verb, &format!("/element/{}{path}", self.id), body)
    }
}

impl fmt::Debug for Element<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Element").field("id", &self.id).finish_non_exhaustive()
    }
}

/// The code and the body of an answer whose length is told.
fn read_answer(mut reader: impl std::io::BufRead) -> Result<(u16, String)> {
    let mut line = String::new();
    reader.read_line(&mut line).context("no answer")?;
    let code = line.split_whitespace().nth(1).and_then(|code| code.parse().ok()).context("no HTTP answer")?;
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().context("a content-length that is no number")?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body)?;
    Ok((code, String::from_utf8(body)?))
}

/// Where screenshots go: the folder that `FLEETKNOCK_SCREENSHOTS` names, or `screenshots` beside the folder of this build's
/// profile.
///
/// # Errors
/// When it cannot be made.
pub fn screenshots() -> Result<PathBuf> {
    let folder = match std::env::var_os("FLEETKNOCK_SCREENSHOTS") {
        Some(named) => PathBuf::from(named),
        None => {
            let own = std::env::current_exe()?;
            let target = own.ancestors().nth(3).context("this program is in no target folder")?;
            target.join("screenshots")
        }
    };
    std::fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    Ok(folder)
}
