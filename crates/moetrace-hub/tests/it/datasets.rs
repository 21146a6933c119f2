//! Data sets by name, and which Parquet files that is.

use loopback_hub::{Kind, Repo};
use moetrace_hub::{DatasetAddress, HubError, Revision, Snapshot, parquet_of};

use crate::bench::Bench;

fn address(text: &str) -> (String, String, Option<String>, Option<String>, Option<String>) {
    let a = DatasetAddress::parse(text).unwrap();
    (a.repo.id.to_string(), a.repo.revision.to_string(), a.config, a.split, a.column)
}

#[test]
fn addresses_are_taken_apart() {
    let some = |text: &str| Some(text.to_owned());
    let is = |text: &str, revision: &str, config: Option<&str>, split: Option<&str>, column: Option<&str>| {
        let expected = (
            "o/n".to_owned(),
            revision.to_owned(),
            config.and_then(some),
            split.and_then(some),
            column.and_then(some),
        );
        assert_eq!(address(text), expected, "{text}");
    };
    is("hf://datasets/o/n", "main", None, None, None);
    is("hf://datasets/o/n:text", "main", None, None, Some("text"));
    is("hf://datasets/o/n/plain_text", "main", Some("plain_text"), None, None);
    is("hf://datasets/o/n/plain_text/test:review", "main", Some("plain_text"), Some("test"), Some("review"));
    is("hf://datasets/o/n@v1/c/s", "v1", Some("c"), Some("s"), None);
    is("hf://datasets/o/n@~parquet/c", "refs/convert/parquet", Some("c"), None, None);
    is("hf://datasets/o/n@refs/convert/parquet/c/s", "refs/convert/parquet", Some("c"), Some("s"), None);
    is("hf://datasets/o/n@refs%2Fpr%2F3/c", "refs/pr/3", Some("c"), None, None);
    is("hf://datasets/o/n/data%2FCC-MAIN/train", "main", Some("data/CC-MAIN"), Some("train"), None);
    is("hf://datasets/o/n/a%252Fb", "main", Some("a%2Fb"), None, None);
    for text in [
        "hf://o/n",
        "hf://datasets/",
        "hf://datasets/o",
        "hf://datasets/o/n/",
        "hf://datasets/o/n/a/b/c",
        "hf://datasets/o/n:",
        "hf://datasets/o/n//s",
        "hf://datasets/../n",
        "hf://datasets/o/n@../c",
        "hf://datasets/o/n@",
        "hf://spaces/o/n",
    ] {
        assert!(DatasetAddress::parse(text).is_err(), "{text}");
    }
}

fn snapshot(paths: &[&str]) -> Snapshot {
    let bench = Bench::new();
    bench.server.publish(Repo::new(
        Kind::Dataset,
        "o/n",
        paths.iter().map(|path| (*path, path.as_bytes().to_vec())),
    ));
    bench.hub().snapshot(&DatasetAddress::parse("hf://datasets/o/n").unwrap().repo).unwrap()
}

fn found(snapshot: &Snapshot, config: Option<&str>, split: Option<&str>) -> (String, String, Vec<String>) {
    let parquet = parquet_of(snapshot, config, split).unwrap();
    (parquet.config, parquet.split, parquet.files.iter().map(|file| file.path.clone()).collect())
}

#[test]
fn a_split_of_a_configuration_is_found_by_the_names_of_its_files() {
    let imdb = snapshot(&[
        "README.md",
        "plain_text/test-00000-of-00001.parquet",
        "plain_text/train-00000-of-00002.parquet",
        "plain_text/train-00001-of-00002.parquet",
        "plain_text/unsupervised-00000-of-00001.parquet",
    ]);
    let (config, split, files) = found(&imdb, None, None);
    assert_eq!((config.as_str(), split.as_str(), files.len()), ("plain_text", "train", 2));
    assert_eq!(found(&imdb, Some("plain_text"), Some("test")).2, ["plain_text/test-00000-of-00001.parquet"]);
    let error = parquet_of(&imdb, None, Some("dev")).unwrap_err();
    assert!(matches!(&error, HubError::NoSplit { has, .. } if has.len() == 3), "{error}");
    let error = parquet_of(&imdb, Some("other"), None).unwrap_err();
    assert!(matches!(&error, HubError::NoConfig { has, .. } if has == &["plain_text"]), "{error}");
}

