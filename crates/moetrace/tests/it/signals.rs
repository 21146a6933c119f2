//! Whatever ends the process, the same command continues.

use std::io::{BufRead as _, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::program::{assert_same_tables, moetrace, succeeds};

const RUN: [&str; 8] =
    ["collect", "--quiet", "--traces", "60", "--shard-tokens", "512", "--tokens-per-pass", "256"];

fn start(out: &Path) -> Child {
    moetrace().args(RUN).arg("--out").arg(out).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap()
}

/// Waits until a shard is committed, so that the signal falls into the work.
fn wait_for_a_commit(out: &Path, child: &mut Child) {
    let begun = Instant::now();
    let commits = out.join("state/commits");
    while std::fs::read_dir(&commits).map_or(0, Iterator::count) == 0 {
        assert!(begun.elapsed() < Duration::from_mins(1), "no shard was committed");
        assert!(child.try_wait().unwrap().is_none(), "the run ended before the signal");
        std::thread::sleep(Duration::from_millis(2));
    }
}

#[test]
fn each_signal_ends_a_run_within_five_seconds_and_the_same_command_continues_it() {
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    succeeds(&[&RUN[..], &["--out", whole.to_str().unwrap()]].concat());
    for (signal, code) in
        [("INT", Some(130)), ("TERM", Some(143)), ("USR1", Some(75)), ("HUP", Some(75)), ("KILL", None)]
    {
        let out = dir.path().join(signal);
        let mut child = start(&out);
        wait_for_a_commit(&out, &mut child);
        let sent = Instant::now();
        let kill = Command::new("kill").args(["-s", signal, &child.id().to_string()]).status().unwrap();
        assert!(kill.success());
        let output = child.wait_with_output().unwrap();
        assert!(sent.elapsed() < Duration::from_secs(5), "{signal} took {:?}", sent.elapsed());
        assert_eq!(output.status.code(), code, "{signal}: {}", String::from_utf8_lossy(&output.stderr));
        if code.is_some() {
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert!(stderr.contains("run the same command to continue"), "{stderr}");
        }
        succeeds(&[&RUN[..], &["--out", out.to_str().unwrap()]].concat());
        assert_same_tables(&out, &whole);
    }
}

#[test]
fn a_signal_while_the_page_is_made_leaves_a_complete_run_and_the_same_command_makes_the_page() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    // Long texts, so that the page takes longer than a signal.
    let args = ["collect", "--traces", "200", "--out", out.to_str().unwrap()];
    let mut child = moetrace().args(args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(child.stderr.take().unwrap()).lines();
    assert!(lines.any(|line| line.unwrap().contains("for report.html")), "the page was not begun");
    let kill = Command::new("kill").args(["-s", "INT", &child.id().to_string()]).status().unwrap();
    assert!(kill.success());
    let said: Vec<String> = lines.map(Result::unwrap).collect();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{said:?}");
    assert!(said.iter().any(|line| line.contains("interrupted: the run is complete; ")), "{said:?}");
    // The numbers came before.
    assert!(String::from_utf8(output.stdout).unwrap().contains("shards committed"));
    assert!(out.join("summary.json").exists() && !out.join("report.html").exists());
    succeeds(&args);
    assert!(out.join("report.html").exists());
}

#[test]
fn a_signal_while_texts_are_read_ends_at_once_and_leaves_no_folder() {
    let dir = tempfile::tempdir().unwrap();
    let source = dir.path().join("large.jsonl");
    let mut file = std::io::BufWriter::new(std::fs::File::create(&source).unwrap());
    // Far more than five seconds of reading for this build of the program.
    for n in 0..1_500_000 {
        writeln!(
            file,
            "{{\"text\": \"The {n}th line of a file that takes the program a long time to read through.\"}}"
        )
        .unwrap();
    }
    drop(file);
    let out = dir.path().join("run");
    let dataset = format!("large={}", source.display());
    let mut child = moetrace()
        .args(["collect", "--quiet", "--dataset", &dataset, "--out"])
        .arg(&out)
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(700));
    assert!(child.try_wait().unwrap().is_none(), "the texts were read before the signal");
    let sent = Instant::now();
    assert!(Command::new("kill").args(["-s", "TERM", &child.id().to_string()]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert!(sent.elapsed() < Duration::from_secs(2), "it took {:?}", sent.elapsed());
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(143), "{stderr}");
    assert!(stderr.contains("run the same command to continue"), "{stderr}");
    assert!(!out.exists());
}
