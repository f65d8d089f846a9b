//! A chunk of a file, read at once; records are slices of it.

use std::io;

use bytes::Bytes;

use super::storage::StorageFile;

const CHUNK_BYTES: u64 = 256 * 1024;

#[derive(Debug, Default)]
pub(super) struct Window {
    start: u64,
    bytes: Bytes,
}

impl Window {
    /// Forgets the chunk.
    pub(super) fn clear(&mut self) {
        self.bytes = Bytes::new();
    }

    /// The file's bytes from `offset` on, at least `need` of them where the file has them before `end`.
    ///
    /// # Errors
    /// The read.
    pub(super) fn at<F: StorageFile>(&mut self, file: &F, offset: u64, need: u64, end: u64) -> io::Result<&[u8]> {
        let need = need.min(end.saturating_sub(offset));
        let covered = self.start + self.bytes.len() as u64;
        if offset < self.start || offset + need > covered {
            let wanted = need.max(CHUNK_BYTES.min(end.saturating_sub(offset)));
            let mut chunk = vec![0; wanted as usize];
            let read = file.read_at(&mut chunk, offset)?;
            chunk.truncate(read);
            self.start = offset;
            self.bytes = Bytes::from(chunk);
        }
        let from = ((offset - self.start) as usize).min(self.bytes.len());
        Ok(&self.bytes[from..])
    }

    /// A part of the chunk that [`Window::at`] has just shown, without copying.
    pub(super) fn slice(&self, offset: u64, length: usize) -> Bytes {
        let from = (offset.saturating_sub(self.start) as usize).min(self.bytes.len());
        self.bytes
            .slice(from..from.saturating_add(length).min(self.bytes.len()))
    }
}
