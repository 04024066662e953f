// SPDX-License-Identifier: Apache-2.0
//
// The kernel's side of a replay: the recorded calls again, on this process's own address space, by as many threads
// and in the same order as on ours.
//
// Guarantee: while the clock runs, nothing but the plan's calls changes mappings here, and nothing of this program is
//   touched for the first time; so what the kernel's lock costs is the plan's doing.
// Mechanism: threads are made by clone without a library's help (no allocation, no thread-local storage: system
//   calls are made by their instruction) on stacks that are there from the start. The lower end of a stack holds the thread's
//   own data, which is how a signal handler finds it. Threads wait for each other as those of
//   Sources/RangelandReplay/Replay do.

#define _GNU_SOURCE
#include "replay.h"

#include "KernelProtocol.h"
#include "KernelReplay.h"

#include <errno.h>
#include <linux/futex.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#ifndef __x86_64__
#error "numbers of calls and the way they are made are those of x86-64"
#endif

#define PAGE 4096u
#define HUGE_PAGE (1ull << 21)
/// Of a thread; also its alignment.
#define STACK_BYTES (32ull << 10)
/// The most threads at once.
#define WORKERS 32768u

struct worker {
  /// 0 = idle, else the number of its recorded thread plus 1. A futex word.
  uint32_t order;
  struct worker *next_idle;
  sigjmp_buf recovery;
  volatile sig_atomic_t is_accessing;
};

/// How far a recorded thread is: a pair of cache lines of its own.
struct progress {
  uint32_t done, waiters;
  char padding[120];
};

static struct kr_header *plan;
static struct kr_thread *threads;
static struct kr_step *steps;
static struct kr_call *calls;
static struct kr_dependency *dependencies;
static uint32_t *times;
static struct progress *progresses;
static unsigned char *stacks;
static uint32_t worker_count, worker_limit, left, idle_lock;
static struct worker *idle;
/// What two readings of the clock take, in nanoseconds.
static uint64_t clock_cost;

static _Noreturn void fail(const char *what) {
  snprintf(plan->message, sizeof plan->message, "%s: %s", what, strerror(errno));
  kp_signal(&plan->state, &plan->state_sleepers, KR_FAILED);
  syscall(SYS_exit_group, 1);
  __builtin_unreachable();
}

static inline long call6(long n, uint64_t a, uint64_t b, uint64_t c, uint64_t d, uint64_t e, uint64_t f) {
  register uint64_t r10 __asm__("r10") = d;
  register uint64_t r8 __asm__("r8") = e;
  register uint64_t r9 __asm__("r9") = f;
  long result;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                   : "rcx", "r11", "memory");
  return result;
}

static void sleep_on(uint32_t *word, uint32_t old) {
  call6(SYS_futex, (uint64_t)word, FUTEX_WAIT_PRIVATE, old, 0, 0, 0);
}

static void wake(uint32_t *word, uint32_t count) {
  call6(SYS_futex, (uint64_t)word, FUTEX_WAKE_PRIVATE, count, 0, 0, 0);
}

static inline uint64_t now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (uint64_t)t.tv_sec * 1000000000u + (uint64_t)t.tv_nsec;
}

// ---- order ------------------------------------------------------------------------------------

static void advance(uint32_t thread, uint32_t done) {
  struct progress *p = &progresses[thread];
  __atomic_store_n(&p->done, done, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(&p->waiters, __ATOMIC_SEQ_CST)) wake(&p->done, INT32_MAX);
}

static void wait_for(uint32_t thread, uint32_t wanted) {
  struct progress *p = &progresses[thread];
  for (int i = 0; i < 100; i++) {
    if (__atomic_load_n(&p->done, __ATOMIC_ACQUIRE) >= wanted) return;
    __builtin_ia32_pause();
  }
  __atomic_fetch_add(&p->waiters, 1, __ATOMIC_SEQ_CST);
  for (;;) {
    uint32_t done = __atomic_load_n(&p->done, __ATOMIC_SEQ_CST);
    if (done >= wanted) break;
    sleep_on(&p->done, done);
  }
  __atomic_fetch_sub(&p->waiters, 1, __ATOMIC_RELAXED);
}

