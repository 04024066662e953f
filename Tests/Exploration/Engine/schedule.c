// SPDX-License-Identifier: Apache-2.0
//
// Coroutines and executions.
//
// A thread that announces an operation decides itself who goes on, and switches straight to that coroutine. A
// coroutine is made once; between executions it is thrown back to its beginning, whatever it was doing.

#include "world.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <ucontext.h>

// ---- coroutines ---------------------------------------------------------------------------------

static _Thread_local unsigned starting;
static _Thread_local ucontext_t creator, created;

static void finish(rx_world *w, unsigned self) {
  rx_thread_state *me = &w->threads[self];
  while (me->buffered != 0) rx_flush_one(w, self);
  me->state = RX_DONE;
  if (w->trace) rx_log(w, self, "ends");
  rx_schedule(w, (int)self);
  abort();  // a finished thread is never chosen
}

static void coroutine(void) {
  unsigned self = starting;
  rx_world *w = rx_here;
  if (_setjmp(w->threads[self].pristine) == 0) swapcontext(&created, &creator);
  // Every execution comes here.
  w = rx_here;
  self = (unsigned)w->running;
  w->program->body(w->program->context, self);
  finish(w, self);
}

static void make_coroutine(rx_world *w, unsigned self) {
  rx_thread_state *me = &w->threads[self];
  me->stack = malloc(RX_STACK_BYTES);
  if (me->stack == NULL || getcontext(&created) != 0) {
    fputs("explorer: no memory for a stack\n", stderr);
    abort();
  }
  created.uc_stack.ss_sp = me->stack;
  created.uc_stack.ss_size = RX_STACK_BYTES;
  created.uc_link = NULL;
  makecontext(&created, coroutine, 0);
  starting = self;
  swapcontext(&creator, &created);
}

static _Noreturn void leave(rx_world *w) {
  w->running = -1;
  _longjmp(w->main, 1);
}

static _Noreturn void resume(rx_world *w, unsigned thread) {
  rx_thread_state *t = &w->threads[thread];
  w->running = (int)thread;
  if (t->pending.op == RX_OP_START) {
    t->pending.op = RX_OP_WOKEN;
    _longjmp(t->pristine, 1);
  }
  _longjmp(t->context, 1);
}

/// Chooses until a thread is to go on, and lets it; returns if that is `self`.
static void decide(rx_world *w, int self) {
  while (true) {
    int picked = rx_pick(w);
    if (picked < 0) leave(w);
    unsigned kind = rx_kind((uint8_t)picked), thread = rx_owner((uint8_t)picked);
    rx_thread_state *t = &w->threads[thread];
    if (kind == RX_FLUSH) {
      rx_flush_one(w, thread);
      if (rx_meets_buffers(w, (unsigned)w->committed)) continue;
      // Nothing is left to decide: the thread goes on.
      thread = (unsigned)w->committed;
      t = &w->threads[thread];
      kind = RX_RUN;
    } else if (kind == RX_RUN && w->committed < 0 && rx_meets_buffers(w, thread)) {
      w->committed = (int)thread;
      continue;
    }
    w->committed = -1;
    if (kind != RX_RUN) {
      // The sleeper leaves the queue: an operation on it, as waking is.
      rx_event_write(w, thread, rx_queue_of(t->futex));
      t->state = RX_READY;
      t->pending = (rx_pending){.op = RX_OP_WOKEN};
      t->result = kind == RX_TIMEOUT ? -ETIMEDOUT : 0;
      if (kind == RX_TIMEOUT) {
        t->timed_out = t->timed_out || t->deadline < RX_SECOND_LOOK;
        rx_clock_passes(w, thread, t->deadline);
      } else {
        w->spurious_used++;
      }
    }
    w->current = (int)thread;
    if ((int)thread != self) resume(w, thread);
    w->running = self;
    return;
  }
}

__attribute__((noinline)) void rx_clean_stack(void) {
  volatile char below[4096];
  memset((char *)below, 0, sizeof below);
}

static inline char *stack_pointer(void) {
  char *value;
#if defined(__x86_64__)
  __asm__ volatile("mov %%rsp, %0" : "=r"(value));
#elif defined(__aarch64__)
  __asm__ volatile("mov %0, sp" : "=r"(value));
#else
  value = __builtin_frame_address(0);
#endif
  return value;
}

