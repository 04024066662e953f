// SPDX-License-Identifier: Apache-2.0
//
// Memory as the explored program sees it: atomics, store buffers, happens-before.
//
// Every operation first lets the scheduler decide, then happens at once. What it depends on is noted twice: as vector
// clocks, by the rules of C++ (acquire, release, release sequences), for the race check of `rx_touch`; and as
// hashes (a read depends on the write before it, a write on the write and the reads before it), so that two
// executions with equal hashes are reorderings of independent operations of each other.

#include "world.h"

#include <errno.h>
#include <string.h>

_Thread_local rx_world *rx_here;

// ---- raw access ---------------------------------------------------------------------------------

static uint64_t get(uintptr_t address, uint32_t size) {
  switch (size) {
  case 1: return *(volatile uint8_t *)address;
  case 2: return *(volatile uint16_t *)address;
  case 4: return *(volatile uint32_t *)address;
  default: return *(volatile uint64_t *)address;
  }
}

static void put(uintptr_t address, uint32_t size, uint64_t value) {
  switch (size) {
  case 1: *(volatile uint8_t *)address = (uint8_t)value; break;
  case 2: *(volatile uint16_t *)address = (uint16_t)value; break;
  case 4: *(volatile uint32_t *)address = (uint32_t)value; break;
  default: *(volatile uint64_t *)address = value; break;
  }
}

static uint64_t updated(uint64_t old, uint32_t what, uint64_t operand) {
  switch (what) {
  case RX_ADD: return old + operand;
  case RX_SUBTRACT: return old - operand;
  case RX_AND: return old & operand;
  case RX_OR: return old | operand;
  case RX_XOR: return old ^ operand;
  case RX_MIN: return old < operand ? old : operand;
  case RX_MAX: return old > operand ? old : operand;
  default: return operand;
  }
}

// ---- hashes and clocks --------------------------------------------------------------------------

uint64_t rx_mix(uint64_t a, uint64_t b) {
  uint64_t z = a * 0x9E3779B97F4A7C15u + b + 0x632BE59BD9B4E019u;
  z = (z ^ (z >> 30)) * 0xBF58476D1CE4E5B9u;
  z = (z ^ (z >> 27)) * 0x94D049BB133111EBu;
  return z ^ (z >> 31);
}

static rx_location *location(rx_world *w, uintptr_t address) {
  uint32_t at = (uint32_t)(rx_mix(address, 1) & (RX_LOCATIONS - 1));
  for (uint32_t probe = 0; probe < RX_LOCATIONS; probe++) {
    rx_location *here = &w->locations[(at + probe) & (RX_LOCATIONS - 1)];
    if (here->generation != w->generation) {
      memset(here, 0, sizeof *here);
      here->generation = w->generation;
      here->address = address;
      return here;
    }
    if (here->address == address) return here;
  }
  rx_fail("explorer: a program with too many atomic locations");
}

void rx_event_local(rx_world *w, unsigned t, uint64_t tag) {
  w->threads[t].chain = rx_mix(w->threads[t].chain, tag);
}

rx_location *rx_event_read(rx_world *w, unsigned t, uintptr_t address) {
  rx_location *l = location(w, address);
  uint64_t event = rx_mix(rx_mix(w->threads[t].chain, address), l->last_write * 2);
  w->threads[t].chain = event;
  l->reads += rx_mix(event, 3);  // a sum: reads do not order each other
  return l;
}

static rx_location *written(rx_world *w, uint64_t *chain, uintptr_t address) {
  rx_location *l = location(w, address);
  uint64_t event = rx_mix(rx_mix(*chain, address), l->last_write * 2 + 1);
  event = rx_mix(event, l->reads);
  *chain = event;
  l->last_write = event;
  l->reads = 0;
  return l;
}

rx_location *rx_event_write(rx_world *w, unsigned t, uintptr_t address) {
  return written(w, &w->threads[t].chain, address);
}

static void join(uint32_t *into, const uint32_t *from) {
  for (unsigned i = 0; i < RX_THREADS; i++)
    if (from[i] > into[i]) into[i] = from[i];
}

/// An operation of `t` begins: its number is part of what it releases.
static void tick(rx_world *w, unsigned t) {
  rx_thread_state *me = &w->threads[t];
  me->clock[t]++;
  me->relaxed = false;
  for (unsigned i = 0; i < w->program->threads; i++)
    if (i != t) w->threads[i].yielded = false;
}

