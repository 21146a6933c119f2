//! `moetrace import`: a run of the routing that another tool recorded.

use moetrace_corpus::SourceSpec;
use moetrace_exchange::{ImportHow, ImportLayout, ImportSettings};
use moetrace_routing::WeightPrecision;
use moetrace_run::{ResolvedSetting, RunEvent, RunFolder};

use super::collect::{aside, holder};
use crate::args::{ImportArgs, ImportLayoutArg, Weights};
use crate::failure::{Failure, code};
use crate::output;
use crate::progress::Progress;
use crate::show;
use crate::signals::Stop;

/// Imports and prints the numbers that the files allow.
pub(crate) fn import(args: &ImportArgs) -> Result<u8, Failure> {
    let stop = Stop::install().map_err(|error| {
        Failure::new(code::OTHER, "E-SIGNAL", format!("cannot listen to signals: {error}"), "run it again")
    })?;
    let settings = settings(args)?;
    let mut progress = Progress::new(args.quiet);
    let folder = RunFolder::new(&args.out);
    let aside = if args.fresh { Some(aside(&folder)?) } else { None };
    let how = ImportHow {
        threads: args.threads.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, Into::into)),
        settings: resolved(&settings),
        holder: &holder(),
        stop: &stop.asked,
        repair: args.repair,
        set_aside: aside.as_deref(),
    };
    let mut tell = |event: RunEvent<'_>| match event {
        // There is no model.
        RunEvent::Loading => {}
        event => progress.run(&event),
    };
    let outcome = moetrace_exchange::import(&settings, &folder, how, &mut tell)?;
    let out = args.out.display().to_string();
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
        output::print(&show::collected_lines(&out, &outcome, false))?;
    }
    Ok(0)
}

fn settings(args: &ImportArgs) -> Result<ImportSettings, Failure> {
    let mut sources = Vec::new();
    for source in &args.sources {
        let SourceSpec { name, path, column, .. } = SourceSpec::parse(source)?;
        if let Some(column) = column {
            let what = format!("{source}: a column, {column:?}, is named, and foreign traces have none");
            return Err(Failure::new(code::USAGE, "E-USAGE", what, "write NAME=PATH"));
        }
        if sources.iter().any(|(other, _)| *other == name) {
            let what = format!("two data sets are called {name}");
            return Err(Failure::new(code::USAGE, "E-DATASET", what, "name them apart, as NAME=PATH"));
        }
        sources.push((name, path));
    }
    Ok(ImportSettings {
        layout: match args.layout {
            ImportLayoutArg::Esft => ImportLayout::Esft,
            ImportLayoutArg::Flame => ImportLayout::Flame,
            ImportLayoutArg::Npy => ImportLayout::Npy,
        },
        sources,
        model: args.model_name.clone(),
        experts: args.experts,
        chosen: args.experts_per_token,
        layers: args.layers.clone().map(|layers| layers.0),
        text_tokens: args.text_tokens,
        weights: match args.weights {
            Weights::F16 => WeightPrecision::Half,
            Weights::F32 => WeightPrecision::Full,
        },
        shard_tokens: args.shard_tokens,
    })
}

/// What was asked for, for the manifest.
fn resolved(settings: &ImportSettings) -> Vec<ResolvedSetting> {
    let number = |value: Option<usize>| value.map_or_else(|| "as the files say".into(), |n| n.to_string());
    let sources: Vec<&str> = settings.sources.iter().map(|(name, _)| name.as_str()).collect();
    let layers = settings.layers.as_ref().map_or_else(|| "as the files say".into(), |l| format!("{l:?}"));
    [
        ("layout", settings.layout.name().to_owned()),
        ("sources", sources.join(",")),
        ("model-name", settings.model.clone()),
        ("experts", number(settings.experts)),
        ("experts-per-token", number(settings.chosen)),
        ("layers", layers),
        ("text-tokens", number(settings.text_tokens)),
    ]
    .map(|(name, value)| ResolvedSetting { name: name.to_owned(), value, source: "import".to_owned() })
    .into()
}
