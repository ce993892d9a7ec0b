//! Line charts as SVG, with as little as the two figures need, so that no drawing library is necessary.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 440.0;
/// The area of the lines (left, top, right, bottom); the rest is for labels.
const PLOT: [f64; 4] = [80.0, 50.0, 560.0, 380.0];
/// The colours of the lines. Their markers differ too, so that they can be told apart without colours.
const COLOURS: [&str; 3] = ["#0072b2", "#d55e00", "#009e73"];

/// A line chart. Its x axis grows to the right, its y axis upwards.
#[derive(Clone, Debug, Default)]
pub struct Chart {
    /// The title above the plot.
    pub title: String,
    /// The x axis.
    pub x: Axis,
    /// The y axis.
    pub y: Axis,
    /// The lines.
    pub lines: Vec<Series>,
}

/// An axis of a chart.
#[derive(Clone, Debug, Default)]
pub struct Axis {
    /// The quantity and its unit.
    pub label: String,
    /// The marks and their texts, in ascending order. The axis reaches from the first mark to the last.
    pub marks: Vec<(f64, String)>,
    /// Whether the scale is logarithmic.
    pub logarithmic: bool,
}

/// A line of a chart.
#[derive(Clone, Debug)]
pub struct Series {
    /// The name in the legend.
    pub name: String,
    /// The points (x, y), in ascending order of x.
    pub points: Vec<(f64, f64)>,
}

impl Axis {
    /// The position of a value on the axis, from 0 to 1.
    fn place(&self, value: f64) -> f64 {
        let scale = |value: f64| if self.logarithmic { value.max(f64::MIN_POSITIVE).log2() } else { value };
        let end = |mark: Option<&(f64, String)>| mark.map_or(0.0, |(value, _)| scale(*value));
        let (from, to) = (end(self.marks.first()), end(self.marks.last()));
        if to > from { ((scale(value) - from) / (to - from)).clamp(0.0, 1.0) } else { 0.0 }
    }
}

impl Chart {
    /// The chart as a complete SVG document.
    pub fn to_svg(&self) -> String {
        let mut svg = String::new();
        self.write(&mut svg).expect("writing to a String succeeds");
        svg
    }

    fn write(&self, svg: &mut String) -> std::fmt::Result {
        let [left, top, right, bottom] = PLOT;
        let (title, middle) = (escaped(&self.title), (left + right) / 2.0);
        writeln!(
            svg,
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" font-family="sans-serif" font-size="12">"#
        )?;
        writeln!(svg, "<title>{title}</title>")?;
        writeln!(svg, r##"<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>"##)?;
        writeln!(svg, r#"<text x="{middle}" y="28" text-anchor="middle" font-size="15">{title}</text>"#)?;
        for (value, text) in &self.x.marks {
            let (x, below, text) = (self.x_of(*value), bottom + 18.0, escaped(text));
            writeln!(svg, r##"<path d="M{x:.1} {top}V{bottom}" stroke="#e0e0e0"/>"##)?;
            writeln!(svg, r#"<text x="{x:.1}" y="{below}" text-anchor="middle">{text}</text>"#)?;
        }
        for (value, text) in &self.y.marks {
            let (y, beside, text) = (self.y_of(*value), left - 8.0, escaped(text));
            writeln!(svg, r##"<path d="M{left} {y:.1}H{right}" stroke="#e0e0e0"/>"##)?;
            writeln!(svg, r#"<text x="{beside}" y="{y:.1}" dy="4" text-anchor="end">{text}</text>"#)?;
        }
        writeln!(svg, r##"<path d="M{left} {top}V{bottom}H{right}" fill="none" stroke="#404040"/>"##)?;
        let (below, half, x, y) = (bottom + 42.0, (top + bottom) / 2.0, escaped(&self.x.label), escaped(&self.y.label));
        writeln!(svg, r#"<text x="{middle}" y="{below}" text-anchor="middle">{x}</text>"#)?;
        writeln!(svg, r#"<text transform="translate(24 {half}) rotate(-90)" text-anchor="middle">{y}</text>"#)?;
        for (line, at) in self.lines.iter().zip(0..) {
            self.write_line(svg, line, at)?;
        }
        writeln!(svg, "</svg>")
    }

    fn write_line(&self, svg: &mut String, line: &Series, at: usize) -> std::fmt::Result {
        let colour = COLOURS[at % COLOURS.len()];
        let places: Vec<_> = line.points.iter().map(|(x, y)| (self.x_of(*x), self.y_of(*y))).collect();
        let points: Vec<_> = places.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let points = points.join(" ");
        writeln!(svg, r#"<polyline points="{points}" fill="none" stroke="{colour}" stroke-width="2"/>"#)?;
        let legend = (PLOT[2] + 24.0, PLOT[1] + 10.0 + 24.0 * at as f64);
        for (x, y) in places.iter().chain([&legend]) {
            write_marker(svg, at, colour, *x, *y)?;
        }
        let (x, y, name) = (legend.0 + 14.0, legend.1, escaped(&line.name));
        writeln!(svg, r#"<text x="{x}" y="{y}" dy="4">{name}</text>"#)
    }

    fn x_of(&self, value: f64) -> f64 {
        PLOT[0] + self.x.place(value) * (PLOT[2] - PLOT[0])
    }

    fn y_of(&self, value: f64) -> f64 {
        PLOT[3] - self.y.place(value) * (PLOT[3] - PLOT[1])
    }
}

/// A circle, a square or a triangle.
fn write_marker(svg: &mut String, line: usize, colour: &str, x: f64, y: f64) -> std::fmt::Result {
    match line % COLOURS.len() {
        0 => writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="4" fill="{colour}"/>"#),
        1 => writeln!(svg, r#"<path d="M{:.1} {:.1}h7v7h-7z" fill="{colour}"/>"#, x - 3.5, y - 3.5),
        _ => writeln!(svg, r#"<path d="M{x:.1} {:.1}l4.5 8h-9z" fill="{colour}"/>"#, y - 5.0),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart() -> Chart {
        let marks = |values: &[f64]| values.iter().map(|value| (*value, value.to_string())).collect();
        Chart {
            title: "A & B".into(),
            x: Axis { label: "size".into(), marks: marks(&[1.0, 4.0]), logarithmic: true },
            y: Axis { label: "share".into(), marks: marks(&[0.0, 0.5, 1.0]), logarithmic: false },
            lines: vec![Series { name: "one".into(), points: vec![(1.0, 0.0), (2.0, 0.5), (4.0, 1.0)] }],
        }
    }

    #[test]
    fn points_lie_where_the_axes_say() {
        let svg = chart().to_svg();
        // Bottom left, centre, top right: on a logarithmic scale, 2 is half-way between 1 and 4.
        assert!(svg.contains(r#"<polyline points="80.0,380.0 320.0,215.0 560.0,50.0""#), "{svg}");
        assert!(svg.contains("<title>A &amp; B</title>") && svg.contains(">one</text>"), "{svg}");
        assert!(svg.starts_with("<svg xmlns=") && svg.ends_with("</svg>\n"));
    }

    #[test]
    fn points_off_the_axes_stay_on_the_chart() {
        let mut off = chart();
        off.lines[0].points = vec![(0.0, 7.0), (9.0, -1.0)];
        assert!(off.to_svg().contains(r#"<polyline points="80.0,50.0 560.0,380.0""#));
        off.x.marks.clear();
        assert!(off.to_svg().contains("80.0,50.0 80.0,380.0"), "an empty axis gives finite coordinates");
    }
}
