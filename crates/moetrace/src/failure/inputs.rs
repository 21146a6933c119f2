//! Failures of what a run reads: texts, models, recorded traces.

use moetrace_corpus::{CorpusError, SkipCounts, SkipReason, SkippedRow};
use moetrace_cuda::CudaError;
use moetrace_model::ModelError;
use moetrace_trace::TraceError;

use super::{Failure, code, io_cause, io_code, io_failure, told};

impl From<TraceError> for Failure {
    fn from(error: TraceError) -> Self {
        match io_cause(&error) {
            Some(io) => io_failure(io, "cannot write", told(&error)),
            None => Self::new(
                code::BAD_INPUT,
                "E-TRACE",
                told(&error),
                "'moetrace status RUN' shows each shard; collect with --repair does damaged ones again",
            ),
        }
    }
}

impl From<CorpusError> for Failure {
    fn from(error: CorpusError) -> Self {
        let what = told(&error);
        let new = |exit, name, help: &str| Self::new(exit, name, what.clone(), help);
        match &error {
            CorpusError::SourceName { .. }
            | CorpusError::SourcePath { .. }
            | CorpusError::SameName { .. }
            | CorpusError::NoSources => {
                new(code::USAGE, "E-DATASET", "write --dataset NAME=PATH or --dataset NAME=PATH:COLUMN")
            }
            CorpusError::Setting { .. } => new(code::USAGE, "E-SETTING", "see 'moetrace collect --help'"),
            CorpusError::Io { source, path, .. } => {
                new(io_code(source, true), "E-DATA", &super::hub::other_texts(path))
            }
            CorpusError::NoTextColumn { .. } | CorpusError::MissingColumn { .. } => new(
                code::BAD_INPUT,
                "E-COLUMN",
                "name the column with the text behind a colon: --dataset NAME=PATH:COLUMN, or hf://datasets/OWNER/NAME:COLUMN",
            ),
            CorpusError::Row { .. } => {
                new(code::BAD_INPUT, "E-ROW", "without --strict such rows are counted, reported and skipped")
            }
            CorpusError::NothingUsable { skipped, examples, .. } => {
                let what = format!("{what}{}", where_lines(examples));
                Self::new(code::BAD_INPUT, "E-EMPTY", what, unusable_help(skipped))
            }
            CorpusError::NoFiles { .. } => new(code::BAD_INPUT, "E-EMPTY", FORMS),
            CorpusError::NoChatTemplate { .. } | CorpusError::BadTemplate { .. } => {
                new(code::BAD_INPUT, "E-TOKENIZER", NO_TEMPLATE)
            }
            CorpusError::NoTokenizer { .. } => {
                new(code::BAD_INPUT, "E-TOKENIZER", "put the model's tokenizer.json beside its config.json")
            }
            CorpusError::Tokenizer { .. }
            | CorpusError::TokenizerSize { .. }
            | CorpusError::UnknownBos { .. } => new(
                code::BAD_INPUT,
                "E-TOKENIZER",
                "fetch tokenizer.json and tokenizer_config.json of the model again",
            ),
            CorpusError::Encrypted { .. } => {
                new(code::BAD_INPUT, "E-DATA", "write it again without encryption, or name another data set")
            }
            CorpusError::Damaged { .. } => new(
                code::BAD_INPUT,
                "E-DATA",
                "fetch or write the file again; encrypted columns are not read either",
            ),
            CorpusError::Changed { .. } => new(
                code::LATER,
                "E-CHANGED",
                "let whoever writes the file finish, then run the same command again",
            ),
            _ => new(code::BAD_INPUT, "E-DATA", form_help(&error)),
        }
    }
}

const FORMS: &str = "check the path; docs/data-sets.md lists the forms that can be read";

const NO_TEMPLATE: &str = "put a chat_template.jinja that works beside tokenizer.json, or name a column of plain text: \
                           --dataset NAME=PATH:COLUMN";

/// What to do with a file in a form that is not read.
fn form_help(error: &CorpusError) -> &'static str {
    match error {
        CorpusError::Encoding { found: "UTF-32", .. } => {
            "write it as UTF-8: iconv -f UTF-32 -t UTF-8 FILE > NEW"
        }
        CorpusError::Encoding { .. } => "write it as UTF-8: iconv -f UTF-16 -t UTF-8 FILE > NEW",
        CorpusError::FeatherV1 { .. } => "write it again with pyarrow.feather.write_feather(table, FILE)",
        CorpusError::NoRegularFile { .. } => "write what it yields to a file: --dataset NAME=FILE",
        _ => "docs/data-sets.md lists the forms that can be read",
    }
}

