//! Runs, written in layouts that other tools read.
//!
//! A run is read shard by shard and text by text; what is written lies in `OUT.part` until all of it is there, and is
//! then given its name.

mod flame;
mod jsonl;
mod long;
mod sglang;
mod table;

use std::path::{Path, PathBuf};

use moetrace_routing::{ExpertId, Planes, TokenBatch};
use moetrace_run::{Manifest, RunFolder, Shard};
use moetrace_trace::{RecordedPass, SampleRow, ShardReader};

use crate::ExchangeError;
use crate::error::OnPath;

/// How the files are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ExportLayout {
    /// Parquet with a row for each token and layer, a file for each data set.
    Long,
    /// JSON lines with an object for each text, a file for each data set.
    Jsonl,
    /// JSON lines with what `SGLang` returns as `routed_experts` of a request, a file for each data set.
    Sglang,
    /// FLAME-MoE-Traces: a Parquet file for each layer, and one of token ids.
    Flame,
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Shards of the run, and those of them that are committed and were written.
    pub shards: usize,
    /// Shards written.
    pub written: usize,
    /// Texts written.
    pub samples: u64,
    /// Tokens written.
    pub tokens: u64,
    /// Files written.
    pub files: usize,
    /// Their bytes.
    pub bytes: u64,
}

/// One layer of a text.
struct Layer {
    /// The model's own number.
    number: u16,
    /// `[N, K]`.
    experts: Vec<ExpertId>,
    /// `[N, K]`, `[N]`, `[N]`, where they are recorded.
    weights: Option<Vec<f32>>,
    margins: Option<Vec<f32>>,
    gate_entropy: Option<Vec<f32>>,
}

/// One text of a run, all of its layers.
struct Text<'a> {
    dataset: &'a str,
    sample: &'a SampleRow,
    batch: &'a TokenBatch,
    has_tokens: bool,
    chosen: usize,
    layers: &'a [Layer],
}

impl Text<'_> {
    /// Vocabulary ids, where they are recorded.
    fn token_ids(&self) -> Option<impl Iterator<Item = u32>> {
        self.has_tokens.then(|| self.batch.token_ids().iter().map(|id| id.0))
    }
}