// ---- store buffers ------------------------------------------------------------------------------

void rx_flush_one(rx_world *w, unsigned t) {
  rx_thread_state *me = &w->threads[t];
  rx_buffered store = me->buffer[0];
  me->buffered--;
  memmove(me->buffer, me->buffer + 1, me->buffered * sizeof store);
  // The store depends on its thread's past, not on what the thread did since.
  me->buffer_chain = rx_mix(me->buffer_chain, store.event);
  rx_location *l = written(w, &me->buffer_chain, store.address);
  if (store.order & RX_RELEASES) memcpy(l->clock, store.clock, sizeof l->clock);
  else memset(l->clock, 0, sizeof l->clock);
  put(store.address, store.size, store.value);
  if (w->trace) rx_log(w, t, "  store of 0x%llx to %s reaches memory", (unsigned long long)store.value, rx_name(store.address));
}

static void drain(rx_world *w, unsigned t) {
  while (w->threads[t].buffered != 0) rx_flush_one(w, t);
}

/// The newest store of the thread itself to the address that has not reached memory.
static const rx_buffered *in_buffer(const rx_thread_state *me, uintptr_t address) {
  for (uint32_t i = me->buffered; i-- > 0;)
    if (me->buffer[i].address == address) return &me->buffer[i];
  return NULL;
}

// ---- operations ---------------------------------------------------------------------------------

/// Whether another thread uses the address too, and one of them writes.
static bool is_shared(rx_world *w, unsigned self, uintptr_t address, bool write) {
  uint32_t at = (uint32_t)(rx_mix(address, 41) & (RX_LOCATIONS - 1));
  rx_sharing *here = &w->sharing[at];
  while (here->address != address) {
    if (here->address == 0) {
      here->address = address;
      break;
    }
    at = (at + 1) & (RX_LOCATIONS - 1);
    here = &w->sharing[at];
  }
  uint8_t me = (uint8_t)(1u << self);
  bool was = here->writers != 0 && ((here->readers | here->writers) & ((here->readers | here->writers) - 1)) != 0;
  if (write) here->writers |= me;
  else here->readers |= me;
  bool is = here->writers != 0 && ((here->readers | here->writers) & ((here->readers | here->writers) - 1)) != 0;
  if (is && !was) w->sharing_grew = true;
  return is;
}

static rx_thread_state *announce(rx_world *w, enum rx_op op, uintptr_t address, uint32_t size, bool write) {
  rx_thread_state *me = &w->threads[w->running];
  me->pending = (rx_pending){.op = op, .address = address, .size = size, .write = write};
  unsigned self = (unsigned)w->running;
  if (address != 0 && !is_shared(w, self, address, write)) rx_pass(w, self);
  else rx_schedule(w, (int)self);
  tick(w, self);
  return me;
}

static void acquire(rx_thread_state *me, const rx_location *l, uint32_t order) {
  if (order & RX_ACQUIRES) join(me->clock, l->clock);
}

uint64_t rx_load(const void *pointer, uint32_t size, uint32_t order) {
  uintptr_t address = (uintptr_t)pointer;
  rx_world *w = rx_inside();
  if (w == NULL) return get(address, size);
  unsigned self = (unsigned)w->running;
  const rx_buffered *own = in_buffer(&w->threads[self], address);
  if (own != NULL) {
    is_shared(w, self, address, false);
    rx_event_local(w, self, own->value);
    return own->value;
  }
  rx_thread_state *me = announce(w, RX_OP_LOAD, address, size, false);
  uint64_t value = get(address, size);
  acquire(me, rx_event_read(w, self, address), order);
  if (w->trace) rx_log(w, self, "load  %s = 0x%llx", rx_name(address), (unsigned long long)value);
  return value;
}

