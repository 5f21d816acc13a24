//! `evenkeel rehearse`: what an outage would do under a config, played on virtual time.

mod file;

use super::check::unreadable;
use super::{Failure, Outcome, Verdict, say};
use crate::config::problem::{Level, Problems};
use crate::config::{self, value::Rate};
use crate::model::view::Compiled;
use crate::whatif::rehearse::{Scenario, rehearse};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The built-in scenarios: their names and texts. They are examples of scenario files, too.
const BUILT_IN: &[(&str, &str)] = &[
    ("blackout", include_str!("../../../config/scenarios/blackout.yaml")),
    ("brownout", include_str!("../../../config/scenarios/brownout.yaml")),
    ("errors", include_str!("../../../config/scenarios/errors.yaml")),
    ("gray", include_str!("../../../config/scenarios/gray.yaml")),
    ("zeros", include_str!("../../../config/scenarios/zeros.yaml")),
    ("overload", include_str!("../../../config/scenarios/overload.yaml")),
    ("flapping", include_str!("../../../config/scenarios/flapping.yaml")),
    ("cold_return", include_str!("../../../config/scenarios/cold_return.yaml")),
];

/// What `rehearse` takes.
#[derive(clap::Args)]
#[command(after_help = "Example: evenkeel rehearse --config config/three-regions.yaml --scenario blackout
Scenarios: blackout, brownout, errors, gray, zeros, overload, flapping, cold_return, fate:NAME (every region that shares it
loses power), or a file (config/scenarios/ holds examples). Objectives in the file, or else the routes' `slo`, decide the
exit code: 0 all met, 1 one missed, 2 could not run.")]
pub struct Args {
    /// The config file.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// A built-in scenario, fate:NAME, or a file.
    #[arg(long, short, value_name = "NAME|FILE")]
    scenario: String,
    /// Requests a second, instead of the scenario's: 800/s.
    #[arg(long, value_name = "N/s")]
    rate: Option<Rate>,
    /// Chance: the same seed gives the same bytes.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// A drawing of shares, limits and what was served, as SVG.
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// For machines.
    #[arg(long)]
    json: bool,
}

/// Plays it. Exit 1 where an objective was missed.
pub fn run(args: Args) -> Outcome {
    let text = config::read_text(&args.config).map_err(|p| unreadable(&p))?;
    let loaded = config::parse(&text, &args.config).map_err(|problems| {
        let errors = problems.0.iter().filter(|p| p.level == Level::Error).count();
        let file = args.config.display();
        Failure::new(
            format!("{file} has {errors} problem{}", if errors == 1 { "" } else { "s" }),
            format!("evenkeel check --config {file}"),
        )
    })?;
    let config = Arc::new(loaded.compile(1));
    let scenario = scenario(&args.scenario, &config)?;
    let report = rehearse(&scenario, &config, args.rate.map(|r| r.0), args.seed);
    if let Some(path) = &args.svg {
        std::fs::write(path, report.svg()).map_err(|e| Failure::new(format!("{} cannot be written: {e}", path.display()), ""))?;
    }
    if args.json {
        say(serde_json::to_string_pretty(&report).map_err(|e| Failure::new(e, ""))?)?;
    } else {
        say(report.text().trim_end())?;
    }
    Ok(if report.met() { Verdict::Good } else { Verdict::Bad })
}

fn scenario(name: &str, config: &Arc<Compiled>) -> Result<Scenario, Failure> {
    let broken = |problems: Problems| {
        let all: Vec<String> = problems.0.iter().map(ToString::to_string).collect();
        Failure::new(format!("the scenario cannot be used\n{}", all.join("\n").trim_end()), "config/scenarios/ holds examples that work")
    };
    if let Some((name, text)) = BUILT_IN.iter().find(|(n, _)| *n == name) {
        return file::scenario(text, &format!("{name}.yaml"), name, config).map_err(broken);
    }
    if let Some(fate) = name.strip_prefix("fate:") {
        let text = include_str!("../../../config/scenarios/blackout.yaml");
        let text = text
            .replace("region: $largest", &format!("fate: {fate:?}"))
            .replace("the largest region loses", &format!("everything that shares the fate {fate} loses"));
        return file::scenario(&text, name, name, config).map_err(broken);
    }
    let path = Path::new(name);
    if !path.exists() && !name.contains(['/', '.']) {
        let names: Vec<&str> = BUILT_IN.iter().map(|(n, _)| *n).collect();
        let meant = config::problem::nearest(name, names.iter().copied()).map_or(String::new(), |n| format!(", perhaps {n}"));
        return Err(Failure::new(
            format!("there is no scenario `{name}`"),
            format!("one of {}, fate:NAME, or a file{meant}", names.join(", ")),
        ));
    }
    let text = config::read_text(path).map_err(|p| unreadable(&p))?;
    let title = path.file_stem().map_or(name.into(), |s| s.to_string_lossy().into_owned());
    file::scenario(&text, name, &title, config).map_err(broken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Arc<Compiled> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/three-regions.yaml");
        Arc::new(config::load(&path).expect("the example is valid").compile(1))
    }

    #[test]
    fn every_built_in_scenario_fits_the_example_and_is_the_same_twice() {
        let config = config();
        for (name, _) in BUILT_IN {
            let mut s = scenario(name, &config).unwrap_or_else(|f| panic!("{name}: {}", f.what));
            s.length = s.length.min(std::time::Duration::from_secs(40));
            let one = |seed| serde_json::to_string(&rehearse(&s, &config, Some(60.0), seed)).expect("a report is JSON");
            assert!(one(1) == one(1), "{name}: the same seed gives the same bytes");
            assert!(one(1) != one(2), "{name}: chance matters");
        }
    }

    #[test]
    fn mistakes_in_a_scenario_are_told_all_at_once_and_in_place() {
        let text =
            "version: 1\nlenght: 20s\nfaults:\n  - {at: 5s, for: 5s, region: easst, is: blackhole}\n  - {at: 5s, for: 5, is: slow}\n";
        let told = file::scenario(text, "s.yaml", "s", &config()).unwrap_err();
        let told: Vec<String> = told.0.iter().map(ToString::to_string).collect();
        let all = told.join("\n");
        for part in ["s.yaml:2:1: lenght", "`length`", "s.yaml:4:31: faults[0].region", "there is no region `easst`", "`5` has no unit"] {
            assert!(all.contains(part), "{part} in\n{all}");
        }
    }
}
