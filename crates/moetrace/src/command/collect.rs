//! `moetrace collect`: run a model over texts and record its routing.

use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::time::{Instant, SystemTime};

use moetrace_report::ReportInput;
use moetrace_routing::TokenId;
use moetrace_run::{
    Collect, Outcome, ProcessUsage, RealFs, ReplayHow, ResolvedSetting, RunError, RunEvent, RunFolder, Shard,
    Trust,
};

use crate::args::CollectArgs;
use crate::failure::{Failure, code};
use crate::inputs::Inputs;
use crate::model_plan::ModelPlan;
use crate::output;
use crate::page;
use crate::prepare::{Prepared, Settings};
use crate::progress::Progress;
use crate::resident;
use crate::show;
use crate::signals::Stop;

/// Collects, shows progress, and prints the summary.
pub(crate) fn collect(args: &CollectArgs, settings: Vec<ResolvedSetting>) -> Result<u8, Failure> {
    let stop = Stop::install().map_err(|error| {
        Failure::new(code::OTHER, "E-SIGNAL", format!("cannot listen to signals: {error}"), "run it again")
    })?;
    let mut progress = Progress::new(args.quiet);
    let mut settings = Settings(settings);
    let inputs = Inputs::find(args, &mut settings, &mut progress)?;
    if inputs.missing().is_some() {
        // What cannot run is refused before hours of download; what can is told of when memory is laid out again.
        let mut aside = Settings(settings.0.clone());
        ModelPlan::ahead(args, &inputs, None, &mut aside, &Progress::new(true))?;
    }
    inputs.fetch(args, &mut progress)?;
    let mut prepared = Prepared::new(args, settings, inputs, &mut progress)?;
    if args.fresh {
        set_aside(&prepared)?;
    }
    progress.line(&show::heading(&prepared));
    for line in show::left_out(&prepared.plan.corpus) {
        progress.line(&line);
    }
    let is_committed = |shard: &Shard| prepared.folder.commit(&shard.name).ok().flatten().is_some();
    if args.repair || !prepared.plan.shards.iter().all(is_committed) {
        prepared.quantised(args, &mut progress)?;
    }
    progress.plan(&prepared.plan);
    let outcome = run(&prepared, args, &stop, &mut progress).map_err(|error| explain(error, &prepared))?;
    if let Some(usage) = &outcome.usage {
        progress.line(&format!("taken: {}", show::used(usage)));
    }
    let out = prepared.folder.root().display().to_string();
    if outcome.interrupted {
        let (done, of) = (outcome.committed, outcome.shards);
        output::tell(format_args!(
            "interrupted: {done} of {of} shards committed in {out}; run the same command to continue"
        ));
        return Ok(stop.exit_code());
    }
    let report = outcome.metrics.report();
    if args.json {
        output::print_json(&show::collected(&out, &outcome, &report))?;
    } else if !args.quiet {
        output::print(&show::layers(&report))?;
        output::print(&show::summary(&report))?;
        output::print(&show::collected_lines(&out, &outcome, args.shards.is_some()))?;
    }
    if outcome.committed == outcome.shards && !args.no_report {
        draw(&prepared, &outcome, &stop, progress);
    }
    Ok(0)
}

fn run(
    prepared: &Prepared,
    args: &CollectArgs,
    stop: &Stop,
    progress: &mut Progress,
) -> Result<Outcome, RunError> {
    let text_of = |id: TokenId| prepared.tokenizer.as_ref().and_then(|t| t.token_text(id));
    let vocabulary = prepared.tokenizer.is_some().then_some(&text_of as &dyn Fn(TokenId) -> Option<String>);
    let begun = Instant::now();
    let process = || ProcessUsage {
        resident_bytes: resident::most().unwrap_or(0),
        elapsed_us: begun.elapsed().as_micros() as u64,
    };
    let run = Collect {
        fs: &RealFs,
        folder: &prepared.folder,
        plan: &prepared.plan,
        settings: prepared.settings.clone(),
        execution: &prepared.execution,
        metrics: prepared.metrics,
        range: args.shards,
        repair: args.repair,
        vocabulary,
        process: Some(&process),
        holder: &holder(),
        stop: &stop.asked,
    };
    stop.set_idle(false);
    moetrace_run::collect(&run, &mut || prepared.load(), &mut |event| {
        match event {
            RunEvent::Loading => stop.set_idle(true),
            RunEvent::Begin { .. } => stop.set_idle(false),
            _ => {}
        }
        progress.run(&event);
    })
}

