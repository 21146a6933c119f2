//! Conversations.

use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use moetrace_corpus::{CorpusError, Message, SkipReason, TextTokenizer, plan};
use serde_json::json;
use tempfile::TempDir;

use crate::common::{BOS, EOS, byte_tokenizer, open_tokenizer, settings, source, tokenizer, write};

const TEMPLATE: &str = "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'robot' %}\
    {{ raise_exception('no robots') }}{% endif %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}{{ eos_token }}";

fn talking() -> TextTokenizer {
    let config = json!({"tokenizer_class": "LlamaTokenizerFast", "bos_token": {"content": "<s>"},
                        "eos_token": "</s>", "chat_template": TEMPLATE});
    open_tokenizer(&byte_tokenizer(), Some(&config)).unwrap()
}

const CONVERSATIONS: &str = r#"{"messages": [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "you"}]}
{"messages": [{"role": "robot", "content": "hello"}]}
{"messages": [{"role": "user", "content": null}]}
{"messages": "user: hello"}
"#;

#[test]
fn conversations_go_through_the_template_with_one_bos_token() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.jsonl", CONVERSATIONS);
    let plan = plan(&[source("d", &path, None)], Some(&talking()), &settings(), &mut |_| {}).unwrap();
    let plan = &plan.datasets[0];
    let sample = &plan.samples[0];
    assert_eq!(sample.text.as_deref(), Some("<s>user: helloassistant: you</s>"));
    let inner = b"user: helloassistant: you".map(u32::from);
    let expected: Vec<u32> = [BOS].into_iter().chain(inner).chain([EOS]).collect();
    assert_eq!(sample.tokens.iter().map(|t| t.0).collect::<Vec<_>>(), expected);
    assert!(sample.begins_with_bos);
    assert_eq!(plan.skipped.get(SkipReason::TemplateRefused), 1);
    assert_eq!(plan.skipped.get(SkipReason::WrongType), 2);
    let robot = [Message { role: "robot".into(), content: String::new() }];
    assert!(matches!(talking().apply_chat_template(&robot), Err(CorpusError::Template { messages: 1, .. })));
    assert!(plan.examples[0].to_string().contains("no robots"), "{}", plan.examples[0]);
}

#[test]
fn conversations_come_out_of_parquet_too() {
    let folder = TempDir::new().unwrap();
    let mut decoder = arrow::array::StructBuilder::from_fields(
        vec![
            arrow::datatypes::Field::new("content", arrow::datatypes::DataType::Utf8, true),
            arrow::datatypes::Field::new("role", arrow::datatypes::DataType::Utf8, true),
        ],
        2,
    );
    for (role, content) in [("user", "hello"), ("assistant", "you")] {
        decoder.field_builder::<arrow::array::StringBuilder>(0).unwrap().append_value(content);
        decoder.field_builder::<arrow::array::StringBuilder>(1).unwrap().append_value(role);
        decoder.append(true);
    }
    let messages: ArrayRef = Arc::new(decoder.finish());
    let item = Arc::new(arrow::datatypes::Field::new("item", messages.data_type().clone(), true));
    let offsets = arrow::buffer::OffsetBuffer::from_lengths([2]);
    let lists: ArrayRef = Arc::new(arrow::array::ListArray::new(item, offsets, messages, None));
    let batch = RecordBatch::try_from_iter([("messages", lists)]).unwrap();
    let path = folder.path().join("a.parquet");
    let mut writer =
        parquet::arrow::ArrowWriter::try_new(std::fs::File::create(&path).unwrap(), batch.schema(), None)
            .unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
    let plan = plan(&[source("d", &path, None)], Some(&talking()), &settings(), &mut |_| {}).unwrap();
    assert_eq!(plan.datasets[0].samples[0].text.as_deref(), Some("<s>user: helloassistant: you</s>"));
}

#[test]
fn conversations_need_a_template() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "a.jsonl", CONVERSATIONS);
    let error = plan(&[source("d", &path, None)], Some(&tokenizer()), &settings(), &mut |_| {}).unwrap_err();
    assert!(matches!(error, CorpusError::NoChatTemplate { .. }), "{error}");
    let message = Message { role: "user".into(), content: "hello".into() };
    assert!(matches!(
        tokenizer().apply_chat_template(&[message]),
        Err(CorpusError::NoTemplate { messages: 1 })
    ));
}

#[test]
fn templates_may_stand_in_a_list_or_a_file_of_their_own() {
    let list = json!({"bos_token": "<s>", "chat_template": [{"name": "tools", "template": "no"},
                      {"name": "default", "template": "{{ messages[0].content }}"}]});
    let hello = [Message { role: "user".into(), content: "hello".into() }];
    let tokenizer = open_tokenizer(&byte_tokenizer(), Some(&list)).unwrap();
    assert_eq!(tokenizer.apply_chat_template(&hello).unwrap(), "hello");
    let folder = TempDir::new().unwrap();
    write(&folder, "tokenizer.json", byte_tokenizer().to_string());
    let without = TextTokenizer::open(folder.path()).unwrap();
    write(&folder, "chat_template.jinja", "<{{ messages[0]['content'] }}>");
    let with = TextTokenizer::open(folder.path()).unwrap();
    assert_eq!(with.apply_chat_template(&hello).unwrap(), "<hello>");
    assert_ne!(with.hash(), without.hash());
    write(&folder, "chat_template.jinja", "{% if %}");
    assert!(matches!(TextTokenizer::open(folder.path()), Err(CorpusError::Tokenizer { .. })));
}