void rx_store(void *pointer, uint32_t size, uint64_t value, uint32_t order) {
  uintptr_t address = (uintptr_t)pointer;
  rx_world *w = rx_inside();
  if (w == NULL) {
    put(address, size, value);
    return;
  }
  unsigned self = (unsigned)w->running;
  rx_thread_state *me = &w->threads[self];
  if (w->program->store_buffers && !(order & RX_SEQUENTIAL)) {
    if (me->buffered == RX_BUFFER_LENGTH) rx_fail("explorer: a store buffer is full");
    // Nobody sees it yet: no point to switch.
    tick(w, self);
    rx_event_local(w, self, rx_mix(address, 5));
    rx_buffered *entry = &me->buffer[me->buffered++];
    *entry = (rx_buffered){.address = address, .size = size, .order = order, .value = value, .event = me->chain};
    memcpy(entry->clock, me->clock, sizeof entry->clock);
    is_shared(w, self, address, true);
    if (w->trace) rx_log(w, self, "store %s <- 0x%llx (buffered)", rx_name(address), (unsigned long long)value);
    return;
  }
  announce(w, RX_OP_STORE, address, size, true);
  drain(w, self);
  put(address, size, value);
  rx_location *l = rx_event_write(w, self, address);
  if (order & RX_RELEASES) memcpy(l->clock, me->clock, sizeof l->clock);
  else memset(l->clock, 0, sizeof l->clock);
  if (w->trace) rx_log(w, self, "store %s <- 0x%llx", rx_name(address), (unsigned long long)value);
}

/// The clocks of a read-modify-write: it continues the release sequence that it reads from.
static void modify(rx_thread_state *me, rx_location *l, uint32_t order) {
  acquire(me, l, order);
  if (order & RX_RELEASES) join(l->clock, me->clock);
}

uint64_t rx_update(void *pointer, uint32_t size, uint32_t what, uint64_t operand, uint32_t order) {
  uintptr_t address = (uintptr_t)pointer;
  rx_world *w = rx_inside();
  if (w == NULL) {
    uint64_t old = get(address, size);
    put(address, size, updated(old, what, operand));
    return old;
  }
  unsigned self = (unsigned)w->running;
  rx_thread_state *me = announce(w, RX_OP_UPDATE, address, size, true);
  drain(w, self);
  uint64_t old = get(address, size);
  put(address, size, updated(old, what, operand));
  modify(me, rx_event_write(w, self, address), order);
  if (w->trace) rx_log(w, self, "rmw   %s: 0x%llx -> 0x%llx", rx_name(address), (unsigned long long)old, (unsigned long long)get(address, size));
  return old;
}

uint64_t rx_compare_exchange(void *pointer, uint32_t size, uint64_t expected, uint64_t desired, uint32_t success,
                             uint32_t failure) {
  uintptr_t address = (uintptr_t)pointer;
  rx_world *w = rx_inside();
  if (w == NULL) {
    uint64_t old = get(address, size);
    if (old == expected) put(address, size, desired);
    return old;
  }
  unsigned self = (unsigned)w->running;
  rx_thread_state *me = announce(w, RX_OP_CAS, address, size, true);
  drain(w, self);
  uint64_t old = get(address, size);
  if (old == expected) {
    put(address, size, desired);
    modify(me, rx_event_write(w, self, address), success);
    if (w->trace) rx_log(w, self, "cas   %s: 0x%llx -> 0x%llx", rx_name(address), (unsigned long long)old, (unsigned long long)desired);
  } else {
    acquire(me, rx_event_read(w, self, address), failure);
    if (w->trace) rx_log(w, self, "cas   %s: is 0x%llx, not 0x%llx", rx_name(address), (unsigned long long)old, (unsigned long long)expected);
  }
  return old;
}

// ---- futexes and time ---------------------------------------------------------------------------

int32_t rx_futex_wait(uint32_t *word, uint32_t expected, uint64_t deadline) {
  uintptr_t address = (uintptr_t)word;
  rx_world *w = rx_inside();
  if (w == NULL) {
    fputs("explorer: a wait outside of an execution\n", stderr);
    return -EAGAIN;
  }
  unsigned self = (unsigned)w->running;
  rx_thread_state *me = announce(w, RX_OP_WAIT, address, 4, true);
  drain(w, self);
  rx_event_read(w, self, address);
  uint32_t value = (uint32_t)get(address, 4);
  if (value != expected) {
    if (w->trace) rx_log(w, self, "wait  %s: is 0x%x, not 0x%x", rx_name(address), value, expected);
    return -EAGAIN;
  }
  rx_event_write(w, self, rx_queue_of(address));
  if (w->trace) rx_log(w, self, "wait  %s: sleeps while 0x%x", rx_name(address), value);
  me->futex = address;
  me->ticket = ++w->tickets;
  me->deadline = deadline;
  me->state = RX_SLEEPING;
  rx_schedule(w, (int)self);
  tick(w, self);
  rx_event_local(w, self, 7 + (uint64_t)(uint32_t)me->result);
  if (w->trace) rx_log(w, self, "wait  %s: returns %d", rx_name(address), me->result);
  return me->result;
}

