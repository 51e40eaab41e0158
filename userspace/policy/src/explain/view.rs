//! What a path is to a program.

use nexus_abi::{Area, Errno, Reason, RuleRef, Verdict};

use super::{Considered, Explainer, Judged, plain};
use crate::paths::is_within;
use crate::settings::WorkMode;

impl Explainer<'_> {
    pub(super) fn path(&mut self, path: &str, home: Option<&str>, work: Option<&str>) {
        let setting = |key: &str| {
            let mut layers = self.subject.settings.iter();
            layers.next_back().and_then(|layer| layer.get(key)).copied()
        };
        let found = self.place(path, home, work, &setting);
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
            let device = self.subject.dev.iter().find(|device| device.as_str() == name)?;
            return Some((setting("dev"), format!("the device `{device}`")));
        }
        if path == "/proc" || is_within(path, "/proc") {
            return Some((None, "the session's own processes".to_owned()));
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
