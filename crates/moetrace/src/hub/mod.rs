//! Models and data sets by their names on the Hugging Face Hub: which are meant, what has to be downloaded, and how
//! that is shown.

mod download;
mod environment;
mod names;
mod rows;

pub(crate) use self::download::{Download, Downloads};
pub(crate) use self::environment::{cache_folder, client, hasty_client};
pub(crate) use self::names::{DatasetName, ModelName, datasets_named, model_named};
pub(crate) use self::rows::rows_of;
