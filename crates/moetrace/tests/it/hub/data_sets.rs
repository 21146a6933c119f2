//! Data sets as repositories have them.

use super::*;

#[test]
fn data_sets_that_cannot_be_read_are_named_with_what_they_have() {
    let bench = Bench::new();
    let publish = |id: &str, files: &[(&str, Vec<u8>)]| {
        bench.server.publish(Repo::new(
            Kind::Dataset,
            id,
            files.iter().map(|(path, bytes)| (*path, bytes.clone())),
        ));
    };
    let texts = || fixture("datasets/encyclopaedia.parquet");
    publish(
        "o/two",
        &[("a/train-00000-of-00001.parquet", texts()), ("b/train-00000-of-00001.parquet", texts())],
    );
    publish("o/none", &[("data.json", b"{}".to_vec())]);
    publish("o/broken", &[("train.parquet", b"PAR1 this is no Parquet file at all PAR1".to_vec())]);
    publish(
        "o/slash",
        &[("d/a/train-00000-of-00001.parquet", texts()), ("d/b/train-00000-of-00001.parquet", texts())],
    );
    publish(
        "o/again",
        &[("train-00000-of-00001.parquet", texts()), ("train-00000-of-00001-abc.parquet", texts())],
    );
    let sealed = [&texts()[..texts().len() - 4], b"PARE"].concat();
    publish("o/sealed", &[("train.parquet", sealed)]);
    publish("o/half", &[("train-00000-of-00002.parquet", texts())]);
    let says = |dataset: &str, exit: i32, parts: &[&str]| {
        let (code, stderr) = bench.fails(&["collect", "--traces", "4", "--dataset", dataset]);
        assert_eq!(code, exit, "{stderr}");
        for part in parts {
            assert!(stderr.contains(part), "{part} is not in {stderr}");
        }
    };
    says("hf://datasets/o/two", 2, &["E-DATASET", "a, b", "hf://datasets/o/two/a"]);
    says("hf://datasets/o/two/c", 2, &["E-DATASET", "no configuration \"c\""]);
    says("hf://datasets/o/two/a/test", 2, &["E-DATASET", "no split \"test\"; it has train"]);
    says("hf://datasets/o/none", 65, &["E-DATA", "no Parquet files", "refs/convert/parquet"]);
    says("hf://datasets/o/broken", 65, &["E-DATA", "train.parquet"]);
    says("hf://datasets/o/half", 65, &["E-DATA", "1 of the 2 files"]);
    says("hf://datasets/o/two/a:nothing", 65, &["E-COLUMN", "nothing", "columns: "]);
    says("hf://datasets/o/slash", 2, &["E-DATASET", "d/a, d/b", "hf://datasets/o/slash/d%2Fa"]);
    says("hf://datasets/o/slash/d%2Fa:nothing", 65, &["E-COLUMN"]);
    says("hf://datasets/o/again", 65, &["E-DATA", "more than once", "train-00000-of-00001-abc.parquet"]);
    says("hf://datasets/o/sealed", 65, &["E-DATA", "encrypted"]);
    says("hf://datasets/o/absent", 66, &["E-NOREPO", "data set o/absent"]);
    says("hf://o/two", 2, &["E-DATASET", "hf://datasets/OWNER/NAME"]);
    says("x=hf://datasets/o/a b", 2, &["E-HUB-NAME"]);
}

#[test]
fn the_hubs_own_conversion_is_read_where_a_repository_has_no_parquet() {
    let bench = Bench::new();
    let mut repo = Repo::new(Kind::Dataset, "o/json", [("data.json", b"{}".to_vec())]);
    repo.branch(
        "refs/convert/parquet",
        [("default/partial-train/0000.parquet", fixture("datasets/encyclopaedia.parquet"))],
    );
    bench.server.publish(repo);
    let args = ["collect", "--traces", "4", "--dataset", "hf://datasets/o/json", "--out", "run"];
    let (code, stderr) = bench.ends(&args);
    assert_eq!(code, 0, "{stderr}");
    assert!(stderr.contains("only the first part"), "{stderr}");
    let manifest = json(&bench.dir.path().join("run/manifest.json"));
    assert_eq!(manifest["datasets"][0]["hub"]["revision"], "refs/convert/parquet");
    let (code, stderr) = bench.ends(&[&args[..], &["--offline"]].concat());
    assert_eq!(code, 0, "{stderr}");
}

