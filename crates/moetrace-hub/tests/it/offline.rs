//! Without a network: what the cache has, and what it lacks.

use std::path::Path;

use loopback_hub::sha256;
use moetrace_hub::{Hub, HubError, HubSettings, RepoAddress, model_files, parquet_of, weight_files};

use crate::bench::{Bench, TINY, fetch, tiny, weights};

#[test]
fn a_snapshot_in_the_cache_is_used_without_a_single_request() {
    let bench = Bench::new();
    let online = bench.fetch(TINY, &["config.json", "model.safetensors"]).unwrap();
    bench.server.forget();
    let offline = fetch(&bench.offline(), TINY, &["config.json", "model.safetensors"]).unwrap();
    assert!(bench.server.seen().is_empty());
    assert_eq!((offline.folder.clone(), &offline.commit), (online.folder.clone(), &online.commit));
    assert_eq!(offline.files, online.files, "also those that were not fetched");
    // Without the list that was kept, the links tell what is there.
    std::fs::remove_dir_all(bench.settings.cache.join("models--owner--tiny/listings")).unwrap();
    let offline = fetch(&bench.offline(), TINY, &["config.json", "model.safetensors"]).unwrap();
    let is_there = |path: &str| matches!(path, "config.json" | "model.safetensors");
    let there: Vec<_> = online.files.into_iter().filter(|file| is_there(&file.path)).collect();
    assert_eq!(offline.files, there);
}

#[test]
fn the_list_that_pythons_client_keeps_is_read_where_there_is_none_of_ours() {
    let bench = Bench::new();
    let snapshot = bench.fetch(TINY, &["config.json"]).unwrap();
    let root = bench.settings.cache.join("models--owner--tiny");
    std::fs::remove_dir_all(root.join("listings")).unwrap();
    std::fs::create_dir(root.join("trees")).unwrap();
    let hash = sha256(&weights());
    // As huggingface_hub 2.4.0 writes it.
    let tree = format!(
        r#"{{"format_version": 1, "files": {{
            "config.json": {{"size": 25, "blob_id": "{}"}},
            "model.safetensors": {{"size": 134, "blob_id": "{}", "lfs_sha256": "{hash}", "lfs_size": 100000}}}}}}"#,
        snapshot.file("config.json").unwrap().hash.as_ref().unwrap().hex(),
        "0".repeat(40),
    );
    let listed = |tree: &str| {
        std::fs::write(root.join("trees").join(format!("{}.json", snapshot.commit)), tree).unwrap();
        bench.offline().snapshot(&RepoAddress::model(TINY).unwrap()).unwrap().files
    };
    let there = |name: &str| snapshot.file(name).unwrap().clone();
    assert_eq!(listed(&tree), [there("config.json"), there("model.safetensors")]);
    for other in
        [tree.replace("version\": 1", "version\": 2"), tree.replace("model.s", "../m.s"), "{}".into()]
    {
        assert_eq!(listed(&other), [there("config.json")], "only what lies there");
    }
}

#[test]
fn a_list_in_the_cache_is_not_believed() {
    let bench = Bench::new();
    let snapshot = bench.fetch(TINY, &["config.json"]).unwrap();
    let listings = bench.settings.cache.join("models--owner--tiny/listings");
    let list = listings.join(format!("{}.json", snapshot.commit));
    let good = std::fs::read_to_string(&list).unwrap();
    for bad in [
        good.replace("config.json", "../../config.json"),
        good.replace("Git\":\"", "Git\":\"../"),
        "{".into(),
    ] {
        std::fs::write(&list, &bad).unwrap();
        let offline = bench.offline().snapshot(&RepoAddress::model(TINY).unwrap()).unwrap();
        let paths: Vec<&str> = offline.files.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(paths, ["config.json"], "{bad}");
    }
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

#[test]
fn what_a_partial_cache_of_another_program_lacks_is_missed_and_not_called_a_fault_of_the_model() {
    let bench = Bench::new();
    bench.fetch(TINY, &["config.json"]).unwrap();
    let snapshot = || bench.offline().snapshot(&RepoAddress::model(TINY).unwrap()).unwrap();
    assert!(model_files(&snapshot()).is_ok(), "the list that was kept says that there is more");
    let root = bench.settings.cache.join("models--owner--tiny");
    std::fs::remove_dir_all(root.join("listings")).unwrap();
    let missed = |error: HubError, file: &str| {
        assert!(matches!(&error, HubError::Offline { what, .. } if what == file), "{error}");
    };
    missed(model_files(&snapshot()).unwrap_err(), "model.safetensors");
    let index = r#"{"weight_map": {"a": "model-1.safetensors"}}"#;
    missed(weight_files(&snapshot(), Some(index)).unwrap_err(), "model-1.safetensors");
    missed(parquet_of(&snapshot(), None, None).unwrap_err(), "a file of default/train");
    std::fs::remove_file(snapshot().folder.join("config.json")).unwrap();
    missed(model_files(&snapshot()).unwrap_err(), "config.json");
}
