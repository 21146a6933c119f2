//! What works: a first download, a second call, one that was cut, several at once, revisions.

use std::time::Duration;

use loopback_hub::{Fault, git_hash, sha256};
use moetrace_hub::{HubError, HubEvent, RepoAddress};

use crate::bench::{Bench, TINY, fetch, tiny, weights};

#[test]
fn files_come_into_the_layout_that_pythons_client_has() {
    let bench = Bench::new();
    let snapshot = bench.fetch(TINY, &["config.json", "model.safetensors"]).unwrap();
    assert_eq!(Bench::read(&snapshot, "model.safetensors"), weights());
    let root = bench.settings.cache.join("models--owner--tiny");
    let commit = tiny().commit("main").unwrap();
    assert_eq!(snapshot.folder, root.join("snapshots").join(&commit));
    assert_eq!(std::fs::read_to_string(root.join("refs/main")).unwrap(), commit);
    for (name, hash) in [
        ("model.safetensors", sha256(&weights())),
        ("config.json", git_hash(&tiny().branches["main"]["config.json"])),
    ] {
        let link = std::fs::read_link(snapshot.folder.join(name)).unwrap();
        assert_eq!(link.to_str().unwrap(), format!("../../blobs/{hash}"));
    }
    // Nothing that was not asked for, and nothing half-written.
    assert_eq!(bench.blobs().len(), 2);
    assert!(bench.outside().is_empty());
}

#[test]
fn a_second_call_receives_not_one_byte_of_a_file() {
    let bench = Bench::new();
    bench.fetch(TINY, &["config.json", "model.safetensors"]).unwrap();
    assert_eq!(bench.server.file_bytes_sent(), weights().len() as u64 + 25);
    bench.server.forget();
    bench.fetch(TINY, &["config.json", "model.safetensors"]).unwrap();
    assert_eq!(bench.server.file_bytes_sent(), 0);
    assert!(!bench.server.seen().iter().any(|seen| seen.path.contains("/resolve/")));
}

#[test]
fn a_cut_download_goes_on_where_it_ended_within_a_call() {
    let bench = Bench::new();
    bench.server.fault("/cdn/", 1, Fault::Cut(60_000));
    let snapshot = bench.fetch(TINY, &["model.safetensors"]).unwrap();
    assert_eq!(Bench::read(&snapshot, "model.safetensors"), weights());
    let seen = bench.server.seen();
    let last = seen.iter().rfind(|seen| seen.path.starts_with("/cdn/")).unwrap();
    assert_eq!(last.headers["range"], "bytes=60000-");
    assert!(last.headers["if-range"].starts_with("\"cdn-"), "{:?}", last.headers);
    assert_eq!((last.sent, bench.server.file_bytes_sent()), (40_000, 100_000));
}

#[test]
fn a_cut_download_goes_on_where_it_ended_in_the_next_call() {
    let bench = Bench::new();
    bench.server.fault("/cdn/", 1, Fault::Cut(60_000));
    bench.server.fault("/cdn/", 9, Fault::Instead(503, vec![], vec![]));
    assert!(bench.fetch(TINY, &["model.safetensors"]).is_err());
    bench.server.forget();
    let mut events = Vec::new();
    let hub = bench.hub();
    let snapshot = hub.snapshot(&RepoAddress::model(TINY).unwrap()).unwrap();
    let file = snapshot.file("model.safetensors").unwrap();
    assert_eq!(hub.missing_bytes(&snapshot, &[file]), 40_000);
    hub.fetch(&snapshot, &[file], &mut |event| events.push(format!("{event:?}"))).unwrap();
    assert_eq!(bench.server.file_bytes_sent(), 40_000);
    assert!(events[0].contains("have: 60000"), "{}", events[0]);
    assert_eq!(Bench::read(&snapshot, "model.safetensors"), weights());
    assert_eq!(bench.blobs().len(), 1, "{:?}", bench.blobs());
}

#[test]
fn what_was_begun_of_another_entity_is_begun_again() {
    let bench = Bench::new();
    bench.server.fault("/cdn/", 1, Fault::Cut(60_000));
    bench.server.fault("/cdn/", 1, Fault::OtherEntity);
    let snapshot = bench.fetch(TINY, &["model.safetensors"]).unwrap();
    assert_eq!(Bench::read(&snapshot, "model.safetensors"), weights());
    assert_eq!(bench.server.file_bytes_sent(), 160_000, "If-Range made the server send all of it");
}

#[test]
fn a_line_that_breaks_often_brings_the_file_all_the_same() {
    let bench = Bench::new();
    // Twenty breaks with two retries: only those that bring nothing count.
    bench.server.fault("/cdn/", 20, Fault::Cut(4_500));
    let snapshot = bench.fetch(TINY, &["model.safetensors"]).unwrap();
    assert_eq!(Bench::read(&snapshot, "model.safetensors"), weights());
    assert_eq!(bench.server.file_bytes_sent(), 100_000);
}

