//! What is printed: tables in Markdown, and the same as JSON.

use serde_json::{Value, json};

use crate::{
    stats::{Sample, Spread, steady},
    workloads::{Figure, Goal},
};

/// The figures of one contestant in one round, in the order of [`Figure::ALL`].
#[derive(Clone, Copy)]
pub(crate) struct Run {
    pub(crate) figures: [f64; Figure::ALL.len()],
    pub(crate) is_quiet: bool,
}

impl Run {
    /// One that failed: it has no figures.
    pub(crate) const NONE: Self = Self { figures: [f64::NAN; Figure::ALL.len()], is_quiet: false };

    fn sample(&self, of: Figure) -> Sample {
        let place = Figure::ALL.iter().position(|figure| *figure == of).unwrap_or_default();
        Sample { value: self.figures[place], is_quiet: self.is_quiet }
    }
}

/// A contestant and its rounds.
pub(crate) struct Column {
    pub(crate) name: String,
    pub(crate) runs: Vec<Run>,
}

impl Column {
    fn spread(&self, of: Figure) -> Option<Spread> {
        let samples: Vec<_> = self.runs.iter().map(|run| run.sample(of)).collect();
        steady(&samples).map(|(spread, _)| spread)
    }

    /// This one beside another, round by round, and whether enough of them were quiet.
    fn ratio(&self, of: Figure, to: &Self) -> Option<(Spread, bool)> {
        let pairs = self.runs.iter().zip(&to.runs);
        let samples: Vec<_> = pairs.map(|(ours, theirs)| ours.sample(of).ratio(theirs.sample(of))).collect();
        steady(&samples)
    }
}

/// What a workload came to.
#[derive(Default)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) title: String,
    /// Of those that load was given to; the relay is the first.
    pub(crate) columns: Vec<Column>,
    /// Of memory: what it is of, and KiB or MiB.
    pub(crate) values: Vec<(String, f64)>,
    pub(crate) verdicts: Vec<Verdict>,
    /// Why something was left out, or was busy.
    pub(crate) notes: Vec<String>,
}

/// A goal beside what was reached.
pub(crate) struct Verdict {
    pub(crate) row: String,
    pub(crate) what: String,
    pub(crate) goal: f64,
    pub(crate) least: f64,
    pub(crate) reached: Option<Spread>,
    pub(crate) is_steady: bool,
}

impl Verdict {
    fn word(&self) -> &'static str {
        match self.reached.map(|reached| reached.median) {
            None => "not measured",
            Some(reached) if reached <= self.goal => "goal reached",
            Some(reached) if reached <= self.least => "least reached",
            Some(_) => "missed",
        }
    }

    fn reached(&self) -> String {
        let mark = if self.is_steady { "" } else { " busy" };
        match self.reached {
            None => "–".to_owned(),
            Some(Spread { median, least, most }) if least == most => format!("{}{mark}", number(median)),
            Some(Spread { median, least, most }) => {
                format!("{} ({} to {}){mark}", number(median), number(least), number(most))
            }
        }
    }
}

impl Row {
    /// Holds the goals against what was measured.
    pub(crate) fn judge(&mut self, goals: &[Goal]) {
        let Some((ours, others)) = self.columns.split_first() else { return };
        self.verdicts = goals
            .iter()
            .map(|goal| {
                let ratio = others.iter().find(|it| it.name == goal.beside).and_then(|it| ours.ratio(goal.of, it));
                Verdict {
                    row: self.name.clone(),
                    what: format!("{} / {}", goal.of.name().trim_end_matches(" µs"), goal.beside),
                    goal: goal.goal,
                    least: goal.least,
                    reached: ratio.map(|(spread, _)| spread),
                    is_steady: ratio.is_none_or(|(_, is_steady)| is_steady),
                }
            })
            .collect();
    }

    pub(crate) fn print(&self) {
        println!("\n### {}: {}\n", self.name, self.title);
        if let Some(ours) = self.columns.first() {
            let mut table = vec![vec![String::new()]];
            table[0].extend(Figure::ALL.map(|figure| figure.name().to_owned()));
            table[0].extend(["relay / this: CPU", "its rate", "its p99"].map(str::to_owned));
            for column in &self.columns {
                let mut cells = vec![column.name.clone()];
                cells.extend(
                    Figure::ALL.map(|of| column.spread(of).map_or_else(|| "–".to_owned(), |it| number(it.median))),
                );
                let is_ours = std::ptr::eq(column, ours);
                cells.extend([Figure::Cpu, Figure::Rate, Figure::P99].map(|of| {
                    let ratio = ours.ratio(of, column).filter(|_| !is_ours);
                    ratio.map_or_else(String::new, |(spread, is_steady)| ratio_text(spread, is_steady))
                }));
                table.push(cells);
            }
            print_table(&table);
        }
        for (what, value) in &self.values {
            println!("{what}: {}", number(*value));
        }
        for note in &self.notes {
            println!("\n{note}");
        }
        if !self.verdicts.is_empty() {
            println!();
        }
        for verdict in &self.verdicts {
            println!(
                "{}: {}; goal {}, least {}: {}",
                verdict.what,
                verdict.reached(),
                number(verdict.goal),
                number(verdict.least),
                verdict.word()
            );
        }
    }

