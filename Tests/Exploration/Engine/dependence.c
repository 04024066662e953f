// SPDX-License-Identifier: Apache-2.0
//
// Which choices depend on each other: two that do not can be run in either order with the same result.

#include "world.h"

typedef struct { uintptr_t address; bool write; } access_to;

/// The addresses that a choice uses; -1 when it may use any.
static int accesses(rx_world *w, uint8_t choice, access_to out[RX_KEYS]) {
  rx_thread_state *t = &w->threads[rx_owner(choice)];
  switch (rx_kind(choice)) {
  case RX_FLUSH: return -1;
  case RX_TIMEOUT:
  case RX_SPURIOUS:
    out[0] = (access_to){rx_queue_of(t->futex), true};
    out[1] = (access_to){RX_CLOCK_ADDRESS, true};
    return 2;
  default: break;
  }
  if (w->program->store_buffers && t->buffered != 0) return -1;
  int n = 0;
  switch (t->pending.op) {
  case RX_OP_START:
  case RX_OP_WOKEN: return 0;
  case RX_OP_YIELD: return -1;
  case RX_OP_WAIT:
    out[n++] = (access_to){t->pending.address, false};
    out[n++] = (access_to){rx_queue_of(t->pending.address), true};
    return n;
  case RX_OP_TOUCH:
    for (unsigned key = 0; key < RX_KEYS; key++)
      if (t->pending.keys >> key & 1) out[n++] = (access_to){RX_KEY_ADDRESS(key), t->pending.write};
    return n;
  default:
    out[n++] = (access_to){t->pending.address, t->pending.write};
    return n;
  }
}

bool rx_independent(rx_world *w, uint8_t a, uint8_t b) {
  if (rx_owner(a) == rx_owner(b)) return false;
  access_to of_a[RX_KEYS], of_b[RX_KEYS];
  int na = accesses(w, a, of_a), nb = accesses(w, b, of_b);
  if (na < 0 || nb < 0) return false;
  for (int i = 0; i < na; i++)
    for (int k = 0; k < nb; k++)
      if (of_a[i].address == of_b[k].address && (of_a[i].write || of_b[k].write)) return false;
  return true;
}

/// Whether what `t` does next meets a store in the buffer of `other`.
bool rx_meets(const rx_world *w, unsigned t, unsigned other) {
  const rx_thread_state *me = &w->threads[t], *o = &w->threads[other];
  bool drains = me->pending.write || me->pending.op == RX_OP_WAIT;
  for (uint32_t i = 0; i < o->buffered; i++) {
    if (o->buffer[i].address == me->pending.address) return true;
    for (uint32_t k = 0; drains && k < me->buffered; k++)
      if (o->buffer[i].address == me->buffer[k].address) return true;
  }
  return false;
}

bool rx_meets_buffers(const rx_world *w, unsigned t) {
  for (unsigned other = 0; other < w->program->threads; other++)
    if (other != t && rx_meets(w, t, other)) return true;
  return false;
}
