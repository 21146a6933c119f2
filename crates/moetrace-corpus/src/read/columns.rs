//! Which column holds the text, and which the label.

use std::path::Path;

use crate::CorpusError;
use crate::error::ColumnNames;

/// Names of text columns, the first that a file has is taken; longer texts come before shorter ones, and what
/// is prepared for a model (token ids, conversations) before its raw material.
const TEXT: [&str; 24] = [
    "input_ids",
    "text",
    "messages",
    "content",
    "context",
    "passage",
    "document",
    "article",
    "body",
    "review",
    "story",
    "abstract",
    "sentence",
    "question",
    "prompt",
    "instruction",
    "query",
    "code",
    "comment",
    "utterance",
    "description",
    "summary",
    "sentence1",
    "premise",
];

/// Names of label columns.
const LABEL: [&str; 8] = ["label", "labels", "category", "class", "subject", "topic", "domain", "language"];

/// A longer label is a text and no class.
pub(crate) const LABEL_BYTES: usize = 200;

/// The columns that are read, as the file spells them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ChosenColumns {
    pub(crate) text: String,
    pub(crate) label: Option<String>,
}

/// What a column of this name holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Text,
    TokenIds,
    Chat,
}

impl Kind {
    pub(crate) fn of(column: &str) -> Self {
        if column.eq_ignore_ascii_case("input_ids") {
            Self::TokenIds
        } else if column.eq_ignore_ascii_case("messages") {
            Self::Chat
        } else {
            Self::Text
        }
    }

    pub(crate) fn expected(self) -> &'static str {
        match self {
            Self::Text => "a string",
            Self::TokenIds => "a list of integers from 0 to 4294967295",
            Self::Chat => "a list of messages with role and content",
        }
    }
}

/// Chooses among `names`: the column asked for, else the first known one.
pub(crate) fn choose<S: AsRef<str>>(
    path: &Path,
    names: &[S],
    asked: Option<&str>,
) -> Result<ChosenColumns, CorpusError> {
    let all = || ColumnNames(names.iter().map(|n| n.as_ref().to_owned()).collect());
    let text = match asked {
        Some(asked) => find(names, asked).ok_or_else(|| CorpusError::MissingColumn {
            path: path.to_owned(),
            column: asked.to_owned(),
            columns: all(),
        })?,
        None => TEXT
            .iter()
            .find_map(|known| find(names, known))
            .ok_or_else(|| CorpusError::NoTextColumn { path: path.to_owned(), columns: all() })?,
    };
    Ok(ChosenColumns { text: text.to_owned(), label: label_among(names, text).map(str::to_owned) })
}

/// The label column beside `text`.
pub(crate) fn label_among<'n, S: AsRef<str>>(names: &'n [S], text: &str) -> Option<&'n str> {
    LABEL.iter().find_map(|known| find(names, known)).filter(|label| *label != text)
}

/// Where `name` stands among the names of label columns.
pub(crate) fn label_rank(name: &str) -> Option<usize> {
    LABEL.iter().position(|known| known.eq_ignore_ascii_case(name.trim()))
}

/// Whether `name` could head a column that this crate looks for.
pub(crate) fn is_known(name: &str) -> bool {
    TEXT.iter().chain(&LABEL).any(|known| known.eq_ignore_ascii_case(name.trim()))
}

/// The name as it stands, else without regard to case and surrounding whitespace.
pub(crate) fn find<'n, S: AsRef<str>>(names: &'n [S], wanted: &str) -> Option<&'n str> {
    let names = || names.iter().map(AsRef::as_ref);
    names()
        .find(|name| *name == wanted)
        .or_else(|| names().find(|name| name.trim().eq_ignore_ascii_case(wanted.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_found_by_name_in_any_case() {
        let chosen = |names: &[&str], asked| choose(Path::new("f"), names, asked);
        let squad = chosen(&["id", "title", "context", "question"], None).unwrap();
        assert_eq!((squad.text.as_str(), squad.label), ("context", None));
        let csv = chosen(&["Category", "Question", "Text"], Some("question")).unwrap();
        assert_eq!((csv.text.as_str(), csv.label.as_deref()), ("Question", Some("Category")));
        let both = chosen(&["text", "label", "input_ids"], None).unwrap();
        assert_eq!((both.text.as_str(), both.label.as_deref()), ("input_ids", Some("label")));
        assert!(matches!(chosen(&["a", "b"], None), Err(CorpusError::NoTextColumn { .. })));
        assert!(matches!(chosen(&["text"], Some("b")), Err(CorpusError::MissingColumn { .. })));
    }

    #[test]
    fn a_column_asked_for_is_not_its_own_label() {
        assert_eq!(choose(Path::new("f"), &["topic"], Some("topic")).unwrap().label, None);
    }
}
