//! Which files of a repository are a model.

use loopback_hub::{Kind, Repo};
use moetrace_hub::{HubError, RepoAddress, RepoFile, Snapshot, model_files, weight_files};

use crate::bench::{Bench, TINY};

fn snapshot(files: &[(&str, &str)]) -> Snapshot {
    let bench = Bench::new();
    bench.server.publish(Repo::new(
        Kind::Model,
        TINY,
        files.iter().map(|(path, text)| (*path, text.as_bytes().to_vec())),
    ));
    bench.hub().snapshot(&RepoAddress::model(TINY).unwrap()).unwrap()
}

fn paths(files: &[&RepoFile]) -> Vec<String> {
    files.iter().map(|file| file.path.clone()).collect()
}

const INDEX: &str = "model.safetensors.index.json";

#[test]
fn configuration_tokenizer_index_and_the_files_that_it_names_are_fetched_and_no_more() {
    let snapshot = snapshot(&[
        ("config.json", "{}"),
        ("generation_config.json", "{}"),
        ("tokenizer.json", "{}"),
        ("tokenizer_config.json", "{}"),
        ("chat_template.jinja", ""),
        ("modeling_custom.py", "evil()"),
        (INDEX, ""),
        ("model-00001-of-00002.safetensors", ""),
        ("model-00002-of-00002.safetensors", ""),
        ("consolidated.safetensors", ""),
        ("pytorch_model.bin", ""),
    ]);
    let files = model_files(&snapshot).unwrap();
    assert_eq!(
        paths(&files.small),
        ["config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", INDEX]
    );
    let index = r#"{"weight_map": {"a": "model-00002-of-00002.safetensors", "b": "model-00001-of-00002.safetensors",
                    "c": "model-00001-of-00002.safetensors"}}"#;
    let weights = weight_files(&snapshot, Some(index)).unwrap();
    assert_eq!(paths(&weights), ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"]);
}

#[test]
fn a_single_file_is_taken_before_an_index() {
    let snapshot = snapshot(&[("config.json", "{}"), (INDEX, "{}"), ("model.safetensors", "")]);
    assert_eq!(paths(&model_files(&snapshot).unwrap().small), ["config.json"]);
    assert_eq!(paths(&weight_files(&snapshot, None).unwrap()), ["model.safetensors"]);
}

#[test]
fn pickles_alone_are_refused_with_the_reason() {
    let snapshot = snapshot(&[("config.json", "{}"), ("pytorch_model.bin", ""), ("training_args.bin", "")]);
    let error = model_files(&snapshot).unwrap_err();
    assert!(matches!(&error, HubError::Pickle { files, .. } if files.len() == 2), "{error}");
    assert!(error.to_string().contains("can run code"), "{error}");
}

#[test]
fn a_repository_without_configuration_or_weights_is_no_model() {
    let error = model_files(&snapshot(&[("README.md", "")])).unwrap_err();
    assert!(matches!(&error, HubError::NoFile { .. }), "{error}");
    let error = model_files(&snapshot(&[("config.json", "{}"), ("model.gguf", "")])).unwrap_err();
    assert!(matches!(&error, HubError::NoWeights { .. }), "{error}");
}

#[test]
fn an_index_is_not_believed() {
    let snapshot =
        snapshot(&[("config.json", "{}"), (INDEX, ""), ("a.safetensors", ""), ("sub/b.safetensors", "")]);
    for index in [
        "",
        "[]",
        "{}",
        r#"{"weight_map": []}"#,
        r#"{"weight_map": {"x": 1}}"#,
        r#"{"weight_map": {"x": "../../a.safetensors"}}"#,
        r#"{"weight_map": {"x": "/a.safetensors"}}"#,
        r#"{"weight_map": {"x": "sub/b.safetensors"}}"#,
        r#"{"weight_map": {"x": "missing.safetensors"}}"#,
        r#"{"weight_map": {"x": "config.json"}}"#,
        r#"{"weight_map": {"x": "a.bin"}}"#,
    ] {
        let error = weight_files(&snapshot, Some(index)).unwrap_err();
        assert!(matches!(&error, HubError::NoWeights { .. }), "{index}: {error}");
    }
    assert!(weight_files(&snapshot, Some(r#"{"weight_map": {"x": "a.safetensors"}}"#)).is_ok());
}
