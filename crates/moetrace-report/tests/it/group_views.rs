//! Labels, positions and the vocabulary on the page, against counts made here the plain way.

use std::collections::BTreeMap;

use anyhow::Context as _;
use moetrace_report::{ReportInput, page};
use moetrace_routing::{Planes, RoutingSink, RoutingView, SinkError, TokenBatch};

use crate::in_browser::{named, opened};
use crate::synthetic::{self, Shape};
use crate::{SMALL, browser::Browser};

/// Every choice of every token but BOS, one by one.
#[derive(Default)]
struct Plain {
    labels: Vec<String>,
    ids: Vec<u32>,
    /// Tokens by label, by position, by token id: `(name, layer, expert)`. Ids by first rank alone.
    by_label: BTreeMap<(String, usize, u16), u64>,
    by_position: BTreeMap<(usize, usize, u16), u64>,
    by_id: BTreeMap<(u32, usize, u16), u64>,
}

impl RoutingSink for Plain {
    fn wants(&self) -> Planes {
        Planes::default()
    }

    fn begin(&mut self, batch: &TokenBatch) -> Result<(), SinkError> {
        let of_span = |span: &moetrace_routing::Span| {
            let label = span.label.as_ref().map_or_else(String::new, ToString::to_string);
            std::iter::repeat_n(label, span.len)
        };
        self.labels = batch.spans().iter().flat_map(of_span).collect();
        self.ids = batch.token_ids().iter().map(|id| id.0).collect();
        Ok(())
    }

    fn record(&mut self, view: &RoutingView<'_>) -> Result<(), SinkError> {
        let layer = view.ordinal().index();
        // One text a pass: rows are positions, the first is BOS.
        for (position, chosen) in view.experts().chunks_exact(view.chosen()).enumerate().skip(1) {
            for expert in chosen {
                *self.by_label.entry((self.labels[position].clone(), layer, expert.0)).or_default() += 1;
                *self.by_position.entry((position, layer, expert.0)).or_default() += 1;
            }
            *self.by_id.entry((self.ids[position], layer, chosen[0].0)).or_default() += 1;
        }
        Ok(())
    }

    fn end(&mut self) -> Result<(), SinkError> {
        Ok(())
    }
}

/// What is read out at a row and the second column of a map in its third layer.
fn read(browser: &mut Browser, map: &str, row: usize) -> anyhow::Result<String> {
    for _ in 0..2 {
        browser.click(&format!("[data-controls={map}] [data-step='1']"))?;
    }
    browser.click(&format!("#chart-{map}"))?;
    browser.key("Escape")?;
    for key in ["ArrowRight", "ArrowRight"].into_iter().chain(std::iter::repeat_n("ArrowDown", row)) {
        browser.key(key)?;
    }
    browser.text(&format!("document.querySelector('[data-readout={map}]').textContent"))
}

/// The number behind some words.
fn number(text: &str, words: &str) -> anyhow::Result<f64> {
    let rest = text.split(words).nth(1).with_context(|| format!("{words:?} in {text:?}"))?;
    Ok(rest
        .trim_start_matches(": ")
        .split([' ', '\n'])
        .next()
        .context("a number")?
        .replace(',', "")
        .parse()?)
}

#[test]
fn maps_of_labels_and_positions_read_out_what_was_counted() -> anyhow::Result<()> {
    let run = synthetic::run(&SMALL, &named(), |i| format!("plain {i}"))?;
    let Some((mut browser, folder)) = opened(&run)? else { return Ok(()) };
    let mut plain = Plain::default();
    synthetic::play(&SMALL, &named(), &mut plain)?;
    let sum = |keep: &dyn Fn(&str, usize, u16) -> bool| -> f64 {
        let kept = plain.by_label.iter().filter(|((label, layer, e), _)| keep(label, *layer, *e));
        kept.map(|(_, n)| *n as f64).sum()
    };
    // Labels by name: law 0, law 1, verse 0, verse 1. Texts of code have none and do not count.
    let said = read(&mut browser, "labels", 2)?;
    let n = sum(&|label, layer, e| label == "verse 0" && layer == 2 && e == 1);
    let own = sum(&|label, layer, _| label == "verse 0" && layer == 2);
    let all = sum(&|label, layer, e| !label.is_empty() && layer == 2 && e == 1);
    let total = sum(&|label, layer, _| !label.is_empty() && layer == 2);
    assert!(said.starts_with("layer 3, label verse 0 (verse), expert 1 · "), "{said}");
    assert!((number(&said, "· tokens: ")? - n).abs() < 0.5, "{said}");
    let lift = n * total / (own * all);
    // Three digits are shown.
    assert!((number(&said, "times all labels")? - lift).abs() < 0.006 * lift, "{said}, expected {lift}");

    let said = read(&mut browser, "positions", 2)?;
    let n: u64 = (4..=7).filter_map(|position| plain.by_position.get(&(position, 2, 1))).sum();
    assert!(said.starts_with("layer 3, position 4 to 7, expert 1 · "), "{said}");
    assert!((number(&said, "· tokens: ")? - n as f64).abs() < 0.5, "{said}");
    assert_eq!(browser.misdeeds(&folder.path().join("report.html"))?, Vec::<String>::new());
    Ok(())
}