#[test]
fn files_whose_names_say_nothing_are_read_from_the_hubs_own_conversion() {
    let bench = Bench::new();
    let texts = || fixture("datasets/encyclopaedia.parquet");
    let names = ["part-00000-9d8f-c000.snappy.parquet", "part-00001-9d8f-c000.snappy.parquet"];
    let mut repo = Repo::new(Kind::Dataset, "o/spark", names.map(|name| (name, texts())));
    repo.branch("refs/convert/parquet", [("default/train/0000.parquet", texts())]);
    bench.server.publish(repo);
    let (code, stderr) = bench.ends(&[
        "collect",
        "--quiet",
        "--traces",
        "4",
        "--dataset",
        "hf://datasets/o/spark",
        "--out",
        "run",
    ]);
    assert_eq!(code, 0, "{stderr}");
    let manifest = json(&bench.dir.path().join("run/manifest.json"));
    assert_eq!(manifest["datasets"][0]["hub"]["revision"], "refs/convert/parquet");
}

/// The embedded Parquet file four times, each by another version of its writer: the budget holds three, the texts need one.
#[test]
fn of_a_large_data_set_as_many_files_are_downloaded_as_the_texts_need() {
    let bench = Bench::new();
    let texts = fixture("datasets/encyclopaedia.parquet");
    let names = [0, 1, 2, 3].map(|i| format!("data/train-{i:05}-of-00004.parquet"));
    let version = b"version 26.0.";
    let at = texts.windows(version.len()).position(|w| w == version).unwrap() + version.len();
    let variant = |i: u8| [&texts[..at], &[b'2' + i], &texts[at + 1..]].concat();
    let files = names.iter().zip(0..).map(|(name, i)| (name.as_str(), variant(i)));
    bench.server.publish(Repo::new(Kind::Dataset, "o/large", files));
    let budget = (3 * texts.len()).to_string();
    let collect = |traces: &str, out: &str, more: &[&str]| {
        let args = ["collect", "--quiet", "--dataset", "hf://datasets/o/large", "--file-budget", &budget];
        bench.ends(&[&args[..], &["--traces", traces, "--out", out], more].concat())
    };
    let read = |out: &str| -> Vec<String> {
        let manifest = json(&bench.dir.path().join(out).join("manifest.json"));
        let files = manifest["datasets"][0]["files"].as_array().unwrap().clone();
        assert_eq!(files.len(), 4, "files that are not read are listed too");
        let read = files.iter().filter(|file| file["read"] == true);
        read.map(|file| file["path"].as_str().unwrap().to_owned()).collect()
    };
    let (code, stderr) = collect("4", "few", &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(read("few").len(), 1);
    // One whole file, and the end of it before.
    assert!(bench.server.file_bytes_sent() <= 2 * texts.len() as u64, "{}", bench.server.file_bytes_sent());
    let (code, stderr) = collect("4", "offline", &["--offline"]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(read("offline"), read("few"));
    let (code, stderr) = collect("1000", "many", &[]);
    assert_eq!(code, 0, "{stderr}");
    assert_eq!(read("many").len(), 4);
    // What is not here cannot be looked at offline.
    std::fs::remove_dir_all(bench.cache()).unwrap();
    assert_eq!(collect("4", "again", &[]).0, 0);
    let (code, stderr) = collect("1000", "more", &["--offline"]);
    assert_eq!((code, stderr.contains("E-OFFLINE")), (69, true), "{stderr}");
    // Another choice of files would be other texts, so a server without ranges is not worked around.
    bench.server.fault("/cdn/", 1, Fault::Instead(200, vec![], texts.clone()));
    let (code, stderr) = collect("1000", "whole", &[]);
    assert_eq!((code, stderr.contains("--file-budget")), (69, true), "{stderr}");
}
