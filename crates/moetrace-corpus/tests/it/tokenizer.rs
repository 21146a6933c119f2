//! When a beginning-of-sequence token is added, and what cannot be opened.

use moetrace_corpus::{CorpusError, CorpusSettings, SkipReason, TextTokenizer, plan};
use moetrace_routing::TokenId;
use proptest::prelude::*;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::common::{
    BOS, EOS, byte_tokenizer, json_lines, open_tokenizer, settings, source, template_with_both, tokenizer,
    write,
};

fn encoded(tokenizer: &TextTokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text).unwrap().into_iter().map(|id| id.0).collect()
}

const A: u32 = b'a' as u32;

#[test]
fn the_bos_token_follows_the_configuration_then_the_class_then_the_post_processor() {
    let plain = byte_tokenizer();
    let mut templated = byte_tokenizer();
    templated["post_processor"] = template_with_both();
    let llama = |add: Value| {
        let mut config = json!({"tokenizer_class": "LlamaTokenizerFast", "bos_token": {"content": "<s>"}});
        if !add.is_null() {
            config["add_bos_token"] = add;
        }
        Some(config)
    };
    let other = |class: &str, add: Option<bool>| {
        Some(json!({"tokenizer_class": class, "bos_token": "<s>", "add_bos_token": add}))
    };
    for (file, config, expected) in [
        (&plain, llama(json!(true)), vec![BOS, A]),
        (&plain, llama(json!(false)), vec![A]),
        (&plain, llama(Value::Null), vec![BOS, A]),
        (&plain, Some(json!({"tokenizer_class": "LlamaTokenizer"})), vec![BOS, A]),
        (&plain, other("GPTNeoXTokenizer", None), vec![A]),
        (&plain, other("Qwen2Tokenizer", Some(true)), vec![BOS, A]),
        (&plain, Some(json!({"tokenizer_class": "Qwen2Tokenizer", "bos_token": null})), vec![A]),
        (&plain, None, vec![A]),
        (&templated, None, vec![BOS, A, EOS]),
        (&templated, llama(json!(true)), vec![BOS, A, EOS]),
        (&templated, llama(json!(false)), vec![A]),
        (&templated, other("PreTrainedTokenizerFast", None), vec![BOS, A, EOS]),
    ] {
        let tokenizer = open_tokenizer(file, config.as_ref()).unwrap();
        assert_eq!(encoded(&tokenizer, "a"), expected, "{config:?}");
        let adds = expected[0] == BOS;
        assert_eq!(tokenizer.bos_id(), adds.then_some(TokenId(BOS)), "{config:?}");
        assert_eq!(tokenizer.begins_with_bos(&tokenizer.encode("a").unwrap()), adds);
    }
}

#[test]
fn a_bos_token_that_is_not_in_the_vocabulary_is_an_error() {
    for config in [
        json!({"add_bos_token": true, "bos_token": "<nowhere>"}),
        json!({"add_bos_token": true, "bos_token": null}),
    ] {
        let error = open_tokenizer(&byte_tokenizer(), Some(&config)).unwrap_err();
        assert!(matches!(error, CorpusError::UnknownBos { .. }), "{error}");
    }
    let absent = json!({"tokenizer_class": "LlamaTokenizer", "bos_token": "<nowhere>"});
    assert_eq!(open_tokenizer(&byte_tokenizer(), Some(&absent)).unwrap().bos_id(), None);
}

#[test]
fn truncation_and_padding_left_in_the_file_do_not_touch_a_text() {
    let mut file = byte_tokenizer();
    file["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    file["padding"] = json!({"strategy": {"Fixed": 9}, "direction": "Right", "pad_to_multiple_of": null,
                             "pad_id": 0, "pad_type_id": 0, "pad_token": "!"});
    let tokenizer = open_tokenizer(&file, None).unwrap();
    assert_eq!(encoded(&tokenizer, "abcd"), [97, 98, 99, 100]);
}

#[test]
fn vocabulary_and_hash_can_be_asked_for() {
    let tokenizer = tokenizer();
    assert_eq!(tokenizer.vocab_size(), 258);
    assert_eq!(tokenizer.token_text(TokenId(BOS)).as_deref(), Some("<s>"));
    assert_eq!(tokenizer.token_text(TokenId(32)).as_deref(), Some("Ġ"));
    assert_eq!(tokenizer.token_text(TokenId(999)), None);
    assert_eq!(tokenizer.hash().len(), 64);
    assert_ne!(tokenizer.hash(), open_tokenizer(&byte_tokenizer(), None).unwrap().hash());
}

#[test]
fn files_that_are_no_tokenizer_are_refused() {
    let folder = TempDir::new().unwrap();
    assert!(matches!(TextTokenizer::open(folder.path()), Err(CorpusError::Io { .. })));
    let deep = format!("{{\"model\": {}", "[".repeat(100_000));
    let catastrophic = r#"{"model": {"type": "BPE", "vocab": {"a": 0}, "merges": ["b c"]}}"#;
    for content in ["", "{}", "[1]", "\u{0}", &deep, catastrophic, r#"{"model": {"type": "BPE"}}"#] {
        write(&folder, "tokenizer.json", content);
        let error = TextTokenizer::open(folder.path()).unwrap_err();
        assert!(matches!(error, CorpusError::Tokenizer { .. }), "{error}");
    }
    let whole = byte_tokenizer().to_string();
    for length in (0..whole.len()).step_by(97) {
        write(&folder, "tokenizer.json", &whole[..whole.floor_char_boundary(length)]);
        assert!(TextTokenizer::open(folder.path()).is_err(), "cut at {length}");
    }
    write(&folder, "tokenizer.json", &whole);
    write(&folder, "tokenizer_config.json", "{\"bos_token\":");
    assert!(matches!(TextTokenizer::open(folder.path()), Err(CorpusError::Tokenizer { .. })));
    let file = std::fs::File::create(folder.path().join("tokenizer.json")).unwrap();
    file.set_len((64 << 20) + 1).unwrap();
    assert!(matches!(TextTokenizer::open(folder.path()), Err(CorpusError::TokenizerSize { .. })));
}