static void wait_for_others(const struct kr_step *step) {
  uint64_t start = 0;
  const struct kr_dependency *d = &dependencies[step->first_dependency];
  for (int is_last = 0; !is_last; d++) {
    uint32_t thread = d->thread & ~KR_LAST_DEPENDENCY;
    is_last = (d->thread & KR_LAST_DEPENDENCY) != 0;
    if (__atomic_load_n(&progresses[thread].done, __ATOMIC_ACQUIRE) >= d->steps) continue;
    if (start == 0) start = now();
    wait_for(thread, d->steps);
  }
  if (start) __atomic_fetch_add(&plan->waited, now() - start, __ATOMIC_RELAXED);
}

// ---- steps ------------------------------------------------------------------------------------

/// The thread whose stack holds an address; NULL = the first thread, which has another.
static struct worker *worker_at(uint64_t address) {
  uint64_t base = (uint64_t)stacks;
  if (address - base >= worker_limit * STACK_BYTES) return NULL;
  return (struct worker *)(base + (address - base) / STACK_BYTES * STACK_BYTES);
}

static void caught(int number, siginfo_t *info, void *context) {
  (void)info;
  (void)context;
  struct worker *worker = worker_at((uint64_t)__builtin_frame_address(0));
  if (!worker || !worker->is_accessing) syscall(SYS_exit_group, 100 + number);
  siglongjmp(worker->recovery, 1);
}

/// Not inlined: a jump comes back to it.
static __attribute__((noinline)) int64_t touch(struct worker *self, const struct kr_step *step, uint64_t *start) {
  if (sigsetjmp(self->recovery, 0)) {
    self->is_accessing = 0;
    return KR_REFUSED;
  }
  self->is_accessing = 1;
  volatile unsigned char *byte = (volatile unsigned char *)step->what;
  *start = now();
  if (step->access == KR_WRITE) *byte = 1;
  else (void)*byte;
  self->is_accessing = 0;
  return 0;
}

