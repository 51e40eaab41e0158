//! What is known of the filter that is loaded, and from whom.

use super::about::{About, Shown};
use crate::run::filter_hash;
use serde_json::json;

/// Says where the list of calls comes from, and holds the filter to it.
pub(super) fn source(_about: &About, shown: &mut Shown, _from_kernel: bool) {
    let Some(live) = shown.lives.first() else {
        shown.source = Some("unsupported: policy alone".to_owned());
        shown.source_json = Some(json!({"source": "unsupported"}));
        return;
    };
    let _ = filter_hash;
    let kernel = match live.program.as_ref().map(|program| (program.filtered, program.filters)) {
        Some((Some(true), Some(count))) => format!("the kernel says that {count} filter is on"),
        Some((Some(true), None)) => "the kernel says that a filter is on".to_owned(),
        Some((Some(false), _)) => "the kernel says that NO filter is on".to_owned(),
        _ => "the kernel does not say whether a filter is on".to_owned(),
    };
    shown.source = Some(format!("installer: what the session's supervisor loaded; {kernel}"));
}
