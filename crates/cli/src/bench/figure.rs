//! What was found, as a table or as JSON.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use super::measure::Timing;
use super::plan::{Bar, Row, Way};

/// One line of the report. Times are in nanoseconds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) row: Row,
    pub(crate) way: Way,
    median_ns: u64,
    p99_ns: u64,
    pub(crate) yardstick: String,
    yardstick_median_ns: u64,
    /// The subject's median over the yardstick's; for `threads-2`, its gain over the yardstick's gain.
    ratio: f64,
    #[serde(skip)]
    yardstick_p99_ns: u64,
    /// What is to be reached, and whether it is; none for yardsticks that the user chose.
    #[serde(skip)]
    bar: Option<(Bar, bool)>,
}

/// What is compared.
pub(crate) struct Compared {
    pub(crate) row: Row,
    pub(crate) way: Way,
    pub(crate) yardstick: String,
    /// The yardstick is the one that the bar is about.
    pub(crate) is_judged: bool,
}

impl Figure {
    pub(crate) fn new(compared: Compared, theirs: Timing, ours: Timing) -> Self {
        let ratio = ours.median_ns / theirs.median_ns;
        Self::with_ratio(compared, theirs, ours, ratio)
    }

    pub(crate) fn with_ratio(compared: Compared, theirs: Timing, ours: Timing, ratio: f64) -> Self {
        let Compared { row, way, yardstick, is_judged } = compared;
        let bar = row.bar(way).filter(|_| is_judged);
        Self {
            row,
            way,
            median_ns: whole(ours.median_ns),
            p99_ns: whole(ours.p99_ns),
            yardstick,
            yardstick_median_ns: whole(theirs.median_ns),
            ratio,
            yardstick_p99_ns: whole(theirs.p99_ns),
            bar: bar.map(|bar| (bar, bar.is_met(ratio, ours.p99_ns / theirs.p99_ns))),
        }
    }
}

#[expect(clippy::cast_sign_loss, reason = "times are positive")]
fn whole(ns: f64) -> u64 {
    ns.round() as u64
}

/// The figures as a table for a person.
pub(crate) fn table(figures: &[Figure]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header([
        "row",
        "way",
        "median ns",
        "p99 ns",
        "yardstick",
        "median ns",
        "p99 ns",
        "ratio",
        "bar",
        "met",
    ]);
    for figure in figures {
        let (bar, met) = match figure.bar {
            Some((bar, is_met)) => (bar.to_string(), if is_met { "yes" } else { "no" }),
            None => (String::new(), ""),
        };
        table.add_row([
            figure.row.to_string(),
            figure.way.to_string(),
            figure.median_ns.to_string(),
            figure.p99_ns.to_string(),
            figure.yardstick.clone(),
            figure.yardstick_median_ns.to_string(),
            figure.yardstick_p99_ns.to_string(),
            format!("{:.2}", figure.ratio),
            bar,
            met.to_owned(),
        ]);
    }
    for column in [2, 3, 5, 6, 7] {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure() -> Figure {
        let compared =
            Compared { row: Row::Append, way: Way::Embedded, yardstick: "tmpfs".into(), is_judged: true };
        let timing = |median_ns, p99_ns| Timing { median_ns, p99_ns };
        Figure::new(compared, timing(100.4, 200.0), timing(110.6, 300.0))
    }

    #[test]
    fn json_has_what_programs_rely_on() {
        let json = serde_json::to_value(figure()).unwrap();
        let expected = serde_json::json!({
            "row": "append-4k", "way": "embedded", "median_ns": 111, "p99_ns": 300,
            "yardstick": "tmpfs", "yardstick_median_ns": 100, "ratio": 110.6 / 100.4,
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn the_table_says_whether_a_bar_is_reached() {
        // The median is within 1.2, the tail is not.
        assert!(table(&[figure()]).to_string().contains("┆ no"));
    }
}