// Saved before anything is decided: what the context holds is then the caller's, and part of the state.
__attribute__((noinline)) void rx_schedule(rx_world *w, int self) {
  if (self < 0) {
    decide(w, self);
    return;
  }
  w->threads[self].stack_pointer = stack_pointer();
  if (_setjmp(w->threads[self].context) == 0) decide(w, self);
  rx_clean_stack();
}

uint64_t rx_state_hash(rx_world *w) {
  uint64_t hash = rx_arena_hash(w, rx_mix(w->now, w->spurious_used));
  for (unsigned i = 0; i < w->program->threads; i++) {
    const rx_thread_state *t = &w->threads[i];
    hash = rx_mix(hash, (uint64_t)t->state * 4 + t->yielded * 2 + t->relaxed);
    hash = rx_mix(hash, (uint64_t)t->pending.op);
    for (uint32_t k = 0; k < t->buffered; k++) {
      const rx_buffered *store = &t->buffer[k];
      hash = rx_mix(rx_mix(hash, store->address), store->value * 16 + store->order);
    }
    hash = rx_hash_words(rx_mix(hash, t->buffered), t->tls, sizeof t->tls);
    if (t->state == RX_DONE || t->pending.op == RX_OP_START) continue;
    hash = rx_mix(rx_mix(hash, (uint64_t)(uint32_t)t->result * 2 + t->timed_out), t->pending.address);
    if (t->state == RX_SLEEPING) {
      // Who was there first, not the number of tickets.
      unsigned before = 0;
      for (unsigned k = 0; k < w->program->threads; k++)
        before += w->threads[k].state == RX_SLEEPING && w->threads[k].ticket < t->ticket;
      hash = rx_mix(rx_mix(hash, t->futex), before);
    }
    hash = rx_hash_words(hash, t->context, sizeof t->context);
    hash = rx_hash_words(hash, t->stack_pointer, (size_t)(t->stack + RX_STACK_BYTES - t->stack_pointer));
  }
  return hash;
}

// ---- executions ---------------------------------------------------------------------------------

static void start_threads(rx_world *w) {
  w->generation++;
  w->tickets = 0;
  w->now = 1;
  w->spurious_used = w->preemptions_used = w->steps = w->depth = w->taken_count = 0;
  w->current = w->committed = -1;
  w->cut = false;
  w->failure[0] = 0;
  w->sleep = 0;
  memset(w->keys, 0, sizeof w->keys);
  for (unsigned i = 0; i < w->program->threads; i++) {
    rx_thread_state *t = &w->threads[i];
    t->state = RX_READY;
    t->pending = (rx_pending){.op = RX_OP_START};
    t->relaxed = t->yielded = t->timed_out = false;
    memset(t->clock, 0, sizeof t->clock);
    t->chain = rx_mix(i, 17);
    t->buffered = 0;
    t->buffer_chain = rx_mix(i, 19);
    memset(t->tls, 0, sizeof t->tls);
  }
}

void rx_run_execution(rx_world *w) {
  rx_arena_restore(w);
  start_threads(w);
  w->running = -1;
  if (w->program->begin) w->program->begin(w->program->context);
  if (_setjmp(w->main) == 0) rx_schedule(w, -1);
  w->running = -1;
  if (w->failure[0] == 0 && !w->cut && w->program->end) {
    if (_setjmp(w->main) == 0) w->program->end(w->program->context);
  }
}

_Noreturn void rx_fail(const char *message) {
  rx_world *w = rx_here;
  if (w == NULL) {
    fprintf(stderr, "explorer: a failure outside of an execution: %s\n", message);
    abort();
  }
  if (message != NULL) rx_fail_in(w, "%s", message);
  if (w->trace) fprintf(w->trace, "FAILS: %s\n", w->failure);
  leave(w);
}

void rx_fail_in(rx_world *w, const char *format, ...) {
  if (w->failure[0] != 0) return;
  va_list list;
  va_start(list, format);
  vsnprintf(w->failure, sizeof w->failure, format, list);
  va_end(list);
}

void rx_log(rx_world *w, unsigned thread, const char *format, ...) {
  fprintf(w->trace, "%*s%u: ", (int)thread * 4, "", thread);
  va_list list;
  va_start(list, format);
  vfprintf(w->trace, format, list);
  va_end(list);
  fputc('\n', w->trace);
}

