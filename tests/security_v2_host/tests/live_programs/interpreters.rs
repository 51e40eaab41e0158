//! perl, node and Java.

use crate::need::{denied, has, place, works, works_unhindered};
use security_v2_host::users;

#[test]
fn perl_with_threads_children_and_sockets_works() {
    if !has(&["perl"]) {
        return;
    }
    for user in users() {
        let done = works_unhindered(
            &place(user),
            r#"perl -Mthreads -MIO::Socket::INET -MFile::Temp=tempfile -MPOSIX -MSys::Hostname -e '
            print join(",", map { $_->join } map { my $i = $_; threads->create(sub { $i * 2 }) } 1 .. 8), "\n";
            my $server = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1") or die $!;
            my $pid = fork // die; if (!$pid) { my $c = IO::Socket::INET->new(PeerAddr => "127.0.0.1:" . $server->sockport) or die; print $c "hi\n"; exit 0 }
            print scalar readline($server->accept); waitpid $pid, 0; print $? >> 8, "\n";
            open my $p, "-|", "seq", 3 or die; print <$p>; my ($f, $n) = tempfile(); print $f "x"; close $f; print -s $n, "\n";
            local $SIG{ALRM} = sub { print "alarm\n" }; alarm 1; pause; system("exit 4;"); print $? >> 8, hostname(), (getpwuid $<)[7], "\n"'"#,
        );
        assert_eq!(
            done.out(),
            "2,4,6,8,10,12,14,16\nhi\n0\n1\n2\n3\n1\nalarm\n4nexus/state/home\n",
            "{done}"
        );
    }
}

const NODE: &str = r#"
const { Worker } = require("worker_threads"), cp = require("child_process"), fs = require("fs"), http = require("http");
const os = require("os"), net = require("net"), crypto = require("crypto"), dgram = require("dgram"), assert = require("assert");
const worker = n => new Promise((done, fail) => new Worker("const w = require('worker_threads'); w.parentPort.postMessage(w.workerData * 2)", { eval: true, workerData: n }).on("message", done).on("error", fail));
(async () => {
  assert.deepEqual(await Promise.all([1, 2, 3, 4, 5, 6].map(worker)), [2, 4, 6, 8, 10, 12]);
  assert.equal(cp.execSync("echo from child").toString(), "from child\n");
  assert.equal(cp.spawnSync("cat", { input: "z".repeat(300000) }).stdout.length, 300000);
  const dir = fs.mkdtempSync(os.tmpdir() + "/n-");
  await fs.promises.writeFile(dir + "/f", crypto.randomBytes(1 << 20)); fs.copyFileSync(dir + "/f", dir + "/g"); fs.cpSync(dir, dir + "-copy", { recursive: true });
  assert(fs.readFileSync(dir + "/f").equals(fs.readFileSync(dir + "-copy/g")));
  const changed = new Promise(done => { const w = fs.watch(dir, () => { w.close(); done(); }); }); fs.writeFileSync(dir + "/h", ""); await changed;
  fs.rmSync(dir, { recursive: true });
  const web = http.createServer((q, r) => r.end("served")); await new Promise(done => web.listen(0, "localhost", done));
  assert.equal(await (await fetch("http://localhost:" + web.address().port)).text(), "served"); web.close(); web.closeAllConnections();
  const unix = net.createServer(c => c.end("unix")); await new Promise(done => unix.listen(os.tmpdir() + "/u", done));
  assert.equal(await new Promise(done => net.connect(os.tmpdir() + "/u").on("data", d => done(d + ""))), "unix"); unix.close();
  const a = dgram.createSocket("udp4"); await new Promise(done => a.bind(0, "127.0.0.1", done));
  const heard = new Promise(done => a.on("message", m => done(m + ""))); const b = dgram.createSocket("udp4"); b.send("datagram", a.address().port, "127.0.0.1");
  assert.equal(await heard, "datagram"); a.close(); b.close();
  const child = cp.fork(__filename, ["child"]); assert.equal(await new Promise(done => child.on("message", done)), "ipc"); child.disconnect();
  assert(os.cpus().length >= 1 && os.availableParallelism() >= 1 && os.totalmem() > 0); assert.equal(os.hostname(), "nexus"); assert.equal(os.homedir(), "/state/home");
  assert.equal(await new Promise(done => { process.once("SIGUSR2", () => done("signal")); process.kill(process.pid, "SIGUSR2"); }), "signal");
  console.log("end");
})();
"#;

