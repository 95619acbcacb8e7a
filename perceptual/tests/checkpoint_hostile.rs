//! Files that lie: each is an error, within memory that its size bounds, and never a panic.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use image_losses_core::Error;
use image_losses_laws::drawn;
use image_losses_perceptual::checkpoint::Checkpoint;
use peak_alloc::PeakAlloc;
use proptest::prelude::*;

#[global_allocator]
static MEMORY: PeakAlloc = PeakAlloc;

/// What reading a file may take: a multiple of its size for the objects that its pickle makes, and some room for
/// tables, buffers and a tensor expanded by strides of zero (a million `f32`).
const PER_BYTE: usize = 256;
const ROOM: usize = 6 << 20;

/// One test at a time: the peak is the process's.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Opens and reads everything, and checks the memory it took.
fn read(bytes: Vec<u8>) -> Result<usize, Error> {
    let bound = PER_BYTE * bytes.len() + ROOM;
    let before = MEMORY.current_usage();
    MEMORY.reset_peak_usage();
    let result = Checkpoint::from_bytes("hostile", bytes).and_then(|checkpoint| {
        let mut elements = 0;
        for (_, entry) in checkpoint.iter() {
            let values = entry.to_f32()?;
            assert_eq!(values.len(), entry.elements());
            elements += values.len();
        }
        Ok(elements)
    });
    let peak = MEMORY.peak_usage().saturating_sub(before);
    assert!(peak <= bound, "{peak} bytes where {bound} are allowed");
    result
}

#[track_caller]
fn refused(bytes: Vec<u8>, why: &str) {
    match read(bytes) {
        Err(Error::Format { message, .. }) => assert!(message.contains(why), "{message:?} does not say {why:?}"),
        other => panic!("{other:?} instead of {why:?}"),
    }
}

fn file(name: &str) -> Vec<u8> {
    let folder = if name.starts_with("reads_") { "data_trainers" } else { "data" };
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests", folder, name].iter().collect();
    std::fs::read(path).unwrap()
}

const FILES: [&str; 16] = [
    "plain.safetensors",
    "zip.pth",
    "zip_views.pth",
    "zip_deflated.pth",
    "zip_training.pth",
    "zip_protocol4.pth",
    "legacy.pth",
    "legacy_views.pth",
    "legacy_dtypes.pth",
    "tar.pth",
    "scripted.pt",
    "traced.pt",
    "reads_training.pth",
    "reads_training_protocol4.pth",
    "reads_training_legacy.pth",
    "reads_subclass.pth",
];

// --- archives and pickles made by hand -------------------------------------------------------------------------------

/// An entry of a zip archive as its directory claims it to be.
struct Claim {
    name: &'static str,
    method: u16,
    data: Vec<u8>,
    size: u32,
}

fn stored(name: &'static str, data: &[u8]) -> Claim {
    Claim { name, method: 0, data: data.to_vec(), size: data.len() as u32 }
}

