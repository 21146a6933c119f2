//! Names of classes: the `datasets` library writes labels as numbers, and what they stand for into the file's metadata.

use std::borrow::Cow;
use std::collections::HashMap;

use serde_json::Value;

use super::columns::LABEL_BYTES;

/// Where the library keeps the features of a table, in Parquet and in Arrow files.
const KEY: &str = "huggingface";

/// The names of a label column's classes by number; empty if the file has none.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct ClassNames(Vec<String>);

impl ClassNames {
    /// Those that the metadata of a schema gives to column `label`. What is not as the library writes it is none.
    pub(crate) fn of(metadata: &HashMap<String, String>, label: Option<&str>) -> Self {
        let names = || {
            let features: Value = serde_json::from_str(metadata.get(KEY)?).ok()?;
            let names = features.pointer("/info/features")?.get(label?)?.get("names")?.as_array()?;
            names.iter().map(|name| name.as_str().map(str::to_owned)).collect::<Option<Vec<_>>>()
        };
        Self(names().unwrap_or_default())
    }

    /// The name that `label` is the number of, else the label itself: -1 stands for none in unlabelled splits.
    pub(crate) fn name<'a>(&'a self, label: Cow<'a, str>) -> Cow<'a, str> {
        let name = label.parse().ok().and_then(|number: usize| self.0.get(number));
        match name.filter(|name| !name.is_empty() && name.len() <= LABEL_BYTES) {
            Some(name) => Cow::Borrowed(name),
            None => label,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(features: &str) -> ClassNames {
        let metadata = HashMap::from([(KEY.to_owned(), features.to_owned())]);
        ClassNames::of(&metadata, Some("label"))
    }

    #[test]
    fn numbers_become_names_and_what_has_none_stays() {
        let classes =
            of(r#"{"info": {"features": {"label": {"names": ["neg", "pos", ""], "_type": "ClassLabel"}}}}"#);
        let named = ["0", "1", "2", "3", "-1", "pos"].map(|label| classes.name(label.into()).into_owned());
        assert_eq!(named, ["neg", "pos", "2", "3", "-1", "pos"]);
    }

    #[test]
    fn metadata_of_another_make_names_nothing() {
        for features in [
            "",
            "[]",
            "{\"info\": {\"features\": {\"label\": {\"dtype\": \"int64\"}}}}",
            "{\"info\": {\"features\": {\"label\": {\"names\": [1]}}}}",
            "{\"info\": {\"features\": {\"other\": {\"names\": [\"a\"]}}}}",
        ] {
            assert_eq!(of(features), ClassNames::default(), "{features}");
        }
        assert_eq!(ClassNames::of(&HashMap::new(), None), ClassNames::default());
    }
}
