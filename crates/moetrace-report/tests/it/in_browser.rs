//! The page in Chromium: what is drawn is what was counted, and nothing foreign runs.

use anyhow::Context as _;
use moetrace_report::{ReportInput, ReportedRun, page};

use crate::browser::{Browser, chromium};
use crate::hostile::PAYLOADS;
use crate::{SMALL, synthetic};

/// The page of a run in a browser of its own, or nothing where no browser is asked for.
pub(crate) fn opened(run: &ReportedRun) -> anyhow::Result<Option<(Browser, tempfile::TempDir)>> {
    let Some(program) = chromium()? else { return Ok(None) };
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("report.html");
    std::fs::write(&file, page(&ReportInput { run, other: None, fidelity: None })?)?;
    let mut browser = Browser::start(&program, 1200, 900)?;
    browser.open(&file)?;
    Ok(Some((browser, folder)))
}

pub(crate) fn named() -> Vec<String> {
    ["code", "law", "verse"].map(str::to_owned).to_vec()
}

#[test]
fn selectors_and_keys_read_out_the_counts() -> anyhow::Result<()> {
    let run = synthetic::run(&SMALL, &named(), |i| format!("plain {i}"))?;
    let Some((mut browser, folder)) = opened(&run)? else { return Ok(()) };
    // The second layer by a click, then one step right and one down by keys: data set 1, expert 1.
    browser.click("[data-controls=datasets] [data-step='1']")?;
    browser.click("#chart-datasets")?;
    browser.key("Escape")?;
    for key in ["ArrowRight", "ArrowRight", "ArrowDown"] {
        browser.key(key)?;
    }
    let read = browser.text("document.querySelector('[data-readout=datasets]').textContent")?;
    let loads = &run.metrics.datasets.get(1).context("law")?.layers.get(1).context("layer 2")?.loads;
    let pooled = &run.metrics.layers[1].loads;
    let (own, all) = (loads.iter().sum::<u64>() as f64, pooled.iter().sum::<u64>() as f64);
    let lift = loads[1] as f64 * all / (own * pooled[1] as f64);
    assert!(read.starts_with("layer 2, data set law, expert 1 · "), "{read}");
    assert!(read.ends_with(&format!("tokens: {}", loads[1])), "{read}, expected {}", loads[1]);
    let shown: f64 =
        read.split("times all data sets: ").nth(1).unwrap().split(' ').next().unwrap().parse()?;
    // Three digits are shown.
    assert!((shown - lift).abs() < 0.006 * lift, "{shown} for {lift}");
    assert_eq!(browser.misdeeds(&folder.path().join("report.html"))?, Vec::<String>::new());
    Ok(())
}

#[test]
fn the_script_draws_a_chosen_layer_as_rust_draws_it() -> anyhow::Result<()> {
    let run = synthetic::run(&SMALL, &named(), |i| format!("plain {i}"))?;
    let Some((mut browser, _folder)) = opened(&run)? else { return Ok(()) };
    let drawn = "[...document.querySelectorAll('#chart-datasets .cells path')].map(p => p.getAttribute('d')).join('|')";
    let first = browser.text(drawn)?;
    browser.click("[data-controls=datasets] [data-step='1']")?;
    let second = browser.text(drawn)?;
    browser.click("[data-controls=datasets] [data-step='-1']")?;
    assert_eq!(browser.text(drawn)?, first, "back in the first layer, filled by the script");
    assert_ne!(second, first);
    // What Rust draws for the second layer is in its file.
    let files = moetrace_report::figures(&ReportInput { run: &run, other: None, fidelity: None });
    let file = files.iter().find(|f| f.name == "datasets-layer-2").context("a figure of layer 2")?;
    let paths: Vec<&str> =
        file.svg.split("data-level=").skip(1).filter_map(|p| p.split(" d=\"").nth(1)).collect();
    let of_file: Vec<&str> = paths.iter().take(33).filter_map(|p| p.split('"').next()).collect();
    assert_eq!(second.split('|').collect::<Vec<_>>().len(), 33);
    assert!(second.split('|').all(|d| d.is_empty() || of_file.contains(&d)), "{second}\n{of_file:?}");
    Ok(())
}

#[test]
fn the_order_by_cluster_is_drawn_and_read_out() -> anyhow::Result<()> {
    let run = synthetic::run(&SMALL, &named(), |i| format!("plain {i}"))?;
    let Some((mut browser, _folder)) = opened(&run)? else { return Ok(()) };
    browser.click("#chart-coactivation")?;
    browser.key("Escape")?;
    for key in ["ArrowRight", "ArrowRight"] {
        browser.key(key)?;
    }
    // The order is from the last expert to the first: row 7, column 6, the last pair.
    let read = browser.text("document.querySelector('[data-readout=coactivation]').textContent")?;
    let both = run.coactivation[0].pairs.last().context("a pair")?;
    assert!(read.starts_with("layer 1, expert 7, expert 6 · "), "{read}");
    assert!(read.ends_with(&format!("tokens with both: {both}")), "{read}, expected {both}");
    Ok(())
}

