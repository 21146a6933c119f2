//! What is exported can be read again, by us and by hand.

use std::path::{Path, PathBuf};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::{Float32Type, UInt8Type, UInt16Type, UInt32Type};
use moetrace_exchange::{ExchangeError, ExportLayout, Exported, ImportLayout, ImportSettings, export};
use moetrace_run::RunFolder;
use moetrace_trace::TokenRow;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proptest::prelude::*;
use serde_json::Value;

use crate::support::{imported, npy, rows, settings};

const EXPERTS: usize = 8;
const CHOSEN: usize = 2;
const LAYERS: [u16; 2] = [1, 3];

/// One token: its id, and for each layer two experts with their weights in 1024ths.
type Token = (u32, [[(u16, u16); CHOSEN]; LAYERS.len()]);

/// Makes a run of texts by way of arrays.
fn run_of(dir: &Path, texts: &[Vec<Token>], with_tokens: bool) -> PathBuf {
    let folder = dir.join("arrays");
    std::fs::create_dir(&folder).unwrap();
    for (number, text) in texts.iter().enumerate() {
        let slots = || text.iter().flat_map(|(_, layers)| layers.iter().flatten());
        let shape = [text.len(), LAYERS.len(), CHOSEN];
        let ids: Vec<u8> = slots().flat_map(|(id, _)| id.to_le_bytes()).collect();
        npy(&folder.join(format!("{number:03}.npy")), "<u2", &shape, &ids);
        let weights: Vec<u8> = slots().flat_map(|(_, w)| (f32::from(*w) / 1024.0).to_le_bytes()).collect();
        npy(&folder.join(format!("{number:03}.weights.npy")), "<f4", &shape, &weights);
        if with_tokens {
            let tokens: Vec<u8> = text.iter().flat_map(|(id, _)| id.to_le_bytes()).collect();
            npy(&folder.join(format!("{number:03}.tokens.npy")), "<u4", &[text.len()], &tokens);
        }
    }
    let run = dir.join("run");
    let settings = ImportSettings {
        experts: Some(EXPERTS),
        layers: Some(LAYERS.into()),
        shard_tokens: 12,
        ..settings(ImportLayout::Npy, &[("texts", &folder)])
    };
    imported(&settings, &run).unwrap();
    run
}

fn exported(run: &Path, layout: ExportLayout, out: &Path) -> Result<Exported, ExchangeError> {
    export(&RunFolder::new(run), layout, out)
}

fn any_token() -> impl Strategy<Value = Token> {
    let pair = (0..EXPERTS as u16, 1..EXPERTS as u16, 1u16..512, 0u16..512)
        .prop_map(|(first, step, a, b)| [(first, a), ((first + step) % EXPERTS as u16, b)]);
    (0u32..100_000, [pair.clone(), pair])
}

fn any_texts() -> impl Strategy<Value = Vec<Vec<Token>>> {
    prop::collection::vec(prop::collection::vec(any_token(), 1..9), 1..7)
}

fn two_texts() -> Vec<Vec<Token>> {
    let token = |id| (id, [[(3, 512), (0, 256)], [(7, 128), (1, 128)]]);
    vec![vec![token(11), token(12), token(13)], vec![token(21)]]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn a_run_written_as_flame_and_read_again_has_the_same_rows(texts in any_texts(), text_tokens in 1usize..12) {
        let dir = tempfile::tempdir().unwrap();
        let run = run_of(dir.path(), &texts, true);
        let flame = dir.path().join("flame");
        let written = exported(&run, ExportLayout::Flame, &flame).unwrap();
        let tokens = texts.iter().map(Vec::len).sum::<usize>();
        prop_assert_eq!((written.tokens as usize, written.samples as usize), (tokens, texts.len()));
        let again = dir.path().join("again");
        let settings = ImportSettings {
            experts: Some(EXPERTS),
            text_tokens: Some(text_tokens),
            ..settings(ImportLayout::Flame, &[("texts", &flame)])
        };
        imported(&settings, &again).unwrap();
        let (before, after) = (rows(&run, "texts"), rows(&again, "texts"));
        let routing = |rows: &[TokenRow]| rows.iter().map(|r| (r.token_id, r.layers.clone())).collect::<Vec<_>>();
        // 1024ths below 1 have ten bits: half precision holds them.
        prop_assert_eq!(routing(&before), routing(&after));
        let positions: Vec<usize> = after.iter().map(|row| usize::from(row.position)).collect();
        prop_assert_eq!(positions, (0..tokens).map(|row| row % text_tokens).collect::<Vec<_>>());
    }
}

