// SPDX-License-Identifier: Apache-2.0
//
// The two-letter names of VMA flags.
//
// Source: Linux Documentation/filesystems/proc.rst, `VmFlags`; in the order of the kernel's bits.

extension VMAFlags {
  private static let names: [(VMAFlags, String)] = [
    (.read, "rd"), (.write, "wr"), (.execute, "ex"), (.shared, "sh"), (.mayRead, "mr"),
    (.mayWrite, "mw"), (.mayExecute, "me"), (.mayShare, "ms"), (.growsDown, "gd"),
    (.locked, "lo"), (.sequentialAccess, "sr"), (.randomAccess, "rr"), (.dontFork, "dc"),
    (.special, "de"), (.lockOnFault, "lf"), (.account, "ac"), (.noReserve, "nr"),
    (.wipeOnFork, "wf"), (.dontDump, "dd"), (.hugePage, "hg"), (.noHugePage, "nh"),
    (.mergeable, "mg"), (.sealed, "sl"),
  ]

  /// The flags by name.
  var listedNames: [String] {
    Self.names.compactMap { contains($0.0) ? $0.1 : nil }
  }
}
