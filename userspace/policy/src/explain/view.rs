//! What a path is to a program.

use nexus_abi::{Area, Errno, Reason, RuleRef, Verdict};

use super::{Considered, Explainer, Judged, plain};
use crate::paths::is_within;
use crate::settings::WorkMode;

/// What every session has, whatever its policy says; the directories above are there too.
const OWN_PATHS: [&str; 6] = [
    "/dev/fd",
    "/dev/stdin",
    "/dev/stdout",
    "/dev/stderr",
    "/proc",
    "/var/tmp",
];

impl Explainer<'_> {
    pub(super) fn path(&mut self, path: &str, home: Option<&str>, work: Option<&str>) {
        let setting = |key: &str| {
            let mut layers = self.subject.settings.iter();
            layers.next_back().and_then(|layer| layer.get(key)).copied()
        };
        // What the kernel leaves out, too: `//usr/` is `/usr`.
        let parts = path.split('/').filter(|part| !part.is_empty());
        let plain_path = parts.fold(String::new(), |so_far, part| format!("{so_far}/{part}"));
        let found = self
            .place(&plain_path, home, work, &setting)
            .or_else(|| self.on_the_way(&plain_path, home, work));
        let (verdict, considered) = match found {
            Some((rule, outcome)) => (
                Verdict::Allow { rule },
                Considered {
                    rule,
                    effect: None,
                    outcome,
                },
            ),
            None => (
                Verdict::Deny {
                    reason: Reason::VfsOutsideView,
                    errno: Errno::from_name("ENOENT").unwrap_or(Errno::EPERM),
                    rule: None,
                },
                plain("no rule shows it: to the program it is not there"),
            ),
        };
        self.push(Judged {
            by: "view",
            asked: path.to_owned(),
            verdict,
            considered: vec![considered],
            is_cut: false,
        });
    }

    /// A directory that is there because something below it is: it holds nothing else. `path` is empty for `/`.
    fn on_the_way(&self, path: &str, home: Option<&str>, work: Option<&str>) -> Option<(Option<RuleRef>, String)> {
        // Links of `/dev` lead to the program's own descriptors.
        if OWN_PATHS.iter().any(|own| is_within(own, path)) || is_within(path, "/dev/fd") {
            return Some((None, "every session has it".to_owned()));
        }
        if work.is_some_and(|work| is_within(work, path)) && self.subject.work != WorkMode::None {
            return Some((None, "leads to the work directory".to_owned()));
        }
        let shown = self.subject.view(home);
        let below = || shown.iter().filter(|shown| is_within(&shown.path, path));
        // One that must be there surely makes it.
        let below = below().find(|shown| !shown.optional).or_else(|| below().next())?;
        let optional = if below.optional { ", where that is there" } else { "" };
        Some((Some(below.rule), format!("leads to `{}`{optional}", below.path)))
    }

    /// What the view shows at a path, by which rule.
    fn place(
        &self,
        path: &str,
        home: Option<&str>,
        work: Option<&str>,
        setting: &dyn Fn(&str) -> Option<RuleRef>,
    ) -> Option<(Option<RuleRef>, String)> {
        let budget = |area: Area| self.subject.budgets.get(area).and_then(|given| given.hard_rule);
        for (at, area) in [("/tmp", Area::Tmp), ("/var/tmp", Area::Tmp), ("/state", Area::State)] {
            if is_within(path, at) {
                return Some((
                    budget(area),
                    format!("lies in the area `{area}`: reading and writing within its budget"),
                ));
            }
        }
        if let Some(name) = path.strip_prefix("/dev/") {
            let name = name.split('/').next().unwrap_or_default();
            // `/dev/ptmx` leads into `/dev/pts`.
            let name = if name == "ptmx" { "pts" } else { name };
            let device = self.subject.dev.iter().find(|device| device.as_str() == name)?;
            return Some((setting("dev"), format!("the device `{device}`")));
        }
        if path == "/proc" || is_within(path, "/proc") {
            return Some((
                None,
                "the session's own processes, and what the kernel lets it read of the rest".to_owned(),
            ));
        }
        let shown = self.subject.view(home);
        let shown = shown.iter().rfind(|shown| is_within(path, &shown.path));
        // The work directory is mounted over what else is shown there.
        if let Some(work) = work.filter(|work| is_within(path, work) && self.subject.work != WorkMode::None) {
            let below = path.strip_prefix(work).unwrap_or_default().trim_start_matches('/');
            let protected = self.subject.work_protect.iter().any(|own| is_within(below, own));
            let (key, what) = match self.subject.work {
                WorkMode::None | WorkMode::ReadOnly => ("work", "read-only"),
                _ if protected => ("work_protect", "read-only: it is protected"),
                WorkMode::Metered => ("work", "reading, and writing within its budget"),
                WorkMode::Unmetered => ("work", "reading and writing"),
            };
            return Some((setting(key), format!("lies in the work directory: {what}")));
        }
        let shown = shown?;
        let optional = if shown.optional { ", where it is there" } else { "" };
        Some((
            Some(shown.rule),
            format!("shown read-only by `{}`{optional}", shown.path),
        ))
    }
}
