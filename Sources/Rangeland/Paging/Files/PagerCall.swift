// SPDX-License-Identifier: Apache-2.0
//
// Which pagers the calling thread is inside.
//
// Guarantee: a thread that runs an object's pager waits for nothing of that object, and writes nothing back for want of
//   memory: it would wait for itself, or for a thread that waits for it in the same way.
// Mechanism: a list on the stack, whose head is a word of the thread. The gate of an object looks for its own source in it.
// Source: Linux PF_MEMALLOC_NOFS (include/linux/sched/mm.h `memalloc_nofs_save`), for the same reason.

import CRangeland
import SystemPackage

struct PagerCall {
  private let source: UnsafeRawPointer
  private let outer: UInt64

  /// Thread-local word: the innermost call, 0 = none.
  private static var word: UInt32 { 3 }

  /// Makes a call of a pager.
  ///
  /// - Parameter source: of the object that it supplies.
  /// - Throws: what the pager throws; `EIO` for what is no errno.
  static func run(
    for source: FileSource, _ body: () throws(Errno) -> Void
  ) throws(Errno) {
    var call = PagerCall(
      source: UnsafeRawPointer(Unmanaged.passUnretained(source).toOpaque()),
      outer: rl_tls_get(word))
    try withUnsafeMutablePointer(to: &call) { (call) throws(Errno) in
      rl_tls_set(word, UInt64(UInt(bitPattern: call)))
      defer { rl_tls_set(word, call.pointee.outer) }
      do throws(Errno) {
        try body()
      } catch {
        // The books of errors have 12 bits, and 0 means none.
        throw 1...4095 ~= error.rawValue ? error : .ioError
      }
    }
  }

  /// Whether the thread is inside any pager.
  static var isRunning: Bool { rl_tls_get(word) != 0 }

  /// Before the thread waits for something of the object with this source.
  ///
  /// - Precondition: it is not inside that object's pager.
  @inline(__always)
  static func willWait(for source: UnsafeRawPointer) {
    if isRunning { check(source) }
  }

  @inline(never)
  private static func check(_ source: UnsafeRawPointer) {
    var next = rl_tls_get(word)
    // Sound: the words lead to values of calls that have not returned, on this thread's own stack.
    while let call = UnsafePointer<PagerCall>(bitPattern: UInt(next)) {
      precondition(
        call.pointee.source != source,
        "Pager: it needs a page of the object that it supplies, writes it back or changes its size, and would wait for itself"
      )
      next = call.pointee.outer
    }
  }
}
