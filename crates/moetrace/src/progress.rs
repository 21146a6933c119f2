//! What a run shows while it runs: a bar per data set on a terminal, plain lines elsewhere.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use moetrace_corpus::CorpusEvent;
use moetrace_model::{EngineUsage, WriteEvent};
use moetrace_run::{Plan, ProcessUsage, RunEvent, Usage};

use crate::output;
use crate::resident;
use crate::show;

/// Between two plain lines; short enough to see that a job lives, long enough for a log file.
const PLAIN_EVERY: Duration = Duration::from_secs(10);

/// Shows progress on standard error, or nothing when quiet.
pub(crate) struct Progress {
    quiet: bool,
    bars: Option<MultiProgress>,
    open: BTreeMap<String, Counted>,
    last_line: Instant,
    /// Since when the model is being loaded.
    loading: Option<Instant>,
    /// Since when the model is there and shards are done.
    running: Option<Instant>,
}

#[derive(Default)]
struct Counted {
    bar: Option<ProgressBar>,
    /// Samples done, those of an earlier call included.
    samples: usize,
    /// Samples and tokens done now, which rates are of.
    live_samples: usize,
    tokens: usize,
    of: usize,
    begun: Option<Instant>,
    /// The three counts when the last shard began, to which it goes back if it begins again.
    before: (usize, usize, usize),
}

impl Counted {
    /// A shard begins.
    fn mark(&mut self) {
        self.before = (self.samples, self.live_samples, self.tokens);
    }

    /// It begins again.
    fn go_back(&mut self) {
        (self.samples, self.live_samples, self.tokens) = self.before;
        if let Some(bar) = &self.bar {
            bar.set_position(self.samples as u64);
        }
    }

    /// The rates to show after `seconds` of work; those of an earlier call would make them too good.
    fn add(&mut self, samples: usize, tokens: Option<usize>, seconds: f64) -> String {
        self.samples += samples;
        let Some(tokens) = tokens else { return String::new() };
        self.live_samples += samples;
        self.tokens += tokens;
        if seconds <= 0.0 {
            return String::new();
        }
        let traces = self.live_samples as f64 / seconds;
        format!("{traces:.1} traces/s {:.0} tokens/s", self.tokens as f64 / seconds)
    }
}

impl Progress {
    /// Bars if standard error is a terminal.
    pub(crate) fn new(quiet: bool) -> Self {
        let bars = (!quiet && std::io::stderr().is_terminal()).then(MultiProgress::new);
        Self { quiet, bars, open: BTreeMap::new(), last_line: Instant::now(), loading: None, running: None }
    }

    /// A line that stays.
    pub(crate) fn line(&self, text: &str) {
        if self.quiet {
            return;
        }
        match &self.bars {
            Some(bars) => drop(bars.println(output::printable(text))),
            None => output::tell(text),
        }
    }

    /// Reading and tokenising.
    pub(crate) fn corpus(&mut self, event: &CorpusEvent) {
        let text = match event {
            CorpusEvent::Scanned { dataset, rows } => format!("{dataset}: {rows} rows read"),
            CorpusEvent::Tokenized { dataset, done, of } => {
                format!("{dataset}: {done} of {of} texts tokenised")
            }
            _ => return,
        };
        self.now_and_then(&text);
    }

    /// A bar for a download, on a terminal.
    pub(crate) fn bar_of_bytes(&self, name: &str, bytes: u64, have: u64) -> Option<ProgressBar> {
        let bar = self.bars.as_ref()?.add(ProgressBar::new(bytes).with_position(have));
        let template = "{prefix:>16} {bar:24} {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_prefix(output::printable(name));
        Some(bar)
    }

    /// A line, unless one was written a moment ago.
    pub(crate) fn now_and_then(&mut self, text: &str) {
        if self.last_line.elapsed() >= PLAIN_EVERY {
            self.last_line = Instant::now();
            self.line(text);
        }
    }

    /// One bar for each data set of the plan.
    pub(crate) fn plan(&mut self, plan: &Plan) {
        for dataset in &plan.corpus.datasets {
            let of = dataset.samples.len();
            let bar = self.bars.as_ref().map(|bars| {
                let bar = bars.add(ProgressBar::new(of as u64));
                // The template is a constant of ours; a broken one would show the default bar.
                if let Ok(style) =
                    ProgressStyle::with_template("{prefix:>16} {bar:24} {pos}/{len} {eta:>4} {msg}")
                {
                    bar.set_style(style);
                }
                bar.set_prefix(dataset.name.to_string());
                bar
            });
            let counted = Counted { bar, of, ..Counted::default() };
            self.open.insert(dataset.name.to_string(), counted);
        }
    }

