//! Charts as inline SVG. Whole numbers throughout, so that a page is the same on every machine; colours
//! are the page's, so that it is light or dark as its reader is.

use core::fmt::Write as _;

/// Lengths are in tenths of a pixel.
const WIDTH: u64 = 7_200;
const LEFT: u64 = 640;
const RIGHT: u64 = 160;
const TOP: u64 = 280;
const BOTTOM: u64 = 420;

/// How values become places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// Linear, with labels at round times of a clock that counts seconds.
    Clock,
    Linear,
    /// Values below the least stand at its place.
    Log,
}

/// One side of a chart.
#[derive(Clone, Copy, Debug)]
pub(super) struct Axis {
    pub(super) label: &'static str,
    pub(super) scale: Scale,
    pub(super) least: u64,
    pub(super) most: u64,
    /// A value as text.
    pub(super) text: fn(u64) -> String,
}

/// How the points of a line are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Filled down to the axis, each value up to the next.
    Area,
    /// Straight from point to point, and a dot at each.
    Dots,
    /// Straight from point to point.
    Line,
    /// Each value up to the next.
    Steps,
}

/// `colour`: which of the page's, from 1.
#[derive(Clone, Debug)]
pub(super) struct Line {
    pub(super) name: String,
    pub(super) colour: u8,
    pub(super) shape: Shape,
    pub(super) points: Vec<(u64, u64)>,
}

/// A limit: a dashed line across, at a value of one axis.
#[derive(Clone, Debug)]
pub(super) enum Limit {
    X(u64, String),
    Y(u64, String),
}

#[derive(Clone, Debug)]
pub(super) struct Chart {
    /// What it shows, as a sentence: the heading, and what a reader hears who does not see it.
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) lines: Vec<Line>,
    pub(super) limits: Vec<Limit>,
    /// In pixels.
    pub(super) height: u64,
}

impl Axis {
    /// Values that are labelled.
    fn ticks(&self) -> Vec<u64> {
        match self.scale {
            Scale::Clock => self.clock_ticks(),
            Scale::Linear => self.linear_ticks(),
            Scale::Log => self.log_ticks(),
        }
    }

    fn linear_ticks(&self) -> Vec<u64> {
        let span = (self.most - self.least).max(1);
        let mut step = 1u64;
        while span / step > 5 {
            let lead = step / 10u64.pow(step.ilog10());
            // 1, 2, 5, 10, 20 and so on.
            step = if lead == 2 { step / 2 * 5 } else { step * 2 };
        }
        let first = self.least.div_ceil(step);
        (first..=self.most / step).map(|ix| ix * step).collect()
    }

    fn clock_ticks(&self) -> Vec<u64> {
        const STEPS: [u64; 12] = [
            1, 5, 15, 60, 300, 600, 1_200, 3_600, 7_200, 21_600, 43_200, 86_400,
        ];
        let span = self.most - self.least;
        let step = STEPS.into_iter().find(|step| span / step <= 8);
        // Days, as many as it takes.
        let step = step.unwrap_or_else(|| span.div_ceil(8 * 86_400) * 86_400);
        let first = self.least.div_ceil(step);
        (first..=self.most / step).map(|ix| ix * step).collect()
    }

    fn log_ticks(&self) -> Vec<u64> {
        let (first, last) = (self.least.max(1).ilog10(), self.most.max(1).ilog10());
        let leads: &[u64] = if last - first > 2 { &[1] } else { &[1, 2, 5] };
        let decades = (first..=last).map(|exponent| 10u64.saturating_pow(exponent));
        let all =
            decades.flat_map(|decade| leads.iter().map(move |lead| decade.saturating_mul(*lead)));
        all.filter(|tick| (self.least..=self.most).contains(tick))
            .collect()
    }

