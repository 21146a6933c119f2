//! A disk that takes no more, and a limit on file sizes, which needs no rights to set.

use std::path::Path;
use std::process::Command;

use crate::program::{assert_same_tables, ends, moetrace, succeeds};

const RUN: [&str; 8] = ["collect", "--quiet", "--traces", "36", "--shard-tokens", "1024", "--threads", "2"];

/// The program behind a shell that runs `first`; RUN into `out`.
fn behind(first: &str, out: &Path) -> Command {
    let program = moetrace();
    let mut command = Command::new("sh");
    let script = format!("{first} && exec \"$0\" \"$@\"");
    command.args(["-c", &script]).arg(program.get_program()).args(RUN).arg("--out").arg(out);
    for (name, value) in program.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

#[test]
fn a_write_that_fails_midway_keeps_what_is_committed_and_the_same_command_continues() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, out) = (dir.path().join("whole"), dir.path().join("run"));
    succeeds(&[&RUN[..], &["--out", whole.to_str().unwrap()]].concat());
    let sizes = std::fs::read_dir(whole.join("data")).unwrap().map(|e| e.unwrap().metadata().unwrap().len());
    let largest = sizes.max().unwrap();
    // The unit of ulimit -f is 512 bytes. Every file but the largest fits; writing that one fails with EFBIG,
    // since a signal that is ignored stays ignored in the program.
    let blocks = (largest - 1) / 512;
    let (code, stderr) = ends(&mut behind(&format!("trap '' XFSZ && ulimit -f {blocks}"), &out));
    assert_eq!(code, 74, "{stderr}");
    assert!(stderr.contains("error[E-IO]: cannot write") && stderr.contains("/data/"), "{stderr}");
    assert!(stderr.contains("committed shards are safe"), "{stderr}");
    assert_eq!(std::fs::read_dir(out.join("tmp")).unwrap().count(), 0, "no leftover stays");
    let committed = std::fs::read_dir(out.join("state/commits")).unwrap().count();
    assert_eq!(std::fs::read_dir(out.join("data")).unwrap().count(), committed);
    succeeds(&[&RUN[..], &["--out", out.to_str().unwrap()]].concat());
    assert_same_tables(&out, &whole);
}

/// Mounts a disk of 256 KiB over the folder, in a mount namespace that ends with the process: as root, or
/// where the system lets everybody be root in a namespace of their own.
#[test]
fn a_full_disk_is_named_and_space_is_all_it_takes_to_continue() {
    let dir = tempfile::tempdir().unwrap();
    let (whole, out) = (dir.path().join("whole"), dir.path().join("disk"));
    std::fs::create_dir(&out).unwrap();
    let mount = |size: &str| format!("mount -t tmpfs -o size={size} tmpfs {}", out.display());
    let Some(way) = way_to_mount(&mount("64k")) else {
        // No right to mount here: a file system that never has space takes the place of one that is full.
        let (code, stderr) = ends(moetrace().args(["completions", "bash"]).stdout(full_device()));
        assert_eq!(code, 74, "{stderr}");
        assert!(stderr.contains("No space left on device"), "{stderr}");
        return;
    };
    let inside = |script: &str, way: &[&str]| inside(&behind(script, &out.join("run")), way);
    let (code, stderr) = ends(&mut inside(&mount("256k"), way));
    assert_eq!(code, 74, "{stderr}");
    assert!(stderr.contains("error[E-DISK]: cannot write") && stderr.contains("No space left"), "{stderr}");
    let words = ["shards are committed and safe; free space, about ", "run the same command again"];
    assert!(words.iter().all(|words| stderr.contains(words)), "{stderr}");

    // On one disk that first is too small and then grows: what was committed is continued, not begun anew.
    succeeds(&[&RUN[..], &["--out", whole.to_str().unwrap()]].concat());
    let kept = dir.path().join("kept");
    let copy = format!(
        "{} && {{ \"$0\" \"$@\"; test $? = 74; }} && ls {out}/run/state/commits/*.json && mount -o remount,size=64m {out} \
         && \"$0\" \"$@\" && cp -r {out}/run {} && set -- --version",
        mount("256k"),
        kept.display(),
        out = out.display()
    );
    let (code, stderr) = ends(&mut inside(&copy, way));
    assert_eq!(code, 0, "{stderr}");
    assert_same_tables(&kept, &whole);
}

/// How this user may mount, if at all.
fn way_to_mount(script: &str) -> Option<&'static [&'static str]> {
    let allowed = |way: &&[&str]| {
        let tried = Command::new("unshare").args(*way).args(["--mount", "sh", "-c", script]).output();
        tried.is_ok_and(|tried| tried.status.success())
    };
    let ways: [&[&str]; 2] = [&[], &["--map-root-user"]];
    ways.into_iter().find(allowed)
}

/// The command in a mount namespace of its own.
fn inside(run: &Command, way: &[&str]) -> Command {
    let mut command = Command::new("unshare");
    command.args(way).arg("--mount").arg(run.get_program()).args(run.get_args());
    for (name, value) in run.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

#[test]
fn a_complete_run_on_a_read_only_disk_is_counted_all_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let out = dir.path().join("run");
    succeeds(&[&RUN[..], &["--out", out.to_str().unwrap()]].concat());
    let script = format!("mount --bind {0} {0} && mount -o remount,ro,bind {0}", out.display());
    let Some(way) = way_to_mount(&script) else { return };
    // Also as a copy that lost its empty folders.
    for lost in ["", "tmp", "state/locks"] {
        if !lost.is_empty() {
            std::fs::remove_dir_all(out.join(lost)).unwrap();
        }
        let (code, stderr) = ends(&mut inside(&behind(&script, &out), way));
        assert_eq!(code, 0, "{lost}: {stderr}");
    }
    std::fs::create_dir(out.join("tmp")).unwrap();
    std::fs::remove_file(out.join("summary.json")).unwrap();
    let (code, stderr) = ends(&mut inside(&behind(&script, &out), way));
    assert_eq!(code, 77, "{stderr}");
}

fn full_device() -> std::fs::File {
    std::fs::OpenOptions::new().write(true).open("/dev/full").unwrap()
}
