//! What `--model` and `--dataset` mean: something here, or something on the Hub.

use std::path::{Path, PathBuf};

use moetrace_corpus::SourceSpec;
use moetrace_hub::{DatasetAddress, GUIDE, Preset, RepoAddress, RepoId};

use crate::failure::Failure;

/// Before a name on the Hub, where a folder of that name is here too.
const SCHEME: &str = "hf://";

/// What `--model` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum ModelName {
    /// A folder; and the name that the same text has on the Hub, if it can be one.
    Here(PathBuf, Option<RepoAddress>),
    /// A model on the Hub.
    OnHub(RepoAddress),
}

/// A folder that exists, else `OWNER/NAME[@REVISION]`. What can be neither is taken for a folder, which is then missed.
pub(crate) fn model_named(given: &Path) -> Result<ModelName, Failure> {
    let text = given.to_str().unwrap_or_default();
    if let Some(name) = text.strip_prefix(SCHEME) {
        return Ok(ModelName::OnHub(RepoAddress::model(name)?));
    }
    let address = RepoAddress::model(text);
    if given.exists() {
        return Ok(ModelName::Here(given.to_owned(), address.ok()));
    }
    match address {
        Ok(address) => Ok(ModelName::OnHub(address)),
        // Behind a name of the Hub an @ can only be meant to begin a revision.
        Err(error) if text.split_once('@').is_some_and(|(id, _)| RepoId::parse(id).is_ok()) => {
            Err(error.into())
        }
        Err(_) => Ok(ModelName::Here(given.to_owned(), None)),
    }
}

/// What one data set is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum DatasetName {
    /// A file or folder.
    Here(SourceSpec),
    /// A data set on the Hub under a name in the run, and the licence that its preset knows.
    OnHub { name: String, address: DatasetAddress, licence: Option<&'static str> },
}

impl DatasetName {
    /// What the run calls it.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Here(source) => &source.name,
            Self::OnHub { name, .. } => name,
        }
    }
}

/// All data sets that one `--dataset` names: six for `guide`, else one. A path that exists wins over a preset.
pub(crate) fn datasets_named(given: &str) -> Result<Vec<DatasetName>, Failure> {
    if given == "guide" && !Path::new(given).exists() {
        return GUIDE.iter().map(|preset| of_preset(preset.name, preset)).collect();
    }
    let (name, what) = match given.split_once('=') {
        Some((name, what)) if !Path::new(given).exists() => (Some(name), what),
        _ => (None, given),
    };
    if let Some(preset) = Preset::named(what).filter(|_| !Path::new(what).exists()) {
        return Ok(vec![of_preset(name.unwrap_or(preset.name), preset)?]);
    }
    if !DatasetAddress::is_meant(what) {
        return Ok(vec![DatasetName::Here(SourceSpec::parse(given)?)]);
    }
    let address = DatasetAddress::parse(what)?;
    // Names of repositories are names of data sets, an underscore in front aside.
    let own = address.repo.id.name().trim_start_matches('_').to_owned();
    let name = name.map_or(own, str::to_owned);
    let is_preset = |preset: &&Preset| preset.address().is_some_and(|known| known.repo.id == address.repo.id);
    let licence = moetrace_hub::PRESETS.iter().find(is_preset).map(|preset| preset.licence);
    Ok(vec![DatasetName::OnHub { name, address, licence }])
}

fn of_preset(name: &str, preset: &Preset) -> Result<DatasetName, Failure> {
    let column = preset.column;
    let text = format!("hf://datasets/{}/{}/{}/train:{column}", preset.owner, preset.repo, preset.config);
    let address = DatasetAddress::parse(&text)?;
    Ok(DatasetName::OnHub { name: name.to_owned(), address, licence: Some(preset.licence) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_wins_and_what_can_be_no_name_is_a_folder() {
        let on_hub = |text: &str| matches!(model_named(Path::new(text)), Ok(ModelName::OnHub(_)));
        for text in ["allenai/OLMoE-1B-7B-0125", "a/b@v1", "hf://a/b@refs/pr/1"] {
            assert!(on_hub(text), "{text}");
        }
        for text in ["/a/b", "./a/b", "../b", "model", "a/b/c", "a b/c", "~/model", ""] {
            assert!(matches!(model_named(Path::new(text)), Ok(ModelName::Here(_, None))), "{text}");
        }
        for text in ["a/b@..", "a/b@../c", "hf://a", "hf://a/b c"] {
            assert!(model_named(Path::new(text)).is_err(), "{text}");
        }
        let here = Path::new(env!("CARGO_MANIFEST_DIR"));
        assert!(matches!(model_named(here), Ok(ModelName::Here(_, None))));
        // `cargo test` runs in the package's folder.
        assert!(matches!(model_named(Path::new("src/hub")), Ok(ModelName::Here(_, Some(_)))));
    }

    #[test]
    fn presets_addresses_and_paths_are_told_apart() {
        let name = |text: &str| match datasets_named(text).unwrap().remove(0) {
            DatasetName::Here(spec) => format!("{} at {}", spec.name, spec.path.display()),
            DatasetName::OnHub { name, address, licence } => {
                let column = address.column.unwrap_or_default();
                format!("{name} on {}:{column} {}", address.repo, licence.unwrap_or("-"))
            }
        };
        assert_eq!(name("squad"), "squad on rajpurkar/squad@main:context cc-by-4.0");
        assert_eq!(name("a=squad"), "a on rajpurkar/squad@main:context cc-by-4.0");
        assert_eq!(name("hf://datasets/o/n@v1/c:x"), "n on o/n@v1:x -");
        assert_eq!(name("m=hf://datasets/rajpurkar/squad"), "m on rajpurkar/squad@main: cc-by-4.0");
        assert_eq!(name("a=b/c.jsonl"), "a at b/c.jsonl");
        assert_eq!(name("squad.jsonl"), "squad at squad.jsonl");
        assert_eq!(datasets_named("guide").unwrap().len(), 6);
        for text in ["hf://o/n", "x=hf://datasets/o", "hf://datasets/o/n/a/b/c"] {
            assert!(datasets_named(text).is_err(), "{text}");
        }
    }
}
