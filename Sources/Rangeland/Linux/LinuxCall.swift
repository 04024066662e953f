// SPDX-License-Identifier: Apache-2.0
//
// The numbers of the system calls that an address space answers, those of x86-64.
//
// Source: Linux arch/x86/entry/syscalls/syscall_64.tbl.

/// A system call of Linux on x86-64 that works on an address space. The raw value is its number.
public enum LinuxCall: Int, CaseIterable, Sendable, Hashable {
  /// Maps: address, length, `PROT_*`, `MAP_*`, file, offset in bytes.
  case mmap = 9
  /// Changes rights: address, length, `PROT_*`.
  case mprotect = 10
  /// Unmaps: address, length.
  case munmap = 11
  /// Moves the program break: address; the result is where it is then.
  case brk = 12
  /// Resizes, moves or doubles: address, length, new length, `MREMAP_*`, new address.
  case mremap = 25
  /// Writes pages of files back: address, length, `MS_*`.
  case msync = 26
  /// Which pages are in memory: address, length, where the bytes go.
  case mincore = 27
  /// Advice: address, length, `MADV_*`.
  case madvise = 28
  /// Resizes a file: file, length.
  case ftruncate = 77
  /// Keeps pages in memory: address, length.
  case mlock = 149
  /// Ends `mlock`: address, length.
  case munlock = 150
  /// Keeps everything in memory: `MCL_*`.
  case mlockall = 151
  /// Ends `mlockall`.
  case munlockall = 152
  /// Markers of the program: `PR_SET_MM`, `PR_SET_MM_*`, and its value.
  case prctl = 157
  /// Shows other pages of the same file: address, length, 0, page offset, flags.
  case remapFilePages = 216
  /// Memory policy of a range: address, length, mode, nodes, their number and one, `MPOL_MF_*`.
  case mbind = 237
  /// The thread's memory policy: mode, nodes, their number and one.
  case setMempolicy = 238
  /// Asks for a memory policy: where mode and nodes go, their number and one, address, `MPOL_F_*`.
  case getMempolicy = 239
  /// Reads another space's memory: process, pieces here, their number, pieces there, their number, 0.
  case processVMReadv = 310
  /// Writes another space's memory: as `processVMReadv`.
  case processVMWritev = 311
  /// Keeps pages in memory, perhaps not before they are touched: address, length, `MLOCK_*`.
  case mlock2 = 325
  /// Forbids changes: address, length, 0.
  case mseal = 462
}
