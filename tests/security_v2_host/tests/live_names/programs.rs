//! Real programs against servers that only have names.

use std::sync::Arc;

use security_v2_host::{Home, Output, Town, need, users};

use crate::tree;

const RULES: &str = r#"
[subject.named]
allow = ["git.example.org:22,80,5432,8000", "*.example.net:8000", "udp git.example.org:4433"]
"#;

/// Files for everybody on port 8000.
const FILES: &str = r#"/usr/bin/python3 "$here/files.py" "$here/www" > "$here/served" 2>&1 & while ! grep -q ready "$here/served" 2> /dev/null; do sleep 0.02; done"#;

const SERVER: &str = r#"
import functools, http.server, os, socket, sys, threading, time
parent = os.getppid()
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
# Both families: a client may know but one try, and begin with the newer.
class Both(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6
    def server_bind(self):
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()
server = Both(("::", 8000), handler)
threading.Thread(target=server.serve_forever, daemon=True).start()
print("ready", flush=True)
while os.getppid() == parent: time.sleep(0.02)
os._exit(0)
"#;

pub(crate) fn has(program: &str) -> bool {
    need(&[program])
}

/// A line of bash in a network where files are served, for each user.
pub(crate) fn each(prepare: &str, line: &str, look: impl Fn(&Arc<Home>, &Output)) {
    each_served(prepare, "", line, look);
}

/// The same, with more servers, which this starts in the background of the shell that becomes `nx`.
pub(crate) fn each_served(prepare: &str, servers: &str, line: &str, look: impl Fn(&Arc<Home>, &Output)) {
    for user in users() {
        let home = Home::new(user);
        let Some(town) = Town::new(&home) else { return };
        home.write_work("files.py", SERVER);
        let done = town
            .run()
            .env(
                "TOWN_MORE",
                format!(
                    "mkdir -p \"$here/www\"; ( cd \"$here/www\"; {prepare}\n); chmod -R a+rX \"$here/www\"\n{FILES}\n{servers}"
                ),
            )
            .policy(&tree(RULES))
            .subject("named")
            .bash(&format!("set -e\n{line}"))
            // Installers take their time on a machine that does something else besides.
            .deadline(std::time::Duration::from_secs(300))
            .run();
        assert_eq!(done.code(), Some(0), "{done}");
        look(&home, &done);
        done.assert_nothing_left();
    }
}

#[test]
fn curl_fetches_by_name_and_is_refused_elsewhere() {
    if !has("/usr/bin/curl") {
        return;
    }
    each(
        "echo page > page",
        "curl -sS http://git.example.org:8000/page; curl -sS http://a.git.example.org/ || echo $?; curl -sS --max-time 5 http://203.0.113.9:8000/page || echo $?",
        |_, done| assert_eq!(done.out(), "page\n6\n7\n", "{done}"),
    );
}

#[test]
fn git_clones_over_http_by_name() {
    if !has("/usr/bin/git") {
        return;
    }
    each(
        "export HOME=$here GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a GIT_COMMITTER_NAME=a GIT_COMMITTER_EMAIL=a; git init -q one; cd one; echo text > file; git add file; git commit -qm one; cd ..; git clone -q --bare one one.git; cd one.git; git update-server-info",
        "cd /tmp; git clone -q http://git.example.org:8000/one.git; cat one/file; git clone -q http://other.example.org:8000/one.git two || echo refused",
        |_, done| assert_eq!(done.out(), "text\nrefused\n", "{done}"),
    );
}

#[test]
fn pip_installs_from_an_index_by_name_and_from_no_other() {
    if !has("/usr/bin/python3") {
        return;
    }
    each(
        r#"mkdir -p simple/own; cd simple/own; /usr/bin/python3 -c '
import zipfile
with zipfile.ZipFile("own-1-py3-none-any.whl", "w") as wheel:
    wheel.writestr("own.py", "print(\"installed\")\n")
    wheel.writestr("own-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: own\nVersion: 1\n")
    wheel.writestr("own-1.dist-info/WHEEL", "Wheel-Version: 1.0\nGenerator: x\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
    wheel.writestr("own-1.dist-info/RECORD", "own.py,,\nown-1.dist-info/METADATA,,\nown-1.dist-info/WHEEL,,\nown-1.dist-info/RECORD,,\n")
'"#,
        "cd /tmp; /usr/bin/python3 -m venv v; v/bin/pip install -q --disable-pip-version-check --index-url http://alias.example.net:8000/simple --trusted-host alias.example.net own; v/bin/python -c 'import own'
v/bin/pip install -q --retries 0 --no-cache-dir --force-reinstall --disable-pip-version-check --index-url http://other.example.org:8000/simple --trusted-host other.example.org own 2> /dev/null || echo refused",
        |_, done| assert_eq!(done.out(), "installed\nrefused\n", "{done}"),
    );
}

#[test]
fn java_fetches_by_name() {
    if !has("/usr/bin/java") {
        return;
    }
    each(
        "echo page > page",
        r#"cd /tmp; cat > Fetch.java <<'END'
import java.net.*; import java.net.http.*;
class Fetch { public static void main(String[] words) throws Exception {
  HttpClient client = HttpClient.newHttpClient();
  System.out.print(client.send(HttpRequest.newBuilder(URI.create("http://git.example.org:8000/page")).build(), HttpResponse.BodyHandlers.ofString()).body());
  try { client.send(HttpRequest.newBuilder(URI.create("http://other.example.org:8000/page")).build(), HttpResponse.BodyHandlers.ofString()); }
  catch (java.io.IOException refused) { System.out.println("refused"); }
} }
END
java -Djava.net.preferIPv4Stack=false -XX:TieredStopAtLevel=1 Fetch.java"#,
        |_, done| assert_eq!(done.out(), "page\nrefused\n", "{done}"),
    );
}

#[test]
fn a_resolver_that_cannot_start_ends_the_session_and_says_why() {
    if !has("/usr/bin/strace") || !has("/usr/bin/setpriv") {
        return;
    }
    for user in users() {
        let home = Home::new(user);
        let id = user.id().to_string();
        let mut words: Vec<String> = Vec::new();
        if rustix::process::geteuid().is_root() && id != "0" {
            let become_user = [
                "setpriv",
                &format!("--reuid={id}"),
                &format!("--regid={id}"),
                "--clear-groups",
                "--inh-caps=-all",
            ];
            words.extend(become_user.map(str::to_owned));
        }
        // Each of the supervisor's binds but its first, which makes the session known.
        let failing = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=bind", "-e"];
        words.extend(failing.map(str::to_owned));
        words.push("inject=bind:error=EADDRINUSE:when=2+".to_owned());
        let run = security_v2_host::Run::at(&home)
            .around(words)
            .policy(&tree(RULES))
            .subject("named");
        let done = run.args(["sleep", "60"]).run();
        assert_eq!(done.code(), Some(7), "{done}");
        assert!(done.err().contains("cannot start the resolver: "), "{done}");
        done.assert_nothing_left();
    }
}
