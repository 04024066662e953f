// SPDX-License-Identifier: Apache-2.0
//
// A deterministic scheduler for small concurrent programs, and a search over its schedules.
//
// Guarantee: a program's threads run on coroutines of one system thread; they change hands only at the operations
// declared here, so an execution is a function of the schedule, and every schedule is one of finitely many choices.
// The search runs the program again and again until each schedule (up to equivalence, within the bounds) was run.
// In C because every operation of every execution comes through here, in debug builds of the tests too.
// Background: Godefroid, "Partial-Order Methods" (1996), sleep sets; Musuvathi and Qadeer, "Iterative context
// bounding" (2007), preemption bounds and happens-before caching; Owens, Sarkar, Sewell, "A better x86 memory model:
// x86-TSO" (2009), store buffers. The design of the search is in docs/range-lock-exploration.md.

#ifndef CEXPLORER_H
#define CEXPLORER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/// Most threads of a program.
#define RX_THREADS 4u
/// Most keys of `rx_touch`.
#define RX_KEYS 8u
/// Words of `rx_tls`.
#define RX_TLS_WORDS 16u

/// A wait with this deadline or a later one is a sleeper that looks again by itself after a while: it expires only
/// when nobody else can run. Deadlines of programs are earlier.
#define RX_SECOND_LOOK 100000u

/// A memory order, as bits.
enum { RX_RELAXED = 0, RX_ACQUIRES = 1, RX_RELEASES = 2, RX_SEQUENTIAL = 4 };

/// What a read-modify-write operation does.
enum { RX_EXCHANGE, RX_ADD, RX_SUBTRACT, RX_AND, RX_OR, RX_XOR, RX_MIN, RX_MAX };

// ---- exploring ----------------------------------------------------------------------------------

/// What a search remembers, so that nothing is run twice.
enum {
  /// Nothing: sleep sets. One execution for each order of dependent operations.
  RX_SLEEP_SETS,
  /// What each state's past consisted of, up to the order of independent operations.
  RX_PASTS,
  /// The states themselves: memory, stacks, buffers, sleepers. Clocks are no part of them, so that a use that only
  /// some pasts leave unordered may be missed.
  RX_STATES,
};

/// A program and the bounds of its exploration.
typedef struct {
  uint32_t threads;
  /// x86-TSO: stores that are not sequentially consistent wait in a buffer per thread.
  bool store_buffers;
  /// RX_SLEEP_SETS, which needs all interleavings, RX_PASTS or RX_STATES.
  uint32_t remember;
  /// Most preemptions in an execution; -1 = all interleavings.
  int32_t preemptions;
  /// Most futex waits in an execution that return for no reason.
  uint32_t spurious;
  /// A sleeper with a deadline whom nobody will wake is no failure.
  bool deadlines_rescue;
  /// A protocol may miss a wake-up, and sleepers look again by themselves: see RX_SECOND_LOOK.
  bool second_looks_rescue;
  /// The exploration ends after so many executions; 0 = never.
  uint64_t execution_limit;
  /// An execution with more operations is a livelock.
  uint32_t step_limit;
  /// Runs before every execution, outside of the scheduler, after the arena was put back.
  void (*begin)(void *context);
  void (*body)(void *context, uint32_t thread);
  /// Runs after every complete execution, outside of the scheduler; may call `rx_fail`.
  void (*end)(void *context);
  /// What `rx_event` calls; may call `rx_fail`.
  void (*event)(void *context, uint32_t thread, uint32_t code);
  void *context;
} rx_program;

typedef struct {
  /// Runs of the program, complete or cut because the rest is known from another run.
  uint64_t executions, complete;
  /// Operations that were scheduled, over all executions; different states, where they are remembered.
  uint64_t steps, states;
  uint32_t longest;
  /// Whether nothing within the bounds is left.
  bool exhausted;
  /// What went wrong, NULL if nothing did, and the schedule. Valid until the thread explores again.
  const char *failure, *schedule;
  /// The operations of a replay, one a line.
  const char *trace;
} rx_result;

/// Runs all schedules of the program within its bounds, until one fails.
rx_result rx_explore(const rx_program *program);

/// Runs one schedule, as `rx_result.schedule` gave it, and writes down its operations.
rx_result rx_replay(const rx_program *program, const char *schedule);

// ---- memory -------------------------------------------------------------------------------------

/// Zeroed memory at an address that is the same in every execution; NULL when the arena is full.
void *rx_reserve(size_t bytes);
/// Empties the arena, all but what `rx_arena_keep` kept, and zeroes it.
void rx_arena_reset(void);
/// Keeps what is reserved now over resets.
void rx_arena_keep(void);

// ---- operations of the program ------------------------------------------------------------------
// Outside of an execution they act at once. Sizes are 1, 2, 4 or 8 bytes.

uint64_t rx_load(const void *address, uint32_t size, uint32_t order);
void rx_store(void *address, uint32_t size, uint64_t value, uint32_t order);
/// Returns the old value.
uint64_t rx_update(void *address, uint32_t size, uint32_t what, uint64_t operand, uint32_t order);
/// Returns the old value, which is `expected` if the exchange was made.
uint64_t rx_compare_exchange(void *address, uint32_t size, uint64_t expected, uint64_t desired,
                             uint32_t success, uint32_t failure);
/// As the system call: 0, -EAGAIN, or -ETIMEDOUT as a choice of the schedule if there is a deadline.
int32_t rx_futex_wait(uint32_t *word, uint32_t expected, uint64_t deadline);
int32_t rx_futex_wake(uint32_t *word, int32_t count);
/// The caller polls: another thread may run, at no cost.
void rx_relax(void);
/// The caller waits for something that it cannot name: another thread runs, if one can.
void rx_yield(void);
/// Begins at 1; at a deadline's expiry it is the deadline at least.
uint64_t rx_monotonic_ns(void);

/// The number of the running thread of the program; outside, what `rx_set_thread` said.
uint32_t rx_thread(void);
void rx_set_thread(uint32_t thread);
/// A word of the running thread, zero at the beginning of an execution.
uint64_t *rx_tls(uint32_t index);

// ---- what programs check ------------------------------------------------------------------------

/// Uses the keys whose bits are set: an operation that other threads may come before or after. Fails when a use
/// that it conflicts with is not ordered before it by synchronisation (happens-before).
void rx_touch(uint32_t keys, bool write);
/// The number of operations that `thread` has done.
uint32_t rx_epoch(uint32_t thread);
/// Whether the first `epoch` operations of `other` happen before what the running thread does next.
bool rx_knows(uint32_t other, uint32_t epoch);
/// The running thread makes a new request: what expired before does not count.
void rx_begin_request(void);
/// Whether a deadline of the thread's request expired.
bool rx_timed_out(uint32_t thread);
/// The program's own code tells what it checks that something happened.
void rx_event(uint32_t code);
/// Clears the stack below the caller: what earlier calls left there is no part of a state.
void rx_clean_stack(void);
/// Adds a line to the trace of a replay.
void rx_note(const char *text);
/// Ends the execution with a failure.
_Noreturn void rx_fail(const char *message);

#endif