// ---- traps --------------------------------------------------------------------------------------
// A program with a mistake in it may trap or run wild. That is a result, not the end of the tests.

static const int traps[] = {SIGSEGV, SIGBUS, SIGILL, SIGTRAP, SIGFPE};
static struct sigaction old_actions[sizeof traps / sizeof traps[0]];
static char trap_stack[64 << 10];
static stack_t old_stack;

static void trapped(int signal) {
  rx_world *w = rx_inside();
  if (w == NULL) {
    // Not ours: let it happen again with the action that was there.
    for (size_t i = 0; i < sizeof traps / sizeof traps[0]; i++) sigaction(traps[i], &old_actions[i], NULL);
    return;
  }
  rx_fail_in(w, "thread %d traps (signal %d)", w->running, signal);
  rx_fail(NULL);
}

static void catch_traps(void) {
  stack_t stack = {.ss_sp = trap_stack, .ss_size = sizeof trap_stack};
  sigaltstack(&stack, &old_stack);
  // No mask is changed on delivery, so none is to be put back when the handler leaves by a jump.
  struct sigaction action = {.sa_handler = trapped, .sa_flags = SA_ONSTACK | SA_NODEFER};
  for (size_t i = 0; i < sizeof traps / sizeof traps[0]; i++) sigaction(traps[i], &action, &old_actions[i]);
}

static void release_traps(void) {
  for (size_t i = 0; i < sizeof traps / sizeof traps[0]; i++) sigaction(traps[i], &old_actions[i], NULL);
  sigaltstack(&old_stack, NULL);
}

// ---- the world ----------------------------------------------------------------------------------

static pthread_mutex_t turn = PTHREAD_MUTEX_INITIALIZER;
static _Thread_local rx_world *kept;

void rx_open_world(const rx_program *program);
void rx_close_world(void);

/// The arena is one for the process, so one thread explores at a time.
void rx_open_world(const rx_program *program) {
  pthread_mutex_lock(&turn);
  if (kept == NULL) {
    kept = calloc(1, sizeof *kept);
    if (kept == NULL) abort();
    kept->snapshot = malloc(4u << 20);
    if (kept->snapshot == NULL) abort();
  }
  rx_world *w = kept;
  if (program->threads == 0 || program->threads > RX_THREADS || program->step_limit == 0) {
    fputs("explorer: a program has 1 to 4 threads and a step limit\n", stderr);
    abort();
  }
  w->program = program;
  rx_here = w;
  w->running = -1;
  for (unsigned i = 0; i < program->threads; i++)
    if (w->threads[i].stack == NULL) make_coroutine(w, i);
  rx_arena_save(w);
  catch_traps();
}

void rx_close_world(void) {
  release_traps();
  rx_arena_restore(rx_here);
  rx_here = NULL;
  pthread_mutex_unlock(&turn);
}

static _Thread_local uint32_t main_thread;

uint32_t rx_thread(void) {
  rx_world *w = rx_here;
  return w != NULL && w->running >= 0 ? (uint32_t)w->running : main_thread;
}

void rx_set_thread(uint32_t thread) { main_thread = thread; }

void rx_event(uint32_t code) {
  rx_world *w = rx_inside();
  if (w != NULL && w->program->event) w->program->event(w->program->context, (uint32_t)w->running, code);
}

uint64_t *rx_tls(uint32_t index) {
  static _Thread_local uint64_t outside[RX_TLS_WORDS];
  rx_world *w = rx_inside();
  return w == NULL ? &outside[index] : &w->threads[w->running].tls[index];
}

uint32_t rx_epoch(uint32_t thread) { return rx_here == NULL ? 0 : rx_here->threads[thread].clock[thread]; }

bool rx_knows(uint32_t other, uint32_t epoch) {
  rx_world *w = rx_inside();
  return w != NULL && w->threads[w->running].clock[other] >= epoch;
}

bool rx_timed_out(uint32_t thread) { return rx_here != NULL && rx_here->threads[thread].timed_out; }

void rx_begin_request(void) {
  rx_world *w = rx_inside();
  if (w != NULL) w->threads[w->running].timed_out = false;
}

void rx_note(const char *text) {
  rx_world *w = rx_inside();
  if (w != NULL && w->trace) rx_log(w, (unsigned)w->running, "%s", text);
}
