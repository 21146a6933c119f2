//! The model and the texts that a run is given: local ones, those that come with moetrace, and those of the Hub.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use moetrace_corpus::{CorpusSettings, ListedFile, SourceSpec, files_needed};
use moetrace_hub::{
    DatasetAddress, Hub, HubError, RepoFile, Revision, Snapshot, model_files, parquet_of, weight_files,
};
use moetrace_model::ModelConfig;
use moetrace_run::{HubFacts, RunFolder};

use crate::args::CollectArgs;
use crate::embedded::{Embedded, MODEL_NAME};
use crate::failure::{Failure, code};
use crate::hub::{self, DatasetName, Download, Downloads, ModelName};
use crate::prepare::{Settings, cache, open_tokenizer};
use crate::progress::Progress;

/// Where model and texts are, or will be once [`Inputs::fetch`] has been called.
pub(crate) struct Inputs {
    /// What the model is called: a folder's name, or `OWNER/NAME`.
    pub(crate) name: String,
    /// The checkpoint's folder.
    pub(crate) model: PathBuf,
    /// Where the model is on the Hub.
    pub(crate) model_hub: Option<HubFacts>,
    /// The texts.
    pub(crate) sources: Vec<SourceSpec>,
    /// Where data sets are on the Hub, by their names in the run.
    pub(crate) origins: BTreeMap<String, HubFacts>,
    /// What is needed of the Hub, if anything is.
    pub(crate) downloads: Option<Downloads>,
}

impl Inputs {
    /// Finds out what is meant. Of the Hub only lists and small files of the model are fetched, and looked at together
    /// with what is here: what cannot run is refused before weights are downloaded.
    pub(crate) fn find(
        args: &CollectArgs,
        settings: &mut Settings,
        progress: &mut Progress,
    ) -> Result<Self, Failure> {
        Self::find_by(None, args, settings, progress)
    }

    /// The same by this client, if any.
    pub(crate) fn find_by(
        client: Option<Hub>,
        args: &CollectArgs,
        settings: &mut Settings,
        progress: &mut Progress,
    ) -> Result<Self, Failure> {
        let client = client.map(Rc::new);
        let mut finder = Finder { offline: args.offline, client, parts: Vec::new(), progress };
        let named = datasets(args)?;
        let (name, model, model_hub) = finder.model(args.model.as_deref(), settings)?;
        let (sources, origins) = finder.texts(args, &named, settings)?;
        let parts = finder.parts;
        let downloads = finder.client.filter(|_| !parts.is_empty()).map(|hub| Downloads { hub, parts });
        downloads.as_ref().map_or(Ok(()), |downloads| downloads.link(finder.progress))?;
        Ok(Self { name, model, model_hub, sources, origins, downloads })
    }

    /// Brings everything here that is not, if the run has a place: the texts first, which are looked at
    /// before the weights come.
    pub(crate) fn fetch(&self, args: &CollectArgs, progress: &mut Progress) -> Result<(), Failure> {
        if self.missing().is_some() {
            let out = args.out.clone().unwrap_or_else(|| Path::new("runs").join(self.short_name()));
            if !args.fresh {
                RunFolder::new(out).check_own()?;
            }
        }
        let Some(downloads) = &self.downloads else { return Ok(()) };
        downloads.fetch(progress, &|| self.check_texts(args))
    }

    /// Refuses texts without the column that is asked for, and texts that a model without a tokenizer cannot take: for
    /// such a model they are read twice, so that its weights are not downloaded for nothing.
    fn check_texts(&self, args: &CollectArgs) -> Result<(), Failure> {
        self.sources.iter().try_for_each(SourceSpec::check_column)?;
        if self.missing_weights().is_some() && open_tokenizer(&self.model)?.is_none() {
            moetrace_corpus::plan(&self.sources, None, &corpus_settings(args), &mut |_| {})?;
        }
        Ok(())
    }

    /// What would have to be downloaded, if anything.
    pub(crate) fn missing(&self) -> Option<&Downloads> {
        self.downloads.as_ref().filter(|downloads| downloads.missing() > 0)
    }

    /// Bytes of the files that hold the model's weights, if the cache lacks any of them.
    pub(crate) fn missing_weights(&self) -> Option<u64> {
        let model = self.downloads.as_ref().filter(|_| self.model_hub.is_some());
        model.and_then(|downloads| downloads.missing_weights(downloads.parts.first()?))
    }

    /// The run folder's name where none is asked for: that of the model without its owner.
    pub(crate) fn short_name(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }
}

