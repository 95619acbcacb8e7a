//! Tables that the code writes into documents.

use std::path::PathBuf;

use image_losses::cli::Outcome;

use crate::Stop;
use crate::command::root;

/// The place of a table in a document, between two comments.
pub(crate) struct InDocument {
    /// The document, from the root on.
    pub(crate) path: &'static [&'static str],
    /// The comments before and after the table, each a line.
    pub(crate) marks: [&'static str; 2],
}

impl InDocument {
    fn path(&self) -> PathBuf {
        self.path.iter().fold(root(), |path, part| path.join(part))
    }

    /// The document as it is, and with this table.
    fn texts(&self, table: &str) -> Result<[String; 2], Stop> {
        let path = self.path();
        let text = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        let [start, end] = self.marks;
        let parts = text.split_once(start).and_then(|(before, rest)| Some((before, rest.split_once(end)?.1)));
        let (before, after) =
            parts.ok_or_else(|| format!("{} has no table between {start:?} and {end:?}", path.display()))?;
        let written = [before, start, table, end, after].concat();
        Ok([text, written])
    }

    /// Whether the document has this table.
    #[cfg(test)]
    pub(crate) fn is_written(&self, table: &str) -> Result<bool, Stop> {
        self.texts(table).map(|[text, written]| text == written)
    }

    /// Prints the table, or writes it into the document.
    pub(crate) fn show(&self, table: &str, write: bool) -> Result<Outcome, Stop> {
        if write {
            let [_, written] = self.texts(table)?;
            std::fs::write(self.path(), written).map_err(|error| format!("{}: {error}", self.path().display()))?;
        } else {
            print!("{table}");
        }
        Ok(Outcome::Success)
    }
}