#[test]
fn a_slow_line_is_no_fault_and_is_told_of() {
    let bench = Bench::new();
    bench.server.fault("/cdn/", 1, Fault::Slowly(20_000, Duration::from_millis(60)));
    let hub = bench.hub();
    let snapshot = hub.snapshot(&RepoAddress::model(TINY).unwrap()).unwrap();
    let mut counts = Vec::new();
    hub.fetch(&snapshot, &[snapshot.file("model.safetensors").unwrap()], &mut |event| {
        if let HubEvent::Received { have, .. } = event {
            counts.push(*have);
        }
    })
    .unwrap();
    assert!(counts.len() >= 3 && counts.is_sorted() && counts.last() == Some(&100_000), "{counts:?}");
}

#[test]
fn of_processes_that_want_the_same_file_one_downloads_it() {
    let bench = Bench::new();
    bench.server.fault("/cdn/", 1, Fault::Slowly(20_000, Duration::from_millis(100)));
    let waited = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                let hub = bench.hub();
                let snapshot = hub.snapshot(&RepoAddress::model(TINY).unwrap()).unwrap();
                let file = snapshot.file("model.safetensors").unwrap();
                hub.fetch(&snapshot, &[file], &mut |event| {
                    if matches!(event, HubEvent::Waiting { .. }) {
                        waited.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    }
                })
                .unwrap();
                assert_eq!(Bench::read(&snapshot, "model.safetensors"), weights());
            });
        }
    });
    assert_eq!(bench.server.file_bytes_sent(), 100_000);
    assert_eq!(waited.into_inner(), 2);
}

#[test]
fn two_writers_without_locks_do_not_meet_in_one_file() {
    // Where locks work, an unfinished file that somebody writes is locked; a second attempt takes a name of its own.
    let bench = Bench::new();
    bench.server.fault("/cdn/", 1, Fault::Cut(60_000));
    bench.server.fault("/cdn/", 9, Fault::Instead(503, vec![], vec![]));
    assert!(bench.fetch(TINY, &["model.safetensors"]).is_err());
    bench.server.forget();
    let blobs = bench.settings.cache.join("models--owner--tiny/blobs");
    let unfinished = bench.blobs().into_iter().find(|name| name.ends_with(".incomplete")).unwrap();
    let other = std::fs::File::open(blobs.join(&unfinished)).unwrap();
    other.lock().unwrap();
    bench.fetch(TINY, &["model.safetensors"]).unwrap();
    assert_eq!(bench.server.file_bytes_sent(), 100_000);
    assert_eq!(std::fs::metadata(blobs.join(&unfinished)).unwrap().len(), 60_000, "it was left alone");
}

#[test]
fn a_revision_is_resolved_once_and_only_its_commit_is_asked_for() {
    let bench = Bench::new();
    let first = tiny().commit("main").unwrap();
    let hub = bench.hub();
    let snapshot = hub.snapshot(&RepoAddress::model(TINY).unwrap()).unwrap();
    // Somebody pushes between the listing and the download.
    let mut pushed = tiny();
    let old = pushed.branches["main"].clone();
    pushed.branch("old", old.iter().map(|(path, bytes)| (path.as_str(), bytes.clone())));
    pushed.branch("main", [("config.json", b"{}".to_vec())]);
    bench.server.publish(pushed);
    bench.server.forget();
    hub.fetch(&snapshot, &[snapshot.file("model.safetensors").unwrap()], &mut |_| {}).unwrap();
    assert_eq!(Bench::read(&snapshot, "model.safetensors"), weights());
    assert!(bench.server.seen()[0].path.contains(&first));
    // The commit itself, and a branch, are revisions too.
    for revision in [first.as_str(), "old"] {
        let pinned = fetch(&hub, &format!("{TINY}@{revision}"), &["model.safetensors"]).unwrap();
        assert_eq!(pinned.commit.as_str(), first);
    }
}

#[test]
fn a_listing_of_several_pages_is_read_to_its_end() {
    let bench = Bench::new();
    let mut repo = tiny();
    repo.page = 2;
    bench.server.publish(repo);
    let snapshot = bench.hub().snapshot(&RepoAddress::model(TINY).unwrap()).unwrap();
    assert_eq!(snapshot.files.len(), 5);
}

#[test]
fn a_file_cut_short_in_the_cache_is_fetched_again() {
    let bench = Bench::new();
    let snapshot = bench.fetch(TINY, &["model.safetensors"]).unwrap();
    let blob = snapshot.folder.join("model.safetensors").canonicalize().unwrap();
    std::fs::OpenOptions::new().write(true).open(&blob).unwrap().set_len(99_999).unwrap();
    bench.fetch(TINY, &["model.safetensors"]).unwrap();
    assert_eq!(Bench::read(&snapshot, "model.safetensors"), weights());
}

