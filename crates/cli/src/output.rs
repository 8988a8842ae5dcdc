//! What a command prints: JSON as it came, or plain `key: value` lines.
//!
//! Text from the network never reaches the terminal raw: it is escaped in both forms.

use std::env;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};

use anyhow::Context;
use serde::Serialize;
use serde_json::Value;

use crate::error::Result;
use crate::escape::{escape, escape_json};

/// Characters of a public key that are shown.
const PUBLIC_KEY_SHOWN: usize = 24;
const BOLD: &str = "\u{1b}[1m";
const RESET: &str = "\u{1b}[0m";

/// Where answers go.
pub(crate) struct Output {
    writer: Box<dyn Write>,
    json: bool,
    /// The one field of an answer to print.
    field: Option<String>,
    colour: bool,
}

impl Output {
    pub(crate) fn to_stdout(json: bool, field: Option<String>) -> Self {
        let no_colour = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        let dumb = env::var_os("TERM").is_some_and(|value| value == "dumb");
        let colour = io::stdout().is_terminal() && !no_colour && !dumb;
        Self { writer: Box::new(io::stdout()), json, field, colour }
    }

    pub(crate) fn is_json(&self) -> bool {
        self.json
    }

    /// Prints an answer.
    pub(crate) fn answer(&mut self, answer: &Value) -> Result<()> {
        if let Some(field) = &self.field {
            let value = select(answer, field)
                .with_context(|| format!("the answer has no field `{field}`"))?;
            // A text is printed bare, so that a shell can use it.
            return match value {
                Value::String(text) if !self.json => self.line(text),
                value => self.pretty(value),
            };
        }
        if self.json {
            return self.pretty(answer);
        }
        let mut text = String::new();
        self.render(&mut text, answer, 0);
        self.writer.write_all(text.as_bytes())?;
        Ok(self.writer.flush()?)
    }

    /// Prints a sentence, or in JSON form the answer behind it.
    pub(crate) fn say(&mut self, sentence: &str, answer: &Value) -> Result<()> {
        if self.json || self.field.is_some() { self.answer(answer) } else { self.line(sentence) }
    }

    /// Prints text over several lines that is escaped already, or in JSON form the answer behind it.
    pub(crate) fn report(&mut self, text: &str, answer: &Value) -> Result<()> {
        if self.json || self.field.is_some() {
            self.answer(answer)
        } else {
            self.raw(text.as_bytes())
        }
    }

    /// Prints a line of text, escaped.
    pub(crate) fn line(&mut self, line: &str) -> Result<()> {
        writeln!(self.writer, "{}", escape(line))?;
        Ok(self.writer.flush()?)
    }

    /// Prints text that we made ourselves, as it is.
    pub(crate) fn raw(&mut self, text: &[u8]) -> Result<()> {
        self.writer.write_all(text)?;
        Ok(self.writer.flush()?)
    }

    /// Prints JSON over several lines.
    pub(crate) fn pretty(&mut self, value: &impl Serialize) -> Result<()> {
        let text = serde_json::to_string_pretty(value)?;
        writeln!(self.writer, "{}", escape_json(&text))?;
        Ok(self.writer.flush()?)
    }

    /// Prints one line of JSON text.
    pub(crate) fn json_line(&mut self, text: &str) -> Result<()> {
        writeln!(self.writer, "{}", escape_json(text))?;
        Ok(self.writer.flush()?)
    }

    fn render(&self, text: &mut String, value: &Value, depth: usize) {
        let indent = "  ".repeat(depth);
        match value {
            Value::Object(fields) => {
                for (name, value) in fields {
                    if let Some(key) = public_key(name, value) {
                        _ = writeln!(text, "{indent}{}: {key}", self.emphasise(name));
                        continue;
                    }
                    let name = self.emphasise(&escape(name));
                    match inline(value) {
                        Some(value) => _ = writeln!(text, "{indent}{name}: {value}"),
                        None => {
                            _ = writeln!(text, "{indent}{name}:");
                            self.render(text, value, depth + 1);
                        }
                    }
                }
            }
            Value::Array(items) => {
                for item in items {
                    let mut rendered = String::new();
                    self.render(&mut rendered, item, depth + 1);
                    // The first line of an item carries the mark in place of its indent.
                    let body = rendered.get(indent.len() + 2..).unwrap_or_default();
                    _ = write!(text, "{indent}- {body}");
                }
            }
            scalar => {
                let scalar = inline(scalar).unwrap_or_default();
                _ = writeln!(text, "{indent}{scalar}");
            }
        }
    }

