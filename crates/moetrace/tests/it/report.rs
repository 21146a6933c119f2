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
fn collect_writes_the_page_and_report_writes_a_fuller_one_and_every_figure() {
    let folder = tempfile::tempdir().unwrap();
    let out = collected(&folder, "a", &[]);
    let page = folder.path().join("a/report.html");
    let first = fs::read_to_string(&page).unwrap();
    assert!(first.starts_with("<!DOCTYPE html>") && first.contains("moetrace-tiny"));
    assert!(!first.contains("id=\"tokens\""), "counted from what is at hand");

    let figures = folder.path().join("figures");
    succeeds(&["report", &out, "--figures", &figures.display().to_string()]);
    let full = fs::read_to_string(&page).unwrap();
    for section in ["load", "balance", "specialisation", "together", "tokens", "layers", "segments"] {
        assert!(full.contains(&format!("<section id=\"{section}\"")), "{section}");
    }
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
