// SPDX-License-Identifier: Apache-2.0
//
// The helper process of `rangeland verify`: performs system calls and accesses on request and reports what
// the kernel made of them. (As that of `rangeland compare` it is another program, replay.c,
// and for `rangeland record` it becomes the program that records.)
//
// Guarantee: the only free addresses of this process are the windows; what a script maps there merges with
//   nothing outside. Nothing is allocated and no page of this program is touched for the first time while
//   a script runs, so that sizes and residency change by the script's calls only.
// Mechanism: the process that the judge starts is a template: it prepares everything and runs no script, but makes
//   copies that do (members), and another one where a script left seals, which are for ever.
//   Every gap outside the windows is filled with shared mappings without rights, which never merge
//   with others. Requests come through shared memory (KernelProtocol.h). Accesses recover from
//   SIGSEGV and SIGBUS by a jump out of the handler, which runs on a stack of its own.
// Source: docs/design.md section 7; Linux fs/proc/task_mmu.c `do_procmap_query`.

#define _GNU_SOURCE
#include "Helper.h"
#include "replay.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define SPACE_END 0x7ffffffff000u

struct kp_channel *channels, *channel;
static unsigned char signal_stack[16 * PAGE] __attribute__((aligned(4096)));

void fail(const char *what) {
  snprintf(channel->message, sizeof channel->message, "%s: %s", what, strerror(errno));
  kp_signal(&channel->state, &channel->state_sleepers, KP_FAILED);
  _exit(1);
}

// ---- accesses ---------------------------------------------------------------------------------

sigjmp_buf recovery;
volatile sig_atomic_t is_accessing;

static void caught(int signal, siginfo_t *info, void *context) {
  (void)context;
  if (!is_accessing) _exit(100 + signal);
  channel->signal = signal;
  channel->code = info->si_code;
  channel->fault_address = (uint64_t)info->si_addr;
  siglongjmp(recovery, 1);
}

static uint64_t access_memory(int is_store, uint64_t address, uint64_t bytes, uint64_t value) {
  uint64_t result = 0;
  // Volatile, in one piece: no byte is accessed that was not asked for.
  if (sigsetjmp(recovery, 0) == 0) {
    is_accessing = 1;
    switch (bytes) {
    case 1:
      if (is_store) *(volatile uint8_t *)address = (uint8_t)value;
      else result = *(volatile uint8_t *)address;
      break;
    case 2:
      if (is_store) *(volatile uint16_t *)address = (uint16_t)value;
      else result = *(volatile uint16_t *)address;
      break;
    case 4:
      if (is_store) *(volatile uint32_t *)address = (uint32_t)value;
      else result = *(volatile uint32_t *)address;
      break;
    default:
      if (is_store) *(volatile uint64_t *)address = value;
      else result = *(volatile uint64_t *)address;
    }
  }
  is_accessing = 0;
  return channel->signal ? 0 : result;
}

// ---- emptying -------------------------------------------------------------------------------

static struct rlimit stack_limit;

static int lift_limits(void) {
  int resources[] = {RLIMIT_AS, RLIMIT_DATA, RLIMIT_MEMLOCK};
  for (int i = 0; i < 3; i++) {
    struct rlimit limit;
    if (getrlimit(resources[i], &limit) != 0) return -1;
    limit.rlim_cur = limit.rlim_max;
    if (setrlimit(resources[i], &limit) != 0) return -1;
  }
  return setrlimit(RLIMIT_STACK, &stack_limit);
}

/// Gives the helper CAP_IPC_LOCK, which it may have if `may_lock`, or takes it.
static int set_privilege(int has_it) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct sets[2];
  memset(sets, 0, sizeof sets);
  if (channel->may_lock) sets[0].permitted = 1u << CAP_IPC_LOCK;
  if (has_it) sets[0].effective = 1u << CAP_IPC_LOCK;
  return (int)syscall(SYS_capset, &header, sets);
}

/// The break goes back to where the window begins.
static int reset_break(void) {
  uint64_t start = channel->windows[KP_HEAP].start, now = (uint64_t)syscall(SYS_brk, 0);
  if (now == start) return 0;
  // The kernel takes the break down only where something of the heap is left.
  int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
  if (mmap((void *)start, PAGE, PROT_NONE, flags, -1, 0) == MAP_FAILED) return -1;
  if ((uint64_t)syscall(SYS_brk, start) == start) return 0;
  errno = EBUSY;
  return -1;
}

