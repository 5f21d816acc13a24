//! A report as a drawing (SVG): what was served, where it went, and the concurrency limits, over one time axis.

use super::report::{Report, Step};
use std::fmt::Write;

const WIDE: f64 = 760.0;
const HIGH: f64 = 150.0;
const LEFT: f64 = 60.0;
const RIGHT: f64 = 180.0;
const GAP: f64 = 44.0;
/// Colours that people with any eyesight tell apart (Okabe and Ito).
const COLOURS: [&str; 8] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000", "#f0e442"];

/// A line of a panel.
struct Curve {
    name: String,
    colour: usize,
    dashed: bool,
    of: Vec<Option<f64>>,
}

impl Report {
    /// All of it.
    pub fn svg(&self) -> String {
        let step = |f: &dyn Fn(&Step) -> Option<f64>| self.timeline.iter().map(f).collect::<Vec<_>>();
        let busy = |i: usize| self.timeline.iter().any(|s| s.share.get(i).is_some_and(|x| *x > 0.0));
        let pools: Vec<usize> = (0..self.pool_names.len()).filter(|i| busy(*i)).collect();
        let share = |i: &usize| Curve {
            name: self.pool_names[*i].clone(),
            colour: *i,
            dashed: false,
            of: step(&|s| s.share.get(*i).map(|x| x * 100.0)),
        };
        let routes: Vec<Curve> = (0..self.route_names.len())
            .filter(|i| self.timeline.iter().any(|s| s.asked[*i] > 0.0))
            .map(|i| Curve {
                name: self.route_names[i].clone(),
                colour: i,
                dashed: false,
                of: step(&|s| (s.asked[i] > 0.0).then(|| 100.0 * s.served[i] / s.asked[i])),
            })
            .collect();
        let mut limits = vec![];
        for i in &pools {
            let name = &self.pool_names[*i];
            limits.push(Curve {
                name: format!("{name} limit"),
                colour: *i,
                dashed: true,
                of: step(&|s| s.limit.get(*i).map(|n| f64::from(*n))),
            });
            let of = step(&|s| s.inflight.get(*i).map(|n| f64::from(*n)));
            limits.push(Curve { name: format!("{name} in flight"), colour: *i, dashed: false, of });
        }
        let panels = [
            ("served, %", routes, Some(100.0)),
            ("share of its service, %", pools.iter().map(share).collect(), Some(100.0)),
            ("requests in flight (logarithmic)", limits, None),
        ];
        let (w, h) = (LEFT + WIDE + RIGHT, 30.0 + 3.0 * (HIGH + GAP));
        let mut s = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {w} {h}\" font-family=\"sans-serif\" font-size=\"11\">\n\
             <rect width=\"{w}\" height=\"{h}\" fill=\"#fff\"/>\n<text x=\"{LEFT}\" y=\"16\" font-size=\"13\">{}: {}</text>\n",
            escape(&self.scenario),
            escape(&self.what)
        );
        for (i, (title, curves, most)) in panels.iter().enumerate() {
            self.panel(&mut s, 44.0 + i as f64 * (HIGH + GAP), title, curves, *most);
        }
        s + "</svg>\n"
    }

    fn panel(&self, s: &mut String, top: f64, title: &str, curves: &[Curve], most: Option<f64>) {
        let log = most.is_none();
        let high = most.unwrap_or_else(|| curves.iter().flat_map(|c| c.of.iter().flatten()).fold(10.0, |a: f64, b| a.max(*b)));
        let x = |t: f64| LEFT + WIDE * t / self.length_s.max(1e-9);
        let y = |v: f64| top + HIGH * (1.0 - if log { (1.0 + v).log10() / (1.0 + high).log10() } else { v / high });
        if let (Some(a), Some(b)) = (self.fault_s, self.healed_s) {
            let (a, b) = (x(a), x(b.min(self.length_s)));
            let _ = writeln!(s, "<rect x=\"{a:.1}\" y=\"{top}\" width=\"{:.1}\" height=\"{HIGH}\" fill=\"#f3dede\"/>", b - a);
        }
        let _ = writeln!(s, "<text x=\"{LEFT}\" y=\"{:.1}\">{title}</text>", top - 5.0);
        let marks: Vec<f64> = if log {
            [0.0, 10.0, 100.0, 1000.0, 10_000.0].into_iter().filter(|m| *m <= high).collect()
        } else {
            vec![0.0, 25.0, 50.0, 75.0, 100.0]
        };
        for m in marks {
            let _ = writeln!(
                s,
                "<path d=\"M{LEFT} {0:.1}H{1}\" stroke=\"#ddd\"/><text x=\"{2}\" y=\"{3:.1}\" text-anchor=\"end\">{m}</text>",
                y(m),
                LEFT + WIDE,
                LEFT - 6.0,
                y(m) + 4.0
            );
        }
        let each = [1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 7200.0, 14_400.0];
        let each = each.into_iter().find(|e| self.length_s / e <= 10.0).unwrap_or(86_400.0);
        let name = |t: f64| if self.length_s <= 600.0 { format!("{t} s") } else { super::tell::long(t) };
        let mut t = 0.0;
        while t <= self.length_s {
            let _ = writeln!(s, "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>", x(t), top + HIGH + 15.0, name(t));
            t += each;
        }
        for (i, c) in curves.iter().enumerate() {
            let colour = COLOURS[c.colour % COLOURS.len()];
            let dash = if c.dashed { " stroke-dasharray=\"4 3\"" } else { "" };
            let mut d = String::new();
            let mut pen = false;
            for (v, step) in c.of.iter().zip(&self.timeline) {
                let Some(v) = v else {
                    pen = false;
                    continue;
                };
                let at = x((step.at + self.step_s).min(self.length_s));
                let _ = write!(d, "{}{at:.1} {:.1}", if pen { "L" } else { "M" }, y(*v));
                pen = true;
            }
            let _ = writeln!(s, "<path d=\"{d}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"{dash}/>");
            let (lx, ly) = (LEFT + WIDE + 10.0, top + 10.0 + 14.0 * i as f64);
            if i < 11 {
                let _ = writeln!(
                    s,
                    "<path d=\"M{lx} {0:.1}h16\" stroke=\"{colour}\" stroke-width=\"2\"{dash}/><text x=\"{1}\" y=\"{2:.1}\">{3}</text>",
                    ly - 4.0,
                    lx + 21.0,
                    ly,
                    escape(&c.name)
                );
            }
        }
    }
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
