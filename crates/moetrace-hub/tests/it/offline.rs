//! Without a network: what the cache has, and what it lacks.

use std::path::Path;

use loopback_hub::sha256;
use moetrace_hub::{Hub, HubError, HubSettings, RepoAddress, model_files};

use crate::bench::{Bench, TINY, fetch, tiny, weights};

#[test]
fn a_snapshot_in_the_cache_is_used_without_a_single_request() {
    let bench = Bench::new();
    let online = bench.fetch(TINY, &["config.json", "model.safetensors"]).unwrap();
    bench.server.forget();
    let offline = fetch(&bench.offline(), TINY, &["config.json", "model.safetensors"]).unwrap();
    assert!(bench.server.seen().is_empty());
    assert_eq!((offline.folder.clone(), &offline.commit), (online.folder, &online.commit));
    let listed: Vec<_> = online
        .files
        .into_iter()
        .filter(|f| matches!(f.path.as_str(), "config.json" | "model.safetensors"))
        .collect();
    assert_eq!(offline.files, listed, "the links tell the hashes");
}

#[test]
fn a_revision_that_was_never_looked_up_is_named() {
    let bench = Bench::new();
    let error = bench.offline().snapshot(&RepoAddress::model(TINY).unwrap()).unwrap_err();
    assert!(matches!(&error, HubError::Offline { .. }), "{error}");
    bench.fetch(TINY, &["config.json"]).unwrap();
    let other = RepoAddress::model("owner/tiny@v2").unwrap();
    assert!(matches!(bench.offline().snapshot(&other), Err(HubError::Offline { .. })));
    assert!(bench.server.seen().iter().all(|seen| !seen.path.contains("v2")));
}

#[test]
fn a_commit_is_found_by_itself_and_a_blob_that_is_gone_is_missed() {
    let bench = Bench::new();
    let commit = tiny().commit("main").unwrap();
    bench.fetch(TINY, &["config.json", "model.safetensors"]).unwrap();
    let pinned = RepoAddress::model(&format!("{TINY}@{commit}")).unwrap();
    let snapshot = bench.offline().snapshot(&pinned).unwrap();
    assert!(model_files(&snapshot).is_ok());
    let blob = bench.settings.cache.join("models--owner--tiny/blobs").join(sha256(&weights()));
    std::fs::remove_file(blob).unwrap();
    let hub = bench.offline();
    let error =
        hub.fetch(&snapshot, &[snapshot.file("model.safetensors").unwrap()], &mut |_| {}).unwrap_err();
    assert!(matches!(&error, HubError::Offline { what, .. } if what == "model.safetensors"), "{error}");
}

#[test]
fn without_a_network_the_error_says_that_the_cache_could_help() {
    let bench = Bench::new();
    bench.fetch(TINY, &["config.json"]).unwrap();
    let gone = HubSettings { endpoint: "http://127.0.0.1:9".into(), ..bench.settings.clone() };
    let error = Hub::new(gone).unwrap().snapshot(&RepoAddress::model(TINY).unwrap()).unwrap_err();
    assert!(matches!(&error, HubError::Unreachable { cached: true, .. }), "{error}");
}

#[test]
fn a_cache_without_links_as_pythons_client_writes_it_elsewhere_is_read_too() {
    let bench = Bench::new();
    let commit = "0123456789".repeat(4);
    let root = bench.settings.cache.join("models--owner--tiny");
    let write = |path: &Path, text: &str| {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    };
    write(&root.join("refs/main"), &commit);
    write(&root.join("snapshots").join(&commit).join("config.json"), "{}");
    write(&root.join("snapshots").join(&commit).join("sub/x.json"), "{}");
    let snapshot = fetch(&bench.offline(), TINY, &["config.json", "sub/x.json"]).unwrap();
    assert_eq!(snapshot.files.len(), 2);
    assert!(snapshot.files.iter().all(|file| file.hash.is_none() && file.bytes == 2));
}

#[test]
fn references_that_are_no_commits_lead_nowhere() {
    let bench = Bench::new();
    let root = bench.settings.cache.join("models--owner--tiny");
    std::fs::create_dir_all(root.join("refs")).unwrap();
    for text in ["../../../evil", "", "main"] {
        std::fs::write(root.join("refs/main"), text).unwrap();
        let error = bench.offline().snapshot(&RepoAddress::model(TINY).unwrap()).unwrap_err();
        assert!(matches!(&error, HubError::Offline { .. }), "{error}");
    }
}
