//! Charts as SVG.

pub mod bars;
pub mod lines;

use std::io;

use plotters::coord::Shift;
use plotters::prelude::*;

/// Width and height in pixels.
const SIZE: (u32, u32) = (720, 440);
/// The color of each series. Series of lines also differ in their markers, so that they can be told apart without color.
const COLORS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];
const GRID: RGBColor = RGBColor(224, 224, 224);
/// Family and size. Text is drawn a third smaller than this size.
const TITLE_FONT: (&str, u32) = ("sans-serif", 20);
const LABEL_FONT: (&str, u32) = ("sans-serif", 16);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<<SVGBackend<'static> as DrawingBackend>::ErrorType>>;

/// The SVG document that `draw` draws on a white area.
fn to_svg(draw: impl FnOnce(&Area<'_>) -> Drawn) -> io::Result<String> {
    let mut svg = String::new();
    let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
    area.fill(&WHITE).and_then(|()| draw(&area)).and_then(|()| area.present()).map_err(io::Error::other)?;
    drop(area);
    Ok(svg)
}

fn color(series: usize) -> RGBColor {
    COLORS[series % COLORS.len()]
}
