// SPDX-License-Identifier: Apache-2.0
//
// A program that is slow for a reason that is hard to see: a pool of threads whose allocator grows an arena for every
// task and trims it afterwards. docs/walk-through.md records it and finds out what that costs.
//
// Each thread has an arena: 64 MiB of reserved addresses, of which it makes 64 KiB at a time usable as a task asks for
// memory (mprotect), and gives all back when the task is over (a mapping without rights over it, as glibc does). No
// thread ever touches another one's arena, and none takes a lock; but every mprotect and every mmap takes the lock of
// the address space, which they share.
//
// Build:  swift build -c release --product ArenaPool
// Run:    .build/release/ArenaPool [THREADS [TASKS [keep]]]      4 threads, 400 tasks; with `keep` arenas are not trimmed

#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum { blocks = 96, block_bytes = 16 << 10, arena_bytes = 64 << 20, grow_bytes = 64 << 10 };

struct arena {
  char *base;
  size_t used, usable;
};

// As if the allocator were a library, whose functions are not made part of their callers: call chains show them.
#define of_library __attribute__((noinline))

static atomic_int next_task;
static int tasks;
static int keeps;
static atomic_ullong total;

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static void reserve(struct arena *arena) {
  arena->base = mmap(NULL, arena_bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (arena->base == MAP_FAILED) fail("mmap");
  arena->used = arena->usable = 0;
}

of_library static unsigned char *take(struct arena *arena, size_t bytes) {
  while (arena->used + bytes > arena->usable) {
    if (mprotect(arena->base + arena->usable, grow_bytes, PROT_READ | PROT_WRITE) != 0) fail("mprotect");
    arena->usable += grow_bytes;
  }
  unsigned char *at = (unsigned char *)arena->base + arena->used;
  arena->used += bytes;
  return at;
}

of_library static void trim(struct arena *arena) {
  arena->used = 0;
  if (keeps) return;
  if (mmap(arena->base, arena->usable, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | MAP_FIXED,
           -1, 0) == MAP_FAILED) fail("mmap");
  arena->usable = 0;
}

of_library static uint64_t task(struct arena *arena, int number) {
  uint64_t sum = 0;
  for (int i = 0; i < blocks; i++) {
    unsigned char *block = take(arena, block_bytes);
    memset(block, number + i, block_bytes);
    for (int j = 0; j < block_bytes; j += 16) sum = sum * 31 + block[j];
  }
  return sum;
}

static void *worker(void *argument) {
  (void)argument;
  struct arena arena;
  reserve(&arena);
  for (;;) {
    int number = atomic_fetch_add(&next_task, 1);
    if (number >= tasks) return NULL;
    atomic_fetch_add(&total, task(&arena, number));
    trim(&arena);
  }
}

int main(int argc, char **argv) {
  int threads = argc > 1 ? atoi(argv[1]) : 4;
  tasks = argc > 2 ? atoi(argv[2]) : 400;
  keeps = argc > 3 && strcmp(argv[3], "keep") == 0;
  if (threads < 1 || threads > 256 || tasks < 1) {
    fprintf(stderr, "usage: %s [THREADS [TASKS [keep]]]\n", argv[0]);
    return 64;
  }
  pthread_t pool[256];
  for (int i = 0; i < threads; i++) {
    if (pthread_create(&pool[i], NULL, worker, NULL) != 0) fail("pthread_create");
  }
  for (int i = 0; i < threads; i++) pthread_join(pool[i], NULL);
  printf("%llu\n", (unsigned long long)total);
  return 0;
}
