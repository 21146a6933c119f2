//! A page, or figures, of made-up routing: `cargo run -p moetrace-report --example synthetic -- page.html [FIGURES]`.

#[path = "../tests/it/synthetic.rs"]
mod synthetic;

use anyhow::Context as _;
use moetrace_report::{ReportInput, figures, page};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args_os().skip(1);
    let out = arguments.next().context("where shall the page go?")?;
    let datasets = ["code", "essays", "law", "letters", "maths", "verse"].map(str::to_owned);
    let run = synthetic::run(&synthetic::Shape::DEEPSEEK, &datasets, |i| format!("made up {i}"))?;
    let input = ReportInput { run: &run, other: None, fidelity: None };
    std::fs::write(out, page(&input)?)?;
    if let Some(folder) = arguments.next() {
        std::fs::create_dir_all(&folder)?;
        for figure in figures(&input) {
            let path = std::path::Path::new(&folder).join(&figure.name).with_extension("svg");
            std::fs::write(path, figure.svg)?;
        }
    }
    Ok(())
}
