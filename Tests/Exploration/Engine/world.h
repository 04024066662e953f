// SPDX-License-Identifier: Apache-2.0
//
// The state of an exploration, shared by the files of the engine.

#ifndef RX_WORLD_H
#define RX_WORLD_H

#undef _FORTIFY_SOURCE  // longjmp to another stack is what coroutines are
#include <setjmp.h>
#include <stdio.h>

#include "CExplorer.h"

#define RX_STACK_BYTES (256u << 10)
#define RX_BUFFER_LENGTH 16u
#define RX_LOCATIONS 1024u
#define RX_CHOICES 16u
#define RX_MESSAGE_BYTES 1024u

/// A choice of the scheduler: kind << 2 | thread.
enum { RX_RUN, RX_FLUSH, RX_TIMEOUT, RX_SPURIOUS };
static inline uint8_t rx_choice(unsigned kind, unsigned thread) { return (uint8_t)(kind << 2 | thread); }
static inline unsigned rx_kind(uint8_t choice) { return choice >> 2; }
static inline unsigned rx_owner(uint8_t choice) { return choice & 3; }

/// What a thread does next.
enum rx_op {
  RX_OP_START, RX_OP_LOAD, RX_OP_STORE, RX_OP_UPDATE, RX_OP_CAS, RX_OP_WAIT, RX_OP_WAKE, RX_OP_WOKEN,
  RX_OP_YIELD, RX_OP_TOUCH, RX_OP_CLOCK,
};

typedef struct {
  enum rx_op op;
  uintptr_t address;
  uint32_t size;
  uint32_t keys;
  bool write;
} rx_pending;

typedef struct {
  uintptr_t address;
  uint32_t size;
  uint32_t order;
  uint64_t value;
  uint64_t event;
  uint32_t clock[RX_THREADS];
} rx_buffered;

enum rx_state { RX_READY, RX_SLEEPING, RX_DONE };

typedef struct {
  jmp_buf context, pristine;
  char *stack;
  /// Where the stack ended when the thread last let the scheduler decide.
  char *stack_pointer;
  enum rx_state state;
  rx_pending pending;
  /// Polls: to run another thread instead costs nothing. Yielded: another thread runs first.
  bool relaxed, yielded;
  /// The futex that it sleeps on, its place in the queue, and how the wait ended.
  uintptr_t futex;
  uint64_t ticket, deadline;
  int32_t result;
  bool timed_out;
  /// Happens-before: as a clock, and as the hash of all that this thread's past depends on.
  uint32_t clock[RX_THREADS];
  uint64_t chain;
  rx_buffered buffer[RX_BUFFER_LENGTH];
  uint32_t buffered;
  uint64_t buffer_chain;
  uint64_t tls[RX_TLS_WORDS];
} rx_thread_state;

/// What is known of an address in this execution.
typedef struct {
  uintptr_t address;
  uint64_t generation;
  uint64_t last_write, reads;
  uint32_t clock[RX_THREADS];
} rx_location;

/// Who reads and writes an address in any execution of the exploration: a bit per thread.
typedef struct {
  uintptr_t address;
  uint8_t readers, writers;
} rx_sharing;

/// A decision of the search: what could be done, and which of it is being done.
typedef struct {
  uint8_t choices[RX_CHOICES];
  uint8_t count, current;
  uint16_t sleep;
} rx_node;

typedef struct {
  uint64_t key;
  uint32_t preemptions_plus_one;
} rx_visit;

typedef struct {
  const rx_program *program;
  jmp_buf main;
  /// -1 = outside of an execution.
  int running;
  rx_thread_state threads[RX_THREADS];
  rx_location locations[RX_LOCATIONS];
  uint64_t generation, tickets, now;
  uint32_t spurious_used, preemptions_used, steps, taken_count, taken_capacity;
  /// Who ran last; who was chosen while it is open whether stores reach memory first.
  int current, committed;
  bool cut;

  // An operation on an address that no other thread uses, or that nobody writes, is no point to switch. When an
  // address turns out to be shared the exploration begins again.
  rx_sharing sharing[RX_LOCATIONS];
  bool sharing_grew;

  // What programs touch: the last write and the last reads of each key.
  struct { uint32_t writer, write_epoch, read_epoch[RX_THREADS]; } keys[RX_KEYS];

  // The search.
  rx_node *nodes;
  uint32_t depth, replay, capacity;
  uint16_t sleep;
  rx_visit *visits;
  uint64_t visit_mask, visit_count;
  rx_result result;

  // A replay.
  const uint8_t *forced;
  uint32_t forced_count;
  FILE *trace;

  char failure[RX_MESSAGE_BYTES];
  char *schedule, *trace_text;
  uint8_t *taken;
  char *snapshot;
  size_t snapshot_bytes, snapshot_capacity;
} rx_world;

extern _Thread_local rx_world *rx_here;

/// The world, if the caller is a thread of its program.
static inline rx_world *rx_inside(void) {
  rx_world *w = rx_here;
  return w != NULL && w->running >= 0 ? w : NULL;
}

// ---- schedule.c ---------------------------------------------------------------------------------
/// Lets the scheduler decide; returns when the calling thread is to do its pending operation.
void rx_schedule(rx_world *w, int self);
/// Notes an operation that is no point to switch.
void rx_pass(rx_world *w, unsigned self);
void rx_run_execution(rx_world *w);
/// A hash of all that decides how the execution goes on.
uint64_t rx_state_hash(rx_world *w);
/// Prints one line of a replay.
void rx_log(rx_world *w, unsigned thread, const char *format, ...) __attribute__((format(printf, 3, 4)));

// ---- search.c -----------------------------------------------------------------------------------
/// The next choice; -1 when the execution is over, failed or known.
int rx_pick(rx_world *w);

// ---- dependence.c -------------------------------------------------------------------------------
bool rx_independent(rx_world *w, uint8_t a, uint8_t b);
/// Whether what `thread` does next meets a store in the buffer of `other`.
bool rx_meets(const rx_world *w, unsigned thread, unsigned other);
/// Whether what the thread does next meets a store in another thread's buffer.
bool rx_meets_buffers(const rx_world *w, unsigned thread);
void rx_fail_in(rx_world *w, const char *format, ...) __attribute__((format(printf, 2, 3)));

// ---- memory.c -----------------------------------------------------------------------------------
uint64_t rx_mix(uint64_t a, uint64_t b);
void rx_event_local(rx_world *w, unsigned thread, uint64_t tag);
rx_location *rx_event_read(rx_world *w, unsigned thread, uintptr_t address);
rx_location *rx_event_write(rx_world *w, unsigned thread, uintptr_t address);
/// Lets the oldest store of the thread's buffer reach memory.
void rx_flush_one(rx_world *w, unsigned thread);
/// Time goes on to the deadline of a sleeper.
void rx_clock_passes(rx_world *w, unsigned thread, uint64_t deadline);
const char *rx_name(uintptr_t address);
void rx_arena_save(rx_world *w);
void rx_arena_restore(rx_world *w);
/// Mixes in what differs from the beginning of the execution.
uint64_t rx_arena_hash(const rx_world *w, uint64_t hash);
uint64_t rx_hash_words(uint64_t hash, const void *start, size_t bytes);
static inline uintptr_t rx_queue_of(uintptr_t futex) { return futex + 1; }
/// Pseudo addresses: no object is there.
#define RX_CLOCK_ADDRESS ((uintptr_t)0x100)
#define RX_KEY_ADDRESS(key) ((uintptr_t)0x200 + 16 * (uintptr_t)(key))

#endif
