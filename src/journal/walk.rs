//! Going through the records of all segments in order; the next step costs no search.

use std::collections::VecDeque;

use bytes::Bytes;

use super::format::{Codec, Head, RECORD_HEADER_BYTES, SEGMENT_HEADER_BYTES};
use super::segment::{Segment, position_of};
use super::storage::{Storage, StorageFile};
use super::types::ReadError;
use super::window::Window;

/// What a walk goes over.
#[derive(Debug)]
pub(super) struct Ground<'a, S> {
    pub(super) storage: &'a S,
    pub(super) segments: &'a VecDeque<Segment>,
    pub(super) codec: Codec,
    /// Where the last segment ends for readers.
    pub(super) readable_end: u64,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    segment: u64,
    offset: u64,
    /// Everything up to here is passed.
    after_seq: u64,
}

/// Whether payloads are read and checked, or only heads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Depth {
    Whole,
    Heads,
}

/// A record that a walk stands before.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) head: Head,
    pub(super) payload: Bytes,
    next_offset: u64,
}

#[derive(Debug)]
pub(super) struct Walk<F> {
    place: Option<Place>,
    file: Option<(u64, F)>,
    window: Window,
}

impl<F> Default for Walk<F> {
    fn default() -> Self {
        Self {
            place: None,
            file: None,
            window: Window::default(),
        }
    }
}

impl<F: StorageFile> Walk<F> {
    /// Forgets place, file and chunk: the files have changed, or memory is to be given back.
    pub(super) fn reset(&mut self) {
        *self = Self::default();
    }

    /// The first record after `after_seq`, without passing it.
    ///
    /// # Errors
    /// It cannot be read, or is damaged.
    pub(super) fn peek<S: Storage<File = F>>(
        &mut self,
        ground: &Ground<'_, S>,
        after_seq: u64,
        depth: Depth,
    ) -> Result<Option<Step>, ReadError> {
        let stands_there = self
            .place
            .is_some_and(|place| place.after_seq == after_seq && position_of(ground.segments, place.segment).is_some());
        if !stands_there {
            let at = ground
                .segments
                .partition_point(|segment| segment.tally.last_seq <= after_seq);
            let Some(segment) = ground.segments.get(at) else {
                return Ok(None);
            };
            self.place = Some(Place {
                segment: segment.id,
                offset: segment.offset_before(after_seq),
                after_seq,
            });
        }
        while let Some(step) = self.step(ground, depth)? {
            if step.head.seq > after_seq {
                return Ok(Some(step));
            }
            self.place = self.place.map(|place| Place {
                offset: step.next_offset,
                ..place
            });
        }
        Ok(None)
    }

    /// Passes the record that [`Walk::peek`] returned.
    pub(super) fn pass(&mut self, step: &Step) {
        self.place = self.place.map(|place| Place {
            offset: step.next_offset,
            after_seq: step.head.seq,
            ..place
        });
    }

    /// Having passed everything up to `after_seq`, takes `upto_seq` for passed too: no record lies between.
    pub(super) fn settle(&mut self, after_seq: u64, upto_seq: u64) {
        self.place = self.place.filter(|place| place.after_seq == after_seq);
        self.place = self.place.map(|place| Place {
            after_seq: upto_seq.max(after_seq),
            ..place
        });
    }

    fn step<S: Storage<File = F>>(&mut self, ground: &Ground<'_, S>, depth: Depth) -> Result<Option<Step>, ReadError> {
        let Some(mut place) = self.place else { return Ok(None) };
        let Some(mut at) = position_of(ground.segments, place.segment) else {
            return Ok(None);
        };
        while let Some(segment) = ground.segments.get(at) {
            let is_last = at + 1 == ground.segments.len();
            let end = if is_last {
                ground.readable_end
            } else {
                segment.tally.end
            };
            if let Some(hole_end) = segment.hole_end(place.offset) {
                place.offset = hole_end;
            }
            if place.offset < end {
                self.place = Some(place);
                return self.record(ground, segment, place.offset, end, depth).map(Some);
            }
            if is_last {
                break;
            }
            at += 1;
            if let Some(next) = ground.segments.get(at) {
                place = Place {
                    segment: next.id,
                    offset: SEGMENT_HEADER_BYTES,
                    ..place
                };
            }
        }
        Ok(None)
    }

    fn record<S: Storage<File = F>>(
        &mut self,
        ground: &Ground<'_, S>,
        segment: &Segment,
        offset: u64,
        end: u64,
        depth: Depth,
    ) -> Result<Step, ReadError> {
        let failed = |source| ReadError::Io {
            file: segment.name(),
            source,
        };
        let corrupt = || ReadError::Corrupt {
            file: segment.name(),
            offset,
        };
        if self.file.as_ref().is_none_or(|(id, _)| *id != segment.id) {
            self.window.clear();
            self.file = Some((segment.id, ground.storage.open(&segment.name()).map_err(failed)?));
        }
        let Some((_, file)) = &self.file else {
            return Err(corrupt());
        };
        let bytes = self
            .window
            .at(file, offset, RECORD_HEADER_BYTES as u64, end)
            .map_err(failed)?;
        let head = Head::parse(bytes).ok_or_else(corrupt)?;
        if head.record_bytes() > end - offset {
            return Err(corrupt());
        }
        let payload = match depth {
            Depth::Heads => Bytes::new(),
            Depth::Whole => {
                let bytes = self.window.at(file, offset, head.record_bytes(), end).map_err(failed)?;
                let record = bytes.get(..head.record_bytes() as usize).ok_or_else(corrupt)?;
                if !ground.codec.is_valid(record) {
                    return Err(corrupt());
                }
                self.window
                    .slice(offset + RECORD_HEADER_BYTES as u64, head.payload_bytes as usize)
            }
        };
        Ok(Step {
            head,
            payload,
            next_offset: offset + head.record_bytes(),
        })
    }
}
