//! Conversations.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use moetrace_corpus::{CorpusError, Message, SkipReason, TextTokenizer, plan};
use serde_json::json;
use tempfile::TempDir;

use crate::common::{
    BOS, EOS, byte_tokenizer, json_lines, open_tokenizer, settings, source, texts, tokenizer, write,
};

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
    let robot = [Message::new("robot", "")];
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
    let message = Message::new("user", "hello");
    assert!(matches!(
        tokenizer().apply_chat_template(&[message]),
        Err(CorpusError::NoTemplate { messages: 1 })
    ));
}

#[test]
fn templates_may_stand_in_a_list_or_a_file_of_their_own() {
    let list = json!({"bos_token": "<s>", "chat_template": [{"name": "tools", "template": "no"},
                      {"name": "default", "template": "{{ messages[0].content }}"}]});
    let hello = [Message::new("user", "hello")];
    let tokenizer = open_tokenizer(&byte_tokenizer(), Some(&list)).unwrap();
    assert_eq!(tokenizer.apply_chat_template(&hello).unwrap(), "hello");
    let folder = TempDir::new().unwrap();
    write(&folder, "tokenizer.json", byte_tokenizer().to_string());
    let without = TextTokenizer::open(folder.path()).unwrap();
    write(&folder, "chat_template.jinja", "<{{ messages[0]['content'] }}>");
    let with = TextTokenizer::open(folder.path()).unwrap();
    assert_eq!(with.apply_chat_template(&hello).unwrap(), "<hello>");
    assert_ne!(with.hash(), without.hash());
}

#[test]
fn a_template_that_cannot_be_compiled_costs_conversations_and_no_plain_text() {
    let folder = TempDir::new().unwrap();
    let broken = json!({"bos_token": "<s>", "chat_template": "{% if %}"});
    let tokenizer = open_tokenizer(&byte_tokenizer(), Some(&broken)).unwrap();
    let plain = write(&folder, "plain.jsonl", json_lines(["some text"]));
    let planned = |path| plan(&[source("d", path, None)], Some(&tokenizer), &settings(), &mut |_| {});
    assert_eq!(texts(&planned(&plain).unwrap().datasets[0]), ["some text"]);
    let error = planned(&write(&folder, "chat.jsonl", CONVERSATIONS)).unwrap_err();
    let CorpusError::BadTemplate { path, detail } = &error else { panic!("{error}") };
    assert!(path.ends_with("tokenizer_config.json") && detail.contains("syntax"), "{error}");
    write(&folder, "tokenizer.json", byte_tokenizer().to_string());
    write(&folder, "chat_template.jinja", b"\xFF");
    let tokenizer = TextTokenizer::open(folder.path()).unwrap();
    let error = tokenizer.apply_chat_template(&[Message::new("user", "hello")]).unwrap_err();
    assert!(matches!(&error, CorpusError::BadTemplate { path, .. } if path.ends_with("chat_template.jinja")));
}

/// A template that shows every field, and what it is given of two messages.
const SHOWING: &str = "{{ messages | tojson }}{{ messages[1].tool_calls[0].function.name }}";
const WITH_TOOLS: &str = r#"[{"role": "user", "name": "Ann", "content": "<hello>"}, {"role": "assistant", "content": null, "reasoning_content": "hm", "tool_calls": [{"function": {"name": "look", "arguments": {"z": 1, "a": 2.5}}}]}]"#;

fn showing() -> TextTokenizer {
    let config = json!({"bos_token": "<s>", "chat_template": SHOWING});
    open_tokenizer(&byte_tokenizer(), Some(&config)).unwrap()
}

#[test]
fn every_field_of_a_message_reaches_the_template_in_its_order() {
    let folder = TempDir::new().unwrap();
    let without_call = r#"[{"role": "assistant", "content": null, "tool_calls": []}]"#;
    let lines = format!("{{\"messages\": {WITH_TOOLS}}}\n{{\"messages\": {without_call}}}\n");
    let csv = format!("messages\n\"{}\"\n", WITH_TOOLS.replace('"', "\"\""));
    for (path, wrong) in [(write(&folder, "a.jsonl", lines), 1), (write(&folder, "a.csv", csv), 0)] {
        let plan = plan(&[source("d", &path, None)], Some(&showing()), &settings(), &mut |_| {}).unwrap();
        assert_eq!(texts(&plan.datasets[0]), [format!("{WITH_TOOLS}look")]);
        assert_eq!(plan.datasets[0].skipped.get(SkipReason::WrongType), wrong);
    }
}

#[test]
fn fields_of_messages_come_out_of_arrow_as_the_reference_reads_them() {
    use arrow::array::{
        BooleanArray, Float32Array, Int8Array, ListArray, NullArray, StringArray, StructArray,
    };
    use arrow::buffer::OffsetBuffer;
    use arrow::datatypes::{DataType, Field};
    let list = |items: ArrayRef, lengths: [usize; 2]| -> ArrayRef {
        let item = Arc::new(Field::new("item", items.data_type().clone(), true));
        Arc::new(ListArray::new(item, OffsetBuffer::from_lengths(lengths), items, None))
    };
    let structure = |columns: Vec<(&str, ArrayRef)>| -> ArrayRef {
        let field = |(name, column): (&str, ArrayRef)| {
            (Arc::new(Field::new(name, column.data_type().clone(), true)), column)
        };
        Arc::new(StructArray::from(columns.into_iter().map(field).collect::<Vec<_>>()))
    };
    let calls = structure(vec![("name", Arc::new(StringArray::from(vec!["look"])))]);
    let dates = arrow::compute::cast(
        &Int64Array::from(vec![0, 86_400]),
        &DataType::Timestamp(arrow::datatypes::TimeUnit::Second, None),
    );
    let messages = structure(vec![
        ("role", Arc::new(StringArray::from(vec!["user", "assistant"]))),
        ("content", Arc::new(StringArray::from(vec![Some("hello"), None]))),
        ("n", Arc::new(Int8Array::from(vec![Some(-1), None]))),
        ("x", Arc::new(Float32Array::from(vec![0.5, 2.0]))),
        ("yes", Arc::new(BooleanArray::from(vec![true, false]))),
        ("nothing", Arc::new(NullArray::new(2))),
        ("date", dates.unwrap()),
        ("tool_calls", list(calls, [0, 1])),
    ]);
    let item = Arc::new(Field::new("item", messages.data_type().clone(), true));
    let lists = ListArray::new(item, OffsetBuffer::from_lengths([2]), messages, None);
    let batch = RecordBatch::try_from_iter([("messages", Arc::new(lists) as ArrayRef)]).unwrap();
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("a.arrow");
    let file = std::fs::File::create(&path).unwrap();
    let mut writer = arrow::ipc::writer::FileWriter::try_new(file, &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    let config = json!({"bos_token": "<s>", "chat_template": "{{ messages | tojson }}"});
    let tokenizer = open_tokenizer(&byte_tokenizer(), Some(&config)).unwrap();
    let plan = plan(&[source("d", &path, None)], Some(&tokenizer), &settings(), &mut |_| {}).unwrap();
    let expected = concat!(
        r#"[{"role": "user", "content": "hello", "n": -1, "x": 0.5, "yes": true, "nothing": null, "#,
        r#""date": "1970-01-01T00:00:00", "tool_calls": []}, "#,
        r#"{"role": "assistant", "content": null, "n": null, "x": 2.0, "yes": false, "nothing": null, "#,
        r#""date": "1970-01-02T00:00:00", "tool_calls": [{"name": "look"}]}]"#
    );
    assert_eq!(texts(&plan.datasets[0]), [expected]);
}
