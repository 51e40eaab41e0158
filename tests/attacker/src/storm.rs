//! Names that change under whoever walks them.

use std::ffi::CString;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// In `directory`, an area: a directory and a link to the host's `secret` directory change places all the time, while
/// others open, stat, link and list what is behind the name. Whatever of the secret comes back is an escape.
pub(crate) fn run(directory: &str, secret: &str, rounds: u64) {
    let path = |name: &str| format!("{directory}/{name}");
    let c = |text: String| CString::new(text).unwrap_or_default();
    let _ = std::fs::create_dir(path("name"));
    let _ = std::fs::write(path("name/file"), "inside\n");
    let _ = std::os::unix::fs::symlink(secret, path("other"));
    let (name, other) = (c(path("name")), c(path("other")));
    let done = AtomicBool::new(false);
    let escaped = AtomicU64::new(0);
    let look = |text: std::io::Result<String>| {
        if text.is_ok_and(|text| text.contains("secret")) {
            escaped.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                // SAFETY: both paths are live C strings. RENAME_EXCHANGE.
                unsafe { libc::renameat2(libc::AT_FDCWD, name.as_ptr(), libc::AT_FDCWD, other.as_ptr(), 2) };
            }
        });
        scope.spawn(|| {
            let mut turn = 0_u64;
            while !done.load(Ordering::Relaxed) {
                turn += 1;
                let new = path(&format!("made-{}", turn % 7));
                let _ = std::fs::remove_file(&new);
                let _ = std::fs::hard_link(path("name/file"), &new);
                look(std::fs::read_to_string(&new));
                let _ = std::fs::rename(path("name/file"), path("other/file2"));
                let _ = std::fs::rename(path("name/file2"), path("name/file"));
            }
        });
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                let _ = std::fs::create_dir(path("deep"));
                let _ = std::fs::rename(path("deep"), path("name/deep"));
                let _ = std::fs::rename(path("name/deep"), path("deep"));
                let _ = std::fs::remove_dir(path("deep"));
            }
        });
        for _ in 0..rounds {
            look(std::fs::read_to_string(path("name/file")));
            look(std::fs::read_to_string(path("other/file")));
            if let Ok(entries) = std::fs::read_dir(path("name")) {
                for entry in entries.flatten() {
                    if entry.file_name() == "secret-name" {
                        escaped.fetch_add(1, Ordering::Relaxed);
                    }
                }
            }
            if std::fs::write(path("name/planted"), "broken").is_ok() {
                let _ = std::fs::remove_file(path("name/planted"));
            }
        }
        done.store(true, Ordering::Relaxed);
    });
    // Names that a careless path join would take for something else.
    for bad in [
        "..",
        ".",
        "",
        "a/../../..",
        "/etc",
        "..\u{0}",
        &"x".repeat(256),
        &"y/".repeat(3000),
    ] {
        let full = format!("{directory}/{bad}");
        look(std::fs::read_to_string(format!("{full}{secret}/file")));
        let _ = std::fs::write(format!("{full}.made"), "x");
    }
    println!("escaped ok {}", escaped.load(Ordering::Relaxed));
}