#[test]
fn the_usual_forms_of_names_are_known() {
    let of = |path: &str| {
        let (config, split, _) = found(&snapshot(&[path]), None, None);
        format!("{config} {split}")
    };
    assert_eq!(of("data/train-00000-of-00001.parquet"), "default train");
    assert_eq!(of("data/train-00000-of-00001-b943b1bc7a2a.parquet"), "default train");
    assert_eq!(of("train.parquet"), "default train");
    assert_eq!(of("en/validation.parquet"), "en validation");
    assert_eq!(of("en/train/0000.parquet"), "en train");
    assert_eq!(of("train/0000.parquet"), "default train");
    assert_eq!(of("a/b/dev-set-00000-of-00001.parquet"), "a/b dev-set");
    assert_eq!(of("0000.parquet"), "default 0000");
}

#[test]
fn a_split_with_fewer_files_than_their_names_say_is_refused() {
    let half = snapshot(&["c/train-00001-of-00003.parquet", "c/train-00002-of-00003.parquet"]);
    let error = parquet_of(&half, None, None).unwrap_err();
    assert!(matches!(&error, HubError::Incomplete { has: 2, of: 3, .. }), "{error}");
}

#[test]
fn files_are_counted_by_their_numbers_and_not_by_how_many_there_are() {
    let twice = |paths: &[&str]| {
        let error = parquet_of(&snapshot(paths), None, None).unwrap_err();
        let HubError::Twice { files, split, .. } = &error else { panic!("{error}") };
        assert_eq!(split, "train");
        assert!(files.iter().all(|file| paths.contains(&file.as_str())) && files[0] != files[1], "{error}");
    };
    // Two files, as the names say there are, but one of them is missing and the other there twice.
    twice(&["c/train-00000-of-00002-abc.parquet", "c/train-00000-of-00002.parquet"]);
    // An upload over an older one.
    twice(&[
        "c/train-00000-of-00001.parquet",
        "c/train-00000-of-00002.parquet",
        "c/train-00001-of-00002.parquet",
    ]);
    twice(&["data/train-00000-of-00001.parquet", "train-00000-of-00001.parquet"]);
    let beyond = snapshot(&["c/train-00000-of-00002.parquet", "c/train-00007-of-00002.parquet"]);
    let error = parquet_of(&beyond, None, None).unwrap_err();
    assert!(matches!(&error, HubError::Incomplete { has: 1, of: 2, .. }), "{error}");
}

#[test]
fn a_message_lists_some_names_and_says_how_many_more_there_are() {
    let paths: Vec<String> = (0..40).map(|i| format!("data/part-{i:02}.parquet")).collect();
    let many = snapshot(&paths.iter().map(String::as_str).collect::<Vec<_>>());
    let error = parquet_of(&many, None, None).unwrap_err().to_string();
    assert!(error.contains("part-11 and 28 more") && !error.contains("part-12"), "{error}");
}

#[test]
fn several_configurations_without_a_default_have_to_be_named() {
    let wikitext = snapshot(&[
        "wikitext-103-v1/train-00000-of-00001.parquet",
        "wikitext-2-raw-v1/train-00000-of-00001.parquet",
    ]);
    let error = parquet_of(&wikitext, None, None).unwrap_err();
    assert!(matches!(&error, HubError::WhichConfig { has, .. } if has.len() == 2), "{error}");
    assert_eq!(found(&wikitext, Some("wikitext-2-raw-v1"), None).1, "train");
}

#[test]
fn the_hubs_own_conversion_says_where_it_stopped() {
    let bench = Bench::new();
    let mut repo = Repo::new(Kind::Dataset, "o/n", [("data.json", b"{}".to_vec())]);
    repo.branch("refs/convert/parquet", [("default/partial-train/0000.parquet", b"x".to_vec())]);
    bench.server.publish(repo);
    let hub = bench.hub();
    let address = DatasetAddress::parse("hf://datasets/o/n").unwrap();
    let main = hub.snapshot(&address.repo).unwrap();
    assert!(matches!(parquet_of(&main, None, None), Err(HubError::NoParquet { .. })));
    let converted = hub.snapshot(&address.repo.at(Revision::parquet())).unwrap();
    let parquet = parquet_of(&converted, None, None).unwrap();
    assert!(parquet.is_partial);
    assert_eq!((parquet.config.as_str(), parquet.split.as_str()), ("default", "train"));
    hub.fetch(&converted, &parquet.files, &mut |_| {}).unwrap();
    assert_eq!(Bench::read(&converted, "default/partial-train/0000.parquet"), b"x");
    assert!(bench.settings.cache.join("datasets--o--n/refs/refs/convert/parquet").is_file());
}