    fn emphasise(&self, name: &str) -> String {
        if self.colour { format!("{BOLD}{name}{RESET}") } else { name.to_owned() }
    }
}

/// Follows a path of field names and list positions, joined by dots.
fn select<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, part| match value {
        Value::Array(items) => items.get(part.parse::<usize>().ok()?),
        value => value.get(part),
    })
}

/// A public key is some hundred characters that nobody reads: its beginning, and how to get all of it.
fn public_key(name: &str, value: &Value) -> Option<String> {
    let text = value.as_str().filter(|_| name.ends_with("public_key_b64"))?;
    let start: String = text.chars().take(PUBLIC_KEY_SHOWN).collect();
    (start.len() < text.len())
        .then(|| format!("{}… (whole with --field or --json)", escape(&start)))
}

/// A value that fits behind its key.
fn inline(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(escape(text)),
        Value::Array(items) if items.is_empty() => Some("[]".to_owned()),
        Value::Object(fields) if fields.is_empty() => Some("{}".to_owned()),
        Value::Array(_) | Value::Object(_) => None,
        Value::Null | Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
    }
}

/// Rows as aligned columns; the last column is not padded.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max()
    };
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            _ = write!(line, "{:<width$}  ", escape(cell));
        }
        _ = writeln!(text, "{}", line.trim_end());
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(value: &Value) -> String {
        let output =
            Output { writer: Box::new(io::sink()), json: false, field: None, colour: false };
        let mut text = String::new();
        output.render(&mut text, value, 0);
        text
    }

    #[test]
    fn answers_are_key_value_lines() {
        let value = json!({
            "addr": null, "empty": [], "inner": { "a": 1, "b": [true, "x"] },
            "list": [{ "id": "p", "n": 2 }, { "id": "q", "n": 3 }], "ok": true,
        });
        let expected = "addr: null\nempty: []\ninner:\n  a: 1\n  b:\n    - true\n    - x\n\
                        list:\n  - id: p\n    n: 2\n  - id: q\n    n: 3\nok: true\n";
        assert_eq!(text(&value), expected);
    }

    #[test]
    fn public_keys_are_shown_by_their_beginning() {
        let value =
            json!({ "kem_public_key_b64": "ab".repeat(800), "ciphertext_b64": "c".repeat(30) });
        let ciphertext = "c".repeat(30);
        let expected = format!(
            "ciphertext_b64: {ciphertext}\nkem_public_key_b64: {}… (whole with --field or --json)\n",
            "ab".repeat(12)
        );
        assert_eq!(text(&value), expected);
    }

    #[test]
    fn hostile_text_is_made_visible() {
        assert_eq!(text(&json!({ "k\u{7}": "v\u{8}" })), "k\\u{7}: v\\u{8}\n");
    }

    #[test]
    fn fields_are_selected_by_path() {
        let value = json!({ "peers": [{ "id": "p" }], "n": 2 });
        assert_eq!(select(&value, "peers.0.id"), Some(&json!("p")));
        assert_eq!(select(&value, "n"), Some(&json!(2)));
        for absent in ["", "peers.1", "peers.x", "n.m", "other"] {
            assert_eq!(select(&value, absent), None, "{absent}");
        }
    }

    #[test]
    fn tables_are_aligned() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["A", "LONG", "C"]), row(["aaa", "b", ""])];
        assert_eq!(table(&rows), "A    LONG  C\naaa  b\n");
    }
}
