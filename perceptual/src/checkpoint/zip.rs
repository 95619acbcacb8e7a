//! A zip archive as far as PyTorch writes it: entries stored side by side, none overlapping another.
//!
//! Deflated entries, which a tool may have made of them, are inflated within a bound that the file's size sets.
//! Checksums are not compared: PyTorch itself can be told to write none.

use std::collections::HashMap;

use super::source::{Read, Region, refuse, shown};

/// The most entries, and the most bytes of their directory.
const MAX_ENTRIES: u64 = 1 << 17;
const MAX_DIRECTORY: u64 = 1 << 25;
/// What all deflated entries together may inflate to, per byte of the file and at least.
const INFLATION: u64 = 8;
const INFLATION_FLOOR: u64 = 1 << 16;

const END: [u8; 4] = *b"PK\x05\x06";
const END_LEN: u64 = 22;
const END64: [u8; 4] = *b"PK\x06\x06";
const END64_LEN: u64 = 56;
const LOCATOR64: [u8; 4] = *b"PK\x06\x07";
const LOCATOR64_LEN: u64 = 20;
const CENTRAL: [u8; 4] = *b"PK\x01\x02";
const CENTRAL_LEN: usize = 46;
const LOCAL: [u8; 4] = *b"PK\x03\x04";
const LOCAL_LEN: u64 = 30;

#[derive(Debug, Clone, Copy, PartialEq)]
enum Method {
    Stored,
    Deflated,
}

#[derive(Debug)]
struct Record {
    method: Method,
    packed: Region,
    size: u64,
}

/// The archive's directory.
#[derive(Debug)]
pub(super) struct Archive {
    records: HashMap<String, Record>,
    /// What may still be inflated.
    inflation: u64,
}

impl Archive {
    pub(super) fn open(file: &Region) -> Read<Archive> {
        let (directory, count) = directory(file)?;
        let directory_start = directory.start;
        let bytes = file.bytes(directory.start, directory.len, "the zip directory")?;
        let mut rest = bytes.as_slice();
        let mut records = HashMap::new();
        let mut spans = Vec::new();
        for _ in 0..count {
            let (entry, behind) = central(rest)?;
            rest = behind;
            // The local header repeats the name and has an extra field of its own length.
            let mut local = [0; LOCAL_LEN as usize];
            file.read_at(entry.local, &mut local)?;
            if local[..4] != LOCAL {
                return refuse(format!("the zip entry {} has no header where it should be", shown(&entry.name)));
            }
            let names = u64::from(short(&local, 26)?) + u64::from(short(&local, 28)?);
            let start = entry.local.saturating_add(LOCAL_LEN).saturating_add(names);
            let packed = file.part(start, entry.packed, "a zip entry")?;
            spans.push((entry.local, start + entry.packed));
            let record = Record { method: entry.method, packed, size: entry.size };
            if records.insert(entry.name, record).is_some() {
                return refuse("the zip directory names an entry twice");
            }
        }
        spans.push((directory_start, directory_start));
        spans.sort_unstable();
        if spans.windows(2).any(|pair| pair[0].1 > pair[1].0) {
            return refuse("zip entries overlap");
        }
        let inflation = file.len().saturating_mul(INFLATION).saturating_add(INFLATION_FLOOR);
        Ok(Archive { records, inflation })
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.records.keys().map(String::as_str)
    }

    /// The contents of an entry, if it is there.
    pub(super) fn read(&mut self, name: &str) -> Read<Option<Region>> {
        let Some(record) = self.records.get(name) else { return Ok(None) };
        if record.method == Method::Stored {
            return Ok(Some(record.packed.clone()));
        }
        let Some(left) = self.inflation.checked_sub(record.size) else {
            return refuse(format!(
                "the zip entry {} claims to inflate {} bytes to {}",
                shown(name),
                record.packed.len(),
                record.size
            ));
        };
        let packed = record.packed.bytes(0, record.packed.len(), "a zip entry")?;
        let Ok(limit) = usize::try_from(record.size) else { return refuse("a zip entry too large to inflate") };
        match miniz_oxide::inflate::decompress_to_vec_with_limit(&packed, limit) {
            Ok(bytes) if bytes.len() == limit => {
                self.inflation = left;
                Ok(Some(Region::memory(record.packed.path(), bytes)))
            }
            _ => refuse(format!("the zip entry {} does not inflate to the {limit} bytes it claims", shown(name))),
        }
    }
}

struct Span {
    start: u64,
    len: u64,
}

