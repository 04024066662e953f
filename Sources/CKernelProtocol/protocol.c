// SPDX-License-Identifier: Apache-2.0
//
// The parts of the protocol that both sides run.

#define _GNU_SOURCE
#include "KernelProtocol.h"
#include "KernelReplay.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define PAGE 4096u

// Shared futexes: the word is in two address spaces.
//
// Who stores sees a sleeper, or the sleeper sees what was stored: both are ordered with the other's word (seq_cst), and
// the kernel looks at the word again before it puts anyone to sleep. A sleeper that was killed costs a system call.
void kp_signal(uint32_t *word, uint32_t *sleepers, uint32_t value) {
  __atomic_store_n(word, value, __ATOMIC_SEQ_CST);
  if (__atomic_load_n(sleepers, __ATOMIC_SEQ_CST) != 0) syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

int kp_open_process(int32_t process) {
  long descriptor = syscall(SYS_pidfd_open, process, 0);
  return descriptor < 0 ? -errno : (int)descriptor;
}

// Linux kernel/exit.c `do_exit`: `exit_mm` comes before `exit_notify`, which makes the descriptor readable.
int kp_wait_for_end(int descriptor, int milliseconds) {
  struct pollfd poll_for = {.fd = descriptor, .events = POLLIN};
  int count;
  do count = poll(&poll_for, 1, milliseconds);
  while (count < 0 && errno == EINTR);
  int result = count > 0 ? 0 : count == 0 ? -ETIMEDOUT : -errno;
  close(descriptor);
  return result;
}

uint32_t kp_wait(uint32_t *word, uint32_t *sleepers, uint32_t old, int milliseconds) {
  // An answer takes some microseconds, less than going to sleep and being woken: 75,000 operations/s where a
  // fifth of this spinning gave 17,000.
  for (int i = 0; i < 1000; i++) {
    uint32_t now = __atomic_load_n(word, __ATOMIC_ACQUIRE);
    if (now != old) return now;
#if defined(__x86_64__)
    __builtin_ia32_pause();
#endif
  }
  struct timespec limit = {milliseconds / 1000, (long)(milliseconds % 1000) * 1000000};
  __atomic_fetch_add(sleepers, 1, __ATOMIC_SEQ_CST);
  syscall(SYS_futex, word, FUTEX_WAIT, old, &limit, NULL, 0);
  __atomic_fetch_sub(sleepers, 1, __ATOMIC_SEQ_CST);
  return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

int kp_window_of(const struct kp_window *windows, uint64_t address) {
  for (int i = 0; i < KP_WINDOWS; i++)
    if (address >= windows[i].start && address < windows[i].end) return i;
  return -1;
}

int kp_near(const struct kp_window *windows, const struct kp_place *place, int64_t result,
            struct kp_window *range) {
  uint64_t start = place->follows_result && result >= 0 ? (uint64_t)result : place->address;
  start &= ~(uint64_t)(PAGE - 1);
  int w = kp_window_of(windows, start);
  if (w < 0) return 0;
  uint64_t room = windows[w].end - start;
  uint64_t end = place->length >= room ? windows[w].end : start + place->length;
  range->start = start - windows[w].start > KP_MARGIN ? start - KP_MARGIN : windows[w].start;
  range->end = windows[w].end - end > KP_MARGIN ? end + KP_MARGIN : windows[w].end;
  return 1;
}

// Four chains, of every fourth word each, which a processor works on at the same time. Each step is a bijection of the
// chain for a given word, and of the word for a given chain: a word that differs is always seen, if it is the only one.
uint64_t kp_hash(const void *page) {
  const uint64_t factor = 0x9e3779b97f4a7c15u;
  uint64_t chains[4] = {0xcbf29ce484222325u, 0x84222325cbf29ce4u, 0x9ce484222325cbf2u, 0x2325cbf29ce48422u};
  const unsigned char *bytes = page;
  for (size_t i = 0; i < PAGE; i += 32) {
    uint64_t words[4];
    memcpy(words, bytes + i, 32);
    for (int k = 0; k < 4; k++) {
      chains[k] = (chains[k] ^ words[k]) * factor;
      chains[k] ^= chains[k] >> 29;
    }
  }
  uint64_t hash = chains[0];
  for (int k = 1; k < 4; k++) {
    hash = (hash ^ chains[k]) * factor;
    hash ^= hash >> 29;
  }
  return hash;
}

int kp_helper_path(char *path, size_t size) {
  static const char name[] = "KernelHelper";
  ssize_t length = readlink("/proc/self/exe", path, size);
  if (length < 0) return -errno;
  while (length > 0 && path[length - 1] != '/') length--;
  if ((size_t)length + sizeof name > size) return -ENAMETOOLONG;
  memcpy(path + length, name, sizeof name);
  return access(path, X_OK) == 0 ? 0 : -errno;
}

// Linux Documentation/filesystems/proc.rst. Not "sd": the kernel's tracking of soft-dirty pages is its own. Not "gu": that
// a mapping may have guards is a mark for fork, which a space does not have (docs/linux.md).
uint64_t kp_flag(const char *name) {
  static const char names[] = "rdwrexshmrmwmemsgdpfloiosrrrdcdelfacnrhtsfarwfddmmhgnhmgumuwslssnldp";
  if ((name[0] == 's' && name[1] == 'd') || (name[0] == 'g' && name[1] == 'u')) return 0;
  for (int i = 0; names[2 * i] != 0; i++)
    if (names[2 * i] == name[0] && names[2 * i + 1] == name[1]) return 1ull << i;
  return 1ull << 63;
}

int kp_make_channel(void) {
  // Inherited on purpose: no close-on-exec.
  int descriptor = memfd_create("rangeland-kernel-helper", 0);
  if (descriptor < 0) return -errno;
  if (ftruncate(descriptor, (off_t)(KP_PROCESSES * sizeof(struct kp_channel))) < 0) {
    int error = errno;
    close(descriptor);
    return -error;
  }
  return descriptor;
}

int kr_make_memory(uint64_t bytes) {
  int descriptor = memfd_create("rangeland-kernel-replay", MFD_CLOEXEC);
  if (descriptor < 0) return -errno;
  if (ftruncate(descriptor, (off_t)bytes) < 0) {
    int error = errno;
    close(descriptor);
    return -error;
  }
  return descriptor;
}
