// SPDX-License-Identifier: Apache-2.0
//
// A value of its own and the latch that guards it, for what is off the hot paths: tables of files, settings.
//
// Not the standard library's `Mutex`: where two threads contend for it ThreadSanitizer does not see who was first, and it
// collapses where there are more threads than processors.

import RangeLocks

/// What `withLock` gives out to one thread at a time. Sections neither sleep nor do input or output.
struct Latched<Value>: ~Copyable, @unchecked Sendable {
  // Sendable: the value is reached through the latch only.
  private let latch: UnsafeMutablePointer<Latch>
  private let value: UnsafeMutablePointer<Value>

  init(_ initial: consuming Value) {
    latch = .allocate(capacity: 1)
    latch.initialize(to: Latch())
    value = .allocate(capacity: 1)
    value.initialize(to: initial)
  }

  deinit {
    value.deinitialize(count: 1)
    value.deallocate()
    latch.deinitialize(count: 1)
    latch.deallocate()
  }

  /// Calls `body` while no other thread is in one. It must not come here again.
  borrowing func withLock<Result, Failure: Error>(
    _ body: (inout Value) throws(Failure) -> Result
  ) throws(Failure) -> Result {
    latch.pointee.lock()
    defer { latch.pointee.unlock() }
    return try body(&value.pointee)
  }
}
