//! Text from documents, checkpoints and folders on its way to a terminal: control characters are escaped, so that no name
//! moves the cursor, clears the screen or turns a line's direction.

/// Whether a terminal acts on the character: control characters, and those that set the direction of text.
fn steers(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with the characters that `is_escaped` chooses as `\t`, `\n`, `\r` or `\u{1b}`.
fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            c if !is_escaped(c) => out.push(c),
            '\t' | '\n' | '\r' | '\\' => out.extend(c.escape_default()),
            c => out.extend(c.escape_unicode()),
        }
    }
    out
}

/// A text in one line.
pub fn line(text: &str) -> String {
    escaped(text, steers)
}

/// A text that may have several lines, as an error of a parser has.
pub fn lines(text: &str) -> String {
    escaped(text, |c| steers(c) && c != '\n')
}

/// A cell of tab-separated values; the backslash is escaped too, so that the cell can be read back.
pub fn cell(text: &str) -> String {
    escaped(text, |c| steers(c) || c == '\\')
}

/// A document in JSON: what its writer leaves as it is stands in strings, and is escaped as JSON escapes it.
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if steers(c) && c != '\n' {
            out.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            out.push(c);
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_steers_a_terminal_is_escaped() {
        let hostile = "a\u{1b}[2J\u{9b}2J\u{7f}\u{202e}b\tc\r\nd\u{0}ß∑";
        assert_eq!(line(hostile), r"a\u{1b}[2J\u{9b}2J\u{7f}\u{202e}b\tc\r\nd\u{0}ß∑");
        assert_eq!(lines(hostile), line(hostile).replace(r"\n", "\n"));
        assert_eq!(line(r"C:\temp"), r"C:\temp");
        assert_eq!(cell("C:\\temp\tx"), r"C:\\temp\tx");
        for text in [line(hostile), lines(hostile).replace('\n', ""), cell(hostile)] {
            assert!(!text.chars().any(steers), "{text:?}");
        }
    }

    #[test]
    fn json_stays_the_same_document() {
        let value = serde_json::json!({"a\u{1b}\u{9b}": ["\u{7f}\u{202e}\n\\", 1]});
        let text = json(&serde_json::to_string_pretty(&value).unwrap());
        assert!(!text.chars().any(|c| steers(c) && c != '\n'), "{text:?}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }
}
