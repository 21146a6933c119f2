//! A hub that means harm, or is broken: no wrong byte is accepted, no file lands outside the cache, nothing panics.

use std::time::{Duration, Instant};

use loopback_hub::{Fault, Kind, Repo};
use moetrace_hub::{Hub, HubError, HubSettings, RepoAddress};

use crate::bench::{Bench, TINY, tiny, weights};

/// Fetches the weights while faults are in force, and looks at what is left behind.
fn refused(faults: &[(&str, usize, Fault)]) -> HubError {
    let bench = Bench::new();
    for (part, times, fault) in faults {
        bench.server.fault(part, *times, fault.clone());
    }
    let error = bench.fetch(TINY, &["model.safetensors"]).unwrap_err();
    assert!(bench.outside().is_empty(), "{:?}", bench.outside());
    let finished: Vec<String> = bench.blobs().into_iter().filter(|name| name.len() == 64).collect();
    assert!(finished.is_empty(), "{finished:?} became a blob after {error}");
    assert!(!bench.settings.cache.join("models--owner--tiny/snapshots").exists(), "{error}");
    error
}

/// Fetches the weights through faults that a client must get over.
fn survives(faults: &[(&str, usize, Fault)]) {
    let bench = Bench::new();
    for (part, times, fault) in faults {
        bench.server.fault(part, *times, fault.clone());
    }
    let snapshot = bench.fetch(TINY, &["model.safetensors"]).unwrap();
    assert_eq!(Bench::read(&snapshot, "model.safetensors"), weights());
    assert!(bench.outside().is_empty(), "{:?}", bench.outside());
}

fn instead(status: u16, headers: &[&str], body: &str) -> Fault {
    Fault::Instead(status, headers.iter().map(|&line| line.to_owned()).collect(), body.as_bytes().to_vec())
}

#[test]
fn the_body_of_an_error_is_never_the_file() {
    let error = refused(&[("/cdn/", 9, instead(403, &[], "forbidden"))]);
    assert!(matches!(error, HubError::Forbidden { status: 403, .. }), "{error}");
    let error = refused(&[("/cdn/", 9, instead(503, &[], "try later"))]);
    assert!(matches!(error, HubError::Busy { status: 503, .. }), "{error}");
    let error = refused(&[("/cdn/", 9, instead(404, &[], "gone"))]);
    assert!(matches!(error, HubError::NoFile { .. }), "{error}");
    let error = refused(&[("/resolve/", 9, instead(418, &[], "<html>teapot</html>"))]);
    assert!(matches!(error, HubError::Status { status: 418, .. }), "{error}");
    let error = refused(&[("/cdn/", 9, instead(204, &[], ""))]);
    assert!(matches!(error, HubError::Status { status: 204, .. }), "{error}");
}

#[test]
fn a_body_of_another_length_is_refused_with_what_it_begins_with() {
    let error = refused(&[("/cdn/", 1, instead(200, &[], "forbidden"))]);
    assert!(matches!(&error, HubError::Length { expected: 100_000, got: 9, .. }), "{error}");
    assert!(error.to_string().contains("forbidden"), "{error}");
    let error = refused(&[("/cdn/", 9, Fault::Longer(1))]);
    assert!(matches!(&error, HubError::Length { expected: 100_000, .. }), "{error}");
    let error = refused(&[("/cdn/", 9, Fault::Longer(10_000_000))]);
    assert!(matches!(&error, HubError::Length { expected: 100_000, .. }), "{error}");
}

#[test]
fn bytes_with_another_hash_are_refused_and_removed() {
    let error = refused(&[("/cdn/", 9, Fault::Spoilt)]);
    assert!(matches!(&error, HubError::Hash { .. }), "{error}");
    let bench = Bench::new();
    bench.server.fault("/cdn/", 9, Fault::Spoilt);
    bench.fetch(TINY, &["model.safetensors"]).unwrap_err();
    assert!(bench.blobs().is_empty(), "{:?}", bench.blobs());
    // git's own hash is checked as well.
    bench.server.fault("/resolve/", 9, Fault::Spoilt);
    let error = bench.fetch(TINY, &["config.json"]).unwrap_err();
    assert!(matches!(&error, HubError::Hash { .. }), "{error}");
}

#[test]
fn bytes_that_were_spoilt_once_are_fetched_once_more() {
    survives(&[("/cdn/", 1, Fault::Spoilt)]);
    // The first half is of something else; the hash of the whole tells.
    survives(&[("/cdn/", 1, Fault::Cut(60_000)), ("/cdn/", 1, Fault::Spoilt)]);
}