#[test]
fn long_has_a_row_for_each_token_and_layer() {
    let dir = tempfile::tempdir().unwrap();
    let run = run_of(dir.path(), &two_texts(), true);
    let out = dir.path().join("long");
    let written = exported(&run, ExportLayout::Long, &out).unwrap();
    assert_eq!((written.files, written.tokens, written.shards), (1, 4, written.written));
    let file = std::fs::File::open(out.join("texts.parquet")).unwrap();
    let batches = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
    let batches: Vec<RecordBatch> = batches.map(Result::unwrap).collect();
    let batch = arrow::compute::concat_batches(&batches[0].schema(), &batches).unwrap();
    let names: Vec<String> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names, ["dataset", "sample_id", "position", "token_id", "layer", "experts", "weights"]);
    let column = |name: &str| batch.column_by_name(name).unwrap();
    assert_eq!(column("dataset").as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["texts"; 8]);
    assert_eq!(column("sample_id").as_primitive::<UInt32Type>().values(), &[0, 0, 0, 0, 0, 0, 1, 1]);
    assert_eq!(column("position").as_primitive::<UInt16Type>().values(), &[0, 0, 1, 1, 2, 2, 0, 0]);
    assert_eq!(column("token_id").as_primitive::<UInt32Type>().values(), &[11, 11, 12, 12, 13, 13, 21, 21]);
    assert_eq!(column("layer").as_primitive::<UInt16Type>().values(), &[1, 3, 1, 3, 1, 3, 1, 3]);
    let experts = column("experts").as_fixed_size_list();
    // Of equal weights the lower id comes first.
    assert_eq!(experts.values().as_primitive::<UInt8Type>().values()[..4], [3, 0, 1, 7]);
    let weights = column("weights").as_fixed_size_list();
    assert_eq!(weights.values().as_primitive::<Float32Type>().values()[..4], [0.5, 0.25, 0.125, 0.125]);
    assert_eq!(weights.len(), 8);
}

