//! The page of a run and its figures.

use std::fs;

use tempfile::TempDir;

use crate::program::{fails, run, succeeds};

/// A small complete run.
fn collected(folder: &TempDir, name: &str, more: &[&str]) -> String {
    let out = folder.path().join(name).display().to_string();
    let mut args = vec!["collect", "--traces", "12", "--max-length", "32", "--quiet", "--out", &out];
    args.extend(more);
    succeeds(&args);
    out
}

#[test]
fn the_page_of_collect_is_that_of_report_which_writes_every_figure_too() {
    let folder = tempfile::tempdir().unwrap();
    let out = collected(&folder, "a", &[]);
    let page = folder.path().join("a/report.html");
    let full = fs::read_to_string(&page).unwrap();
    assert!(full.starts_with("<!DOCTYPE html>") && full.contains("moetrace-tiny"));
    let sections =
        ["load", "balance", "specialisation", "positions", "together", "tokens", "layers", "segments"];
    for section in sections.iter().chain(&["experts", "terms"]) {
        assert!(full.contains(&format!("<section id=\"{section}\"")), "{section}");
    }
    assert!(!full.contains("<section id=\"models\""), "there is one run");

    let figures = folder.path().join("figures");
    let again = folder.path().join("again.html");
    let (again_name, figures_name) = (again.display().to_string(), figures.display().to_string());
    succeeds(&["report", &out, "--out", &again_name, "--figures", &figures_name]);
    assert!(fs::read_to_string(&again).unwrap() == full, "collect and report differ");
    let svg = fs::read_to_string(figures.join("load.svg")).unwrap();
    assert!(svg.starts_with("<svg xmlns=\"http://www.w3.org/2000/svg\""));
    let png = fs::read(figures.join("load.png")).unwrap();
    assert_eq!(&png[..8], b"\x89PNG\r\n\x1a\n");
    assert!(figures.join("coactivation-layer-1.svg").exists());
    let names: Vec<_> =
        fs::read_dir(folder.path().join("a")).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert!(names.iter().all(|n| !n.to_string_lossy().ends_with(".part")), "{names:?}");
}

#[test]
fn no_report_leaves_the_page_out_and_the_same_command_without_it_makes_it() {
    let folder = tempfile::tempdir().unwrap();
    let page = folder.path().join("a/report.html");
    let out = collected(&folder, "a", &["--no-report"]);
    assert!(!page.exists() && folder.path().join("a/summary.json").exists());
    let args = ["collect", "--traces", "12", "--max-length", "32", "--out", &out];
    let output = run(&args);
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success() && said.contains("--no-report leaves the page out"), "{said}");
    assert!(said.contains(" s: ") && page.exists(), "{said}");
    // Nothing is new: the page that is there stays.
    fs::write(&page, "mine").unwrap();
    succeeds(&args);
    assert_eq!(fs::read_to_string(&page).unwrap(), "mine");
}

#[test]
fn labels_of_texts_are_a_section_of_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let line = |n: usize| {
        let text =
            ["The river bends twice before it reaches the mill.", "Add two and two, then divide by four."];
        let text = [text[n % 2]; 3].join(" ");
        let label = ["river", "sum"][n % 2];
        serde_json::json!({ "text": format!("{n}. {text}"), "label": label }).to_string()
    };
    let path = folder.path().join("labelled.jsonl");
    fs::write(&path, (0..12).map(line).collect::<Vec<_>>().join("\n")).unwrap();
    collected(&folder, "a", &["--dataset", &format!("both={}", path.display())]);
    let page = fs::read_to_string(folder.path().join("a/report.html")).unwrap();
    let section = page.split("<section id=\"labels\"").nth(1).unwrap();
    assert!(section.contains("river") && section.contains("sum"));
    assert!(!page.contains("<section id=\"specialisation\""), "there is one data set");
    // Their words occur often enough to be looked at.
    assert!(page.contains("<section id=\"vocabulary\""));
}

#[test]
fn the_same_run_has_the_same_page() {
    let folder = tempfile::tempdir().unwrap();
    let out = collected(&folder, "a", &[]);
    let pages = ["1.html", "2.html"].map(|name| {
        let page = folder.path().join(name);
        succeeds(&["report", &out, "--out", &page.display().to_string()]);
        fs::read(page).unwrap()
    });
    assert!(pages[0] == pages[1], "two pages of one run differ");
}

#[test]
fn two_runs_stand_side_by_side_with_their_fidelity() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (collected(&folder, "a", &[]), collected(&folder, "b", &["--precision", "f32"]));
    let page = folder.path().join("both.html").display().to_string();
    succeeds(&["report", &a, &b, "--out", &page]);
    let text = fs::read_to_string(&page).unwrap();
    assert!(
        text.contains("<section id=\"fidelity\"") && text.contains("A: MaxVio") && text.contains("B: MaxVio")
    );
    // The rows that tell the models apart are those of `moetrace metrics A B`.
    let models = text.split("<section id=\"models\"").nth(1).unwrap().split("</section>").next().unwrap();
    let table = succeeds(&["metrics", &a, &b]);
    let cell = |line: &str| line.split_whitespace().last().unwrap().to_owned();
    let lines: Vec<&str> = table.lines().filter(|line| line.contains("moetrace-tiny")).collect();
    assert_eq!(lines.len(), 2, "{table}");
    // The last column is a percentage, of which the sign is the last word.
    assert_eq!(lines.iter().map(|line| cell(line)).collect::<Vec<_>>(), ["%", "%"], "{table}");
    let srp =
        lines.iter().map(|line| format!("<td>{} %</td>", line.split_whitespace().rev().nth(1).unwrap()));
    assert!(
        models.contains(&format!("<th scope=\"row\">SRP</th>{}", srp.collect::<String>())),
        "{table}\n{models}"
    );
    // Other texts: side by side, not token by token, and the page says so.
    let c = collected(&folder, "c", &["--seed", "1"]);
    let output = run(&["report", &a, &c, "--out", &page]);
    assert!(output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("not compared token by token"));
    let text = fs::read_to_string(&page).unwrap();
    assert!(!text.contains("<section id=\"fidelity\"") && text.contains("not compared token by token"));
}

#[test]
fn what_cannot_be_drawn_or_written_is_refused_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let nowhere = folder.path().join("nowhere").display().to_string();
    let (code, said) = fails(&["report", &nowhere]);
    assert!(code == 66 && said.starts_with("error[E-NORUN]"), "{code}: {said}");
    let out = collected(&folder, "a", &[]);
    let (code, said) = fails(&["report", &out, &out]);
    assert!(code == 2 && said.contains("--out"), "{code}: {said}");
    let taken = folder.path().join("a/manifest.json/page.html").display().to_string();
    let (code, said) = fails(&["report", &out, "--out", &taken]);
    assert!(code == 73 && said.starts_with("error[E-IO]: cannot write"), "{code}: {said}");
    // A page that is in the way as a folder costs a line and not the run.
    fs::remove_file(folder.path().join("a/report.html")).unwrap();
    fs::create_dir(folder.path().join("a/report.html")).unwrap();
    let shard = fs::read_dir(folder.path().join("a/state/commits")).unwrap().next().unwrap().unwrap().path();
    fs::remove_file(shard).unwrap();
    let args = ["collect", "--traces", "12", "--max-length", "32", "--quiet", "--out", &out];
    let output = run(&args);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success() && said.contains("warning[W-REPORT]"), "{said}");
}
