//! Conversations through a tokenizer's chat template.

use std::borrow::Cow;

use minijinja::{Environment, Error, ErrorKind, context};
use serde::Serialize;
use serde_json::{Map, Value};

use crate::tojson::tojson;

/// One message of a conversation: `role` and `content`, and what else its source has (`name`, `tool_calls`,
/// `reasoning_content`, ...) in the source's order, for the template to use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Message(Map<String, Value>);

impl Message {
    /// A message without other fields. `role` is `system`, `user`, `assistant`, or what else the template knows.
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        let fields = [("role", role.into()), ("content", content.into())];
        Self(fields.into_iter().map(|(name, text)| (name.to_owned(), Value::String(text))).collect())
    }

    /// A message with all its fields, or none if `role` is no string, or `content` is none and no tool is called
    /// instead.
    pub fn from_fields(fields: Map<String, Value>) -> Option<Self> {
        let has_tools =
            fields.get("tool_calls").and_then(Value::as_array).is_some_and(|calls| !calls.is_empty());
        let said = match fields.get("content") {
            Some(Value::String(_)) => true,
            Some(Value::Null) | None => has_tools,
            Some(_) => false,
        };
        (said && fields.get("role").is_some_and(Value::is_string)).then_some(Self(fields))
    }
}

/// Template steps allowed to one conversation: a template is foreign code and may loop. Real templates take
/// some tens of steps a message.
const FUEL: u64 = 10_000_000;

const NAME: &str = "chat";

/// A compiled chat template and the special tokens it may name.
#[derive(Debug)]
pub(crate) struct ChatTemplate {
    environment: Environment<'static>,
    bos: Option<String>,
    eos: Option<String>,
}

impl ChatTemplate {
    /// Compiles `source` with the whitespace rules of the reference implementation (transformers:
    /// `trim_blocks` and `lstrip_blocks`).
    pub(crate) fn new(source: &str, bos: Option<String>, eos: Option<String>) -> Result<Self, Error> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<String, Error> {
            Err(Error::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_function("strftime_now", |_format: String| -> Result<String, Error> {
            let why = "it asks for today's date, which would make samples differ from day to day";
            Err(Error::new(ErrorKind::InvalidOperation, why))
        });
        environment.add_filter("tojson", tojson);
        environment.add_template_owned(NAME, without_generation_tags(source).into_owned())?;
        Ok(Self { environment, bos, eos })
    }

    /// The conversation as one text, no answer prompted for.
    pub(crate) fn render(&self, messages: &[Message]) -> Result<String, Error> {
        // Templates ask `tools is not none`, so what is absent is none and not undefined.
        self.environment.get_template(NAME)?.render(context! {
            messages => messages,
            bos_token => self.bos.as_deref().unwrap_or_default(),
            eos_token => self.eos.as_deref().unwrap_or_default(),
            add_generation_prompt => false,
            tools => (),
            documents => (),
        })
    }
}

/// The tags `generation` and `endgeneration` mark for training what the assistant says. The reference renders what
/// stands between them, in a scope of its own; so does `with`.
fn without_generation_tags(source: &str) -> Cow<'_, str> {
    if !source.contains("generation") {
        return Cow::Borrowed(source);
    }
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some((before, tag)) = rest.split_once("{%") {
        out.push_str(before);
        out.push_str("{%");
        rest = tag;
        let Some((inside, _)) = tag.split_once("%}") else { break };
        let name = inside.trim_start_matches(['-', '+']).trim_end_matches(['-', '+']).trim();
        let plain = match name {
            "generation" => "with",
            "endgeneration" => "endwith",
            _ => continue,
        };
        out.push_str(&inside.replacen(name, plain, 1));
        rest = &tag[inside.len()..];
    }
    out.push_str(rest);
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn say(role: &str, content: &str) -> Message {
        Message::new(role, content)
    }

    fn rendered(source: &str, messages: &[Message]) -> Result<String, String> {
        ChatTemplate::new(source, Some("<s>".into()), Some("</s>".into()))
            .and_then(|t| t.render(messages))
            .map_err(|e| e.to_string())
    }

    #[test]
    fn special_tokens_python_methods_and_absent_tools_are_known_to_templates() {
        let source = "{{ bos_token }}{% for m in messages %}\n  {% if m['role'] == 'user' and tools is none %}\n\
                      [{{ m.content.strip() | upper }}]\n  {% endif %}\n{% endfor %}{{ eos_token }}\
                      {% if add_generation_prompt %}?{% endif %}";
        let messages = [say("user", " hi "), say("assistant", "no")];
        assert_eq!(rendered(source, &messages).unwrap(), "<s>[HI]\n</s>");
    }

    /// The expected text is what transformers 4.57 makes of the template, whose `x` does not leave the marked part.
    #[test]
    fn tags_that_mark_what_the_assistant_says_change_nothing() {
        let source = "{% set x = 1 %}{% for m in messages %}\n{%- generation -%}\n {% set x = 2 %}[{{ m.content }}{{ x }}]\n\
                      {% endgeneration %}\n{% endfor %}{{ x }} generation {% if false %}";
        let source = format!("{source}{{% endif %}}");
        assert_eq!(
            rendered(&source, &[say("user", "a"), say("user", "b")]).unwrap(),
            "[a2]\n[b2]\n1 generation "
        );
        assert!(matches!(without_generation_tags("{% a %}{%"), Cow::Borrowed(_)));
        assert_eq!(without_generation_tags("{% generation %} {% x {%"), "{% with %} {% x {%");
    }

    #[test]
    fn a_template_can_refuse_and_cannot_ask_for_the_date_or_loop_for_ever() {
        let why = rendered("{{ raise_exception('roles must alternate') }}", &[say("user", "a")]).unwrap_err();
        assert!(why.contains("roles must alternate"), "{why}");
        assert!(rendered("{{ strftime_now('%Y') }}", &[]).unwrap_err().contains("day"));
        let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
        assert!(rendered(endless, &[]).unwrap_err().contains("fuel"));
        assert!(rendered("{% if %}", &[]).is_err());
    }
}