#[test]
fn a_server_without_ranges_or_with_wrong_ones_spoils_nothing() {
    survives(&[("/cdn/", 1, Fault::Cut(5_000)), ("/cdn/", 1, Fault::NoRanges)]);
    survives(&[("/cdn/", 1, Fault::Cut(5_000)), ("/cdn/", 1, Fault::WrongRange)]);
    survives(&[("/cdn/", 1, Fault::Cut(5_000)), ("/cdn/", 1, instead(416, &[], ""))]);
    // 206 for what was asked for as a whole.
    let error = refused(&[("/cdn/", 9, instead(206, &["Content-Range: bytes 0-8/9"], "forbidden"))]);
    assert!(matches!(error, HubError::Status { status: 206, .. }), "{error}");
    // Ranges that lie about the whole.
    survives(&[
        ("/cdn/", 1, Fault::Cut(5_000)),
        ("/cdn/", 1, instead(206, &["Content-Range: bytes 5000-5008/5009"], "forbidden")),
    ]);
    survives(&[
        ("/cdn/", 1, Fault::Cut(5_000)),
        ("/cdn/", 1, instead(206, &["Content-Range: bytes 5000-18446744073709551615/*"], "forbidden")),
    ]);
}

#[test]
fn a_connection_that_ends_too_often_is_an_interruption_that_says_how_far_it_came() {
    let error = refused(&[("/cdn/", 1, Fault::Cut(60_000)), ("/cdn/", 99, Fault::Cut(0))]);
    assert!(matches!(&error, HubError::Interrupted { have: 60_000, bytes: 100_000, .. }), "{error}");
}

/// Fetches the weights through faults that never end, and says how many bytes came before it was given up.
fn given_up(faults: &[(&str, usize, Fault)]) -> u64 {
    let bench = Bench::new();
    for (part, times, fault) in faults {
        bench.server.fault(part, *times, fault.clone());
    }
    let error = bench.fetch(TINY, &["model.safetensors"]).unwrap_err();
    assert!(matches!(&error, HubError::Interrupted { bytes: 100_000, .. }), "{error}");
    bench.server.file_bytes_sent()
}

#[test]
fn a_file_that_never_ends_where_its_listing_says_is_not_fetched_for_ever() {
    // Two repetitions that bring nothing new are allowed: three times the whole file, and the first.
    let one_byte_short = given_up(&[("/cdn/", 999, Fault::Shorter(1))]);
    assert!(one_byte_short <= 400_000, "{one_byte_short}");
    let turns = [Fault::Cut(60_000), Fault::WrongRange];
    let wrong_range: Vec<(&str, usize, Fault)> =
        turns.iter().cycle().take(200).map(|fault| ("/cdn/", 1, fault.clone())).collect();
    assert!(given_up(&wrong_range) <= 400_000);
}

#[test]
fn a_server_that_sends_a_little_more_of_the_whole_each_time_is_given_up() {
    let further = |i: usize| ("/cdn/", 1, Fault::CutNoRanges(30_000 + 500 * i));
    let sent = given_up(&(0..100).map(further).collect::<Vec<_>>());
    // As often as bytes may be given up, and the first time.
    assert!(sent <= 7 * 35_000, "{sent}");
}

