//! How the C library keeps the heap.

/// From this size on, in bytes, an allocation is a mapping of its own. Such memory is zero because it is new: it costs only
/// the pages that are touched, where the C library would otherwise write zeros over memory that it uses again.
const MAPPING_FROM: i32 = 64 << 10;

/// How many bytes the heap grows at once.
const STEP: i32 = 256 << 10;

/// `mallopt(M_ARENA_MAX, 1)`, `mallopt(M_MMAP_THRESHOLD, …)`, `mallopt(M_TOP_PAD, …)` mallopt(3): one heap for all threads,
/// and large buffers of their own.
///
/// For processes of few threads that live for milliseconds: a heap for each thread is 128 MiB of address space that is mapped,
/// cut to size and unmapped again. To be called before there is a second thread. Does nothing with another C library than
/// glibc, or where it does not take the values.
pub fn stay_small() {
    #[cfg(target_env = "gnu")]
    for (parameter, value) in [
        (libc::M_ARENA_MAX, 1),
        (libc::M_MMAP_THRESHOLD, MAPPING_FROM),
        (libc::M_TOP_PAD, STEP),
    ] {
        // SAFETY: takes two numbers; what it changes is the C library's own and under its lock.
        unsafe { libc::mallopt(parameter, value) };
    }
}
