//! The gallery's folder: writes its files there, and deletes nothing that it did not write.
//!
//! A marker file lists what was written. A folder without one is written to only where it is empty. Links are not
//! followed: neither the folder, nor a folder below it, nor a file may be one.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{ErrorKind, Write};
use std::path::{Component, Path, PathBuf};

use crate::Stop;

/// Files by their path below the gallery's folder.
pub(super) type Files = BTreeMap<String, Vec<u8>>;

/// The marker, which lists the paths of the files written, one a line.
const MARKER: &str = ".gallery";
/// A file on its way to its place: an interrupted run leaves no half-written file.
const PARTIAL: &str = ".gallery.partial";

/// Writes the files, and deletes those that an earlier run wrote and that are none of them.
///
/// Refuses a folder that is not empty and has no marker, a file at one of its places that no earlier run wrote, and a link
/// at any place; nothing is changed then.
pub(super) fn write(files: &Files, folder: &Path) -> Result<(), Stop> {
    let written = written(folder)?;
    for name in files.keys().chain(&written).map(String::as_str).chain([MARKER, PARTIAL]) {
        let is_there = check_place(folder, name)?;
        if is_there && files.contains_key(name) && !written.contains(name) {
            let place = folder.join(name);
            return Err(format!("{}: the file is there, and the gallery did not write it", place.display()));
        }
    }
    fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    // The marker first, with all that is and will be there: an interrupted run knows its own files.
    let all: BTreeSet<&str> = files.keys().chain(&written).map(String::as_str).collect();
    put(folder, MARKER, &marker(all.into_iter()))?;
    for (name, bytes) in files {
        put(folder, name, bytes)?;
    }
    for name in written.iter().filter(|name| !files.contains_key(*name)) {
        let place = folder.join(name);
        match fs::remove_file(&place) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(failed(&place, &error)),
            _ => {}
        }
    }
    put(folder, MARKER, &marker(files.keys().map(String::as_str)))
}

/// Where a folder is not what would be written.
pub(super) fn differences(files: &Files, folder: &Path) -> Result<Vec<String>, Stop> {
    let mut expected: BTreeMap<&str, &[u8]> =
        files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice())).collect();
    let marker = marker(files.keys().map(String::as_str));
    expected.insert(MARKER, &marker);
    let mut found: Vec<String> = present(folder)?
        .into_iter()
        .filter(|name| !expected.contains_key(name.as_str()))
        .map(|name| format!("{name}: not of the page"))
        .collect();
    for (name, bytes) in expected {
        if let Err(reason) = check_place(folder, name) {
            found.push(reason);
            continue;
        }
        match fs::read(folder.join(name)) {
            Ok(there) if there == bytes => {}
            Ok(_) => found.push(format!("{name}: out of date")),
            Err(error) => found.push(format!("{name}: {error}")),
        }
    }
    Ok(found)
}

fn failed(place: &Path, error: &std::io::Error) -> Stop {
    format!("{}: {error}", place.display())
}

fn marker<'a>(names: impl Iterator<Item = &'a str>) -> Vec<u8> {
    names.flat_map(|name| [name, "\n"]).collect::<String>().into_bytes()
}

