// SPDX-License-Identifier: Apache-2.0
//
// Written to make every call that changes mappings, from four threads: not a real load. Usage: every-call ROUNDS
#define _GNU_SOURCE
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef SYS_mseal
#define SYS_mseal 462
#endif
#define PAGE 4096ul
static int rounds, file;
// Pages cannot be dropped while mlockall has locked them.
static pthread_rwlock_t locking = PTHREAD_RWLOCK_INITIALIZER;

static void touch(char *at, size_t pages) {
  for (size_t i = 0; i < pages; i++) at[i * PAGE] = (char)i;
}

static void *work(void *seed) {
  long number = (long)seed;
  for (int i = 0; i < rounds; i++) {
    pthread_rwlock_rdlock(&locking);
    char *a = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    touch(a, 4);
    mprotect(a + 4 * PAGE, PAGE, PROT_NONE);
    madvise(a, 2 * PAGE, MADV_DONTNEED);
    madvise(a, 4 * PAGE, MADV_FREE);
    madvise(a, 4 * PAGE, i & 1 ? MADV_DONTFORK : MADV_SEQUENTIAL);
    char *b = mremap(a + 8 * PAGE, 4 * PAGE, 12 * PAGE, MREMAP_MAYMOVE);
    touch(b, 12);
    b = mremap(b, 12 * PAGE, 6 * PAGE, 0);
    mlock(b, 2 * PAGE);
    munlock(b, 2 * PAGE);
    mlock2(b, 2 * PAGE, MLOCK_ONFAULT);
    unsigned char there[6];
    mincore(b, 6 * PAGE, there);
    munmap(b, 6 * PAGE);
    munmap(a, 8 * PAGE);
    munmap(a + 12 * PAGE, 4 * PAGE);
    char *p = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
    munmap(p, 4 * PAGE);
    char *l = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_LOCKED, -1, 0);
    munmap(l, 2 * PAGE);
    char *f = mmap(NULL, 8 * PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, file, (number * 16) * PAGE);
    touch(f, 3);
    msync(f, 4 * PAGE, MS_ASYNC);
    madvise(f, 4 * PAGE, MADV_WILLNEED);
    remap_file_pages(f + 4 * PAGE, 2 * PAGE, 0, number * 16, 0);
    munmap(f, 8 * PAGE);
    char *c = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE, file, 0);
    touch(c, 2);
    munmap(c, 4 * PAGE);
    pthread_rwlock_unlock(&locking);
    if (i % 50 == 25 && number == 0) {
      sbrk(64 * PAGE);
      touch((char *)sbrk(0) - 32 * PAGE, 8);
      sbrk(-(long)(32 * PAGE));
      pthread_rwlock_wrlock(&locking);
      mlockall(MCL_CURRENT);
      munlockall();
      pthread_rwlock_unlock(&locking);
      pid_t child = fork();
      if (child == 0) _exit(0);
      waitpid(child, NULL, 0);
      // Sealed until the end.
      char *s = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
      touch(s, 1);
      syscall(SYS_mseal, s, PAGE, 0);
    }
  }
  return NULL;
}

int main(int count, char **arguments) {
  rounds = count > 1 ? atoi(arguments[1]) : 100;
  file = open("every-call.data", O_RDWR | O_CREAT | O_TRUNC, 0600);
  if (file < 0 || ftruncate(file, 256 * PAGE) != 0) return 1;
  pthread_t threads[4];
  for (long i = 0; i < 4; i++) pthread_create(&threads[i], NULL, work, (void *)i);
  for (int i = 0; i < 4; i++) pthread_join(threads[i], NULL);
  return 0;
}
