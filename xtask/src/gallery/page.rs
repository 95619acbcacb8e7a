//! The gallery's page, as HTML and as Markdown.

use std::fmt::Write;

use maud::{DOCTYPE, Markup, html};

use super::options::Choice;
use crate::losses::Listed;

/// A loss with all that is shown of it.
#[derive(Clone, Debug)]
pub(super) struct Section {
    pub(super) loss: Listed,
    /// What the curves hold fixed; may be empty.
    pub(super) note: &'static str,
    pub(super) choices: Vec<Choice>,
    pub(super) drawings: Vec<Drawing>,
}

/// A picture or a row of them.
#[derive(Clone, Debug)]
pub(super) enum Drawing {
    /// A file with its caption.
    Plot { file: String, caption: String },
    /// Files, each with a name and a line below, and a caption.
    Strip { items: Vec<[String; 3]>, caption: String },
}

const TITLE: &str = "Gallery of losses";

fn introduction() -> String {
    format!(
        "Every loss that a configuration can name: its formula, its options, and what it does. Values and gradients are \
         computed by the library itself, in double precision. λ is `loss_weight`; reduce is the mean, the sum or nothing \
         (`reduction`), with weights where the loss takes them. The rankings distort one photograph in five ways to the \
         same mean squared error ({} dB PSNR), and order them by how much each raises the loss above its value for the \
         photograph itself. Networks have seeded parameters there: with pretrained ones the order is another.",
        super::distortion::DECIBELS
    )
}

const CREDIT: &str = "Photograph: Eileen Collins, NASA, public domain.";

/// The sections of each family, in order.
fn families(sections: &[Section]) -> impl Iterator<Item = &[Section]> {
    sections.chunk_by(|one, next| one.loss.family == next.loss.family)
}

impl Section {
    /// The summary, the other names, and what the curves hold fixed.
    fn summary(&self) -> String {
        let mut text = self.loss.about.summary.to_owned();
        if !self.loss.aliases.is_empty() {
            let names: Vec<String> = self.loss.aliases.iter().map(|name| format!("`{name}`")).collect();
            let _ = write!(text, " Also configured as {}.", names.join(", "));
        }
        if !self.note.is_empty() {
            let _ = write!(text, " Below, {}.", self.note);
        }
        text
    }
}

/// The page for browsers.
pub(super) fn html(sections: &[Section], photographs: &[[String; 3]]) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { (TITLE) " · image-losses" }
                link rel="stylesheet" href="style.css";
            }
            body {
                nav {
                    a href="#top" { strong { "image-losses" } }
                    @for family in families(sections) {
                        h2 { (family[0].loss.family) }
                        ul { @for section in family {
                            li { a href={ "#" (section.loss.name) } { (section.loss.name) } }
                        } }
                    }
                }
                main id="top" {
                    h1 { (TITLE) }
                    p { (with_code(&introduction())) }
                    (strip(photographs, CREDIT))
                    @for family in families(sections) {
                        h2 { (family[0].loss.family) }
                        @for section in family { (article(section)) }
                    }
                }
            }
        }
    };
    page.into_string() + "\n"
}

fn article(section: &Section) -> Markup {
    let Section { loss, choices, drawings, .. } = section;
    html! {
        article id=(loss.name) {
            h3 { a href={ "#" (loss.name) } { (loss.name) } }
            p { (with_code(&section.summary())) }
            pre { (loss.about.formula) }
            @if !choices.is_empty() {
                table {
                    thead { tr { th { "option" } th { "default" } th { "meaning" } } }
                    tbody { @for choice in choices {
                        tr { td { code { (choice.name) } } td { code { (choice.default) } } td { (choice.meaning) } }
                    } }
                }
            }
            @for drawing in drawings { (figure(drawing)) }
            p.source { "Source: " (loss.about.source) }
        }
    }
}

fn figure(drawing: &Drawing) -> Markup {
    match drawing {
        Drawing::Plot { file, caption } => html! {
            figure {
                img src=(file) alt=(caption) loading="lazy";
                figcaption { (caption) }
            }
        },
        Drawing::Strip { items, caption } => strip(items, caption),
    }
}

fn strip(items: &[[String; 3]], caption: &str) -> Markup {
    html! {
        figure {
            div.strip { @for [file, name, note] in items {
                div { img src=(file) alt=(name) loading="lazy"; (name) span { (note) } }
            } }
            figcaption { (caption) }
        }
    }
}

/// Text with `code` in it.
fn with_code(text: &str) -> Markup {
    html! {
        @for (i, part) in text.split('`').enumerate() {
            @if i % 2 == 1 { code { (part) } } @else { (part) }
        }
    }
}

/// The page for repositories' viewers.
pub(super) fn markdown(sections: &[Section], photographs: &[[String; 3]]) -> String {
    let mut page = format!("# {TITLE}\n\n{}\n\n", introduction());
    // Writing into a string does not fail.
    let _ = write!(page, "{}*{CREDIT}*\n\n", row(photographs));
    for family in families(sections) {
        let _ = write!(page, "## {}\n\n", family[0].loss.family);
        let links: Vec<String> = family
            .iter()
            .map(|section| format!("[{0}](#{1})", section.loss.name, section.loss.name.to_lowercase()))
            .collect();
        let _ = write!(page, "{}\n\n", links.join(" · "));
        for section in family {
            let Section { loss, choices, drawings, .. } = section;
            let formula = loss.about.formula;
            let _ = write!(page, "### {}\n\n{}\n\n```text\n{formula}\n```\n\n", loss.name, section.summary());
            if !choices.is_empty() {
                page.push_str("| option | default | meaning |\n|---|---|---|\n");
                for Choice { name, default, meaning } in choices {
                    let _ = writeln!(page, "| `{name}` | `{default}` | {} |", meaning.replace('|', "\\|"));
                }
                page.push('\n');
            }
            for drawing in drawings {
                let _ = match drawing {
                    Drawing::Plot { file, caption } => write!(page, "![{caption}]({file})\n\n"),
                    Drawing::Strip { items, caption } => write!(page, "{}*{caption}*\n\n", row(items)),
                };
            }
            let _ = write!(page, "Source: {}\n\n", loss.about.source);
        }
    }
    page.truncate(page.trim_end().len());
    page + "\n"
}

/// Pictures in a table of one row.
fn row(items: &[[String; 3]]) -> String {
    let line = |cells: Vec<String>| format!("| {} |\n", cells.join(" | "));
    let pictures = line(items.iter().map(|[file, name, _]| format!("![{name}]({file})")).collect());
    let rule = line(items.iter().map(|_| ":---:".to_owned()).collect());
    let notes = line(items.iter().map(|[_, name, note]| format!("{name} {note}").trim().to_owned()).collect());
    format!("{pictures}{rule}{notes}\n")
}
