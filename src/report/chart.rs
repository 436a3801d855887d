//! Line charts as inline SVG.
//!
//! The SVG holds numbers only: names stand in the page's legend, which wraps on a small screen
//! and is escaped like all text. Axes and grid are drawn in two placeholder colours that the style
//! sheet replaces by the theme's, so that one drawing serves light and dark.

use std::ops::Range;

use plotters::prelude::*;
use serde::Serialize;

use crate::error::{Error, Result};

/// A named line.
#[derive(Clone, Debug)]
pub struct Line {
    pub label: String,
    /// (x, y), x ascending, both finite.
    pub points: Vec<(f64, f64)>,
}

/// A chart with its legend.
#[derive(Debug, Serialize)]
pub struct Chart {
    /// SVG; safe to put into a page, as it holds nothing but numbers.
    svg: String,
    legend: Vec<Entry>,
}

/// A line of the legend.
#[derive(Debug, Serialize)]
struct Entry {
    label: String,
    colour: String,
    first: f64,
    last: f64,
}

/// Width and height in user units; the page scales it.
const SIZE: (u32, u32) = (420, 220);
/// Most points drawn of a line: what the width can show.
const POINTS: usize = 240;
/// Lines of more points than this are smoothed, with the points themselves drawn faintly.
const SMOOTH: usize = 60;
/// `style.css` replaces these.
const AXIS: RGBColor = RGBColor(0x11, 0x11, 0x11);
const GRID: RGBColor = RGBColor(0x22, 0x22, 0x22);
/// Readable on white and on black.
const PALETTE: [RGBColor; 12] = [
    RGBColor(0x4C, 0x8B, 0xF5),
    RGBColor(0xE8, 0x74, 0x3B),
    RGBColor(0x19, 0xA9, 0x79),
    RGBColor(0x94, 0x5E, 0xCF),
    RGBColor(0xC9, 0x9A, 0x00),
    RGBColor(0x13, 0xA4, 0xB4),
    RGBColor(0xE0, 0x45, 0x7B),
    RGBColor(0x8A, 0x8F, 0x98),
    RGBColor(0xB0, 0x6A, 0x2E),
    RGBColor(0x7D, 0xA8, 0x2B),
    RGBColor(0xD0, 0x6B, 0xD6),
    RGBColor(0x5B, 0x6E, 0xE1),
];

impl Chart {
    /// Draws lines into one plot; none if no line has a point.
    ///
    /// # Errors
    /// The drawing library refuses.
    pub fn of(lines: &[Line]) -> Result<Option<Chart>> {
        let lines: Vec<&Line> = lines.iter().filter(|line| !line.points.is_empty()).collect();
        if lines.is_empty() {
            return Ok(None);
        }
        let mut svg = String::new();
        draw(&lines, &mut svg).map_err(|e| Error::new(format!("a chart cannot be drawn: {e}")))?;
        let legend = lines.iter().enumerate().map(|(i, line)| {
            let RGBColor(r, g, b) = PALETTE[i % PALETTE.len()];
            Entry {
                label: line.label.clone(),
                colour: format!("#{r:02X}{g:02X}{b:02X}"),
                first: line.points[0].1,
                last: line.points[line.points.len() - 1].1,
            }
        });
        Ok(Some(Chart { legend: legend.collect(), svg }))
    }
}

fn draw(lines: &[&Line], svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let x = range(lines.iter().flat_map(|line| line.points.iter().map(|p| p.0)), false);
    let y = range(lines.iter().flat_map(|line| line.points.iter().map(|p| p.1)), true);
    let root = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    let mut chart = ChartBuilder::on(&root)
        .margin_top(8)
        .margin_right(12)
        .x_label_area_size(22)
        .y_label_area_size(46)
        .build_cartesian_2d(x, y)?;
    let style = ("sans-serif", 14).into_font().color(&AXIS);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(AXIS)
        .x_labels(6)
        .y_labels(5)
        .x_label_formatter(&|x| short(*x))
        .y_label_formatter(&|y| short(*y))
        .label_style(style)
        .draw()?;
    for (i, line) in lines.iter().enumerate() {
        let colour = PALETTE[i % PALETTE.len()];
        let points = thin(&line.points);
        if line.points.len() > SMOOTH {
            chart.draw_series(LineSeries::new(points, colour.mix(0.3)))?;
            chart.draw_series(LineSeries::new(thin(&smooth(&line.points)), colour.stroke_width(2)))?;
        } else {
            let radius = if points.len() > SMOOTH / 2 { 0 } else { 3 };
            chart.draw_series(LineSeries::new(points.clone(), colour.stroke_width(2)))?;
            if radius > 0 {
                chart.draw_series(points.into_iter().map(|point| Circle::new(point, radius, colour.filled())))?;
            }
        }
    }
    root.present()?;
    Ok(())
}

