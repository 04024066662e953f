// SPDX-License-Identifier: Apache-2.0
//
// Which schedules are run: depth-first search over the choices, by running the program again from its start.
//
// Without a preemption bound: sleep sets. A choice that was explored at a decision sleeps in the branches beside
// it until an operation that depends on it is done; what only reorders independent operations is run once.
// With a bound: states are remembered by the hash of their happens-before past, with the thread that runs and the
// preemptions used; what follows a remembered state is not run again. The two are not combined: a schedule that
// a sleep set removes may be the only one of its class within the bound.
// A buffered store reaches memory as late as makes a difference: right before another thread's access to its address, or
// with its own thread's next locked operation. All other times are equivalent to one of these. So when a thread was
// chosen whose next access meets somebody's buffer there is a second decision: stores reach memory now, or the thread
// goes on without them. Within a preemption bound, to go on without costs as much as a preemption.

#include "world.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

void rx_open_world(const rx_program *program);
void rx_close_world(void);

// ---- states that were seen ----------------------------------------------------------------------

/// The past of a state, as far as its order matters.
static uint64_t past_hash(const rx_world *w) {
  uint64_t key = rx_mix(23, w->spurious_used);
  for (unsigned i = 0; i < w->program->threads; i++) {
    const rx_thread_state *t = &w->threads[i];
    key = rx_mix(rx_mix(key, t->chain), t->buffer_chain);
    key = rx_mix(key, (uint64_t)t->state * 4 + t->yielded * 2 + t->relaxed);
  }
  return key;
}

static bool is_bounded(const rx_world *w) { return w->program->preemptions >= 0; }
static bool has_sleep_sets(const rx_world *w) { return w->program->remember == RX_SLEEP_SETS; }

static uint64_t state_key(rx_world *w) {
  uint64_t key = w->program->remember == RX_STATES ? rx_state_hash(w) : past_hash(w);
  key = rx_mix(key, (uint64_t)(w->committed + 1));
  if (!is_bounded(w)) return key;
  // What a switch costs depends on who runs.
  bool runs = w->current >= 0 && w->threads[w->current].state == RX_READY && !w->threads[w->current].relaxed;
  return rx_mix(key, runs ? (uint64_t)w->current + 37 : 31);
}

static void grow_visits(rx_world *w) {
  uint64_t old_count = w->visits ? w->visit_mask + 1 : 0, count = old_count ? old_count * 2 : 1u << 14;
  rx_visit *old = w->visits;
  w->visits = calloc(count, sizeof *w->visits);
  if (w->visits == NULL) abort();
  w->visit_mask = count - 1;
  for (uint64_t i = 0; i < old_count; i++) {
    if (old[i].preemptions_plus_one == 0) continue;
    uint64_t at = old[i].key & w->visit_mask;
    while (w->visits[at].preemptions_plus_one != 0) at = (at + 1) & w->visit_mask;
    w->visits[at] = old[i];
  }
  free(old);
}

/// Whether the state was reached before with no more preemptions; remembers it otherwise.
static bool was_seen(rx_world *w) {
  if (w->visits == NULL || w->visit_count * 2 > w->visit_mask) grow_visits(w);
  uint64_t key = state_key(w), at = key & w->visit_mask;
  while (w->visits[at].preemptions_plus_one != 0) {
    if (w->visits[at].key == key) {
      if (!is_bounded(w) || w->visits[at].preemptions_plus_one <= w->preemptions_used + 1) return true;
      w->visits[at].preemptions_plus_one = w->preemptions_used + 1;
      return false;
    }
    at = (at + 1) & w->visit_mask;
  }
  w->visits[at] = (rx_visit){key, w->preemptions_used + 1};
  w->visit_count++;
  return false;
}

// ---- choosing -----------------------------------------------------------------------------------

static bool is_second_look(uint64_t deadline) { return deadline >= RX_SECOND_LOOK && deadline != UINT64_MAX; }

