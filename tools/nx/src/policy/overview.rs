//! `nx policy`

use super::{Result, Said, in_force, json::VERSION};
use policyd::{Loaded, Origin};
use serde_json::json;
use std::fmt::Write;

const HOW: &str = "\
There is no tree of your own yet. One that works at once:
  nx policy init --preset agent      a coding agent: writes the work directory
  nx policy init --preset ci         a build or test job: no network, no writing outside of its scratch space
  nx policy init --preset service    a service that keeps state
It is written to ~/.config/nexus/policy; `--dir DIR` puts it elsewhere, and `nx run --policy DIR` runs under it.
";

const NEXT: &str = "\
  nx policy validate                     what is wrong with it
  nx policy show [SUBJECT]               what a subject may do, and which line says so
  nx policy explain SUBJECT connect tcp 203.0.113.7:443
  nx policy diff BEFORE AFTER            what became possible, and what no longer is
  nx policy snapshot build               policy.json and policy.bin
";

/// Which policy is in force here, and how to make one.
pub(crate) fn overview(as_json: bool) -> Result<Said> {
    let Loaded {
        policy,
        origin,
        ceiling,
    } = in_force(None)?;
    let subjects: Vec<&str> = policy.subjects().collect();
    if as_json {
        let value = json!({
            "version": VERSION,
            "ok": true,
            "policy": policy.version().to_string(),
            "origin": origin.directory(),
            "built_in": origin == Origin::Shipped,
            "ceiling": ceiling,
            "subjects": subjects,
        });
        return Ok(Said::fine(format!("{value}\n")));
    }
    let mut out = String::new();
    let _ = writeln!(out, "in force     {origin}");
    if let Some(ceiling) = ceiling {
        let _ = writeln!(out, "ceiling      {}", ceiling.display());
    }
    let _ = writeln!(out, "policy       {}", policy.version());
    let shown = subjects.iter().take(20).copied().collect::<Vec<_>>().join(" ");
    let more = subjects.len().saturating_sub(20);
    let rest = if more > 0 {
        format!(" and {more} more")
    } else {
        String::new()
    };
    let _ = writeln!(out, "subjects     {shown}{rest}");
    out.push('\n');
    out.push_str(if origin == Origin::Shipped { HOW } else { NEXT });
    Ok(Said::fine(out))
}