static int64_t make(const struct kr_call *c) {
  const uint64_t *a = c->arguments;
  return call6((long)c->number, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static int64_t copy_process(void) {
  int64_t process = call6(SYS_fork, 0, 0, 0, 0, 0, 0);
  if (process == 0) call6(SYS_exit_group, 0, 0, 0, 0, 0, 0);
  return process > 0 ? 0 : process;
}

static void note(const struct kr_step *step, int64_t result) {
  uint64_t n = __atomic_fetch_add(&plan->difference_count, 1, __ATOMIC_RELAXED);
  if (n < KR_EXAMPLES)
    plan->differences[n] = (struct kr_difference){.step = (uint64_t)(step - steps), .result = result};
}

/// Does a step, which is no spawn, and keeps its time.
static void perform(struct worker *self, const struct kr_step *step) {
  if (step->action == KR_NONE) return;
  uint64_t start = now();
  int64_t result = step->action == KR_TOUCH  ? touch(self, step, &start)
                   : step->action == KR_CALL ? make(&calls[step->what])
                                             : copy_process();
  uint64_t time = now() - start;
  time = time > clock_cost ? time - clock_cost : 0;
  times[step - steps] = time < UINT32_MAX ? (uint32_t)time : UINT32_MAX;
  int64_t expected = step->expected ? step->expected : step->action == KR_CALL ? calls[step->what].result : 0;
  if (result != expected) note(step, result);
}

// ---- threads ----------------------------------------------------------------------------------

static void lock_idle(void) {
  while (__atomic_exchange_n(&idle_lock, 1, __ATOMIC_ACQUIRE)) call6(SYS_sched_yield, 0, 0, 0, 0, 0, 0);
}

static void unlock_idle(void) { __atomic_store_n(&idle_lock, 0, __ATOMIC_RELEASE); }

static void push(struct worker *worker) {
  lock_idle();
  worker->next_idle = idle;
  idle = worker;
  unlock_idle();
}

static void start_thread(uint32_t thread);

static void run_thread(struct worker *self, uint32_t thread) {
  for (uint32_t i = threads[thread].first; i < threads[thread].end; i++) {
    const struct kr_step *step = &steps[i];
    if (step->first_dependency != KR_NO_DEPENDENCY) wait_for_others(step);
    if (step->action == KR_SPAWN) start_thread((uint32_t)step->what);
    else perform(self, step);
    advance(thread, i - threads[thread].first + 1);
  }
}

static void end_thread(void) {
  if (__atomic_sub_fetch(&left, 1, __ATOMIC_ACQ_REL) == 0) wake(&left, 1);
}

static _Noreturn int work(void *argument) {
  struct worker *self = argument;
  for (;;) {
    uint32_t order = __atomic_load_n(&self->order, __ATOMIC_ACQUIRE);
    if (order == 0) {
      sleep_on(&self->order, 0);
      continue;
    }
    run_thread(self, order - 1);
    __atomic_store_n(&self->order, 0, __ATOMIC_RELEASE);
    push(self);
    end_thread();
  }
}

static struct worker *make_worker(uint32_t order) {
  uint32_t number = __atomic_fetch_add(&worker_count, 1, __ATOMIC_RELAXED);
  if (number >= worker_limit) {
    errno = EAGAIN;
    fail("too many threads at once");
  }
  struct worker *worker = (struct worker *)(stacks + number * STACK_BYTES);
  worker->order = order;
  int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM;
  if (clone(work, (unsigned char *)worker + STACK_BYTES - 64, flags, worker) < 0) fail("clone");
  return worker;
}

static void start_thread(uint32_t thread) {
  if (threads[thread].first == threads[thread].end) {
    end_thread();
    return;
  }
  lock_idle();
  struct worker *worker = idle;
  if (worker) idle = worker->next_idle;
  unlock_idle();
  if (!worker) {
    make_worker(thread + 1);
    return;
  }
  __atomic_store_n(&worker->order, thread + 1, __ATOMIC_RELEASE);
  wake(&worker->order, 1);
}

// ---- setting up -------------------------------------------------------------------------------

static void lift_limits(void) {
  int resources[] = {RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK, RLIMIT_STACK};
  for (size_t i = 0; i < sizeof resources / sizeof *resources; i++) {
    struct rlimit limit;
    if (getrlimit(resources[i], &limit) != 0) continue;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(resources[i], &limit);
  }
  struct rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
}

/// The break goes up to the next place that is, modulo 2 MiB, where the recorded heap began. No allocation after this.
static void place_heap(void) {
  if (plan->heap_room == 0) return;
  uint64_t first = ((uint64_t)sbrk(0) + PAGE - 1) & ~(uint64_t)(PAGE - 1);
  uint64_t start = ((first + HUGE_PAGE - 1) & ~(HUGE_PAGE - 1)) + plan->heap_place;
  if (brk((void *)start) != 0) fail("brk");
  if (start > first && munmap((void *)first, start - first) != 0) fail("munmap");
  plan->heap_start = start;
}

/// Whether nothing is mapped where the plan's addresses will lie.
static void check_window(void) {
  FILE *file = fopen("/proc/self/maps", "re");
  if (!file) fail("/proc/self/maps");
  unsigned long start, end;
  int found = 0;
  while (fscanf(file, "%lx-%lx%*[^\n]", &start, &end) == 2)
    found |= start < KR_WINDOW_END && end > KR_WINDOW_START;
  fclose(file);
  if (!found) return;
  errno = EEXIST;
  fail("addresses of the helper (is `ulimit -s` unlimited?)");
}

static void *reserve(uint64_t bytes) {
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
  void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, flags, -1, 0);
  if (memory == MAP_FAILED) fail("memory");
  return memory;
}

/// Every page that the plan uses is here for writing before the clock runs. The first one is, and is in use.
static void populate(uint64_t bytes) {
  for (uint64_t i = PAGE; i < bytes; i += PAGE) {
    volatile unsigned char *byte = (volatile unsigned char *)plan + i;
    *byte = *byte;
  }
}

static void measure_clock(void) {
  clock_cost = UINT64_MAX;
  for (int i = 0; i < 1000; i++) {
    uint64_t start = now(), time = now() - start;
    if (time < clock_cost) clock_cost = time;
  }
}

static void run_plan(void) {
  left = (uint32_t)plan->thread_count;
  uint32_t *roots = (uint32_t *)((unsigned char *)plan + plan->roots);
  struct rusage before, after;
  getrusage(RUSAGE_SELF, &before);
  uint64_t start = now();
  for (uint64_t i = 0; i < plan->root_count; i++) start_thread(roots[i]);
  for (;;) {
    uint32_t seen = __atomic_load_n(&left, __ATOMIC_ACQUIRE);
    if (seen == 0) break;
    struct timespec limit = {0, 100000000};
    call6(SYS_futex, (uint64_t)&left, FUTEX_WAIT_PRIVATE, seen, (uint64_t)&limit, 0, 0);
    uint64_t done = 0;
    for (uint64_t i = 0; i < plan->thread_count; i++) done += __atomic_load_n(&progresses[i].done, __ATOMIC_RELAXED);
    __atomic_store_n(&plan->done, done, __ATOMIC_RELAXED);
  }
  plan->elapsed = now() - start;
  getrusage(RUSAGE_SELF, &after);
  plan->faults = (uint64_t)(after.ru_minflt - before.ru_minflt);
}

static void catch_signals(void) {
  struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_NODEFER};
  if (sigaction(SIGSEGV, &action, NULL) || sigaction(SIGBUS, &action, NULL)) fail("sigaction");
  // The tool's user interrupts the tool, which then ends this process. Nobody waits for copies.
  signal(SIGINT, SIG_IGN);
  signal(SIGCHLD, SIG_IGN);
}

