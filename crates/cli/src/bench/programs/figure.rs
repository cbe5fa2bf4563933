//! What was found about programs, as a table or as JSON.

use comfy_table::presets::UTF8_FULL_CONDENSED;
use comfy_table::{CellAlignment, ContentArrangement, Table};
use serde::Serialize;

use super::places::Place;
use super::plan::Program;

/// One line of the report. A ratio is that of `lodefs run` to the place: with more than 1 it does more in the same time.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Figure {
    pub(crate) row: Program,
    lodefs_run_per_s: Option<u64>,
    tmpfs_per_s: Option<u64>,
    ext4_per_s: Option<u64>,
    xfs_per_s: Option<u64>,
    ratio_to_tmpfs: Option<f64>,
    ratio_to_ext4: Option<f64>,
    ratio_to_xfs: Option<f64>,
    /// Why something was not measured.
    pub(crate) note: Option<String>,
    /// Operations a second in each place.
    #[serde(skip)]
    speeds: [Option<f64>; Place::ALL.len()],
}

impl Figure {
    /// `speeds` are the operations a second in each place; `notes` say why there are none.
    pub(crate) fn new(row: Program, speeds: [Option<f64>; Place::ALL.len()], notes: &[String]) -> Self {
        let per_s = |place: Place| speeds[place as usize].map(whole);
        let ratio = |place: Place| Some(speeds[Place::Run as usize]? / speeds[place as usize]?);
        Self {
            row,
            lodefs_run_per_s: per_s(Place::Run),
            tmpfs_per_s: per_s(Place::Tmpfs),
            ext4_per_s: per_s(Place::Ext4),
            xfs_per_s: per_s(Place::Xfs),
            ratio_to_tmpfs: ratio(Place::Tmpfs),
            ratio_to_ext4: ratio(Place::Ext4),
            ratio_to_xfs: ratio(Place::Xfs),
            note: (!notes.is_empty()).then(|| notes.join("; ")),
            speeds,
        }
    }

    /// How fast it is in a place, where tmpfs is 1.
    pub(crate) fn relative(&self, place: Place) -> Option<f64> {
        Some(self.speeds[place as usize]? / self.speeds[Place::Tmpfs as usize]?)
    }
}

#[expect(clippy::cast_sign_loss, reason = "speeds are positive")]
fn whole(per_second: f64) -> u64 {
    per_second.round() as u64
}

/// The figures as a table for a person.
pub(crate) fn table(figures: &[Figure]) -> Table {
    let mut table = Table::new();
    table.load_style(UTF8_FULL_CONDENSED).set_content_arrangement(ContentArrangement::Dynamic);
    let mut header = vec!["operations a second"];
    header.extend(Place::ALL.map(Place::name));
    table.set_header(header.into_iter().chain(["to tmpfs", "to ext4", "to XFS", "note"]));
    let speed = |per_s: Option<u64>| per_s.map(|per_s| per_s.to_string()).unwrap_or_default();
    let ratio = |ratio: Option<f64>| ratio.map(|ratio| format!("{ratio:.2}")).unwrap_or_default();
    for figure in figures {
        table.add_row([
            figure.row.to_string(),
            speed(figure.lodefs_run_per_s),
            speed(figure.tmpfs_per_s),
            speed(figure.ext4_per_s),
            speed(figure.xfs_per_s),
            ratio(figure.ratio_to_tmpfs),
            ratio(figure.ratio_to_ext4),
            ratio(figure.ratio_to_xfs),
            figure.note.clone().unwrap_or_default(),
        ]);
    }
    for column in 1..=7 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_what_programs_rely_on() {
        let speeds = [Some(300.4), Some(200.0), Some(100.0), None];
        let notes = ["XFS: no device".to_owned(), "ext4: slow".to_owned()];
        let json = serde_json::to_value(Figure::new(Program::SqliteWal, speeds, &notes)).unwrap();
        let expected = serde_json::json!({
            "row": "sqlite-wal", "lodefs_run_per_s": 300, "tmpfs_per_s": 200, "ext4_per_s": 100, "xfs_per_s": null,
            "ratio_to_tmpfs": 300.4 / 200.0, "ratio_to_ext4": 300.4 / 100.0, "ratio_to_xfs": null,
            "note": "XFS: no device; ext4: slow",
        });
        assert_eq!(json, expected);
    }

    #[test]
    fn the_table_says_why_there_is_no_figure() {
        let figure = Figure::new(Program::FioRead, [None; 4], &["not installed: apt install fio".to_owned()]);
        assert!(table(&[figure]).to_string().contains("not installed"));
    }
}