/// Whether the thread has slept longest of those that look again by themselves: they do in turn.
static bool looks_again_first(const rx_world *w, unsigned t) {
  if (!is_second_look(w->threads[t].deadline)) return false;
  for (unsigned other = 0; other < w->program->threads; other++) {
    const rx_thread_state *o = &w->threads[other];
    if (o->state == RX_SLEEPING && is_second_look(o->deadline) && o->ticket < w->threads[t].ticket) return false;
  }
  return true;
}

/// Preemptions that the choice costs.
static uint32_t cost(const rx_world *w, uint8_t choice) {
  if (w->committed >= 0) return rx_kind(choice) == RX_RUN;
  if (rx_kind(choice) == RX_FLUSH || w->current < 0 || (int)rx_owner(choice) == w->current) return 0;
  const rx_thread_state *now = &w->threads[w->current];
  return now->state == RX_READY && !now->relaxed && !now->yielded;
}

/// All choices, the running thread first: the first path has no preemption.
static uint8_t choices(rx_world *w, uint8_t out[RX_CHOICES], bool *anyone_runs) {
  uint8_t n = 0;
  unsigned count = w->program->threads, first = w->current < 0 ? 0 : (unsigned)w->current;
  if (w->committed >= 0) {
    for (unsigned t = 0; t < count; t++)
      if ((int)t != w->committed && rx_meets(w, (unsigned)w->committed, t)) out[n++] = rx_choice(RX_FLUSH, t);
    out[n++] = rx_choice(RX_RUN, (unsigned)w->committed);
    *anyone_runs = true;
    return n;
  }
  *anyone_runs = false;
  for (int pass = 0; pass < 2 && n == 0; pass++)
    for (unsigned i = 0; i < count; i++) {
      unsigned t = (first + i) % count;
      // Who yielded goes on only when nobody else can.
      if (w->threads[t].state == RX_READY && (pass == 1 || !w->threads[t].yielded)) out[n++] = rx_choice(RX_RUN, t);
    }
  *anyone_runs = n != 0;
  for (unsigned t = 0; t < count; t++) {
    if (w->threads[t].state != RX_SLEEPING) continue;
    if (w->threads[t].deadline < RX_SECOND_LOOK || (!*anyone_runs && looks_again_first(w, t)))
      out[n++] = rx_choice(RX_TIMEOUT, t);
    if (*anyone_runs && w->spurious_used < w->program->spurious) out[n++] = rx_choice(RX_SPURIOUS, t);
  }
  return n;
}

/// Nobody can run: everything is done, or who sleeps is not woken any more.
static int stuck(rx_world *w, uint8_t n) {
  unsigned sleepers = 0, last = 0;
  for (unsigned t = 0; t < w->program->threads; t++)
    if (w->threads[t].state == RX_SLEEPING) {
      sleepers++;
      last = t;
    }
  if (sleepers == 0) return -1;
  for (unsigned t = 0; t < w->program->threads; t++)
    if (w->threads[t].state == RX_SLEEPING && is_second_look(w->threads[t].deadline) &&
        w->program->second_looks_rescue)
      return 0;
  if (n != 0 && w->program->deadlines_rescue) return 0;
  rx_fail_in(w, "%u thread(s) sleep and nobody is left to wake them: thread %u waits on %s%s", sleepers, last,
             rx_name(w->threads[last].futex), n != 0 ? " (only a deadline helps)" : "");
  return -1;
}

static rx_node *node_at(rx_world *w, uint32_t depth) {
  if (depth >= w->capacity) {
    w->capacity = w->capacity ? w->capacity * 2 : 1024;
    w->nodes = realloc(w->nodes, w->capacity * sizeof *w->nodes);
    if (w->nodes == NULL) abort();
  }
  return &w->nodes[depth];
}

