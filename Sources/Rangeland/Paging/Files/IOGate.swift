// SPDX-License-Identifier: Apache-2.0
//
// Input and output of an object against changes of its size and holes.
//
// Guarantee: while it is closed nobody reads pages in or writes them back, and no fault finds a page.
// Mechanism: a count of those inside and a bit. Who closes it waits until they have left; who comes meanwhile waits
//   until it is open, under no lock of a space.
// Source: Linux `mapping->invalidate_lock`.

import CRangeland
import Synchronization

struct IOGate: ~Copyable {
  /// On the heap, because waiters sleep on its address. Bit 31: closed; below: those inside.
  private let word: UnsafeMutablePointer<Atomic<UInt32>>
  /// Something happened that others wait for: a page came, or was written. The state was changed before, under the
  /// latch of the pages.
  let events = EventCount()
  /// What stands behind the object. Immutable.
  private let source: UnsafeRawPointer

  private static var closed: UInt32 { 1 << 31 }

  /// - Parameter source: whose pager may not wait here.
  init(_ source: Unmanaged<FileSource>) {
    self.source = UnsafeRawPointer(source.toOpaque())
    word = .allocate(capacity: 1)
    word.initialize(to: Atomic(0))
  }

  deinit {
    word.deinitialize(count: 1)
    word.deallocate()
  }

  /// Whether faults have to wait. Exact for who holds the latch of the object's pages and the space lock: who closes
  /// the gate takes both afterwards.
  var isClosed: Bool { word.pointee.load(ordering: .acquiring) & Self.closed != 0 }

  /// Begins to read or write. Waits while the gate is closed. Does not nest.
  borrowing func enter() {
    LockOrder.assertNothingHeld("input or output")
    PagerCall.willWait(for: source)
    var seen = word.pointee.load(ordering: .relaxed)
    while true {
      if seen & Self.closed != 0 {
        sleep(word, seen)
        seen = word.pointee.load(ordering: .relaxed)
        continue
      }
      // Acquires what was done while it was closed.
      let (done, now) = word.pointee.weakCompareExchange(
        expected: seen, desired: seen + 1, ordering: .acquiring)
      if done { return }
      seen = now
    }
  }

  borrowing func leave() {
    let now = word.pointee.subtract(1, ordering: .releasing).newValue
    if now == Self.closed { wake(word) }
  }

  /// Closes it, for one at a time, and waits until nobody is inside.
  borrowing func close() {
    LockOrder.assertNothingHeld("a wait for input and output")
    PagerCall.willWait(for: source)
    while true {
      let old = word.pointee.bitwiseOr(Self.closed, ordering: .acquiring).oldValue
      if old & Self.closed == 0 { break }
      sleep(word, old)
    }
    while true {
      let now = word.pointee.load(ordering: .acquiring)
      if now == Self.closed { return }
      sleep(word, now)
    }
  }

  borrowing func open() {
    word.pointee.store(0, ordering: .releasing)
    wake(word)
  }

  private borrowing func sleep(_ word: UnsafeMutablePointer<Atomic<UInt32>>, _ seen: UInt32) {
    // Sound: an atomic of 32 bits is its 32 bits.
    _ = UnsafeMutableRawPointer(word).withMemoryRebound(to: UInt32.self, capacity: 1) {
      rl_futex_wait($0, seen, .max)
    }
  }

  private borrowing func wake(_ word: UnsafeMutablePointer<Atomic<UInt32>>) {
    _ = UnsafeMutableRawPointer(word).withMemoryRebound(to: UInt32.self, capacity: 1) {
      rl_futex_wake($0, Int32.max)
    }
  }
}