fn lines(path: &Path) -> Vec<Value> {
    std::fs::read_to_string(path).unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn jsonl_has_an_object_for_each_text() {
    let dir = tempfile::tempdir().unwrap();
    let run = run_of(dir.path(), &two_texts(), true);
    let out = dir.path().join("jsonl");
    exported(&run, ExportLayout::Jsonl, &out).unwrap();
    let lines = lines(&out.join("texts.jsonl"));
    assert_eq!(lines.len(), 2);
    let first = &lines[0];
    assert_eq!(
        (&first["dataset"], &first["sample_id"], &first["source_file"]),
        (&"texts".into(), &0.into(), &"000.npy".into())
    );
    assert_eq!(first["token_ids"], serde_json::json!([11, 12, 13]));
    assert_eq!(first["layers"], serde_json::json!([1, 3]));
    assert_eq!(first["experts"][2], serde_json::json!([[3, 0], [1, 7]]));
    assert_eq!(first["weights"][2], serde_json::json!([[0.5, 0.25], [0.125, 0.125]]));
    assert_eq!(lines[1]["experts"].as_array().unwrap().len(), 1);
}

/// RFC 4648, for what is padded as it says.
fn decoded(text: &str) -> Vec<u8> {
    let digit = |c: u8| match c {
        b'A'..=b'Z' => u32::from(c - b'A'),
        b'a'..=b'z' => u32::from(c - b'a') + 26,
        b'0'..=b'9' => u32::from(c - b'0') + 52,
        b'+' => 62,
        b'/' => 63,
        _ => 0,
    };
    let mut bytes = Vec::new();
    for four in text.as_bytes().chunks(4) {
        let all = four.iter().fold(0, |all, &c| all << 6 | digit(c));
        let digits = four.iter().take_while(|&&c| c != b'=').count();
        bytes.extend_from_slice(&all.to_be_bytes()[1..digits]);
    }
    bytes
}

#[test]
fn sglang_has_ids_of_every_layer_in_base64_and_none_where_no_router_is() {
    let dir = tempfile::tempdir().unwrap();
    let run = run_of(dir.path(), &two_texts(), false);
    let out = dir.path().join("sglang");
    exported(&run, ExportLayout::Sglang, &out).unwrap();
    let lines = lines(&out.join("texts.jsonl"));
    assert_eq!(lines[0]["routed_experts_shape"], serde_json::json!([3, 4, 2]));
    assert_eq!((&lines[0]["meta_info"]["id"], lines[0].get("input_ids")), (&"texts-0".into(), None));
    let bytes = decoded(lines[0]["meta_info"]["routed_experts"].as_str().unwrap());
    let ids: Vec<i32> = bytes.chunks_exact(4).map(|b| i32::from_le_bytes(b.try_into().unwrap())).collect();
    assert_eq!(ids, [-1, -1, 3, 0, -1, -1, 1, 7].repeat(3));
}

#[test]
fn folders_above_an_export_are_made_and_a_run_without_a_committed_shard_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let run = run_of(dir.path(), &two_texts(), true);
    exported(&run, ExportLayout::Jsonl, &dir.path().join("a/b/c")).unwrap();
    assert!(dir.path().join("a/b/c").is_dir());
    std::fs::remove_file(run.join("state/commits/texts-00000-of-00001.json")).unwrap();
    let out = dir.path().join("out");
    let error = exported(&run, ExportLayout::Jsonl, &out).unwrap_err();
    assert!(matches!(&error, ExchangeError::Empty { shards: 1, .. }), "{error}");
    assert!(error.to_string().ends_with("none of its 1 shards is committed"), "{error}");
    assert!(!out.exists() && !dir.path().join("out.part").exists());
}

#[test]
fn nothing_is_overwritten_and_nothing_is_left_of_an_export_that_fails() {
    let dir = tempfile::tempdir().unwrap();
    let run = run_of(dir.path(), &two_texts(), false);
    let out = dir.path().join("out");
    let error = exported(&run, ExportLayout::Flame, &out).unwrap_err().to_string();
    assert!(error.contains("it records no token ids, which the layout asks for"), "{error}");
    assert!(!out.exists() && !dir.path().join("out.part").exists());
    std::fs::create_dir(dir.path().join("out.part")).unwrap();
    let error = exported(&run, ExportLayout::Jsonl, &out).unwrap_err();
    assert!(matches!(&error, ExchangeError::Exists { path } if path.ends_with("out.part")), "{error}");
    std::fs::remove_dir(dir.path().join("out.part")).unwrap();
    exported(&run, ExportLayout::Jsonl, &out).unwrap();
    let error = exported(&run, ExportLayout::Jsonl, &out).unwrap_err();
    assert!(matches!(&error, ExchangeError::Exists { path } if *path == out), "{error}");

    let data = run.join("data/texts-00000-of-00001.parquet");
    let mut bytes = std::fs::read(&data).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&data, bytes).unwrap();
    let error = exported(&run, ExportLayout::Long, &dir.path().join("damaged")).unwrap_err().to_string();
    assert!(error.contains("is damaged (blake3"), "{error}");
    assert!(!dir.path().join("damaged").exists());
}