/// A layout in the making.
trait Writer {
    /// Takes a text; texts of a data set follow each other.
    fn text(&mut self, text: &Text<'_>) -> Result<(), ExchangeError>;

    /// Ends every file and makes it durable.
    fn finish(self: Box<Self>) -> Result<(), ExchangeError>;
}

/// Writes the committed shards of a run into the new folder `out`. Every file of the run is hashed before it is read.
///
/// # Errors
/// [`ExchangeError::InsideRun`] if `out` is in the run's folder, [`ExchangeError::Exists`] if `out` or `out.part` is
/// there, [`ExchangeError::Empty`] if no shard is committed, [`ExchangeError::File`] if the layout cannot hold the run,
/// [`ExchangeError::Run`] for what is wrong with the run, [`ExchangeError::Io`]. No file is left behind.
pub fn export(folder: &RunFolder, layout: ExportLayout, out: &Path) -> Result<Exported, ExchangeError> {
    let manifest = folder.manifest()?;
    let mut part = out.file_name().unwrap_or_default().to_owned();
    part.push(".part");
    let part = out.with_file_name(part);
    for path in [out, &part] {
        if path.symlink_metadata().is_ok() {
            return Err(ExchangeError::Exists { path: path.to_owned() });
        }
    }
    refuse_inside(folder, out)?;
    if let Some(above) = part.parent() {
        std::fs::create_dir_all(above).on("cannot create", above)?;
    }
    std::fs::create_dir(&part).on("cannot create", &part)?;
    let written = write(folder, &manifest, layout, &part).and_then(|exported| {
        std::fs::rename(&part, out).on("cannot create", out)?;
        Ok(exported)
    });
    if written.is_err() {
        // The error that is there already is the one to tell.
        let _ = std::fs::remove_dir_all(&part);
    }
    written
}

/// A run's folder is the run's: what else lies there would be taken for a part of it, or for damage.
fn refuse_inside(folder: &RunFolder, out: &Path) -> Result<(), ExchangeError> {
    let (Ok(out_at), Ok(run)) = (std::path::absolute(out), folder.root().canonicalize()) else {
        return Ok(());
    };
    // Of folders that are going to be made, the nearest that is there says where they are.
    let Some(parent) = out_at.ancestors().skip(1).find_map(|above| above.canonicalize().ok()) else {
        return Ok(());
    };
    if parent.starts_with(&run) {
        let (path, run) = (out.to_owned(), folder.root().to_owned());
        return Err(ExchangeError::InsideRun { path, run });
    }
    Ok(())
}

fn write(
    folder: &RunFolder,
    manifest: &Manifest,
    layout: ExportLayout,
    part: &Path,
) -> Result<Exported, ExchangeError> {
    let root = part.to_owned();
    let mut writer: Box<dyn Writer> = match layout {
        ExportLayout::Long => Box::new(long::Long::new(root, manifest)),
        ExportLayout::Jsonl => Box::new(jsonl::Jsonl::new(root)),
        ExportLayout::Sglang => Box::new(sglang::Sglang::new(root)),
        ExportLayout::Flame => Box::new(flame::Flame::new(part, folder, manifest)?),
    };
    let mut exported =
        Exported { shards: manifest.shards.len(), written: 0, samples: 0, tokens: 0, files: 0, bytes: 0 };
    for shard in &manifest.shards {
        let Some(record) = folder.committed(manifest, shard)? else { continue };
        record.check_hashes(folder)?;
        write_shard(folder, manifest, shard, writer.as_mut(), &mut exported)?;
        exported.written += 1;
    }
    if exported.written == 0 {
        return Err(ExchangeError::Empty { path: folder.root().to_owned(), shards: exported.shards });
    }
    writer.finish()?;
    count(part, &mut exported)?;
    Ok(exported)
}

fn write_shard(
    folder: &RunFolder,
    manifest: &Manifest,
    shard: &Shard,
    writer: &mut dyn Writer,
    exported: &mut Exported,
) -> Result<(), ExchangeError> {
    let data = folder.shard_path("data", &shard.name);
    let trace = |error| ExchangeError::Run(moetrace_run::RunError::Trace(error));
    let reader = ShardReader::open(&data, &folder.shard_path("samples", &shard.name)).map_err(trace)?;
    let geometry = reader.geometry().clone();
    if (geometry.experts(), geometry.chosen(), geometry.layers())
        != (manifest.geometry.experts, manifest.geometry.chosen, manifest.geometry()?.layers())
    {
        return Err(ExchangeError::file(&data, "its layers or experts are not those of the manifest"));
    }
    let has_tokens = reader.columns().token_ids;
    let dataset = manifest.datasets.get(shard.dataset).map_or("", |dataset| &dataset.name);
    let mut playback = reader.playback(Planes::default()).map_err(trace)?;
    while let Some(sample) = playback.remaining().first().cloned() {
        let mut pass = playback.pass(1).map_err(trace)?;
        let layers = layers(&mut pass, &geometry).map_err(trace)?;
        let text = Text {
            dataset,
            sample: &sample,
            batch: pass.batch(),
            has_tokens,
            chosen: geometry.chosen(),
            layers: &layers,
        };
        writer.text(&text)?;
        exported.samples += 1;
        exported.tokens += pass.batch().len() as u64;
    }
    Ok(())
}

fn layers(
    pass: &mut RecordedPass<'_>,
    geometry: &moetrace_routing::RoutingGeometry,
) -> Result<Vec<Layer>, moetrace_trace::TraceError> {
    let mut layers = Vec::new();
    for ordinal in geometry.ordinals() {
        let view = pass.layer(ordinal)?;
        layers.push(Layer {
            number: view.layer().0,
            experts: view.experts().to_vec(),
            weights: view.weights().map(<[f32]>::to_vec),
            margins: view.margins().map(<[f32]>::to_vec),
            gate_entropy: view.gate_entropy().map(<[f32]>::to_vec),
        });
    }
    Ok(layers)
}

/// Files and bytes below a folder.
fn count(folder: &Path, exported: &mut Exported) -> Result<(), ExchangeError> {
    for entry in std::fs::read_dir(folder).on("cannot read", folder)? {
        let entry = entry.on("cannot read", folder)?;
        let facts = entry.metadata().on("cannot read", folder)?;
        if facts.is_dir() {
            count(&entry.path(), exported)?;
        } else {
            exported.files += 1;
            exported.bytes += facts.len();
        }
    }
    Ok(())
}

/// A data set's file.
fn dataset_file(root: &Path, dataset: &str, suffix: &str) -> PathBuf {
    root.join(format!("{dataset}.{suffix}"))
}