/// The folder of a model that is here or on the Hub, everything in it fetched.
pub(crate) fn model_folder(given: &Path, offline: bool, progress: &mut Progress) -> Result<PathBuf, Failure> {
    let mut finder = Finder { offline, client: None, parts: Vec::new(), progress };
    let (_, folder, _) = finder.model(Some(given), &mut Settings(Vec::new()))?;
    if let Some(hub) = finder.client {
        Downloads { hub, parts: finder.parts }.fetch(progress, &|| Ok(()))?;
    }
    Ok(folder)
}

/// What settles the inputs, and the client once it is needed.
struct Finder<'a> {
    offline: bool,
    client: Option<Rc<Hub>>,
    parts: Vec<Download>,
    progress: &'a mut Progress,
}

impl Finder<'_> {
    fn hub(&mut self) -> Result<Rc<Hub>, Failure> {
        let hub = match self.client.take() {
            Some(hub) => hub,
            None => Rc::new(hub::client(self.offline)?),
        };
        Ok(Rc::clone(self.client.insert(hub)))
    }

    fn model(
        &mut self,
        given: Option<&Path>,
        settings: &mut Settings,
    ) -> Result<(String, PathBuf, Option<HubFacts>), Failure> {
        let Some(given) = given else {
            settings.resolve("model", format!("{MODEL_NAME}, which comes with moetrace"));
            return Ok((MODEL_NAME.to_owned(), Embedded::unpack(&cache()?)?.model(), None));
        };
        let address = match hub::model_named(given)? {
            ModelName::OnHub(address) => address,
            ModelName::Here(dir, on_hub) => {
                if let Some(address) =
                    on_hub.filter(|a| hub::client(true).is_ok_and(|hub| hub.snapshot(a).is_ok()))
                {
                    self.progress.line(&format!(
                        "{}: the folder here is used; the model of that name on the Hub is hf://{}",
                        dir.display(),
                        address.id
                    ));
                }
                return Ok((model_name(&dir), dir, None));
            }
        };
        let snapshot = self.hub()?.snapshot(&address)?;
        settings.resolve("model", format!("{address}, commit {}", snapshot.commit));
        let part = self.model_part(snapshot)?;
        let (name, folder) = (address.id.to_string(), part.snapshot.folder.clone());
        let facts = part.facts(&part.snapshot.licences);
        self.parts.push(part);
        Ok((name, folder, Some(facts)))
    }

    /// The files of a model; small ones are fetched and looked at.
    fn model_part(&mut self, snapshot: Snapshot) -> Result<Download, Failure> {
        let files = model_files(&snapshot)?;
        let small: Vec<RepoFile> = files.small.into_iter().cloned().collect();
        let has_index = files.index.map(|file| file.path.clone());
        let part = Download { snapshot, files: small };
        let hub = self.hub()?;
        part.fetch(&hub, self.progress)?;
        ModelConfig::read(&part.snapshot.folder)?;
        let index = has_index.map(|name| part.snapshot.folder.join(name));
        let index = index.map(|path| read(&path)).transpose()?;
        let weights = weight_files(&part.snapshot, index.as_deref())?;
        if hub.missing_bytes(&part.snapshot, &weights) > 0 {
            open_tokenizer(&part.snapshot.folder)?;
        }
        let files = part.files.iter().chain(weights).cloned().collect();
        Ok(Download { files, ..part })
    }

    fn texts(
        &mut self,
        args: &CollectArgs,
        named: &[DatasetName],
        settings: &mut Settings,
    ) -> Result<(Vec<SourceSpec>, BTreeMap<String, HubFacts>), Failure> {
        if named.is_empty() {
            settings.resolve("dataset", "the six that come with moetrace");
            let given = Embedded::unpack(&cache()?)?.datasets();
            let sources = given.iter().map(|given| SourceSpec::parse(given)).collect::<Result<_, _>>()?;
            return Ok((sources, BTreeMap::new()));
        }
        let corpus = corpus_settings(args);
        let (mut sources, mut origins) = (Vec::new(), BTreeMap::new());
        for (i, dataset) in named.iter().enumerate() {
            match dataset {
                DatasetName::Here(source) => sources.push(source.clone()),
                DatasetName::OnHub { name, address, licence } => {
                    let quota = corpus.quota(i, named.len());
                    let (source, facts) = self.dataset(name, address, *licence, (&corpus, quota))?;
                    sources.push(source);
                    origins.insert(name.clone(), facts);
                }
            }
        }
        Ok((sources, origins))
    }

    /// The Parquet files of a data set: those in the repository, else those of the Hub's own conversion.
    fn dataset(
        &mut self,
        name: &str,
        address: &DatasetAddress,
        licence: Option<&str>,
        (corpus, quota): (&CorpusSettings, usize),
    ) -> Result<(SourceSpec, HubFacts), Failure> {
        let hub = self.hub()?;
        let (snapshot, licences) = snapshot_of(hub.as_ref(), address)?;
        let parquet = parquet_of(&snapshot, address.config.as_deref(), address.split.as_deref())?;
        if parquet.is_partial {
            self.progress.line(&format!("{name}: the Hub converted only the first part of this data set"));
        }
        let sizes: Vec<(&str, u64)> = parquet.files.iter().map(|f| (f.path.as_str(), f.bytes)).collect();
        let rows_of = |i: usize| hub::rows_of(hub.as_ref(), &snapshot, parquet.files[i]);
        let needed = files_needed(&sizes, name, corpus, quota, rows_of)?;
        let listed = parquet.files.iter().zip(&needed).map(|(file, &read)| ListedFile {
            path: file.path.clone(),
            bytes: file.bytes,
            read,
        });
        let source = SourceSpec {
            name: name.to_owned(),
            path: snapshot.folder.clone(),
            column: address.column.clone(),
            listed: listed.collect(),
        };
        let files = parquet.files.iter().zip(&needed).filter(|(_, needed)| **needed);
        let files = files.map(|(&file, _)| file.clone()).collect();
        let known: Vec<String> = licence.map(str::to_owned).into_iter().collect();
        let part = Download { snapshot: snapshot.clone(), files };
        let facts = part.facts(if licences.is_empty() { &known } else { &licences });
        self.parts.push(part);
        Ok((source, facts))
    }
}