/// Draws the finished run as `report.html`, as `moetrace report` does. It can be drawn again at any time, so that
/// whatever goes wrong is worth a line and not the run.
fn draw(prepared: &Prepared, outcome: &Outcome, stop: &Stop, progress: Progress) {
    let path = prepared.folder.root().join("report.html");
    if outcome.written == 0 && path.exists() {
        return;
    }
    let again = format!(
        "'moetrace report {}' makes the page",
        show::quoted(&prepared.folder.root().display().to_string())
    );
    stop.set_done(format!("interrupted: the run is complete; {again}"));
    let tokens = show::thousands(prepared.plan.tokens());
    progress.line(&format!("reading {tokens} tokens back for report.html; --no-report leaves the page out"));
    let (begun, progress) = (Instant::now(), Mutex::new(progress));
    let on_shard = |read: usize, of: usize| {
        let text = format!("report.html: {read} of {of} shards read");
        progress.lock().unwrap_or_else(PoisonError::into_inner).now_and_then(&text);
    };
    // What was written now came from this process, and what was there before has just been hashed.
    let how =
        ReplayHow { trust: Trust::Sizes, threads: prepared.execution.threads, on_shard: Some(&on_shard) };
    let counted = page::counted(&prepared.folder, prepared.metrics.include_bos, &how).map_err(Failure::from);
    let written = counted.and_then(|(run, _)| {
        stop.set_idle(false);
        page::write(&ReportInput { run: &run, other: None, fidelity: None }, &path)
    });
    let progress = progress.into_inner().unwrap_or_else(PoisonError::into_inner);
    match written {
        Ok(()) => {
            let seconds = begun.elapsed().as_secs_f64();
            progress.line(&format!("written in {seconds:.1} s: {}", path.display()));
        }
        Err(failure) => {
            output::tell(format_args!("warning[W-REPORT]: {}; the run is complete, {again}", failure.what));
        }
    }
}

/// This process, for whoever finds a lock of ours.
pub(super) fn holder() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = if host.trim().is_empty() { String::new() } else { format!(" on host {}", host.trim()) };
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |d| d.as_secs());
    let (hour, minute) = (now / 3600 % 24, now / 60 % 60);
    format!("pid {}{host}, since {hour:02}:{minute:02} UTC", std::process::id())
}

/// How much is safe where the disk is full or memory ran out, and how much of the disk is missing.
fn explain(error: RunError, prepared: &Prepared) -> Failure {
    let mut failure = Failure::from(error);
    if let "E-DISK" | "E-OOM" = failure.name
        && let Ok(manifest) = prepared.folder.manifest()
    {
        let status = moetrace_run::status(&prepared.folder, &manifest);
        let (done, of) = (status.committed, status.shards.len());
        if failure.name == "E-OOM" {
            let help = failure.help.unwrap_or_default();
            failure.help = Some(format!("{done} of {of} shards are committed and safe; {help}"));
            return failure;
        }
        let estimate = show::Estimate::new(prepared, &prepared.plan.shards).output_bytes;
        let missing = show::bytes(estimate.saturating_sub(status.bytes));
        failure.help = Some(format!(
            "{done} of {of} shards are committed and safe; free space, about {missing} are missing, and run the same \
             command again"
        ));
    }
    failure
}

/// Where `--fresh` keeps an older run, beside the new one; an older `.bak` is in the way and is named.
pub(super) fn aside(folder: &RunFolder) -> Result<PathBuf, Failure> {
    let root = folder.root();
    let mut name = root.file_name().unwrap_or_default().to_owned();
    name.push(".bak");
    let aside = root.with_file_name(name);
    if root.exists() && aside.exists() {
        let what = format!("{} exists already", aside.display());
        return Err(Failure::new(code::NO_OUTPUT, "E-BACKUP", what, "move or remove it, then try again"));
    }
    Ok(aside)
}

fn set_aside(prepared: &Prepared) -> Result<(), Failure> {
    let (root, aside) = (prepared.folder.root(), aside(&prepared.folder)?);
    match prepared.folder.set_aside(&aside) {
        Err(RunError::Io { source, .. }) => {
            let what = format!("cannot rename {} to {}: {source}", root.display(), aside.display());
            Err(Failure::new(code::NO_OUTPUT, "E-BACKUP", what, "use another --out"))
        }
        other => Ok(other.map(drop)?),
    }
}
