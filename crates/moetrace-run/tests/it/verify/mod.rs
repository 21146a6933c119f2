//! What `verify` finds in runs that were damaged, and that it finds nothing in sound ones.

mod bytes;
mod hidden;
mod silent;
mod values;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch};
use arrow::datatypes::{Field, Schema};
use moetrace_run::{ContentSettings, Fault, FaultKind, Plan, RunFolder, ShardRange, Verification, verify};
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use crate::support::{Call, content, plan};

/// A run to be damaged.
struct Run {
    _dir: tempfile::TempDir,
    plan: Plan,
    folder: RunFolder,
}

impl Run {
    fn new() -> Self {
        Self::with(content(), None)
    }

    fn with(content: ContentSettings, range: Option<ShardRange>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let plan = plan(dir.path(), content);
        let out = dir.path().join("run");
        Call { range, ..Call::default() }.collect(&out, &plan).unwrap();
        Self { _dir: dir, plan, folder: RunFolder::new(out) }
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.root().join(name)
    }

    /// A shard's file below the run folder.
    fn name(&self, kind: &str, shard: usize) -> PathBuf {
        Path::new(kind).join(format!("{}.parquet", self.plan.shards[shard].name))
    }

    fn verify(&self) -> Verification {
        verify(&self.folder).unwrap()
    }

    /// The only fault that is found.
    fn fault(&self) -> Fault {
        let faults = self.verify().faults;
        let [fault] = faults.as_slice() else { unreachable!("expected one kind of fault: {faults:#?}") };
        fault.clone()
    }

    /// The fault of one kind among those that are found.
    fn fault_of(&self, kind: FaultKind) -> Fault {
        let faults = self.verify().faults;
        let found = faults.iter().find(|fault| fault.kind == kind).cloned();
        found.unwrap_or_else(|| unreachable!("no {kind} among {faults:#?}"))
    }

    /// Writes a table of a shard anew, its columns changed, and has the commit record name what was written.
    fn rewrite(&self, kind: &str, shard: usize, change: impl Fn(&str, &ArrayRef) -> Option<ArrayRef>) {
        rewrite(&self.path(self.name(kind, shard)), |_| true, change);
        self.recommit(kind, shard);
    }

    /// Writes size and hash of a file into the record that names it.
    fn recommit(&self, kind: &str, shard: usize) {
        let bytes = std::fs::read(self.path(self.name(kind, shard))).unwrap();
        self.edit_record(shard, |record| {
            let files = record["files"].as_array_mut().unwrap();
            let file = files.iter_mut().find(|file| file["folder"] == kind).unwrap();
            file["bytes"] = bytes.len().into();
            file["blake3"] = blake3::hash(&bytes).to_hex().to_string().into();
        });
    }

    fn edit_record(&self, shard: usize, change: impl FnOnce(&mut Value)) {
        edit(&self.folder.commit_path(&self.plan.shards[shard].name), change);
    }
}

/// Changes a JSON file.
fn edit(path: &Path, change: impl FnOnce(&mut Value)) {
    let mut value: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    change(&mut value);
    std::fs::write(path, value.to_string()).unwrap();
}

/// Writes a table anew with those columns that `keep` names, some of them changed, as another tool would.
fn rewrite(path: &Path, keep: impl Fn(&str) -> bool, change: impl Fn(&str, &ArrayRef) -> Option<ArrayRef>) {
    let builder = ParquetRecordBatchReaderBuilder::try_new(std::fs::File::open(path).unwrap()).unwrap();
    // The batches of a reader leave the schema's metadata out.
    let schema = builder.schema().clone();
    let rows = builder.metadata().file_metadata().num_rows() as usize;
    let batch = builder.with_batch_size(rows).build().unwrap().next().unwrap().unwrap();
    let kept = schema.fields().iter().zip(batch.columns()).filter(|(field, _)| keep(field.name()));
    let (fields, columns): (Vec<Field>, Vec<ArrayRef>) = kept
        .map(|(field, column)| {
            let column = change(field.name(), column).unwrap_or_else(|| Arc::clone(column));
            (Field::new(field.name(), column.data_type().clone(), true), column)
        })
        .unzip();
    let schema = Arc::new(Schema::new_with_metadata(fields, schema.metadata().clone()));
    let batch = RecordBatch::try_new(Arc::clone(&schema), columns).unwrap();
    let mut writer = ArrowWriter::try_new(std::fs::File::create(path).unwrap(), schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

#[test]
fn a_sound_run_has_no_fault_and_everything_in_it_is_read() {
    let run = Run::new();
    let found = run.verify();
    assert_eq!(found.faults, []);
    let shards = run.plan.shards.len();
    assert_eq!((found.shards, found.committed, found.files), (shards, shards, 3 * shards));
    assert_eq!((found.rows, found.samples), (run.plan.tokens(), run.plan.samples() as u64));
    let on_disk =
        |kind: &str| (0..shards).map(|i| run.path(run.name(kind, i)).metadata().unwrap().len()).sum::<u64>();
    assert_eq!(found.bytes, on_disk("data") + on_disk("samples") + on_disk("hidden"));
}

#[test]
fn a_run_that_is_not_finished_is_no_fault() {
    let run = Run::with(content(), Some(ShardRange { from: 1, to: 3 }));
    let found = run.verify();
    assert_eq!((found.committed, &found.faults[..]), (2, &[][..]));
    assert!(found.shards > 2);
}

#[test]
fn a_folder_without_a_manifest_and_a_manifest_that_contradicts_itself_are_errors() {
    let run = Run::new();
    edit(&run.folder.manifest_path(), |manifest| manifest["plan_hash"] = "0".into());
    let error = verify(&run.folder).unwrap_err().to_string();
    assert!(
        error.contains("manifest.json is damaged: its plan_hash is not the hash of its identity"),
        "{error}"
    );
    std::fs::remove_file(run.folder.manifest_path()).unwrap();
    assert!(verify(&run.folder).unwrap_err().to_string().contains("is no run folder"));
}
