//! Rows measured, as a table for people and as JSON.

use std::fmt::Write as _;

use serde_json::{Value, json};

/// One measured figure.
#[derive(Debug)]
struct Row {
    name: String,
    measured: f64,
    unit: &'static str,
    /// The figure to reach and whether more is better; `None` for a yardstick.
    target: Option<(f64, Better)>,
    note: String,
}

/// Which direction is good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Better {
    More,
    Less,
}

/// The rows of one run.
#[derive(Debug)]
pub(crate) struct Report {
    rows: Vec<Row>,
    only: Option<String>,
    quiet: bool,
}

impl Report {
    pub(crate) fn new(only: Option<String>, quiet: bool) -> Self {
        Self { rows: Vec::new(), only, quiet }
    }

    /// Whether a group of rows with this name is wanted.
    pub(crate) fn wants(&self, group: &str) -> bool {
        let wanted = self.only.as_deref().is_none_or(|only| group.contains(only));
        if wanted && !self.quiet {
            eprintln!("measuring {group} ...");
        }
        wanted
    }

    /// Adds a figure with its target.
    pub(crate) fn add(
        &mut self,
        name: impl Into<String>,
        measured: f64,
        unit: &'static str,
        target: (f64, Better),
        note: impl Into<String>,
    ) {
        let target = Some(target);
        self.rows.push(Row { name: name.into(), measured, unit, target, note: note.into() });
    }

    /// Adds a yardstick, which has no target.
    pub(crate) fn yardstick(
        &mut self,
        name: impl Into<String>,
        measured: f64,
        unit: &'static str,
        note: impl Into<String>,
    ) {
        self.rows.push(Row { name: name.into(), measured, unit, target: None, note: note.into() });
    }

    pub(crate) fn table(&self) -> String {
        let mut text = String::new();
        let width = self.rows.iter().map(|row| row.name.len()).max().unwrap_or(0);
        for row in &self.rows {
            let target = match row.target {
                Some((figure, Better::More)) => format!(">= {}", figure_text(figure)),
                Some((figure, Better::Less)) => format!("<= {}", figure_text(figure)),
                None => "-".to_owned(),
            };
            let mark = match row.reached() {
                Some(true) => "ok",
                Some(false) => "SHORT",
                None => "",
            };
            let measured = figure_text(row.measured);
            let (name, unit, note) = (&row.name, row.unit, &row.note);
            // Writing to a String cannot fail.
            let _ = writeln!(
                text,
                "{name:width$}  {measured:>10} {unit:<6} {target:>10}  {mark:<5} {note}"
            );
        }
        text
    }

    pub(crate) fn json(&self) -> Value {
        let rows: Vec<Value> = self
            .rows
            .iter()
            .map(|row| {
                json!({
                    "name": row.name,
                    "measured": row.measured,
                    "unit": row.unit,
                    "target": row.target.map(|(figure, _)| figure),
                    "more_is_better": row.target.map(|(_, better)| better == Better::More),
                    "reached": row.reached(),
                    "note": row.note,
                })
            })
            .collect();
        json!({ "rows": rows })
    }
}

impl Row {
    fn reached(&self) -> Option<bool> {
        self.target.map(|(figure, better)| match better {
            Better::More => self.measured >= figure,
            Better::Less => self.measured <= figure,
        })
    }
}

fn figure_text(figure: f64) -> String {
    if figure >= 1000.0 {
        format!("{figure:.0}")
    } else if figure >= 10.0 {
        format!("{figure:.1}")
    } else {
        format!("{figure:.3}")
    }
}

/// The given quantile (0..=1) of the values, which it sorts; 0 for none.
pub(crate) fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let last = values.len().saturating_sub(1);
    values.get((last as f64 * q).round() as usize).copied().unwrap_or(0.0)
}