    /// Where a value lies between the ends of an axis that is so long.
    fn place(&self, value: u64, length: u64) -> u64 {
        let value = value.clamp(self.least, self.most);
        let (part, whole) = match self.scale {
            Scale::Clock | Scale::Linear => (value - self.least, self.most - self.least),
            Scale::Log => {
                let least = log2(self.least);
                (log2(value) - least, log2(self.most) - least)
            }
        };
        let place = u128::from(part) * u128::from(length) / u128::from(whole.max(1));
        u64::try_from(place).expect("at most the length")
    }
}

/// The logarithm to base 2 of at least one, in 65,536ths.
fn log2(value: u64) -> u64 {
    let value = value.max(1);
    let whole = value.ilog2();
    // Between one and two, with 62 digits after the point.
    let mut rest = u128::from(value) << (62 - whole.min(62));
    if whole > 62 {
        rest = u128::from(value) >> 1;
    }
    let mut log = u64::from(whole);
    for _ in 0..16 {
        rest = (rest * rest) >> 62;
        log <<= 1;
        if rest >= 1 << 63 {
            rest >>= 1;
            log |= 1;
        }
    }
    log
}

impl Chart {
    pub(super) fn html(&self) -> String {
        let mut out = format!("<figure><figcaption>{}</figcaption>", escaped(&self.title));
        if self.lines.len() > 1 {
            out += "<p class=\"legend\">";
            for line in &self.lines {
                let name = escaped(&line.name);
                let _ = write!(
                    out,
                    "<span><i class=\"b{}\"></i>{name}</span> ",
                    line.colour
                );
            }
            out += "</p>";
        }
        self.svg(&mut out);
        out += "</figure>";
        out
    }

    fn svg(&self, out: &mut String) {
        let (width, height) = (WIDTH / 10, self.height);
        let label = escaped(&self.title);
        let _ = write!(
            out,
            "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{label}\">"
        );
        self.grid(out);
        for line in &self.lines {
            self.line(line, out);
        }
        for limit in &self.limits {
            self.limit(limit, out);
        }
        *out += "</svg>";
    }

    fn plot_height(&self) -> u64 {
        self.height * 10 - TOP - BOTTOM
    }

    fn x_of(&self, value: u64) -> u64 {
        LEFT + self.x.place(value, WIDTH - LEFT - RIGHT)
    }

    fn y_of(&self, value: u64) -> u64 {
        TOP + self.plot_height() - self.y.place(value, self.plot_height())
    }

