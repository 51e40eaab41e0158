//! Taking this machine's paths out of words that may hold them.

use crate::registry::Live;
use crate::run::Places;

/// What is replaced, by what; the longest first, so that a directory inside of another is told as itself.
#[derive(Debug)]
pub(super) struct Scrub(Vec<(String, &'static str)>);

impl Scrub {
    pub(super) fn new(places: &Places, live: &[Live]) -> Self {
        let mut known = vec![
            (places.state.display().to_string(), "$STATE"),
            (places.runtime.display().to_string(), "$STATE/run"),
        ];
        known.extend(places.home.as_ref().map(|home| (home.display().to_string(), "~")));
        known.extend(
            std::env::current_exe()
                .ok()
                .map(|path| (path.display().to_string(), "$NX")),
        );
        for live in live {
            known.extend(live.facts.work.as_ref().map(|work| (work.path.clone(), "$WORK")));
        }
        Self::of(known)
    }

    fn of(mut known: Vec<(String, &'static str)>) -> Self {
        // A root that is all of the machine's paths would leave none of them readable.
        known.retain(|(path, _)| path.len() > 1);
        known.sort_by(|a, b| b.0.len().cmp(&a.0.len()).then_with(|| a.cmp(b)));
        known.dedup();
        Self(known)
    }

    /// The text with every known path by its name, and every other below a home cut behind the directory of homes.
    pub(super) fn text(&self, text: &str) -> String {
        let mut out = text.to_owned();
        for (path, name) in &self.0 {
            out = out.replace(path, name);
        }
        ["/home", "/root", "/Users"]
            .iter()
            .fold(out, |out, homes| hide_below(&out, homes))
    }
}

/// Other people's names are none of anybody's business either.
fn hide_below(text: &str, homes: &str) -> String {
    let homes = format!("{homes}/");
    let mut parts = text.split(&homes);
    let mut out = parts.next().unwrap_or("").to_owned();
    for part in parts {
        let end = part
            .find(|one: char| one.is_whitespace() || matches!(one, '`' | '\'' | '"' | ',' | ';' | ')'))
            .unwrap_or(part.len());
        out.push_str(&homes);
        out.push('…');
        out.push_str(part.get(end..).unwrap_or(""));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_paths_are_named_and_others_below_a_home_are_cut() {
        let scrub = Scrub::of(vec![
            ("/home/ann".to_owned(), "~"),
            ("/home/ann/.local/state/nexus".to_owned(), "$STATE"),
            ("/".to_owned(), "$WORK"),
        ]);
        assert_eq!(
            scrub.text(
                "`/home/ann/.local/state/nexus` can be written, `/home/ann/x` too, `/home/bob/secret` not, `/usr`"
            ),
            "`$STATE` can be written, `~/x` too, `/home/…` not, `/usr`"
        );
    }
}
