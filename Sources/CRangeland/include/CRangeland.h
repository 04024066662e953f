// SPDX-License-Identifier: Apache-2.0
//
// What Swift cannot say: futexes, pause, the time stamp counter, thread-locals, raw system calls.
// Results of system calls are `-errno` or the value. No policy lives here.

#ifndef CRANGELAND_H
#define CRANGELAND_H

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// ---- futex (variadic system call) -----------------------------------------------------------

/// Sleeps while `*word == expected`. `deadline_ns` is absolute CLOCK_MONOTONIC time, UINT64_MAX = none.
/// Returns 0, -EAGAIN (value differed), -EINTR or -ETIMEDOUT.
static inline int rl_futex_wait(uint32_t *word, uint32_t expected, uint64_t deadline_ns) {
  struct timespec at, *timeout = NULL;
  if (deadline_ns != UINT64_MAX) {
    at.tv_sec = (time_t)(deadline_ns / 1000000000u);
    at.tv_nsec = (long)(deadline_ns % 1000000000u);
    timeout = &at;
  }
  long r = syscall(SYS_futex, word, FUTEX_WAIT_BITSET | FUTEX_PRIVATE_FLAG, expected, timeout, NULL,
                   FUTEX_BITSET_MATCH_ANY);
  return r < 0 ? -errno : 0;
}

/// Wakes up to `count` sleepers; returns how many, or -errno.
static inline int rl_futex_wake(uint32_t *word, int count) {
  long r = syscall(SYS_futex, word, FUTEX_WAKE | FUTEX_PRIVATE_FLAG, count, NULL, NULL, 0);
  return r < 0 ? -errno : (int)r;
}

// ---- processor --------------------------------------------------------------------------------

/// Tells the processor that this is a spin loop.
static inline void rl_cpu_relax(void) {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  __asm__ volatile("isb" ::: "memory");
#endif
}

/// Begins to load the line of `p`, which will be written. Never faults.
static inline void rl_prefetch(const void *p) { __builtin_prefetch(p, 1, 3); }

/// Lets another thread run: only for waits that no event announces (memory that may come back).
static inline void rl_yield(void) { sched_yield(); }

/// A fast, monotonic-enough cycle stamp; compare only between stamps of this function.
static inline uint64_t rl_cycles(void) {
#if defined(__x86_64__)
  return __builtin_ia32_rdtsc();
#elif defined(__aarch64__)
  uint64_t v;
  __asm__ volatile("mrs %0, cntvct_el0" : "=r"(v));
  return v;
#endif
}

