//! `moetrace report`: a run, or two, as one page and as figures.

use std::path::{Path, PathBuf};

use moetrace_metrics::fidelity::{FidelityReport, FidelitySettings};
use moetrace_report::{PngError, PngRenderer, ReportInput, ReportedRun};
use moetrace_run::{ReplayHow, RunError, RunFolder, Trust, texts_hash};

use crate::args::ReportArgs;
use crate::failure::{Failure, code};
use crate::output;
use crate::page::{self, place};

/// Counts every committed shard, draws, and writes.
pub(crate) fn report(args: &ReportArgs) -> Result<u8, Failure> {
    let mut run = read(&args.run, args)?;
    let other = args.other.as_ref().map(|other| read(other, args)).transpose()?;
    let fidelity = match &args.other {
        Some(other) => {
            let texts = |path: &Path| {
                let folder = RunFolder::new(path);
                texts_hash(&folder, &folder.manifest()?)
            };
            if texts(&args.run)? != texts(other)? {
                run.notes
                    .push("A and B are over different texts or tokens, which numbers depend on too.".into());
            }
            fidelity(args, other, &mut run)?
        }
        None => None,
    };
    let input = ReportInput { run: &run, other: other.as_ref(), fidelity: fidelity.as_ref() };
    let out = args.out.clone().unwrap_or_else(|| args.run.join("report.html"));
    page::write(&input, &out)?;
    output::tell(format_args!("written: {}", out.display()));
    if let Some(folder) = &args.figures {
        figures(&input, folder)?;
    }
    Ok(0)
}

fn read(path: &Path, args: &ReportArgs) -> Result<ReportedRun, Failure> {
    let trust = if args.trust { Trust::Sizes } else { Trust::Nothing };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let how = ReplayHow { trust, threads, on_shard: None };
    let (run, note) = page::counted(&RunFolder::new(path), args.include_bos, &how)?;
    if let Some(note) = note {
        output::tell(format_args!("note: {note}"));
    }
    Ok(run)
}

/// Token by token where both ran over the same tokens; otherwise the page says why not.
fn fidelity(
    args: &ReportArgs,
    other: &Path,
    run: &mut ReportedRun,
) -> Result<Option<FidelityReport>, Failure> {
    let settings = FidelitySettings { include_bos: args.include_bos };
    let trust = if args.trust { Trust::Sizes } else { Trust::Nothing };
    match moetrace_run::compare(&RunFolder::new(&args.run), &RunFolder::new(other), settings, trust) {
        Ok(comparison) => Ok(Some(comparison.fidelity)),
        Err(
            error @ (RunError::OtherTokens { .. }
            | RunError::OtherRouting { .. }
            | RunError::NothingInCommon { .. }),
        ) => {
            let note = format!("The runs are not compared token by token: {error}.");
            output::tell(format_args!("note: {note}"));
            run.notes.push(note);
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Every chart as NAME.svg and NAME.png.
fn figures(input: &ReportInput<'_>, folder: &Path) -> Result<(), Failure> {
    let files = moetrace_report::figures(input);
    let path = |name: &str, extension: &str| -> PathBuf { folder.join(format!("{name}.{extension}")) };
    for file in &files {
        let to = path(&file.name, "svg");
        place(&to, file.svg.as_bytes()).map_err(|error| Failure::output(&to, &error))?;
    }
    let failed = |error: &PngError| {
        let what = format!("no PNG is written: {error}");
        let help = format!(
            "the SVG files in {} are complete; a font such as DejaVu Sans (fonts-dejavu-core) makes the others",
            folder.display()
        );
        Failure::new(code::CONFIG, "E-FONT", what, help)
    };
    let renderer = PngRenderer::new().map_err(|error| failed(&error))?;
    for file in &files {
        let png = renderer.render(&file.svg).map_err(|error| failed(&error))?;
        let to = path(&file.name, "png");
        place(&to, &png).map_err(|error| Failure::output(&to, &error))?;
    }
    output::tell(format_args!(
        "written: {} figures in {}, each as SVG and PNG",
        files.len(),
        folder.display()
    ));
    Ok(())
}
