//! The figures of a run, as a table or JSON.

use std::fmt;

use serde::Serialize;

use crate::lab::Meeting;

/// What the design asks of a figure.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub(crate) enum Target {
    AtMost(f64),
    AtLeast(f64),
}

impl Target {
    fn is_met_by(self, value: f64) -> bool {
        match self {
            Self::AtMost(limit) => value <= limit,
            Self::AtLeast(limit) => value >= limit,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "≤ {}", Plain(*limit)),
            Self::AtLeast(limit) => write!(f, "≥ {}", Plain(*limit)),
        }
    }
}

/// One measured figure.
#[derive(Debug, Clone, Serialize)]
struct Figure {
    /// What was done, such as `publish burst over WS, 2 nodes`.
    run: String,
    name: &'static str,
    value: f64,
    unit: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<Target>,
    #[serde(skip_serializing_if = "Option::is_none")]
    met: Option<bool>,
}

/// The figures so far, in the order in which they were measured.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Report {
    figures: Vec<Figure>,
    /// What became of pairs behind translators.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    meetings: Vec<Meeting>,
}

impl Report {
    /// Adds what became of pairs, for programs to read.
    pub(crate) fn add_meetings(&mut self, meetings: Vec<Meeting>) {
        self.meetings.extend(meetings);
    }

    /// Adds a figure that the design sets no target for.
    pub(crate) fn note(&mut self, run: &str, name: &'static str, value: f64, unit: &'static str) {
        self.push(run, name, value, unit, None);
    }

    /// Adds a figure and what it should reach.
    pub(crate) fn figure(
        &mut self,
        run: &str,
        name: &'static str,
        value: f64,
        unit: &'static str,
        target: Target,
    ) {
        self.push(run, name, value, unit, Some(target));
    }

    /// Whether every figure reached its target.
    pub(crate) fn is_met(&self) -> bool {
        self.figures.iter().all(|figure| figure.met != Some(false))
    }

    fn push(
        &mut self,
        run: &str,
        name: &'static str,
        value: f64,
        unit: &'static str,
        target: Option<Target>,
    ) {
        let met = target.map(|target| target.is_met_by(value));
        eprintln!("  {name}: {} {unit}", Plain(value));
        self.figures.push(Figure { run: run.to_owned(), name, value, unit, target, met });
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.figures.iter().map(|figure| figure.name.chars().count()).max();
        let width = width.unwrap_or(0);
        let mut run = "";
        for figure in &self.figures {
            if run != figure.run {
                run = &figure.run;
                writeln!(f, "\n{run}")?;
            }
            let value = Plain(figure.value).to_string();
            write!(f, "  {:<width$}  {value:>12} {:<8}", figure.name, figure.unit)?;
            if let (Some(target), Some(met)) = (figure.target, figure.met) {
                write!(f, "  {:<10}  {}", target.to_string(), if met { "ok" } else { "MISSED" })?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}

/// A number with as many decimals as say something.
struct Plain(f64);

impl fmt::Display for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.abs() {
            size if size >= 100.0 || self.0.fract() == 0.0 => write!(f, "{:.0}", self.0),
            size if size >= 10.0 => write!(f, "{:.1}", self.0),
            size if size >= 0.1 => write!(f, "{:.2}", self.0),
            _ => write!(f, "{:.4}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_judged() {
        let mut report = Report::default();
        report.figure("start", "to healthy", 12.34, "ms", Target::AtMost(15.0));
        report.figure("burst", "rate", 9000.0, "msg/s", Target::AtLeast(12_000.0));
        report.note("burst", "refused", 0.0, "msg");
        let text = report.to_string();
        assert!(text.contains("12.3 ms"), "{text}");
        assert!(text.contains("≤ 15        ok"), "{text}");
        assert!(text.contains("MISSED"), "{text}");
        let json = serde_json::to_value(&report).unwrap();
        assert_eq!(json["figures"][0]["target"]["at_most"], 15.0);
        assert_eq!(json["figures"][2].get("met"), None);
    }
}
