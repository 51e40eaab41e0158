//! Documents that show commands and what they print.

/// Goes through the console examples of a document: `each` gets a command (after `$ `) and what is shown for it, and gives
/// what is to stand there. The document that comes of it, and how many commands there were.
pub fn console(text: &str, mut each: impl FnMut(&str, &str) -> String) -> (String, usize) {
    let (mut written, mut commands, mut inside) = (String::new(), 0, false);
    let mut lines = text.lines().peekable();
    while let Some(line) = lines.next() {
        written.push_str(line);
        written.push('\n');
        if line.starts_with("```") {
            inside = line == "```console";
        }
        let Some(command) = line.strip_prefix("$ ").filter(|_| inside) else {
            continue;
        };
        commands += 1;
        let mut shown = String::new();
        while let Some(next) = lines.next_if(|next| !next.starts_with("$ ") && !next.starts_with("```")) {
            shown.push_str(next.trim_end());
            shown.push('\n');
        }
        written.push_str(&each(command, &shown));
    }
    (written, commands)
}

/// What a command printed, as a document has it: no line ends in spaces.
pub fn printed(output: &str) -> String {
    output.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_commands_of_console_examples_are_taken_and_the_rest_stays_as_it_is() {
        let text = "$ no\n```console\n$ one\na \n\n$ two\n```\n```toml\n$ no\n```\nend\n";
        let mut seen = Vec::new();
        let (written, commands) = console(text, |command, shown| {
            seen.push((command.to_owned(), shown.to_owned()));
            printed("new  ")
        });
        assert_eq!(seen, [("one".into(), "a\n\n".into()), ("two".into(), String::new())]);
        assert_eq!(commands, 2);
        assert_eq!(
            written,
            "$ no\n```console\n$ one\nnew\n$ two\nnew\n```\n```toml\n$ no\n```\nend\n"
        );
    }
}
