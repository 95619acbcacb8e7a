//! What the fuzz targets share: reading everything, and a zip archive around a pickle.
//!
//! A run, with the stable compiler and cargo-fuzz, from the folder above:
//!
//! ```text
//! cargo fuzz run --sanitizer none zip_pth -- -dict=fuzz/pickle.dict -max_len=8192 -rss_limit_mb=512 -max_total_time=600
//! ```
//!
//! The seeds under `corpus/` are written by `xtask/scripts/make_checkpoints.py`; what a run adds to them is not kept.

use image_losses_perceptual::checkpoint::{Checkpoint, Strictness};

/// Opens the bytes, converts every tensor, and loads them as a network of just these shapes.
pub fn read(bytes: Vec<u8>) {
    let Ok(checkpoint) = Checkpoint::from_bytes("fuzz", bytes) else { return };
    let mut floats = true;
    for (_, entry) in checkpoint.iter() {
        let values = entry.to_f32().expect("what was opened in memory can be read");
        assert_eq!(values.len(), entry.shape().iter().product::<usize>());
        floats &= entry.dtype().is_float();
    }
    for (_, entry) in checkpoint.beside() {
        let values = entry.to_f32().expect("what was opened in memory can be read");
        assert_eq!(values.len(), entry.elements());
    }
    // Every prefix of a name gives the tensors under it.
    for (name, _) in checkpoint.iter().chain(checkpoint.beside()).take(64) {
        if let Some((prefix, _)) = name.rsplit_once('.') {
            let _ = checkpoint.under(prefix);
        }
    }
    let _ = checkpoint.unread();
    let needed: Vec<_> = checkpoint.iter().map(|(name, entry)| (name.to_owned(), entry.shape().to_vec())).collect();
    let loaded = checkpoint.load("itself", &needed, Strictness::Strict);
    assert!(loaded.is_ok() || !floats);
}

/// Reads a zip archive as it is, and anything else as the pickle of one with two storages.
///
/// Mutating an archive mostly breaks its directory; mutating the pickle alone goes deeper.
pub fn read_zip(data: &[u8], torchscript: bool) {
    if data.starts_with(b"PK") {
        return read(data.to_vec());
    }
    let storage: Vec<u8> = (0..96).collect();
    let mut entries: Vec<(&str, &[u8])> = vec![("a/data.pkl", data), ("a/data/0", &storage), ("a/data/1", &storage)];
    if torchscript {
        entries.push(("a/constants.pkl", b""));
    }
    read(zip(&entries));
}

fn zip(entries: &[(&str, &[u8])]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for (name, data) in entries {
        let mut common = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        common.extend((data.len() as u32).to_le_bytes());
        common.extend((data.len() as u32).to_le_bytes());
        common.extend((name.len() as u16).to_le_bytes());
        common.extend([0; 2]);
        directory.extend(*b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend((file.len() as u32).to_le_bytes());
        directory.extend(name.as_bytes());
        file.extend(*b"PK\x03\x04");
        file.extend(common);
        file.extend(name.as_bytes());
        file.extend(*data);
    }
    let start = file.len() as u32;
    file.extend(&directory);
    file.extend(*b"PK\x05\x06\0\0\0\0");
    file.extend((entries.len() as u16).to_le_bytes());
    file.extend((entries.len() as u16).to_le_bytes());
    file.extend((directory.len() as u32).to_le_bytes());
    file.extend(start.to_le_bytes());
    file.extend([0; 2]);
    file
}
