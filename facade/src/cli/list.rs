//! Every loss with formula and options.

use clap::{Args, ValueEnum};
use comfy_table::{ContentArrangement, Table, presets};
use serde_json::{Value, json};

use super::{Outcome, Stop};
use crate::config::{Entry, Registry, options};

/// Print every loss with what it is for, its formula, its options and its source.
///
/// Exit codes: 0 success, 2 a type is not known.
#[derive(Debug, Args)]
pub struct List {
    /// Only these types.
    #[arg(value_name = "TYPE")]
    types: Vec<String>,
    /// Only a line for each: its type and what it is for.
    #[arg(long)]
    short: bool,
    /// `json`: an object per loss in one array.
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

/// How losses are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Format {
    /// For people.
    Text,
    /// For programs.
    Json,
}

impl List {
    /// Runs the command.
    ///
    /// # Errors
    /// A type that is not known, in words.
    pub fn run(&self) -> Result<Outcome, Stop> {
        let registry = Registry::standard();
        let entries: Vec<&Entry> = if self.types.is_empty() {
            // Another name of a loss is named with it.
            let is_alias = |name: &str| registry.types().any(|entry| entry.aliases().contains(&name));
            registry.types().filter(|entry| !is_alias(entry.name())).collect()
        } else {
            let entry = |name: &String| {
                registry.get(name).ok_or_else(|| format!("`{}` is no loss of this build", name.escape_debug()))
            };
            self.types.iter().map(entry).collect::<Result<_, _>>()?
        };
        match self.format {
            Format::Json => {
                let described: Vec<Value> = entries.into_iter().map(describe).collect();
                println!("{}", serde_json::to_string_pretty(&described).map_err(|error| error.to_string())?);
            }
            Format::Text if self.short => {
                let mut table = table();
                for entry in entries {
                    table.add_row([entry.name(), entry.about().summary]);
                }
                println!("{}", table.trim_fmt());
            }
            Format::Text => {
                for (number, entry) in entries.into_iter().enumerate() {
                    if number > 0 {
                        println!();
                    }
                    print(entry);
                }
            }
        }
        Ok(Outcome::Success)
    }
}

/// A table without lines, as wide as the terminal.
fn table() -> Table {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic);
    table
}

/// A loss for programs.
fn describe(entry: &Entry) -> Value {
    let about = entry.about();
    json!({
        "type": entry.name(),
        "aliases": entry.aliases(),
        "summary": about.summary,
        "formula": about.formula,
        "source": about.source,
        "options": options(entry),
    })
}

/// A loss for people.
fn print(entry: &Entry) {
    let about = entry.about();
    let aliases =
        if entry.aliases().is_empty() { String::new() } else { format!(", also {}", entry.aliases().join(", ")) };
    println!("{}{aliases}: {}", entry.name(), about.summary);
    println!("  {}", about.formula);
    let mut table = table();
    for option in options(entry) {
        let words = option.description.split_whitespace().collect::<Vec<_>>().join(" ");
        let needed = if option.required { " (required)" } else { "" };
        table.add_row([format!("  {}{needed}", option.name), words]);
    }
    println!("{}", table.trim_fmt());
    println!("  source: {}", about.source);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_loss_says_what_it_is_and_what_its_options_are() {
        let registry = Registry::standard();
        assert!(registry.types().count() > 30);
        for entry in registry.types() {
            let about = entry.about();
            assert!(!about.summary.is_empty() && !about.formula.is_empty() && !about.source.is_empty(), "{entry:?}");
            let options = options(entry);
            assert!(options.iter().all(|option| !option.description.is_empty()), "{entry:?}: {options:?}");
            assert_eq!(options.iter().map(|option| option.name.as_str()).collect::<Vec<_>>(), entry.fields());
        }
    }
}