    fn grid(&self, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, TOP + self.plot_height());
        for tick in self.y.ticks() {
            let y = self.y_of(tick);
            rule(out, "grid", (LEFT, y), (right, y));
            let text = (self.y.text)(tick);
            label(out, (LEFT - 60, y + 40), "end", &text);
        }
        for tick in self.x.ticks() {
            let x = self.x_of(tick);
            rule(out, "grid", (x, bottom), (x, bottom + 40));
            label(out, (x, bottom + 170), "middle", &(self.x.text)(tick));
        }
        rule(out, "axis", (LEFT, bottom), (right, bottom));
        label(out, (right, bottom + 340), "end", self.x.label);
        label(out, (0, TOP - 150), "start", self.y.label);
    }

    fn line(&self, line: &Line, out: &mut String) {
        let mut places: Vec<(u64, u64)> = Vec::new();
        let bottom = TOP + self.plot_height();
        for &(x, y) in &line.points {
            let place = (self.x_of(x), self.y_of(y));
            match (line.shape, places.last()) {
                (Shape::Steps | Shape::Area, Some(&(_, before))) => {
                    places.push((place.0, before));
                }
                // Half a pixel shows nothing.
                (Shape::Line, Some(&(x, y)))
                    if x.abs_diff(place.0) < 5 && y.abs_diff(place.1) < 5 =>
                {
                    continue;
                }
                (Shape::Line | Shape::Dots | Shape::Steps | Shape::Area, _) => {}
            }
            places.push(place);
        }
        let (Some(first), Some(last)) = (places.first(), places.last()) else {
            return;
        };
        let ends = ((first.0, bottom), (last.0, bottom));
        let class = match line.shape {
            Shape::Area => "area a",
            Shape::Dots | Shape::Line | Shape::Steps => "line s",
        };
        if line.shape == Shape::Area {
            places.insert(0, ends.0);
            places.push(ends.1);
        }
        let _ = write!(out, "<polyline class=\"{class}{}\" points=\"", line.colour);
        for (x, y) in &places {
            let _ = write!(out, "{},{} ", Px(*x), Px(*y));
        }
        *out += "\"/>";
        if line.shape == Shape::Dots {
            for &(x, y) in &line.points {
                let (at_x, at_y) = (Px(self.x_of(x)), Px(self.y_of(y)));
                let (x, y) = ((self.x.text)(x), (self.y.text)(y));
                let name = escaped(&line.name);
                let _ = write!(
                    out,
                    "<circle class=\"b{}\" cx=\"{at_x}\" cy=\"{at_y}\" r=\"3.5\"><title>{name}: {y} at {x}</title></circle>",
                    line.colour
                );
            }
        }
    }

    fn limit(&self, limit: &Limit, out: &mut String) {
        let (right, bottom) = (WIDTH - RIGHT, TOP + self.plot_height());
        match limit {
            Limit::X(value, text) if (self.x.least..=self.x.most).contains(value) => {
                let x = self.x_of(*value);
                rule(out, "limit", (x, TOP), (x, bottom));
                let is_far = x > (LEFT + right) / 2;
                let (x, anchor) = if is_far {
                    (x - 50, "end")
                } else {
                    (x + 50, "start")
                };
                label(out, (x, bottom - 60), anchor, text);
            }
            Limit::Y(value, text) if (self.y.least..=self.y.most).contains(value) => {
                let y = self.y_of(*value);
                rule(out, "limit", (LEFT, y), (right, y));
                label(out, (LEFT + 50, y - 40), "start", text);
            }
            Limit::X(..) | Limit::Y(..) => {}
        }
    }
}

/// How machines of some kinds lie along one scale: the range, the middle half and the middle.
#[derive(Clone, Debug)]
pub(super) struct Spread {
    pub(super) name: String,
    /// Sorted.
    pub(super) values: Vec<u64>,
}

/// One row for each; `axis` lies below.
pub(super) fn spreads(title: &str, axis: &Axis, rows: &[Spread]) -> String {
    const ROW: u64 = 220;
    let length = WIDTH - LEFT_NAMES - RIGHT;
    let bottom = TOP / 2 + ROW * rows.len() as u64;
    let mut out = format!(
        "<figure class=\"alone\"><figcaption>{}</figcaption>",
        escaped(title)
    );
    let (width, height) = (WIDTH / 10, (bottom + BOTTOM) / 10);
    let heard = escaped(title);
    let _ = write!(
        out,
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{heard}\">"
    );
    for tick in axis.ticks() {
        let x = LEFT_NAMES + axis.place(tick, length);
        rule(&mut out, "grid", (x, TOP / 2), (x, bottom));
        label(&mut out, (x, bottom + 170), "middle", &(axis.text)(tick));
    }
    label(&mut out, (WIDTH - RIGHT, bottom + 340), "end", axis.label);
    for (ix, row) in (0u64..).zip(rows) {
        let y = TOP / 2 + ROW * ix + ROW / 2;
        label(&mut out, (LEFT_NAMES - 80, y + 40), "end", &row.name);
        let Some(last) = row.values.len().checked_sub(1) else {
            continue;
        };
        let at = |part: usize| LEFT_NAMES + axis.place(row.values[last * part / 4], length);
        rule(&mut out, "line s1", (at(0), y), (at(4), y));
        let (from, to) = (at(1), at(3));
        let values = [0, 2, 4].map(|part| (axis.text)(row.values[last * part / 4]));
        let [least, middle, most] = values;
        let _ = write!(
            out,
            "<rect class=\"b1\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"10\" rx=\"2\"><title>{}: from {least} to {most}, middle {middle}</title></rect>\
             <circle class=\"hole\" cx=\"{}\" cy=\"{}\" r=\"4\"/>",
            Px(from),
            Px(y - 50),
            Px((to - from).max(20)),
            escaped(&row.name),
            Px(at(2)),
            Px(y),
        );
    }
    out += "</svg></figure>";
    out
}

