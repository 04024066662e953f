// SPDX-License-Identifier: Apache-2.0
//
// The memory of the explored program: one block at a fixed address, put back before every execution.

#include "world.h"

#include <string.h>

#define ARENA_BYTES (4u << 20)
static _Alignas(4096) char arena[ARENA_BYTES];
static size_t arena_used, arena_kept, arena_peak;

void *rx_reserve(size_t bytes) {
  size_t rounded = (bytes + 4095) & ~(size_t)4095;
  if (rounded > ARENA_BYTES - arena_used) return NULL;
  void *start = arena + arena_used;
  arena_used += rounded;
  if (arena_used > arena_peak) arena_peak = arena_used;
  return start;
}

void rx_arena_reset(void) {
  memset(arena, 0, arena_peak);
  arena_used = arena_peak = arena_kept;
}

void rx_arena_keep(void) { arena_kept = arena_used; }

void rx_arena_save(rx_world *w) {
  w->snapshot_bytes = arena_used;
  memcpy(w->snapshot, arena, arena_used);
}

void rx_arena_restore(rx_world *w) {
  memcpy(arena, w->snapshot, w->snapshot_bytes);
  memset(arena + w->snapshot_bytes, 0, arena_peak - w->snapshot_bytes);
  arena_used = arena_peak = w->snapshot_bytes;
}

uint64_t rx_hash_words(uint64_t hash, const void *start, size_t bytes) {
  const uint64_t *word = start;
  for (size_t i = 0; i < bytes / 8; i++) {
    hash = (hash ^ word[i]) * 0x9E3779B97F4A7C15u;
    hash ^= hash >> 29;
  }
  return hash;
}

#define PAGE 4096u
#define LINE 128u

uint64_t rx_arena_hash(const rx_world *w, uint64_t hash) {
  static const char zero[PAGE];
  for (size_t page = 0; page < arena_used; page += PAGE) {
    bool is_new = page >= w->snapshot_bytes;
    const char *before = is_new ? zero : w->snapshot + page;
    if (memcmp(arena + page, before, PAGE) == 0) continue;
    for (size_t line = 0; line < PAGE; line += LINE) {
      if (memcmp(arena + page + line, before + line, LINE) == 0) continue;
      hash = rx_hash_words(hash ^ (page + line), arena + page + line, LINE);
    }
  }
  return rx_mix(hash, arena_used);
}

const char *rx_name(uintptr_t address) {
  static _Thread_local char names[4][32];
  static _Thread_local unsigned next;
  char *name = names[next++ & 3];
  uintptr_t base = (uintptr_t)arena;
  if (address >= base && address < base + ARENA_BYTES) snprintf(name, sizeof names[0], "+0x%lx", (unsigned long)(address - base));
  else snprintf(name, sizeof names[0], "0x%lx", (unsigned long)address);
  return name;
}