fn zip(entries: &[Claim]) -> Vec<u8> {
    let (mut file, mut directory) = (Vec::new(), Vec::new());
    for entry in entries {
        let mut common = [20, 0, 0, 0].map(|field: u8| field).to_vec();
        common.extend(entry.method.to_le_bytes());
        common.extend([0; 8]);
        common.extend((entry.data.len() as u32).to_le_bytes());
        common.extend(entry.size.to_le_bytes());
        common.extend((entry.name.len() as u16).to_le_bytes());
        common.extend([0; 2]);
        directory.extend(*b"PK\x01\x02\x14\x00");
        directory.extend(&common);
        directory.extend([0; 10]);
        directory.extend((file.len() as u32).to_le_bytes());
        directory.extend(entry.name.as_bytes());
        file.extend(*b"PK\x03\x04");
        file.extend(common);
        file.extend(entry.name.as_bytes());
        file.extend(&entry.data);
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

/// A `.pth` whose pickle is `pickle`, with one storage of four floats.
fn pth(pickle: &[u8]) -> Vec<u8> {
    let floats: Vec<u8> = [1.0f32, 2.0, 3.0, 4.0].into_iter().flat_map(f32::to_le_bytes).collect();
    zip(&[stored("a/data.pkl", pickle), stored("a/data/0", &floats)])
}

/// The pickle of `{"t": tensor}` with the storage "0" and the fields given as pickled integers.
fn tensor(elements: &[u8], offset: &[u8], shape: &[u8], strides: &[u8]) -> Vec<u8> {
    let mut pickle = b"\x80\x02}X\x01\0\0\0tctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storage".to_vec();
    pickle.extend(*b"ctorch\nFloatStorage\nX\x01\0\0\0\x30X\x03\0\0\0cpu");
    pickle.extend(elements);
    pickle.extend(*b"tQ");
    pickle.extend(offset);
    for numbers in [shape, strides] {
        pickle.push(b'(');
        pickle.extend(numbers);
        pickle.push(b't');
    }
    pickle.extend(*b"\x89NtRs.");
    pickle
}

fn safetensors(header: &str, data: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header.as_bytes());
    file.resize(file.len() + data, 0);
    file
}

const HUGE: &[u8] = b"\x8a\x08\xff\xff\xff\xff\xff\xff\xff\x7f";

// --- what each is refused for ----------------------------------------------------------------------------------------

#[test]
fn nothing_known() {
    let _alone = alone();
    refused(Vec::new(), "empty");
    refused(b"<!DOCTYPE html>".to_vec(), "web page");
    refused(b"version https://git-lfs.github.com/spec/v1\n".to_vec(), "Git LFS");
    refused(b"\x93NUMPY\x01\0".to_vec(), "neither safetensors nor");
    refused(vec![0; 4096], "neither safetensors nor");
    refused(b"\x80\x02K\x01.".to_vec(), "magic number");
}

#[test]
fn every_truncation_of_every_format() {
    let _alone = alone();
    for name in FILES {
        let whole = file(name);
        let elements = read(whole.clone()).unwrap();
        assert!(elements > 0);
        let step = (whole.len() / 400).max(1);
        for len in (0..whole.len()).step_by(step).chain(whole.len().saturating_sub(40)..whole.len()) {
            // What a tar file ends with is padding, whose loss changes nothing.
            match read(whole[..len].to_vec()) {
                Ok(read) => assert!(name == "tar.pth" && read == elements, "{name}: cut to {len} bytes"),
                Err(Error::Format { .. }) => {}
                Err(other) => panic!("{name}: cut to {len} bytes: {other:?}"),
            }
        }
    }
}

#[test]
fn safetensors_headers() {
    let _alone = alone();
    let one = |dtype: &str, shape: &str, from: u64, to: u64| {
        format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":[{from},{to}]}}}}"#)
    };
    assert_eq!(read(safetensors(&one("F32", "[2]", 0, 8), 8)).unwrap(), 2);
    refused(b"\xff\xff\xff\xff\xff\xff\xff\x7f{}".to_vec(), "a header of");
    refused(b"\xff\xff\xff\0\0\0\0\0{}".to_vec(), "the header would take");
    refused(safetensors("{", 0), "the header:");
    refused(safetensors("{}", 0), "no tensors");
    refused(safetensors(&"{\"a\":".repeat(100_000), 0), "the header:");
    refused(safetensors(&one("F32", "[2]", 0, 8), 7), "do not fill the file");
    refused(safetensors(&one("F32", "[2]", 0, 8), 9), "do not fill the file");
    refused(safetensors(&one("F32", "[2]", 8, 0), 8), "overlap");
    refused(safetensors(&one("F32", "[3]", 0, 8), 8), "does not fill its 8 bytes");
    refused(safetensors(&one("F32", "[4611686018427387904,8]", 0, 8), 8), "more elements than can be counted");
    refused(safetensors(&one("F32", "[4611686018427387904]", 0, 0), 0), "does not fill");
    refused(safetensors(&one("F32", "[-1]", 0, 8), 8), "the header:");
    refused(safetensors(&one("F8_E4M3", "[8]", 0, 8), 8), "`F8_E4M3`");
    refused(safetensors(&one("F32", &format!("[{}0]", "0,".repeat(100)), 0, 0), 0), "rank 101");
    let two = |first: &str, second: &str| {
        let tensor =
            |name: &str, span: &str| format!(r#""{name}":{{"dtype":"U8","shape":[4],"data_offsets":[{span}]}}"#);
        format!("{{{},{}}}", tensor("a", first), tensor("b", second))
    };
    assert_eq!(read(safetensors(&two("4,8", "0,4"), 8)).unwrap(), 8);
    refused(safetensors(&two("0,4", "2,6"), 6), "overlap");
    refused(safetensors(&two("0,4", "5,9"), 9), "holes");
    refused(safetensors(&two("0,4", "0,4"), 4), "overlap");
    let twice = two("0,4", "4,8").replace("\"b\"", "\"a\"");
    refused(safetensors(&twice, 8), "named twice");
}

#[test]
fn zip_directories() {
    let _alone = alone();
    let good = pth(&tensor(b"K\x04", b"K\0", b"K\x04", b"K\x01"));
    assert_eq!(read(good.clone()).unwrap(), 4);
    let directory = good.windows(4).position(|bytes| bytes == b"PK\x01\x02").unwrap();
    let end = good.len() - 22;
    let with = |at: usize, bytes: &[u8]| {
        let mut file = good.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    refused(with(end, b"XX"), "without its end");
    refused(with(end + 10, &[0xff; 2]), "a zip directory of 65535 entries");
    refused(with(end + 12, &[0xff; 4]), "reaches outside the file");
    refused(with(end + 16, &[0xff; 4]), "reaches outside the file");
    refused(with(directory, b"XX"), "ends early");
    refused(with(directory + 8, &[1]), "encrypted");
    refused(with(directory + 10, &[12]), "compressed by method 12");
    refused(with(directory + 20, &[0xfe; 4]), "and claims");
    refused(with(directory + 20, &[0xff; 4]), "too large for its directory");
    refused(with(directory + 20, &[0xfe; 8]), "a zip entry would take");
    refused(with(directory + 42, &[7, 0, 0, 0]), "no header where it should be");
    refused(with(directory + 42, &[0xff, 0xff, 0xff, 0x7f]), "would take");
    refused(zip(&[stored("a/data.pkl", b""), stored("a/data.pkl", b"")]), "twice");
    refused(zip(&[stored("a/data.pkl", b""), stored("b/data.pkl", b"")]), "more than one");
    refused(zip(&[stored("a/b/data.pkl", b"")]), "without `data.pkl`");
    refused(zip(&[stored("a/data.pkl", b"}.")]), "no tensors");
    refused(zip(&[stored("a/data.pkl", b"")]), "ends in the middle");
    refused(zip(&[stored("a/byteorder", b"middle"), stored("a/data.pkl", b"}.")]), "unknown byte order");

    // Two names for one local header: the trick of a zip bomb.
    let second = directory + 46 + "a/data.pkl".len() + 42;
    refused(with(second, &[0; 4]), "overlap");

    // A zip64 locator that leads to another end.
    let mut far = good[..end].to_vec();
    far.extend(*b"PK\x06\x07\0\0\0\0");
    far.extend([0xff; 8]);
    far.extend([1, 0, 0, 0]);
    far.extend(&good[end..]);
    refused(far, "the zip64 end record would take");
}

#[test]
fn zip_bombs() {
    let _alone = alone();
    let zeros = vec![0; 64 << 20];
    let packed = miniz_oxide::deflate::compress_to_vec(&zeros, 9);
    assert!(packed.len() < 100_000);
    let bomb = |size: u32| {
        let pickle = Claim { name: "a/data.pkl", method: 8, data: packed.clone(), size };
        zip(&[pickle])
    };
    drop(zeros);
    // Declared in full; declared small; declared as something that is within the bound and not true.
    refused(bomb(64 << 20), "claims to inflate");
    refused(bomb(1000), "does not inflate to the 1000 bytes");
    refused(bomb(100_000), "does not inflate to the 100000 bytes");
    // Many storages that each are within the bound.
    let part = miniz_oxide::deflate::compress_to_vec(&vec![0; 20_000], 9);
    const NAMES: [&str; 10] = [
        "a/data/0", "a/data/1", "a/data/2", "a/data/3", "a/data/4", "a/data/5", "a/data/6", "a/data/7", "a/data/8",
        "a/data/9",
    ];
    let mut pickle = b"\x80\x02}".to_vec();
    for key in b'0'..=b'9' {
        let mut bytes = tensor(b"M\x88\x13", b"K\0", b"K\x01", b"K\x01");
        bytes.truncate(bytes.len() - 1);
        bytes[8] = key;
        let at = bytes.windows(6).position(|window| window == b"X\x01\0\0\0\x30").unwrap();
        bytes[at + 5] = key;
        pickle.extend(&bytes[3..]);
    }
    pickle.push(b'.');
    let storage = |&name: &&'static str| Claim { name, method: 8, data: part.clone(), size: 20_000 };
    let mut entries = vec![stored("a/data.pkl", &pickle)];
    entries.extend(NAMES.iter().take(2).map(storage));
    let few = zip(&entries);
    refused(few, "the storage `2` is not in the archive");
    entries.extend(NAMES.iter().skip(2).map(storage));
    refused(zip(&entries), "claims to inflate");
}

#[test]
fn pickles_that_would_run_something() {
    let _alone = alone();
    for (pickle, why) in [
        (&b"\x80\x02cos\nsystem\nX\x04\0\0\0true\x85R."[..], "`os.system`"),
        (b"\x80\x02cposix\nsystem\n.", "`posix.system`"),
        (b"\x80\x02cbuiltins\neval\n.", "`builtins.eval`"),
        (b"\x80\x04\x8c\x02os\x8c\x06system\x93.", "`os.system`"),
        (b"\x80\x02ctorch\nload\n.", "`torch.load`"),
        (b"\x80\x02ctorch._utils\n_rebuild_qtensor\n.", "_rebuild_qtensor"),
        (b"\x80\x02c__torch__.a\nNet\n)\x81.", "`__torch__.a.Net`"),
        (b"\x80\x02ctorch.jit._pickle\nrestore_type_tag\n.", "restore_type_tag"),
        (b"\x80\x02ctorch\nFloatStorage\n)R.", "no reason to call"),
        (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "makes an instance"),
        (b"\x80\x02K\x01)R.", "calls an int"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x01R.", "with an int"),
        (b"\x80\x02ccollections\nOrderedDict\nK\x01\x85R.", "else than pairs"),
        (b"\x80\x02ctorch\nSize\n)R.", "without arguments"),
        (b"\x80\x04)}\x92.", "empty stack"),
        (b"\x80\x04K\x01)}\x92.", "makes an instance of an int"),
        (b"\x80\x04](K\x01\x90.", "adds to a list"),
        (b"\x80\x02cpip._internal\nmain\n.", "`pip._internal.main`"),
        (b"\x80\x02c__builtin__\nexec\n.", "`__builtin__.exec`"),
        // INST, OBJ, PERSID, EXT1, NEXT_BUFFER, DUP and the text opcodes of protocol 0.
        (b"\x80\x02(ios\nsystem\n.", "opcode 0x69"),
        (b"\x80\x02(o.", "opcode 0x6f"),
        (b"\x80\x02P0\n.", "opcode 0x50"),
        (b"\x80\x02\x82\x01.", "opcode 0x82"),
        (b"\x80\x05\x97.", "opcode 0x97"),
        (b"\x80\x022.", "opcode 0x32"),
        (b"\x80\x020.", "empty stack"),
        (b"\x80\x021.", "did not open"),
        (b"\x80\x02I1\n.", "opcode 0x49"),
        (b"\xff", "opcode 0xff"),
        (b"\x80\x01.", "protocol 1"),
        (b"\x80\x06.", "protocol 6"),
        (b"\x80\x02.", "empty stack"),
        (b"\x80\x02K\x01(.", "empty stack"),
        (b"\x80\x02q\x01.", "empty stack"),
        (b"\x80\x02t.", "did not open"),
        (b"\x80\x02h\x07.", "object 7"),
        (b"\x80\x02K\x01K\x02a.", "appends to an int"),
        (b"\x80\x02]K\x02K\x03s.", "sets items of a list"),
        (b"\x80\x02}(K\x01u.", "without a value"),
        (b"\x80\x02K\x01Nb.", "sets attributes of an int"),
        (b"\x80\x02K\x01Q.", "no storage"),
        (b"\x80\x02ca.b\nC\nQ.", "no storage"),
        (b"\x80\x02ca.b\nC\n)RQ.", "no storage"),
        (b"\x80\x02(X\x07\0\0\0storageca.b\nC\nX\x01\0\0\0\x30NK\x04tQ.", "no storage"),
        (b"\x80\x02ca.b\nC\n)R.", "holds an object of `a.b.C`"),
        (b"\x80\x02ca.b\nC\n.", "holds the name `a.b.C`"),
        (b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\xff.", "bytes in a pickle would take"),
        (b"\x80\x02B\xff\xff\xff\xff.", "bytes in a pickle would take"),
        (b"\x80\x02\x8b\xff\xff\xff\xff.", "bytes in a pickle would take"),
        (b"\x80\x02X\xff\xff\xff\xffa.", "a text of 4294967295 bytes"),
        (b"\x80\x04\x8d\xff\xff\xff\xff\xff\xff\xff\xffa.", "a text of 18446744073709551615 bytes"),
        (b"\x80\x02X\x01\0\0\0\xff.", "not UTF-8"),
        (b"\x80\x02K\x01.", "holds an int"),
        (b"\x80\x02].", "holds a list"),
    ] {
        refused(pth(pickle), why);
    }
    refused(pth(&[b"\x80\x02c".as_slice(), &[b'a'; 2000], b"\n."].concat()), "a name longer than");
    // Beside a tensor that is in order, in a value that nobody asks for.
    let mut beside = tensor(b"K\x04", b"K\0", b"K\x04", b"K\x01");
    assert_eq!(beside.pop(), Some(b'.'));
    beside.extend(*b"X\x01\0\0\0ecos\nsystem\nX\x04\0\0\0true\x85Rs.");
    refused(pth(&beside), "`os.system`");
}

#[test]
fn pickles_that_grow() {
    let _alone = alone();
    let of = |start: &[u8], part: &[u8], times: usize, end: &[u8]| pth(&[start, &part.repeat(times), end].concat());
    // Nesting that would overflow a recursive reader or its destructor.
    refused(of(b"\x80\x02)", b"\x85", 500_000, b"."), "holds a tuple");
    refused(of(b"\x80\x02", b"]", 500_000, b"."), "holds a list");
    let nested = [&b"}X\x01\0\0\0a".repeat(100)[..], b"N", &b"s".repeat(100)].concat();
    refused(of(b"\x80\x02", &nested, 1, b"."), "nest deeper");
    refused(of(b"\x80\x02", b"N", 2_000_000, b"."), "more than 1048576 steps");
    // A dictionary that contains itself, and thirty that each contain the next twice.
    refused(pth(b"\x80\x02}q\0X\x01\0\0\0ah\0s."), "nest deeper");
    let mut doubling = b"\x80\x02}q\0".to_vec();
    for level in 0..30u8 {
        doubling.extend([b'}', b'(', b'X', 1, 0, 0, 0, b'a', b'h', level, b'X', 1, 0, 0, 0, b'b', b'h', level, b'u']);
        doubling.extend([b'q', level + 1]);
    }
    doubling.push(b'.');
    refused(pth(&doubling), "without end");
    // A long list of pairs, made a dictionary of again and again.
    let mut copies = b"\x80\x02](".to_vec();
    copies.extend(b"K\x01K\x01\x86".repeat(10_000));
    copies.extend(*b"e\x85q\x01ccollections\nOrderedDict\nq\x02");
    copies.extend(b"h\x02h\x01R".repeat(10_000));
    copies.push(b'.');
    refused(pth(&copies), "no tensors");
}

/// What is opaque is not kept: neither what it is called with, nor what is put into it, nor how often.
#[test]
fn opaque_values_that_grow() {
    let _alone = alone();
    let of = |start: &[u8], part: &[u8], times: usize, end: &[u8]| pth(&[start, &part.repeat(times), end].concat());
    let class: &[u8] = b"\x80\x02ca.b\nC\nq\0";
    for (part, times) in [
        // Calls of calls, instances, attributes, items, appended items, sets, keyword arguments, all of a class that
        // the memo holds.
        (&b")R"[..], 500_000),
        (b"h\0)R0", 250_000),
        (b"h\0)\x810", 250_000),
        (b"Nb", 500_000),
        (b"}b", 500_000),
        (b"NNs", 300_000),
        (b"(NNNNu", 170_000),
        (b"Na", 500_000),
        (b"(NNNe", 200_000),
        (b"\x8f(NN\x900", 170_000),
        (b"(N\x910", 250_000),
        (b"h\0)}\x920", 200_000),
        // The memo, which keeps the last.
        (b"q\x01", 500_000),
        (b"r\xff\xff\xff\x7f", 200_000),
        (b"\x94", 1_000_000),
        (b"ca.b\nC\n0", 300_000),
    ] {
        refused(of(class, part, times, b"."), "`a.b.C`");
    }
    // More than the steps that a pickle may take, in a file that is long enough.
    refused(of(class, b")R", 600_000, b"."), "more than 1048576 steps");
    // Arguments that contain one another, deeper than a stack would bear, given to a class, as its state and its items.
    let deep = [&b")"[..], &b"\x85".repeat(400_000)].concat();
    for end in [&b"R."[..], b"\x81.", b"b.", b"a."] {
        refused(pth(&[class, &deep, end].concat()), "`a.b.C`");
    }
    // `_rebuild_from_type_v2` of itself, again and again, as its own arguments.
    let mut nested = b"\x80\x02ctorch._tensor\n_rebuild_from_type_v2\nq\0)q\x010".to_vec();
    nested.extend(b"(h\0Nh\x01Ntq\x010".repeat(80_000));
    nested.extend(*b"h\x01R.");
    refused(pth(&nested), "without its arguments");
    // A long name, and names made of every pair of two lists of long texts.
    let long = [&b"X\xe8\x03\0\0"[..], &[b'a'; 1000]].concat();
    refused(pth(&[b"\x80\x04", &long[..], b"q\0h\0\x93."].concat()), "a name longer than 1024 bytes");
    let mut pairs = b"\x80\x04".to_vec();
    for key in 0..200u8 {
        pairs.extend(
            [&b"X\xf4\x01\0\0"[..], &[key % 26 + b'a'; 498], &[b'a' + key / 26, b'z', b'q', key, b'0']].concat(),
        );
    }
    for module in 0..200u8 {
        pairs.extend((0..200u8).flat_map(|name| [b'h', module, b'h', name, 0x93, b'0']));
    }
    pairs.extend(*b"}.");
    refused(pth(&pairs), "no tensors");
    // The same opaque value under many names, of which the file has few letters.
    let mut many = [class, b"0}("].concat();
    for key in 0..60_000u32 {
        many.push(b'J');
        many.extend((key + 1_000_000).to_le_bytes());
        many.extend(*b"h\0");
    }
    many.extend(*b"u.");
    refused(pth(&many), "no tensors");
}

/// An array of NumPy as protocol 2 writes it: a text, here of more than a megabyte, that is read past.
#[test]
fn long_texts_beside_tensors_are_read_past() {
    let _alone = alone();
    let mut pickle = tensor(b"K\x04", b"K\0", b"K\x04", b"K\x01");
    assert_eq!(pickle.pop(), Some(b'.'));
    pickle.extend(*b"X\x01\0\0\0ac_codecs\nencode\nX");
    pickle.extend(3_000_000u32.to_le_bytes());
    pickle.extend("\u{ff}".repeat(1_500_000).bytes());
    pickle.extend(*b"X\x06\0\0\0latin1\x86Rs.");
    assert_eq!(read(pth(&pickle)).unwrap(), 4);
}

/// What lies beside the dictionary that is read is no reason to refuse the file, and costs no more than the file.
#[test]
fn faults_beside_the_parameters() {
    let _alone = alone();
    let good = tensor(b"K\x04", b"K\0", b"K\x04", b"K\x01");
    let inner = &good[2..good.len() - 1];
    let with = |beside: &[u8]| {
        let mut pickle = b"\x80\x02}X\x06\0\0\0params".to_vec();
        pickle.extend(inner);
        pickle.push(b's');
        pickle.extend(beside);
        pickle.push(b'.');
        pth(&pickle)
    };
    assert_eq!(read(with(b"")).unwrap(), 4);
    // A tensor whose storage is not there, a dictionary that contains itself, thirty that contain the next twice.
    let mut gone = tensor(b"K\x04", b"K\0", b"K\x04", b"K\x01");
    let at = gone.windows(6).position(|window| window == b"X\x01\0\0\0\x30").unwrap();
    gone[at + 5] = b'9';
    assert_eq!(read(with(&[b"X\x01\0\0\0o", &gone[2..gone.len() - 1], b"s"].concat())).unwrap(), 4);
    assert_eq!(read(with(b"X\x01\0\0\0o}q\0X\x01\0\0\0ah\0ss")).unwrap(), 4);
    let mut nested = b"}q\x000".to_vec();
    for level in 0..30u8 {
        nested.extend([b'}', b'(', b'X', 1, 0, 0, 0, b'a', b'h', level, b'X', 1, 0, 0, 0, b'b', b'h', level, b'u']);
        nested.extend([b'q', level + 1, b'0']);
    }
    nested.extend(*b"X\x01\0\0\0oh\x1es");
    assert_eq!(read(with(&nested)).unwrap(), 4);
}

#[test]
fn tensors_that_reach_outside() {
    let _alone = alone();
    let one = b"K\x01";
    for (elements, offset, shape, strides, why) in [
        (&b"K\x05"[..], &b"K\0"[..], &b"K\x04"[..], &one[..], "a storage would take"),
        (HUGE, b"K\0", b"K\x04", one, "a storage would take"),
        (b"K\x04", b"K\x01", b"K\x04", one, "reach outside a storage of 4"),
        (b"K\x04", b"K\0", b"K\x03", b"K\x02", "reach outside a storage of 4"),
        (b"K\x04", HUGE, b"K\x04", one, "reach outside"),
        (b"K\x04", b"K\0", b"K\x02", HUGE, "reach outside"),
        (b"K\x04", b"K\0", HUGE, one, "over a storage of 4"),
        (b"K\x04", b"K\0", HUGE, b"K\0", "over a storage of 4"),
        (b"K\x04", b"K\0", b"J\0\0\0\x08J\0\0\0\x08J\0\0\0\x08", b"K\0K\0K\0", "more elements than can be counted"),
        (b"K\x04", b"K\0", b"J\xff\xff\xff\xff", one, "-1 where a size belongs"),
        (b"K\x04", b"J\xff\xff\xff\xff", one, one, "-1 where a size belongs"),
        (b"K\x04", b"K\0", b"K\x02K\x02", one, "rank 2 with 1 strides"),
        (b"K\x04", b"K\0", b"N", one, "something else where a size belongs"),
        (b"N", b"K\0", one, one, "something else where a size belongs"),
        (b"K\x04", b"K\x05", b"K\0", one, "reach outside"),
    ] {
        refused(pth(&tensor(elements, offset, shape, strides)), why);
    }
    // Expanded by a stride of zero: allowed, within bounds.
    assert_eq!(read(pth(&tensor(b"K\x04", b"K\0", b"M\xe8\x03M\xe8\x03", b"K\0K\0"))).unwrap(), 1_000_000);
    refused(pth(&tensor(b"K\x04", b"K\0", b"M\xff\x07M\xff\x07", b"K\0K\0")), "over a storage of 4");
    let ones = b"K\x01".repeat(100);
    refused(pth(&tensor(b"K\x04", b"K\0", &ones, &ones)), "rank 100");
}

/// Not hostile, but no PyTorch of today writes it: byte strings and a list of pairs from Python 2, `_rebuild_tensor`, a
/// CUDA storage, and a view of a storage.
#[test]
fn spellings_of_old() {
    let _alone = alone();
    let mut tensor =
        b"ctorch._utils\n_rebuild_tensor\n((U\x07storagectorch.cuda\nFloatStorage\nU\x03keyU\x06cuda:0K\x04".to_vec();
    tensor.extend(*b"(U\x03subK\x01K\x03ttQK\x01K\x02\x85K\x01\x85tR");
    let pickle = [b"\x80\x02ccollections\nOrderedDict\n]]U\x01ta".as_slice(), &tensor, b"aa\x85R."].concat();
    let mut legacy = b"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.".to_vec();
    legacy.extend(*b"\x80\x02}U\x0dlittle_endian\x88s.");
    legacy.extend(pickle);
    legacy.extend(*b"\x80\x02]U\x03keya.\x04\0\0\0\0\0\0\0");
    legacy.extend([1.0f32, 2.0, 3.0, 4.0].into_iter().flat_map(f32::to_le_bytes));
    let checkpoint = Checkpoint::from_bytes("old", legacy.clone()).unwrap();
    assert_eq!(checkpoint.get("t").unwrap().to_f32().unwrap(), [3.0, 4.0]);
    // The view may not reach outside its storage, nor the tensor outside the view.
    let view = legacy.windows(7).position(|window| window == b"subK\x01K\x03").unwrap();
    for (at, value, why) in [(4, 2, "a view reaches outside"), (6, 2, "reach outside a storage of 2")] {
        let mut changed = legacy.clone();
        changed[view + at] = value;
        refused(changed, why);
    }
}

#[test]
fn legacy_files() {
    let _alone = alone();
    let whole = file("legacy_views.pth");
    let replace = |from: &[u8], to: &[u8]| {
        let at = whole.windows(from.len()).position(|window| window == from).unwrap();
        [&whole[..at], to, &whole[at + from.len()..]].concat()
    };
    refused(replace(b"\x6c\xfc\x9c\x46", b"\x6c\xfc\x9c\x47"), "magic number");
    refused(replace(b"M\xe9\x03", b"M\xe8\x03"), "not version 1001");
    refused(replace(b"little_endian", b"larger_endian"), "byte order");
    // The storages' own lengths, in front of their elements: the first is the last-written table's end.
    let key_list = whole.windows(2).rposition(|window| window == b"e.").unwrap() + 2;
    let mut longer = whole.clone();
    longer[key_list..key_list + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    refused(longer, "elements, not");
}

#[test]
fn tar_files() {
    let _alone = alone();
    let whole = file("tar.pth");
    let with = |at: usize, bytes: &[u8]| {
        let mut file = whole.clone();
        file[at..at + bytes.len()].copy_from_slice(bytes);
        file
    };
    refused(with(124, b"77777777777"), "a tar member would take");
    refused(with(124, b"zzz"), "has no size");
    refused(with(124, &[0x80, 0xff]), "has no size");
    let header = |name: &[u8]| {
        (0..whole.len() / 512).map(|block| block * 512).find(|&at| whole[at..].starts_with(name)).unwrap()
    };
    refused(with(header(b"storages"), b"storage_"), "without `storages`");
    refused(with(header(b"tensors"), b"pickle\0"), "two members");
    // The number of elements of the first storage follows its pickle.
    let storages = header(b"storages") + 512;
    let count = storages + whole[storages + 4..].windows(1).position(|byte| byte == b".").unwrap();
    let first = count + whole[count + 6..].windows(1).position(|byte| byte == b".").unwrap() + 7;
    let mut changed = whole.clone();
    let at = (first..first + 400).find(|&at| whole[at..].starts_with(&24u64.to_le_bytes())).unwrap();
    changed[at..at + 8].copy_from_slice(&u64::MAX.to_le_bytes());
    refused(changed, "a storage would take");
    // The rank of the first tensor.
    let tensors = header(b"tensors") + 512;
    let at = (tensors..tensors + 400).find(|&at| whole[at..].starts_with(&[2, 0, 0, 0, 0, 0, 0, 0])).unwrap();
    refused(with(at, &[0xff; 4]), "a tensor of rank 4294967295");
    refused(with(at + 8, &[0xff; 8]), "");
}

// --- damage at random ------------------------------------------------------------------------------------------------

proptest! {
    #![proptest_config(drawn(2000))]

    #[test]
    fn drawn_damaged_files_never_panic(
        which in 0..FILES.len(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in prop::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let _alone = alone();
        let mut bytes = file(FILES[which]);
        for (at, value) in &flips {
            let at = at.index(bytes.len());
            bytes[at] = *value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        let _ = read(bytes);
    }

    #[test]
    fn drawn_damaged_pickles_never_panic(
        which in 0..FILES.len(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        insert in prop::option::of((any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 1..8))),
    ) {
        let _alone = alone();
        // The bytes of the other formats' pickles and numbers, where a zip file's pickle belongs.
        let mut bytes = file(FILES[which]);
        if let Some(at) = bytes.windows(2).position(|window| matches!(window, b"\x80\x02" | b"\x80\x04")) {
            bytes.drain(..at);
        }
        for (at, value) in &flips {
            let at = at.index(bytes.len().min(600));
            bytes[at] = *value;
        }
        if let Some((at, part)) = insert {
            let at = at.index(bytes.len().min(600));
            bytes.splice(at..at, part);
        }
        let _ = read(pth(&bytes));
    }
}
