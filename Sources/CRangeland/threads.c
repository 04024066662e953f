// SPDX-License-Identifier: Apache-2.0

#include "CRangeland.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

_Thread_local uint32_t rl_thread_index_plus_one;
_Thread_local uint64_t rl_tls_words[RL_TLS_WORDS];

static pthread_mutex_t index_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t index_once = PTHREAD_ONCE_INIT;
static pthread_key_t index_key;
static uint64_t index_used[RL_MAX_THREADS / 64];
static uint32_t index_bound;

static void index_release(void *value) {
  uint32_t index = (uint32_t)(uintptr_t)value - 1;
  rl_thread_index_plus_one = 0;
  pthread_mutex_lock(&index_lock);
  index_used[index / 64] &= ~(1ull << (index % 64));
  pthread_mutex_unlock(&index_lock);
}

static void index_setup(void) {
  if (pthread_key_create(&index_key, index_release) != 0) {
    fputs("rangeland: pthread_key_create failed: too many thread-specific keys\n", stderr);
    abort();
  }
}

uint32_t rl_thread_index_assign(void) {
  pthread_once(&index_once, index_setup);
  pthread_mutex_lock(&index_lock);
  uint32_t found = RL_MAX_THREADS;
  for (uint32_t w = 0; w < RL_MAX_THREADS / 64; w++) {
    if (~index_used[w] != 0) {
      uint32_t bit = (uint32_t)__builtin_ctzll(~index_used[w]);
      index_used[w] |= 1ull << bit;
      found = w * 64 + bit;
      break;
    }
  }
  if (found != RL_MAX_THREADS && found + 1 > index_bound)
    __atomic_store_n(&index_bound, found + 1, __ATOMIC_SEQ_CST);
  pthread_mutex_unlock(&index_lock);
  if (found == RL_MAX_THREADS) {
    fputs("rangeland: more than 8192 threads use the library at once\n", stderr);
    abort();
  }
  rl_thread_index_plus_one = found + 1;
  pthread_setspecific(index_key, (void *)(uintptr_t)(found + 1));
  return found;
}

uint32_t rl_thread_index_bound(void) { return __atomic_load_n(&index_bound, __ATOMIC_SEQ_CST); }

typedef struct {
  void (*body)(void *);
  void *context;
} thread_start;

static void *thread_main(void *argument) {
  thread_start start = *(thread_start *)argument;
  free(argument);
  start.body(start.context);
  return NULL;
}

int rl_start_thread(void (*body)(void *), void *context) {
  thread_start *start = malloc(sizeof *start);
  if (start == NULL) return -ENOMEM;
  *start = (thread_start){body, context};
  pthread_attr_t attributes;
  int error = pthread_attr_init(&attributes);
  if (error == 0) {
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256 << 10);
    // Signals of the program are for its own threads: a new thread has the mask of its maker.
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    error = pthread_create(&thread, &attributes, thread_main, start);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
  }
  if (error != 0) free(start);
  return -error;
}