#[test]
fn the_line_of_the_vocabulary_is_the_mean_share_of_favourites() -> anyhow::Result<()> {
    let run = synthetic::run(&SMALL, &named(), |i| format!("plain {i}"))?;
    let Some((mut browser, _folder)) = opened(&run)? else { return Ok(()) };
    let mut plain = Plain::default();
    synthetic::play(&SMALL, &named(), &mut plain)?;
    let mut shares = Vec::new();
    for id in 0..40 {
        let loads: Vec<u64> = (0..8).map(|e| *plain.by_id.get(&(id, 1, e)).unwrap_or(&0)).collect();
        let count: u64 = loads.iter().sum();
        if count >= 10 {
            shares.push(*loads.iter().max().context("experts")? as f64 / count as f64);
        }
    }
    let mean = shares.iter().sum::<f64>() / shares.len() as f64;
    browser.eval("document.getElementById('chart-vocabulary').focus()")?;
    for key in ["Home", "ArrowRight"] {
        browser.key(key)?;
    }
    let said = browser.text("document.querySelector('[data-readout=vocabulary]').textContent")?;
    assert!(said.starts_with("layer 2 · "), "{said}");
    let shown = number(&said, "by the token itself")?;
    assert!((shown - mean).abs() < 0.0006, "{said}, expected {mean} of {} ids", shares.len());
    Ok(())
}

#[test]
fn of_many_labels_those_with_most_tokens_are_drawn_and_the_page_says_so() -> anyhow::Result<()> {
    let datasets: Vec<String> = (0..15).map(|i| format!("set {i}")).collect();
    let run = synthetic::run(&Shape { samples: 60, length: 12, ..SMALL }, &datasets, |i| format!("{i}"))?;
    let text = page(&ReportInput { run: &run, other: None, fidelity: None })?;
    // Four texts of each, two of either label; those of the first have none.
    assert!(
        text.contains("Of 28 labels those 24 with most tokens are drawn. 44 tokens of texts without a label")
    );
    Ok(())
}

#[test]
fn texts_without_labels_have_no_section_of_labels() -> anyhow::Result<()> {
    // Those of the first data set have none.
    let run = synthetic::run(&SMALL, &["alone".to_owned()], |i| format!("{i}"))?;
    let text = page(&ReportInput { run: &run, other: None, fidelity: None })?;
    assert!(!text.contains("id=\"labels\"") && !text.contains("id=\"specialisation\""));
    assert!(text.contains("<section id=\"positions\"") && text.contains("<section id=\"vocabulary\""));
    Ok(())
}

#[test]
fn two_runs_have_a_table_of_both_models_and_one_run_has_none() -> anyhow::Result<()> {
    let a = synthetic::run(&SMALL, &named(), |i| format!("a{i}"))?;
    let b = synthetic::run(&SMALL, &named(), |i| format!("b{i}"))?;
    let text = page(&ReportInput { run: &a, other: Some(&b), fidelity: None })?;
    let section = text.split("<section id=\"models\"").nth(1).context("a section of models")?;
    let section = section.split("</section>").next().context("its end")?;
    assert!(section.contains("<th scope=\"row\">a12</th><td>a13</td>"), "{section}");
    assert!(text.contains("A: one chosen expert tells") && text.contains("B: by the token itself"));
    assert!(!page(&ReportInput { run: &a, other: None, fidelity: None })?.contains("id=\"models\""));
    Ok(())
}
