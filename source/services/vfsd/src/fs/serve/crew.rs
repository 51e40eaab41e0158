//! Threads that take turns at reading.

use std::cell::RefCell;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{JoinHandle, Thread};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::thread::CpuSet;

use super::super::protocol::{Answer, Header, REQUEST_BYTES_MAX, WRITE, WriteHead};
use super::pipe::{PIPED_BYTES_MIN, Pipe};
use super::quiet::Quiet;
use super::{Server, answer_one, answer_piped, receive};

/// How many threads there are at most: one request each that waits for the disk. Each has two buffers of half a megabyte,
/// which take memory only as far as they were used.
pub(super) const THREADS_MAX: usize = 16;

/// The post of the one that reads when all is quiet ([`super::quiet`]), beside those.
pub(super) const QUIET: usize = THREADS_MAX;

/// All posts.
pub(super) const POSTS: usize = THREADS_MAX + 1;

/// How long a turn of a thread should be, in nanoseconds: the shortest that there is, and longer than most requests.
pub(super) const TURN_NS: u64 = 100_000;

/// What a thread does, as others see it.
#[derive(Debug, Default)]
pub(super) struct Post {
    /// How many requests it began and ended; odd while it serves one.
    pub(super) steps: AtomicU64,
    /// Who asked last.
    pub(super) caller: AtomicU32,
    /// Its own number for the kernel, 0 before it runs.
    pub(super) thread: AtomicU32,
    /// Whether it is one of the readers.
    pub(super) reads: AtomicBool,
}

/// What a thread works with, and uses again for each request.
#[derive(Debug)]
pub(super) struct Hands {
    buffer: Vec<u8>,
    answer: Answer,
    pipe: Option<Pipe>,
    /// Whether the last request was a large write: the next is likely to be one as well, and comes through the pipe.
    large: bool,
}

impl Hands {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; REQUEST_BYTES_MAX],
            answer: Answer::new(),
            pipe: None,
            large: false,
        }
    }
}

/// The thread of a post goes.
pub(super) fn leave_post(post: &Post) {
    post.thread.store(0, Ordering::Relaxed);
    POST.set(None);
}

#[derive(Debug, Default)]
pub(super) struct Muster {
    /// How many read, or serve what they have read and mean to read again; without the one for quiet times.
    readers: usize,
    /// How many wait to be needed.
    parked: usize,
    pub(super) threads: Vec<JoinHandle<()>>,
    /// How many were ever begun.
    begun: usize,
    /// The device says that there is nothing more to come.
    pub(super) over: bool,
    /// What there is of a reader for quiet times.
    pub(super) quiet: Quiet,
}

/// The threads of one server.
#[derive(Debug)]
pub(super) struct Crew {
    server: Server,
    posts: [Post; POSTS],
    muster: Mutex<Muster>,
    pub(super) needed: Condvar,
    /// How many should read.
    wanted: AtomicU32,
    /// Whether the one for quiet times reads, and nobody else.
    pub(super) is_quiet: AtomicBool,
    /// Whether its caller seems to have moved away from it.
    pub(super) lost_caller: AtomicBool,
    /// Whether it may be waiting for a request, wanted or not.
    pub(super) quiet_waits: AtomicBool,
    /// More read than should: who sees it first leaves.
    crowded: AtomicBool,
    over: AtomicBool,
    /// Whether the warden sleeps until there is something to watch.
    pub(super) warden_sleeps: AtomicBool,
    warden: OnceLock<Thread>,
    /// The cores that there are for us.
    everywhere: Option<CpuSet>,
}

thread_local! {
    /// The crew of this thread and its post.
    static POST: RefCell<Option<(Arc<Crew>, usize)>> = const { RefCell::new(None) };
}

/// Says that this thread is about to wait for something: another one reads meanwhile.
///
/// It is called with locks of the file system held, and takes none of them.
pub(crate) fn aside() {
    POST.with_borrow(|post| {
        if let Some((crew, number)) = post {
            crew.take_aside(*number, None);
        }
    });
}

/// What the other threads were doing when it was made: who waits for something that one of them may be about to do knows when it
/// is in vain.
#[derive(Debug)]
pub(crate) struct Others {
    own: usize,
    crew: Arc<Crew>,
    steps: [u64; POSTS],
    was_empty: bool,
}

impl Others {
    /// `None` in a thread that serves nothing.
    pub(crate) fn now() -> Option<Self> {
        let (crew, own) = POST.with_borrow(Clone::clone)?;
        let mut steps = [0; POSTS];
        for (post, seen) in crew.posts.iter().zip(&mut steps) {
            *seen = post.steps.load(Ordering::SeqCst);
        }
        Some(Self {
            own,
            crew,
            steps,
            was_empty: false,
        })
    }

    /// Whether each of them has ended what it was at, and nothing waited at some time since.
    pub(crate) fn are_done(&mut self) -> bool {
        self.was_empty = self.was_empty || !self.crew.has_request();
        let mut posts = self.crew.posts.iter().zip(&self.steps).enumerate();
        self.was_empty
            && posts.all(|(number, (post, seen))| {
                number == self.own || seen & 1 == 0 || post.steps.load(Ordering::SeqCst) != *seen
            })
    }
}