/// What the arguments say of texts; what the model adds comes once it is here.
pub(crate) fn corpus_settings(args: &CollectArgs) -> CorpusSettings {
    CorpusSettings {
        traces: args.traces,
        min_chars: args.min_chars,
        seed: args.seed,
        strict: args.strict,
        file_budget: args.file_budget,
        ..CorpusSettings::default()
    }
}

/// What the arguments name, names and paths checked; nothing is asked of the Hub.
fn datasets(args: &CollectArgs) -> Result<Vec<DatasetName>, Failure> {
    let named = args.dataset.iter().map(|given| hub::datasets_named(given));
    let named: Vec<DatasetName> = named.collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    SourceSpec::check_names(named.iter().map(DatasetName::name))?;
    for dataset in &named {
        if let DatasetName::Here(source) = dataset {
            source.check_path()?;
        }
    }
    Ok(named)
}

/// The repository at its revision, or the branch with the Hub's own conversion if only that has the files; and the
/// licences on the repository's card.
fn snapshot_of(hub: &Hub, address: &DatasetAddress) -> Result<(Snapshot, Vec<String>), HubError> {
    let found = |snapshot: &Snapshot| {
        parquet_of(snapshot, address.config.as_deref(), address.split.as_deref()).map(drop)
    };
    let main = hub.snapshot(&address.repo);
    let licences = main.as_ref().map(|snapshot| snapshot.licences.clone()).unwrap_or_default();
    let is_elsewhere = match &main {
        // Files whose names say nothing, as Spark and FineWeb have them, look like splits of one file each.
        Ok(snapshot) => matches!(
            found(snapshot),
            Err(HubError::NoParquet { .. }
                | HubError::NoConfig { .. }
                | HubError::WhichConfig { .. }
                | HubError::NoSplit { .. }
                | HubError::Offline { .. })
        ),
        // A cache may hold the conversion alone.
        Err(error) => matches!(error, HubError::Offline { .. }),
    };
    if is_elsewhere && address.repo.revision == Revision::main() {
        let converted = hub.snapshot(&address.repo.at(Revision::parquet())).ok();
        if let Some(converted) = converted.filter(|snapshot| found(snapshot).is_ok()) {
            return Ok((converted, licences));
        }
    }
    Ok((main?, licences))
}

/// The last part of the folder's name: where a model lies on this machine is nobody's business.
fn model_name(dir: &Path) -> String {
    let full = std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned());
    full.file_name().map_or_else(|| "model".into(), |name| name.to_string_lossy().into_owned())
}

fn read(path: &Path) -> Result<String, Failure> {
    std::fs::read_to_string(path).map_err(|error| {
        let what = format!("cannot read {}: {error}", path.display());
        Failure::new(code::IO, "E-MODEL", what, "check the file and its permissions")
    })
}