const LEFT_NAMES: u64 = 1_300;

fn rule(out: &mut String, class: &str, from: (u64, u64), to: (u64, u64)) {
    let _ = write!(
        out,
        "<line class=\"{class}\" x1=\"{}\" y1=\"{}\" x2=\"{}\" y2=\"{}\"/>",
        Px(from.0),
        Px(from.1),
        Px(to.0),
        Px(to.1)
    );
}

fn label(out: &mut String, at: (u64, u64), anchor: &str, text: &str) {
    let text = escaped(text);
    let (x, y) = (Px(at.0), Px(at.1));
    let _ = write!(
        out,
        "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{text}</text>"
    );
}

/// Tenths, as SVG has them.
struct Px(u64);

impl core::fmt::Display for Px {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{}.{}", self.0 / 10, self.0 % 10)
    }
}

/// Text that means itself in HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out += "&amp;",
            '<' => out += "&lt;",
            '>' => out += "&gt;",
            '"' => out += "&quot;",
            _ => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axis(scale: Scale, least: u64, most: u64) -> Axis {
        Axis {
            label: "",
            scale,
            least,
            most,
            text: |value| value.to_string(),
        }
    }

    #[test]
    fn logarithms_are_right_to_the_fourth_digit() {
        for (value, log) in [(1, 0), (2, 65_536), (10, 217_705), (1 << 40, 40 << 16)] {
            assert_eq!(log2(value), log, "{value}");
        }
        assert!(log2(u64::MAX) >= (64 << 16) - 1);
    }

    #[test]
    fn ticks_are_round_and_few() {
        assert_eq!(
            axis(Scale::Linear, 0, 100).ticks(),
            [0, 20, 40, 60, 80, 100]
        );
        assert_eq!(axis(Scale::Linear, 0, 7).ticks(), [0, 2, 4, 6]);
        assert_eq!(axis(Scale::Linear, 0, 0).ticks(), [0]);
        assert_eq!(
            axis(Scale::Clock, 0, 3_501).ticks(),
            [0, 600, 1_200, 1_800, 2_400, 3_000]
        );
        let week = axis(Scale::Clock, 0, 14 * 86_400).ticks();
        assert_eq!(week.last(), Some(&(14 * 86_400)));
        let log = axis(Scale::Log, 100_000, 40_000_000).ticks();
        assert_eq!(
            log,
            [
                100_000, 200_000, 500_000, 1_000_000, 2_000_000, 5_000_000, 10_000_000, 20_000_000
            ]
        );
        assert_eq!(
            axis(Scale::Log, 1, 100_000).ticks(),
            [1, 10, 100, 1_000, 10_000, 100_000]
        );
    }

    #[test]
    fn places_lie_between_the_ends_in_order() {
        for scale in [Scale::Linear, Scale::Log] {
            let axis = axis(scale, 10, 10_000);
            assert_eq!((axis.place(10, 500), axis.place(10_000, 500)), (0, 500));
            assert_eq!((axis.place(0, 500), axis.place(u64::MAX, 500)), (0, 500));
            let places: Vec<u64> = (1..=100).map(|ix| axis.place(ix * 100, 500)).collect();
            assert!(places.is_sorted());
        }
        assert!(axis(Scale::Log, 1, 100).place(10, 500).abs_diff(250) <= 1);
    }

    #[test]
    fn names_cannot_break_out_of_a_page() {
        assert_eq!(escaped("<b>\"a\" & b"), "&lt;b&gt;&quot;a&quot; &amp; b");
    }
}
