//! Finding texts at which a tokenizer's splitting pattern silently gave up.
//!
//! Tokenizers split text by a regular expression before merging. With look-around in it the pattern is run
//! by backtracking, under a limit of a million steps; past the limit the `tokenizers` crate takes the rest of
//! the text for one piece and says nothing, so that its token ids differ from the reference's. Here such texts
//! are split once more with the errors looked at.

use serde_json::Value;
use tokenizers::{
    Encoding, OffsetReferential, OffsetType, PreTokenizer, PreTokenizerWrapper, Tokenizer,
    pre_tokenizers::split::SplitPattern,
};

/// The pattern that `ByteLevel` applies where its `use_regex` is set, which the crate keeps to itself.
const BYTE_LEVEL: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";

/// Shorter pieces need no second look: with two ways to go at each byte, 2^16 steps stay far below the limit.
const HARMLESS_BYTES: usize = 16;

/// The splitting stages of one tokenizer with patterns of our own.
#[derive(Debug)]
pub(crate) struct SplitGuard {
    stages: Vec<(PreTokenizerWrapper, Option<fancy_regex::Regex>)>,
    /// Patterns that the normalizer replaces; past their limit it replaces nothing more.
    replaced: Vec<fancy_regex::Regex>,
}

impl SplitGuard {
    pub(crate) fn new(tokenizer: &Tokenizer) -> Result<Self, fancy_regex::Error> {
        let mut stages = Vec::new();
        if let Some(splitter) = tokenizer.get_pre_tokenizer() {
            add_stages(splitter, &mut stages)?;
        }
        if stages.iter().all(|(_, pattern)| pattern.is_none()) {
            stages.clear();
        }
        let mut replaced = Vec::new();
        if let Some(Ok(normalizer)) = tokenizer.get_normalizer().map(serde_json::to_value) {
            add_replaced(&normalizer, &mut replaced)?;
        }
        Ok(Self { stages, replaced })
    }

    /// Whether every pattern ran to the end of `text`, of which `encoding` was made.
    pub(crate) fn check(&self, tokenizer: &Tokenizer, text: &str, encoding: &Encoding) -> Result<(), String> {
        // Run on the text as it stands, which is what nearly every normalizer's first stage sees.
        self.replaced.iter().try_for_each(|pattern| run(pattern, text))?;
        if self.stages.is_empty() || longest_piece(encoding) < HARMLESS_BYTES {
            return Ok(());
        }
        let vocabulary = tokenizer.get_added_vocabulary();
        let mut pieces = vocabulary.extract_and_normalize(tokenizer.get_normalizer(), text);
        for (splitter, pattern) in &self.stages {
            if let Some(pattern) = pattern {
                for (piece, _, tokens) in pieces.get_splits(OffsetReferential::Original, OffsetType::None) {
                    // Pieces that are tokens already are special tokens; no pattern sees them.
                    if tokens.is_none() {
                        pattern
                            .find_iter(piece)
                            .try_for_each(|m| m.map(|_| ()))
                            .map_err(|e| e.to_string())?;
                    }
                }
            }
            splitter.pre_tokenize(&mut pieces).map_err(|e| e.to_string())?;
        }
        Ok(())
    }
}

/// Runs `pattern` over the whole of `text` for its errors.
fn run(pattern: &fancy_regex::Regex, text: &str) -> Result<(), String> {
    pattern.find_iter(text).try_for_each(|found| found.map(|_| ())).map_err(|e| e.to_string())
}

/// The crate keeps a normalizer's pattern to itself, but writes it as JSON.
fn add_replaced(
    normalizer: &Value,
    patterns: &mut Vec<fancy_regex::Regex>,
) -> Result<(), fancy_regex::Error> {
    if let Some(pattern) = normalizer.pointer("/pattern/Regex").and_then(Value::as_str) {
        patterns.push(fancy_regex::Regex::new(pattern)?);
    }
    let stages = normalizer.get("normalizers").and_then(Value::as_array);
    stages.into_iter().flatten().try_for_each(|stage| add_replaced(stage, patterns))
}

fn add_stages(
    splitter: &PreTokenizerWrapper,
    stages: &mut Vec<(PreTokenizerWrapper, Option<fancy_regex::Regex>)>,
) -> Result<(), fancy_regex::Error> {
    let pattern = match splitter {
        PreTokenizerWrapper::Sequence(all) => {
            return all.as_ref().iter().try_for_each(|one| add_stages(one, stages));
        }
        PreTokenizerWrapper::Split(split) => match &split.pattern {
            SplitPattern::Regex(pattern) => Some(fancy_regex::Regex::new(pattern)?),
            SplitPattern::String(_) => None,
        },
        PreTokenizerWrapper::ByteLevel(bytes) if bytes.use_regex => {
            Some(fancy_regex::Regex::new(BYTE_LEVEL)?)
        }
        _ => None,
    };
    stages.push((splitter.clone(), pattern));
    Ok(())
}

/// Bytes of the longest piece that was merged on its own.
fn longest_piece(encoding: &Encoding) -> usize {
    let (mut longest, mut begin, mut piece) = (0, 0, None);
    for (&word, &(start, end)) in encoding.get_word_ids().iter().zip(encoding.get_offsets()) {
        if word.is_none() || word != piece {
            (begin, piece) = (start, word);
        }
        longest = longest.max(end.saturating_sub(begin));
    }
    longest
}
