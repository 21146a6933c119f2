//! Whatever ends the process, the same command continues.

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
