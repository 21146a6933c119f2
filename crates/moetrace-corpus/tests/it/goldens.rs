//! Token ids of real tokenizers, where a folder of them is named by `MOETRACE_TOKENIZERS`: it holds a folder for
//! each model and `goldens/MODEL.jsonl` with lines of `text` and `ids` as transformers gives them.

use std::path::Path;

use moetrace_corpus::TextTokenizer;
use serde_json::Value;

#[test]
fn real_tokenizers_give_the_ids_of_the_reference() {
    let Ok(root) = std::env::var("MOETRACE_TOKENIZERS") else { return };
    let root = Path::new(&root);
    let mut models = 0;
    for entry in std::fs::read_dir(root.join("goldens")).unwrap() {
        let path = entry.unwrap().path();
        let Some(model) = path.file_name().unwrap().to_str().unwrap().strip_suffix(".jsonl") else {
            continue;
        };
        let tokenizer = TextTokenizer::open(&root.join(model)).unwrap();
        let lines = std::fs::read_to_string(&path).unwrap();
        for (number, line) in lines.lines().enumerate() {
            let golden: Value = serde_json::from_str(line).unwrap();
            let expected: Vec<u32> = serde_json::from_value(golden["ids"].clone()).unwrap();
            let found = tokenizer.encode(golden["text"].as_str().unwrap()).unwrap();
            assert_eq!(
                found.iter().map(|id| id.0).collect::<Vec<_>>(),
                expected,
                "{model} line {}",
                number + 1
            );
        }
        println!("{model}: {} texts equal", lines.lines().count());
        models += 1;
    }
    assert!(models > 0, "no goldens in {}", root.display());
}

/// Texts and ids of llama.cpp's vocabulary tests; they hold no beginning-of-sequence token.
#[test]
fn real_tokenizers_give_the_ids_of_llama_cpp() {
    let Ok(root) = std::env::var("MOETRACE_TOKENIZERS") else { return };
    let root = Path::new(&root);
    for (file, model) in [("deepseek-llm", "deepseek-moe-16b-base"), ("qwen2", "qwen1.5-moe-a2.7b")] {
        let tokenizer = TextTokenizer::open(&root.join(model)).unwrap();
        let read = |end: &str| {
            std::fs::read_to_string(root.join(format!("goldens/ggml-vocab-{file}.gguf.{end}"))).unwrap()
        };
        let texts = read("inp");
        let texts: Vec<&str> = texts.split("\n__ggml_vocab_test__\n").collect();
        let expected = read("out");
        let expected: Vec<&str> = expected.lines().collect();
        let mut equal = 0;
        for (text, line) in texts.iter().zip(&expected) {
            let ids: Vec<u32> = line.split_whitespace().map(|id| id.parse().unwrap()).collect();
            let found = tokenizer.encode_chat(text).unwrap();
            assert_eq!(found.iter().map(|id| id.0).collect::<Vec<_>>(), ids, "{file}: {text:?}");
            equal += 1;
        }
        println!("{file}: {equal} of {} texts, {} lines of ids", texts.len(), expected.len());
        assert!(equal > 0);
    }
}