    /// The run's own events.
    pub(crate) fn run(&mut self, event: &RunEvent<'_>) {
        match event {
            RunEvent::Loading => {
                self.line("loading the model");
                self.loading = Some(Instant::now());
            }
            RunEvent::Begin { dataset, .. } => {
                self.running.get_or_insert_with(Instant::now);
                if let Some(begun) = self.loading.take() {
                    self.line(&format!("model loaded in {:.1} s", begun.elapsed().as_secs_f64()));
                }
                if let Some(counted) = self.open.get_mut(*dataset) {
                    counted.begun.get_or_insert_with(Instant::now);
                    counted.mark();
                }
            }
            RunEvent::Pass { dataset, samples, tokens, usage } => {
                self.count(dataset, *samples, Some((*tokens, *usage)));
            }
            RunEvent::Halved { dataset, .. } => {
                if let Some(counted) = self.open.get_mut(*dataset) {
                    counted.go_back();
                }
                self.line(&show::halved(event).unwrap_or_default());
            }
            RunEvent::Committed { so_far, .. } => self.now_and_then(&show::glance(so_far)),
            RunEvent::Replayed { shard, dataset } => self.count(dataset, shard.samples, None),
            RunEvent::Repairing { shard, why } => {
                self.line(&format!("{}: doing it again: {why}", shard.name));
            }
            RunEvent::Busy { shard, holder } => {
                self.line(&format!("{}: being written by {holder}, left to it", shard.name));
            }
            _ => {}
        }
    }

    /// Counts samples that went through the model with so many tokens, or were read back without.
    fn count(&mut self, dataset: &str, samples: usize, live: Option<(usize, EngineUsage)>) {
        let used = live.map_or_else(String::new, |(_, usage)| self.used(&usage));
        let Some(counted) = self.open.get_mut(dataset) else { return };
        let seconds = counted.begun.map_or(0.0, |b| b.elapsed().as_secs_f64());
        let mut rates = counted.add(samples, live.map(|(tokens, _)| tokens), seconds);
        if !rates.is_empty() && !used.is_empty() {
            rates = format!("{rates}, {used}");
        }
        let done = counted.samples >= counted.of;
        if let Some(bar) = &counted.bar {
            bar.set_position(counted.samples as u64);
            bar.set_message(rates);
            if done {
                bar.abandon();
            }
            return;
        }
        let text = format!("{dataset}: {}/{} traces {rates}", counted.samples, counted.of);
        if done {
            self.line(text.trim_end());
        } else {
            self.now_and_then(&text);
        }
    }

    /// Memory that is in use now, and how the GPU spent its time since the model was loaded.
    fn used(&self, engine: &EngineUsage) -> String {
        // A glance at the kernel's figures costs some microseconds, a pass milliseconds at least.
        let process = ProcessUsage {
            resident_bytes: resident::now().unwrap_or(0),
            elapsed_us: self.running.map_or(0, |since| since.elapsed().as_micros() as u64),
        };
        show::used(&Usage::new(engine, process))
    }
}

/// Progress of writing a checkpoint: bytes and files, on a terminal a bar.
pub(crate) struct Written {
    progress: Progress,
    bytes: u64,
}

impl Written {
    pub(crate) fn new(quiet: bool) -> Self {
        Self { progress: Progress::new(quiet), bytes: 0 }
    }

    /// A tensor is done, or a file of an earlier call is kept.
    pub(crate) fn event(&mut self, event: &WriteEvent<'_>) {
        match event {
            WriteEvent::Kept { file, bytes } => {
                self.bytes += bytes;
                self.progress.line(&format!("{file}: complete, kept"));
            }
            WriteEvent::Tensor { name, bytes } => {
                self.bytes += bytes;
                self.progress.now_and_then(&format!("{} written, {name}", show::bytes(self.bytes)));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_count_what_was_done_now_and_not_what_was_read_back() {
        let mut counted = Counted { of: 110, ..Counted::default() };
        assert_eq!(counted.add(100, None, 0.0), "");
        assert_eq!(counted.add(10, Some(500), 2.0), "5.0 traces/s 250 tokens/s");
        assert_eq!(counted.samples, 110);
    }

    #[test]
    fn passes_of_a_shard_that_begins_again_do_not_count() {
        let mut counted = Counted { of: 110, ..Counted::default() };
        counted.add(10, Some(500), 2.0);
        counted.mark();
        counted.add(20, Some(1000), 3.0);
        counted.go_back();
        assert_eq!(counted.samples, 10);
        assert_eq!(counted.add(5, Some(500), 4.0), "3.8 traces/s 250 tokens/s");
    }
}
