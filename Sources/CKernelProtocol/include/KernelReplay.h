// SPDX-License-Identifier: Apache-2.0
//
// A plan of calls that the helper makes with many threads at once, and the times that it measured: one piece of
// shared memory, written by the tool up to KR_GO and by the helper after that.
//
// The header comes first; every array begins where the header says, in bytes from it.

#ifndef KERNEL_REPLAY_H
#define KERNEL_REPLAY_H

#include <stddef.h>
#include <stdint.h>

/// Where a plan's addresses may lie, but for its heap. A process of ours has nothing there.
#define KR_WINDOW_START 0x10000000000u
#define KR_WINDOW_END 0x500000000000u

/// States of a replay, in their order.
enum { KR_STARTING = 0, KR_READY = 1, KR_GO = 2, KR_DONE = 3, KR_FAILED = 4 };

/// What a step does.
enum {
  /// Nothing: it counts as done.
  KR_NONE = 0,
  /// Starts the thread whose number is `what`.
  KR_SPAWN = 1,
  /// Accesses the byte at the address `what`; `access` is one of KR_READ, KR_WRITE.
  KR_TOUCH = 2,
  /// Makes the system call that is number `what` of the calls.
  KR_CALL = 3,
  /// Copies the process; the copy ends at once.
  KR_FORK = 4,
};
enum { KR_READ = 0, KR_WRITE = 1 };

/// The result of an access that a signal refused.
#define KR_REFUSED (-4096)

/// Differences that are told.
enum { KR_EXAMPLES = 8 };

/// A step that waits for nobody.
#define KR_NO_DEPENDENCY UINT32_MAX
/// Marks the last dependency of a step, in its `thread`.
#define KR_LAST_DEPENDENCY (1u << 31)

/// 16 bytes: a plan has as many as the recording has events.
struct kr_step {
  uint64_t what;
  /// Its first dependency, others follow up to the one that is marked as the last.
  uint32_t first_dependency;
  /// 0 = the result of the call, or an access that is allowed; -errno; KR_REFUSED.
  int16_t expected;
  uint8_t action, access;
};

/// Of calls that are the same one may stand for many.
struct kr_call {
  uint64_t number;
  uint64_t arguments[6];
  int64_t result;
};

/// Steps of a thread: from `first` up to `end`.
struct kr_thread {
  uint32_t first, end;
};

/// `thread` has done `steps` steps; bit 31 of `thread` is KR_LAST_DEPENDENCY.
struct kr_dependency {
  uint32_t thread, steps;
};

struct kr_difference {
  uint64_t step;
  int64_t result;
};

struct kr_header {
  /// A futex word, and how many sleep on it.
  uint32_t state, state_sleepers;
  // From the tool, before it starts the helper.
  /// Where the heap begins, modulo 2 MiB, and its length at most; 0 = there is none.
  uint64_t heap_place, heap_room;
  uint64_t thread_count;
  // From the helper, with KR_READY.
  uint64_t heap_start;
  /// KR_BUFFER bytes that a call may write to.
  uint64_t buffer;
  // From the tool, with KR_GO.
  /// How much of the memory is used, from its beginning.
  uint64_t bytes;
  uint64_t setup_count, root_count;
  /// Threads that are made before the clock runs.
  uint64_t prepared;
  /// Where arrays begin: of kr_thread, kr_step (the setup's before all others), kr_call, kr_dependency, uint32_t
  /// (threads that begin by themselves), and uint32_t (nanoseconds, a step).
  uint64_t threads, steps, calls, dependencies, roots, nanoseconds;
  // From the helper.
  /// Steps that are done; now and then.
  uint64_t done;
  /// From the first thread's start to the last one's end, and waits for other threads summed over threads.
  uint64_t elapsed, waited;
  /// Page faults that the kernel counted meanwhile.
  uint64_t faults;
  uint64_t difference_count;
  struct kr_difference differences[KR_EXAMPLES];
  char message[128];
};

/// Bytes of `buffer`: a byte for each page of 4 GiB.
enum { KR_BUFFER = 1 << 20 };

/// Anonymous shared memory of this length: a descriptor that closes with exec, or -errno.
int kr_make_memory(uint64_t bytes);

// Swift makes no pointers to the arrays in a structure.
static inline const struct kr_difference *kr_differences(const struct kr_header *header) {
  return header->differences;
}

static inline const char *kr_message(const struct kr_header *header) { return header->message; }

#endif
