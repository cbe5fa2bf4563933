//! How do the figures look, as an SVG?
//!
//! A group of bars for each program, and a bar in it for each place. The axis is logarithmic: there are programs that are
//! twice as fast somewhere, and others that are a hundred times slower.

use std::fmt::Write as _;

use super::figure::Figure;
use super::places::Place;

const WIDTH: f64 = 860.0;
/// Where the bars begin; names are left of it.
const LEFT: f64 = 150.0;
/// Where the axis ends; values are right of it.
const RIGHT: f64 = 800.0;
/// Where the first group begins; title, legend and the numbers of the axis are above it.
const TOP: f64 = 84.0;
const BAR: f64 = 13.0;
const GAP: f64 = 14.0;

/// The drawing has a ground of its own, and both follow the reader's: so they can be told apart on any. Text keeps lines behind it at a
/// distance.
const STYLE: &str = "\
<style>
text { font: 12px sans-serif; fill: #1f2328; stroke: #ffffff; stroke-width: 3; paint-order: stroke; }
.ground { fill: #ffffff; }
.line { stroke: #d0d7de; }
.one { stroke: #57606a; stroke-width: 1.5; }
.place0 { fill: #d1571b; }
.place1 { fill: #8c959f; }
.place2 { fill: #3b7dd8; }
.place3 { fill: #3f9a5a; }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3; stroke: #0d1117; }
.ground { fill: #0d1117; }
.line { stroke: #30363d; }
.one { stroke: #9198a1; }
}
</style>
";

/// The figures as a drawing.
pub(super) fn svg(figures: &[Figure]) -> String {
    let group = BAR * 4.0 + GAP;
    let axis = Axis::over(figures);
    let mut bars = String::new();
    let mut top = TOP;
    for figure in figures {
        bars += &group_of(figure, &axis, top);
        top += group;
    }
    let height = top + GAP;
    let head = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\">\n<title>Speed of programs, relative to tmpfs</title>\n{STYLE}\
         <rect class=\"ground\" width=\"100%\" height=\"100%\" rx=\"6\"/>\n"
    );
    head + &legend() + &axis.drawn(top) + &bars + "</svg>\n"
}

fn legend() -> String {
    let mut drawn =
        text(LEFT, 24.0, "start", "Operations a second, relative to tmpfs = 1 (logarithmic; more is faster)");
    for (index, place) in Place::ALL.into_iter().enumerate() {
        let x = LEFT + 120.0 * f64::from(u8::try_from(index).unwrap_or_default());
        drawn += &rectangle(index, x, 36.0, 12.0, 12.0);
        drawn += &text(x + 18.0, 46.0, "start", place.name());
    }
    drawn
}

/// The bars of one program, or why there are none.
fn group_of(figure: &Figure, axis: &Axis, top: f64) -> String {
    let mut drawn = text(LEFT - 10.0, top + BAR * 2.0 + 4.0, "end", &figure.row.to_string());
    if figure.relative(Place::Tmpfs).is_none() {
        let note = figure.note.as_deref().unwrap_or("not measured on tmpfs");
        return drawn + &text(LEFT + 6.0, top + BAR * 2.0 + 4.0, "start", note);
    }
    let mut y = top;
    for (index, place) in Place::ALL.into_iter().enumerate() {
        let label = if let Some(ratio) = figure.relative(place) {
            let end = axis.x(ratio);
            drawn += &rectangle(index, LEFT, y, end - LEFT, BAR - 1.0);
            (end, shown(ratio))
        } else {
            (LEFT, "not measured".to_owned())
        };
        drawn += &text(label.0 + 5.0, y + BAR - 3.0, "start", &label.1);
        y += BAR;
    }
    drawn
}

/// What lies where from left to right: powers of ten.
struct Axis {
    lowest: i32,
    highest: i32,
}

impl Axis {
    /// With room for all that is to be shown, and for the ones beside it.
    fn over(figures: &[Figure]) -> Self {
        let ratios = figures.iter().flat_map(|figure| Place::ALL.map(|place| figure.relative(place)));
        let (mut lowest, mut highest) = (-1, 1);
        for power in ratios.flatten().map(f64::log10) {
            lowest = lowest.min(power.floor() as i32);
            highest = highest.max(power.ceil() as i32);
        }
        Self { lowest, highest }
    }

    fn x(&self, ratio: f64) -> f64 {
        let share = (ratio.log10() - f64::from(self.lowest)) / f64::from(self.highest - self.lowest);
        LEFT + share * (RIGHT - LEFT)
    }

    /// With lines as long as there are bars.
    fn drawn(&self, bottom: f64) -> String {
        let mut drawn = String::new();
        for power in self.lowest..=self.highest {
            let ratio = 10_f64.powi(power);
            let (x, class) = (self.x(ratio), if power == 0 { "one" } else { "line" });
            // Nothing can go wrong where a text grows.
            let _ = writeln!(
                drawn,
                "<line class=\"{class}\" x1=\"{x:.1}\" y1=\"{:.1}\" x2=\"{x:.1}\" y2=\"{bottom:.1}\"/>",
                TOP - 6.0
            );
            drawn += &text(x, TOP - 12.0, "middle", &ratio.to_string());
        }
        drawn
    }
}

/// A ratio with two digits that say something.
fn shown(ratio: f64) -> String {
    match ratio {
        ..0.01 => format!("{ratio:.4}"),
        0.01..0.1 => format!("{ratio:.3}"),
        0.1..10.0 => format!("{ratio:.2}"),
        _ => format!("{ratio:.0}"),
    }
}

fn rectangle(place: usize, x: f64, y: f64, width: f64, height: f64) -> String {
    format!(
        "<rect class=\"place{place}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" height=\"{height:.1}\"/>\n"
    )
}

fn text(x: f64, y: f64, anchor: &str, said: &str) -> String {
    format!("<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>\n", escaped(said))
}

/// So that it is text in XML, whatever it is. Characters that XML does not have at all are replaced.
fn escaped(said: &str) -> String {
    let mut safe = String::new();
    for character in said.chars() {
        match character {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '\n' | '\t' => safe.push(' '),
            control if control.is_control() => safe.push(char::REPLACEMENT_CHARACTER),
            other => safe.push(other),
        }
    }
    safe
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::programs::plan::Program;

    /// Where a place's bars end, in the order of the groups.
    fn ends(svg: &str, place: Place) -> Vec<f64> {
        let number = |line: &str, name: &str| -> f64 {
            let (_, rest) = line.split_once(&format!(" {name}=\"")).unwrap();
            rest.split_once('"').unwrap().0.parse().unwrap()
        };
        let bars = svg.lines().filter(|line| line.contains(&format!("class=\"place{}\"", place as usize)));
        // The first is in the legend.
        bars.skip(1).map(|line| number(line, "x") + number(line, "width")).collect()
    }

    #[test]
    fn bars_end_where_the_axis_says() {
        let even = Figure::new(Program::FioRead, [Some(200.0), Some(100.0), Some(100.0), None], &[]);
        let slow = Figure::new(Program::SqliteWal, [Some(1.0), Some(100.0), Some(10.0), Some(1000.0)], &[]);
        let svg = svg(&[even, slow]);
        let (run, tmpfs, ext4, xfs) = (
            ends(&svg, Place::Run),
            ends(&svg, Place::Tmpfs),
            ends(&svg, Place::Ext4),
            ends(&svg, Place::Xfs),
        );
        // From 0.01 to 10, so that 1 is at two thirds.
        let one = LEFT + (RIGHT - LEFT) * 2.0 / 3.0;
        let is = |found: f64, expected: f64| (found - expected).abs() < 0.2;
        assert!(is(tmpfs[0], one) && is(tmpfs[1], one) && is(ext4[0], one), "{tmpfs:?} {ext4:?}");
        assert!(is(run[0], one + (RIGHT - LEFT) / 3.0 * 2_f64.log10()), "{run:?}");
        assert!(is(run[1], LEFT) && is(xfs[0], RIGHT) && xfs.len() == 1, "{run:?} {xfs:?}");
        assert!(svg.contains(">2.00<") && svg.contains(">0.010<") && svg.contains(">not measured<"));
        for place in Place::ALL {
            assert!(svg.contains(&format!(">{}</text>", place.name())));
        }
    }

    #[test]
    fn whatever_is_said_is_text() {
        let note = "a <b> & \"c\"\u{7}\nd".to_owned();
        let svg = svg(&[Figure::new(Program::LmdbLoad, [None; 4], &[note])]);
        assert!(svg.contains(">a &lt;b&gt; &amp; \"c\"\u{fffd} d</text>"), "{svg}");
        assert!(svg.contains(">lmdb-load</text>"));
        assert!(ends(&svg, Place::Run).is_empty());
    }
}
