//! The data sets that have names of their own, with the files and columns that their repositories have.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use arrow::datatypes::Schema;
use parquet::arrow::ArrowWriter;

use super::*;

/// Name, repository, configuration, files of the training split, columns: `*` is what is read, `#` a class.
type Known = (&'static str, &'static str, &'static str, &'static [&'static str], &'static [&'static str]);

const ONE: &[&str] = &["train-00000-of-00001.parquet"];

const KNOWN: [Known; 8] = [
    ("imdb", "stanfordnlp/imdb", "plain_text", ONE, &["*text", "#label"]),
    ("yelp_review_full", "Yelp/yelp_review_full", "yelp_review_full", ONE, &["#label", "*text"]),
    ("ag_news", "fancyzhx/ag_news", "data", ONE, &["*text", "#label"]),
    ("squad", "rajpurkar/squad", "plain_text", ONE, &["id", "title", "*context", "question"]),
    (
        "amazon_polarity",
        "fancyzhx/amazon_polarity",
        "amazon_polarity",
        &["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"],
        &["#label", "title", "*content"],
    ),
    ("dbpedia_14", "fancyzhx/dbpedia_14", "dbpedia_14", ONE, &["#label", "title", "*content"]),
    (
        "yahoo_answers_topics",
        "community-datasets/yahoo_answers_topics",
        "yahoo_answers_topics",
        ONE,
        &["id", "#topic", "question_title", "question_content", "*best_answer"],
    ),
    ("wikitext-2-raw-v1", "Salesforce/wikitext", "wikitext-2-raw-v1", ONE, &["*text"]),
];

/// Thirty rows; texts say which data set and file they are of, other columns that they are not to be read.
fn table(known: &Known, file: usize) -> Vec<u8> {
    let (name, _, _, _, columns) = known;
    let filler = "a text long enough to be taken, as all are that have more than fifty letters";
    let strings = |text: &dyn Fn(usize) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values((0..30).map(text)))
    };
    let column = |column: &&str| -> (String, ArrayRef) {
        match column.as_bytes()[0] {
            b'*' => (column[1..].to_owned(), strings(&|i| format!("{name} {file} {i}: {filler}"))),
            b'#' => (column[1..].to_owned(), Arc::new(Int64Array::from_iter_values((0..30).map(|i| i % 2)))),
            _ => (
                (*column).to_owned(),
                strings(&|i| format!("of column {column}, not to be read {i}: {filler}")),
            ),
        }
    };
    let batch = RecordBatch::try_from_iter(columns.iter().map(column)).unwrap();
    let class = columns.iter().find_map(|column| column.strip_prefix('#'));
    // As the `datasets` library writes the names of classes.
    let info = class.map(|class| {
        let names = r#"{"names":["first","second"],"_type":"ClassLabel"}"#;
        ("huggingface".to_owned(), format!(r#"{{"info":{{"features":{{"{class}":{names}}}}}}}"#))
    });
    let schema = Arc::new(Schema::clone(&batch.schema()).with_metadata(info.into_iter().collect()));
    let mut bytes = Vec::new();
    let mut writer = ArrowWriter::try_new(&mut bytes, schema.clone(), None).unwrap();
    writer.write(&batch.with_schema(schema).unwrap()).unwrap();
    writer.close().unwrap();
    bytes
}

fn bench_with_all() -> Bench {
    let bench = Bench::new();
    for known in &KNOWN {
        let (_, id, folder, files, _) = known;
        let train = files.iter().enumerate().map(|(i, file)| (format!("{folder}/{file}"), table(known, i)));
        let test = (format!("{folder}/test-00000-of-00001.parquet"), b"not to be fetched".to_vec());
        let files: Vec<(String, Vec<u8>)> = train.chain([test]).collect();
        let files = files.iter().map(|(path, bytes)| (path.as_str(), bytes.clone()));
        bench.server.publish(Repo::new(Kind::Dataset, id, files));
    }
    bench
}

/// Name, repository, column of texts and that of classes of each data set of a run of 24 texts.
fn collected(bench: &Bench, dataset: &str) -> Vec<[String; 4]> {
    let args = ["collect", "--quiet", "--model", "tiny/moe", "--traces", "24", "--dataset", dataset];
    let (code, stderr) = bench.ends(&[&args[..], &["--out", dataset]].concat());
    assert_eq!(code, 0, "{stderr}");
    let manifest = json(&bench.dir.path().join(dataset).join("manifest.json"));
    let datasets = manifest["datasets"].as_array().unwrap();
    assert_eq!(datasets.iter().map(|d| d["samples"].as_u64().unwrap()).sum::<u64>(), 24);
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let facts = |d: &serde_json::Value| {
        [text(&d["name"]), text(&d["hub"]["repo"]), text(&d["column"]), text(&d["label_column"])]
    };
    datasets.iter().map(facts).collect()
}

fn expected(known: &[Known]) -> Vec<[String; 4]> {
    let marked = |known: &Known, mark| known.4.iter().find_map(|c| c.strip_prefix(mark)).unwrap_or_default();
    known.iter().map(|k| [k.0, k.1, marked(k, '*'), marked(k, '#')].map(str::to_owned)).collect()
}

#[test]
fn the_guides_six_are_fetched_by_one_name_and_every_preset_by_its_own() {
    let bench = bench_with_all();
    assert_eq!(collected(&bench, "guide"), expected(&KNOWN[..6]));
    for known in KNOWN.chunks(1) {
        assert_eq!(collected(&bench, known[0].0), expected(known));
    }
}
