//! A real Prometheus on a host of its own, scraping every second, and asked over HTTP.

use std::{
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;

use crate::{host::Host, http, process::Process, programs, wait_until};

const PORT: u16 = 9090;
/// How long it may take to get ready on a busy machine.
const READY: Duration = Duration::from_secs(20);

/// A Prometheus that runs until the lab ends.
#[derive(Debug)]
pub struct Prometheus {
    host: Host,
    process: Process,
}

impl Prometheus {
    /// Starts one on this host, with its data in `directory`: scrapes these jobs' targets and evaluates these rules every
    /// second.
    ///
    /// # Errors
    /// When Prometheus is not installed, does not take the rules, or is not ready within twenty seconds.
    pub fn start(
        host: &Host,
        directory: &Path,
        rules: &Path,
        jobs: &[(&str, Vec<SocketAddr>)],
    ) -> Result<Self> {
        if !programs::has_tool("prometheus") {
            bail!(
                "prometheus is not installed; install it with: apt-get install prometheus (or run: make deps)"
            );
        }
        let mut config = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\nrule_files: ['{}']\n\
             scrape_configs:\n",
            rules.display()
        );
        for (job, targets) in jobs {
            let targets: Vec<_> = targets.iter().map(|target| format!("'{target}'")).collect();
            config.push_str(&format!(
                "  - {{job_name: {job}, static_configs: [{{targets: [{}]}}]}}\n",
                targets.join(", ")
            ));
        }
        let file = directory.join("prometheus.yml");
        fs::write(&file, config).with_context(|| format!("cannot write {}", file.display()))?;
        let process = host.spawn(
            "prometheus",
            &[
                "prometheus".to_owned(),
                format!("--config.file={}", file.display()),
                format!("--storage.tsdb.path={}", directory.join("prometheus").display()),
                format!("--web.listen-address=0.0.0.0:{PORT}"),
                "--log.level=warn".to_owned(),
            ],
        )?;
        let prometheus = Self { host: host.clone(), process };
        wait_until("Prometheus to be ready", READY, || {
            ensure!(prometheus.process.is_running(), "Prometheus ended: {}", prometheus.process.log());
            Ok(prometheus.get("/-/ready").is_ok_and(|answer| answer.code == 200))
        })?;
        Ok(prometheus)
    }

    /// The samples of an expression now.
    ///
    /// # Errors
    /// When it does not answer, or the expression is none.
    pub fn query(&self, expression: &str) -> Result<Vec<Value>> {
        let data = self.ask(&format!("query?query={}", escaped(expression)))?;
        let Some(Value::Array(samples)) = data.get("result").cloned() else {
            bail!("'{expression}' is answered with {data}");
        };
        Ok(samples)
    }

    /// What `/api/v1/PATH` says, such as `label/__name__/values`.
    ///
    /// # Errors
    /// When it does not answer, or with an error.
    pub fn ask(&self, path: &str) -> Result<Value> {
        let answer = self.get(&format!("/api/v1/{path}"))?;
        let mut said: Value = serde_json::from_str(&answer.text)
            .with_context(|| format!("{path} is answered with {}", answer.text))?;
        ensure!(said["status"] == "success", "{path} is answered with {said}");
        Ok(said["data"].take())
    }

    /// The words of a list that `/api/v1/PATH` says.
    ///
    /// # Errors
    /// As [`ask`](Self::ask).
    pub fn words(&self, path: &str) -> Result<Vec<String>> {
        let said = self.ask(path)?;
        let words = said.as_array().with_context(|| format!("{path} is answered with {said}"))?;
        Ok(words.iter().filter_map(Value::as_str).map(str::to_owned).collect())
    }

    /// Asks again and again for what must have an answer, until all have one or the time is up. What has none then.
    ///
    /// # Errors
    /// When one is no expression.
    pub fn unanswered<'a>(
        &self,
        expressions: impl IntoIterator<Item = &'a str>,
        within: Duration,
    ) -> Result<Vec<&'a str>> {
        let mut left: Vec<_> = expressions.into_iter().collect();
        let start = Instant::now();
        loop {
            let mut still = Vec::new();
            for expression in left {
                if self.query(expression)?.is_empty() {
                    still.push(expression);
                }
            }
            if still.is_empty() || start.elapsed() > within {
                return Ok(still);
            }
            left = still;
            std::thread::sleep(Duration::from_millis(500));
        }
    }

    fn get(&self, path: &str) -> Result<http::Answer> {
        http::get(&self.host, SocketAddr::new(self.host.v4(), PORT), path)
    }
}

/// As a part of a URL's query.
fn escaped(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte);
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
