//! Which rows of a packed batch attend to which, as work for the device.

use std::cmp::Reverse;

use crate::launch::count;
use crate::memory::DeviceId;
use crate::{Buffer, CudaError, Device, Slice};

/// Query rows of a tile, counted from the first row of their span.
pub(super) const QUERIES: usize = 128;
/// A tile's numbers: first row of its span, rows of its span, its first query row in the span.
pub(super) const TILE_NUMBERS: usize = 3;

/// The spans of one pass, cut into tiles of query rows. Holds room for its largest pass from the beginning.
#[derive(Debug)]
pub struct Sequences {
    on_host: Vec<[u32; TILE_NUMBERS]>,
    on_device: Buffer<u32>,
    most_tokens: usize,
    most_spans: usize,
    tokens: usize,
}

impl Sequences {
    /// Room for passes of so many tokens in so many spans; no pass is set yet, which is as one without tokens.
    ///
    /// # Errors
    /// [`CudaError::Value`] for 2^31 tokens or more, [`CudaError::Driver`].
    pub fn new(device: &Device, most_tokens: usize, most_spans: usize) -> Result<Self, CudaError> {
        count("the most tokens of a pass", most_tokens)?;
        let most_tiles = Self::words(most_tokens, most_spans) / TILE_NUMBERS;
        let on_device = device.zeros(count("the tiles of a pass", most_tiles)? as usize * TILE_NUMBERS)?;
        let on_host = Vec::with_capacity(most_tiles);
        Ok(Self { on_host, on_device, most_tokens, most_spans, tokens: 0 })
    }

    /// 32-bit words on the device that such room takes.
    pub fn words(most_tokens: usize, most_spans: usize) -> usize {
        // Every span has at most one tile that is not full; spans without rows have none.
        (most_tokens / QUERIES + most_spans.min(most_tokens)) * TILE_NUMBERS
    }

    /// Sets the pass: the lengths of spans that lie end to end from row 0. Allocates nothing; returns when the tiles
    /// are on the device. Fails without a change where the pass is too large.
    ///
    /// # Errors
    /// [`CudaError::Value`] for more tokens or spans than there is room for, [`CudaError::OtherDevice`],
    /// [`CudaError::Driver`].
    pub fn set(&mut self, device: &Device, lengths: &[usize]) -> Result<(), CudaError> {
        let refused =
            |what, found| Err(CudaError::Value { what, found, expected: "no more than there is room for" });
        if lengths.len() > self.most_spans {
            return refused("the number of spans", lengths.len());
        }
        let tokens = lengths.iter().fold(0usize, |sum, length| sum.saturating_add(*length));
        if tokens > self.most_tokens {
            return refused("the number of tokens", tokens);
        }
        self.tokens = 0;
        cut(lengths, &mut self.on_host);
        let mut place = self.on_device.part_mut(0..self.on_host.len() * TILE_NUMBERS)?;
        device.write(self.on_host.as_flattened(), &mut place)?;
        self.tokens = tokens;
        Ok(())
    }

    /// Tokens of the pass.
    pub fn tokens(&self) -> usize {
        self.tokens
    }

    /// The tiles of the pass on the device, and how many they are.
    pub(super) fn tiles(&self, device: DeviceId) -> Result<(Slice<'_, u32>, u32), CudaError> {
        let tiles = if self.tokens == 0 { 0 } else { self.on_host.len() };
        let slice = self.on_device.part(0..tiles * TILE_NUMBERS)?;
        slice.check("the tiles of a pass", slice.len(), device)?;
        Ok((slice, tiles as u32))
    }
}

/// Tiles of spans that lie end to end. Those that see the most keys come first, so that the last blocks to run are
/// short; equal ones in the order of their spans.
fn cut(lengths: &[usize], tiles: &mut Vec<[u32; TILE_NUMBERS]>) {
    tiles.clear();
    let mut start = 0;
    for &length in lengths {
        let firsts = (0..length).step_by(QUERIES);
        tiles.extend(firsts.map(|first| [start as u32, length as u32, first as u32]));
        start += length;
    }
    tiles.sort_unstable_by_key(|[start, length, first]| {
        (Reverse((*first + QUERIES as u32).min(*length)), *start, *first)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_every_row_once_and_the_longest_come_first() {
        let lengths = [1, 0, 128, 513, 127, 4097, 129, 64];
        let mut tiles = Vec::new();
        cut(&lengths, &mut tiles);
        assert!(tiles.len() <= lengths.iter().sum::<usize>() / QUERIES + lengths.len());
        let seen = |[_, length, first]: &[u32; 3]| (first + QUERIES as u32).min(*length);
        assert!(tiles.is_sorted_by_key(|tile| Reverse(seen(tile))));
        let mut rows: Vec<u32> =
            tiles.iter().flat_map(|tile| tile[0] + tile[2]..tile[0] + seen(tile)).collect();
        rows.sort_unstable();
        assert!(rows.iter().copied().eq(0..lengths.iter().sum::<usize>() as u32));
        let starts = lengths.iter().scan(0, |sum, length| {
            *sum += length;
            Some((*sum - length, *length))
        });
        let spans: Vec<(usize, usize)> = starts.collect();
        assert!(tiles.iter().all(|tile| spans.contains(&(tile[0] as usize, tile[1] as usize))));
    }
}
