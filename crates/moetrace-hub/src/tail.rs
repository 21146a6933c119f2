//! The end of a file without the rest of it: where Parquet keeps what its rows are.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::Path;

use crate::download::is_rest;
use crate::http::Rest;
use crate::{Hub, HubError, RepoFile, Snapshot};

impl Hub {
    /// The last `bytes` bytes of a file, all of it if it has fewer: out of the cache, else by a request for that range.
    /// They are not checked and not kept; whoever needs the file fetches it.
    ///
    /// # Errors
    /// [`HubError::NoRange`] where the server sends another part, or all; [`HubError::Offline`] if the cache lacks the
    /// file; those of [`fetch`](Self::fetch) but for disks and hashes.
    pub fn tail(&self, snapshot: &Snapshot, file: &RepoFile, bytes: u64) -> Result<Vec<u8>, HubError> {
        let from = file.bytes.saturating_sub(bytes);
        let cache = self.cache(&snapshot.subject.address);
        if let Some(path) = cache.found(&snapshot.commit, file) {
            return read_from(&path, from).map_err(HubError::io("read", &path));
        }
        if self.settings().offline {
            return Err(self.missing(snapshot.subject.clone(), file.path.clone()));
        }
        let download = self.download(snapshot, &cache);
        let url = download.url(file);
        let (status, headers, body) =
            download.http.bytes(&url, Some(Rest { from, validator: None }), file.bytes - from)?;
        match status.as_u16() {
            206 => {
                let is_it = is_rest(&headers, from, file).is_ok() && body.len() as u64 == file.bytes - from;
                if is_it { Ok(body) } else { Err(HubError::NoRange { file: file.path.clone(), from }) }
            }
            200 | 416 => Err(HubError::NoRange { file: file.path.clone(), from }),
            _ => {
                let text = download.http.without_secrets(&String::from_utf8_lossy(&body));
                Err(download.refused(&url, file, (status, &headers, &text)))
            }
        }
    }
}

fn read_from(path: &Path, from: u64) -> std::io::Result<Vec<u8>> {
    let (mut file, mut bytes) = (File::open(path)?, Vec::new());
    file.seek(SeekFrom::Start(from))?;
    file.read_to_end(&mut bytes)?;
    Ok(bytes)
}