int replay(int descriptor, int parent) {
  struct stat file;
  if (fstat(descriptor, &file) != 0 || (size_t)file.st_size < sizeof *plan) {
    fputs("KernelHelper: there is no plan\n", stderr);
    return 1;
  }
  plan = mmap(NULL, (size_t)file.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  if (plan == MAP_FAILED) {
    perror("KernelHelper: the plan cannot be mapped");
    return 1;
  }
  close(descriptor);
  // Also when the tool is killed.
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  if (getppid() != parent) return 1;
  lift_limits();
  catch_signals();
  check_window();
  worker_limit = plan->thread_count < WORKERS ? (uint32_t)plan->thread_count : WORKERS;
  unsigned char *memory = reserve((worker_limit + 1) * STACK_BYTES);
  stacks = memory + (STACK_BYTES - (uint64_t)memory % STACK_BYTES) % STACK_BYTES;
  plan->buffer = (uint64_t)reserve(KR_BUFFER);
  memset((void *)plan->buffer, 1, KR_BUFFER);
  place_heap();
  kp_signal(&plan->state, &plan->state_sleepers, KR_READY);
  while (kp_wait(&plan->state, &plan->state_sleepers, KR_READY, 200) == KR_READY)
    if (getppid() != parent) return 1;

  populate(plan->bytes);
  threads = (struct kr_thread *)((unsigned char *)plan + plan->threads);
  steps = (struct kr_step *)((unsigned char *)plan + plan->steps);
  calls = (struct kr_call *)((unsigned char *)plan + plan->calls);
  dependencies = (struct kr_dependency *)((unsigned char *)plan + plan->dependencies);
  times = (uint32_t *)((unsigned char *)plan + plan->nanoseconds);
  progresses = reserve((plan->thread_count + 1) * sizeof *progresses);
  memset(progresses, 0, plan->thread_count * sizeof *progresses);
  measure_clock();
  for (uint64_t i = 0; i < plan->setup_count; i++) perform(NULL, &steps[i]);
  for (uint64_t i = 0; i < plan->prepared && i < worker_limit; i++) push(make_worker(0));
  run_plan();
  kp_signal(&plan->state, &plan->state_sleepers, KR_DONE);
  // Threads are asleep; ending them all is this.
  syscall(SYS_exit_group, 0);
  return 0;
}