/// What the marker lists: the files that an earlier run wrote.
fn written(folder: &Path) -> Result<BTreeSet<String>, Stop> {
    match fs::symlink_metadata(folder) {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(format!("{}: it is no folder; a link to one is not followed", folder.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(failed(folder, &error)),
    }
    let place = folder.join(MARKER);
    if !check_place(folder, MARKER)? {
        let mut items = fs::read_dir(folder).map_err(|error| failed(folder, &error))?;
        let is_foreign =
            |item: &std::io::Result<fs::DirEntry>| !item.as_ref().is_ok_and(|item| item.file_name() == PARTIAL);
        return match items.find(is_foreign) {
            None => Ok(BTreeSet::new()),
            Some(_) => Err(format!(
                "{}: the folder is not empty, and no `{MARKER}` says what of it the gallery wrote; name a folder that is \
                 empty or not there",
                folder.display()
            )),
        };
    }
    let text = fs::read_to_string(&place).map_err(|error| failed(&place, &error))?;
    let names: BTreeSet<String> = text.lines().map(str::to_owned).collect();
    // What is listed is deleted: nothing outside the folder may be.
    let is_below =
        |name: &str| !name.is_empty() && Path::new(name).components().all(|step| matches!(step, Component::Normal(_)));
    match names.iter().find(|name| !is_below(name)) {
        Some(name) => Err(format!("{}: `{name}` is no path below the folder", place.display())),
        None => Ok(names),
    }
}

/// Whether a file is at a place; refuses a link on the way to it, and anything there that is no file.
fn check_place(folder: &Path, name: &str) -> Result<bool, Stop> {
    let mut place = PathBuf::from(folder);
    let mut steps = Path::new(name).components().peekable();
    while let Some(step) = steps.next() {
        place.push(step);
        let found = match fs::symlink_metadata(&place) {
            Ok(found) => found.file_type(),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(failed(&place, &error)),
        };
        let (fits, wanted) = match steps.peek() {
            Some(_) => (found.is_dir(), "a folder"),
            None => (found.is_file(), "a file"),
        };
        if !fits {
            let came = if found.is_symlink() { "a link" } else { "something else" };
            return Err(format!("{}: expected {wanted}, there is {came}", place.display()));
        }
    }
    Ok(true)
}

/// Writes a file beside its place and moves it there.
fn put(folder: &Path, name: &str, bytes: &[u8]) -> Result<(), Stop> {
    let (partial, place) = (folder.join(PARTIAL), folder.join(name));
    let attempt = || {
        fs::create_dir_all(place.parent().unwrap_or(folder))?;
        match fs::remove_file(&partial) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        fs::File::create_new(&partial)?.write_all(bytes)?;
        fs::rename(&partial, &place)
    };
    attempt().map_err(|error| failed(&place, &error))
}

/// The files of a folder and of those in it; links are listed, not followed.
fn present(folder: &Path) -> Result<BTreeSet<String>, Stop> {
    let mut names = BTreeSet::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(next) = folders.pop() {
        let items = match fs::read_dir(&next) {
            Ok(items) => items,
            Err(error) if error.kind() == ErrorKind::NotFound => continue,
            Err(error) => return Err(failed(&next, &error)),
        };
        for item in items {
            let item = item.map_err(|error| failed(&next, &error))?;
            let path = item.path();
            if item.file_type().map_err(|error| failed(&path, &error))?.is_dir() {
                folders.push(path);
            } else if let Ok(name) = path.strip_prefix(folder) {
                names.insert(name.to_string_lossy().replace('\\', "/"));
            }
        }
    }
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An empty folder of this test's own.
    fn scratch(name: &str) -> PathBuf {
        let folder = std::env::temp_dir().join(format!("image-losses-gallery-{}-{name}", std::process::id()));
        let _ = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn files(listed: &[(&str, &str)]) -> Files {
        listed.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
    }

    /// Every file below a folder with its text.
    fn contents(folder: &Path) -> Vec<(String, String)> {
        let read = |name: String| {
            let text = fs::read_to_string(folder.join(&name)).unwrap();
            (name, text)
        };
        present(folder).unwrap().into_iter().map(read).collect()
    }

    fn put_foreign(folder: &Path, name: &str) {
        let place = folder.join(name);
        fs::create_dir_all(place.parent().unwrap()).unwrap();
        fs::write(place, "foreign").unwrap();
    }

    #[test]
    fn a_second_run_deletes_its_own_stale_files_alone() {
        let folder = scratch("second");
        let out = folder.join("new/gallery");
        write(&files(&[("index.html", "1"), ("plots/a.svg", "a"), ("plots/b.svg", "b")]), &out).unwrap();
        let foreign = [".git/HEAD", "notes.txt", "plots/own.svg", "plots/index.partial"];
        foreign.iter().for_each(|name| put_foreign(&out, name));
        // Left by a run that was interrupted.
        fs::write(out.join(PARTIAL), "half").unwrap();
        let second = files(&[("index.html", "2"), ("plots/b.svg", "b"), ("pictures/c.png", "c")]);
        write(&second, &out).unwrap();
        let found = contents(&out);
        let names: Vec<&str> = found.iter().map(|(name, _)| name.as_str()).collect();
        let expected = [
            MARKER,
            ".git/HEAD",
            "index.html",
            "notes.txt",
            "pictures/c.png",
            "plots/b.svg",
            "plots/index.partial",
            "plots/own.svg",
        ];
        assert_eq!(BTreeSet::from_iter(names), BTreeSet::from(expected));
        for (name, text) in &found {
            let own = second.get(name).map(|bytes| String::from_utf8(bytes.clone()).unwrap());
            let own = own.or((name == MARKER).then(|| "index.html\npictures/c.png\nplots/b.svg\n".to_owned()));
            assert_eq!(*text, own.unwrap_or_else(|| "foreign".to_owned()), "{name}");
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_folder_with_other_files_and_no_marker_is_refused() {
        for name in [".git/HEAD", "index.html", "notes.txt", "below/notes.txt"] {
            let folder = scratch("foreign");
            put_foreign(&folder, name);
            let refused = write(&files(&[("index.html", "1")]), &folder).unwrap_err();
            assert!(refused.contains("not empty"), "{refused}");
            assert_eq!(contents(&folder), [(name.to_owned(), "foreign".to_owned())]);
            fs::remove_dir_all(&folder).unwrap();
        }
    }

    #[test]
    fn a_foreign_file_at_a_place_of_its_own_is_kept() {
        let folder = scratch("kept");
        write(&files(&[("index.html", "1")]), &folder).unwrap();
        put_foreign(&folder, "plots/a.svg");
        let before = contents(&folder);
        let refused = write(&files(&[("index.html", "2"), ("plots/a.svg", "a")]), &folder).unwrap_err();
        assert!(refused.contains("did not write it"), "{refused}");
        assert_eq!(contents(&folder), before);
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_marker_that_leads_outside_is_refused() {
        let folder = scratch("outside");
        put_foreign(&folder, "precious");
        let out = folder.join("out");
        fs::create_dir(&out).unwrap();
        let absolute = folder.join("precious").display().to_string();
        for listed in ["../precious", "plots/../../precious", &absolute, ""] {
            fs::write(out.join(MARKER), format!("index.html\n{listed}\n")).unwrap();
            let refused = write(&files(&[("index.html", "1")]), &out).unwrap_err();
            assert!(refused.contains("no path below"), "{refused}");
            assert!(folder.join("precious").exists() && !out.join("index.html").exists());
        }
        fs::remove_dir_all(&folder).unwrap();
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        use std::os::unix::fs::symlink;
        let folder = scratch("links");
        let elsewhere = folder.join("elsewhere");
        put_foreign(&elsewhere, "a.svg");
        let listed = files(&[("index.html", "1"), ("plots/a.svg", "a")]);
        let kept = || assert_eq!(contents(&elsewhere), [("a.svg".to_owned(), "foreign".to_owned())]);
        let fresh = |name: &str| {
            let out = folder.join(name);
            write(&listed, &out).unwrap();
            out
        };
        // The folder itself, a folder below it, a file to write, a file to delete, the marker.
        let linked = folder.join("linked");
        symlink(&elsewhere, &linked).unwrap();
        assert!(write(&listed, &linked).unwrap_err().contains("link"));
        kept();
        let below = fresh("below");
        fs::remove_dir_all(below.join("plots")).unwrap();
        symlink(&elsewhere, below.join("plots")).unwrap();
        for files in [&listed, &files(&[("index.html", "1")])] {
            assert!(write(files, &below).unwrap_err().contains("link"));
            kept();
        }
        assert!(differences(&listed, &below).unwrap().iter().any(|found| found.contains("link")));
        for name in ["plots/a.svg", MARKER, PARTIAL] {
            let out = fresh("file");
            let _ = fs::remove_file(out.join(name));
            symlink(elsewhere.join("a.svg"), out.join(name)).unwrap();
            for files in [&listed, &files(&[("index.html", "1")])] {
                assert!(write(files, &out).unwrap_err().contains("link"), "{name}");
                kept();
            }
            fs::remove_dir_all(&out).unwrap();
        }
        // A foreign link that is none of the gallery's places stays, and what it leads to.
        let out = fresh("foreign");
        symlink(&elsewhere, out.join("more")).unwrap();
        write(&files(&[("index.html", "2")]), &out).unwrap();
        assert!(out.join("more/a.svg").exists() && !out.join("plots/a.svg").exists());
        kept();
        fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_changed_a_missing_and_a_foreign_file_are_found() {
        let folder = scratch("differences");
        write(&files(&[("plots/a.svg", "old"), ("same", "same"), ("gone", "")]), &folder).unwrap();
        let listed = files(&[("plots/a.svg", "new"), ("same", "same"), ("gone", "")]);
        fs::remove_file(folder.join("gone")).unwrap();
        put_foreign(&folder, "foreign");
        let found = differences(&listed, &folder).unwrap();
        assert_eq!(found.len(), 3, "{found:?}");
        for (found, expected) in found.iter().zip(["foreign: not of the page", "gone: ", "plots/a.svg: out of date"]) {
            assert!(found.starts_with(expected), "{found}");
        }
        // The marker is part of it.
        fs::write(folder.join(MARKER), "same\n").unwrap();
        assert!(differences(&listed, &folder).unwrap().iter().any(|found| found.starts_with(MARKER)));
        fs::remove_dir_all(&folder).unwrap();
    }
}
