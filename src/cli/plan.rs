//! `evenkeel plan`: what a config would do to the traffic, before it is applied.

use super::check::unreadable;
use super::client::{Admin, Reply};
use super::{Failure, Outcome, Verdict, say};
use crate::admin::wire::PlanRequest;
use crate::config::value::Rate;
use crate::config::{self, Loaded, problem::Level};
use crate::whatif::plan::{Plan, Present, plan};
use hyper::Method;
use std::path::{Path, PathBuf};

/// What `plan` takes.
#[derive(clap::Args)]
#[command(
    after_help = "Examples:\n  evenkeel plan --config new.yaml                                   against the running proxy, with its load\n  \
                        evenkeel plan --config new.yaml --current old.yaml --rate api=800/s --lose grid-east\n\n\
                        Exit 0: safe, 1: unsafe, 2: could not run."
)]
pub struct Args {
    /// The new config.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// Against this file. Default: against the running proxy, or alone where none answers.
    #[arg(long, value_name = "FILE", conflicts_with = "url")]
    current: Option<PathBuf>,
    /// The running proxy's admin API. Default: http://127.0.0.1:9900, if it answers.
    #[arg(long = "admin", id = "url", value_name = "URL", env = "EVENKEEL_ADMIN")]
    admin: Option<String>,
    /// A file with a token of its config's `admin.tokens`.
    #[arg(long, value_name = "FILE", env = "EVENKEEL_TOKEN_FILE")]
    token_file: Option<PathBuf>,
    /// Look at the loss of this region or fate only; may be given again and again. Default: every one.
    #[arg(long, value_name = "REGION|FATE")]
    lose: Vec<String>,
    /// The load of a service, where live traffic does not tell it or is not what will be; may be given again and again.
    #[arg(long = "rate", value_name = "SERVICE=N/s", value_parser = rate)]
    rates: Vec<(String, Rate)>,
    /// For machines.
    #[arg(long)]
    json: bool,
}

fn rate(text: &str) -> Result<(String, Rate), String> {
    let (service, rate) = text.split_once('=').ok_or("a service and its load: api=800/s")?;
    Ok((service.into(), rate.parse()?))
}

/// Plans.
pub fn run(args: Args) -> Outcome {
    let new = load(&args.config)?;
    if let Some((service, _)) = args.rates.iter().find(|(s, _)| new.checked.topology.service(s).is_none()) {
        let names: Vec<&str> = new.checked.topology.services.iter().map(|s| &*s.name).collect();
        return Err(Failure::new(format!("--rate: there is no service `{service}`"), format!("there are {}", names.join(", "))));
    }
    let planned = match (&args.current, &args.admin) {
        (Some(current), _) => {
            let old = load(current)?;
            // In its place: relative paths are no changes.
            let new = config::parse(&new.source.text, current).unwrap_or(new);
            alone(Some(&old), &new, &args)?
        }
        (None, Some(url)) => live(Admin::at(url.clone(), args.token_file.clone()), &new, &args)?,
        (None, None) => {
            let admin = Admin::at("http://127.0.0.1:9900".into(), args.token_file.clone());
            if admin.answers() {
                live(admin, &new, &args)?
            } else {
                eprintln!(
                    "no Evenkeel answers at http://127.0.0.1:9900: planned by itself, without live load (--admin URL, --current FILE)"
                );
                alone(None, &new, &args)?
            }
        }
    };
    if args.json {
        say(serde_json::to_string_pretty(&planned).map_err(|e| Failure::new(e, ""))?)?;
    } else {
        say(planned.to_string().trim_end())?;
    }
    Ok(if planned.safe { Verdict::Good } else { Verdict::Bad })
}

fn load(path: &Path) -> Result<Loaded, Failure> {
    let text = config::read_text(path).map_err(|p| unreadable(&p))?;
    config::parse(&text, path).map_err(|problems| {
        let errors = problems.0.iter().filter(|p| p.level == Level::Error).count();
        let file = path.display();
        let what = format!("{file} has {errors} problem{}", if errors == 1 { "" } else { "s" });
        Failure::new(what, format!("evenkeel check --config {file}"))
    })
}

fn alone(current: Option<&Loaded>, new: &Loaded, args: &Args) -> Result<Plan, Failure> {
    let given = args.rates.iter().map(|(service, rate)| (service.clone(), rate.0)).collect();
    let present = Present { given, ..Present::default() };
    let current = current.map(|c| &c.checked.topology);
    plan(current, &new.checked.topology, &present, "given", &args.lose).map_err(|e| Failure::new(e, "name one of those with --lose"))
}

fn live(admin: Admin, new: &Loaded, args: &Args) -> Result<Plan, Failure> {
    let config = Some(new.source.text.to_string());
    let body = PlanRequest { config, lose: args.lose.clone(), rates: args.rates.iter().cloned().collect() };
    match admin.call(Method::POST, "/v1/plan", &body)? {
        Reply::Good(planned) => Ok(planned),
        Reply::Refused(problem) => Err(Failure::new(problem.detail, "the proxy checks the file as if it lay beside its own")),
    }
}
