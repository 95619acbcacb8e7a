//! An interrupted `verify` leaves no file behind: not where it runs, not for temporary files, not among the cases.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// Every file below a directory with its bytes.
fn files(directory: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.append(&mut files(&path));
        } else {
            found.insert(path.clone(), std::fs::read(&path).unwrap());
        }
    }
    found
}

#[test]
fn verify_leaves_nothing() {
    let here = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("interrupted");
    // What a run before this one may have left would hide what this one leaves.
    let _ = std::fs::remove_dir_all(&here);
    let cases = here.join("cases").join("pixelwise");
    std::fs::create_dir_all(&cases).unwrap();
    for case in std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("reference/pixelwise")).unwrap() {
        let case = case.unwrap().path();
        std::fs::copy(&case, cases.join(case.file_name().unwrap())).unwrap();
    }
    let before = files(&here);
    assert!(!before.is_empty(), "no cases");
    let start = || {
        Command::new(env!("CARGO_BIN_EXE_xtask"))
            .args(["verify", "--format", "json", "--reference"])
            .arg(here.join("cases"))
            .current_dir(&here)
            .env("TMPDIR", &here)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    let unchanged = |when: &str| {
        let after = files(&here);
        assert!(after == before, "{when}: {:?}", after.keys().collect::<Vec<_>>());
    };
    // To the end: a program that cannot start would leave nothing either.
    let status = start().wait().unwrap();
    assert_eq!(status.code(), Some(0), "{status}");
    unchanged("at the end");
    // From at once to well into the cases.
    for milliseconds in [0, 20, 100, 500] {
        let mut child = start();
        std::thread::sleep(Duration::from_millis(milliseconds));
        let ended = child.try_wait().unwrap();
        assert!(ended.is_none_or(|status| status.success()), "{ended:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        unchanged(&format!("after {milliseconds} ms"));
    }
}
