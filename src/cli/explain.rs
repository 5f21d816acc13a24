//! `evenkeel explain`: the way of one request under a config while nothing has failed, and why.
//! What a running proxy would do at this moment, `POST /v1/explain` tells.

use super::check::unreadable;
use super::{Failure, Outcome, Verdict, say};
use crate::admin::explain::explain;
use crate::admin::wire::ExplainRequest;
use crate::config::{self, problem::Level};
use crate::whatif;
use std::path::PathBuf;
use std::sync::Arc;

/// What `explain` takes.
#[derive(clap::Args)]
#[command(after_help = "Example: evenkeel explain --config config/three-regions.yaml GET /video/1 --header 'Host: www.example.com'")]
pub struct Args {
    /// The config file.
    #[arg(long, short, value_name = "FILE")]
    config: PathBuf,
    /// GET, POST, …
    method: String,
    /// http://host/path?query, or a path alone.
    url: String,
    /// A header field of the request; may be given again and again.
    #[arg(long = "header", short = 'H', value_name = "K: V", value_parser = field)]
    headers: Vec<(String, String)>,
    /// For machines.
    #[arg(long)]
    json: bool,
}

fn field(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once(':').ok_or("a header field has a colon: 'Host: www.example.com'")?;
    Ok((name.trim().into(), value.trim().into()))
}

/// Explains the request. Exit 1 where no route takes it.
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
    let asked = ExplainRequest { method: args.method, url: args.url, headers: args.headers.into_iter().collect() };
    let view = whatif::at_rest(Arc::new(loaded.compile(1)));
    let explanation = explain(&view, None, &asked).map_err(|why| Failure::new(why, "evenkeel explain --help"))?;
    if args.json {
        say(serde_json::to_string_pretty(&explanation).map_err(|e| Failure::new(e, ""))?)?;
    } else {
        say(explanation.to_string().trim_end())?;
    }
    Ok(if explanation.route.is_some() { Verdict::Good } else { Verdict::Bad })
}
