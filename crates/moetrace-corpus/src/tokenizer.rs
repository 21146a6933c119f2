//! A model's own tokenizer: text to vocabulary ids as its authors' code makes them.

use std::fs::File;
use std::io::Read;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use moetrace_routing::TokenId;
use serde_json::Value;
use tokenizers::Tokenizer;

use crate::chat::ChatTemplate;
use crate::error::printable;
use crate::guard::SplitGuard;
use crate::{CorpusError, Message};

/// Larger tokenizer files are refused; the largest published ones have some 20 MB.
const SIZE_LIMIT: u64 = 64 << 20;

/// The tokenizer of one model.
#[derive(Debug)]
pub struct TextTokenizer {
    inner: Tokenizer,
    guard: SplitGuard,
    bos: Bos,
    /// A template that cannot be compiled matters only to conversations.
    chat: Option<Result<ChatTemplate, BadTemplate>>,
    hash: String,
}

/// A chat template that cannot be used, and why.
#[derive(Debug)]
struct BadTemplate {
    path: PathBuf,
    detail: String,
}

/// What is known of the beginning-of-sequence token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bos {
    /// Its id, if the tokenizer has one at all.
    id: Option<TokenId>,
    /// Who puts it before a text.
    added_by: BosSource,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BosSource {
    /// Nobody; a post-processor that would is passed over.
    Nobody,
    /// The tokenizer's own post-processor.
    PostProcessor,
    /// This crate, because the configuration asks for it and the post-processor does not do it.
    Configuration,
}

impl TextTokenizer {
    /// Opens `tokenizer.json` in `dir`, with `tokenizer_config.json` and `chat_template.jinja` where they exist.
    ///
    /// Whether texts begin with a beginning-of-sequence token follows transformers: `add_bos_token` where it
    /// is given; else yes for the Llama and Gemma classes, whose code adds it; else as the post-processor does.
    ///
    /// # Errors
    /// [`CorpusError::Io`], [`CorpusError::TokenizerSize`] above 64 MiB, [`CorpusError::Tokenizer`] for a file that
    /// is no tokenizer, [`CorpusError::UnknownBos`] if the configuration asks for a token that is not there. A chat
    /// template that cannot be used is no error here, since texts do without.
    pub fn open(dir: &Path) -> Result<Self, CorpusError> {
        let path = dir.join("tokenizer.json");
        let bytes = read_capped(&path)?.ok_or_else(|| {
            CorpusError::io("open", &path, std::io::Error::from(std::io::ErrorKind::NotFound))
        })?;
        let config_path = dir.join("tokenizer_config.json");
        let config_bytes = read_capped(&config_path)?;
        let template_path = dir.join("chat_template.jinja");
        let template_bytes = read_capped(&template_path)?;
        let config = match &config_bytes {
            None => Value::Null,
            Some(bytes) => serde_json::from_slice(bytes).map_err(|e| invalid(&config_path, e))?,
        };
        let mut hasher = blake3::Hasher::new();
        for bytes in [Some(&bytes), config_bytes.as_ref(), template_bytes.as_ref()].into_iter().flatten() {
            hasher.update(&(bytes.len() as u64).to_le_bytes()).update(bytes);
        }

        let inner = parse(&path, &bytes)?;
        let guard = SplitGuard::new(&inner).map_err(|e| invalid(&path, e))?;
        let bos = resolve_bos(&inner, &config, &config_path)?;
        let template = match template_bytes {
            Some(bytes) => Some((template_path, String::from_utf8(bytes).map_err(|e| e.to_string()))),
            None => template_of(&config).map(|source| (config_path, Ok(source))),
        };
        let special = |key| token_name(&config, key);
        let compile = |source: String| {
            let compiled = ChatTemplate::new(&source, bos_name(&config), special("eos_token"));
            compiled.map_err(|e| e.to_string())
        };
        let chat = template.map(|(path, source)| {
            let bad = |detail: String| BadTemplate { path, detail: printable(&detail) };
            source.and_then(compile).map_err(bad)
        });
        Ok(Self { inner, guard, bos, chat, hash: hasher.finalize().to_hex().to_string() })
    }