/// Where the central directory lies, and how many entries it has.
fn directory(file: &Region) -> Read<(Span, u64)> {
    let tail_len = file.len().min(END_LEN + u64::from(u16::MAX));
    let tail_start = file.len() - tail_len;
    let tail = file.bytes(tail_start, tail_len, "the end of the zip archive")?;
    // The record ends with a comment, whose length must lead to the end of the file.
    let found = (0..tail.len()).rev().find(|&at| {
        tail[at..].starts_with(&END)
            && short(&tail, at + 20).is_ok_and(|comment| at + END_LEN as usize + usize::from(comment) == tail.len())
    });
    let Some(at) = found else { return refuse("a zip archive without its end: truncated?") };
    let mut end = tail_start + at as u64;
    let mut count = u64::from(short(&tail, at + 10)?);
    let mut len = u64::from(word(&tail, at + 12)?);
    let mut start = u64::from(word(&tail, at + 16)?);
    if let Some(locator_start) = end.checked_sub(LOCATOR64_LEN) {
        let locator = file.bytes(locator_start, LOCATOR64_LEN, "the zip64 locator")?;
        if locator.starts_with(&LOCATOR64) {
            let end64_start = long(&locator, 8)?;
            let end64 = file.bytes(end64_start, END64_LEN, "the zip64 end record")?;
            if !end64.starts_with(&END64) {
                return refuse("a zip64 locator that leads nowhere");
            }
            (count, len, start) = (long(&end64, 32)?, long(&end64, 40)?, long(&end64, 48)?);
            end = end64_start;
        }
    }
    if start.checked_add(len).is_none_or(|directory_end| directory_end > end) {
        return refuse("the zip directory reaches outside the file");
    }
    if len > MAX_DIRECTORY || count > MAX_ENTRIES || count > len / CENTRAL_LEN as u64 {
        return refuse(format!("a zip directory of {count} entries in {len} bytes"));
    }
    Ok((Span { start, len }, count))
}

struct Central {
    name: String,
    method: Method,
    packed: u64,
    size: u64,
    local: u64,
}

/// The directory's first record and what follows it.
fn central(bytes: &[u8]) -> Read<(Central, &[u8])> {
    if !bytes.starts_with(&CENTRAL) {
        return refuse("the zip directory ends early");
    }
    let flags = short(bytes, 8)?;
    let (name_len, extra_len, comment_len) = (short(bytes, 28)?, short(bytes, 30)?, short(bytes, 32)?);
    let name_end = CENTRAL_LEN + usize::from(name_len);
    let extra_end = name_end + usize::from(extra_len);
    let end = extra_end + usize::from(comment_len);
    let (Some(name), Some(extra), Some(behind)) =
        (bytes.get(CENTRAL_LEN..name_end), bytes.get(name_end..extra_end), bytes.get(end..))
    else {
        return refuse("the zip directory ends early");
    };
    let Ok(name) = std::str::from_utf8(name) else { return refuse("a zip entry whose name is not UTF-8") };
    let mut fields = [word(bytes, 24)?, word(bytes, 20)?, word(bytes, 42)?].map(u64::from);
    wide(extra, &mut fields)?;
    let [size, packed, local] = fields;
    if flags & 1 != 0 {
        return refuse(format!("the zip entry {} is encrypted", shown(name)));
    }
    let method = match short(bytes, 10)? {
        0 if packed == size => Method::Stored,
        0 => return refuse(format!("the zip entry {} is stored in {packed} bytes and claims {size}", shown(name))),
        8 => Method::Deflated,
        method => return refuse(format!("the zip entry {} is compressed by method {method}", shown(name))),
    };
    Ok((Central { name: name.to_owned(), method, packed, size, local }, behind))
}

/// Replaces the fields that did not fit 32 bits by those of the zip64 extra field.
fn wide(mut extra: &[u8], fields: &mut [u64; 3]) -> Read<()> {
    if fields.iter().all(|&field| field != u64::from(u32::MAX)) {
        return Ok(());
    }
    while extra.len() >= 4 {
        let (id, len) = (short(extra, 0)?, usize::from(short(extra, 2)?));
        let Some(body) = extra.get(4..4 + len) else { break };
        if id == 1 {
            let large = fields.iter_mut().filter(|field| **field == u64::from(u32::MAX));
            for (index, field) in large.enumerate() {
                *field = long(body, 8 * index)?;
            }
            return Ok(());
        }
        extra = &extra[4 + len..];
    }
    refuse("a zip entry too large for its directory")
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Read<[u8; N]> {
    match bytes.get(at..).and_then(|rest| rest.first_chunk()) {
        Some(field) => Ok(*field),
        None => refuse("a zip record ends early"),
    }
}

fn short(bytes: &[u8], at: usize) -> Read<u16> {
    field(bytes, at).map(u16::from_le_bytes)
}

fn word(bytes: &[u8], at: usize) -> Read<u32> {
    field(bytes, at).map(u32::from_le_bytes)
}

fn long(bytes: &[u8], at: usize) -> Read<u64> {
    field(bytes, at).map(u64::from_le_bytes)
}