/// Faulty rows shown of a data set that has no other.
const ROWS_SHOWN: usize = 3;

/// The first faulty rows, one a line.
fn where_lines(rows: &[SkippedRow]) -> String {
    rows.iter().take(ROWS_SHOWN).fold(String::new(), |lines, row| format!("{lines}\n  where: {row}"))
}

/// What to do about the reason that most rows were left out for.
fn unusable_help(skipped: &SkipCounts) -> &'static str {
    let (reason, _) = skipped.iter().max_by_key(|(_, rows)| *rows).unzip();
    match reason {
        None => "the data set has no rows; check the path",
        Some(SkipReason::TooShort) => "lower --min-chars if the texts are meant to be short",
        Some(SkipReason::WrongType | SkipReason::MissingColumn) => {
            "name a column that holds text: --dataset NAME=PATH:COLUMN"
        }
        Some(SkipReason::InvalidUtf8 | SkipReason::BrokenJson) => {
            "check that the file is what its name says; docs/data-sets.md lists the forms that can be read"
        }
        Some(SkipReason::OutOfVocabulary) => "the tokenizer or the input_ids belong to another model",
        Some(SkipReason::UnclosedQuote) => "close the quote, or double those that are part of a text",
        Some(SkipReason::TemplateRefused) => {
            "name a column of plain text (--dataset NAME=PATH:COLUMN), or use a model whose chat template takes these"
        }
        Some(_) => "docs/data-sets.md says what each reason means",
    }
}

/// Exit code, name and next step of failures that only 4-bit checkpoints know.
fn four_bit(error: &ModelError) -> Option<(u8, &'static str, &'static str)> {
    Some(match error {
        ModelError::DensePrecision { .. } | ModelError::ComputeDtype { .. } => (
            code::USAGE,
            "E-PRECISION",
            "use --precision nf4, with --compute-dtype f32 for exact activations",
        ),
        ModelError::AlreadyFourBit { .. } => {
            (code::USAGE, "E-QUANTISED", "'moetrace collect --model DIR' runs it as it is")
        }
        ModelError::OutputExists { .. } => (code::NO_OUTPUT, "E-EXISTS", "name another folder: --out DIR"),
        ModelError::OutputBusy { .. } => {
            (code::LATER, "E-LOCKED", "wait until it ends, then run the same command again")
        }
        ModelError::Write { source, .. } if source.kind() == std::io::ErrorKind::StorageFull => (
            code::IO,
            "E-DISK",
            "complete files stay in OUT.partial; free space and run the same command again",
        ),
        ModelError::Write { source, .. } => {
            (io_code(source, false), "E-IO", "name a folder that can be created and written: --out DIR")
        }
        ModelError::PartialForeign { .. } => {
            (code::NO_OUTPUT, "E-FOREIGN", "move it, or name another folder: --out DIR")
        }
        ModelError::Nf4 { .. }
        | ModelError::NothingQuantised { .. }
        | ModelError::FourBitCode { .. }
        | ModelError::FourBitRole { .. } => (
            code::BAD_INPUT,
            "E-NF4",
            "the checkpoint is damaged or of another kind; docs/nf4.md says what is read",
        ),
        _ => return None,
    })
}

/// What to do where GPU memory ran out all the same, with passes as small as they can be or before the first.
pub(super) const OUT_OF_MEMORY: &str = "something else takes GPU memory, or the plan is too tight: lower \
                                        --tokens-per-pass or --max-memory, keep layers off the GPU with --cpu-offload, \
                                        or use --device cpu; the same command continues";

/// Exit code, name and next step of failures that only GPUs know.
fn on_gpu(error: &ModelError) -> Option<(u8, &'static str, &'static str)> {
    Some(match error {
        ModelError::Cuda(error) if error.is_host_memory_refused() => (
            code::LATER,
            "E-OOM",
            "the host could not lock so much memory: free some, lower --max-memory cpu=, or raise gpu=; 'ulimit -l' may limit it",
        ),
        error if error.is_out_of_memory() => (code::LATER, "E-OOM", OUT_OF_MEMORY),
        ModelError::Cuda(error) if error.is_device_lost() => (
            code::LATER,
            "E-GPULOST",
            "committed shards are safe; look for 'Xid' in dmesg, then run the same command again",
        ),
        ModelError::Cuda(CudaError::Cache { .. }) => {
            (code::NO_OUTPUT, "E-CACHE", "set MOETRACE_CACHE to a folder that can be written")
        }
        ModelError::Cuda(_) => {
            (code::OTHER, "E-CUDA", "committed shards are safe; --device cpu computes without a GPU")
        }
        ModelError::GpuLimit { .. } => (code::CONFIG, "E-DEVICE", "--device cpu has no such limit"),
        ModelError::PassTooLarge { .. } => (code::USAGE, "E-SETTING", "raise --tokens-per-pass"),
        ModelError::NotPlanned { .. } => {
            (code::INTERNAL, "E-INTERNAL", "nothing committed was changed; please report this line")
        }
        _ => return None,
    })
}