static int64_t reset(void) {
  int64_t failure = thin_crowd();
  if (failure != 0) return failure;
  if (set_privilege(0) != 0 || lift_limits() != 0) return -errno;
  syscall(SYS_munlockall);
  // The thread's, which forks inherit.
  if (syscall(SYS_set_mempolicy, 0, NULL, 0) != 0 && errno != ENOSYS) return -errno;
  for (int i = 0; i < KP_WINDOWS; i++) {
    struct kp_window *w = &channel->windows[i];
    if (munmap((void *)w->start, w->end - w->start) != 0) return -errno;
  }
  if (reset_break() != 0) return -errno;
  if ((failure = report_sizes()) != 0) return failure;
  int64_t count = 0;
  struct query found;
  for (uint64_t at = 0; find(behind_crowd(at), &found) == 1; at = found.end) count++;
  note_outside((uint64_t)count);
  return count;
}

static int64_t system_call(void) {
  uint64_t a[6];
  for (int i = 0; i < 6; i++)
    a[i] = i == channel->buffer_argument ? (uint64_t)channel->buffer : channel->arguments[i];
  long r = syscall((long)channel->number, a[0], a[1], a[2], a[3], a[4], a[5]);
  return r == -1 ? -errno : r;
}

// ---- processes --------------------------------------------------------------------------------

static _Noreturn void serve(void);

/// Makes a member, a copy of this process, and waits until it can be asked.
static int64_t fork_process(uint64_t number) {
  if (number >= KP_MEMBERS) return -EINVAL;
  struct kp_channel *other = kp_member(channels, number);
  other->state = KP_STARTING;
  // Not the library's: it would run handlers and touch what no script has touched.
  long process = syscall(SYS_fork);
  if (process == -1) return -errno;
  if (process == 0) {
    channel = other;
    memcpy(channel->windows, channels->windows, sizeof channel->windows);
    channel->may_lock = channels->may_lock;
    channel->process = (int32_t)syscall(SYS_getpid);
    prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
    close_files();
    open_files();
    // A fork does not copy the entries of shared memory: all at once, so that sizes do not change later.
    if (madvise(channels, KP_PROCESSES * sizeof *channels, MADV_POPULATE_WRITE) != 0) fail("MADV_POPULATE_WRITE");
    serve();
  }
  for (int tries = 0; kp_wait(&other->state, &other->state_sleepers, KP_STARTING, 100) == KP_STARTING; tries++)
    if (tries > 100) return -ETIMEDOUT;
  return other->state == KP_READY ? 0 : -ECHILD;
}

/// A copy between this process and one of its kin.
static int64_t transfer(void) {
  const uint64_t *a = channel->arguments;
  if (a[1] >= KP_MEMBERS) return -EINVAL;
  // More than there is room for is refused unread.
  uint64_t local = a[2] <= KP_BUFFER / 32 ? a[2] : 0;
  const unsigned char *pieces = channel->buffer;
  long r = syscall(a[0] ? SYS_process_vm_writev : SYS_process_vm_readv, kp_member(channels, a[1])->process, pieces, a[2],
                   pieces + local * sizeof(struct iovec), a[3], a[4]);
  return r == -1 ? -errno : r;
}

static int64_t perform(void) {
  const uint64_t *a = channel->arguments;
  switch (channel->operation) {
  case KP_SYSCALL: return system_call();
  case KP_LOAD: return (int64_t)access_memory(0, a[0], a[1], 0);
  case KP_STORE: return (int64_t)access_memory(1, a[0], a[1], a[2]);
  case KP_SIZES: return report_sizes();
  case KP_STATE: return report_state();
  case KP_RESET: return reset();
  case KP_FORK: return fork_process(a[0]);
  case KP_TRANSFER: return transfer();
  case KP_CROWD: return set_crowd(a[0]);
  case KP_PRIVILEGE: return set_privilege(a[0] != 0) != 0 ? -errno : 0;
  default: return -ENOSYS;
  }
}

// ---- serving ----------------------------------------------------------------------------------

static pid_t judge;