/// A pattern whose work doubles with each `a`.
fn exponential() -> Value {
    let mut file = byte_tokenizer();
    let split = json!({"type": "Split", "pattern": {"Regex": "(?:a|a)+(?=b)|[^a]"}, "behavior": "Isolated",
                       "invert": false});
    let bytes =
        json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": false});
    file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [split, bytes]});
    file
}

#[test]
fn a_text_at_which_the_splitting_pattern_gives_up_is_skipped_and_not_split_otherwise() {
    let tokenizer = open_tokenizer(&exponential(), None).unwrap();
    let hostile = format!("{}c", "a".repeat(64));
    let unguarded = tokenizers::Tokenizer::from_bytes(exponential().to_string()).unwrap();
    assert!(unguarded.encode(hostile.as_str(), false).is_ok(), "the crate has come to say it itself");
    let error = tokenizer.encode(&hostile).unwrap_err();
    assert!(matches!(error, CorpusError::Encode { bytes: 65, .. }), "{error}");
    assert_eq!(tokenizer.encode(&format!("{}b", "a".repeat(64))).unwrap().len(), 65);

    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.jsonl", json_lines([hostile.as_str(), "harmless text"]));
    let sources = [source("d", &path, None)];
    let found = plan(&sources, Some(&tokenizer), &settings(), &mut |_| {}).unwrap().datasets.remove(0);
    assert_eq!((found.samples.len(), found.skipped.get(SkipReason::TokenizerGaveUp)), (1, 1));
    assert_eq!(found.examples[0].line, 1);
    let strict = CorpusSettings { strict: true, ..settings() };
    let error = plan(&sources, Some(&tokenizer), &strict, &mut |_| {}).unwrap_err();
    let gave_up = SkipReason::TokenizerGaveUp;
    assert!(matches!(error, CorpusError::Row { line: 1, reason, .. } if reason == gave_up), "{error}");
}

#[test]
fn patterns_that_never_end_give_ids_or_an_error() {
    let mut file = exponential();
    for pattern in ["(a+)+$", "(a|aa)+$", "(?=a)(?:a+)+(?!a)b", "(?<!b)(a|aa)+(?=c)", r"(a*)*\1b"] {
        file["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = json!(pattern);
        let tokenizer = open_tokenizer(&file, None).unwrap();
        for length in [1, 15, 30, 1_000, 20_000] {
            let text = format!("{}b", "a".repeat(length));
            match tokenizer.encode(&text) {
                Ok(ids) => assert_eq!(ids.len(), length + 1, "{pattern}"),
                Err(error) => assert!(matches!(error, CorpusError::Encode { .. }), "{error}"),
            }
        }
    }
}

#[test]
fn a_text_at_which_a_normalizers_pattern_gives_up_is_an_error() {
    let mut file = byte_tokenizer();
    file["normalizer"] = json!({"type": "Sequence", "normalizers": [
        {"type": "NFC"}, {"type": "Replace", "pattern": {"Regex": "(?:a|a)+(?=b)b"}, "content": "x"}]});
    let tokenizer = open_tokenizer(&file, None).unwrap();
    assert_eq!(encoded(&tokenizer, "aaabc"), b"xc".map(u32::from));
    assert!(tokenizer.encode(&format!("{}c", "a".repeat(64))).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn changed_bytes_in_a_tokenizer_never_panic(
        places in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), text in ".{0,40}",
    ) {
        let mut bytes = byte_tokenizer().to_string().into_bytes();
        for (place, byte) in places {
            let at = place.index(bytes.len());
            bytes[at] = byte;
        }
        let folder = TempDir::new().unwrap();
        write(&folder, "tokenizer.json", bytes);
        match TextTokenizer::open(folder.path()) {
            Ok(tokenizer) => {
                let encoded = tokenizer.encode(&text);
                let gave_up = matches!(encoded, Err(CorpusError::Encode { .. }));
                prop_assert!(encoded.is_ok() || gave_up);
            }
            Err(error) => prop_assert!(matches!(error, CorpusError::Tokenizer { .. }), "{}", error),
        }
    }
}

#[test]
fn odd_texts_keep_every_byte() {
    let tokenizer = open_tokenizer(&byte_tokenizer(), None).unwrap();
    let megabyte = "ab ".repeat(1 << 18);
    for text in ["", " ", "\0", "\u{1b}[31m", "\u{202e}rtl\u{200d}", "👩‍👩‍👧‍👦", "e\u{301}", "\r\n\r\n", &megabyte]
    {
        let expected: Vec<u32> = text.bytes().map(u32::from).collect();
        assert_eq!(
            encoded(&tokenizer, text),
            expected,
            "{}",
            text.escape_debug().take(20).collect::<String>()
        );
    }
}