    /// Vocabulary ids of `text`, with the beginning-of-sequence token where the model's tokenizer adds it.
    ///
    /// # Errors
    /// [`CorpusError::Encode`] if the tokenizer fails, or gives up splitting a hostile text half-way.
    pub fn encode(&self, text: &str) -> Result<Vec<TokenId>, CorpusError> {
        let mut ids = self.encode_with(text, self.bos.added_by != BosSource::Nobody)?;
        if let (BosSource::Configuration, Some(id)) = (self.bos.added_by, self.bos.id) {
            ids.insert(0, id);
        }
        Ok(ids)
    }

    /// Vocabulary ids of a text made by [`apply_chat_template`](Self::apply_chat_template), which holds
    /// its special tokens already: none is added.
    ///
    /// # Errors
    /// As [`encode`](Self::encode).
    pub fn encode_chat(&self, rendered: &str) -> Result<Vec<TokenId>, CorpusError> {
        self.encode_with(rendered, false)
    }

    fn encode_with(&self, text: &str, special: bool) -> Result<Vec<TokenId>, CorpusError> {
        let gave_up = |detail: &str| CorpusError::Encode { bytes: text.len(), detail: printable(detail) };
        let encoded = catch_unwind(AssertUnwindSafe(|| self.inner.encode(text, special)));
        let encoding = encoded
            .map_err(|panic| gave_up(&panic_message(panic.as_ref())))?
            .map_err(|e| gave_up(&e.to_string()))?;
        self.guard.check(&self.inner, text, &encoding).map_err(|e| gave_up(&e))?;
        Ok(encoding.get_ids().iter().copied().map(TokenId).collect())
    }

    /// The beginning-of-sequence token, only if [`encode`](Self::encode) puts it before every text.
    pub fn bos_id(&self) -> Option<TokenId> {
        self.bos.id.filter(|_| self.bos.added_by != BosSource::Nobody)
    }

    /// Whether `tokens` begin with the beginning-of-sequence token, added or not.
    pub fn begins_with_bos(&self, tokens: &[TokenId]) -> bool {
        self.bos.id.is_some() && tokens.first().copied() == self.bos.id
    }

    /// The vocabulary's own entry for `id`, in its byte or space notation (`Ġthe`, `▁the`).
    pub fn token_text(&self, id: TokenId) -> Option<String> {
        self.inner.id_to_token(id.0)
    }

    /// Entries of the vocabulary, added tokens included; a model's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// BLAKE3 in hex of the files opened, in the order `tokenizer.json`, `tokenizer_config.json`,
    /// `chat_template.jinja`, each behind its length as 8 little-endian bytes.
    pub fn hash(&self) -> &str {
        &self.hash
    }

    /// The beginning-of-sequence token, whoever adds it.
    pub(crate) fn known_bos(&self) -> Option<TokenId> {
        self.bos.id
    }

    /// Whether there is a chat template, usable or not.
    pub fn has_chat_template(&self) -> bool {
        self.chat.is_some()
    }

    /// A conversation as one text, special tokens written out, no answer prompted for.
    ///
    /// # Errors
    /// [`CorpusError::NoTemplate`], [`CorpusError::BadTemplate`] for one that cannot be compiled, and
    /// [`CorpusError::Template`] if the template refuses the conversation.
    pub fn apply_chat_template(&self, messages: &[Message]) -> Result<String, CorpusError> {
        let chat = match &self.chat {
            None => return Err(CorpusError::NoTemplate { messages: messages.len() }),
            Some(Err(BadTemplate { path, detail })) => {
                return Err(CorpusError::BadTemplate { path: path.clone(), detail: detail.clone() });
            }
            Some(Ok(chat)) => chat,
        };
        chat.render(messages).map_err(|e| CorpusError::Template {
            messages: messages.len(),
            detail: printable(&e.to_string()),
        })
    }
}

fn invalid(path: &Path, why: impl std::fmt::Display) -> CorpusError {
    CorpusError::Tokenizer { path: path.to_owned(), detail: printable(&why.to_string()) }
}