/// 家 is the bytes E5 AE B6, which byte-level vocabularies write å, ® and ¶.
#[test]
fn tokens_that_are_parts_of_a_character_are_shown_as_the_character_where_they_meet() -> anyhow::Result<()> {
    let mut run = synthetic::run(&SMALL, &named(), |i| format!("word {i}"))?;
    run.tokens.values_mut().enumerate().for_each(|(i, token)| *token = format!("Ġw{i}"));
    let ids = run.cards[0].contexts[0].tokens.clone();
    let at = ids.windows(2).position(|pair| pair[0] != pair[1]).context("two tokens")?;
    run.tokens.insert(ids[at], "å®".to_owned());
    run.tokens.insert(ids[at + 1], "¶".to_owned());
    let Some((mut browser, _folder)) = opened(&run)? else { return Ok(()) };
    let context = browser.text("document.querySelector('#card .context').textContent")?;
    assert!(context.contains('家') && context.contains(" w"), "{context}");
    let card = browser.text("document.getElementById('card').textContent")?;
    assert!(!card.contains("[E5 AE][B6]"), "{card}");
    Ok(())
}

#[test]
fn cards_show_the_expert_that_is_asked_for() -> anyhow::Result<()> {
    let run = synthetic::run(&SMALL, &named(), |i| format!("word {i}"))?;
    let Some((mut browser, _folder)) = opened(&run)? else { return Ok(()) };
    browser.click("button[data-card=layer][data-step='1']")?;
    for _ in 0..2 {
        browser.click("button[data-card=expert][data-step='1']")?;
    }
    let card = browser.text("document.getElementById('card').innerText")?;
    let (own, load) = (&run.cards[7 + 2], run.metrics.layers[1].loads[2]);
    assert!(card.starts_with("Layer 2, expert 2\n") && card.contains(&format!("{load} tokens, ")), "{card}");
    assert!(card.contains(&run.tokens[&own.tokens[0].0]) && card.contains("12.5"), "{card}");
    let marked = browser.text("document.querySelector('#card mark').textContent")?;
    assert_eq!(marked, run.tokens[&own.contexts[0].tokens[12]]);
    // A cell of the load map opens its card: layer 3, expert 0.
    let (x, y) = browser.middle("#chart-load .cells")?;
    let cell = browser.eval(
        "(() => { const b = document.querySelector('#chart-load .cells').getBoundingClientRect(); \
         return [b.x + b.width / 16, b.y + b.height * 5 / 6]; })()",
    )?;
    browser.point(x, y)?;
    browser.click_at(cell[0].as_f64().context("x")?, cell[1].as_f64().context("y")?)?;
    let title = browser.text("document.querySelector('#card h3').textContent")?;
    assert_eq!(title, "Layer 3, expert 0");
    Ok(())
}

#[test]
fn lines_are_read_out_at_the_pointer_and_by_keys() -> anyhow::Result<()> {
    let run = synthetic::run(&SMALL, &named(), |i| format!("plain {i}"))?;
    let Some((mut browser, _folder)) = opened(&run)? else { return Ok(()) };
    let (x, y) = browser.middle("#chart-balance .hit:nth-of-type(2)")?;
    browser.point(x, y)?;
    let tip = browser.text("document.getElementById('tip').textContent")?;
    let gini = run.metrics.layers[1].gini;
    assert!(tip.starts_with("layer 2\n") && tip.contains(&format!("Gini: {gini:.3}")), "{tip}, gini {gini}");
    browser.eval("document.getElementById('chart-balance').focus()")?;
    browser.key("End")?;
    let read = browser.text("document.querySelector('[data-readout=balance]').textContent")?;
    assert!(read.starts_with("layer 3 · "), "{read}");
    Ok(())
}

#[test]
fn sixty_hostile_strings_stay_text() -> anyhow::Result<()> {
    for from in (0..PAYLOADS.len()).step_by(12) {
        let datasets: Vec<String> = PAYLOADS[from..from + 12].iter().map(|&p| p.to_owned()).collect();
        let run = synthetic::run(&SMALL, &datasets, |i| PAYLOADS[(i + from) % 60].to_owned())?;
        let Some((mut browser, folder)) = opened(&run)? else { return Ok(()) };
        for control in ["[data-step='1']", "[data-step='-1']"] {
            browser.click(&format!("[data-controls=datasets] {control}"))?;
        }
        browser.click("#chart-datasets")?;
        browser.key("ArrowRight")?;
        browser.click("button[data-card=expert][data-step='1']")?;
        let foreign =
            "document.querySelectorAll('img,iframe,object,embed,base,form,link,video,math,input').length";
        assert_eq!(browser.eval(foreign)?, 0);
        assert_eq!(browser.eval("document.querySelectorAll('script').length")?, 2);
        let title = browser.text("document.querySelector('h1').textContent")?;
        assert!(title.starts_with("Routing of "), "{title}");
        assert_eq!(browser.misdeeds(&folder.path().join("report.html"))?, Vec::<String>::new());
    }
    Ok(())
}