/// What sleeps after the node's current choice: what slept or was explored before, unless it depends on it.
static uint16_t sleep_after(rx_world *w, const rx_node *node) {
  uint16_t candidates = node->sleep, kept = 0;
  for (uint8_t i = 0; i < node->current; i++) candidates |= (uint16_t)(1u << node->choices[i]);
  for (uint8_t choice = 0; choice < RX_CHOICES; choice++)
    if (candidates >> choice & 1 && rx_independent(w, choice, node->choices[node->current])) kept |= (uint16_t)(1u << choice);
  return kept;
}

/// Writes the choice down: a schedule names all operations, those that are no points to switch too.
static void note_choice(rx_world *w, uint8_t choice) {
  if (w->taken_count == w->taken_capacity) {
    w->taken_capacity = w->taken_capacity ? w->taken_capacity * 2 : 1024;
    w->taken = realloc(w->taken, w->taken_capacity);
    if (w->taken == NULL) abort();
  }
  w->taken[w->taken_count++] = choice;
  w->result.steps++;
}

static int take(rx_world *w, uint8_t choice) {
  w->preemptions_used += cost(w, choice);
  note_choice(w, choice);
  w->depth++;
  return choice;
}

static int pick_forced(rx_world *w, const uint8_t *possible, uint8_t n) {
  uint8_t choice = w->taken_count < w->forced_count ? w->forced[w->taken_count] : possible[0];
  if (memchr(possible, choice, n) == NULL) {
    rx_fail_in(w, "the schedule does not fit the program: choice %u", w->taken_count);
    return -1;
  }
  return take(w, choice);
}

void rx_pass(rx_world *w, unsigned self) {
  if (w->forced != NULL) {
    // A replay does not know what was shared: it switches wherever the schedule says.
    rx_schedule(w, (int)self);
    return;
  }
  note_choice(w, rx_choice(RX_RUN, self));
  if (++w->steps > w->program->step_limit) {
    rx_fail_in(w, "no end after %u operations: a livelock", w->steps);
    rx_fail(NULL);
  }
}

int rx_pick(rx_world *w) {
  uint8_t possible[RX_CHOICES];
  bool anyone_runs;
  uint8_t n = choices(w, possible, &anyone_runs);
  if (!anyone_runs && stuck(w, n) < 0) return -1;
  if (++w->steps > w->program->step_limit) {
    rx_fail_in(w, "no end after %u operations: a livelock", w->steps);
    return -1;
  }
  if (w->forced != NULL) return pick_forced(w, possible, n);
  rx_node *node = node_at(w, w->depth);
  if (w->depth >= w->replay) {
    // Where there is no choice the execution goes on even through states that were seen: if it goes round in a
    // circle that is found by the limit of its length.
    if (!has_sleep_sets(w) && n > 1 && was_seen(w)) {
      w->cut = true;
      return -1;
    }
    node->count = node->current = 0;
    node->sleep = w->sleep;
    for (uint8_t i = 0; i < n; i++) {
      bool affordable =
          !is_bounded(w) || w->preemptions_used + cost(w, possible[i]) <= (uint32_t)w->program->preemptions;
      bool sleeps = w->committed < 0 && w->sleep >> possible[i] & 1;
      if (affordable && !sleeps) node->choices[node->count++] = possible[i];
    }
    if (node->count == 0) {
      w->cut = true;
      return -1;
    }
  } else if (memchr(possible, node->choices[node->current], n) == NULL) {
    rx_fail_in(w, "explorer: the program is not a function of its schedule (choice %u)", w->depth);
    return -1;
  }
  if (has_sleep_sets(w)) w->sleep = sleep_after(w, node);
  return take(w, node->choices[node->current]);
}

// ---- the search ---------------------------------------------------------------------------------

