//! Chromium without a window, driven over a pair of pipes: JSON texts of the `DevTools` protocol, each ended by a zero.
//!
//! Pipes need no port and no socket library: `--remote-debugging-pipe` reads file descriptor 3 and writes 4.

use std::io::{BufRead as _, BufReader, PipeReader, PipeWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};

/// A browser with one page.
pub(crate) struct Browser {
    child: Child,
    to: PipeWriter,
    from: BufReader<PipeReader>,
    /// Session of the page, once there is one.
    session: Option<String>,
    last: u64,
    /// What happened meanwhile, oldest first.
    pub(crate) events: Vec<Value>,
    _profile: tempfile::TempDir,
}

/// Where Chromium is, or what to say where it is not and was not asked for.
pub(crate) fn chromium() -> anyhow::Result<Option<PathBuf>> {
    let asked = std::env::var_os("MOETRACE_TEST_CHROMIUM").is_some_and(|v| v == "1");
    if !asked {
        eprintln!("skipped: the page is not tried in a browser unless MOETRACE_TEST_CHROMIUM=1");
        return Ok(None);
    }
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).flat_map(|dir| names.map(|name| dir.join(name)));
    let found = found.into_iter().find(|file| file.exists());
    Ok(Some(found.context("MOETRACE_TEST_CHROMIUM=1, but there is no chromium on the path")?))
}

impl Browser {
    /// Starts it, with pages as wide and high as given.
    pub(crate) fn start(program: &Path, width: u32, height: u32) -> anyhow::Result<Self> {
        let profile = tempfile::tempdir()?;
        let (its_input, to) = std::io::pipe()?;
        let (from, its_output) = std::io::pipe()?;
        // The shell puts both ends where Chromium looks for them.
        let child = Command::new("bash")
            .arg("-c")
            .arg(r#"exec "$0" "$@" 3<&0 4>&1 0</dev/null 1>/dev/null"#)
            .arg(program)
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--no-first-run",
            ])
            .args(["--remote-debugging-pipe", "--hide-scrollbars", "--force-device-scale-factor=1"])
            .arg(format!("--window-size={width},{height}"))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(its_input)
            .stdout(its_output)
            .stderr(Stdio::null())
            .spawn()
            .context("starting chromium")?;
        let from = BufReader::new(from);
        let mut browser =
            Self { child, to, from, session: None, last: 0, events: Vec::new(), _profile: profile };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }))?;
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", &attach)?;
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        for domain in ["Page", "Runtime", "Network", "Log"] {
            browser.call(&format!("{domain}.enable"), &json!({}))?;
        }
        Ok(browser)
    }

    /// One command and its answer; events that come in between are kept.
    pub(crate) fn call(&mut self, method: &str, params: &Value) -> anyhow::Result<Value> {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = json!(session);
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.to.write_all(&bytes)?;
        self.to.flush()?;
        loop {
            let message = self.receive()?;
            if message["id"] == self.last {
                if let Some(error) = message.get("error") {
                    bail!("{method}: {error}");
                }
                return Ok(message["result"].clone());
            }
            self.events.push(message);
        }
    }

    fn receive(&mut self) -> anyhow::Result<Value> {
        let mut bytes = Vec::new();
        self.from.read_until(0, &mut bytes)?;
        if bytes.pop() != Some(0) {
            bail!("chromium has ended");
        }
        Ok(serde_json::from_slice(&bytes)?)
    }

    /// Opens a file and waits until it is loaded.
    pub(crate) fn open(&mut self, file: &Path) -> anyhow::Result<()> {
        self.call("Page.navigate", &json!({ "url": format!("file://{}", file.display()) }))?;
        while !self.events.iter().any(|e| e["method"] == "Page.loadEventFired") {
            let event = self.receive()?;
            self.events.push(event);
        }
        Ok(())
    }

    /// The value of an expression in the page.
    pub(crate) fn eval(&mut self, expression: &str) -> anyhow::Result<Value> {
        let params = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.call("Runtime.evaluate", &params)?;
        if let Some(wrong) = answer.get("exceptionDetails") {
            bail!("{expression}: {wrong}");
        }
        Ok(answer["result"]["value"].clone())
    }

    pub(crate) fn text(&mut self, expression: &str) -> anyhow::Result<String> {
        let value = self.eval(expression)?;
        Ok(value.as_str().with_context(|| format!("{expression} is {value}"))?.to_owned())
    }

    /// A click of the left button in the middle of an element, wherever it is.
    pub(crate) fn click(&mut self, selector: &str) -> anyhow::Result<()> {
        let (x, y) = self.middle(selector)?;
        self.click_at(x, y)
    }

    /// A click of the left button at a place.
    pub(crate) fn click_at(&mut self, x: f64, y: f64) -> anyhow::Result<()> {
        for (kind, buttons) in [("mouseMoved", 0), ("mousePressed", 1), ("mouseReleased", 1)] {
            let params = json!({ "type": kind, "x": x, "y": y, "button": "left", "buttons": buttons, "clickCount": 1 });
            self.call("Input.dispatchMouseEvent", &params)?;
        }
        Ok(())
    }

    /// The pointer moved to a place.
    pub(crate) fn point(&mut self, x: f64, y: f64) -> anyhow::Result<()> {
        self.call("Input.dispatchMouseEvent", &json!({ "type": "mouseMoved", "x": x, "y": y }))?;
        Ok(())
    }

    /// The middle of an element, scrolled into view.
    pub(crate) fn middle(&mut self, selector: &str) -> anyhow::Result<(f64, f64)> {
        let place = self.eval(&format!(
            "(() => {{ const e = document.querySelector({}); e.scrollIntoView({{block:'center',behavior:'instant'}}); \
             const b = e.getBoundingClientRect(); return [b.x + b.width / 2, b.y + b.height / 2]; }})()",
            json!(selector)
        ))?;
        let of = |i: usize| place[i].as_f64().with_context(|| format!("{selector} is nowhere"));
        Ok((of(0)?, of(1)?))
    }

    /// One key, down and up.
    pub(crate) fn key(&mut self, key: &str) -> anyhow::Result<()> {
        let code = match key {
            "ArrowLeft" => 37,
            "ArrowUp" => 38,
            "ArrowRight" => 39,
            "ArrowDown" => 40,
            "Home" => 36,
            "End" => 35,
            _ => 0,
        };
        for kind in ["keyDown", "keyUp"] {
            let params = json!({ "type": kind, "key": key, "code": key, "windowsVirtualKeyCode": code });
            self.call("Input.dispatchKeyEvent", &params)?;
        }
        Ok(())
    }

    /// What was loaded, said or asked for that a page at rest must not: addresses other than the page, dialogs,
    /// messages of the console, exceptions.
    pub(crate) fn misdeeds(&mut self, page: &Path) -> anyhow::Result<Vec<String>> {
        // Round trips, so that what was on its way has arrived.
        self.eval("new Promise((done) => setTimeout(done, 200))")?;
        let own = format!("file://{}", page.display());
        let told = |event: &Value| match event["method"].as_str().unwrap_or_default() {
            "Network.requestWillBeSent" => {
                let url = event["params"]["request"]["url"].as_str().unwrap_or_default();
                (url.split('#').next() != Some(&own)).then(|| format!("loads {url}"))
            }
            "Page.javascriptDialogOpening" => Some(format!("dialog {}", event["params"])),
            "Runtime.consoleAPICalled" | "Runtime.exceptionThrown" | "Log.entryAdded" => {
                Some(event.to_string())
            }
            _ => None,
        };
        Ok(self.events.iter().filter_map(told).collect())
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
