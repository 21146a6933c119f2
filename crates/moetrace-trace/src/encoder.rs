//! The thread that encodes, so that the engine never waits for compression.

use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{Builder, JoinHandle};

use moetrace_routing::{Name, RoutingGeometry};

use crate::chunk::TokenRows;
use crate::hidden::HiddenRowsTable;
use crate::table::TableWriter;
use crate::{TraceError, WrittenShard};

/// What a pass has completed: full chunks of both tables.
pub(crate) struct PassRows {
    pub(crate) tokens: Vec<TokenRows>,
    pub(crate) hidden: Vec<HiddenRowsTable>,
}

enum Message {
    Rows(PassRows),
    Finish,
}

/// The two files of a shard.
pub(crate) struct ShardTables<W: Write + Send> {
    pub(crate) tokens: TableWriter<W>,
    pub(crate) hidden: Option<TableWriter<W>>,
    pub(crate) dataset: Name,
    pub(crate) geometry: RoutingGeometry,
}

/// Handle of the encoder thread. Dropped without [`finish`](Self::finish), it ends the thread and waits for
/// it; the files stay without a footer, so nobody takes them for whole.
pub(crate) struct Encoder<W> {
    sender: Option<SyncSender<Message>>,
    thread: Option<JoinHandle<Result<Option<WrittenShard<W>>, TraceError>>>,
    dataset: Name,
    rows_sent: u64,
}

impl<W> Encoder<W> {
    pub(crate) fn start(tables: ShardTables<W>) -> Result<Self, TraceError>
    where
        W: Write + Send + 'static,
    {
        // One pass waits while one is encoded and the engine fills a third: no more is ever held.
        let (sender, receiver) = sync_channel(1);
        let dataset = tables.dataset.clone();
        let thread = Builder::new()
            .name("trace-encoder".to_owned())
            .spawn(move || encode(tables, &receiver))
            .map_err(|source| TraceError::Thread { source })?;
        Ok(Self { sender: Some(sender), thread: Some(thread), dataset, rows_sent: 0 })
    }

    /// Queues `rows`; waits while the queue is full.
    pub(crate) fn send(&mut self, rows: PassRows) -> Result<(), TraceError> {
        let count = rows.tokens.iter().map(TokenRows::len).sum::<usize>() as u64;
        self.message(Message::Rows(rows))?;
        self.rows_sent += count;
        Ok(())
    }

    /// Fails with the encoder's own error if it has stopped early.
    pub(crate) fn check(&mut self) -> Result<(), TraceError> {
        match &self.thread {
            Some(thread) if !thread.is_finished() => Ok(()),
            _ => Err(self.failure()),
        }
    }

    /// Waits for everything queued, and for both footers.
    pub(crate) fn finish(mut self) -> Result<WrittenShard<W>, TraceError> {
        self.message(Message::Finish)?;
        self.join()?.ok_or_else(|| self.lost())
    }

    fn message(&mut self, message: Message) -> Result<(), TraceError> {
        match self.sender.as_ref().map(|sender| sender.send(message)) {
            Some(Ok(())) => Ok(()),
            _ => Err(self.failure()),
        }
    }

    fn failure(&mut self) -> TraceError {
        self.join().err().unwrap_or_else(|| self.lost())
    }

    fn join(&mut self) -> Result<Option<WrittenShard<W>>, TraceError> {
        self.sender = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(result)) => result,
            Some(Err(_)) | None => Err(self.lost()),
        }
    }

    fn lost(&self) -> TraceError {
        TraceError::EncoderLost { dataset: self.dataset.clone(), rows: self.rows_sent }
    }
}

impl<W> Drop for Encoder<W> {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(thread) = self.thread.take() {
            // Its result no longer matters: nobody asked for the files.
            drop(thread.join());
        }
    }
}

fn encode<W: Write + Send>(
    mut tables: ShardTables<W>,
    receiver: &Receiver<Message>,
) -> Result<Option<WrittenShard<W>>, TraceError> {
    let failed = |table| move |source| TraceError::Write { table, source };
    // The loop ends without a message when the writer was dropped.
    while let Ok(message) = receiver.recv() {
        let Message::Rows(rows) = message else {
            let (rows, hidden_rows) =
                (tables.tokens.rows(), tables.hidden.as_ref().map_or(0, TableWriter::rows));
            let data = tables.tokens.finish().map_err(failed("tokens"))?;
            let hidden = tables.hidden.map(TableWriter::finish).transpose().map_err(failed("hidden"))?;
            return Ok(Some(WrittenShard { data, rows, hidden, hidden_rows }));
        };
        for chunk in rows.tokens {
            chunk
                .into_chunk(&tables.dataset, &tables.geometry)
                .and_then(|chunk| tables.tokens.write(&chunk))
                .map_err(failed("tokens"))?;
        }
        if let Some(hidden) = &mut tables.hidden {
            for chunk in rows.hidden {
                chunk
                    .into_chunk(tables.geometry.hidden())
                    .and_then(|chunk| hidden.write(&chunk))
                    .map_err(failed("hidden"))?;
            }
        }
    }
    Ok(None)
}