#[test]
fn the_end_of_a_file_is_had_without_the_rest_and_not_kept() {
    let bench = Bench::new();
    let hub = bench.hub();
    let snapshot = hub.snapshot(&RepoAddress::model(TINY).unwrap()).unwrap();
    let file = snapshot.file("model.safetensors").unwrap();
    let end = hub.tail(&snapshot, file, 1000).unwrap();
    assert_eq!(end, weights()[weights().len() - 1000..]);
    assert_eq!(bench.server.file_bytes_sent(), 1000);
    assert!(!hub.has(&snapshot, file));
    assert_eq!(hub.tail(&snapshot, file, 1 << 40).unwrap(), weights());
    // A server that sends all of it is not listened to, one that sends another part is not believed.
    for range in [None, Some("Content-Range: bytes 0-999/100000")] {
        let (status, headers) = range.map_or((200, vec![]), |range| (206, vec![range.to_owned()]));
        bench.server.fault("/cdn/", 1, Fault::Instead(status, headers, vec![7; 1000]));
        let refused = hub.tail(&snapshot, file, 1000).unwrap_err();
        assert!(matches!(refused, HubError::NoRange { from: 99_000, .. }), "{refused}");
    }
    hub.fetch(&snapshot, &[file], &mut |_| ()).unwrap();
    bench.server.forget();
    assert_eq!(hub.tail(&snapshot, file, 1000).unwrap(), end);
    assert_eq!(bench.server.file_bytes_sent(), 0);
}

/// Fetches the weights and tells what happened.
fn events_of(hub: &moetrace_hub::Hub) -> Result<Vec<&'static str>, HubError> {
    let mut events = Vec::new();
    let snapshot = hub.snapshot(&RepoAddress::model(TINY).unwrap())?;
    hub.fetch(&snapshot, &[snapshot.file("model.safetensors").unwrap()], &mut |event| {
        events.push(match event {
            HubEvent::Checking { .. } => "checking",
            HubEvent::Spoilt { .. } => "spoilt",
            HubEvent::Begun { .. } => "begun",
            _ => return,
        });
    })?;
    Ok(events)
}

#[test]
fn a_file_that_another_program_put_into_the_cache_is_checked_once() {
    let bench = Bench::new();
    let snapshot = bench.fetch(TINY, &["model.safetensors"]).unwrap();
    assert_eq!(events_of(&bench.hub()).unwrap(), [""; 0], "what was downloaded was checked on the way");
    std::fs::remove_dir_all(bench.settings.cache.join("models--owner--tiny/checked")).unwrap();
    assert_eq!(events_of(&bench.hub()).unwrap(), ["checking"]);
    assert_eq!(events_of(&bench.offline()).unwrap(), [""; 0]);
    assert_eq!(Bench::read(&snapshot, "model.safetensors"), weights());
}

#[test]
fn a_bit_that_flipped_in_the_cache_is_found_and_the_file_fetched_again() {
    let bench = Bench::new();
    let snapshot = bench.fetch(TINY, &["model.safetensors"]).unwrap();
    let blob = snapshot.folder.join("model.safetensors").canonicalize().unwrap();
    let mut spoilt = weights();
    spoilt[70_000] ^= 1;
    // Clocks of file systems tick slowly.
    let later = std::time::SystemTime::now() + Duration::from_secs(5);
    std::fs::write(&blob, &spoilt).unwrap();
    std::fs::File::open(&blob).unwrap().set_modified(later).unwrap();
    let error = events_of(&bench.offline()).unwrap_err();
    assert!(matches!(&error, HubError::Spoilt { hash, .. } if hash.contains(&sha256(&weights()))), "{error}");
    assert_eq!(events_of(&bench.hub()).unwrap(), ["checking", "spoilt", "begun"]);
    assert_eq!(Bench::read(&snapshot, "model.safetensors"), weights());
    assert_eq!(events_of(&bench.offline()).unwrap(), [""; 0]);
}

#[test]
#[cfg(unix)]
fn a_whole_cache_that_can_only_be_read_is_used() {
    use std::os::unix::fs::PermissionsExt as _;
    let bench = Bench::new();
    bench.fetch(TINY, &["model.safetensors"]).unwrap();
    let root = bench.settings.cache.join("models--owner--tiny");
    for ours in ["listings", "checked"] {
        std::fs::remove_dir_all(root.join(ours)).unwrap();
    }
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o555)).unwrap();
    // Who may do everything cannot be refused.
    if std::fs::create_dir(root.join("probe")).is_err() {
        assert_eq!(events_of(&bench.hub()).unwrap(), ["checking"]);
    }
    std::fs::set_permissions(&root, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_disks_reserve_counts_whoever_asks() {
    let hub = Bench::new().hub();
    let free = hub.free_bytes().unwrap();
    assert!(hub.room_for(0).is_ok() && hub.room_for(1).is_ok());
    // Others write meanwhile: half of the reserve is less than what is needed beside it.
    let error = hub.room_for(free - (32 << 20)).unwrap_err();
    assert!(matches!(&error, HubError::Disk { .. }), "{error}");
}
