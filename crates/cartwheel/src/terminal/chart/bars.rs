//! Bar charts.

use std::io;

use plotters::prelude::*;

use super::{Area, Drawn, GRID, LABEL_FONT, TITLE_FONT, color, to_svg};

/// The share of a group's width that its bars take.
const WIDTH: f64 = 0.8;
/// The height of the chart as a multiple of its tallest bar, which leaves room for the legend.
const HEADROOM: f64 = 1.3;
/// The distance from a group's place to where its name still belongs.
const NEAR: f64 = 1e-6;

/// A chart with groups of bars.
pub struct Bars {
    /// The title.
    pub title: String,
    /// What the height of a bar shows, with its unit.
    pub label: String,
    /// The names of the bars of each group.
    pub series: Vec<String>,
    /// The name of each group, and the height of each of its bars. A bar without a height is left out.
    pub groups: Vec<(String, Vec<Option<f64>>)>,
}

impl Bars {
    /// The chart as an SVG document.
    ///
    /// # Errors
    /// If the chart cannot be laid out.
    pub fn to_svg(&self) -> io::Result<String> {
        to_svg(|area| self.draw(area))
    }

    fn draw(&self, area: &Area<'_>) -> Drawn {
        let most = self.groups.iter().flat_map(|(_, heights)| heights).flatten().copied().fold(0.0, f64::max);
        // Group number i, from 1, is at x = i.
        let (x, y) = (0.5..self.groups.len().max(1) as f64 + 0.5, 0.0..(most * HEADROOM).max(f64::MIN_POSITIVE.sqrt()));
        let mut chart = ChartBuilder::on(area)
            .caption(&self.title, TITLE_FONT)
            .margin(16)
            .x_label_area_size(32)
            .y_label_area_size(64)
            .build_cartesian_2d(x, y)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(GRID)
            .label_style(LABEL_FONT)
            .x_labels(self.groups.len() + 1)
            .y_labels(10)
            .y_desc(&self.label)
            .x_label_formatter(&|&at| self.name_at(at))
            .draw()?;
        let width = WIDTH / self.series.len().max(1) as f64;
        for (at, name) in self.series.iter().enumerate() {
            let bar = |(group, (_, heights)): (usize, &(String, Vec<Option<f64>>))| {
                let left = (group + 1) as f64 - WIDTH / 2.0 + at as f64 * width;
                let height = (*heights.get(at)?)?;
                Some(Rectangle::new([(left, 0.0), (left + width * 0.95, height)], color(at).filled()))
            };
            let bars = self.groups.iter().enumerate().filter_map(bar);
            let legend = move |(x, y)| Rectangle::new([(x + 4, y - 5), (x + 16, y + 5)], color(at).filled());
            chart.draw_series(bars)?.label(name).legend(legend);
        }
        chart
            .configure_series_labels()
            .position(SeriesLabelPosition::UpperRight)
            .label_font(LABEL_FONT)
            .background_style(WHITE)
            .border_style(GRID)
            .draw()?;
        Ok(())
    }

    /// The name of the group at `x`; empty between groups.
    fn name_at(&self, x: f64) -> String {
        let number = x.round();
        let group =
            ((x - number).abs() < NEAR && number >= 1.0).then(|| self.groups.get(number as usize - 1)).flatten();
        group.map(|(name, _)| name.clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chart_shows_its_names_and_a_bar_for_each_height() {
        for count in 1..=8 {
            let group = |number: usize| (format!("group {number}"), vec![Some(1.0), None, Some(number as f64)]);
            let bars = Bars {
                title: "A & B".into(),
                label: "us".into(),
                series: ["one", "two", "three"].map(String::from).into(),
                groups: (1..=count).map(group).collect(),
            };
            let svg = bars.to_svg().unwrap();
            let names = (1..=count).map(|number| format!("group {number}"));
            for text in names.chain(["A &amp; B", "us", "one", "two", "three"].map(str::to_owned)) {
                assert!(svg.contains(&format!("\n{text}\n")), "{text}: {svg}");
            }
            // One more of each color is in the legend.
            let drawn = |color: &str| svg.matches(&format!("fill=\"{color}\"")).count();
            assert_eq!(["#0072B2", "#D55E00", "#009E73"].map(drawn), [count + 1, 1, count + 1], "{svg}");
        }
    }

    #[test]
    fn a_chart_without_heights_is_drawn() {
        let bars = Bars { title: String::new(), label: String::new(), series: Vec::new(), groups: Vec::new() };
        assert!(bars.to_svg().is_ok());
    }
}
