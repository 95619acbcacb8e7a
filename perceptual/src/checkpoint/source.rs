//! Where a checkpoint's bytes come from: every read is checked against the length first.

use std::fmt;
use std::fs::File;
use std::io::{self, Read as _, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use image_losses_core::Error;

/// The longest part of a name from a file that a message repeats.
const SHOWN: usize = 80;

/// What a reader gives up with; the caller adds the path.
#[derive(Debug)]
pub(super) enum Fault {
    Format(String),
    Io(io::Error),
}

pub(super) type Read<T> = Result<T, Fault>;
/// Things by the names that a file gives them, in its order.
pub(super) type Named<T> = Vec<(String, T)>;

impl Fault {
    /// The public error.
    pub(super) fn at(self, path: &Path) -> Error {
        match self {
            Fault::Format(message) => Error::Format { path: path.to_owned(), message },
            Fault::Io(error) => Error::io(path, &error),
        }
    }
}

impl From<io::Error> for Fault {
    fn from(error: io::Error) -> Self {
        Fault::Io(error)
    }
}

/// An error that says what is wrong with the file.
pub(super) fn refuse<T>(message: impl Into<String>) -> Read<T> {
    Err(Fault::Format(message.into()))
}

/// A text from a file as a message may repeat it: escaped, and cut.
pub(super) fn shown(text: &str) -> String {
    let cut: String = text.chars().take(SHOWN).flat_map(char::escape_debug).collect();
    if text.chars().nth(SHOWN).is_some() { format!("`{cut}…`") } else { format!("`{cut}`") }
}

/// A whole file, or bytes in memory, and what it is called in messages.
struct Source {
    path: PathBuf,
    bytes: Bytes,
}

enum Bytes {
    Memory(Vec<u8>),
    File(Mutex<File>),
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Source").field(&self.path).finish()
    }
}

/// A range of a source.
#[derive(Debug, Clone)]
pub(super) struct Region {
    source: Arc<Source>,
    start: u64,
    len: u64,
}

impl Region {
    pub(super) fn file(path: &Path) -> io::Result<Region> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let source = Source { path: path.to_owned(), bytes: Bytes::File(Mutex::new(file)) };
        Ok(Region { source: Arc::new(source), start: 0, len })
    }

    pub(super) fn memory(path: &Path, bytes: Vec<u8>) -> Region {
        let len = bytes.len() as u64;
        let source = Source { path: path.to_owned(), bytes: Bytes::Memory(bytes) };
        Region { source: Arc::new(source), start: 0, len }
    }

    pub(super) fn path(&self) -> &Path {
        &self.source.path
    }

    pub(super) fn len(&self) -> u64 {
        self.len
    }

    /// The part `[start, start + len)`; `what` names it where it lies outside.
    pub(super) fn part(&self, start: u64, len: u64, what: &str) -> Read<Region> {
        match start.checked_add(len) {
            Some(end) if end <= self.len => {
                Ok(Region { source: Arc::clone(&self.source), start: self.start + start, len })
            }
            _ => refuse(format!(
                "{what} would take the bytes {start} to {} of {}",
                u128::from(start) + u128::from(len),
                self.len
            )),
        }
    }

    /// Fills `buffer` from `offset` on.
    pub(super) fn read_at(&self, offset: u64, buffer: &mut [u8]) -> Read<()> {
        let part = self.part(offset, buffer.len() as u64, "a field")?;
        match &part.source.bytes {
            Bytes::Memory(bytes) => {
                let all = usize::try_from(part.start).ok().and_then(|start| bytes.get(start..start + buffer.len()));
                match all {
                    Some(bytes) => buffer.copy_from_slice(bytes),
                    None => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
                }
            }
            Bytes::File(file) => {
                let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
                file.seek(SeekFrom::Start(part.start))?;
                file.read_exact(buffer)?;
            }
        }
        Ok(())
    }

    /// `len` bytes from `offset` on, allocated only once they are known to be there.
    pub(super) fn bytes(&self, offset: u64, len: u64, what: &str) -> Read<Vec<u8>> {
        let part = self.part(offset, len, what)?;
        let Ok(len) = usize::try_from(len) else { return refuse(format!("{what} has {len} bytes")) };
        let mut bytes = vec![0; len];
        part.read_at(0, &mut bytes)?;
        Ok(bytes)
    }
}

/// Reads a region from front to back through a small buffer.
pub(super) struct Cursor {
    region: Region,
    position: u64,
    buffer: Vec<u8>,
    buffered_from: u64,
}

impl Cursor {
    const BUFFER: u64 = 1 << 14;

    pub(super) fn new(region: Region) -> Cursor {
        Cursor { region, position: 0, buffer: Vec::new(), buffered_from: 0 }
    }

    pub(super) fn remaining(&self) -> u64 {
        self.region.len() - self.position
    }

    /// The next `len` bytes as a region of their own, passed over.
    pub(super) fn region(&mut self, len: u64, what: &str) -> Read<Region> {
        let part = self.region.part(self.position, len, what)?;
        self.position += len;
        Ok(part)
    }

    pub(super) fn byte(&mut self) -> Read<u8> {
        let at = self.position.checked_sub(self.buffered_from).and_then(|at| usize::try_from(at).ok());
        let byte = match at.and_then(|at| self.buffer.get(at)) {
            Some(&byte) => byte,
            None => {
                let len = self.remaining().min(Self::BUFFER);
                if len == 0 {
                    return refuse("the file ends in the middle of a pickle");
                }
                self.buffer = self.region.bytes(self.position, len, "a pickle")?;
                self.buffered_from = self.position;
                self.buffer[0]
            }
        };
        self.position += 1;
        Ok(byte)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Read<[u8; N]> {
        let mut bytes = [0; N];
        for byte in &mut bytes {
            *byte = self.byte()?;
        }
        Ok(bytes)
    }

    /// `len` bytes.
    pub(super) fn bytes(&mut self, len: u64) -> Read<Vec<u8>> {
        if len > self.remaining() {
            return refuse(format!("a text of {len} bytes where {} are left", self.remaining()));
        }
        (0..len).map(|_| self.byte()).collect()
    }

    /// The bytes up to the next line feed, at most `limit`.
    pub(super) fn line(&mut self, limit: usize) -> Read<Vec<u8>> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => return Ok(line),
                _ if line.len() == limit => return refuse(format!("a name longer than {limit} bytes")),
                byte => line.push(byte),
            }
        }
    }
}
