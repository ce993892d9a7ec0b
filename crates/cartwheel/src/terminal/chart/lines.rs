//! Line charts.

use std::io;
use std::ops::Range;

use plotters::element::{DynElement, IntoDynElement as _};
use plotters::prelude::*;

use super::{Area, COLORS, Drawn, GRID, LABEL_FONT, TITLE_FONT, color, to_svg};

/// A line chart.
pub struct Chart {
    pub title: String,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series>,
}

/// An axis of a chart.
pub struct Axis {
    /// What the axis shows, with its unit.
    pub label: String,
    /// The least and the greatest value.
    pub range: Range<f64>,
    /// The maximum number of labelled values.
    pub labels: usize,
    /// The label of a value.
    pub text: fn(f64) -> String,
}

/// A series of points, drawn as a line.
pub struct Series {
    /// The name in the legend.
    pub name: String,
    /// The points (x, y), in ascending order of x.
    pub points: Vec<(f64, f64)>,
}

impl Chart {
    /// The chart as an SVG document.
    ///
    /// # Errors
    /// If the chart cannot be laid out.
    pub fn to_svg(&self) -> io::Result<String> {
        to_svg(|area| self.draw(area))
    }

    fn draw(&self, area: &Area<'_>) -> Drawn {
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, TITLE_FONT)
            .margin(16)
            .x_label_area_size(48)
            .y_label_area_size(56)
            .build_cartesian_2d(self.x.range.clone(), self.y.range.clone())?;
        chart
            .configure_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .label_style(LABEL_FONT)
            .x_labels(self.x.labels)
            .y_labels(self.y.labels)
            .x_desc(&self.x.label)
            .y_desc(&self.y.label)
            .x_label_formatter(&|value| (self.x.text)(*value))
            .y_label_formatter(&|value| (self.y.text)(*value))
            .draw()?;
        for (at, Series { name, points }) in self.series.iter().enumerate() {
            let line = LineSeries::new(points.iter().copied(), color(at).stroke_width(2));
            chart.draw_series(line)?.label(name).legend(move |(x, y)| marker(at, (x + 12, y)));
            chart.draw_series(points.iter().map(|&point| marker(at, point)))?;
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::LowerRight)
            .label_font(LABEL_FONT)
            .background_style(WHITE)
            .border_style(GRID)
            .draw()?;
        Ok(())
    }
}

/// A circle, a cross, a triangle or a ring.
fn marker<DB: DrawingBackend, C: Clone + 'static>(series: usize, point: C) -> DynElement<'static, DB, C> {
    let color = color(series);
    match series % COLORS.len() {
        0 => Circle::new(point, 4, color.filled()).into_dyn(),
        1 => Cross::new(point, 4, color.stroke_width(2)).into_dyn(),
        2 => TriangleMarker::new(point, 5, color.filled()).into_dyn(),
        _ => Circle::new(point, 4, color.stroke_width(2)).into_dyn(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_shows_its_texts_and_a_line_for_each_series() {
        let axis = |label: &str, to| Axis {
            label: label.into(),
            range: 0.0..to,
            labels: 5,
            text: |value| format!("<{value}>"),
        };
        let series = |name: &str| Series { name: name.into(), points: vec![(0.0, 0.0), (2.0, 1.0), (4.0, 2.0)] };
        let chart = Chart {
            title: "A & B".into(),
            x: axis("size", 4.0),
            y: axis("share", 2.0),
            series: ["one", "two", "three", "four", "five"].map(series).into(),
        };
        let svg = chart.to_svg().unwrap();
        for text in ["A &amp; B", "size", "share", "&lt;4&gt;", "one", "two", "three", "four", "five"] {
            assert!(svg.contains(&format!("\n{text}\n")), "{text}: {svg}");
        }
        let lines =
            |color: &str| svg.matches(&format!("<polyline fill=\"none\" opacity=\"1\" stroke=\"{color}\"")).count();
        assert_eq!(["#0072B2", "#D55E00", "#009E73", "#CC79A7"].map(lines), [2, 1, 1, 1], "{svg}");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"), "{svg}");
    }
}