#[test]
fn a_server_that_is_silent_is_given_up_in_time() {
    let begun = Instant::now();
    let bench = Bench::new();
    let mut settings = bench.settings.clone();
    (settings.read_timeout, settings.retries) = (Duration::from_millis(200), 1);
    bench.server.fault("/api/", 9, Fault::Late(Duration::from_secs(20)));
    let error = Hub::new(settings).unwrap().snapshot(&RepoAddress::model(TINY).unwrap()).unwrap_err();
    assert!(matches!(&error, HubError::Unreachable { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
}

#[test]
fn a_busy_hub_is_asked_again_after_the_time_it_asks_for() {
    let begun = Instant::now();
    survives(&[("/api/", 1, instead(429, &["Retry-After: 1"], "slow down"))]);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    survives(&[("/cdn/", 2, instead(429, &["Retry-After: 0"], "slow down"))]);
    survives(&[("/api/", 2, instead(502, &[], "")), ("/resolve/", 2, instead(500, &[], ""))]);
}

#[test]
fn a_pause_before_a_list_is_asked_for_again_is_told() {
    static TOLD: std::sync::Mutex<Vec<String>> = std::sync::Mutex::new(Vec::new());
    let bench = Bench::new();
    let settings = HubSettings {
        notice: |event| TOLD.lock().unwrap().push(format!("{event:?}")),
        ..bench.settings.clone()
    };
    bench.server.fault("/api/", 1, instead(429, &["Retry-After: 1"], "slow down"));
    Hub::new(settings).unwrap().snapshot(&RepoAddress::model(TINY).unwrap()).unwrap();
    let told = TOLD.lock().unwrap();
    assert!(
        told.len() == 1 && told[0].contains("the server answered 429") && told[0].contains("1s"),
        "{told:?}"
    );
}

#[test]
fn a_hub_that_asks_for_an_hour_is_an_error_at_once() {
    for part in ["/api/", "/cdn/"] {
        let begun = Instant::now();
        let error = refused(&[(part, 1, instead(429, &["Retry-After: 3600"], "slow down"))]);
        assert!(matches!(&error, HubError::Busy { status: 429, retry_after: Some(3600), .. }), "{error}");
        assert!(begun.elapsed() < Duration::from_secs(2));
    }
}

#[test]
fn answers_that_are_not_the_hubs_are_named_and_quoted() {
    for body in
        ["<!DOCTYPE html><title>Log in to the hotel</title>", "", "[]", "{\"sha\": 7}", "{\"sha\": \"main\"}"]
    {
        let error = refused(&[("/revision/", 9, instead(200, &[], body))]);
        assert!(matches!(&error, HubError::Answer { .. }), "{body}: {error}");
    }
    for body in [
        "{}",
        "[{\"type\": \"file\"}]",
        "[{\"type\": \"file\", \"path\": \"a\", \"oid\": \"../../x\", \"size\": 1}]",
    ] {
        let error = refused(&[("/tree/", 9, instead(200, &[], body))]);
        assert!(matches!(&error, HubError::Answer { .. }), "{body}: {error}");
    }
    let nested = "[".repeat(100_000);
    let error = refused(&[("/tree/", 9, instead(200, &[], &nested))]);
    assert!(matches!(&error, HubError::Answer { .. }), "{error}");
}

#[test]
fn a_commit_that_leads_out_of_the_cache_is_refused() {
    for sha in ["../../../../evil", "/etc", "A".repeat(40).as_str()] {
        let error = refused(&[("/revision/", 9, instead(200, &[], &format!("{{\"sha\": {sha:?}}}")))]);
        assert!(matches!(&error, HubError::Answer { .. }), "{error}");
    }
    // Headers of the same kind, which other clients followed, are not read at all.
    let headers =
        ["X-Repo-Commit: ../../../../evil", "ETag: \"../../../escaped\"", "X-Linked-Etag: ../../escaped"];
    let headers = headers.iter().map(|&line| line.to_owned()).collect();
    survives(&[("/resolve/", 1, Fault::Instead(200, headers, weights()))]);
}

#[test]
fn hashes_that_lead_out_of_the_cache_are_refused() {
    for oid in ["../../../escaped", "/tmp/escaped", ""] {
        let entry = format!(
            "[{{\"type\": \"file\", \"path\": \"model.safetensors\", \"oid\": \"\", \"size\": 9, \"lfs\": {{\"oid\": {oid:?}, \"size\": 9}}}}]"
        );
        let error = refused(&[("/tree/", 9, instead(200, &[], &entry))]);
        assert!(matches!(&error, HubError::Answer { .. }), "{error}");
    }
}

#[test]
fn a_repository_with_a_name_that_leaves_its_folder_is_refused_whole() {
    for name in
        ["../../../../outside.txt", "/etc/cron.d/x", "a/../../b", "a\\..\\..\\b", "c:evil", "a/./b", "a\0b"]
    {
        let bench = Bench::new();
        let mut repo = tiny();
        repo.branches.get_mut("main").unwrap().insert(name.to_owned(), b"evil".to_vec());
        bench.server.publish(repo);
        let error = bench.fetch(TINY, &["config.json"]).unwrap_err();
        assert!(matches!(&error, HubError::UnsafeName { .. }), "{name}: {error}");
        assert!(bench.outside().is_empty() && bench.blobs().is_empty());
    }
}

#[test]
fn redirects_in_circles_and_to_other_schemes_are_refused() {
    let circle = instead(302, &["Location: /owner/tiny/resolve/round"], "");
    let error = refused(&[("/resolve/", 99, circle)]);
    assert!(matches!(&error, HubError::Redirect { .. }), "{error}");
    for target in ["file:///etc/passwd", "ftp://127.0.0.1/x", "", "model.safetensors"] {
        let error = refused(&[("/resolve/", 99, instead(302, &[&format!("Location: {target}")], ""))]);
        assert!(matches!(&error, HubError::Redirect { .. }), "{target}: {error}");
    }
}

#[test]
fn a_listing_that_goes_on_at_another_scheme_is_refused() {
    let error = refused(&[("/tree/", 1, instead(200, &["Link: <ftp://other/x>; rel=\"next\""], "[]"))]);
    assert!(matches!(&error, HubError::Redirect { .. }), "{error}");
}

#[test]
fn a_renamed_repository_is_followed() {
    let bench = Bench::new();
    let commit = tiny().commit("main").unwrap();
    let to = format!("Location: /api/models/owner/tiny/revision/{commit}");
    bench.server.fault("/api/models/owner/old-name/revision/main", 1, instead(307, &[&to], ""));
    let hub = bench.hub();
    let error = hub.snapshot(&RepoAddress::model("owner/old-name").unwrap()).unwrap_err();
    // The first route was followed; this server knows the second one under the new name only.
    assert!(matches!(&error, HubError::NoRepo { .. }), "{error}");
    assert!(bench.server.seen().iter().any(|seen| seen.path.contains("old-name/tree")));
}

#[test]
fn a_cache_that_is_a_link_out_of_itself_is_not_followed() {
    let bench = Bench::new();
    let snapshot = bench.fetch(TINY, &["config.json"]).unwrap();
    let secret = bench.dir.path().join("secret.json");
    std::fs::write(&secret, "{}").unwrap();
    let planted = snapshot.folder.join("tokenizer.json");
    std::os::unix::fs::symlink(&secret, &planted).unwrap();
    let error = bench.offline().snapshot(&RepoAddress::model(TINY).unwrap()).unwrap_err();
    assert!(matches!(&error, HubError::Linked { .. }), "{error}");
    // Online it is replaced by what belongs there, and what it led to is left alone.
    bench.fetch(TINY, &["tokenizer.json"]).unwrap();
    assert!(planted.canonicalize().unwrap().starts_with(bench.settings.cache.canonicalize().unwrap()));
    assert_eq!(std::fs::read_to_string(&secret).unwrap(), "{}");
}

#[test]
fn a_folder_of_the_cache_that_leads_out_of_it_is_not_written_through() {
    let elsewhere = |folder: &str| {
        let bench = Bench::new();
        let foreign = bench.dir.path().join("foreign");
        std::fs::create_dir(&foreign).unwrap();
        std::fs::write(foreign.join("config.json"), "foreign").unwrap();
        let link = bench.settings.cache.join("models--owner--tiny").join(folder);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        std::os::unix::fs::symlink(&foreign, link).unwrap();
        let error = bench.fetch(TINY, &["config.json"]).unwrap_err();
        assert!(matches!(&error, HubError::Linked { .. }), "{folder}: {error}");
        assert_eq!(bench.outside().len(), 1, "{folder}");
        assert_eq!(std::fs::read_to_string(foreign.join("config.json")).unwrap(), "foreign");
    };
    let commit = tiny().commit("main").unwrap();
    for folder in ["blobs", "snapshots", &format!("snapshots/{commit}")] {
        elsewhere(folder);
    }
}

#[test]
fn a_link_in_place_of_a_blob_is_replaced_by_the_blob() {
    let bench = Bench::new();
    let victim = bench.dir.path().join("victim");
    std::fs::write(&victim, tiny().branches["main"]["config.json"].clone()).unwrap();
    let blobs = bench.settings.cache.join("models--owner--tiny/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let blob = blobs.join(loopback_hub::git_hash(&tiny().branches["main"]["config.json"]));
    std::os::unix::fs::symlink(&victim, &blob).unwrap();
    bench.fetch(TINY, &["config.json"]).unwrap();
    assert!(!blob.is_symlink() && blob.is_file() && victim.is_file());
}

#[test]
fn an_unfinished_file_that_is_a_link_is_not_written_through() {
    let bench = Bench::new();
    let victim = bench.dir.path().join("victim");
    std::fs::write(&victim, "precious").unwrap();
    let blobs = bench.settings.cache.join("models--owner--tiny/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    let hash = loopback_hub::sha256(&weights());
    std::os::unix::fs::symlink(&victim, blobs.join(format!("{hash}.000000000000.moetrace.incomplete")))
        .unwrap();
    let snapshot = bench.fetch(TINY, &["model.safetensors"]).unwrap();
    assert_eq!(Bench::read(&snapshot, "model.safetensors"), weights());
    assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious");
}

#[test]
fn a_cache_that_cannot_be_made_is_named() {
    let bench = Bench::new();
    let file = bench.dir.path().join("file");
    std::fs::write(&file, "").unwrap();
    let hub = Hub::new(HubSettings { cache: file.join("hub"), ..bench.settings.clone() }).unwrap();
    let error = crate::bench::fetch(&hub, TINY, &["config.json"]).unwrap_err();
    assert!(matches!(&error, HubError::Io { .. }), "{error}");
}

#[test]
fn a_download_larger_than_the_disk_is_refused_before_its_first_byte() {
    let bench = Bench::new();
    let entry = format!(
        "[{{\"type\": \"file\", \"path\": \"model.safetensors\", \"size\": 1, \"lfs\": {{\"oid\": \"{}\", \"size\": {}}}}}]",
        "a".repeat(64),
        u64::MAX / 2
    );
    bench.server.fault("/tree/", 1, instead(200, &[], &entry));
    let error = bench.fetch(TINY, &["model.safetensors"]).unwrap_err();
    assert!(matches!(&error, HubError::Disk { .. }), "{error}");
    assert_eq!(bench.server.file_bytes_sent(), 0);
}

#[test]
fn nobody_at_home_is_an_error_that_names_the_host() {
    let bench = Bench::new();
    let mut settings = bench.settings.clone();
    // Bound and closed again: nobody listens there.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    settings.endpoint = format!("http://{port}");
    let error = Hub::new(settings.clone()).unwrap().snapshot(&RepoAddress::model(TINY).unwrap()).unwrap_err();
    let HubError::Unreachable { host, proxy: None, cached: false, .. } = &error else { panic!("{error}") };
    assert_eq!(*host, port.to_string());
    // And a proxy that is not there is named as one.
    let url = format!("http://user:CANARY@{port}");
    settings.proxy = Some(moetrace_hub::ProxySettings { url, except: String::new() });
    settings.endpoint = "https://hub.invalid".to_owned();
    let error = Hub::new(settings).unwrap().snapshot(&RepoAddress::model(TINY).unwrap()).unwrap_err();
    let HubError::Unreachable { proxy: Some(proxy), .. } = &error else { panic!("{error}") };
    assert_eq!(*proxy, port.to_string());
    assert!(!error.to_string().contains("CANARY"), "{error}");
}

#[test]
fn settings_that_cannot_be_are_refused_by_name() {
    let bench = Bench::new();
    for endpoint in ["", "huggingface.co", "ftp://huggingface.co", "https://"] {
        let hub = Hub::new(HubSettings { endpoint: endpoint.into(), ..bench.settings.clone() });
        assert!(matches!(hub.err().unwrap(), HubError::Setting { what: "the endpoint", .. }), "{endpoint}");
    }
    for url in [
        "gopher://x",
        "socks5://127.0.0.1:9",
        "socks5h://127.0.0.1:9",
        "socks4://127.0.0.1:9",
        "socks4a://x:9",
    ] {
        let proxy = moetrace_hub::ProxySettings { url: url.into(), except: String::new() };
        let settings = HubSettings { proxy: Some(proxy), ..bench.settings.clone() };
        assert!(matches!(
            Hub::new(settings.clone()).err().unwrap(),
            HubError::Setting { what: "the proxy", .. }
        ));
        // Nobody is asked without a network, so that the way there may be wrong.
        assert!(Hub::new(HubSettings { offline: true, ..settings }).is_ok());
    }
    for certificates in [bench.dir.path().join("nowhere.pem"), bench.dir.path().to_owned()] {
        let settings = HubSettings { root_certificates: Some(certificates), ..bench.settings.clone() };
        let refused = Hub::new(settings.clone()).err().unwrap();
        assert!(matches!(refused, HubError::Setting { what: "the file of certificates", .. }), "{refused}");
        assert!(Hub::new(HubSettings { offline: true, ..settings }).is_ok());
    }
    let certificates = bench.dir.path().join("empty.pem");
    std::fs::write(&certificates, "nothing").unwrap();
    let hub = Hub::new(HubSettings { root_certificates: Some(certificates), ..bench.settings.clone() });
    assert!(matches!(hub.err().unwrap(), HubError::Setting { .. }));
}

#[test]
fn a_file_that_the_listing_has_and_the_hub_has_not_is_named() {
    let bench = Bench::new();
    let snapshot = bench.hub().snapshot(&RepoAddress::model(TINY).unwrap()).unwrap();
    bench.server.publish(Repo::new(Kind::Model, TINY, [("other", vec![])]));
    let error =
        bench.hub().fetch(&snapshot, &[snapshot.file("config.json").unwrap()], &mut |_| {}).unwrap_err();
    assert!(matches!(&error, HubError::NoRevision { .. } | HubError::NoFile { .. }), "{error}");
}