impl From<ModelError> for Failure {
    fn from(error: ModelError) -> Self {
        let what = told(&error);
        let new = |exit, name, help: &str| Self::new(exit, name, what.clone(), help);
        if let Some((exit, name, help)) = four_bit(&error).or_else(|| on_gpu(&error)) {
            return new(exit, name, help);
        }
        match &error {
            ModelError::Sink(sink) => match io_cause(sink.inner()) {
                Some(io) => io_failure(io, "cannot write", what),
                None => {
                    new(code::OTHER, "E-RUN", "nothing committed was changed; run the same command again")
                }
            },
            ModelError::Io { source, .. } => new(
                io_code(source, true),
                "E-MODEL",
                "name a folder with config.json and *.safetensors (--model DIR), or a model of the Hub as OWNER/NAME",
            ),
            ModelError::NoWeights { .. } => new(
                code::NO_INPUT,
                "E-MODEL",
                "name a folder with config.json and *.safetensors: --model DIR",
            ),
            ModelError::Pickle { .. } => {
                new(code::BAD_INPUT, "E-PICKLE", "use a revision with *.safetensors")
            }
            ModelError::Truncated { .. } => {
                new(code::BAD_INPUT, "E-TRUNC", "the download is incomplete; fetch the file again")
            }
            ModelError::ModelType { .. }
            | ModelError::Unsupported { .. }
            | ModelError::MissingField { .. }
            | ModelError::FieldRange { .. }
            | ModelError::TooLarge { .. } => new(
                code::BAD_INPUT,
                "E-CONFIG",
                "docs/models.md lists the families and what of them is supported",
            ),
            ModelError::Threads { .. } => {
                new(code::USAGE, "E-SETTING", "see --threads in 'moetrace collect --help'")
            }
            ModelError::NotFinite { .. } | ModelError::LossNotFinite { .. } => new(
                code::BAD_INPUT,
                "E-NAN",
                "the checkpoint may be damaged; --precision f32 rules out overflow",
            ),
            ModelError::TokenRange { .. } => {
                new(code::BAD_INPUT, "E-TOKENS", "the tokenizer or the input_ids belong to another model")
            }
            ModelError::Json { .. }
            | ModelError::FileSize { .. }
            | ModelError::Overlong { .. }
            | ModelError::Header { .. }
            | ModelError::HeaderLength { .. }
            | ModelError::WeightMap { .. } => {
                new(code::BAD_INPUT, "E-MODEL", "the file is damaged or no part of a model; fetch it again")
            }
            _ => new(code::BAD_INPUT, "E-MODEL", "'moetrace inspect DIR' lists the checkpoint's tensors"),
        }
    }
}

#[cfg(test)]
mod tests {
    use moetrace_run::RunError;

    use super::*;

    #[test]
    fn memory_that_ran_out_at_the_smallest_pass_is_for_later_and_says_what_to_lower() {
        let source = Box::new(ModelError::OutOfMemory { what: "buffers of a pass" });
        let shard = "imdb-00003-of-00012".to_owned();
        let failure = Failure::from(RunError::OutOfMemory { shard, tokens_per_pass: 512, source });
        assert_eq!((failure.exit, failure.name), (75, "E-OOM"));
        assert_eq!(
            failure.what,
            "imdb-00003-of-00012: memory ran out in passes of 512 tokens, which cannot be made smaller: buffers of a \
             pass: out of memory"
        );
        let help = failure.help.unwrap_or_default();
        assert!(
            ["--tokens-per-pass", "--max-memory", "--cpu-offload"].iter().all(|flag| help.contains(flag)),
            "{help}"
        );
        // While the model is loaded, too.
        let loading = Failure::from(RunError::Model(ModelError::OutOfMemory { what: "weights" }));
        assert_eq!((loading.exit, loading.name), (75, "E-OOM"));
    }
}