static void write_schedule(rx_world *w) {
  char *text = NULL;
  size_t bytes = 0;
  FILE *out = open_memstream(&text, &bytes);
  if (out == NULL) abort();
  for (uint32_t i = 0; i < w->taken_count;) {
    uint32_t end = i;
    while (end < w->taken_count && w->taken[end] == w->taken[i]) end++;
    fprintf(out, "%s%.1s%u", i ? " " : "", &"rfts"[rx_kind(w->taken[i])], rx_owner(w->taken[i]));
    if (end - i > 1) fprintf(out, "x%u", end - i);
    i = end;
  }
  fclose(out);
  free(w->schedule);
  w->schedule = text;
}

static rx_result finish_result(rx_world *w) {
  if (w->failure[0] != 0) {
    write_schedule(w);
    w->result.failure = w->failure;
    w->result.schedule = w->schedule;
  }
  w->result.states = w->visit_count;
  return w->result;
}

static void start_search(rx_world *w) {
  free(w->visits);
  w->visits = NULL;
  w->visit_mask = w->visit_count = 0;
  w->replay = 0;
  w->sharing_grew = false;
}

static void reset_search(rx_world *w) {
  start_search(w);
  memset(w->sharing, 0, sizeof w->sharing);
  w->forced = NULL;
  w->forced_count = 0;
  w->trace = NULL;
  memset(&w->result, 0, sizeof w->result);
}

rx_result rx_explore(const rx_program *program) {
  rx_open_world(program);
  rx_world *w = rx_here;
  reset_search(w);
  while (true) {
    rx_run_execution(w);
    w->result.executions++;
    if (!w->cut) w->result.complete++;
    if (w->depth > w->result.longest) w->result.longest = w->depth;
    if (w->failure[0] != 0) break;
    if (w->sharing_grew) {
      start_search(w);
      continue;
    }
    uint32_t depth = w->depth;
    while (depth > 0 && w->nodes[depth - 1].current + 1 >= w->nodes[depth - 1].count) depth--;
    if (depth == 0) {
      w->result.exhausted = true;
      break;
    }
    if (program->execution_limit != 0 && w->result.executions >= program->execution_limit) break;
    w->nodes[depth - 1].current++;
    w->replay = depth;
  }
  rx_result result = finish_result(w);
  rx_close_world();
  return result;
}

/// The choices of a schedule that was written as text; NULL if it is none.
static uint8_t *read_schedule(const char *text, uint32_t *count) {
  uint8_t *out = NULL;
  *count = 0;
  while (*text != 0) {
    while (isspace((unsigned char)*text)) text++;
    if (*text == 0) break;
    const char *kind = strchr("rfts", *text);
    if (kind == NULL || text[1] < '0' || text[1] >= (char)('0' + RX_THREADS)) goto wrong;
    uint8_t choice = rx_choice((unsigned)(kind - "rfts"), (unsigned)(text[1] - '0'));
    unsigned long times = 1;
    text += 2;
    if (*text == 'x') {
      char *end;
      times = strtoul(text + 1, &end, 10);
      text = end;
      if (times == 0 || times > 1000000) goto wrong;
    }
    out = realloc(out, *count + times);
    if (out == NULL) abort();
    memset(out + *count, choice, times);
    *count += (uint32_t)times;
  }
  return out;
wrong:
  free(out);
  return NULL;
}

rx_result rx_replay(const rx_program *program, const char *schedule) {
  rx_open_world(program);
  rx_world *w = rx_here;
  reset_search(w);
  uint8_t *forced = read_schedule(schedule, &w->forced_count);
  free(w->trace_text);
  w->trace_text = NULL;
  size_t bytes = 0;
  if (forced == NULL) {
    w->depth = 0;
    w->failure[0] = 0;
    rx_fail_in(w, "not a schedule: %.100s", schedule);
  } else {
    w->forced = forced;
    w->trace = open_memstream(&w->trace_text, &bytes);
    if (w->trace == NULL) abort();
    rx_run_execution(w);
    fclose(w->trace);
    w->trace = NULL;
    w->result.executions = w->result.complete = 1;
  }
  rx_result result = finish_result(w);
  result.trace = w->trace_text;
  w->forced = NULL;
  free(forced);
  rx_close_world();
  return result;
}