/// The whole file, or none if it does not exist.
fn read_capped(path: &PathBuf) -> Result<Option<Vec<u8>>, CorpusError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(CorpusError::io("open", path, e)),
    };
    let mut bytes = Vec::new();
    file.take(SIZE_LIMIT + 1).read_to_end(&mut bytes).map_err(|e| CorpusError::io("read", path, e))?;
    if bytes.len() as u64 > SIZE_LIMIT {
        let found = path.metadata().map_or(bytes.len() as u64, |m| m.len());
        return Err(CorpusError::TokenizerSize { path: path.clone(), bytes: found, limit: SIZE_LIMIT });
    }
    Ok(Some(bytes))
}

/// A foreign file may make the crate panic; that is an error of the file.
fn parse(path: &Path, bytes: &[u8]) -> Result<Tokenizer, CorpusError> {
    let mut tokenizer = catch_unwind(|| Tokenizer::from_bytes(bytes))
        .map_err(|panic| invalid(path, panic_message(panic.as_ref())))?
        .map_err(|e| invalid(path, e))?;
    // Published files carry leftovers of these; what is kept of a text is decided by the plan alone.
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None).map_err(|e| invalid(path, e))?;
    Ok(tokenizer)
}

pub(crate) fn panic_message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("a panic").to_owned()
}

fn resolve_bos(tokenizer: &Tokenizer, config: &Value, path: &Path) -> Result<Bos, CorpusError> {
    let asked = config.get("add_bos_token").and_then(Value::as_bool);
    let named = bos_name(config);
    let named_id = named.as_deref().and_then(|token| tokenizer.token_to_id(token)).map(TokenId);
    let added = post_processed_first(tokenizer).map_err(|e| invalid(path, e))?;
    let added = added.filter(|id| named_id.is_none_or(|named| named == *id));
    let wanted = asked.unwrap_or(added.is_some() || (class_adds_bos(config) && named_id.is_some()));
    match (wanted, added, named_id) {
        (false, ..) => Ok(Bos { id: named_id.or(added), added_by: BosSource::Nobody }),
        (true, Some(id), _) => Ok(Bos { id: Some(id), added_by: BosSource::PostProcessor }),
        (true, None, Some(id)) => Ok(Bos { id: Some(id), added_by: BosSource::Configuration }),
        (true, None, None) => {
            let token = named.unwrap_or_else(|| "null".to_owned());
            Err(CorpusError::UnknownBos { path: path.to_owned(), token })
        }
    }
}

/// The special token that the post-processor puts before a text, if it puts one.
fn post_processed_first(tokenizer: &Tokenizer) -> Result<Option<TokenId>, tokenizers::Error> {
    let plain = tokenizer.encode("", false)?;
    let processed = tokenizer.encode("", true)?;
    let first = processed.get_ids().first().copied().map(TokenId);
    Ok(first.filter(|_| plain.is_empty()))
}

/// Classes of transformers whose code adds the token unless told not to.
fn class_adds_bos(config: &Value) -> bool {
    let class = config.get("tokenizer_class").and_then(Value::as_str).unwrap_or_default();
    ["Llama", "CodeLlama", "Gemma", "Cohere"].iter().any(|family| class.starts_with(family))
}

/// The configured token; the Llama classes take `<s>` where none is configured.
fn bos_name(config: &Value) -> Option<String> {
    let llama = config.get("bos_token").is_none() && class_adds_bos(config);
    token_name(config, "bos_token").or_else(|| llama.then(|| "<s>".to_owned()))
}

/// A special token is written as a string or as an object with `content`.
fn token_name(config: &Value, key: &str) -> Option<String> {
    let token = config.get(key)?;
    token.as_str().or_else(|| token.get("content")?.as_str()).map(str::to_owned)
}

/// One template, or a list of named ones of which `default` is meant.
fn template_of(config: &Value) -> Option<String> {
    let template = config.get("chat_template")?;
    if let Some(list) = template.as_array() {
        let default = list.iter().find(|t| t.get("name").and_then(Value::as_str) == Some("default"))?;
        return default.get("template")?.as_str().map(str::to_owned);
    }
    template.as_str().map(str::to_owned)
}
