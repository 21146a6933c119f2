//! Whether one row may become a sample: the same answer in both readings of a file.

use std::borrow::Cow;

use moetrace_routing::{Name, TokenId};

use crate::fingerprint;
use crate::read::{BadRow, Content, Wanted};
use crate::{CorpusError, CorpusSettings, SkipReason, SourceSpec, TextTokenizer};

/// What a data set's rows are judged by.
pub(crate) struct Admission<'a> {
    pub(crate) dataset: Name,
    pub(crate) source: &'a SourceSpec,
    pub(crate) tokenizer: Option<&'a TextTokenizer>,
    pub(crate) settings: &'a CorpusSettings,
}

/// A row that passed.
#[derive(Debug)]
pub(crate) struct Admitted<'r> {
    pub(crate) body: Body<'r>,
    /// Tells its text from others.
    pub(crate) hash: [u8; 16],
}

#[derive(Debug)]
pub(crate) enum Body<'r> {
    Text(Cow<'r, str>),
    /// A text that holds its special tokens already.
    RenderedChat(String),
    TokenIds(Vec<TokenId>),
}

impl<'a> Admission<'a> {
    pub(crate) fn wanted(&self) -> Wanted<'a> {
        Wanted { column: self.source.column.as_deref(), text_bytes: self.settings.max_text_bytes }
    }

    /// Applies the filters that need one row alone. The outer error ends the plan.
    pub(crate) fn judge<'r>(
        &self,
        content: Result<Content<'r>, BadRow>,
    ) -> Result<Result<Admitted<'r>, BadRow>, CorpusError> {
        let content = match content {
            Ok(content) => content,
            Err(why) => return Ok(Err(why)),
        };
        Ok(match content {
            Content::TokenIds(ids) if ids.is_empty() => {
                Err(BadRow::new(SkipReason::EmptyAfterTokenizing, "a list without token ids"))
            }
            Content::TokenIds(ids) => self.check_ids(&ids).map(|()| {
                let hash = fingerprint::of_token_ids(&ids);
                Admitted { body: Body::TokenIds(ids), hash }
            }),
            Content::Text(text) => {
                self.tokenizer("text", "text")?;
                self.judge_text(&text).map(|hash| Admitted { body: Body::Text(text), hash })
            }
            Content::Chat(messages) => {
                let column = self.source.column.as_deref().unwrap_or("messages");
                let tokenizer = self.tokenizer(column, "conversations")?;
                if !tokenizer.has_chat_template() {
                    let (dataset, column) = (self.source.name.clone(), column.to_owned());
                    return Err(CorpusError::NoChatTemplate { dataset, column });
                }
                match tokenizer.apply_chat_template(&messages) {
                    Err(unusable @ CorpusError::BadTemplate { .. }) => return Err(unusable),
                    Err(why) => Err(BadRow::new(SkipReason::TemplateRefused, why)),
                    Ok(text) => {
                        let hash = self.judge_text(&text);
                        hash.map(|hash| Admitted { body: Body::RenderedChat(text), hash })
                    }
                }
            }
        })
    }

    /// The tokenizer, or the error that texts need one.
    fn tokenizer(&self, column: &str, holds: &'static str) -> Result<&'a TextTokenizer, CorpusError> {
        self.tokenizer.ok_or_else(|| CorpusError::NoTokenizer {
            dataset: self.source.name.clone(),
            column: self.source.column.as_deref().unwrap_or(column).to_owned(),
            holds,
        })
    }

    /// Refuses ids that the model has no embedding for.
    pub(crate) fn check_ids(&self, ids: &[TokenId]) -> Result<(), BadRow> {
        let Some(entries) = self.settings.vocabulary else { return Ok(()) };
        match ids.iter().find(|id| id.index() >= entries) {
            None => Ok(()),
            Some(TokenId(id)) => {
                let detail = format_args!("token id {id}, expected one of the model's {entries}");
                Err(BadRow::new(SkipReason::OutOfVocabulary, detail))
            }
        }
    }

    /// The token that marks the beginning of a sequence. A list of ids was made by another program with whatever
    /// tokenizer, so the model's own answer counts where its tokenizer has none.
    pub(crate) fn bos(&self, body: &Body<'_>) -> Option<TokenId> {
        let of_tokenizer = self.tokenizer.and_then(TextTokenizer::known_bos);
        match body {
            Body::TokenIds(_) => of_tokenizer.or(self.settings.bos),
            Body::Text(_) | Body::RenderedChat(_) => of_tokenizer,
        }
    }

    fn judge_text(&self, text: &str) -> Result<[u8; 16], BadRow> {
        if text.len() > self.settings.max_text_bytes {
            return Err(BadRow::too_long(self.settings.max_text_bytes));
        }
        if text.trim().chars().nth(self.settings.min_chars).is_none() {
            let wanted = self.settings.min_chars;
            return Err(BadRow::new(SkipReason::TooShort, format_args!("not more than {wanted} characters")));
        }
        Ok(fingerprint::of_text(text))
    }
}
