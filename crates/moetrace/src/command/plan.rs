//! `moetrace plan`: what a collect would do. Nothing is written but the unpacked embedded model, and a model's small
//! files in the cache of the Hub.

use moetrace_corpus::CorpusPlan;
use moetrace_run::{ResolvedSetting, Shard};
use serde_json::{Value, json};

use crate::args::PlanArgs;
use crate::failure::Failure;
use crate::hub::Downloads;
use crate::inputs::Inputs;
use crate::model_plan::ModelPlan;
use crate::output;
use crate::prepare::{Prepared, Settings};
use crate::progress::Progress;
use crate::show;

/// The first faulty rows of each data set, as they are shown to a reader.
fn faulty_rows(corpus: &CorpusPlan) -> Vec<Value> {
    let rows = corpus.datasets.iter().flat_map(|d| d.examples.iter().map(move |row| (d, row)));
    rows.map(|(d, row)| {
        json!({
            "dataset": d.name.to_string(),
            "file": row.file,
            "line": row.line,
            "reason": row.reason,
            "detail": row.detail,
        })
    })
    .collect()
}

/// What is odd about the files of each data set.
fn notes(corpus: &CorpusPlan) -> Vec<Value> {
    let notes = corpus.datasets.iter().flat_map(|d| d.notes.iter().map(move |note| (d, note)));
    notes.map(|(d, note)| json!({"dataset": d.name.to_string(), "note": note})).collect()
}

/// What can be said before weights or texts are here: texts are counted from the files.
fn before_download(
    PlanArgs { collect: args, gpu }: &PlanArgs,
    inputs: &Inputs,
    downloads: &Downloads,
    mut settings: Settings,
    progress: &Progress,
) -> Result<u8, Failure> {
    let model = ModelPlan::ahead(args, inputs, *gpu, &mut settings, progress)?;
    let estimate = show::Estimate::at_most(&model)?;
    if args.json {
        output::print_json(&json!({
            "out": model.folder.root().display().to_string(),
            "model": show::model_json(&inputs.name, &model)?,
            "settings": settings.0,
            "tokens": null,
            "estimate": estimate,
            "download": downloads.json(),
            "gpu": show::gpu_json(model.gpu.as_ref(), None),
        }))?;
        return Ok(0);
    }
    output::print(&show::settings(&settings.0))?;
    output::print(&show::downloads(downloads))?;
    output::print(&show::model_plan(&inputs.name, &model, &estimate))?;
    output::print(if downloads.is_offline() {
        "offline collect ends where something is missing; without --offline it downloads that and begins\n"
    } else {
        "collect downloads what is not here and begins; once all is, plan shows texts, shards and time too\n"
    })?;
    Ok(0)
}

/// Prints settings, shards, tokens, memory and bytes.
pub(crate) fn plan(given: &PlanArgs, settings: Vec<ResolvedSetting>) -> Result<u8, Failure> {
    let PlanArgs { collect: args, gpu } = given;
    let mut progress = Progress::new(args.quiet || args.json);
    let mut settings = Settings(settings);
    let inputs = Inputs::find(args, &mut settings, &mut progress)?;
    if let Some(downloads) = inputs.missing() {
        return before_download(given, &inputs, downloads, settings, &progress);
    }
    let download = inputs.downloads.as_ref().map(Downloads::json);
    let prepared = Prepared::for_gpu(args, settings, inputs, *gpu, &mut progress)?;
    // What collect would refuse is refused here too; with --fresh it would set aside what is there.
    let begun = if args.fresh { None } else { prepared.folder.check(&prepared.plan)? };
    let range = prepared.plan.select(args.shards)?;
    let shards = &prepared.plan.shards[range.clone()];
    let committed = |shard: &&Shard| {
        let record = begun.as_ref().map(|manifest| prepared.folder.committed(manifest, shard));
        matches!(record, Some(Ok(Some(_))))
    };
    let done = shards.iter().filter(committed).count();
    let estimate = show::Estimate::new(&prepared, shards);
    let tokens: u64 = shards.iter().map(|s| s.tokens).sum();
    if args.json {
        output::print_json(&json!({
            "out": prepared.folder.root().display().to_string(),
            "plan_hash": prepared.plan.hash(),
            "model": prepared.plan.model,
            "settings": prepared.settings,
            "datasets": prepared.plan.dataset_facts(),
            "faulty_rows": faulty_rows(&prepared.plan.corpus),
            "notes": notes(&prepared.plan.corpus),
            "shards": prepared.plan.shards,
            "selected": { "from": range.start, "to": range.end },
            "shards_committed": done,
            "samples": shards.iter().map(|s| s.samples).sum::<usize>(),
            "tokens": tokens,
            "estimate": estimate,
            "download": download,
            "gpu": show::gpu_json(prepared.gpu.as_ref(), Some(tokens)),
        }))?;
        return Ok(0);
    }
    for line in show::left_out(&prepared.plan.corpus) {
        progress.line(&line);
    }
    output::print(&show::settings(&prepared.settings))?;
    output::print(&show::plan(&prepared, shards, done, &estimate))?;
    Ok(0)
}
