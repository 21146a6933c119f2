//! One Parquet file in the making: chunks of columns in, encoded by several threads, bytes out.

use std::io::{self, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::{mem, panic, thread};

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use parquet::arrow::add_encoded_arrow_schema_to_metadata;
use parquet::arrow::arrow_writer::{
    ArrowColumnChunk, ArrowColumnWriter, ArrowRowGroupWriterFactory, compute_leaves,
};
use parquet::errors::ParquetError;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::SchemaDescriptor;

use crate::metadata::Metadata;
use crate::properties::writer_properties;

/// Some rows of a table, one array per column.
///
/// Pages end where chunks end, so a table's bytes depend on how its rows are cut into chunks, and on
/// nothing else: not on passes, not on threads.
pub(crate) struct TableChunk {
    pub(crate) columns: Vec<ArrayRef>,
    /// The row group ends behind these rows.
    pub(crate) ends_group: bool,
}

pub(crate) struct TableWriter<W: Write + Send> {
    file: SerializedFileWriter<Lent<W>>,
    factory: ArrowRowGroupWriterFactory,
    schema: SchemaRef,
    /// Writers of the open row group; empty between row groups.
    open: Vec<ArrowColumnWriter>,
    groups: usize,
    rows: u64,
    threads: usize,
}

impl<W: Write + Send> TableWriter<W> {
    pub(crate) fn new(
        schema: SchemaRef,
        metadata: &Metadata,
        sink: W,
        threads: usize,
    ) -> Result<Self, ParquetError> {
        let mut properties = writer_properties(&schema, metadata)?;
        add_encoded_arrow_schema_to_metadata(&schema, &mut properties);
        let types: SchemaDescriptor = parquet::arrow::ArrowSchemaConverter::new().convert(&schema)?;
        let file =
            SerializedFileWriter::new(Lent(Some(sink)), types.root_schema_ptr(), Arc::new(properties))?;
        let factory = ArrowRowGroupWriterFactory::new(&file, Arc::clone(&schema));
        Ok(Self { file, factory, schema, open: Vec::new(), groups: 0, rows: 0, threads })
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn write(&mut self, chunk: &TableChunk) -> Result<(), ParquetError> {
        if self.open.is_empty() {
            self.open = self.factory.create_column_writers(self.groups)?;
        }
        let work = self.open.iter_mut().zip(&chunk.columns).zip(self.schema.fields());
        in_parallel(self.threads, work, |((writer, column), field)| {
            compute_leaves(field, column)?.iter().try_for_each(|leaf| writer.write(leaf))
        })?;
        self.rows += chunk.columns.first().map_or(0, |column| column.len()) as u64;
        if chunk.ends_group { self.end_group() } else { Ok(()) }
    }

    fn end_group(&mut self) -> Result<(), ParquetError> {
        let writers = mem::take(&mut self.open);
        let mut encoded: Vec<Option<ArrowColumnChunk>> = writers.iter().map(|_| None).collect();
        in_parallel(self.threads, writers.into_iter().zip(&mut encoded), |(writer, slot)| {
            *slot = Some(writer.close()?);
            Ok(())
        })?;
        let mut group = self.file.next_row_group()?;
        for column in encoded.into_iter().flatten() {
            column.append_to_row_group(&mut group)?;
        }
        group.close()?;
        self.groups += 1;
        Ok(())
    }

    /// Writes the footer and gives the flushed sink back.
    pub(crate) fn finish(mut self) -> Result<W, ParquetError> {
        if !self.open.is_empty() {
            self.end_group()?;
        }
        // Not `into_inner`: it turns the system's error into text, and a full disk must be known as one.
        self.file.finish()?;
        self.file
            .inner_mut()
            .0
            .take()
            .ok_or_else(|| ParquetError::General("the sink was taken before".to_owned()))
    }
}

/// A sink that can be had back from the file writer once the footer is written.
struct Lent<W>(Option<W>);

impl<W: Write> Write for Lent<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.as_mut().map_or_else(|| Err(io::ErrorKind::BrokenPipe.into()), |sink| sink.write(bytes))
    }
    fn flush(&mut self) -> io::Result<()> {
        self.0.as_mut().map_or(Ok(()), Write::flush)
    }
}

/// Hands `work` out to `threads` threads, this one among them; the first error ends a thread's share.
fn in_parallel<I>(
    threads: usize,
    mut work: I,
    task: impl Fn(I::Item) -> Result<(), ParquetError> + Sync,
) -> Result<(), ParquetError>
where
    I: Iterator + Send,
    I::Item: Send,
{
    if threads <= 1 {
        return work.try_for_each(task);
    }
    let queue = Mutex::new(work);
    let share = || loop {
        let next = queue.lock().unwrap_or_else(PoisonError::into_inner).next();
        match next {
            Some(item) => task(item)?,
            None => return Ok(()),
        }
    };
    thread::scope(|scope| {
        // A machine that starts no further thread still encodes, on fewer.
        let others: Vec<_> =
            (1..threads).map_while(|_| thread::Builder::new().spawn_scoped(scope, share).ok()).collect();
        let mut result = share();
        for other in others {
            match other.join() {
                Ok(theirs) => result = result.and(theirs),
                Err(payload) => panic::resume_unwind(payload),
            }
        }
        result
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn every_item_is_worked_on_once_by_any_number_of_threads() {
        for threads in [1, 2, 5] {
            let sum = AtomicUsize::new(0);
            in_parallel(threads, 0..100usize, |n| {
                sum.fetch_add(n, Ordering::Relaxed);
                Ok(())
            })
            .unwrap();
            assert_eq!(sum.into_inner(), 4950);
        }
    }

    #[test]
    fn an_error_in_any_thread_comes_back() {
        for threads in [1, 3] {
            let result = in_parallel(threads, 0..50usize, |n| {
                if n == 31 { Err(ParquetError::General("31".to_owned())) } else { Ok(()) }
            });
            assert!(result.unwrap_err().to_string().contains("31"));
        }
    }
}
