//! Horizontal bars in SVG: two for each row, without and with outlier detection.
//!
//! Written by hand rather than by a library: the files are small, the same bytes every time, and
//! readable on a light and on a dark page.

use std::fmt::Write as _;

const WIDTH: f64 = 760.0;
/// Where bars begin.
const LEFT: f64 = 210.0;
const RIGHT: f64 = 700.0;
const TOP: f64 = 64.0;
const ROW: f64 = 34.0;
const THICK: f64 = 11.0;

/// A bar from `from`, or from where the scale begins, to `to`.
pub(crate) struct Bar {
    pub(crate) from: Option<f64>,
    pub(crate) to: f64,
}

pub(crate) enum Scale {
    Linear { to: f64 },
    Logarithmic { from: f64, to: f64 },
}

pub(crate) struct Chart {
    pub(crate) title: &'static str,
    /// Written behind each number.
    pub(crate) unit: &'static str,
    pub(crate) scale: Scale,
    /// Name, without and with outlier detection.
    pub(crate) rows: Vec<(&'static str, Bar, Bar)>,
}

impl Scale {
    fn position(&self, value: f64) -> f64 {
        let part = match self {
            Self::Linear { to } => value / to,
            Self::Logarithmic { from, to } => (value / from).ln() / (to / from).ln(),
        };
        LEFT + (RIGHT - LEFT) * part.clamp(0.0, 1.0)
    }

    fn marks(&self) -> Vec<f64> {
        match self {
            Self::Linear { to } => (0..=4_u32).map(|mark| to * f64::from(mark) / 4.0).collect(),
            Self::Logarithmic { from, to } => [1.0, 10.0, 100.0, 1_000.0]
                .iter()
                .flat_map(|power| [power * 1.0, power * 2.0, power * 5.0])
                .filter(|mark| mark >= from && mark <= to)
                .collect(),
        }
    }
}

impl Chart {
    pub(crate) fn svg(&self) -> String {
        let bottom = TOP + ROW * self.rows.len() as f64;
        let height = bottom + 28.0;
        let mut svg = String::new();
        let mut line = |text: String| {
            svg.push_str(&text);
            svg.push('\n');
        };
        line(format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             font-family=\"sans-serif\" font-size=\"12\" role=\"img\" aria-label=\"{}\">",
            self.title
        ));
        line(
            "<style>text{fill:#1f2328}.grid{stroke:#d1d9e0}.off{fill:#bc4c00}.on{fill:#0969da}\
             @media(prefers-color-scheme:dark){text{fill:#e6edf3}.grid{stroke:#3d444d}\
             .off{fill:#f0883e}.on{fill:#58a6ff}}</style>"
                .to_owned(),
        );
        line(format!(
            "<text x=\"10\" y=\"20\" font-size=\"14\" font-weight=\"bold\">{}</text>",
            self.title
        ));
        for (class, x, name) in [
            ("off", LEFT, "without outlier detection"),
            ("on", LEFT + 190.0, "with outlier detection"),
        ] {
            line(format!(
                "<rect class=\"{class}\" x=\"{x}\" y=\"33\" width=\"11\" height=\"11\"/>\
                 <text x=\"{}\" y=\"43\">{name}</text>",
                x + 16.0
            ));
        }
        for mark in self.scale.marks() {
            let x = self.scale.position(mark);
            line(format!(
                "<line class=\"grid\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{TOP}\" y2=\"{bottom}\"/>\
                 <text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}{}</text>",
                bottom + 16.0,
                number(mark),
                self.unit
            ));
        }
        for (at, (name, off, on)) in self.rows.iter().enumerate() {
            let y = TOP + ROW * at as f64;
            line(format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{name}</text>",
                LEFT - 8.0,
                y + 20.0
            ));
            line(self.bar("off", off, y + 5.0));
            line(self.bar("on", on, y + 5.0 + THICK));
        }
        svg.push_str("</svg>\n");
        svg
    }

    fn bar(&self, class: &str, bar: &Bar, y: f64) -> String {
        let begin = bar.from.map_or(LEFT, |from| self.scale.position(from));
        let end = self.scale.position(bar.to);
        let mut label = String::new();
        if let Some(from) = bar.from {
            // Writing to a string does not fail.
            let _ = write!(label, "{} to ", number(from));
        }
        let _ = write!(label, "{}{}", number(bar.to), self.unit);
        format!(
            "<rect class=\"{class}\" x=\"{begin:.1}\" y=\"{y:.1}\" width=\"{:.1}\" \
             height=\"{THICK}\"><title>{label}</title></rect>\
             <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\">{}{}</text>",
            (end - begin).max(1.0),
            end + 4.0,
            y + 9.5,
            number(bar.to),
            self.unit
        )
    }
}

/// As few digits as say enough.
fn number(value: f64) -> String {
    if value >= 100.0 || (value.fract() == 0.0 && value >= 1.0) {
        format!("{value:.0}")
    } else if value >= 1.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.3}")
    }
}
