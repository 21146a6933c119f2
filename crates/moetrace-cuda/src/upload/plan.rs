//! What is copied where, cut into loads of a chunk each, and the threads' way through it.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use super::lane::{Copy, Lane};
use crate::CudaError;

/// Pieces begin at multiples of this in a chunk, and places are cut there.
pub(super) const ALIGNMENT: usize = 256;

/// Bytes that lie together in a chunk and in their place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Piece {
    place: usize,
    /// Its first byte in its place, and in its chunk.
    start: usize,
    at: usize,
    length: usize,
}

pub(super) struct Plan<'a, F, E> {
    /// Address and bytes of each place on the device.
    places: &'a [(u64, usize)],
    /// What goes into one chunk.
    loads: Vec<Vec<Piece>>,
    fill: F,
    /// The first load that no thread has begun.
    next: AtomicUsize,
    failure: Mutex<Option<E>>,
}

impl<'a, F, E> Plan<'a, F, E>
where
    F: Fn(usize, usize, &mut [u8]) -> Result<(), E> + Sync,
    E: From<CudaError> + Send,
{
    pub(super) fn new(places: &'a [(u64, usize)], chunk: usize, fill: F) -> Self {
        let loads = cut(places.iter().map(|(_, bytes)| *bytes), chunk);
        Self { places, loads, fill, next: AtomicUsize::new(0), failure: Mutex::new(None) }
    }

    pub(super) fn loads(&self) -> usize {
        self.loads.len()
    }

    /// Takes one load after the other until all are begun or one has failed.
    pub(super) fn work(&self, lane: &mut Lane) {
        while let Some(load) = self.loads.get(self.next.fetch_add(1, Ordering::Relaxed)) {
            let copies = load.iter().map(|piece| {
                let to = self.places[piece.place].0 + piece.start as u64;
                Copy { from: piece.at, length: piece.length, to }
            });
            let fill = |chunk: &mut [u8]| {
                load.iter().try_for_each(|piece| {
                    (self.fill)(piece.place, piece.start, &mut chunk[piece.at..][..piece.length])
                })
            };
            // SAFETY: a piece lies within its place, which the uploader's caller has borrowed for writing and which the
            // uploader has found on this device; before the borrow ends, later operations are made to wait for the lane.
            if let Err(error) = unsafe { lane.load(copies, fill) } {
                self.next.store(self.loads.len(), Ordering::Relaxed);
                self.failure.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error);
                return;
            }
        }
    }

    pub(super) fn outcome(self) -> Result<(), E> {
        self.failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// Cuts places of these sizes into pieces, and packs them into loads of at most `chunk` bytes, in order.
fn cut(sizes: impl Iterator<Item = usize>, chunk: usize) -> Vec<Vec<Piece>> {
    let mut loads = Vec::new();
    let (mut load, mut at) = (Vec::new(), 0);
    for (place, size) in sizes.enumerate() {
        let mut start = 0;
        while start < size {
            if at == chunk {
                loads.push(std::mem::take(&mut load));
                at = 0;
            }
            let length = (size - start).min(chunk - at);
            load.push(Piece { place, start, at, length });
            start += length;
            at = (at + length).next_multiple_of(ALIGNMENT).min(chunk);
        }
    }
    if !load.is_empty() {
        loads.push(load);
    }
    loads
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_of_every_place_is_cut_once_and_no_two_pieces_share_a_chunks_bytes() {
        let sizes = [0, 1, 255, 256, 257, 0, 5000, 1024, 1023, 3, 0];
        let mut reached = [0; 11];
        for load in cut(sizes.into_iter(), 1024) {
            let mut end = 0;
            for piece in load {
                assert!(piece.at >= end && piece.at.is_multiple_of(ALIGNMENT) && piece.length > 0);
                end = piece.at + piece.length;
                assert!(end <= 1024);
                assert_eq!(piece.start, reached[piece.place]);
                reached[piece.place] += piece.length;
            }
        }
        assert_eq!(reached, sizes);
    }

    #[test]
    fn small_places_share_a_load_and_loads_are_full() {
        assert_eq!(cut([100; 8].into_iter(), 1024).len(), 2);
        assert_eq!(cut([4096, 1024].into_iter(), 1024).len(), 5);
        assert!(cut([0, 0].into_iter(), 1024).is_empty());
    }
}