impl Crew {
    pub(super) fn new(server: Server) -> Self {
        Self {
            server,
            posts: Default::default(),
            muster: Mutex::default(),
            needed: Condvar::new(),
            wanted: AtomicU32::new(1),
            is_quiet: AtomicBool::new(false),
            lost_caller: AtomicBool::new(false),
            quiet_waits: AtomicBool::new(false),
            crowded: AtomicBool::new(false),
            over: AtomicBool::new(false),
            warden_sleeps: AtomicBool::new(false),
            warden: OnceLock::new(),
            everywhere: rustix::thread::sched_getaffinity(None).ok(),
        }
    }

    pub(super) fn set_warden(&self, thread: Thread) {
        let _ = self.warden.set(thread);
    }

    pub(super) fn posts(&self) -> &[Post] {
        &self.posts
    }

    pub(super) fn everywhere(&self) -> Option<&CpuSet> {
        self.everywhere.as_ref()
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }

    pub(super) fn device(&self) -> BorrowedFd<'_> {
        self.server.device.as_fd()
    }

    pub(super) fn wake_warden(&self) {
        if let Some(warden) = self.warden.get() {
            warden.unpark();
        }
    }

    /// Whether a request waits for a reader at this moment.
    pub(super) fn has_request(&self) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(self.device(), PollFlags::IN)];
        let now = Timespec { tv_sec: 0, tv_nsec: 0 };
        matches!(rustix::event::poll(&mut fds, Some(&now)), Ok(1..))
            && fds.iter().any(|fd| fd.revents().contains(PollFlags::IN))
    }

    /// How many threads should read.
    pub(super) fn wanted(&self) -> usize {
        usize::try_from(self.wanted.load(Ordering::Relaxed)).unwrap_or(usize::MAX)
    }

    /// Says how many threads should read, at least one.
    pub(super) fn set_wanted(self: &Arc<Self>, count: usize) {
        let count = count.clamp(1, THREADS_MAX);
        self.wanted.store(u32::try_from(count).unwrap_or(1), Ordering::Relaxed);
        self.recount(self.lock());
    }

    /// Has as many read as should by now.
    pub(super) fn recount(self: &Arc<Self>, muster: MutexGuard<'_, Muster>) {
        self.crowded
            .store(muster.readers > self.wanted_of(&muster), Ordering::Relaxed);
        self.fill(muster);
    }

    /// How many should read beside the one for quiet times.
    fn wanted_of(&self, muster: &Muster) -> usize {
        if muster.quiet == Quiet::Reads { 0 } else { self.wanted() }
    }

    /// Runs the crew in this thread and others until the end.
    pub(super) fn serve(self: &Arc<Self>) {
        let mut muster = self.lock();
        muster.begun = 1;
        drop(muster);
        self.work(0);
        // Threads may begin threads until all have seen the end.
        loop {
            let threads = std::mem::take(&mut self.lock().threads);
            if threads.is_empty() {
                break;
            }
            for thread in threads {
                let _ = thread.join();
            }
        }
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Muster> {
        self.muster.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(self: &Arc<Self>, number: usize) {
        let Some(post) = self.take_post(number) else { return };
        // Whoever began this thread may itself be kept on one core.
        if let Some(everywhere) = &self.everywhere {
            let _ = rustix::thread::sched_setaffinity(None, everywhere);
        }
        // Requests are short, and somebody waits for each: sooner rather than longer, where others want the core as well.
        // What an older kernel lacks only costs speed.
        if let Ok(nice) = rustix::process::getpriority_process(None) {
            let _ = nexus_sys::schedule::prefer_short_turns(TURN_NS, nice);
        }
        let mut hands = Hands::new();
        while self.take_turn(post) {
            self.read_while_wanted(post, &mut hands);
        }
        leave_post(post);
    }

    /// Makes this thread known as the one of a post.
    pub(super) fn take_post(self: &Arc<Self>, number: usize) -> Option<&Post> {
        let post = self.posts.get(number)?;
        POST.set(Some((Arc::clone(self), number)));
        let thread = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        post.thread.store(thread, Ordering::Relaxed);
        Some(post)
    }

    /// Waits until one more reader is wanted; `false` at the end.
    fn take_turn(&self, post: &Post) -> bool {
        let mut muster = self.lock();
        loop {
            if muster.over {
                return false;
            }
            if muster.readers < self.wanted_of(&muster) {
                muster.readers = muster.readers.saturating_add(1);
                post.reads.store(true, Ordering::Relaxed);
                return true;
            }
            muster.parked = muster.parked.saturating_add(1);
            muster = self.needed.wait(muster).unwrap_or_else(PoisonError::into_inner);
            muster.parked = muster.parked.saturating_sub(1);
        }
    }

    /// Serves as long as this post is one of the readers.
    pub(super) fn read_while_wanted(self: &Arc<Self>, post: &Post, hands: &mut Hands) {
        while post.reads.load(Ordering::Relaxed) {
            if self.serve_one(post, hands).is_err() {
                return self.end();
            }
            if self.crowded.load(Ordering::Relaxed) {
                self.leave_crowd(post);
            }
        }
    }

    /// Waits for one request and answers it; an error means that there will be no more.
    pub(super) fn serve_one(&self, post: &Post, hands: &mut Hands) -> Result<(), Errno> {
        let mut len = None;
        if let Some(pipe) = hands.pipe.take_if(|_| hands.large) {
            let count = match pipe.receive(&self.server.device) {
                Err(Errno::INTR) => {
                    hands.pipe = Some(pipe);
                    return Ok(());
                }
                received => received?,
            };
            let mut first = [0; WriteHead::BYTES];
            let got = pipe.read(&mut first)?;
            if let Some((header, head)) = WriteHead::of(&first, count).filter(|_| got == first.len()) {
                self.began(post, header);
                answer_piped(&self.server, header, head, &pipe, &mut hands.answer);
                self.ended(post);
                hands.large = head.size >= PIPED_BYTES_MIN;
                // One with something left in it would be taken for the next request's.
                hands.pipe = if pipe.is_empty() { Some(pipe) } else { Pipe::new() };
                return Ok(());
            }
            // Something else: as if it had been read.
            let (head, rest) = hands.buffer.split_at_mut_checked(got).ok_or(Errno::IO)?;
            head.copy_from_slice(first.get(..got).unwrap_or_default());
            len = Some(got.saturating_add(pipe.read(rest)?));
            hands.pipe = Some(pipe);
        }
        let bytes = match len {
            Some(len) => hands.buffer.get(..len).unwrap_or_default(),
            None => match receive(&self.server.device, &mut hands.buffer) {
                // Somebody wants us to look up.
                Err(Errno::INTR) => return Ok(()),
                received => received?,
            },
        };
        // Too short for a header: nobody to answer.
        let Ok((header, opcode, body)) = Header::of(bytes) else {
            return Ok(());
        };
        self.began(post, header);
        answer_one(&self.server, header, opcode, body, &mut hands.answer);
        self.ended(post);
        hands.large = opcode == WRITE && body.len() >= PIPED_BYTES_MIN;
        if hands.large && hands.pipe.is_none() {
            hands.pipe = Pipe::new();
        }
        Ok(())
    }

    fn began(&self, post: &Post, header: Header) {
        // Either the warden sees this step before it sleeps, or we see here that it sleeps.
        post.steps.fetch_add(1, Ordering::SeqCst);
        if header.pid != 0 {
            post.caller.store(header.pid, Ordering::Relaxed);
        }
        if self.warden_sleeps.load(Ordering::SeqCst) && self.warden_sleeps.swap(false, Ordering::SeqCst) {
            self.wake_warden();
        }
    }

    fn ended(&self, post: &Post) {
        post.steps.fetch_add(1, Ordering::Relaxed);
    }

    /// Stops reading if there are more readers than wanted.
    fn leave_crowd(&self, post: &Post) {
        let mut muster = self.lock();
        let wanted = self.wanted_of(&muster);
        if muster.readers > wanted && post.reads.swap(false, Ordering::Relaxed) {
            muster.readers = muster.readers.saturating_sub(1);
        }
        self.crowded.store(muster.readers > wanted, Ordering::Relaxed);
    }

    /// Takes a post out of the readers, for whom another one steps in; with `steps`, only if it is still where it was.
    pub(super) fn take_aside(self: &Arc<Self>, number: usize, steps: Option<u64>) {
        let Some(post) = self.posts.get(number) else { return };
        if number == QUIET {
            return self.end_quiet(steps);
        }
        let mut muster = self.lock();
        if steps.is_some_and(|steps| post.steps.load(Ordering::Relaxed) != steps) {
            return;
        }
        if post.reads.swap(false, Ordering::Relaxed) {
            muster.readers = muster.readers.saturating_sub(1);
            self.fill(muster);
        }
    }

    /// Gets as many readers as are wanted, if there are threads to be had.
    fn fill(self: &Arc<Self>, mut muster: MutexGuard<'_, Muster>) {
        if muster.over {
            return;
        }
        let missing = self.wanted_of(&muster).saturating_sub(muster.readers);
        if missing > 0 {
            // Also the one for quiet times waits here, so that one cannot be picked.
            self.needed.notify_all();
        }
        for _ in 0..missing.saturating_sub(muster.parked) {
            let number = muster.begun;
            if number >= THREADS_MAX {
                // All wait for something; the first to be done reads again.
                return;
            }
            let crew = Arc::clone(self);
            let begun = std::thread::Builder::new()
                .name(format!("vfsd-{number}"))
                .spawn(move || crew.work(number));
            if let Ok(thread) = begun {
                muster.begun = number.saturating_add(1);
                muster.threads.push(thread);
            }
        }
    }

    /// The device has nothing more: everybody goes home.
    pub(super) fn end(&self) {
        let mut muster = self.lock();
        muster.over = true;
        self.over.store(true, Ordering::Relaxed);
        drop(muster);
        self.needed.notify_all();
    }
}
