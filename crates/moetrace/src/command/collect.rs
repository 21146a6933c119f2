//! `moetrace collect`: run a model over texts and record its routing.

use moetrace_routing::TokenId;
use moetrace_run::{Collect, Outcome, RealFs, ResolvedSetting, RunError};

use crate::args::CollectArgs;
use crate::failure::{Failure, code};
use crate::output;
use crate::prepare::Prepared;
use crate::progress::Progress;
use crate::show;
use crate::signals::Stop;

/// Collects, shows progress, and prints the summary.
pub(crate) fn collect(args: &CollectArgs, settings: Vec<ResolvedSetting>) -> Result<u8, Failure> {
    let stop = Stop::install().map_err(|error| {
        Failure::new(code::OTHER, "E-SIGNAL", format!("cannot listen to signals: {error}"), "run it again")
    })?;
    let mut progress = Progress::new(args.quiet);
    let prepared = Prepared::new(args, settings, &mut progress)?;
    if args.fresh {
        set_aside(&prepared)?;
    }
    progress.line(&show::heading(&prepared));
    for line in show::left_out(&prepared.plan.corpus) {
        progress.line(&line);
    }
    progress.plan(&prepared.plan);
    let outcome = run(&prepared, args, &stop, &mut progress)?;
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
        output::print(&show::summary(&report))?;
        output::print(&show::collected_lines(&out, &outcome, args.shards.is_some()))?;
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
        stop: &stop.asked,
    };
    moetrace_run::collect(&run, &mut || prepared.load(), &mut |event| progress.run(&event))
}

/// Keeps an older run beside the new one; an older `.bak` is in the way and is named.
fn set_aside(prepared: &Prepared) -> Result<(), Failure> {
    let root = prepared.folder.root();
    // Without a manifest there is no run to keep; a folder of others is refused when the run is begun.
    if !prepared.folder.has_manifest() {
        return Ok(());
    }
    let mut name = root.file_name().unwrap_or_default().to_owned();
    name.push(".bak");
    let aside = root.with_file_name(name);
    if aside.exists() {
        let what = format!("{} exists already", aside.display());
        return Err(Failure::new(code::NO_OUTPUT, "E-BACKUP", what, "move or remove it, then try again"));
    }
    std::fs::rename(root, &aside).map_err(|error| {
        let what = format!("cannot rename {} to {}: {error}", root.display(), aside.display());
        Failure::new(code::NO_OUTPUT, "E-BACKUP", what, "use another --out")
    })
}
