// SPDX-License-Identifier: Apache-2.0
//
// Loops like those of will-it-scale, on two threads or in two processes: what the simulation is held against. Each has a
// processor of its own, as it would have on a machine that does nothing else.
//
// Usage:  loops mmap|fault|mprotect threads|processes [ITERATIONS]

#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

static int iterations = 2000;
static void (*body)(void);

static void fail(const char *what) {
  perror(what);
  exit(1);
}

static char *map(size_t length) {
  char *at = mmap(NULL, length, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (at == MAP_FAILED) fail("mmap");
  return at;
}

// mmap1: maps and unmaps 128 KiB without touching it.
static void mmap_loop(void) {
  for (int i = 0; i < iterations; i++) {
    char *at = map(128 << 10);
    if (munmap(at, 128 << 10) != 0) fail("munmap");
  }
}

// page_fault1: maps, touches every page, unmaps.
static void fault_loop(void) {
  for (int i = 0; i < iterations / 20; i++) {
    char *at = map(1 << 20);
    for (size_t page = 0; page < 1 << 20; page += 4096) at[page] = 1;
    if (munmap(at, 1 << 20) != 0) fail("munmap");
  }
}

// mprotect1: takes a right from one page of a mapping and gives it back.
static void mprotect_loop(void) {
  char *at = map(128 << 10);
  for (int i = 0; i < iterations; i++) {
    at[4096] = 1;
    if (mprotect(at + 4096, 4096, PROT_READ) != 0) fail("mprotect");
    if (mprotect(at + 4096, 4096, PROT_READ | PROT_WRITE) != 0) fail("mprotect");
  }
}

/// The `index`th of the processors that this process may use, if there are so many.
static void take_processor(intptr_t index) {
  cpu_set_t all, one;
  if (sched_getaffinity(0, sizeof all, &all) != 0) return;
  for (int number = 0; number < CPU_SETSIZE; number++) {
    if (!CPU_ISSET(number, &all) || index-- > 0) continue;
    CPU_ZERO(&one);
    CPU_SET(number, &one);
    sched_setaffinity(0, sizeof one, &one);
    return;
  }
}

static void *run(void *argument) {
  take_processor((intptr_t)argument);
  body();
  return NULL;
}

int main(int argc, char **argv) {
  if (argc < 3) goto usage;
  if (strcmp(argv[1], "mmap") == 0) body = mmap_loop;
  else if (strcmp(argv[1], "fault") == 0) body = fault_loop;
  else if (strcmp(argv[1], "mprotect") == 0) body = mprotect_loop;
  else goto usage;
  if (argc > 3) iterations = atoi(argv[3]);
  if (strcmp(argv[2], "threads") == 0) {
    pthread_t threads[2];
    for (int i = 0; i < 2; i++) {
      if (pthread_create(&threads[i], NULL, run, (void *)(intptr_t)i) != 0) fail("pthread_create");
    }
    for (int i = 0; i < 2; i++) pthread_join(threads[i], NULL);
    return 0;
  }
  if (strcmp(argv[2], "processes") != 0) goto usage;
  pid_t child = fork();
  if (child < 0) fail("fork");
  take_processor(child == 0);
  body();
  if (child == 0) return 0;
  int status;
  return waitpid(child, &status, 0) == child && status == 0 ? 0 : 1;
usage:
  fprintf(stderr, "usage: %s mmap|fault|mprotect threads|processes [ITERATIONS]\n", argv[0]);
  return 64;
}