/// From the smallest to the largest value; with `pad`, a little more, and from 0 if that is near.
fn range(values: impl Iterator<Item = f64>, pad: bool) -> Range<f64> {
    let (low, high) = values.fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), v| (low.min(v), high.max(v)));
    if (low, high) == (0.0, 0.0) {
        return 0.0..1.0;
    }
    // An axis needs a length.
    let least = (low.abs().max(high.abs()) * 1e-3).max(1e-9);
    let (low, high) = if high - low < least { (low - 500.0 * least, high + 500.0 * least) } else { (low, high) };
    match pad {
        false => low..high,
        true => {
            let margin = 0.05 * (high - low);
            let floor = if low >= 0.0 && low < 0.35 * high { 0.0 } else { low - margin };
            floor..high + margin
        }
    }
}

/// At most [`POINTS`] points: means over equal stretches.
fn thin(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let stretch = points.len().div_ceil(POINTS).max(1);
    points.chunks(stretch).map(mean).collect()
}

fn mean(points: &[(f64, f64)]) -> (f64, f64) {
    let n = points.len() as f64;
    (points.iter().map(|p| p.0).sum::<f64>() / n, points.iter().map(|p| p.1).sum::<f64>() / n)
}

/// Means over a centred window of a twentieth of the line, narrower at the ends.
fn smooth(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let reach = (points.len() / 40).max(1);
    let sums: Vec<f64> = std::iter::once(0.0)
        .chain(points.iter().scan(0.0, |sum, point| {
            *sum += point.1;
            Some(*sum)
        }))
        .collect();
    let at = |i: usize| {
        let reach = reach.min(i).min(points.len() - 1 - i);
        (points[i].0, (sums[i + reach + 1] - sums[i - reach]) / (2 * reach + 1) as f64)
    };
    (0..points.len()).map(at).collect()
}

/// A number of an axis in few characters.
pub fn short(x: f64) -> String {
    let size = x.abs();
    let trim = |text: String| match text.contains('.') {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text,
    };
    match size {
        0.0 => "0".to_owned(),
        s if s >= 1e6 => format!("{}M", trim(format!("{:.2}", x / 1e6))),
        s if s >= 1e4 => format!("{}k", trim(format!("{:.1}", x / 1e3))),
        s if s >= 100.0 => trim(format!("{x:.1}")),
        s if s >= 1e-3 => trim(format!("{x:.4}")),
        // What rounding left of a zero.
        s if s < 1e-12 => "0".to_owned(),
        _ => format!("{x:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(label: &str, points: impl IntoIterator<Item = (f64, f64)>) -> Line {
        Line { label: label.to_owned(), points: points.into_iter().collect() }
    }

    #[test]
    fn lines_share_one_plot_and_are_named_in_the_legend() {
        let lines = [line("a<b", [(0.0, 0.25), (1.0, 0.5)]), line("none", []), line("c", [(0.0, 1.0)])];
        let chart = Chart::of(&lines).unwrap().unwrap();
        let legend: Vec<_> = chart.legend.iter().map(|e| (e.label.as_str(), e.first, e.last)).collect();
        assert_eq!(legend, [("a<b", 0.25, 0.5), ("c", 1.0, 1.0)]);
        assert_ne!(chart.legend[0].colour, chart.legend[1].colour);
        for entry in &chart.legend {
            assert!(chart.svg.contains(&format!("stroke=\"{}\"", entry.colour)), "{}", chart.svg);
        }
        assert!(chart.svg.starts_with("<svg ") && chart.svg.trim_end().ends_with("</svg>"));
        assert!(Chart::of(&[line("none", [])]).unwrap().is_none());
    }

    #[test]
    fn a_long_line_is_thinned_and_smoothed_and_keeps_its_mean() {
        let points: Vec<(f64, f64)> = (0..10_000).map(|i| (f64::from(i), f64::from(i % 2))).collect();
        let thin = thin(&points);
        assert!(thin.len() <= POINTS && thin.len() > POINTS / 2, "{}", thin.len());
        let middle = smooth(&points)[5_000].1;
        assert!((middle - 0.5).abs() < 0.01, "{middle}");
        assert_eq!(smooth(&points)[0], points[0]);
        let chart = Chart::of(&[line("long", points)]).unwrap().unwrap();
        assert!(chart.svg.len() < 30_000, "{}", chart.svg.len());
    }

    #[test]
    fn a_constant_and_a_single_point_still_have_axes() {
        for y in [0.0, 1.0, -3.5, 1e12] {
            assert!(Chart::of(&[line("flat", [(0.0, y), (10.0, y)])]).unwrap().is_some());
            assert!(Chart::of(&[line("one", [(7.0, y)])]).unwrap().is_some());
        }
    }

    #[test]
    fn axis_numbers_are_short() {
        let told: Vec<String> = [0.0, 0.1 + 0.2, -2.5, 123.45, 15_000.0, 2.5e6, 3e-5, 1e-17].map(short).into();
        assert_eq!(told, ["0", "0.3", "-2.5", "123.5", "15k", "2.5M", "3.0e-5", "0"]);
    }
}
