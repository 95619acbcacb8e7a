//! Every link of the documentation leads somewhere: files are there, and so are the headings that anchors name. Links to
//! other sites are not followed.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// What leads to a file of the repository on its site: pages of a registry need it.
const SITE: &str = "https://github.com/image-losses/image-losses/blob/main/";

/// Links and headings of a page.
#[derive(Default)]
struct Page {
    links: Vec<String>,
    anchors: BTreeSet<String>,
}

/// A heading's anchor, as GitHub makes it: small letters, words joined by hyphens, a number where it comes again.
fn anchor(heading: &str, known: &BTreeSet<String>) -> String {
    let kept = heading.to_lowercase().chars().filter(|c| c.is_alphanumeric() || "-_ ".contains(*c)).collect::<String>();
    let anchor = kept.replace(' ', "-");
    let again = (1..).map(|number| format!("{anchor}-{number}"));
    std::iter::once(anchor.clone()).chain(again).find(|anchor| !known.contains(anchor)).unwrap_or(anchor)
}

fn read(text: &str) -> Page {
    let (mut page, mut heading) = (Page::default(), None::<String>);
    for event in Parser::new_ext(text, Options::ENABLE_TABLES) {
        match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                page.links.push(dest_url.to_string())
            }
            Event::Start(Tag::Heading { .. }) => heading = Some(String::new()),
            Event::End(TagEnd::Heading(_)) => {
                let anchor = anchor(&heading.take().unwrap_or_default(), &page.anchors);
                page.anchors.insert(anchor);
            }
            Event::Text(text) | Event::Code(text) => {
                if let Some(heading) = &mut heading {
                    heading.push_str(&text);
                }
            }
            _ => {}
        }
    }
    page
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// What is wrong with a link of the page at `path`, if something is.
fn fault(path: &Path, page: &Page, link: &str) -> Option<String> {
    let (place, fragment) = link.split_once('#').map_or((link, None), |(place, fragment)| (place, Some(fragment)));
    let target = match place.strip_prefix(SITE) {
        Some(below) => root().join(below),
        None if place.contains("://") => return None,
        None if place.is_empty() => path.to_owned(),
        None => path.parent()?.join(place),
    };
    if !target.exists() {
        return Some(format!("{link}: no such file"));
    }
    let fragment = fragment?;
    let is_there = if target == path {
        page.anchors.contains(fragment)
    } else {
        std::fs::read_to_string(&target).is_ok_and(|text| read(&text).anchors.contains(fragment))
    };
    (!is_there).then(|| format!("{link}: no such heading"))
}

#[test]
fn every_link_leads_somewhere() {
    let listed = Command::new("git").args(["ls-files", "*.md"]).current_dir(root()).output().unwrap();
    let files: Vec<PathBuf> = String::from_utf8(listed.stdout).unwrap().lines().map(|line| root().join(line)).collect();
    let (mut faults, mut links) = (Vec::new(), 0);
    for file in &files {
        let page = read(&std::fs::read_to_string(file).unwrap());
        links += page.links.len();
        let found = page.links.iter().filter_map(|link| fault(file, &page, link));
        faults.extend(found.map(|fault| format!("{}: {fault}", file.display())));
    }
    assert!(files.len() > 15 && links > 100, "{} pages, {links} links", files.len());
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn what_leads_nowhere_is_found() {
    let page = read(
        "# One `two`, three\n[a](#one-two-three) [b](#other) [c](nowhere.md) ![d](src/none.rs) [e](src/main.rs)\n# One two three\n",
    );
    assert_eq!(page.anchors.iter().collect::<Vec<_>>(), ["one-two-three", "one-two-three-1"]);
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml");
    let faults: Vec<_> = page.links.iter().map(|link| fault(&path, &page, link)).collect();
    assert_eq!(faults.iter().map(Option::is_some).collect::<Vec<_>>(), [false, true, true, true, false]);
}