/// Whether nobody will ask any more.
static int is_alone(void) {
  if (channel == channels) return getppid() != judge;
  // The process that made this one may have ended; the template ends with the judge.
  return kill(channels[0].process, 0) != 0;
}

static _Noreturn void serve(void) {
  uint32_t seen = channel->request;
  kp_signal(&channel->state, &channel->state_sleepers, KP_READY);
  for (;;) {
    uint32_t request = kp_wait(&channel->request, &channel->request_sleepers, seen, 200);
    if (request == seen) {
      if (is_alone()) _exit(0);
      continue;
    }
    seen = request;
    channel->signal = channel->code = 0;
    channel->fault_address = 0;
    channel->mapping_count = 0;
    if (channel->operation == KP_EXIT) {
      channel->result = 0;
      kp_signal(&channel->reply, &channel->reply_sleepers, request);
      _exit(0);
    }
    channel->result = perform();
    for (uint32_t i = 0; i < channel->place_count && i < KP_PLACES; i++) {
      struct kp_window range;
      if (kp_near(channel->windows, &channel->places[i], channel->result, &range)) list(range.start, range.end);
    }
    kp_signal(&channel->reply, &channel->reply_sleepers, request);
  }
}

// ---- setting up -------------------------------------------------------------------------------

static void drop_capabilities(void) {
  struct __user_cap_header_struct header = {_LINUX_CAPABILITY_VERSION_3, 0};
  struct __user_cap_data_struct has[2];
  if (syscall(SYS_capget, &header, has) != 0) fail("capget");
  channel->may_lock = (has[0].permitted >> CAP_IPC_LOCK) & 1;
  if (set_privilege(0) != 0) fail("capset");
}

/// Heap between this program's and the window: nothing is left of it but its length, which makes the limit of data
/// that the break has (the heap and this program's data) a larger one than that of mappings.
enum { HEAP_BEFORE = 16u << 20 };

static void choose_windows(void) {
  // Odd places: not aligned to huge pages, and over the border of a page table.
  uint64_t high = 0x600000035000u, low = 0x50003000u;
  uint64_t now = (uint64_t)sbrk(0);
  uint64_t heap = ((now + HEAP_BEFORE) & ~(uint64_t)((1u << 21) - 1)) + 5 * PAGE;
  // The window begins at the break.
  if (brk((void *)heap) != 0) fail("brk");
  uint64_t first = (now + PAGE - 1) & ~(uint64_t)(PAGE - 1);
  if (munmap((void *)first, heap - first) != 0) fail("munmap");
  channel->windows[KP_HIGH] = (struct kp_window){high, high + 4098 * (uint64_t)PAGE};
  channel->windows[KP_HEAP] = (struct kp_window){heap, heap + 520 * (uint64_t)PAGE};
  channel->windows[KP_LOW] = (struct kp_window){low, low + 1100 * (uint64_t)PAGE};
}

/// Fills [start, end), which is free, but for the windows in it. By pieces: Linux counts the locked pages of a
/// mapping in an int (`mlock_fixup`).
static void fill(uint64_t start, uint64_t end) {
  while (start < end) {
    uint64_t stop = end;
    int inside = kp_window_of(channel->windows, start);
    if (inside >= 0) {
      start = channel->windows[inside].end;
      continue;
    }
    for (int i = 0; i < KP_WINDOWS; i++) {
      uint64_t w = channel->windows[i].start;
      if (w > start && w < stop) stop = w;
    }
    if (stop - start > 7ull << 40) stop = start + (7ull << 40);
    int flags = MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED_NOREPLACE;
    if (mmap((void *)start, stop - start, PROT_NONE, flags, -1, 0) == MAP_FAILED) fail("fill");
    start = stop;
  }
}

static void fill_gaps(void) {
  uint64_t minimum = setting("/proc/sys/vm/mmap_min_addr", PAGE);
  read_most_mappings();
  if (minimum < PAGE) minimum = PAGE;
  // What the standard library has taken for the file is taken now.
  choose_windows();
  uint64_t position = minimum;
  while (position < SPACE_END) {
    struct query next;
    int found = find(position, &next);
    if (found < 0) fail("PROCMAP_QUERY (Linux 6.11)");
    uint64_t end = found && next.start < SPACE_END ? next.start : SPACE_END;
    if (end > position) fill(position, end);
    position = found ? next.end : SPACE_END;
  }
}

