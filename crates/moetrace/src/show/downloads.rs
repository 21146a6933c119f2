//! What would be downloaded.

use super::{bytes, table, word};
use crate::hub::Downloads;

/// A line for each file, and one for all.
pub(crate) fn downloads(downloads: &Downloads) -> String {
    let hub = &downloads.hub;
    let mut table = table(&["repository", "commit", "file", "size", "in the cache"]);
    for part in &downloads.parts {
        for file in &part.files {
            let is_here = if hub.has(&part.snapshot, file) { "yes" } else { "no" };
            let commit = part.snapshot.commit.as_str()[..12].to_owned();
            let repo = word(&part.snapshot.subject.address.to_string());
            table.add_row([repo, commit, word(&file.path), bytes(file.bytes), is_here.to_owned()]);
        }
    }
    let free = hub.free_bytes().map_or_else(String::new, |free| format!("; {} are free there", bytes(free)));
    let cache = word(&hub.settings().cache.display().to_string());
    format!("{table}\n\nto download   {} into {cache}{free}\n", bytes(downloads.missing()))
}
