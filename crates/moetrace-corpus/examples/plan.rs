//! Plans data sets and prints what became of their rows:
//! `cargo run --release -p moetrace-corpus --example plan -- TOKENIZER_DIR NAME=PATH[:column]...`

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use moetrace_corpus::{CorpusError, CorpusSettings, SourceSpec, TextTokenizer, plan};

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(tokenizer) = arguments.next() else {
        eprintln!("usage: plan TOKENIZER_DIR NAME=PATH[:column]...");
        return ExitCode::from(2);
    };
    let tokenizer = match TextTokenizer::open(Path::new(&tokenizer)) {
        Ok(tokenizer) => tokenizer,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    for spec in arguments {
        let begun = Instant::now();
        if let Err(error) = show(&spec, &tokenizer) {
            println!("{spec}: error: {error}");
        }
        println!("  {:.2} s", begun.elapsed().as_secs_f64());
    }
    ExitCode::SUCCESS
}

fn show(spec: &str, tokenizer: &TextTokenizer) -> Result<(), CorpusError> {
    let source = SourceSpec::parse(spec)?;
    let corpus = plan(&[source], Some(tokenizer), &CorpusSettings::default(), &mut |_| {})?;
    for dataset in &corpus.datasets {
        println!(
            "{}: column {} (label {}), {} rows, {} usable, {} samples, {} tokens, left out: {}",
            dataset.name,
            dataset.column,
            dataset.label_column.as_deref().unwrap_or("none"),
            dataset.rows_seen,
            dataset.usable,
            dataset.samples.len(),
            dataset.tokens(),
            dataset.skipped
        );
        for example in dataset.examples.iter().take(3) {
            println!("  {example}");
        }
    }
    Ok(())
}