int32_t rx_futex_wake(uint32_t *word, int32_t count) {
  uintptr_t address = (uintptr_t)word;
  rx_world *w = rx_inside();
  if (w == NULL) return 0;
  unsigned self = (unsigned)w->running;
  announce(w, RX_OP_WAKE, rx_queue_of(address), 4, true);
  drain(w, self);
  rx_event_write(w, self, rx_queue_of(address));
  int32_t woken = 0;
  while (woken < count) {
    rx_thread_state *first = NULL;
    for (unsigned i = 0; i < w->program->threads; i++) {
      rx_thread_state *other = &w->threads[i];
      if (other->state == RX_SLEEPING && other->futex == address && (first == NULL || other->ticket < first->ticket))
        first = other;
    }
    if (first == NULL) break;
    first->state = RX_READY;
    first->result = 0;
    first->pending = (rx_pending){.op = RX_OP_WOKEN};
    rx_event_local(w, (unsigned)(first - w->threads), w->threads[self].chain);
    woken++;
  }
  if (w->trace) rx_log(w, self, "wake  %s: %d", rx_name(address), woken);
  return woken;
}

void rx_relax(void) {
  rx_world *w = rx_inside();
  if (w == NULL) return;
  w->threads[w->running].relaxed = true;
  rx_event_local(w, (unsigned)w->running, 11);
}

void rx_yield(void) {
  rx_world *w = rx_inside();
  if (w == NULL) return;
  w->threads[w->running].yielded = true;
  rx_event_local(w, (unsigned)w->running, 13);
  announce(w, RX_OP_YIELD, 0, 0, false);
}

uint64_t rx_monotonic_ns(void) {
  rx_world *w = rx_inside();
  if (w == NULL) return 1;
  unsigned self = (unsigned)w->running;
  announce(w, RX_OP_CLOCK, RX_CLOCK_ADDRESS, 8, false);
  rx_event_read(w, self, RX_CLOCK_ADDRESS);
  return w->now;
}

void rx_clock_passes(rx_world *w, unsigned t, uint64_t deadline) {
  if (deadline >= RX_SECOND_LOOK || deadline <= w->now) return;
  is_shared(w, t, RX_CLOCK_ADDRESS, true);
  rx_event_write(w, t, RX_CLOCK_ADDRESS);
  w->now = deadline;
}

void rx_touch(uint32_t keys, bool write) {
  rx_world *w = rx_inside();
  if (w == NULL) return;
  unsigned self = (unsigned)w->running;
  rx_thread_state *me = &w->threads[self];
  me->pending = (rx_pending){.op = RX_OP_TOUCH, .keys = keys, .write = write};
  rx_schedule(w, (int)self);
  tick(w, self);
  if (w->trace) rx_log(w, self, "%s keys 0x%x", write ? "write" : "read ", keys);
  for (unsigned key = 0; key < RX_KEYS; key++) {
    if (!(keys >> key & 1)) continue;
    if (write) rx_event_write(w, self, RX_KEY_ADDRESS(key));
    else rx_event_read(w, self, RX_KEY_ADDRESS(key));
    unsigned writer = w->keys[key].writer;
    bool ordered = me->clock[writer] >= w->keys[key].write_epoch;
    for (unsigned other = 0; write && other < RX_THREADS; other++)
      ordered = ordered && (other == self || me->clock[other] >= w->keys[key].read_epoch[other]);
    if (!ordered) {
      rx_fail_in(w, "race: thread %u %s key %u without being ordered after another thread's use", self,
                 write ? "writes" : "reads", key);
      rx_fail(NULL);
    }
    if (write) {
      w->keys[key].writer = self;
      w->keys[key].write_epoch = me->clock[self];
    } else {
      w->keys[key].read_epoch[self] = me->clock[self];
    }
  }
}