/// CLOCK_MONOTONIC in nanoseconds.
static inline uint64_t rl_monotonic_ns(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

static inline int32_t rl_gettid(void) { return (int32_t)syscall(SYS_gettid); }

// ---- processors (for benchmarks) --------------------------------------------------------------

/// A bit for each of the first 1,024 processors.
struct rl_processors {
  uint64_t words[16];
};

/// The processors that the calling thread may use. Returns 0 or -errno.
static inline int rl_processors_get(struct rl_processors *set) {
  for (int i = 0; i < 16; i++) set->words[i] = 0;
  return syscall(SYS_sched_getaffinity, 0, sizeof *set, set) < 0 ? -errno : 0;
}

/// Keeps the calling thread on one processor, below 1,024. Returns 0 or -errno.
static inline int rl_processor_keep(unsigned processor) {
  struct rl_processors set = {{0}};
  set.words[processor / 64 % 16] = (uint64_t)1 << processor % 64;
  return syscall(SYS_sched_setaffinity, 0, sizeof set, &set) < 0 ? -errno : 0;
}

/// How often the calling thread had to give its processor to another one.
static inline long rl_preemptions(void) {
  struct rusage usage;
  return syscall(SYS_getrusage, 1 /* RUSAGE_THREAD */, &usage) < 0 ? 0 : usage.ru_nivcsw;
}

// ---- threads ----------------------------------------------------------------------------------

/// The largest number of threads that may use the library at one time.
#define RL_MAX_THREADS 8192u

/// Dense index of the calling thread plus one; 0 = not yet assigned.
extern _Thread_local uint32_t rl_thread_index_plus_one __attribute__((tls_model("initial-exec")));

/// Assigns an index (the lowest free one) to the calling thread; gives it back when the thread ends.
/// Traps with a message when RL_MAX_THREADS threads hold one.
uint32_t rl_thread_index_assign(void);

/// Dense index of the calling thread, below RL_MAX_THREADS, reused after the thread has ended.
static inline uint32_t rl_thread_index(void) {
  uint32_t v = rl_thread_index_plus_one;
  return __builtin_expect(v != 0, 1) ? v - 1 : rl_thread_index_assign();
}

/// One past the highest index that was ever assigned: the bound for a walk over per-thread slots.
uint32_t rl_thread_index_bound(void);

/// Per-thread words for the checkers (lock order, current operation): not for hot release paths.
#define RL_TLS_WORDS 8
extern _Thread_local uint64_t rl_tls_words[RL_TLS_WORDS] __attribute__((tls_model("initial-exec")));
static inline uint64_t rl_tls_get(unsigned i) { return rl_tls_words[i]; }
static inline void rl_tls_set(unsigned i, uint64_t v) { rl_tls_words[i] = v; }

/// Starts a thread that nobody joins, with all signals blocked. 0 or -errno.
int rl_start_thread(void (*body)(void *), void *context);

// ---- memory -----------------------------------------------------------------------------------

/// Reserves zeroed memory that is committed on first touch; NULL when the kernel refuses (errno set).
static inline void *rl_reserve(size_t bytes) {
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  return p == MAP_FAILED ? NULL : p;
}

/// The kernel's own calls, for the benchmark's peer and for tests: -errno or the value.
static inline long rl_kernel_mmap(size_t bytes) {
  void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return p == MAP_FAILED ? -errno : (long)p;
}
static inline int rl_kernel_munmap(unsigned long address, size_t bytes) {
  return munmap((void *)address, bytes) < 0 ? -errno : 0;
}
static inline int rl_kernel_mprotect(unsigned long address, size_t bytes, int writable) {
  return mprotect((void *)address, bytes, writable ? PROT_READ | PROT_WRITE : PROT_READ) < 0 ? -errno : 0;
}
/// Copies this process, for benchmarks: the copy ends at once. Its number, or -errno.
static inline int rl_kernel_fork(void) {
  long r = syscall(SYS_fork);
  if (r == 0) _exit(0);
  return r < 0 ? -errno : (int)r;
}
/// The program break of this process.
static inline unsigned long rl_kernel_break(void) { return (unsigned long)syscall(SYS_brk, 0); }
/// PR_SET_MM_MAP: `map` is a `struct prctl_mm_map` of `bytes` bytes.
static inline int rl_kernel_set_markers(const void *map, size_t bytes) {
  return prctl(PR_SET_MM, PR_SET_MM_MAP, map, bytes, 0) < 0 ? -errno : 0;
}

// ---- files ------------------------------------------------------------------------------------

// Raw, so that no interceptor takes pages that other threads write to for a race: a page that is written to while it
// is on its way to the file is written back once more.

/// `preadv2` and `pwritev2`: bytes, or -errno.
long rl_preadv(int fd, void *const *pages, unsigned count, size_t bytes, uint64_t offset);
long rl_pwritev(int fd, void *const *pages, unsigned count, size_t bytes, uint64_t offset);
/// What a descriptor is, and what it allows.
struct rl_file {
  uint64_t device, inode, size;
  /// `O_ACCMODE` and `O_APPEND`, `O_PATH`.
  int flags;
  int is_regular, is_shared_memory, forbids_execution, is_unlinked;
};
/// 0 or -errno.
int rl_file_status(int fd, struct rl_file *file);
/// Opens the file behind a descriptor once more (0: for reading, 1: for reading and writing), or duplicates the
/// descriptor where that is not allowed; the new descriptor, or -errno.
int rl_reopen(int fd, int writable);
int rl_close(int fd);
int rl_fsync(int fd);
int rl_ftruncate(int fd, uint64_t size);
/// Makes a hole; the size stays. 0 or -errno.
int rl_punch_hole(int fd, uint64_t offset, uint64_t bytes);
/// Where the descriptor's file is; the length, or -errno.
long rl_descriptor_path(int fd, char *path, size_t room);

static inline int rl_release(void *p, size_t bytes) { return munmap(p, bytes) < 0 ? -errno : 0; }

#endif
