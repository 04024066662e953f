// SPDX-License-Identifier: Apache-2.0
//
// Where tests stop an operation inside its range phase. Checked builds only; nothing elsewhere.

import CRangeland
import Synchronization

/// Parks the first operation of a chosen kind that comes by, until it is let go.
struct ParkPoint: ~Copyable {
  #if RANGELAND_CHECKS
    /// Operation + 1 that is to be parked, 0 = none.
    private let armed = Atomic<UInt32>(0)
    /// 0 = nobody, 1 = parked, 2 = let go.
    private let state = Atomic<UInt32>(0)
    /// Whether operations that pass let other threads run.
    private let yields = Atomic<Bool>(false)

    /// From now on every operation that passes yields the processor, holding its lock: threads meet even where
    /// there are fewer processors than threads.
    borrowing func yieldAlways() { yields.store(true, ordering: .relaxed) }

    /// A hook that every operation calls as it passes, as the bits of a retained `ParkHook`; 0 = none.
    private let hook = Atomic<UInt>(0)

    /// From now on every operation that passes calls `hook`, holding its lock. Set once; it is never let go.
    borrowing func callAlways(_ hook: ParkHook) {
      self.hook.store(
        UInt(bitPattern: Unmanaged.passRetained(hook).toOpaque()), ordering: .releasing)
    }

    /// The next operation of this kind parks after it got its lock.
    borrowing func arm(_ operation: OperationKind) {
      state.store(0, ordering: .relaxed)
      armed.store(UInt32(operation.rawValue) + 1, ordering: .releasing)
    }

    /// Whether an operation stands here.
    var isOccupied: Bool { state.load(ordering: .acquiring) == 1 }

    /// Waits until an operation stands here.
    borrowing func waitUntilOccupied() {
      while !isOccupied { rl_yield() }
    }

    /// Lets the parked operation go on.
    borrowing func letGo() {
      state.store(2, ordering: .releasing)
    }
  #endif

  /// An operation passes by, holding its lock.
  @inline(__always)
  borrowing func pass(_ operation: OperationKind) {
    #if RANGELAND_CHECKS
      if yields.load(ordering: .relaxed) { rl_yield() }
      // Acquires what the hook was made with.
      if let hook = UnsafeRawPointer(bitPattern: hook.load(ordering: .acquiring)) {
        Unmanaged<ParkHook>.fromOpaque(hook)._withUnsafeGuaranteedRef { $0.pass(operation) }
      }
      let wanted = UInt32(operation.rawValue) + 1
      if armed.load(ordering: .relaxed) == wanted,
        armed.compareExchange(expected: wanted, desired: 0, ordering: .acquiringAndReleasing)
          .exchanged
      {
        state.store(1, ordering: .releasing)
        while state.load(ordering: .acquiring) != 2 { rl_yield() }
        state.store(0, ordering: .relaxed)
      }
    #endif
  }
}

/// What a test does inside every operation.
final class ParkHook: Sendable {
  let pass: @Sendable (OperationKind) -> Void
  init(_ pass: @escaping @Sendable (OperationKind) -> Void) { self.pass = pass }
}

extension AddressSpace {
  /// Test hook: operations yield the processor while they hold their lock. Checked builds only.
  package func yieldInsideOperations() {
    #if RANGELAND_CHECKS
      park.yieldAlways()
    #endif
  }
}