static __attribute__((noinline)) void touch_stack(void) {
  volatile unsigned char space[64 * PAGE];
  for (size_t i = 0; i < sizeof space; i += PAGE) space[i] = 1;
}

/// Becomes another program, which is told to end when `parent` has ended, in whatever way.
static int guard(int parent, char **program) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) return 1;
  execvp(program[0], program);
  perror(program[0]);
  return 127;
}

// Where processors have protection keys, the kernel spends one on what may only be executed, and then also keeps it from
// being read. Address spaces are as on processors without: with no key left, so is this process, and its copies.
static void take_protection_keys(void) {
  while (syscall(SYS_pkey_alloc, 0ul, 0ul) >= 0) {
  }
}

int main(int count, char **arguments) {
  take_protection_keys();
  if (count == 4 && strcmp(arguments[1], "replay") == 0) return replay(atoi(arguments[2]), atoi(arguments[3]));
  if (count > 3 && strcmp(arguments[1], "guard") == 0) return guard(atoi(arguments[2]), arguments + 3);
  if (count != 3) {
    fputs("KernelHelper is started by `rangeland verify`, `compare` and `record`.\n", stderr);
    return 64;
  }
  int descriptor = atoi(arguments[1]);
  int flags = MAP_SHARED | MAP_POPULATE;
  channels = mmap(NULL, KP_PROCESSES * sizeof *channels, PROT_READ | PROT_WRITE, flags, descriptor, 0);
  if (channels == MAP_FAILED) {
    perror("KernelHelper: the channel cannot be mapped");
    return 1;
  }
  close(descriptor);
  channel = channels;
  open_files();
  struct query probe;
  if (find(0, &probe) != 1) fail("PROCMAP_QUERY (Linux 6.11)");

  stack_t stack = {.ss_sp = signal_stack, .ss_size = sizeof signal_stack};
  memset(signal_stack, 1, sizeof signal_stack);
  touch_reports();
  if (sigaltstack(&stack, NULL) != 0) fail("sigaltstack");
  struct sigaction action = {.sa_sigaction = caught, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER};
  if (sigaction(SIGSEGV, &action, NULL) || sigaction(SIGBUS, &action, NULL)) fail("sigaction");
  // The judge's user interrupts the judge, which then ends this process.
  signal(SIGINT, SIG_IGN);
  // Nobody waits for copies.
  signal(SIGCHLD, SIG_IGN);

  if (getrlimit(RLIMIT_STACK, &stack_limit) != 0) fail("RLIMIT_STACK");
  struct rlimit no_core = {0, 0};
  setrlimit(RLIMIT_CORE, &no_core);
  if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0) != 0) fail("PR_SET_THP_DISABLE");
  // Where a security module lets only ancestors look into a process. Others do not know the call.
  prctl(PR_SET_PTRACER, PR_SET_PTRACER_ANY, 0, 0, 0);
  judge = (pid_t)atoi(arguments[2]);
  channel->process = getpid();
  touch_stack();
  fill_gaps();
  drop_capabilities();
  // What locks will bring in is there from now on. Without the privilege it is refused, as it will be.
  if (channel->may_lock && (set_privilege(1) != 0 || mlockall(MCL_CURRENT) != 0)) fail("mlockall");

  // Every path once, so that nothing is linked or touched for the first time later.
  channel->operation = KP_LOAD;
  channel->signal = 0;
  access_memory(0, 0, 8, 0);
  if (channel->signal != SIGSEGV) fail("no SIGSEGV from address 0");
  list(0, SPACE_END);
  channel->mapping_count = 0;
  channel->operation = KP_SYSCALL;
  channel->number = SYS_getpid;
  channel->buffer_argument = -1;
  system_call();
  if (report_state() != 0) fail("what is mapped cannot be told");
  if (reset() < 0) fail("munmap");

  // A copy too: it leaves nothing behind, and what it touches first the next one finds touched.
  channel->operation = KP_FORK;
  if (fork_process(1) != 0) fail("fork");
  struct kp_channel *copy = kp_member(channels, 1);
  copy->operation = KP_EXIT;
  kp_signal(&copy->request, &copy->request_sleepers, 1);
  if (kp_wait(&copy->reply, &copy->reply_sleepers, 0, 10000) != 1) fail("the copy does not answer");
  serve();
}
