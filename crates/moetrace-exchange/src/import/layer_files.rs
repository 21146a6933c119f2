//! Files of which each holds one layer, by the number in its name.

use std::path::{Path, PathBuf};

use crate::ExchangeError;
use crate::error::OnPath;

/// The files `PREFIX` number `SUFFIX` in a folder, ascending by number.
///
/// # Errors
/// [`ExchangeError::File`] for a file of such a name whose number is none, and for two of one number: a layer is not to
/// be lost in silence.
pub(super) fn layer_files(
    folder: &Path,
    prefix: &str,
    suffix: &str,
) -> Result<Vec<(u16, PathBuf)>, ExchangeError> {
    let mut layers = Vec::new();
    for entry in std::fs::read_dir(folder).on("cannot read", folder)? {
        let path = entry.on("cannot read", folder)?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let number = name.strip_prefix(prefix).and_then(|rest| rest.strip_suffix(suffix));
        let Some(number) = number else { continue };
        let Ok(number) = number.parse::<u16>() else {
            let what = format!("{number:?} is no number of a layer, expected 0 to {}", u16::MAX);
            return Err(ExchangeError::file(&path, what));
        };
        layers.push((number, path));
    }
    layers.sort();
    if let Some([(number, first), (_, second)]) = layers.array_windows().find(|[a, b]| a.0 == b.0) {
        let what = format!("it is of layer {number}, and so is {}", first.display());
        return Err(ExchangeError::file(second, what));
    }
    Ok(layers)
}
