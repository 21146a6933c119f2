//! Conversations through a tokenizer's chat template.

use minijinja::{Environment, Error, ErrorKind, context};
use serde::{Deserialize, Serialize};

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Message {
    /// Who speaks: `system`, `user`, `assistant`, or what else the template knows.
    pub role: String,
    /// What is said.
    pub content: String,
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
    pub(crate) fn new(source: String, bos: Option<String>, eos: Option<String>) -> Result<Self, Error> {
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
        environment.add_template_owned(NAME, source)?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn say(role: &str, content: &str) -> Message {
        Message { role: role.into(), content: content.into() }
    }

    fn rendered(source: &str, messages: &[Message]) -> Result<String, String> {
        ChatTemplate::new(source.into(), Some("<s>".into()), Some("</s>".into()))
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