#[test]
fn node_with_worker_threads_children_files_and_servers_of_its_own_works() {
    if !has(&["node"]) {
        return;
    }
    for user in users() {
        let home = place(user);
        home.write_work(
            "busy.js",
            &format!("if (process.argv[2]) {{ process.send(\"ipc\"); }} else {{ {NODE} }}"),
        );
        let done = works(&home, "node busy.js");
        assert_eq!(done.out(), "end\n", "{done}");
        // The C library asks for interfaces before it sorts addresses, and does without.
        assert!(
            denied(&done).iter().all(|deny| deny.starts_with("socket(0x10, ")),
            "{done}"
        );
        home.assert_nothing_left();
    }
}

/// Netlink stays shut: docs/security/abi-filters.md says why.
#[test]
fn what_lists_network_interfaces_by_netlink_is_told_that_it_may_not() {
    if !has(&["node"]) {
        return;
    }
    for user in users() {
        let done = works(
            &place(user),
            "node -e 'try { require(\"os\").networkInterfaces() } catch (e) { console.log(\"refused\") }'",
        );
        assert_eq!(done.out(), "refused\n", "{done}");
        assert!(
            denied(&done)
                .iter()
                .all(|deny| deny.starts_with("socket(0x10, ") && deny.ends_with("egress.family")),
            "{done}"
        );
    }
}

const JAVA: &str = r#"
import java.net.*; import java.nio.channels.*; import java.nio.file.*; import java.util.concurrent.*;
public class Busy {
    public static void main(String[] arguments) throws Exception {
        var pool = Executors.newFixedThreadPool(8); var sum = new java.util.concurrent.atomic.AtomicInteger();
        for (int i = 0; i < 100; i++) { int n = i; pool.submit(() -> sum.addAndGet(n)); }
        pool.shutdown(); pool.awaitTermination(1, TimeUnit.MINUTES); System.out.println(sum.get());
        var server = new ServerSocket(0, 5, InetAddress.getLoopbackAddress());
        new Thread(() -> { try (var c = server.accept()) { c.getOutputStream().write(7); } catch (Exception e) { throw new RuntimeException(e); } }).start();
        System.out.println(new Socket(server.getInetAddress(), server.getLocalPort()).getInputStream().read());
        System.out.print(new String(new ProcessBuilder("echo", "child").start().getInputStream().readAllBytes()));
        var file = Files.createTempFile("a", "b"); Files.writeString(file, "text"); System.out.println(Files.size(file));
        try (var channel = FileChannel.open(file, StandardOpenOption.READ, StandardOpenOption.WRITE)) {
            var map = channel.map(FileChannel.MapMode.READ_WRITE, 0, 4); map.put(0, (byte) 'T'); map.force();
        }
        System.out.println(Files.readString(file).substring(0, 4)); FileSystems.getDefault().newWatchService().close();
        var selector = Selector.open(); var nio = ServerSocketChannel.open().bind(new InetSocketAddress("localhost", 0));
        nio.configureBlocking(false); nio.register(selector, SelectionKey.OP_ACCEPT); System.out.println(selector.selectNow());
        var interfaces = java.util.Collections.list(NetworkInterface.getNetworkInterfaces());
        System.out.println(interfaces.get(0).getName() + " " + interfaces.get(0).isUp() + " " + interfaces.get(0).isLoopback() + " " + InetAddress.getLoopbackAddress().getHostAddress());
        System.out.println(InetAddress.getLocalHost() + " " + System.getProperty("user.name") .length() + " " + System.getProperty("java.io.tmpdir"));
    }
}
"#;

#[test]
fn java_compiles_and_runs_threads_files_and_sockets() {
    if !has(&["java", "javac"]) {
        return;
    }
    for user in users() {
        let home = place(user);
        home.write_work("Busy.java", JAVA);
        let done = works(&home, "javac -d /tmp/classes Busy.java; java -cp /tmp/classes Busy");
        let out = done.out();
        assert_eq!(denied(&done), Vec::<String>::new(), "{done}");
        assert!(
            out.starts_with("4950\n7\nchild\n4\nText\n0\nlo true true 127.0.0.1\nnexus/127.0.0.1 "),
            "{done}"
        );
    }
}