    pub(crate) fn to_json(&self) -> Value {
        let spread = |spread: Spread| json!({ "median": spread.median, "least": spread.least, "most": spread.most });
        let contestants: Vec<_> = self
            .columns
            .iter()
            .enumerate()
            .map(|(place, column)| {
                let figures: serde_json::Map<_, _> = Figure::ALL
                    .iter()
                    .filter_map(|of| Some((of.name().to_owned(), spread(column.spread(*of)?))))
                    .collect();
                let ratios: serde_json::Map<_, _> = Figure::ALL
                    .iter()
                    .filter(|_| place > 0)
                    .filter_map(|of| Some((of.name().to_owned(), spread(self.columns[0].ratio(*of, column)?.0))))
                    .collect();
                let quiet = column.runs.iter().filter(|run| run.is_quiet).count();
                json!({ "name": column.name, "rounds": column.runs.len(), "quiet": quiet, "figures": figures, "relay_to_this": ratios })
            })
            .collect();
        let verdicts = self.verdicts.iter().map(|verdict| {
            json!({ "what": verdict.what, "goal": verdict.goal, "least": verdict.least, "quiet": verdict.is_steady,
                    "reached": verdict.reached.map(spread), "verdict": verdict.word() })
        });
        let values: serde_json::Map<_, _> =
            self.values.iter().map(|(what, value)| (what.clone(), json!(value))).collect();
        json!({ "name": self.name, "title": self.title, "contestants": contestants, "values": values,
                "goals": verdicts.collect::<Vec<_>>(), "notes": self.notes })
    }
}

/// Everything in two tables: the figures of the relay, and all goals.
pub(crate) fn print_summary(rows: &[Row]) {
    let ours = [Figure::FrontCpu, Figure::BackCpu, Figure::Rate, Figure::P50, Figure::P99, Figure::P999];
    let mut table = vec![vec!["workload".to_owned()]];
    table[0].extend(ours.map(|of| of.name().to_owned()));
    table[0].push("CPU of relay and agent beside".to_owned());
    for row in rows {
        let Some((relay, others)) = row.columns.split_first() else { continue };
        let mut cells = vec![row.title.clone()];
        cells.extend(ours.map(|of| relay.spread(of).map_or_else(String::new, |spread| number(spread.median))));
        let ratios = others.iter().filter_map(|other| {
            let (spread, is_steady) = relay.ratio(Figure::Cpu, other)?;
            Some(format!("{} {}", other.name, ratio_text(spread, is_steady)))
        });
        cells.push(ratios.collect::<Vec<_>>().join(", "));
        table.push(cells);
    }
    if table.len() > 1 {
        println!("\n### All workloads\n");
        print_table(&table);
    }
    println!();
    for row in rows.iter().filter(|row| !row.values.is_empty()) {
        let values = row.values.iter().map(|(what, value)| format!("{what}: {}", number(*value)));
        println!("- {}: {}", row.title, values.collect::<Vec<_>>().join("; "));
    }
    let mut table = vec![["workload", "figure", "reached", "goal", "least", ""].map(str::to_owned).to_vec()];
    for verdict in rows.iter().flat_map(|row| &row.verdicts) {
        let (goal, least) = (number(verdict.goal), number(verdict.least));
        let (row, what) = (verdict.row.clone(), verdict.what.clone());
        table.push(vec![row, what, verdict.reached(), goal, least, verdict.word().to_owned()]);
    }
    if table.len() > 1 {
        println!("\n### Goals\n");
        print_table(&table);
    }
}

fn ratio_text(spread: Spread, is_steady: bool) -> String {
    let mark = if is_steady { "" } else { " busy" };
    format!("{:.2} ({:.2}–{:.2}){mark}", spread.median, spread.least, spread.most)
}

/// Three digits that count.
fn number(value: f64) -> String {
    match value {
        value if value.is_nan() => "–".to_owned(),
        value if value.abs() >= 100.0 => format!("{value:.0}"),
        value if value.abs() >= 10.0 => format!("{value:.1}"),
        value => format!("{value:.2}"),
    }
}

/// A table in Markdown whose columns stand under each other.
fn print_table(rows: &[Vec<String>]) {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..rows[0].len()).map(width).collect();
    for (place, row) in rows.iter().enumerate() {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        println!("| {} |", cells.collect::<Vec<_>>().join(" | "));
        if place == 0 {
            println!("|{}|", widths.iter().map(|width| "-".repeat(width + 2)).collect::<Vec<_>>().join("|"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, cpu: &[f64]) -> Column {
        let place = Figure::ALL.iter().position(|of| *of == Figure::Cpu).expect("is one");
        let run = |value: &f64| {
            let mut figures = [1.0; Figure::ALL.len()];
            figures[place] = *value;
            Run { figures, is_quiet: true }
        };
        Column { name: name.to_owned(), runs: cpu.iter().map(run).collect() }
    }

    #[test]
    fn a_goal_is_held_against_the_median_of_paired_ratios() {
        let of = |least: f64, goal: f64, beside| Goal { of: Figure::Cpu, beside, goal, least };
        let mut row = Row {
            columns: vec![column("relay", &[14.0, 30.0, 7.0]), column("nginx-2", &[20.0, 40.0, 10.0])],
            ..Row::default()
        };
        row.judge(&[of(0.8, 0.7, "nginx-2"), of(0.8, 0.6, "nginx-2"), of(0.65, 0.6, "nginx-2"), of(1.0, 1.0, "bore")]);
        let words: Vec<_> = row.verdicts.iter().map(Verdict::word).collect();
        assert_eq!(words, ["goal reached", "least reached", "missed", "not measured"]);
        assert_eq!(row.verdicts[0].reached(), "0.70 (0.70 to 0.75)");
        assert_eq!(row.to_json()["contestants"][1]["relay_to_this"]["CPU µs"]["median"], 0.7);
    }

    #[test]
    fn a_number_has_three_digits_that_count() {
        assert_eq!([1234.5, 45.67, 0.123].map(number), ["1234", "45.7", "0.12"]);
    }
}
